"""The base of connections of protocols over plain TCP: admitted, limited, checked and closed as WebSockets are.

They are counted with the WebSocket connections (``net.websocket.ClaspFactory``): the limits of a client address hold
for all of them together, and a stop closes all of them in order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from clasp_relay.core.ports import Codec
from clasp_relay.doors.door import DoorCounts
from clasp_relay.errors import CloseCode
from clasp_relay.logs import events
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.websocket import END_TIMEOUT_S, ClaspFactory, Draining, peer_host

TAKEN_AT_ONCE_BYTES = 1_024
"""Bytes that are handled between two readings of the clock: some hundred of the smallest messages."""


class StreamConnection(Draining, Protocol):
    """A client's connection. A protocol overrides the methods in the first part.

    Args:
        gate: admits connections, those of WebSocket too.
        counts: the counts of the door.
        codec: encodes an ERROR while there is no session.
    """

    transport: Any
    outbox_class = Outbox
    """The class of its outbox."""
    forwarded_for = ""
    """X-Forwarded-For of the HTTP request that it began as; empty if it did not."""

    def __init__(self, gate: ClaspFactory, counts: DoorCounts, codec: Codec) -> None:
        self.gate = gate
        self.counts = counts
        self.codec: Codec = codec
        """See ``outbox.Connection``."""
        self.address = ""
        """The client's address."""
        self.lane = ""
        """See ``net.websocket.CountedConnection``."""
        self.cause = ""
        """The cause of its end, for people, once that is known."""
        self.trace: Callable[[bytes], None] | None = None
        """See ``outbox.Connection``."""
        self._heard = False
        self._silent_s = 0.0
        self._timer: IDelayedCall | None = None
        self._is_ending = False
        self._is_admitted = False
        self._is_waiting = False
        self._tail = b""
        """Received bytes that wait for a later turn."""

    # To be overridden

    @property
    def is_live(self) -> bool:
        """Whether the client has identified itself, so that the deadline for that does not apply."""
        raise NotImplementedError

    @property
    def session_id(self) -> str:
        """The id of its session; empty while there is none."""
        raise NotImplementedError

    @property
    def is_busy(self) -> bool:
        """Whether a message is still being handled, so that later ones have to wait."""
        raise NotImplementedError

    def begin(self, outbox: Outbox) -> None:
        """Begins, since the connection was admitted."""
        raise NotImplementedError

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """Tells the client that the connection was not admitted, if the protocol can."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Handles received bytes. Not called after the session's close."""
        raise NotImplementedError

    def late(self, outbox: Outbox, reason: str) -> None:
        """Tells the client that it has not identified itself in time, if the protocol can."""
        raise NotImplementedError

    def gone(self, cause: str) -> None:
        """Ends the session, if there is one, since the connection is gone. Called once, also without ``begin``."""
        raise NotImplementedError

    def say_end(self, close_code: CloseCode, reason: str) -> None:
        """Tells the client why the session is closed, if the protocol has a message for it."""

    def look_after(self, silent_s: float) -> None:
        """Called every 30 s or more often; nothing was received for ``silent_s`` seconds."""
        raise NotImplementedError

    # From the transport

    def connectionMade(self) -> None:
        """Begins with an accepted TCP connection."""
        gate = self.gate
        self.address = gate.client_address(peer_host(self.transport), self.forwarded_for)
        gate.connected(self, peer_host(self.transport))
        if self.forwarded_for:
            gate.located(self)
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            set_option = getattr(self.transport, option, None)
            if set_option is not None:
                set_option(True)
        if gate.observer.traces:
            self.trace = lambda data: gate.observer.sent(self.session_id, data)
        outbox = self.outbox = self.outbox_class(self, gate.writer, gate.limits.outbox_bytes)
        self.transport.registerProducer(outbox, True)
        refusal = gate.admit(self)
        if refusal is not None:
            self.counts.refused += 1
            gate.turn_away(self.address, refusal)
            self.turned_away(outbox, refusal)
            outbox.close(CloseCode.TRY_AGAIN_LATER, refusal)
            return
        self._is_admitted = True
        self.counts.clients += 1
        self._timer = gate.reactor.callLater(gate.limits.hello_timeout_s, self._is_late)
        self._guarded("began a session", lambda: self.begin(outbox))

    def dataReceived(self, data: bytes) -> None:
        """Takes received bytes; drops them after the session's close."""
        self._heard = True
        self.gate.writer.counters.received_bytes += len(data)
        self._tail += data
        if not self._is_waiting:
            self._take_slice()

    def go_on(self) -> None:
        """Handles the bytes that wait, in a later turn; see ``net.reading``."""
        self._is_waiting = False
        self._take_slice()
        if not self._is_waiting and self.outbox is not None:
            self.transport.resumeProducing()

    def _take_slice(self) -> None:
        """Handles received bytes within the time of this turn."""
        reading = self.gate.reading
        end_s: float | None = None
        is_first = True
        while self._tail:
            outbox = self.outbox
            if outbox is None or outbox.is_closing:
                self._tail = b""
                return
            if not is_first and end_s is None:
                end_s = reading.slice_end_s()
            if self.is_busy or (end_s is not None and reading.now_s() >= end_s):
                self._is_waiting = True
                self.transport.pauseProducing()
                reading.wait(self)
                return
            is_first = False
            some, self._tail = self._tail[:TAKEN_AT_ONCE_BYTES], self._tail[TAKEN_AT_ONCE_BYTES:]
            self._guarded("handled a message", partial(self.take, some))
            if self._timer is not None and self.is_live and not outbox.is_closing:
                self._stop_timer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Ends everything, since the connection is gone."""
        self._stop_timer()
        self.gate.reading.forget(self)
        if self.outbox is not None:
            self.outbox.close_now()
        # ``trace`` holds the connection: a reference cycle.
        self.outbox = self.trace = None
        hung_up = "the client hung up" if reason.check(ConnectionDone) else "the connection was lost"
        cause = self.cause or hung_up
        self.gate.end_queue.add(lambda: self.gone(cause), self.lane)
        if self._is_admitted:
            self.counts.clients -= 1
        self.gate.forget(self)

    # net.outbox.Connection

    def send_close(self, close_code: CloseCode, reason: str) -> None:
        """See ``outbox.Connection``: tells the client, then ends the connection in order."""
        self.cause = self.cause or reason
        self.say_end(close_code, reason)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def expect_end(self) -> None:
        """See ``outbox.Connection``. The first call counts."""
        if self in self.gate.connections and not self._is_ending:
            self._stop_timer()
            self._is_ending = True
            self._timer = self.gate.reactor.callLater(END_TIMEOUT_S, self.abort)

    def answer_ping(self, payload: bytes) -> None:
        """See ``outbox.Connection``; only WebSocket has such pings."""

    def slow(self, waiting_bytes: int) -> None:
        """See ``outbox.Connection``."""
        self.gate.observer.slow(self.session_id, self.address, waiting_bytes)

    def abort(self) -> None:
        """See ``outbox.Connection``."""
        self.cause = self.cause or "given up: it did not take what was sent"
        self._stop_timer()
        self.transport.abortConnection()

    # For the gate: net.closing.Closable, net.liveness.Pinged

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Ends the session."""
        if self.outbox is not None:
            self.outbox.close(close_code, reason)

    def keep_alive(self, interval_s: float) -> None:
        """Checks how long nothing was received."""
        if self.outbox is None or self.outbox.is_closing:
            return
        self._silent_s = 0.0 if self._heard else self._silent_s + interval_s
        self._heard = False
        self.look_after(self._silent_s)

    def _guarded(self, action: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            events.CONNECTION_FAULT.failure(action=action)
            if self.outbox is not None:
                self.outbox.close(CloseCode.INTERNAL, "internal error")

    def _is_late(self) -> None:
        self._timer = None
        outbox = self.outbox
        if outbox is None or self.is_live:
            return
        if not self.is_drained:
            self.abort()
            return
        reason = f"nothing said who the client is within {self.gate.limits.hello_timeout_s:g} s"
        self.late(outbox, reason)
        outbox.close(CloseCode.POLICY_VIOLATION, reason)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class StreamFactory(Factory):
    """Makes the connections of a door.

    Args:
        gate: admits connections.
        counts: the counts of the door.
        make: creates a connection.
    """

    noisy = False

    def __init__(self, gate: ClaspFactory, counts: DoorCounts, make: Callable[[], StreamConnection]) -> None:
        self._gate = gate
        self._counts = counts
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> StreamConnection | None:
        """Makes the protocol for a new TCP connection, or None, which closes it at once."""
        if self._gate.accepts(getattr(addr, "host", "")):
            return self._make()
        self._counts.refused += 1
        return None
