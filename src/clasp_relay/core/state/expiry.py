"""Which addresses end when, and which of them was used least recently."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator


class Expiry:
    """A table of times, ordered by when they come and by when they were last set.

    Setting a time again is the common case, so the heap keeps the old entry and looks again when that
    comes up; it is made anew when it holds mostly old ones.
    """

    def __init__(self) -> None:
        self.due_us: OrderedDict[str, int] = OrderedDict()
        """Unix µs by address; to be read only."""
        self._heap: list[tuple[int, str]] = []
        self._queued_us: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._by_owner: dict[str, OrderedDict[str, None]] = {}

    def __contains__(self, address: str) -> bool:
        return address in self.due_us

    def set(self, address: str, due_us: int, owner: str = "") -> None:
        """Sets when an address ends (Unix µs) and whose it is, if anybody's; counts as a use of it."""
        self.due_us[address] = due_us
        if owner != self._owners.get(address, ""):
            self._disown(address)
            if owner:
                self._owners[address] = owner
                self._by_owner.setdefault(owner, OrderedDict())[address] = None
        self.touch(address)
        queued_us = self._queued_us.get(address)
        if queued_us is None or due_us < queued_us:
            self._queued_us[address] = due_us
            heapq.heappush(self._heap, (due_us, address))
            if len(self._heap) > 2 * len(self.due_us) + 64:
                self._rebuild()

    def touch(self, address: str) -> None:
        """Counts a use of an address that is in the table, and leaves its time."""
        self.due_us.move_to_end(address)
        owner = self._owners.get(address)
        if owner is not None:
            self._by_owner[owner].move_to_end(address)

    def discard(self, address: str) -> None:
        """Forgets an address."""
        self.due_us.pop(address, None)
        self._disown(address)

    def due(self, now_us: int, at_most: int) -> list[str]:
        """Returns addresses whose time has come, in the order of their times, until they are discarded or set.

        Args:
            now_us: Unix µs.
            at_most: how many; the others come next time.
        """
        ready: list[tuple[int, str]] = []
        while self._heap and self._heap[0][0] <= now_us and len(ready) < at_most:
            _, address = heapq.heappop(self._heap)
            if self._queued_us.pop(address, None) is None:
                continue
            due_us = self.due_us.get(address)
            if due_us is None:
                continue
            if due_us <= now_us:
                ready.append((due_us, address))
            else:
                self._queued_us[address] = due_us
                heapq.heappush(self._heap, (due_us, address))
        for entry in ready:
            self._queued_us[entry[1]] = entry[0]
            heapq.heappush(self._heap, entry)
        return [address for _, address in ready]

    def least_recent(self, owner: str | None = None) -> Iterator[str]:
        """Yields all addresses, or an owner's, the one that was used longest ago first."""
        return iter(self.due_us if owner is None else self._by_owner.get(owner, ()))

    def snapshot(self) -> dict[str, int]:
        """Returns a copy of the table: address to Unix µs."""
        return dict(self.due_us)

    def _disown(self, address: str) -> None:
        owner = self._owners.pop(address, None)
        if owner is not None:
            addresses = self._by_owner[owner]
            del addresses[address]
            if not addresses:
                del self._by_owner[owner]

    def _rebuild(self) -> None:
        self._heap = [(due_us, address) for address, due_us in self.due_us.items()]
        heapq.heapify(self._heap)
        self._queued_us = dict(self.due_us)
