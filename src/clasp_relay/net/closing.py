"""Ends many sessions within bounded time per turn: after mass disconnects, and when the relay stops."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from clasp_relay.core.lanes import Lanes
from clasp_relay.errors import CloseCode
from clasp_relay.logs import events
from clasp_relay.net.reading import share_end_s

_POLL_S = 0.05

ENDS_S = 0.002
"""Time in s for ending sessions in one turn of the event loop."""


class EndQueue:
    """Ends sessions, at once if possible, but only for ``ENDS_S`` in each turn of the event loop.

    Lanes are served round robin. The end of a session may release its locks and tell hundreds of others: 300
    connections that were reset at once delayed all other sessions by more than a second.

    Args:
        reactor: for its clock.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: Lanes[Callable[[], None]] = Lanes()
        self._turn: IDelayedCall | None = None
        self._turn_ends_s = 0.0

    def add(self, end: Callable[[], None], lane: str) -> None:
        """Ends a session, after those of its lane that already wait.

        Args:
            end: the function that ends it.
            lane: the lane of its connection.
        """
        self._waiting.add(end, lane)
        if self._turn is None:
            self._begin_turn()
        self._work()

    def end_all(self) -> None:
        """Ends all sessions that wait, at once."""
        while self._waiting:
            self._end_next()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _begin_turn(self) -> None:
        self._turn = self._reactor.callLater(0, self._next_turn)
        self._turn_ends_s = share_end_s(self._reactor, ENDS_S)

    def _next_turn(self) -> None:
        self._turn = None
        if self._waiting:
            self._begin_turn()
            self._work()

    def _work(self) -> None:
        while self._waiting and self._reactor.seconds() < self._turn_ends_s:
            self._end_next()

    def _end_next(self) -> None:
        try:
            self._waiting.pop()()
        except Exception:
            events.CONNECTION_FAULT.failure(action="ended a session")


class Closable(Protocol):
    """A connection that is to be closed."""

    @property
    def is_drained(self) -> bool:
        """Whether the transport has passed on all that was sent, as far as it tells."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes it once all that was sent before was handed to the socket."""

    def abort(self) -> None:
        """Aborts it."""


class CloseAll:
    """Closes connections in batches, then waits until their queues are empty.

    Args:
        reactor: for its clock.
        connections: all connections, kept up to date by the factory.
        timeout_s: seconds to wait; then the connections that are left are aborted.
    """

    def __init__(self, reactor: Any, connections: AbstractSet[Closable], timeout_s: float) -> None:
        self._reactor = reactor
        self._connections = connections
        self._deadline_s = reactor.seconds() + timeout_s
        self._waiting: list[Closable] = []
        self._call: IDelayedCall | None = None
        self._is_done = False
        self._aborted = 0
        self._waiters: list[Deferred[int]] = []

    def start(self, code: CloseCode, reason: str, batch: int) -> Deferred[int]:
        """Starts to close the connections; only once.

        Args:
            code: the WebSocket close code.
            reason: the close reason.
            batch: connections that are closed in one turn.

        Returns:
            the number of connections that had to be aborted.
        """
        done: Deferred[int] = Deferred()
        self._waiters.append(done)
        if self._call is None and not self._is_done:
            self._waiting = list(self._connections)
            self._close_some(code, reason, batch)
        elif self._is_done:
            self._finish()
        return done

    def check(self) -> None:
        """Ends the wait when all queues are empty."""
        if not self._is_done and not self._waiting and all(each.is_drained for each in self._connections):
            self._finish()

    def _close_some(self, code: CloseCode, reason: str, batch: int) -> None:
        self._call = None
        now, self._waiting = self._waiting[:batch], self._waiting[batch:]
        for connection in now:
            try:
                connection.close(code, reason)
            except Exception:
                events.CONNECTION_FAULT.failure(action="closed a connection")
        if self._waiting:
            self._call = self._reactor.callLater(0, self._close_some, code, reason, batch)
        else:
            self._call = self._reactor.callLater(0, self._poll)

    def _poll(self) -> None:
        self._call = None
        if self._reactor.seconds() >= self._deadline_s:
            left = [each for each in self._connections if not each.is_drained]
            self._aborted = len(left)
            for connection in left:
                connection.abort()
            self._finish()
            return
        self.check()
        if not self._is_done:
            self._call = self._reactor.callLater(_POLL_S, self._poll)

    def _finish(self) -> None:
        self._is_done = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(self._aborted)
