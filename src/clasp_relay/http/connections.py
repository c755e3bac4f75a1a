"""HTTP connections: their number, their deadlines, and the order in which their requests are handled.

A request takes 0.1 to 0.3 ms of the event loop until its work is given to a thread. So that many requests at once do
not block the loop, each turn of the loop handles at most :data:`REQUESTS_A_TURN`, one per connection. The others, and
pipelined requests, wait for later turns, round robin over client addresses.

A connection is *idle* while no request on it is being answered: before the first request, between two, and while one
arrives. It is *stalled* while the client does not read the response.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from clasp_relay.access.addresses import address_group
from clasp_relay.access.threads import in_lane
from clasp_relay.core.lanes import Lanes
from clasp_relay.logs import events
from clasp_relay.net.reading import share_end_s

__all__ = ["HttpConnection", "HttpConnections", "RefusedConnection", "TurnQueue"]

REQUESTS_A_TURN = 8
"""Connections served in one turn of the event loop."""

REQUESTS_S = 0.002
"""Seconds for which waiting connections are served in one turn; one is served in any case."""

BYTES_A_TURN = 16 * 1024
"""Bytes of one connection that are split into lines in a turn: the longest header."""

MAX_HEADERS = 100
"""Header lines of a request, three times those of browsers; each line costs a copy of the bytes after it."""

MAX_CONNECTIONS = 1_000
"""HTTP connections at once; a new one replaces the one that has been idle longest."""

MAX_IDLE_PER_ADDRESS = 20
"""Idle connections of one client address; a browser keeps six, and an office shares an address."""

ADDRESS_SHARE = 4
"""At the most connections, an address with more than a quarter of them loses one for a new one of another address."""

IDLE_GRACE_S = 1.0
"""Seconds of idle time before the limit of its address can close a connection: new clients are about to send a
request."""

HEADER_TIMEOUT_S = 10.0
"""Seconds for a whole header: the first from the connection on (TLS handshake included), others from their first
byte."""

BODY_TIMEOUT_S = 60.0
"""Seconds for a whole body."""

STALL_TIMEOUT_S = 60.0
"""Seconds for which a client may read nothing of a response."""

ABORT_TIMEOUT_S = 5.0
"""Seconds between a close and the abort of a connection whose client does not answer the close."""


_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"


_FORWARDED_FOR = re.compile(rb"(?im)^x-forwarded-for:([^\r\n]*)")


class TurnQueue:
    """Decides when the bytes of each connection are parsed.

    Args:
        clock: for calls in the next turn of the event loop.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._left = REQUESTS_A_TURN
        self._waiting: Lanes[HttpConnection] = Lanes()
        self._served: set[HttpConnection] = set()
        """Connections served in this turn of the loop."""
        self._again: Lanes[HttpConnection] = Lanes()
        """Those of them that have more bytes to parse."""
        self._is_scheduled = False

    def ask(self, connection: HttpConnection) -> None:
        """Serves a connection now or in a later turn; until then nothing more is read from it."""
        self._schedule()
        was_served = connection in self._served
        if self._left and connection not in self._waiting and not was_served:
            self._serve(connection)
            return
        (self._again if was_served else self._waiting).add(connection, connection.request_lane)
        connection.pause_reading()

    def forget(self, connection: HttpConnection) -> None:
        """Removes a connection that is gone."""
        self._waiting.discard(connection)
        self._again.discard(connection)
        self._served.discard(connection)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._left = REQUESTS_A_TURN
        self._served.clear()
        while self._again:
            connection = self._again.pop()
            self._waiting.add(connection, connection.request_lane)
        end_s = share_end_s(self._clock, REQUESTS_S)
        while self._waiting and self._left and self._clock.seconds() < end_s:
            self._serve(self._waiting.pop())
        if self._waiting:
            self._schedule()

    def _serve(self, connection: HttpConnection) -> None:
        self._left -= 1
        self._served.add(connection)
        try:
            connection.take_turn()
        except Exception:
            # An exception for one connection must not stop the others.
            events.HTTP_READ_FAULT.failure()
            connection.abort()


def _peer_alone(peer: str, _forwarded: Sequence[str]) -> str:
    return peer


class HttpConnections:
    """Counts a site's connections, and closes those idle longest if there are too many.

    Args:
        clock: for the time since a connection is idle.
        is_proxy: tells whether a peer is a proxy of many clients, whose idle connections are not counted.
        client_of: given a peer and the values of X-Forwarded-For, returns the client's address.
    """

    def __init__(
        self,
        clock: IReactorTime,
        is_proxy: Callable[[str], bool],
        client_of: Callable[[str, Sequence[str]], str] = _peer_alone,
    ) -> None:
        self.max_connections = MAX_CONNECTIONS
        self.client_of = client_of
        self._clock = clock
        self._is_proxy = is_proxy
        self._all: dict[HttpConnection, str] = {}
        """All connections, with the address that each counts for (``address_group``); empty for a proxy's."""
        self._idle_since_s: dict[HttpConnection, float] = {}
        """The longest idle first."""
        self._idle_at: dict[str, dict[HttpConnection, None]] = {}
        """Idle connections by address, the longest idle first."""
        self._stalled: dict[HttpConnection, None] = {}
        """The longest stalled first."""
        self._count_at: Counter[str] = Counter()
        """Number of connections of each address, except for those of proxies."""
        self._crowded: set[str] = set()
        """Addresses with too many idle connections, some of which have not been idle for ``IDLE_GRACE_S`` yet."""

    def __len__(self) -> int:
        return len(self._all)

    def make_room(self, peer: str) -> bool:
        """Ends the longest idle connection, or else the longest stalled one, if there is no room for another.

        If one address has more than its share, one of its connections is ended; for another address also a busy one.

        Args:
            peer: the peer of the new connection.

        Returns:
            whether there is room now.
        """
        if len(self._all) < self.max_connections:
            return True
        largest, count = max(self._count_at.items(), key=itemgetter(1), default=("", 0))
        if count <= max(self.max_connections // ADDRESS_SHARE, 1):
            victim = next(iter(self._idle_since_s), None) or next(iter(self._stalled), None)
        else:
            victim = next(iter(self._idle_at.get(largest, ())), None)
            victim = victim or next((each for each in self._stalled if self._all[each] == largest), None)
            if victim is None and address_group(peer) != largest:
                victim = next(each for each, group in self._all.items() if group == largest)
        if victim is None:
            return False
        self._evict(victim)
        return True

    def add(self, connection: HttpConnection, peer: str) -> None:
        """Adds a new connection of a peer."""
        connection.lane = address_group(peer)
        group = ""
        if self._is_proxy(peer):
            connection.proxy = peer
        else:
            group = connection.lane
            self._count_at[group] += 1
        self._all[connection] = group
        self.set_idle(connection)

    def remove(self, connection: HttpConnection) -> None:
        """Removes a connection that is gone, or changes from HTTP to another protocol."""
        self.set_busy(connection)
        group = self._all.pop(connection, "")
        if group:
            self._count_at[group] -= 1
            if not self._count_at[group]:
                del self._count_at[group]

    def set_idle(self, connection: HttpConnection) -> None:
        """Begins to count a connection as idle."""
        group = self._all.get(connection)
        if group is None:
            return
        self._idle_since_s[connection] = self._clock.seconds()
        if group:
            self._idle_at.setdefault(group, {})[connection] = None
            self._trim(group)

    def set_busy(self, connection: HttpConnection) -> None:
        """Counts a connection as idle or stalled no longer."""
        self._stalled.pop(connection, None)
        if self._idle_since_s.pop(connection, None) is None:
            return
        group = self._all[connection]
        at = self._idle_at.get(group)
        if at is not None:
            at.pop(connection, None)
            if not at:
                del self._idle_at[group]

    def set_stalled(self, connection: HttpConnection) -> None:
        """Begins to count a connection as stalled."""
        if connection in self._all and connection not in self._idle_since_s:
            self._stalled[connection] = None

    def _trim(self, group: str) -> None:
        """Ends the longest idle connections of an address beyond those that it may keep."""
        at = self._idle_at.get(group, {})
        old_s = self._clock.seconds() - IDLE_GRACE_S
        for connection in list(islice(at, max(0, len(at) - MAX_IDLE_PER_ADDRESS))):
            if self._idle_since_s[connection] > old_s:
                if not self._crowded:
                    self._clock.callLater(IDLE_GRACE_S, self._trim_crowded)
                self._crowded.add(group)
                return
            self._evict(connection)

    def _trim_crowded(self) -> None:
        groups, self._crowded = self._crowded, set()
        for group in groups:
            self._trim(group)

    def _evict(self, connection: HttpConnection) -> None:
        self.remove(connection)
        connection.evict()


class HttpConnection(HTTPChannel):
    """One connection. Its factory sets ``turns`` and ``connections``."""

    transport: Any
    callLater: Any  # noqa: N815 - Twisted's
    _networkProducer: Any  # noqa: N815 - Twisted's
    turns: TurnQueue
    connections: HttpConnections
    lane = ""
    """The lane of its client address; see ``core.lanes``."""
    proxy: str | None = None
    """Its peer, if that is a proxy of many clients."""
    maxHeaders = MAX_HEADERS  # noqa: N815 - Twisted's

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._arrived = bytearray()
        """Bytes that were received and not parsed yet."""
        self._deadline: IDelayedCall | None = None
        self._has_turn = False
        self._patience_s: float | None = None
        """Seconds in which each part of a long body has to arrive; None for any other body."""
        self._is_held = False
        """Whether the receiver of the body has no room at the moment."""

    def connectionMade(self) -> None:
        """Counts the new connection, and sets its deadline."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.connections.add(self, getattr(self.transport.getPeer(), "host", None) or "local")
        self._set_deadline(HEADER_TIMEOUT_S, self._end_late)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Removes a connection that is gone."""
        self._leave()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._forget_requests()
        # A TLS transport would go on referring to its producer, which refers to it.
        self._networkProducer.unregisterProducer()

    def handed_over(self) -> None:
        """Ends its part in a connection that a WebSocket or an event stream has taken over."""
        self._leave()
        self._forget_requests()

    def dataReceived(self, data: bytes) -> None:
        """Keeps the bytes until it is this connection's turn."""
        self._arrived += data
        self._ask()

    def setLineMode(self, extra: bytes = b"") -> None:  # noqa: N802 - Twisted's
        """Goes on with bytes that came while a request was answered, when it is this connection's turn."""
        self.line_mode = 1
        self._arrived[:0] = extra

    def take_turn(self) -> None:
        """Parses the bytes that have arrived, up to the end of one request."""
        if self.transport is None or self.transport.disconnecting:
            self._arrived.clear()
            return
        if self._is_choked:
            return
        lane = self.request_lane
        size = BYTES_A_TURN if self.line_mode else len(self._arrived)
        data = bytes(self._arrived[:size])
        del self._arrived[:size]
        if self._deadline is None and not self._handlingRequest:
            self._set_deadline(HEADER_TIMEOUT_S, self._end_late)
        self.paused = False
        if not self._waitingForTransport:
            # Before the bytes are parsed, since the parser may pause again.
            self._networkProducer.resumeProducing()
        self._has_turn = True
        try:
            with in_lane(lane):
                super().dataReceived(data)  # type: ignore[no-untyped-call]
        finally:
            self._has_turn = False
        if self._arrived or (self.paused and self._buffer):
            self._ask()

    @property
    def request_lane(self) -> str:
        """The lane of the request that has arrived; for a trusted proxy's that of the client that the header names."""
        if self.proxy is not None and self.line_mode:
            head, _, _ = bytes(self._arrived[:BYTES_A_TURN]).partition(b"\r\n\r\n")
            hops = [hop.decode("latin-1") for hop in _FORWARDED_FOR.findall(head)]
            if hops:
                self.lane = address_group(self.connections.client_of(self.proxy, hops))
        return self.lane

    def pause_reading(self) -> None:
        """Reads nothing more until ``take_turn``."""
        if not self.transport.disconnecting:
            self._networkProducer.pauseProducing()

    def evict(self) -> None:
        """Ends the connection to make room, unless it was handed over; aborts it if the client reads nothing."""
        if self._waitingForTransport or self.transport is None:
            self.abort()
        else:
            self._end()

    def abort(self) -> None:
        """Ends the connection without waiting for the client."""
        self._leave()
        if self.transport is not None:
            self.transport.abortConnection()

    def hold_body(self) -> None:
        """Reads nothing more of the body until ``release_body``."""
        self._is_held = True
        self.pause_reading()

    def release_body(self) -> None:
        """Goes on with the body, when it is this connection's turn."""
        if self._is_held and self.transport is not None:
            self._is_held = False
            self._ask()

    def allHeadersReceived(self) -> None:
        """Sets the deadline for the body."""
        super().allHeadersReceived()  # type: ignore[no-untyped-call]
        body = getattr(self.requests[-1], "body", None)
        self._patience_s = None if body is None else body.patience_s
        if self._patience_s is not None:
            self.connections.set_busy(self)  # a long body is not idle time; uploads have limits of their own
        self._set_deadline(BODY_TIMEOUT_S if self._patience_s is None else self._patience_s, self._end_late)

    def renew_patience(self) -> None:
        """Sets the deadline for the next part of a long body."""
        if self._patience_s is not None and self._deadline is not None:
            self._set_deadline(self._patience_s, self._end_late)

    def allContentReceived(self) -> None:
        """Ends the deadline for the body; then the request is answered."""
        self._set_deadline(None)
        self.connections.set_busy(self)
        self.release_body()
        super().allContentReceived()  # type: ignore[no-untyped-call]
        if self.transport is None:
            self.handed_over()

    def requestDone(self, request: Any) -> None:  # noqa: N802 - Twisted's
        """Goes on to the next request, when it is this connection's turn."""
        self._set_deadline(None)
        super().requestDone(request)  # type: ignore[no-untyped-call]
        if not self.persistent:
            return
        self.connections.set_idle(self)
        self.paused = True
        if not self._has_turn and (self._arrived or self._buffer):
            self._ask()

    def pauseProducing(self) -> None:
        """Counts the connection as stalled: the client does not read the response."""
        super().pauseProducing()  # type: ignore[no-untyped-call]
        self.connections.set_stalled(self)
        self._set_deadline(STALL_TIMEOUT_S, self.abort)

    def resumeProducing(self) -> None:
        """Ends the stall: the client has read what was sent."""
        self._set_deadline(None)
        if self._handlingRequest:
            self.connections.set_busy(self)
        super().resumeProducing()  # type: ignore[no-untyped-call]
        if self._arrived or (self.paused and self._buffer):
            self._ask()

    def timeoutConnection(self) -> None:
        """Ends an idle connection without logging it, unlike Twisted's method."""
        self._end()

    def forceAbortClient(self) -> None:  # noqa: N802 - Twisted's
        """Aborts a connection whose client did not answer the close, without logging it."""
        self._abortingCall = None
        if self.transport is not None:
            self.transport.abortConnection()

    @property
    def _is_choked(self) -> bool:
        """Whether nothing may be parsed: the client does not read its responses, or the body's receiver has no room."""
        return self._is_held or (self._waitingForTransport and not self._handlingRequest)

    def _ask(self) -> None:
        if self._is_choked:
            self.pause_reading()
        else:
            self.turns.ask(self)

    def _end_late(self) -> None:
        if self.requests and self.transport is not None:
            self.transport.write(_LATE)
        self._end()

    def _end(self) -> None:
        if self._abortingCall is None:
            self._abortingCall = self.callLater(ABORT_TIMEOUT_S, self.forceAbortClient)
        self._leave()
        self.loseConnection()  # type: ignore[no-untyped-call]

    def _forget_requests(self) -> None:
        """Removes the references to its requests, which would be reference cycles."""
        self._transferDecoder = None
        self.requests.clear()

    def _leave(self) -> None:
        self._set_deadline(None)
        self._arrived.clear()
        self._is_held = False  # the body's receiver calls ``release_body`` also after it was aborted
        self.turns.forget(self)
        self.connections.remove(self)

    def _set_deadline(self, seconds: float | None, call: Callable[[], None] | None = None) -> None:
        """Sets or clears the connection's one deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None and call is not None:
            self._deadline = self.callLater(seconds, self._be_late, call)

    def _be_late(self, call: Callable[[], None]) -> None:
        self._deadline = None
        call()


class RefusedConnection(Protocol):
    """A connection that is refused: there are too many, and none of them may be ended."""

    transport: Any

    def connectionMade(self) -> None:
        """Answers 503 and closes."""
        self.transport.write(_FULL)
        self.transport.loseConnection()
