"""WebSocket frames: writes them, and reads usual ones on a fast path and all others through Autobahn, with limits.

A CLASP frame is one binary WebSocket message (RFC 6455 §5.2). A server's messages are not fragmented and not masked, so
a message to many sessions is framed once. Clients' frames go through Autobahn's state machine, with limits on all that
a peer can make it keep; the usual frame (complete, not fragmented, binary) takes the fast path.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import autobahn.twisted.websocket
import autobahn.websocket.protocol
from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import formatEvent

from clasp_relay.logs import events
from clasp_relay.net.plain_http import TLS_BEGIN, health_answer, response, without_empty_port
from clasp_relay.wire.clasp import ClaspCodec

MAX_REQUEST_BYTES = 16 * 1024
"""Limit of an HTTP request in bytes: room for a browser's cookies; servers commonly accept 8 to 16 kB."""

MAX_FRAGMENTS = 1024
"""Fragments of one message: 64 bytes each for the longest one. Without a limit, empty ones could go on for ever."""

MAX_EARLY_CONTROL_FRAMES = 8
"""Control frames that a client may send before HELLO."""

MAX_CONTROL_FRAMES_PER_S = 50
"""Control frames a second that a session may send. Clients send one in 20 to 30 s."""

PONG_INTERVAL_S = 0.25
"""Shortest interval between two pongs, in seconds."""

# As names of the module, which are looked up faster than class attributes: these are needed for every read.
_OPEN, _CLOSING = WebSocketServerProtocol.STATE_OPEN, WebSocketServerProtocol.STATE_CLOSING
_CLOSED = WebSocketServerProtocol.STATE_CLOSED

_FIN_BINARY = 0x82
_MASKED = 0x80
_from_bytes = int.from_bytes
_REPEATED_WORDS = 130
_REPEATS = tuple(int.from_bytes(b"\1\0\0\0" * words, "little") for words in range(_REPEATED_WORDS))
"""Factors that repeat a 4-byte mask when multiplied by it, by the number of words of the mask and the payload
together."""

_SHORT_BYTES = 126
"""Shorter messages have a length of one byte."""

_SHORT_HEADERS = tuple(bytes((_FIN_BINARY, length)) for length in range(_SHORT_BYTES))
"""Their headers, by their length."""

_PACK_16 = struct.Struct(">BBH").pack
_PACK_64 = struct.Struct(">BBQ").pack


def header(length: int) -> bytes:
    """Returns the WebSocket header of a binary message of ``length`` bytes."""
    if length < _SHORT_BYTES:
        return _SHORT_HEADERS[length]
    if length <= 0xFFFF:
        return _PACK_16(_FIN_BINARY, 126, length)
    return _PACK_64(_FIN_BINARY, 127, length)


def wire_bytes(data: bytes) -> bytes:
    """Returns a CLASP frame as the bytes of its WebSocket message."""
    length = len(data)
    return (_SHORT_HEADERS[length] if length < _SHORT_BYTES else header(length)) + data


CODEC = ClaspCodec(wire_bytes)
"""The codec of all WebSocket sessions: one object, so that a message to many of them is encoded once."""


def unmask(masked: bytes) -> bytes:
    """Unmasks a payload (RFC 6455 §5.3).

    Args:
        masked: the four bytes of the mask and the received payload, as they follow each other in a frame.
    """
    length = len(masked)
    words = (length + 3) >> 2
    # One XOR of two long numbers is far quicker than one per byte (docs/performance.md).
    number = _from_bytes(masked, "little")
    mask = number & 0xFFFFFFFF
    if words < _REPEATED_WORDS:
        mask *= _REPEATS[words]
    else:
        mask = _from_bytes(masked[:4] * words, "little")
    return (number ^ mask).to_bytes(words << 2, "little")[4:length]


class ControlFrames:
    """Limits the control frames of one peer: their number, and the rate of pongs.

    A ping is always answered; one pong answers all pings before it (RFC 6455 §5.5.3).

    Args:
        reactor: for its clock.
        send_pong: sends a pong with the payload of a ping.
    """

    __slots__ = ("_call", "_early", "_in_second", "_payload", "_reactor", "_second_began_s", "_send_pong")

    def __init__(self, reactor: IReactorTime, send_pong: Callable[[bytes], None]) -> None:
        self._reactor = reactor
        self._send_pong = send_pong
        self._early = 0
        self._in_second = 0
        self._second_began_s = 0.0
        self._payload: bytes | None = None
        self._call: IDelayedCall | None = None

    def count(self, is_live: bool) -> str | None:
        """Counts a control frame.

        Args:
            is_live: whether the HELLO of the session was accepted.

        Returns:
            The reason to close the session, for people; None within the limits.
        """
        if not is_live:
            self._early += 1
            if self._early > MAX_EARLY_CONTROL_FRAMES:
                return f"more than {MAX_EARLY_CONTROL_FRAMES} control frames before HELLO"
        now_s = self._reactor.seconds()
        if not 0 <= now_s - self._second_began_s < 1:
            self._second_began_s, self._in_second = now_s, 0
        self._in_second += 1
        if self._in_second > MAX_CONTROL_FRAMES_PER_S:
            return f"more than {MAX_CONTROL_FRAMES_PER_S} control frames in a second"
        return None

    def answer(self, payload: bytes) -> None:
        """Answers a ping: at once, or together with others within ``PONG_INTERVAL_S``."""
        if self._call is not None:
            self._payload = payload
            return
        self._call = self._reactor.callLater(PONG_INTERVAL_S, self._next)
        self._send_pong(payload)

    def stop(self) -> None:
        """Sends no more pongs."""
        self._payload = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _next(self) -> None:
        self._call = None
        payload, self._payload = self._payload, None
        if payload is not None:
            self.answer(payload)


class SideLog:
    """Logs Autobahn's messages about single connections at level debug.

    Its warnings and errors are about mistakes of peers, which can repeat them as often as they like. Its debug lines,
    several for each message, are dropped.
    """

    def debug(self, text: str, **values: object) -> None:
        """Drops the line."""

    def info(self, text: str, **values: object) -> None:
        """Logs the line at level debug."""
        events.CONNECTION_DETAIL.log(detail=formatEvent({"log_format": text, **values}))

    warn = error = info


def _plain(value: object) -> str:
    return getattr(value, "__qualname__", "") or f"{value}"


# Autobahn colours the values of its debug lines even if these are not logged: a tenth of the time that a connection
# takes, from accept to close (docs/performance.md).
_module: Any
for _module in (autobahn.websocket.protocol, autobahn.twisted.websocket):
    _module.hltype = _module.hlval = _plain


class GuardedProtocol(WebSocketServerProtocol):
    """Adds the limits that Autobahn lacks: of requests, fragments and control frames."""

    transport: Any
    message_data: Any
    is_closed: Any
    send_queue: Any
    log = SideLog()
    _fragments = 0

    def processHandshake(self) -> None:  # noqa: N802
        """Handles the HTTP request once it is complete: answers a health check, or begins the upgrade."""
        if self.data.startswith(TLS_BEGIN):
            self.on_tls()
            return
        end = self.data.find(b"\r\n\r\n", 0, MAX_REQUEST_BYTES)
        if end < 0:
            if len(self.data) > MAX_REQUEST_BYTES:
                self.failHandshake("the request is too long", 431)
            return
        request, rest = self.data[: end + 4], self.data[end + 4 :]
        answer = health_answer(request)
        if answer is not None:
            self.sendData(answer)
            self.dropConnection()
            return
        self.data = without_empty_port(request) + rest
        super().processHandshake()

    def on_tls(self) -> None:
        """Ends a connection whose client speaks TLS; the HTTP answer makes it fail at once, not after a time-out."""
        self.failHandshake("this port does not speak TLS")

    def failHandshake(  # noqa: N802
        self,
        reason: str,
        code: int = 400,
        responseHeaders: list[tuple[str, str]] | None = None,  # noqa: N803
    ) -> None:
        """Answers a request that is no upgrade, and drops the connection."""
        path = getattr(self, "http_request_path", "")
        self.wasNotCleanReason = reason
        self.sendData(response(code, reason, path, responseHeaders or []))
        self.dropConnection()

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: N803
        """Begins to count the fragments of a message."""
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameEnd(self) -> None:
        """Counts a complete fragment of a message; too many end the session."""
        super().onMessageFrameEnd()
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS and not self.failedByMe:
            self._max_message_size_exceeded(self._fragments, MAX_FRAGMENTS, "too many fragments")

    def onMessageEnd(self) -> None:
        """Passes a complete message on."""
        pieces, self.message_data = self.message_data, None
        if not self.failedByMe:
            self.onMessage(b"".join(pieces), self.message_is_binary)

    def onFrameData(self, payload: bytes) -> bool | None:
        """Handles a piece of a frame's payload.

        After a protocol error Autobahn goes on reading, to find the peer's Close; it would buffer an oversized control
        frame without a limit.
        """
        if self.failedByMe and self.current_frame.length > 125:
            return None
        return super().onFrameData(payload)

    def forget_request(self) -> None:
        """Frees memory that only the upgrade needed: several kB for each connection."""
        self.http_request_data = b""
        self.http_response_data = ""
        self.http_headers = {}
        self.websocket_extensions = []
        # The queue is for messages that are sent in pieces, which the relay never does; an empty deque takes 760 bytes.
        self.send_queue = ()


class FastPathProtocol(GuardedProtocol):
    """Reads usual frames itself and leaves others to Autobahn; both only within the connection's slice of the turn."""

    factory: Any
    """The factory, whose ``reading`` gives the connection its slices (``net.reading``)."""
    _tail = b""
    """Received bytes that are not handled yet: the beginning of a short usual frame, or all that waits for a later
    turn."""
    _is_waiting = False
    _session: Any = None
    """Its session, once there is one; ``is_busy`` tells that a message is being handled and later ones wait."""

    def go_on(self) -> None:
        """Handles the bytes that wait, in a later turn."""
        self._is_waiting = False
        self._dataReceived(b"")
        if not self._is_waiting and self.state != _CLOSED:
            self.transport.resumeProducing()

    def _wait(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self.transport.pauseProducing()
            self.factory.reading.wait(self)

    def consumeData(self) -> None:  # noqa: N802
        """Handles the bytes in Autobahn's buffer, within the connection's slice of the turn."""
        if self.state not in (_OPEN, _CLOSING):
            super().consumeData()
            return
        reading, end_s = self.factory.reading, 0.0
        steps = 0
        while self.state != _CLOSED:
            if not self.processData():
                return
            steps += 1
            # A frame takes a step for its header and one for its payload.
            if steps == 2:
                end_s = reading.slice_end_s()
            if self.is_busy or (end_s and reading.now_s() >= end_s):
                self._wait()
                return

    @property
    def is_busy(self) -> bool:
        """Whether a message is still being handled, so that later ones have to wait; see ``net.reading``."""
        return self._session is not None and self._session.is_busy

    def _dataReceived(self, data: bytes) -> None:
        """Handles received bytes within the time of this turn; the rest waits for a later one."""
        session = self._session
        if self._is_waiting or (session is not None and session.is_busy):
            self._tail += data
            self._wait()
            return
        if self._tail:
            data, self._tail = self._tail + data, b""
        if self.state != _OPEN or self.data or self.current_frame is not None or self.inside_message:
            super()._dataReceived(data)
            return
        at = self._pass_messages(data)
        if at < len(data):
            rest = data[at:]
            if self._is_waiting or (self.state == _OPEN and _is_short_beginning(rest)):
                self._tail = rest
            elif self.state != _CLOSED:
                super()._dataReceived(rest)

    def _pass_messages(self, data: bytes) -> int:
        """Handles the complete usual frames at the start of ``data``, and returns their number of bytes.

        After the end of the session ``onMessage`` ignores messages, from here as from Autobahn.
        """
        at, end = 0, len(data)
        take = self.onMessage
        # Most reads have one message: the clock is read from the second one on.
        slice_end_s = 0.0
        while end - at >= 6 and data[at] == _FIN_BINARY:
            length = data[at + 1] ^ _MASKED
            start = at + 6
            if length >= 126:
                # Not masked, longer than 64 kB, or a 16-bit length below 126: left to Autobahn.
                if length != 126 or end - at < 8:
                    break
                length = data[at + 2] << 8 | data[at + 3]
                if length < 126:
                    break
                start = at + 8
            stop = start + length
            if stop > end:
                break
            if at:
                if not slice_end_s:
                    session, reading = self._session, self.factory.reading
                    now_s, slice_end_s = reading.now_s, reading.slice_end_s()
                if now_s() >= slice_end_s or (session is not None and session.is_busy):
                    self._wait()
                    break
            at = stop
            take(unmask(data[start - 4 : stop]), True)
        return at


def _is_short_beginning(rest: bytes) -> bool:
    """Tells whether bytes are an incomplete usual frame with a length of one byte."""
    if rest[0] != _FIN_BINARY:
        return False
    return len(rest) == 1 or _MASKED <= rest[1] < _MASKED + 126
