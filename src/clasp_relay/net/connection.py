"""What an outbox needs of its WebSocket connection, and how a connection says why it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from clasp_relay.core.ports import Codec, Frame
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.messages import Error

MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of them the close code (RFC 6455 §5.5)."""


class Connection(Protocol):
    """What an outbox needs of the WebSocket connection that it belongs to."""

    transport: Any
    """Where bytes go (``ITransport``, ``IConsumer``)."""
    codec: Codec
    """What its session speaks."""
    trace: Callable[[bytes], None] | None
    """Is told of all that an outbox writes."""

    def send_close(self, close_code: CloseCode, reason: bytes) -> None:
        """Sends a WebSocket Close frame; ``reason`` is UTF-8, at most 123 bytes."""

    def expect_end(self) -> None:
        """Aborts the connection unless it ends within 10 s."""

    def answer_ping(self, payload: bytes) -> None:
        """Sends a WebSocket Pong."""

    def slow(self, waiting_bytes: int) -> None:
        """Is told that more waits than may."""

    def abort(self) -> None:
        """Ends the connection now."""


def error_frame(codec: Codec, code: ErrorCode, message: str) -> Frame:
    """Returns an ERROR in the bytes of a codec."""
    return Frame(codec.encode(Error(code, message)))


def close_reason(reason: str) -> bytes:
    """Returns a close reason as UTF-8, cut between characters to what a Close frame carries."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
