"""Liveness checks: pings each connection at an interval, and ends those whose peers have been silent too long.

One timer serves all connections: each second one thirtieth of them has its turn. A timer per connection
would cost memory, and after a burst of connects also a burst of pings every 30 s.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.logs import events

PING_INTERVAL_S = 30.0
"""Interval in s between two pings of a connection: proxies cut connections that are silent for a minute."""

SLOTS = 30
"""Groups into which the connections are divided."""


class Pinged(Protocol):
    """A connection that is checked. Hashable by identity."""

    def keep_alive(self, interval_s: float) -> None:
        """Called every ``interval_s`` seconds; pings the peer, or ends a connection that was silent too long."""


class Liveness:
    """Checks all connections in turn.

    Args:
        reactor: for its clock.
        timeout_s: idle timeout of a peer, in seconds. At least three pings are sent in that time.
    """

    def __init__(self, reactor: IReactorTime, timeout_s: float) -> None:
        self._reactor = reactor
        self.interval_s = min(PING_INTERVAL_S, timeout_s / 3)
        """The interval between two checks of one connection, in seconds."""
        self._slots: list[dict[Pinged, None]] = [{} for _ in range(SLOTS)]
        self._slot_of: dict[Pinged, int] = {}
        self._next_slot = 0
        self._turn = 0
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def add(self, connection: Pinged) -> None:
        """Begins to check a connection."""
        slot = self._next_slot
        self._next_slot = (slot + 1) % SLOTS
        self._slots[slot][connection] = None
        self._slot_of[connection] = slot
        if self._call is None:
            self._wait()

    def remove(self, connection: Pinged) -> None:
        """Stops checking a connection; does nothing if it is not checked."""
        slot = self._slot_of.pop(connection, None)
        if slot is None:
            return
        del self._slots[slot][connection]
        if not self._slot_of and self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        self._call = self._reactor.callLater(self.interval_s / SLOTS, self._tick)

    def _tick(self) -> None:
        self._wait()
        slot = self._turn
        self._turn = (slot + 1) % SLOTS
        for connection in list(self._slots[slot]):
            try:
                connection.keep_alive(self.interval_s)
            except Exception:
                events.CONNECTION_FAULT.failure(action="pinged a connection")
