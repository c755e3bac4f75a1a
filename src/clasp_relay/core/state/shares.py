"""Shares: how many addresses and bytes of the state one user, and one client address, may have.

An address counts for its last writer, or for the subject that a stamp names there. When a share is full, its owner's
own params with a life time are evicted, or the write is refused; nothing of other owners is evicted
(``docs/operations.md``, Limits).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from clasp_relay.errors import ErrorCode, RequestError


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """The share of one owner; 0 for no limit.

    Args:
        max_params: number of addresses.
        max_bytes: addresses and values together.
    """

    max_params: int = 0
    max_bytes: int = 0


class Move(NamedTuple):
    """What an owner has at an address before and after a change; an empty owner means nobody."""

    address: str
    before: str
    before_bytes: int
    after: str
    after_bytes: int
    is_written: bool
    """Whether a param is set there, not only a tombstone."""


class Excess(NamedTuple):
    """By how much an owner would exceed its share."""

    owner: str
    params: int
    size_bytes: int
    refusal: RequestError
    """The error of the write if nothing can be evicted."""


class Shares:
    """Counts the addresses and bytes of each owner.

    Args:
        limits: the share of one owner.
        whose: the kind of owner, for refusals: «one user».
    """

    def __init__(self, limits: ShareLimits, whose: str) -> None:
        self._max_params = limits.max_params
        self._max_bytes = limits.max_bytes
        self.is_limited = bool(limits.max_params or limits.max_bytes)
        """Whether there is any limit."""
        self._whose = whose
        self._params: dict[str, int] = {}
        self._bytes: dict[str, int] = {}

    def bytes_of(self, owner: str) -> int:
        """Returns how many bytes an owner has."""
        return self._bytes.get(owner, 0)

    def params_of(self, owner: str) -> int:
        """Returns how many addresses an owner has."""
        return self._params.get(owner, 0)

    def has_room(self, owner: str, more_bytes: int, more_params: int = 0) -> bool:
        """Tells whether one more address, with some bytes, certainly fits an owner's share beside reserved writes."""
        if not owner or not self.is_limited:
            return True
        return (not self._max_params or self._params.get(owner, 0) + more_params < self._max_params) and (
            not self._max_bytes or self._bytes.get(owner, 0) + more_bytes <= self._max_bytes
        )

    def excess(self, moves: Iterable[Move]) -> Iterator[Excess]:
        """Finds owners that would exceed their shares by what they write; ends of params are never refused.

        Args:
            moves: the changes that are applied together, each address once.
        """
        if not self.is_limited:
            return
        params: dict[str, int] = {}
        sizes: dict[str, int] = {}
        written: dict[str, str] = {}
        for address, before, before_bytes, after, after_bytes, is_written in moves:
            params[before] = params.get(before, 0) - 1
            sizes[before] = sizes.get(before, 0) - before_bytes
            params[after] = params.get(after, 0) + 1
            sizes[after] = sizes.get(after, 0) + after_bytes
            if is_written and after:
                written[after] = address
        for owner, address in written.items():
            over_params = self._over(self._params.get(owner, 0), params[owner], self._max_params)
            over_bytes = self._over(self._bytes.get(owner, 0), sizes[owner], self._max_bytes)
            if over_params or over_bytes:
                params_text = f"{self._max_params} params (max-params-per-subject)"
                bytes_text = f"{self._max_bytes} bytes (max-bytes-per-subject)"
                what = params_text if over_params else bytes_text
                text = f"{self._whose} may have set {what}; delete something first"
                yield Excess(owner, over_params, over_bytes, RequestError(ErrorCode.OVERLOADED, text, address))

    def add(self, owner: str, size_bytes: int) -> None:
        """Adds one address to an owner."""
        if owner:
            self._params[owner] = self._params.get(owner, 0) + 1
            self._bytes[owner] = self._bytes.get(owner, 0) + size_bytes

    def remove(self, owner: str, size_bytes: int) -> None:
        """Removes one address from an owner."""
        if owner:
            left = self._params[owner] - 1
            if left:
                self._params[owner] = left
                self._bytes[owner] -= size_bytes
            else:
                del self._params[owner], self._bytes[owner]

    def resize(self, owner: str, more_bytes: int) -> None:
        """Adds a difference in bytes to an owner."""
        if owner:
            self._bytes[owner] += more_bytes

    @staticmethod
    def _over(has: int, more: int, limit: int) -> int:
        return max(0, has + more - limit) if limit and more > 0 else 0
