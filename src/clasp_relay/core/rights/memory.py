"""Which kept decisions looked at an address, so that a change there ends exactly those."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from clasp_relay.wire.address import Pattern

K = TypeVar("K", bound=Hashable)


class Dependents(Generic[K]):
    """A table from what was looked up to the decisions that rest on it."""

    def __init__(self) -> None:
        self._by_address: dict[str, set[K]] = {}
        self._by_existence: dict[str, set[K]] = {}
        self._by_pattern: dict[Pattern, set[K]] = {}

    def add(self, key: K, addresses: Iterable[str], existence: Iterable[str], patterns: Iterable[Pattern] = ()) -> None:
        """Notes what a decision rests on.

        Args:
            key: the decision.
            addresses: of which any change counts.
            existence: addresses of which it counts whether something is set there.
            patterns: of whose addresses any change counts.
        """
        for address in addresses:
            self._by_address.setdefault(address, set()).add(key)
        for address in existence:
            self._by_existence.setdefault(address, set()).add(key)
        for pattern in patterns:
            self._by_pattern.setdefault(pattern, set()).add(key)

    def changed(self, address: str, exists: bool, existed: bool) -> Iterable[K]:
        """Returns the decisions that a change puts in doubt; what they rest on has to be noted anew.

        Args:
            address: what has changed.
            exists: whether something is set there now.
            existed: whether something was before.
        """
        if exists == existed and address not in self._by_address and not self._by_pattern:
            return ()
        nothing: set[K] = set()
        found = self._by_address.pop(address, nothing)
        if exists != existed:
            found = found | self._by_existence.pop(address, nothing)
        # Rules hardly ever look up a pattern with wildcards, so there are few to go through.
        for pattern in [each for each in self._by_pattern if each.matches(address)]:
            found = found | self._by_pattern.pop(pattern)
        return found

    def clear(self) -> None:
        """Forgets everything."""
        self._by_address.clear()
        self._by_existence.clear()
        self._by_pattern.clear()
