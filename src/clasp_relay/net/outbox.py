"""The outbox of a session: the frames of this turn, the backlog of a slow socket, and the close at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection as TcpConnection
from zope.interface import implementer

from clasp_relay.core.ports import Codec, Frame
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.logs import events
from clasp_relay.net.backlog import Backlog, Close, Item, Snapshot
from clasp_relay.net.observer import Counters
from clasp_relay.wire.messages import Error

PIECE_BYTES = 64 * 1024
"""Bytes that are handed to a transport at a time, about as much as Twisted buffers: the rest can still be
coalesced."""

MAX_SNAPSHOTS = 2000
"""Snapshots that may wait for a peer that does not read: two for each of its 1,000 subscriptions."""


class Connection(Protocol):
    """The connection of an outbox, as far as the outbox uses it."""

    transport: Any
    """The transport (``ITransport``, ``IConsumer``)."""
    codec: Codec
    """The codec of its session."""
    trace: Callable[[bytes], None] | None
    """Gets reports of all that an outbox writes; None for none."""

    @property
    def lane(self) -> str:
        """Its lane (``core.lanes``)."""

    def send_close(self, close_code: CloseCode, reason: str) -> None:
        """Sends a WebSocket Close with a code and a reason."""

    def expect_end(self) -> None:
        """Aborts the connection unless it ends within 10 s."""

    def answer_ping(self, payload: bytes) -> None:
        """Sends a WebSocket Pong."""

    def slow(self, waiting_bytes: int) -> None:
        """Reports that the queue is over its bound."""

    def abort(self) -> None:
        """Ends the connection now."""


class Writer(Protocol):
    """The part of the turn writer that an outbox uses; it writes for all sessions at the end of the turn."""

    counters: Counters

    @property
    def runs(self) -> Sized:
        """The runs that are not handed to their sessions yet; see ``turn.Run``."""

    def attach(self, outbox: Outbox, item: Frame | Snapshot | Close) -> bool:
        """Adds an item for one session to the last run that includes the session. There must be a run.

        Returns:
            Whether a run includes the session; if none does, the item has to go into the session's own queue.
        """

    def mark_dirty(self, outbox: Outbox) -> None:
        """Has an outbox flushed at the end of the turn."""

    def queue_pump(self, outbox: Outbox) -> None:
        """Has the backlog of an outbox written, with a bounded piece of its snapshots per turn."""

    def is_pump_over(self) -> bool:
        """Tells whether the time of this turn for snapshots is over."""

    def flush_runs(self) -> None:
        """Hands all runs to their sessions."""

    def discard(self, outbox: Outbox) -> None:
        """Drops an outbox's part of all runs so far."""


class Sink:
    """A transport as an outbox writes to it.

    Over plain TCP a piece is written to the socket in the same turn, and only the rest goes to the transport's buffer.
    ``ITransport.write`` would wait for the reactor's next turn, and its path to the socket takes as long as all other
    work for a subscriber (``docs/performance.md``, fan-out).

    Args:
        transport: any ``ITransport``; None drops all that is written.
        counters: where bytes are counted.
        trace: gets reports of all that is written.
    """

    __slots__ = ("_counters", "_handed_bytes", "_send", "_trace", "_transport")

    def __init__(self, transport: Any, counters: Counters, trace: Callable[[bytes], None] | None = None) -> None:
        self._transport = transport
        is_direct = isinstance(transport, TcpConnection) and not transport.TLS
        self._send: Callable[[bytes], int] | None = transport.socket.send if is_direct else None
        self._handed_bytes = 0
        self._counters = counters
        self._trace = trace

    def write(self, data: bytes) -> None:
        """Writes behind all that was written before."""
        self._counters.sent_bytes += len(data)
        self.write_uncounted(data)

    def write_uncounted(self, data: bytes) -> None:
        """Writes like ``write``, for a caller that counts the bytes of many at once."""
        transport, send = self._transport, self._send
        if self._trace is not None:
            self._trace(data)
        if send is None:
            if transport is not None:
                self._handed_bytes = len(data)
                transport.write(data)
        elif transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting:
            transport.write(data)
        else:
            try:
                taken = send(data)
            except OSError:
                # The socket buffer is full, or there is an error, which the reactor's own write handles as usual.
                taken = 0
            if taken != len(data):
                transport.write(data[taken:])

    @property
    def buffered_bytes(self) -> int:
        """The bytes in the transport's buffer; if the transport does not tell, the size of the last piece."""
        transport = self._transport
        if self._send is None:
            return self._handed_bytes
        buffered: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return buffered


CLOSED = Sink(None, Counters())
"""Drops all that is written; replaces the sink of a connection that has ended."""


@implementer(IPushProducer)
class Outbox:
    """Implements ``core.ports.Outbox`` and the rules for slow consumers (``docs/protocol.md``).

    Usually the socket accepts everything: frames are gathered in ``pending`` and written at the end of the turn. When
    the transport asks for a pause, or a snapshot is to be encoded, everything goes to a backlog until that has
    drained.

    Args:
        connection: the session's connection.
        writer: writes for all sessions at the end of the turn.
        bound_bytes: limit of what waits, the transport's own buffer included.
    """

    __slots__ = (
        "_bound_bytes",
        "_close",
        "_close_waits",
        "_connection",
        "_paused",
        "_pong",
        "_room_bytes",
        "_writer",
        "backlog",
        "is_closing",
        "pending",
        "sink",
    )

    def __init__(self, connection: Connection, writer: Writer, bound_bytes: int) -> None:
        self._connection: Connection | None = connection
        self._writer = writer
        self._bound_bytes = bound_bytes
        self._room_bytes = bound_bytes
        self._paused = False
        self._close: Close | None = None
        self._close_waits = False
        self._pong: bytes | None = None
        self.is_closing = False
        """Whether the session is closed; its messages are ignored."""
        self.pending: list[Item] = []
        """What is written at the end of this turn; used by the turn writer."""
        self.sink = Sink(connection.transport, writer.counters, connection.trace)
        """The transport; the turn writer writes to it directly if nothing is pending and nothing waits."""
        self.backlog: Backlog | None = None
        """The backlog; None while the socket keeps up. Used by the turn writer."""

    # core.ports.Outbox

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox.send``."""
        if self.is_closing:
            return
        writer = self._writer
        if writer.runs and writer.attach(self, frame):
            return
        if self.backlog is None:
            if not self.pending:
                writer.mark_dirty(self)
            self.pending.append(frame)
        else:
            self.put(frame)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox.send_snapshot``."""
        snapshot = Snapshot(key, frames)
        if self.is_closing:
            snapshot.give_up()
        else:
            self._place(snapshot)

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox.close``; the first call counts."""
        if self.is_closing:
            return
        self.is_closing = True
        if self._connection is not None:
            self._connection.expect_end()
        self._close = Close(close_code, reason)
        self._place(self._close)

    def discard(self) -> None:
        """See ``core.ports.Outbox.discard``; a close that was decided stays."""
        if self._is_closed:
            return
        self._writer.discard(self)
        self.pending = []
        if self.backlog is not None:
            self.backlog.clear()
        if self._close is not None:
            self._close_waits = False
            self._place(self._close)

    # For the turn writer

    def put(self, item: Item | Snapshot | Close) -> None:
        """Adds an item after all before it. Never raises."""
        try:
            self._put(item)
        except Exception:
            events.CONNECTION_FAULT.failure(action="wrote to a session")
            self.abort()

    def flush(self) -> None:
        """Writes what is pending, as far as the socket accepts it; the rest goes to the backlog."""
        pending = self.pending
        if len(pending) == 1:
            self.pending = []
            self.sink.write(pending[0].wire)
        elif pending:
            self.pending = []
            self._flush_many(pending)

    @property
    def lane(self) -> str:
        """Its lane (``core.lanes``)."""
        return "" if self._connection is None else self._connection.lane

    def pump(self, snapshot_bytes: int) -> int:
        """Writes from the backlog until the transport asks for a pause.

        Args:
            snapshot_bytes: bytes of snapshots that may be encoded now.

        Returns:
            The bytes that were encoded.
        """
        used, backlog = 0, self.backlog
        while backlog is not None and not self._paused and not self._is_closed:
            parts, encoded = backlog.take(PIECE_BYTES, snapshot_bytes - used, self._writer.is_pump_over)
            used += encoded
            if not parts:
                break
            self.sink.write(b"".join(parts))
        self._after_pump()
        return used

    def abort(self) -> None:
        """Ends the session after an internal error; nothing more is written."""
        connection = self._connection
        self.close_now()
        if connection is not None:
            connection.abort()

    # For the connection

    def send_error(self, code: ErrorCode, message: str) -> None:
        """Sends an ERROR."""
        if self._connection is not None:
            self.send(Frame(self._connection.codec.encode(Error(code, message))))

    @property
    def is_drained(self) -> bool:
        """Whether the transport has passed on all that was sent, as far as it tells."""
        return not (self.pending or self.backlog or self._paused)

    def may_pong(self, payload: bytes) -> bool:
        """Tells whether a ping may be answered now.

        A peer that pings but does not read gets one pong, to its last ping, once it reads again
        (RFC 6455 §5.5.3 allows it): pongs would otherwise pile up without a bound.
        """
        if self._paused:
            self._pong = payload
        return not self._paused

    def flush_and_close(self) -> None:
        """Hands over this turn's frames before a Close that the connection itself sends, and stops."""
        if not self._is_closed:
            self._writer.flush_runs()
            self.flush()
            self.close_now()

    def close_now(self) -> None:
        """Drops everything; nothing more is sent."""
        self.is_closing = self._close_waits = True
        self.pending = []
        if self.backlog is not None:
            self.backlog.clear()
        self.backlog = Backlog(self._writer.counters)
        self._connection = None
        self.sink = CLOSED

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stops writing: the transport's buffer is full."""
        self._paused = True
        if self._is_closed:
            return
        if self.backlog is None:
            self._make_backlog()
        self._measure_room()

    def resumeProducing(self) -> None:
        """Resumes writing in this turn: the transport's buffer is empty."""
        self._paused = False
        if self._is_closed:
            return
        payload, self._pong = self._pong, None
        if payload is not None and self._connection is not None:
            self._connection.answer_ping(payload)
        self._writer.queue_pump(self)

    def stopProducing(self) -> None:
        """Stops for good: the connection is gone."""
        self.close_now()

    @property
    def _is_closed(self) -> bool:
        return self._connection is None

    def _place(self, item: Snapshot | Close) -> None:
        writer = self._writer
        if not (writer.runs and writer.attach(self, item)):
            self.put(item)

    def _put(self, item: Item | Snapshot | Close) -> None:
        if self._close_waits:
            if isinstance(item, Snapshot):
                item.give_up()
            return
        backlog = self.backlog
        if isinstance(item, Snapshot | Close):
            if backlog is None:
                backlog = self._make_backlog()
            backlog.push(item)
            self._close_waits = isinstance(item, Close)
            if not self._paused:
                self._writer.queue_pump(self)
            elif backlog.snapshots > MAX_SNAPSHOTS:
                self._close_as_too_slow()
        elif backlog is None:
            if not self.pending:
                self._writer.mark_dirty(self)
            self.pending.append(item)
        else:
            self._put_behind(backlog, item)

    def _measure_room(self) -> None:
        """Sets how much the backlog may hold beside the transport's buffer: at least half of the bound.

        The transport may hold two pieces of a snapshot, which are not counted, and a small bound is not larger than
        these.
        """
        bound_bytes = self._bound_bytes
        self._room_bytes = max(bound_bytes - self.sink.buffered_bytes, bound_bytes >> 1)

    def _put_behind(self, backlog: Backlog, item: Item) -> None:
        """Adds an item to the backlog.

        Only items that are added while the transport has asked for a pause count against the bound. The others wait for
        the relay itself, behind a snapshot that is encoded a piece in each turn.
        """
        if not self._paused:
            backlog.push_free(item)
            return
        backlog.push(item)
        if backlog.counted_bytes > self._room_bytes:
            self._keep_bound(backlog)

    def _make_backlog(self) -> Backlog:
        """Moves everything to a backlog, what is pending first."""
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
        if self._is_closed or backlog is None:
            return
        if self._paused:
            self._keep_bound(backlog)
        elif not backlog:
            self.backlog = None
        elif isinstance(backlog.first, Close):
            self._send_close(backlog.first)
        else:
            self._writer.queue_pump(self)

    def _send_close(self, close: Close) -> None:
        connection = self._connection
        self.close_now()
        if connection is not None:
            connection.send_close(close.code, close.reason)

    def _keep_bound(self, backlog: Backlog) -> None:
        self._measure_room()
        if self._connection is not None and backlog.counted_bytes > self._room_bytes:
            self._connection.slow(backlog.size_bytes)
            if not backlog.shrink(self._room_bytes):
                self._close_as_too_slow()

    def _close_as_too_slow(self) -> None:
        connection, sink = self._connection, self.sink
        self.close_now()
        if connection is None:
            return
        self._writer.counters.slow_closes += 1
        connection.expect_end()
        sink.write(connection.codec.encode(Error(ErrorCode.OVERLOADED, "too slow")))
        connection.send_close(CloseCode.TRY_AGAIN_LATER, "too slow")
