"""Changes that are decided but not applied: the state as the members of a bundle would leave it."""

from __future__ import annotations

from collections.abc import Iterator

from clasp_relay.core.records import Outcome, Param
from clasp_relay.core.state.params import Params
from clasp_relay.core.state.tombstones import Ended
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL


class Draft:
    """The params with some changes on top; nothing of it is applied.

    Args:
        params: what lies below.
    """

    def __init__(self, params: Params) -> None:
        self._params = params
        self._changes: dict[str, Param] = {}
        self._ended: dict[str, Ended] = {}
        self._holders: dict[str, str | None] = {}

    def stage(self, change: Param, *, lock: bool, unlock: bool, stamp: str | None) -> None:
        """Puts one change on top; the arguments are those of ``Params.apply``."""
        address = change.address
        self._changes[address] = change
        self._ended.pop(address, None)
        if change.value == NULL:
            self._holders[address] = None
            self._ended[address] = Ended(change.revision, change.timestamp_us, change.subject, stamp)
        elif unlock:
            self._holders[address] = None
        elif lock:
            self._holders[address] = change.writer

    def outcomes(self) -> Iterator[Outcome]:
        """Yields what would become of each address."""
        for address, change in self._changes.items():
            ended = self._ended.get(address)
            yield Outcome(change, None if ended is None else ended.stamp)

    def get(self, address: str) -> Param | None:
        """Returns what would be set at an address."""
        change = self._changes.get(address)
        if change is None:
            return self._params.get(address)
        return None if change.value == NULL else change

    def match(self, pattern: Pattern) -> Iterator[Param]:
        """Yields the params that would be set and match."""
        for param in self._params.match(pattern):
            if param.address not in self._changes:
                yield param
        for change in self._changes.values():
            if change.value != NULL and pattern.matches(change.address):
                yield change

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address would have ended."""
        if address in self._changes:
            return self._ended.get(address)
        return self._params.ended(address)

    def is_held(self, address: str, subject: str) -> bool:
        """Tells whether a live session holds an address that the draft does not touch."""
        return address not in self._changes and self._params.is_held(address, subject)

    def last_revision(self, address: str) -> int:
        """Returns the last revision that an address would have."""
        change = self._changes.get(address)
        return self._params.last_revision(address) if change is None else change.revision

    def holder(self, address: str) -> str | None:
        """Returns the session that would hold the lock of an address."""
        if address in self._holders:
            return self._holders[address]
        return self._params.holder(address)
