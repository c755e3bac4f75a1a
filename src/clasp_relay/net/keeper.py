"""Liveness: WebSocket pings at a steady pace, and an end for peers that answer nothing.

One timer serves all connections: each second one thirtieth of them has its turn. A timer per connection
would cost memory, and after a burst of connects also a burst of pings every 30 s.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.logs import events

PING_INTERVAL_S = 30.0
"""How often each connection is pinged: proxies cut connections that are silent for a minute."""

SLOTS = 30
"""Into how many groups the connections are divided."""


class Kept(Protocol):
    """A connection that is looked after. Hashable by identity."""

    def keep_alive(self, interval_s: float) -> None:
        """Is called every ``interval_s`` seconds: pings, or ends a dead connection."""


class Keeper:
    """Looks after all connections.

    Args:
        reactor: for its clock.
        timeout_s: after how long a silence a peer is taken for dead. A peer has at least three pings to answer.
    """

    def __init__(self, reactor: IReactorTime, timeout_s: float) -> None:
        self._reactor = reactor
        self.interval_s = min(PING_INTERVAL_S, timeout_s / 3)
        """How often each connection is looked after."""
        self._slots: list[dict[Kept, None]] = [{} for _ in range(SLOTS)]
        self._slot_of: dict[Kept, int] = {}
        self._next_slot = 0
        self._turn = 0
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def add(self, kept: Kept) -> None:
        """Begins to look after a connection."""
        slot = self._next_slot
        self._next_slot = (slot + 1) % SLOTS
        self._slots[slot][kept] = None
        self._slot_of[kept] = slot
        if self._call is None:
            self._wait()

    def remove(self, kept: Kept) -> None:
        """Forgets a connection; harmless when it is not looked after."""
        slot = self._slot_of.pop(kept, None)
        if slot is None:
            return
        del self._slots[slot][kept]
        if not self._slot_of and self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        self._call = self._reactor.callLater(self.interval_s / SLOTS, self._tick)

    def _tick(self) -> None:
        self._wait()
        slot = self._turn
        self._turn = (slot + 1) % SLOTS
        for kept in list(self._slots[slot]):
            try:
                kept.keep_alive(self.interval_s)
            except Exception:
                events.CONNECTION_FAULT.failure(action="pinged a connection")
