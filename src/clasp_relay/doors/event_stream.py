"""Server-Sent Events: an HTTP response without an end, with what a subscription gets.

The HTTP side (``http.stream_api``) accepts the request and hands over the connection. From then on it is a connection
like that of any door: counted, limited, ended when too slow, and closed in order when the relay stops.

With history, the id of an event is its position there (``Keeping.position_us``). A client that reconnects with the last
id that it saw gets what history has kept since then, each entry once and in order; meanwhile live events are held
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from twisted.internet.interfaces import IDelayedCall

from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.history.replays import END_MARK, EndKey
from clasp_relay.core.ports import NOT_YET, Frame, Kind
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.doors.stream import StreamConnection
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.net.backlog import Batch, Close, Snapshot, give_up
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.json_values import COMMENT, EventStreamCodec, event
from clasp_relay.wire.messages import Hello, Replay, Subscribe

__all__ = ["HEARTBEAT_S", "Asked", "EventStream", "codec_of"]

HEARTBEAT_S = 15.0
"""Interval of comments: proxies end responses that are silent for 60 s, and a lost client is noticed."""

RETRY = b"retry: 2000\n\n"
"""How long an EventSource waits before it reconnects, in ms: shorter than a restart."""

MAX_MISSED = 10_000
"""Entries that are sent after an interruption; as many as a REPLAY has at most."""

MIN_HELD_BYTES = 128
"""Bytes that a held event counts for at least; see ``net.backlog``."""

PASSED_OVER_AT_ONCE = 64
"""Frames that are skipped in one piece: about half a millisecond of work."""

_SIGNALS = ALL_TYPES & ~(1 << Signal.PARAM)
_SUBSCRIPTION = 1
_HELLO = "hello"
_SNAPSHOT = ("subscription", _SUBSCRIPTION)
_LIVE, _PROBLEM = b"event: live\n", b"event: problem\n"
_NOT_ALL = b'{"complete": false}'
_WHOLE = event("live", b'{"complete": true}')


@dataclass(frozen=True, slots=True)
class Asked:
    """The request of a stream.

    Attributes:
        token: the client's token; empty for none.
        pattern: the pattern of its subscription.
        head: the response up to the first event.
        refuse: makes a whole response that refuses, from a sentence.
        forwarded_for: the request's X-Forwarded-For.
    """

    token: str
    pattern: str
    head: bytes
    refuse: Callable[[str], bytes]
    forwarded_for: str = ""
    last_id: int | None = None
    """The last id that it saw before it was interrupted; None for none."""


def codec_of(relay: Relay) -> EventStreamCodec:
    """Returns the codec of all streams of a relay."""
    keeping = None if relay.replays is None else relay.keeping
    return EventStreamCodec(END_MARK, None if keeping is None else lambda: keeping.position_us)


class _Way(HandedOutbox):
    """The outbox of a stream's session, which writes to that of its connection. Implements ``core.ports.Outbox``.

    While the reader is sent what it missed, live events are held back.

    Args:
        outbox: the connection's.
        gate: has the turn writer, and the limit of what is held back.
    """

    def __init__(self, outbox: Outbox, gate: ClaspFactory) -> None:
        self._outbox = self.connection_outbox = outbox
        self._writer = gate.writer
        self._bound_bytes = gate.limits.outbox_bytes
        self._held: list[Frame] | None = None
        self._held_bytes = 0
        self._when_told: Callable[[bytes], None] = _ignore
        self.left_out: set[object] = {_HELLO}
        """The keys of SNAPSHOTs that are not sent: the request asked for one pattern."""

    @property
    def is_holding(self) -> bool:
        """Whether live events are held back."""
        return self._held is not None

    def hold(self, when_told: Callable[[bytes], None]) -> None:
        """Holds back live events until ``release``.

        Args:
            when_told: called with the event that ends what the reader missed, or with an empty one if that cannot be
                sent. It has to call ``release``.
        """
        self._held, self._when_told = [], when_told

    def release(self, *first: Frame) -> None:
        """Sends the events that were held back.

        Args:
            first: an event to send before these.
        """
        held, self._held, self._held_bytes = self._held or (), None, 0
        for frame in (*first, *held):
            self._outbox.put(frame)

    # core.ports.Outbox

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``."""
        self._place(frame)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``."""
        if key in self.left_out:
            Snapshot(key, frames).give_up()
        else:
            self._place(Snapshot(key, _End(frames, self._when_told) if isinstance(key, EndKey) else frames))

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox``."""
        self._place(Close(close_code, reason))

    def discard(self) -> None:
        """See ``core.ports.Outbox``."""
        self._writer.discard(cast("Outbox", self))
        self._held, self._held_bytes = None, 0
        self._outbox.discard()

    # HandedOutbox

    def put(self, item: Frame | Batch | Snapshot | Close) -> None:
        """Handles an item of the turn writer, or holds it back."""
        if isinstance(item, Snapshot):
            self._outbox.send_snapshot(item.key, item.frames)
        elif isinstance(item, Close):
            self._outbox.close(item.code, item.reason)
        else:
            super().put(item)

    def deliver_batch(self, batch: Batch) -> None:
        """Passes on frames that are shared with other sessions."""
        if self._held is None:
            self._outbox.put(batch)
        else:
            super().deliver_batch(batch)

    def deliver(self, frame: Frame) -> None:
        """Passes on one frame, or holds it back."""
        held = self._held
        if held is None:
            self._outbox.put(frame)
        elif frame.address:
            held.append(frame)
            self._held_bytes += max(len(frame.wire), MIN_HELD_BYTES)
            if self._held_bytes > self._bound_bytes:
                self._writer.counters.slow_closes += 1
                self.discard()
                self._outbox.send_error(ErrorCode.OVERLOADED, "too much happened while you were told what you missed")
                self._outbox.close(CloseCode.TRY_AGAIN_LATER, "too slow")
        elif frame.wire.startswith(_LIVE):
            self._when_told(frame.wire)
        else:
            self._outbox.put(frame)
            if frame.wire.startswith(_PROBLEM):
                self._when_told(b"")

    def abort(self) -> None:
        """Ends the session after an internal error."""
        self._outbox.abort()

    def _place(self, item: Frame | Snapshot | Close) -> None:
        writer = self._writer
        if not (writer.runs and writer.attach(cast("Outbox", self), item)):
            self.put(item)


class _End:
    """Replaces the last frames of a REPLAY, of which only the end mark is needed.

    Not a generator, since a generator that was never started does not notice that it is closed.

    Args:
        frames: the current params, and the end mark.
        when_told: called with the end mark.
    """

    def __init__(self, frames: Iterator[bytes], when_told: Callable[[bytes], None]) -> None:
        self._frames = frames
        self._when_told = when_told

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for count, wire in enumerate(self._frames, 1):
            if wire.startswith(_LIVE):
                self._when_told(wire)
            elif count % PASSED_OVER_AT_ONCE == 0:
                return NOT_YET
        raise StopIteration

    def close(self) -> None:
        """See ``core.ports.Outbox.send_snapshot``."""
        give_up(self._frames)


class EventStream(StreamConnection):
    """One response.

    Args:
        gate: admits connections.
        counts: the counts of the door.
        relay: the core.
        codec: the codec of all streams; see ``codec_of``.
        asked: the request.
    """

    codec: EventStreamCodec

    def __init__(
        self, gate: ClaspFactory, counts: DoorCounts, relay: Relay, codec: EventStreamCodec, asked: Asked
    ) -> None:
        super().__init__(gate, counts, codec)
        self.forwarded_for = asked.forwarded_for
        self._relay = relay
        self._keeping: Keeping | None = None if relay.replays is None else relay.keeping
        self._asked = asked
        self._session: Session | None = None
        self._way: _Way | None = None
        self._until_us = 0
        """The position in history up to which it is sent what it missed."""
        self._beat: IDelayedCall | None = None

    @property
    def is_live(self) -> bool:
        """See the base class."""
        return self._session is not None and self._session.is_live

    @property
    def is_busy(self) -> bool:
        """See the base class; nothing that it sends is handled."""
        return False

    @property
    def session_id(self) -> str:
        """See the base class."""
        return "" if self._session is None else self._session.id

    def begin(self, outbox: Outbox) -> None:
        """Begins the response; subscribes as soon as no bundle is being carried out."""
        way = self._way = _Way(outbox, self.gate)
        session = self._session = self._relay.connect(way, self.address, self.codec)
        session.door = self.counts.door
        way.send(Frame(self._asked.head + RETRY))
        self._relay.accept(session, Hello(1, 0, "EventSource", self._asked.token), 0)
        self._relay.bundles.when_whole(
            lambda: self._guarded("began a session", lambda: self._subscribe(session, way)),
        )

    def _subscribe(self, session: Session, way: _Way) -> None:
        """Subscribes, and sends the current params, or what was missed."""
        if self._way is None:
            return  # the reader is gone
        keeping, last_id = self._keeping, self._asked.last_id
        is_known = keeping is not None and last_id is not None and last_id <= keeping.position_us
        if is_known:
            way.hold(self._told)
            if self._keeps_params():
                way.left_out.add(_SNAPSHOT)
        self._relay.accept(session, Subscribe(_SUBSCRIPTION, self._asked.pattern), 0)
        if not session.subscriptions:
            way.close(CloseCode.POLICY_VIOLATION, "the subscription was refused")
            return
        self._beat = self.gate.reactor.callLater(HEARTBEAT_S, self._send_heartbeat)
        if is_known and keeping is not None and last_id is not None:
            self._until_us = keeping.position_us
            self._replay(session, way, last_id)
        else:
            way.send(Frame(event("live", b"{}" if last_id is None else _NOT_ALL, self.codec.position)))

    def _keeps_params(self) -> bool:
        """Tells whether history keeps all SETs, too, so that no SNAPSHOT is needed after an interruption."""
        keeping = self._keeping
        return keeping is not None and keeping.rules.keeps_all(Pattern.parse(self._asked.pattern), Signal.PARAM)

    def _replay(self, session: Session, way: _Way, last_id: int) -> None:
        """Requests what was missed: the entries of history after an id."""
        replays = self._relay.replays
        assert replays is not None, "an id without history"
        asked = replays.asked
        types = ALL_TYPES if _SNAPSHOT in way.left_out else _SIGNALS
        missed = Replay(self._asked.pattern, last_id + 1, self._until_us, MAX_MISSED, types)
        self._relay.accept(session, missed, 0)
        if replays.asked == asked and way.is_holding:
            # The message limit refused it.
            self._told(b"")

    def _told(self, live: bytes) -> None:
        """Goes on with live events, after the reader was sent what it missed.

        Args:
            live: the event that tells this; empty if what was missed could not be sent.
        """
        way = self._way
        if way is None:
            return
        if live == _WHOLE:
            way.release(Frame(event("live", b'{"complete": true}', self._until_us)))
        elif _SNAPSHOT in way.left_out:
            # Something is missing, so it needs the current params, after all that was sent already.
            way.left_out.remove(_SNAPSHOT)
            way.release()
            self.gate.reactor.callLater(0, self._send_state)
        else:
            way.release(Frame(event("live", _NOT_ALL, self._until_us)))

    def _send_state(self) -> None:
        """Sends the current params."""
        session, way = self._session, self._way
        if session is not None and way is not None and session.is_live:
            self._relay.accept(session, Subscribe(_SUBSCRIPTION, self._asked.pattern), 0)
            way.send(Frame(event("live", _NOT_ALL, self.codec.position)))

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """See the base class."""
        outbox.send(Frame(self._asked.refuse(refusal)))

    def take(self, data: bytes) -> None:
        """Ignores received bytes: the response said that no other one follows on this connection."""

    def late(self, outbox: Outbox, reason: str) -> None:
        """See the base class; never called, since the session is live at once or closed."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See the base class; after what the session was sent in this turn."""
        if self._way is None:
            super().close(close_code, reason)
        else:
            self._way.close(close_code, reason)

    def gone(self, cause: str) -> None:
        """See the base class."""
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.cancel()
        session, self._session, self._way = self._session, None, None
        if session is not None:
            self._relay.disconnect(session, cause)

    def look_after(self, silent_s: float) -> None:
        """Does nothing: this client sends nothing. The comments notice a lost connection."""

    def _send_heartbeat(self) -> None:
        self._beat = None
        outbox, session, way = self.outbox, self._session, self._way
        if outbox is None or outbox.is_closing or session is None or way is None:
            return
        if self.is_drained and session.answers is None and not way.is_holding:
            position = self.codec.position
            way.send(Frame(COMMENT if position is None else b":\nid: %d\n\n" % position, Kind.DROP))
        self._beat = self.gate.reactor.callLater(HEARTBEAT_S, self._send_heartbeat)


def _ignore(_live: bytes) -> None:
    """Does nothing."""
