"""``GET /api/stream``: begins an event stream on the connection of a request (``doors.event_stream``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.policies import ProtocolWrapper

from clasp_relay.access.tickets import Tickets
from clasp_relay.core.relay import Relay
from clasp_relay.doors.door import RequestDoor, identity_of
from clasp_relay.doors.event_stream import Asked, EventStream, codec_of
from clasp_relay.errors import DecodeError, Disconnect, ErrorCode, RequestError
from clasp_relay.http.api_sessions import wait_until
from clasp_relay.http.json_answers import bearer_of
from clasp_relay.net.websocket import ClaspFactory, peer_host
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.json_values import EVENT_STREAM

__all__ = ["StreamApi"]

_CORS_PREFIX = b"access-control-"
_HEADERS = {
    b"Content-Type": b"text/event-stream",
    b"Cache-Control": b"no-store",
    b"X-Content-Type-Options": b"nosniff",
    b"X-Accel-Buffering": b"no",  # nginx would keep the events back until it has 4 kB of them
}
RETRY_AFTER_S = 5
_EXPECTED = "the query is ?pattern=/a/**, or ?pattern=/a/**&ticket=…"


class StreamApi:
    """Begins event streams.

    Args:
        relay: the core.
        gate: admits connections.
        tickets: the tickets, which pages present in place of a token.
        tell_refused: called with each refused request; see ``RequestDoor``.
    """

    def __init__(
        self,
        relay: Relay,
        gate: ClaspFactory,
        tickets: Tickets,
        tell_refused: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._relay = relay
        self._gate = gate
        self._tickets = tickets
        self.is_shared = False
        """Whether other relays issue tickets, too."""
        self._codec = codec_of(relay)
        self._door = RequestDoor("sse", "event streams", tell_refused)
        self.counts = self._door.counts
        """The counts of the event streams; messages are requests for one."""

    def when_known(self, request: Any) -> Deferred[None] | None:
        """Waits a moment for a ticket that another relay of the cluster may have issued just now.

        Args:
            request: the request for a stream.

        Returns:
            a Deferred that fires at the end of the wait; None if there is nothing to wait for.
        """
        ticket = request.args.get(b"ticket", (b"",))[0].decode("utf-8", "replace")
        if not ticket or not self.is_shared or self._tickets.knows(ticket):
            return None
        return wait_until(self._relay.clock, lambda: self._tickets.knows(ticket))

    def open(self, request: Any, client: str, token: str | None = None) -> None:
        """Takes over the connection of a request, for an event stream.

        Args:
            request: the request; its CORS headers are set.
            client: the client's address.
            token: the token of the reader; None for the token or ticket that the request presents.

        Raises:
            RequestError: the request is refused, and not answered yet: UNAUTHENTICATED, TOKEN_EXPIRED, SCOPE, PATTERN,
                MESSAGE, OVERLOADED.
        """
        self._door.came()
        try:
            asked = self._asked(request, client, token)
            if not self._gate.accepts(peer_host(request.channel)):
                raise RequestError(ErrorCode.OVERLOADED, "too many connections; try again later")
        except RequestError as refusal:
            self._door.refused(client, refusal.message)
            raise
        _hand_over(request, EventStream(self._gate, self.counts, self._relay, self._codec, asked))

    def _asked(self, request: Any, client: str, token: str | None) -> Asked:
        pattern = Pattern.parse(_text(request, b"pattern"))
        is_given = token is not None
        token = token or bearer_of(request) or ""
        if b"ticket" in request.args and not is_given:
            found = self._tickets.take(_text(request, b"ticket"))
            if found is None:
                text = "the ticket was used before or is too old; get another one with POST /auth/ticket"
                raise RequestError(ErrorCode.UNAUTHENTICATED, text)
            token = found
        try:
            who = identity_of(self._relay, token, client, EVENT_STREAM)
        except Disconnect as refusal:
            raise RequestError(refusal.code or ErrorCode.UNAUTHENTICATED, refusal.reason) from None
        self._relay.permissions.check_subscribe(who, pattern)
        cors = [
            (name, value)
            for name, values in request.responseHeaders.getAllRawHeaders()
            for value in values
            if name.lower().startswith(_CORS_PREFIX) or name.lower() == b"vary"
        ]
        forwarded = request.requestHeaders.getRawHeaders("x-forwarded-for") or ()
        return Asked(
            token,
            pattern.text,
            _head(HTTPStatus.OK, [*_HEADERS.items(), *cors]),
            lambda sentence: _refusal(sentence, cors),
            ",".join(forwarded),
            _last_id(request),
        )


def _last_id(request: Any) -> int | None:
    """Returns the last id that a reader has seen, from the header, or from the query for pages that connect again."""
    given = request.getHeader(b"last-event-id") or request.args.get(b"lastEventId", [b""])[0]
    # An id that is not the relay's counts as none.
    return int(given) if re.fullmatch(rb"[0-9]{1,18}", given) else None


def _text(request: Any, name: bytes) -> str:
    values = request.args.get(name, ())
    if len(values) != 1:
        raise DecodeError(_EXPECTED)
    try:
        return str(values[0], "utf-8")
    except UnicodeDecodeError:
        raise DecodeError("the query is not UTF-8") from None


def _hand_over(request: Any, connection: EventStream) -> None:
    """Passes the connection of a request to another protocol, as Autobahn's ``WebSocketResource`` does."""
    transport, request.channel.transport = request.channel.transport, None
    request.channel.handed_over()
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = connection
    else:
        transport.protocol = connection
    # The HTTP channel was registered as producer, and had paused the transport while it answered.
    transport.unregisterProducer()
    connection.makeConnection(transport)  # type: ignore[no-untyped-call]
    transport.resumeProducing()


def _head(status: HTTPStatus, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Returns a response's header. The end of the connection ends the body, which HTTP/1.0 proxies understand, too."""
    lines = [b"%s: %s\r\n" % header for header in [*headers, (b"Connection", b"close")]]
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, status.phrase.encode("ascii"), b"".join(lines))


def _refusal(sentence: str, cors: list[tuple[bytes, bytes]]) -> bytes:
    body = json.dumps({"error": sentence}).encode("ascii")
    headers = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Retry-After", b"%d" % RETRY_AFTER_S),
        *cors,
    ]
    return _head(HTTPStatus.SERVICE_UNAVAILABLE, headers) + body
