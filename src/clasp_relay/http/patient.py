"""A few requests in a turn of the event loop: a crowd that signs in at once must not keep those who talk waiting.

A request takes 0.1 to 0.3 ms until its work is given to a thread. Two hundred that came together would be one turn.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from clasp_relay.net.plain_http import TLS_BEGIN, response

AT_ONCE = 8
"""From how many connections something is taken in one turn."""


class Queue:
    """What came from connections and is not looked at yet.

    Args:
        clock: calls back in the next turn.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._left = AT_ONCE
        self._waiting: dict[PatientChannel, bytes] = {}
        self._is_scheduled = False

    def take(self, channel: PatientChannel, data: bytes) -> None:
        """Hands data to its channel, now or in one of the next turns; until then no more is read from there."""
        self._schedule()
        if channel not in self._waiting and self._left:
            self._left -= 1
            channel.handle(data)
            return
        self._waiting[channel] = self._waiting.get(channel, b"") + data
        channel.transport.pauseProducing()

    def forget(self, channel: PatientChannel) -> None:
        """A connection is gone."""
        self._waiting.pop(channel, None)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._left = AT_ONCE
        while self._waiting and self._left:
            self._left -= 1
            channel = next(iter(self._waiting))
            data = self._waiting.pop(channel)
            # First, for the channel may want no more itself.
            channel.transport.resumeProducing()
            channel.handle(data)
        if self._waiting:
            self._schedule()


class PatientChannel(HTTPChannel):
    """An HTTP connection whose requests wait for their turn. Its factory sets ``queue``."""

    transport: Any
    queue: Queue
    _has_begun = False

    def dataReceived(self, data: bytes) -> None:
        """Takes bytes."""
        self.queue.take(self, data)

    def handle(self, data: bytes) -> None:
        """Does what they ask for; a client that speaks TLS is told at once, not after a time-out."""
        if not self._has_begun and data.startswith(TLS_BEGIN):
            self.transport.write(response(400, "this port does not speak TLS", "/"))
            self.loseConnection()  # type: ignore[no-untyped-call]
            return
        self._has_begun = True
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.queue.forget(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
