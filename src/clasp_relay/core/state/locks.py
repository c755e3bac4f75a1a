"""Which session holds the lock of which address."""

from __future__ import annotations

from collections.abc import Callable


class Locks:
    """The locks that are held, by address and by holder."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self.holder: Callable[[str], str | None] = self._holders.get
        """Returns the session that holds the lock of an address."""
        self._addresses: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def take(self, address: str, holder: str) -> None:
        """Gives a lock that is free, or the holder's already, to a session."""
        self._holders[address] = holder
        self._addresses.setdefault(holder, set()).add(address)

    def release(self, address: str) -> None:
        """Frees the lock of an address, if it is held."""
        holder = self._holders.pop(address, None)
        if holder is not None:
            addresses = self._addresses[holder]
            addresses.discard(address)
            if not addresses:
                del self._addresses[holder]

    def release_all(self, holder: str) -> None:
        """Frees every lock of a session."""
        for address in self._addresses.pop(holder, ()):
            del self._holders[address]
