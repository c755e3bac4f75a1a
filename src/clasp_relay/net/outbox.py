"""One session's way out: this turn's frames, what waits behind a slow socket, and the close at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from clasp_relay.core.ports import Frame
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.logs import events
from clasp_relay.net.backlog import Backlog, Close, Snapshot
from clasp_relay.net.connection import Connection, close_reason, error_frame
from clasp_relay.net.framing import Item
from clasp_relay.net.limits import OUTBOX_BYTES
from clasp_relay.net.sink import CLOSED, Sink

if TYPE_CHECKING:
    from clasp_relay.net.turn import TurnWriter

PIECE_BYTES = 64 * 1024
"""How much is handed to a transport at a time, about what Twisted buffers: the rest can still be coalesced."""

MAX_SNAPSHOTS = 2000
"""How many snapshots may wait for a peer that does not read: two for each of its 1,000 subscriptions."""


@implementer(IPushProducer)
class Outbox:
    """Implements ``core.ports.Outbox`` and the rules for slow consumers (``docs/protocol.md``).

    Usually the socket takes everything: frames collect in ``pending`` and are written at the end of the turn.
    Once the transport asks for a pause, or a snapshot is to be encoded, all goes to a backlog, until that has drained.

    Args:
        connection: the WebSocket connection.
        writer: writes for all sessions at the end of the turn.
        bound_bytes: how much may wait, the transport's own buffer included.
    """

    __slots__ = (
        "_bound_bytes",
        "_connection",
        "_paused",
        "_pong",
        "_room_bytes",
        "_sealed",
        "_writer",
        "backlog",
        "closing",
        "pending",
        "sink",
    )

    def __init__(self, connection: Connection, writer: TurnWriter, bound_bytes: int = OUTBOX_BYTES) -> None:
        self._connection: Connection | None = connection
        self._writer = writer
        self._bound_bytes = bound_bytes
        self._room_bytes = bound_bytes
        self._paused = False
        self._sealed = False
        self._pong: bytes | None = None
        self.closing = False
        """Whether the session's end was decided; what it sends is no longer listened to."""
        self.pending: list[Item] = []
        """What goes out at the end of this turn; used by the turn writer."""
        self.sink = Sink(connection.transport, writer.counters, connection.trace)
        """The transport; the turn writer writes to it where nothing is pending and nothing waits."""
        self.backlog: Backlog | None = None
        """What waits; None while the socket keeps up. Used by the turn writer."""

    # core.ports.Outbox

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox.send``."""
        if self.closing:
            return
        writer = self._writer
        if writer.runs and writer.attach(self, frame):
            return
        if self.backlog is None:
            if not self.pending:
                writer.wake(self)
            self.pending.append(frame)
        else:
            self.put(frame)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox.send_snapshot``."""
        if not self.closing:
            self._place(Snapshot(key, frames))

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox.close``; the first call counts."""
        if self.closing:
            return
        self.closing = True
        if self._connection is not None:
            self._connection.expect_end()
        self._place(Close(close_code, reason))

    # For the turn writer

    def put(self, item: Item | Snapshot | Close) -> None:
        """Puts something behind all that was put before. Never raises."""
        try:
            self._put(item)
        except Exception:
            events.CONNECTION_FAULT.failure(action="wrote to a session")
            self.fail()

    def flush(self) -> None:
        """Writes what is pending, as far as the socket takes it; the rest waits."""
        pending = self.pending
        if len(pending) == 1:
            self.pending = []
            self.sink.write(pending[0].wire)
        elif pending:
            self.pending = []
            self._flush_many(pending)

    def pump(self, snapshot_bytes: int) -> int:
        """Writes what waits until the transport has enough.

        Args:
            snapshot_bytes: how much of snapshots may be encoded now.

        Returns:
            How much was encoded.
        """
        used, backlog = 0, self.backlog
        while backlog is not None and not self._paused and not self._is_over:
            parts, encoded = backlog.take(PIECE_BYTES, snapshot_bytes - used)
            used += encoded
            if not parts:
                break
            self.sink.write(b"".join(parts))
        self._after_pump()
        return used

    def fail(self) -> None:
        """Ends the session after a fault of ours; nothing more is written."""
        connection = self._connection
        self.shut()
        if connection is not None:
            connection.abort()

    # For the protocol

    @property
    def is_drained(self) -> bool:
        """Whether the transport was given all that was sent, and has passed it on as far as it tells."""
        return not (self.pending or self.backlog or self._paused)

    def pong(self, payload: bytes) -> bool:
        """Says whether a ping may be answered now.

        A peer that pings but does not read gets one pong, to its last ping, once it reads again
        (RFC 6455 §5.5.3 allows it): pongs would otherwise pile up without a bound.
        """
        if self._paused:
            self._pong = payload
        return not self._paused

    def finish(self) -> None:
        """Hands over this turn's frames before a Close that the protocol itself sends, and stops."""
        if not self._is_over:
            self._writer.materialise()
            self.flush()
            self.shut()

    def shut(self) -> None:
        """Forgets everything; nothing more is sent."""
        self.closing = self._sealed = True
        self.pending = []
        self.backlog = Backlog(self._writer.counters)
        self._connection = None
        self.sink = CLOSED

    # IPushProducer

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._paused = True
        if self._is_over:
            return
        if self.backlog is None:
            self._make_backlog()
        self._room_bytes = self._bound_bytes - self.sink.buffered_bytes

    def resumeProducing(self) -> None:
        """The transport has passed on all that it had; what waits follows within this turn."""
        self._paused = False
        if self._is_over:
            return
        payload, self._pong = self._pong, None
        if payload is not None and self._connection is not None:
            self._connection.answer_ping(payload)
        self._writer.feed(self)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.shut()

    @property
    def _is_over(self) -> bool:
        return self._connection is None

    def _place(self, item: Snapshot | Close) -> None:
        writer = self._writer
        if not (writer.runs and writer.attach(self, item)):
            self.put(item)

    def _put(self, item: Item | Snapshot | Close) -> None:
        if self._sealed:
            return
        backlog = self.backlog
        if isinstance(item, Snapshot | Close):
            if backlog is None:
                backlog = self._make_backlog()
            backlog.push(item)
            self._sealed = isinstance(item, Close)
            if not self._paused:
                self._writer.feed(self)
            elif backlog.snapshots > MAX_SNAPSHOTS:
                self._end_as_too_slow()
        elif backlog is None:
            if not self.pending:
                self._writer.wake(self)
            self.pending.append(item)
        else:
            backlog.push(item)
            if self._paused and backlog.size_bytes > self._room_bytes:
                self._keep_bound(backlog)

    def _make_backlog(self) -> Backlog:
        """Has all wait, what is pending first."""
        backlog = self.backlog = Backlog(self._writer.counters)
        for item in self.pending:
            backlog.push(item)
        self.pending = []
        return backlog

    def _flush_many(self, pending: list[Item]) -> None:
        parts: list[bytes] = []
        size = 0
        for index, item in enumerate(pending):
            wire = item.wire
            parts.append(wire)
            size += len(wire)
            if size >= PIECE_BYTES:
                self.sink.write(b"".join(parts))
                parts, size = [], 0
                if self.backlog is not None:
                    for rest in pending[index + 1 :]:
                        self._put(rest)
                    return
        if parts:
            self.sink.write(b"".join(parts))

    def _after_pump(self) -> None:
        backlog = self.backlog
        if self._is_over or backlog is None:
            return
        if self._paused:
            self._room_bytes = self._bound_bytes - self.sink.buffered_bytes
        elif not backlog:
            self.backlog = None
        elif isinstance(backlog.first, Close):
            self._send_close(backlog.first)
        else:
            self._writer.feed(self)
        if backlog.size_bytes > self._room_bytes:
            self._keep_bound(backlog)

    def _send_close(self, close: Close) -> None:
        connection = self._connection
        self.shut()
        if connection is not None:
            connection.send_close(close.code, close_reason(close.reason))

    def _keep_bound(self, backlog: Backlog) -> None:
        self._room_bytes = self._bound_bytes - self.sink.buffered_bytes
        if self._connection is not None and backlog.size_bytes > self._room_bytes:
            self._connection.slow(backlog.size_bytes)
            if not backlog.shrink(self._room_bytes):
                self._end_as_too_slow()

    def _end_as_too_slow(self) -> None:
        connection, sink = self._connection, self.sink
        self.shut()
        if connection is None:
            return
        self._writer.counters.slow_closes += 1
        connection.expect_end()
        sink.write(error_frame(connection.codec, ErrorCode.OVERLOADED, "too slow").wire)
        connection.send_close(CloseCode.TRY_AGAIN_LATER, b"too slow")
