"""A table of expiry times, which also knows the least recently used address."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

SLOT_US = 250_000
"""The width of a slot in µs: addresses that end in one slot are not ordered, so that setting a time takes constant
time."""

LOOKED_AT_ONCE = 512
"""Addresses that one call examines. A slot may have thousands that were renewed meanwhile."""


class Expiry:
    """A table of times, ordered by time and by last use.

    Renewing a time is the common case: the address stays in the slot of its earlier time, and is moved when that slot
    comes up.
    """

    def __init__(self) -> None:
        self.due_us: dict[str, int] = {}
        """Unix µs by address; to be read only."""
        self.is_behind = False
        """Whether the last call of ``due`` did not examine all addresses that are due."""
        self._recent: OrderedDict[str, None] = OrderedDict()
        """The same addresses, the least recently used first; a separate table, since copying an OrderedDict takes ten
        times as long."""
        self._slots: list[int] = []
        """A heap of the slots that have addresses, and of some that are empty by now."""
        self._at: dict[int, dict[str, None]] = {}
        """The addresses of each slot that has any."""
        self._slot_of: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._by_owner: dict[str, OrderedDict[str, None]] = {}

    def __contains__(self, address: str) -> bool:
        return address in self.due_us

    def set(self, address: str, due_us: int, owner: str = "") -> None:
        """Sets when an address ends (Unix µs), and its owner, if any; counts as a use."""
        self.due_us[address] = due_us
        if owner != self._owners.get(address, ""):
            self._disown(address)
            if owner:
                self._owners[address] = owner
                self._by_owner.setdefault(owner, OrderedDict())[address] = None
        self._recent[address] = None
        self.touch(address)
        slot = due_us // SLOT_US
        queued = self._slot_of.get(address)
        if queued is None or slot < queued:
            self._queue(address, slot)

    def touch(self, address: str) -> None:
        """Counts a use of an address that is in the table; its time stays."""
        self._recent.move_to_end(address)
        owner = self._owners.get(address)
        if owner is not None:
            self._by_owner[owner].move_to_end(address)

    def discard(self, address: str) -> None:
        """Removes an address."""
        if self.due_us.pop(address, None) is not None:
            del self._recent[address]
            self._unqueue(address)
            self._disown(address)

    def due(self, now_us: int, at_most: int) -> list[str]:
        """Returns addresses that are due, in the order of their times, until they are removed or renewed.

        Args:
            now_us: Unix µs.
            at_most: limit of the result; the next call returns the others. Fewer if many had to be examined
                (``is_behind``).
        """
        ready: list[tuple[int, str]] = []
        popped: dict[int, None] = {}
        left = LOOKED_AT_ONCE
        self.is_behind = False
        while self._slots and self._slots[0] * SLOT_US <= now_us and len(ready) < at_most and not self.is_behind:
            slot = heapq.heappop(self._slots)
            if slot in popped or slot not in self._at:
                continue
            popped[slot] = None
            addresses = list(islice(self._at[slot], left))
            left -= len(addresses)
            self.is_behind = not left and (slot + 1) * SLOT_US <= now_us
            for address in addresses:
                due_us = self.due_us[address]
                if due_us <= now_us:
                    ready.append((due_us, address))
                elif due_us // SLOT_US != slot:
                    self._queue(address, due_us // SLOT_US)
        for slot in popped:
            if slot in self._at:
                heapq.heappush(self._slots, slot)
        ready.sort()
        return [address for _, address in ready[:at_most]]

    def least_recent(self, owner: str | None = None) -> Iterator[str]:
        """Yields all addresses, or an owner's, the least recently used first."""
        return iter(self._recent if owner is None else self._by_owner.get(owner, ()))

    def snapshot(self) -> dict[str, int]:
        """Returns a copy of the table: address to Unix µs."""
        return self.due_us.copy()

    def _queue(self, address: str, slot: int) -> None:
        self._unqueue(address)
        addresses = self._at.get(slot)
        if addresses is None:
            addresses = self._at[slot] = {}
            heapq.heappush(self._slots, slot)
            if len(self._slots) > 2 * len(self._at) + 64:
                self._slots = list(self._at)
                heapq.heapify(self._slots)
        addresses[address] = None
        self._slot_of[address] = slot

    def _unqueue(self, address: str) -> None:
        slot = self._slot_of.pop(address, None)
        if slot is not None:
            addresses = self._at[slot]
            del addresses[address]
            if not addresses:
                del self._at[slot]

    def _disown(self, address: str) -> None:
        owner = self._owners.pop(address, None)
        if owner is not None:
            addresses = self._by_owner[owner]
            del addresses[address]
            if not addresses:
                del self._by_owner[owner]
