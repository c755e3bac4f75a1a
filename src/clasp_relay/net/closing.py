"""The end of all connections when the relay stops."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from clasp_relay.errors import CloseCode
from clasp_relay.logs import events

_POLL_S = 0.05


class Closable(Protocol):
    """A connection that is to be closed."""

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has left this process, as far as the transport tells."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes it once all that was sent before is on its way."""

    def abort(self) -> None:
        """Ends it now."""


class CloseAll:
    """Closes connections in batches, then waits for their queues.

    Args:
        reactor: for its clock.
        connections: all that there are, kept up to date by the factory.
        timeout_s: how long to wait from the start; then what is left is aborted.
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
        """Begins, when it has not begun.

        Args:
            code: the WebSocket close code.
            reason: the close reason.
            batch: how many are closed in one turn.

        Returns:
            How many connections had to be aborted.
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
        """Ends the wait when nothing is left to wait for."""
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
