"""The locks: which session holds which address (``docs/protocol.md``, Params)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

LOCK_US = 3600 * 1_000_000
"""Time in µs after the last SET with ``lock`` at which a lock ends, so that no session can hold it for ever."""


class Locks:
    """The locks that are held, by address and by session."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._taken_us: OrderedDict[str, int] = OrderedDict()
        """When each lock was last taken (Unix µs), the oldest first: time never goes back."""
        self.holder: Callable[[str], str | None] = self._holders.get
        """Returns the id of the session that holds the lock of an address."""
        self._addresses: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def take(self, address: str, holder: str, now_us: int) -> None:
        """Gives a lock to a session, or renews it. A lock of another session passes to it.

        Args:
            address: the locked address.
            holder: the session.
            now_us: Unix µs.
        """
        self.release(address)
        self._holders[address] = holder
        self._taken_us[address] = now_us
        self._addresses.setdefault(holder, {})[address] = None

    def release(self, address: str) -> None:
        """Releases the lock of an address, if it is held."""
        holder = self._holders.pop(address, None)
        if holder is not None:
            del self._taken_us[address]
            addresses = self._addresses[holder]
            del addresses[address]
            if not addresses:
                del self._addresses[holder]

    def expired(self, now_us: int, at_most: int) -> list[str]:
        """Returns addresses whose locks have expired, the oldest first.

        Args:
            now_us: Unix µs.
            at_most: limit of the result; the next call returns the others.
        """
        oldest = islice(self._taken_us.items(), at_most)
        return [address for address, taken_us in oldest if taken_us + LOCK_US <= now_us]

    def all(self) -> list[tuple[str, str, int]]:
        """Returns address, holder and the time of each lock (Unix µs), the oldest first."""
        return [(address, self._holders[address], taken_us) for address, taken_us in self._taken_us.items()]

    def of(self, holder: str, at_most: int | None = None) -> list[str]:
        """Returns addresses whose locks a session holds: all of them, or some."""
        return list(islice(self._addresses.get(holder, ()), at_most))
