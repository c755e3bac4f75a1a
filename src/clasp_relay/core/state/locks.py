"""Which session holds the lock of which address (``docs/protocol.md``, Locks)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice


class Locks:
    """The locks that are held, by address and by session."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self.holder: Callable[[str], str | None] = self._holders.get
        """Returns the id of the session that holds the lock of an address."""
        self._addresses: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def take(self, address: str, holder: str) -> None:
        """Gives a lock to a session. Another session's lock passes to it."""
        self.release(address)
        self._holders[address] = holder
        self._addresses.setdefault(holder, {})[address] = None

    def release(self, address: str) -> None:
        """Releases the lock of an address, if it is held."""
        holder = self._holders.pop(address, None)
        if holder is not None:
            addresses = self._addresses[holder]
            del addresses[address]
            if not addresses:
                del self._addresses[holder]

    def of(self, holder: str, at_most: int | None = None) -> list[str]:
        """Returns the addresses whose locks a session holds, some of them or all."""
        return list(islice(self._addresses.get(holder, ()), at_most))
