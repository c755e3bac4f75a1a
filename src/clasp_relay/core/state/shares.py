"""How many addresses each subject takes, so that one user cannot take all the room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from clasp_relay.errors import ErrorCode, RequestError


class Move(NamedTuple):
    """Who takes an address before and after a change; empty for nobody."""

    address: str
    before: str
    after: str
    is_written: bool
    """Whether a value is set there, and not only ended."""


class Shares:
    """Counts addresses by the subject that wrote them last, or that a stamp names there.

    Args:
        max_params: how many one subject may have; 0 for no limit.
    """

    def __init__(self, max_params: int) -> None:
        self._max_params = max_params
        self._counts: Counter[str] = Counter()

    def has_room(self, subject: str) -> bool:
        """Tells whether a subject may surely have one more address."""
        return not self._max_params or not subject or self._counts[subject] < self._max_params

    def excess(self, moves: Iterable[Move]) -> Iterator[tuple[str, int, RequestError]]:
        """Finds subjects that would have more than they may by what they write; what only ends always passes.

        Args:
            moves: what is changed together, each address once.

        Yields:
            the subject, how many it would have too many, and what to refuse it with when none can go.
        """
        if not self._max_params:
            return
        more: Counter[str] = Counter()
        written: dict[str, str] = {}
        for address, before, after, is_written in moves:
            more[before] -= 1
            more[after] += 1
            if is_written and after:
                written[after] = address
        for subject, address in written.items():
            over = self._counts[subject] + more[subject] - self._max_params
            if more[subject] > 0 and over > 0:
                text = f"you have set {self._max_params} params, as many as one user may (max-params-per-subject)"
                yield subject, over, RequestError(ErrorCode.OVERLOADED, text, address)

    def move(self, before: str, after: str) -> None:
        """Counts that an address belongs to another subject now."""
        if before == after:
            return
        if after:
            self._counts[after] += 1
        if before:
            self._counts[before] -= 1
            if not self._counts[before]:
                del self._counts[before]
