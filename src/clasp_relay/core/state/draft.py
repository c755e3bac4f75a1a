"""A draft of the state: the params with the changes of a bundle's members, which are not applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from clasp_relay.core.records import Change, Ended, Param
from clasp_relay.core.state.params import MATCH_COST
from clasp_relay.core.state.tree import AddressTree
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL


class Below(Protocol):
    """The state below a draft: the params."""

    def get(self, address: str) -> Param | None:
        """See ``Params``."""

    def match(self, pattern: Pattern) -> Iterator[Param]:
        """See ``Params``."""

    def ended(self, address: str) -> Ended | None:
        """See ``Params``."""

    def last_revision(self, address: str) -> int:
        """See ``Params``."""

    def holder(self, address: str) -> str | None:
        """See ``Params``."""

    def due_us(self, ttl: int | None, written_us: int) -> int | None:
        """See ``Params``."""


class Draft:
    """The params with some writes on top, which are not applied.

    Args:
        params: the state below.
    """

    def __init__(self, params: Below) -> None:
        self._params = params
        self._changes: dict[str, Change] = {}
        self._ended: dict[str, Ended] = {}
        self._holders: dict[str, str | None] = {}
        self._tree: AddressTree | None = None
        """The addresses that these changes would set; None until the first search by a pattern."""

    def stage(self, change: Change) -> None:
        """Adds one write."""
        param = change.param
        address = param.address
        before = self._changes.get(address)
        self._changes[address] = change
        if self._tree is not None:
            _plant(self._tree, before, change)
        self._ended.pop(address, None)
        if param.value == NULL:
            self._holders[address] = None
            self._ended[address] = Ended(param.revision, param.timestamp_us, param.subject, change.stamp)
        elif change.unlock:
            self._holders[address] = None
        elif change.takes_lock:
            self._holders[address] = param.writer

    def outcomes(self) -> Iterator[Change]:
        """Yields the last write at each address."""
        return iter(self._changes.values())

    def get(self, address: str) -> Param | None:
        """Returns the param that would be set at an address."""
        change = self._changes.get(address)
        if change is None:
            return self._params.get(address)
        return None if change.param.value == NULL else change.param

    def match(self, pattern: Pattern) -> Iterator[Param]:
        """Yields matching params that would be set; the search is bounded as in ``Params.match``."""
        if pattern.is_literal:
            found = self.get(pattern.text)
            if found is not None:
                yield found
            return
        changes = self._changes
        for param in self._params.match(pattern):
            if param.address not in changes:
                yield param
        if changes:
            for address in self._planted().first(pattern, MATCH_COST):
                yield changes[address].param

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address would have ended."""
        if address in self._changes:
            return self._ended.get(address)
        return self._params.ended(address)

    def last_revision(self, address: str) -> int:
        """Returns the last revision that an address would have."""
        change = self._changes.get(address)
        return self._params.last_revision(address) if change is None else change.param.revision

    def holder(self, address: str) -> str | None:
        """Returns the session that would hold the lock of an address."""
        if address in self._holders:
            return self._holders[address]
        return self._params.holder(address)

    def due_us(self, ttl: int | None, written_us: int) -> int | None:
        """See ``Params.due_us``."""
        return self._params.due_us(ttl, written_us)

    def _planted(self) -> AddressTree:
        if self._tree is None:
            self._tree = AddressTree()
            for change in self._changes.values():
                _plant(self._tree, None, change)
        return self._tree


def _plant(tree: AddressTree, before: Change | None, change: Change) -> None:
    """Notes whether an address would be set after a further change there."""
    was, is_set = before is not None and before.param.value != NULL, change.param.value != NULL
    if is_set and not was:
        tree.add(change.param.address)
    elif was and not is_set:
        tree.discard(change.param.address)
