"""Autobahn's server protocol with a bound on all that a peer can make it keep."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol

from clasp_relay.net.plain_http import TLS_BEGIN, health_answer, response, without_empty_port
from clasp_relay.net.side_log import SideLog

MAX_REQUEST_BYTES = 16 * 1024
"""How long an HTTP request may be: room for a browser's cookies; servers commonly take 8 to 16 kB."""

MAX_FRAGMENTS = 1024
"""How many fragments a message may have: 64 bytes each for the longest one. Empty ones would never end."""


class GuardedProtocol(WebSocketServerProtocol):
    """Closes what Autobahn leaves open: requests, fragments and control frames without a bound."""

    transport: Any
    message_data: Any
    is_closed: Any
    send_queue: Any
    log = SideLog()
    _fragments = 0

    def processHandshake(self) -> None:  # noqa: N802
        """Takes the HTTP request, once it is complete."""
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
        """Ends a connection whose client speaks TLS: the HTTP answer makes it say so at once, not after a time-out."""
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
        """A message begins."""
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameEnd(self) -> None:
        """A fragment of a message is there."""
        super().onMessageFrameEnd()
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS and not self.failedByMe:
            self._max_message_size_exceeded(self._fragments, MAX_FRAGMENTS, "too many fragments")

    def onMessageEnd(self) -> None:
        """A message is there."""
        pieces, self.message_data = self.message_data, None
        if not self.failedByMe:
            self.onMessage(b"".join(pieces), self.message_is_binary)

    def onFrameData(self, payload: bytes) -> bool | None:
        """Takes a piece of a frame.

        After a protocol error Autobahn reads on, to find the peer's Close: an oversized control frame
        would then be collected without a bound.
        """
        if self.failedByMe and self.current_frame.length > 125:
            return None
        return super().onFrameData(payload)

    def forget_request(self) -> None:
        """Lets go of what only the upgrade needed: several kB for each connection."""
        self.http_request_data = b""
        self.http_response_data = ""
        self.http_headers = {}
        self.websocket_extensions = []
        # For messages that are sent in pieces, which none are here. An empty deque takes 760 bytes.
        self.send_queue = ()
