"""Server-Sent Events: an HTTP response that does not end, with what a SUBSCRIBE would be sent.

The HTTP side (``http.stream_api``) decides whether there is one, and hands over the connection. From then on it is a
connection like that of any door: counted, bounded, ended as too slow, and closed in order when the relay stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall

from clasp_relay.core.history.replays import END_MARK
from clasp_relay.core.ports import Frame, Kind
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.stream import StreamConnection
from clasp_relay.errors import CloseCode
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.json_values import EventStreamCodec, event
from clasp_relay.wire.messages import Hello, Replay, Subscribe

__all__ = ["HEARTBEAT_S", "Asked", "EventStream"]

HEARTBEAT_S = 15.0
"""How often a comment is sent: proxies end responses that send nothing for 60 s, and who is gone is noticed."""

RETRY = b"retry: 2000\n\n"
"""How long an EventSource waits before it connects again, in ms: shorter than a restart."""

LIVE = event("live", b"{}")
"""What follows the values that were set before."""

MAX_MISSED = 10_000
"""Signals that are sent after an interruption; as many as a REPLAY gives."""

_SIGNALS = ALL_TYPES & ~(1 << Signal.PARAM)
COMMENT = b":\n\n"
_HELLO = "hello"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asked for.

    Attributes:
        token: of the client; empty for none.
        pattern: what it subscribes to.
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
    """The id that it saw last, before it was interrupted; None for none."""


CODEC = EventStreamCodec(END_MARK)
"""The one that all streams share."""


class _Outbox(Outbox):
    """Leaves out the SNAPSHOT after HELLO: the request asked for one pattern."""

    __slots__ = ()

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``Outbox``."""
        if key != _HELLO:
            super().send_snapshot(key, frames)
            return
        close = getattr(frames, "close", None)
        if close is not None:
            close()


class EventStream(StreamConnection):
    """One response.

    Args:
        gate: admits connections.
        counts: where the door counts.
        relay: the core.
        asked: what the request asked for.
    """

    outbox_class = _Outbox

    def __init__(self, gate: ClaspFactory, counts: DoorCounts, relay: Relay, asked: Asked) -> None:
        super().__init__(gate, counts, CODEC)
        self.forwarded_for = asked.forwarded_for
        self._relay = relay
        self._asked = asked
        self._session: Session | None = None
        self._beat: IDelayedCall | None = None

    @property
    def is_live(self) -> bool:
        """See the base class."""
        return self._session is not None and self._session.is_live

    @property
    def is_busy(self) -> bool:
        """See the base class: nothing that it sends is handled."""
        return False

    @property
    def session_id(self) -> str:
        """See the base class."""
        return "" if self._session is None else self._session.id

    def begin(self, outbox: Outbox) -> None:
        """Subscribes, and says when what was set before has been sent."""
        session = self._session = self._relay.connect(outbox, self.address, self.codec)
        session.door = self.counts.door
        outbox.send(Frame(self._asked.head + RETRY))
        self._relay.accept(session, Hello(1, 0, "EventSource", self._asked.token), 0)
        self._relay.accept(session, Subscribe(1, self._asked.pattern), 0)
        if session.subscriptions:
            if not self._replay_missed(session):
                outbox.send(Frame(LIVE + self._id()))
            self._beat = self.gate.reactor.callLater(HEARTBEAT_S, self._send_heartbeat)
        else:
            outbox.close(CloseCode.POLICY_VIOLATION, "the subscription was refused")

    def _replay_missed(self, session: Session) -> bool:
        """Asks for the signals since the interruption, where there was one and history is kept."""
        last_id = self._asked.last_id
        if last_id is None or self._relay.replays is None:
            return False
        errors = session.errors
        self._relay.accept(session, Replay(self._asked.pattern, last_id, None, MAX_MISSED, _SIGNALS), 0)
        return session.errors == errors

    def _id(self) -> bytes:
        """Returns the id of what is sent now: the time, from which on a REPLAY gives what comes behind."""
        return b"" if self._relay.replays is None else b"id: %d\n\n" % self._relay.clock.now_us()

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """See the base class."""
        outbox.send(Frame(self._asked.refuse(refusal)))

    def take(self, data: bytes) -> None:
        """Ignores what comes: the response said that no other one follows on this connection."""

    def late(self, outbox: Outbox, reason: str) -> None:
        """See the base class; the session was live at once, or was closed."""

    def gone(self, cause: str) -> None:
        """See the base class."""
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.cancel()
        session, self._session = self._session, None
        if session is not None:
            self._relay.disconnect(session, cause)

    def look_after(self, silent_s: float) -> None:
        """Does nothing: this client never sends anything. The heartbeats notice that it is gone."""

    def _send_heartbeat(self) -> None:
        self._beat = None
        outbox = self.outbox
        if outbox is None or outbox.is_closing:
            return
        session = self._session
        if self.is_drained and session is not None and session.answers is None:
            outbox.send(Frame(self._id() or COMMENT, Kind.DROP))
        self._beat = self.gate.reactor.callLater(HEARTBEAT_S, self._send_heartbeat)
