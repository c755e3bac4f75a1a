"""Sessions: a connected client's identity, state and subscriptions, and which messages are legal in which state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

from clasp_relay.core.ports import Codec, Frame, Outbox
from clasp_relay.core.records import text_bytes
from clasp_relay.core.session.account import UNCOUNTED, Account, MemoryKind
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.errors import CloseCode, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal

SUBSCRIPTION_BYTES = 600
"""Memory of a subscription in bytes, without its pattern: its object and its entries in tables."""

NODE_BYTES = 400
"""Memory of a segment of a pattern in bytes: its node (``fanout.subscriptions``), and its part of the matching
table."""


ANYBODY = Identity()
"""The identity of every session in open mode."""


class SessionState(Enum):
    """The state of a session (``docs/protocol.md``, Connection)."""

    NEW = "waiting for HELLO"
    LIVE = "live"
    CLOSED = "closed"


class Subscription:
    """One SUBSCRIBE of a session.

    Args:
        session: its session.
        subscription_id: the client's id.
        pattern: the addresses that it asks for.
        types: mask of the signals that it asks for.
        max_rate: messages a second and address; None for no limit.
        epsilon: the smallest numeric change that is sent; None for every change.
    """

    __slots__ = ("epsilon", "id", "max_rate", "node", "pattern", "session", "types")

    def __init__(
        self,
        session: Session,
        subscription_id: int,
        pattern: Pattern,
        types: int,
        max_rate: int | None,
        epsilon: float | None,
    ) -> None:
        self.session = session
        self.id = subscription_id
        self.pattern = pattern
        self.types = types
        self.max_rate = max_rate
        self.epsilon = epsilon
        self.node: object = None
        """Its node in the table of subscriptions."""

    def wants(self, signal: Signal) -> bool:
        """Tells whether its type filter includes a kind of signal."""
        return bool(self.types >> signal & 1)

    @property
    def kept_bytes(self) -> int:
        """Its memory in bytes, with all nodes of its pattern, also those that it shares with others."""
        text = self.pattern.text
        nodes = 1 if self.pattern.is_literal else text.count("/")
        return SUBSCRIPTION_BYTES + 4 * len(text) + nodes * NODE_BYTES

    @property
    def is_throttled(self) -> bool:
        """Whether it has maxRate or epsilon."""
        return self.max_rate is not None or self.epsilon is not None


class LongAnswer:
    """The place of a long answer, such as that to a REPLAY, in a session's queue of answers; later answers wait.

    Args:
        begin: called once, when all answers before it are sent.
    """

    __slots__ = ("begin", "is_done")

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin: Callable[[], None] | None = begin
        """See above; None once it was called."""
        self.is_done = False
        """Whether it is complete."""


MAX_NAME_CHARACTERS = 128
"""Characters of a client's name that are kept: a frame has room for 65,000."""

HELD_BYTES = 400
"""Memory in bytes of a waiting message, and of each member of a waiting BUNDLE, without address and value."""


class Held(NamedTuple):
    """A message that waits behind one that is being handled."""

    message: bytes | tuple[m.Message, int]
    """A frame, or a decoded message and its QoS."""
    mark: AbstractContextManager[object] | None
    """The context that is entered while it is handled (``Relay.accept``)."""
    size_bytes: int
    """The bytes that are counted for it."""


def held_bytes(message: bytes | tuple[m.Message, int]) -> int:
    """Estimates the memory of a waiting message in bytes."""
    if isinstance(message, bytes):
        return HELD_BYTES + len(message)
    decoded, _ = message
    members = decoded.messages if isinstance(decoded, m.Bundle) else (decoded,)
    size = HELD_BYTES
    for member in members:
        size += HELD_BYTES
        if isinstance(member, m.Set | m.Publish):
            samples = member.samples if isinstance(member, m.Publish) else None
            size += text_bytes(member.address) + len(member.value or b"") + len(samples or b"")
    return size


_NO_MORE: deque[Held] = deque(maxlen=0)


class Session:
    """One connection, from its beginning to its end.

    Args:
        session_id: a lower-case UUID4, told to the client in WELCOME.
        outbox: its outbox.
        peer: the client's address, for the log.
        codec: its protocol.
        connected_us: the Unix time in µs.
        origin: the origin of its client address (``SessionHooks.origin_of``).
        group: its lane where there is no origin, as in open mode (``SessionHooks.group_of``).
    """

    __slots__ = (
        "account",
        "answers",
        "awaits",
        "bad_frames_us",
        "codec",
        "connected_us",
        "door",
        "errors",
        "features",
        "group",
        "hears_itself",
        "held",
        "hello_us",
        "id",
        "identity",
        "is_busy",
        "limiter",
        "marked",
        "name",
        "origin",
        "outbox",
        "peer",
        "pending_bundles",
        "received",
        "sent_as",
        "sent_with",
        "state",
        "subscriptions",
        "when_decided",
    )

    def __init__(
        self,
        session_id: str,
        outbox: Outbox,
        peer: str,
        codec: Codec,
        connected_us: int = 0,
        origin: str = "",
        group: str = "",
    ) -> None:
        self.id = session_id
        self.outbox = outbox
        self.peer = peer
        self.origin = origin
        self.group = group
        self.codec = codec
        self.door = ""
        """Its door; empty for CLASP over WebSocket."""
        self.hears_itself = False
        """Whether it gets its own signals if it subscribed to them, as in MQTT."""
        self.connected_us = connected_us
        self.hello_us = 0
        """When its HELLO was accepted; 0 until then."""
        self.received = 0
        """Messages that it sent."""
        self.errors = 0
        """ERRORs that it was sent."""
        self.sent_as = b""
        """The bytes that its client sent for the SET that is being handled, if its value encodes to other bytes."""
        self.sent_with = b""
        """Bytes that its door adds to the message that is being handled, for the same door of other relays; the door
        defines their encoding."""
        self.when_decided: Callable[[int | None, RequestError | None], None] | None = None
        """Called with the outcome of each message that another relay decides, in order: the revision, if there is one,
        or the refusal. It replaces ACKs; None if the client gets ACKs."""
        self.state = SessionState.NEW
        self.name = ""
        self.features = 0
        self.identity: Identity = ANYBODY
        self.limiter: Limiter | None = None
        self.account: Account = UNCOUNTED
        """Its account of memory, from its HELLO on."""
        self.subscriptions: dict[int, Subscription] = {}
        self.pending_bundles = 0
        self.bad_frames_us: list[int] = []
        """The times of the last undecodable frames, in Unix µs."""
        self.awaits = 0
        """The log's batch of its last change."""
        self.answers: deque[Frame | LongAnswer | int] | None = None
        """The queue of answers, from a long one on; a number stands for the batch that later answers wait for. None
        while there is no long answer: then answers wait with their batch (``Committer.answer``)."""
        self.marked = 0
        """The last number in that queue."""
        self.held: deque[Held] | None = None
        """Messages that wait behind one that is being handled in pieces; None while each is handled as it comes. After
        the end of the session it accepts none. Set by ``hold``."""
        self.is_busy = False
        """Whether a message is being handled in pieces, and later ones wait; an attribute, since it is read for each
        read."""

    @property
    def lane(self) -> str:
        """Its lane (``core.lanes``); empty for a session without a client address."""
        return self.origin or self.group

    @property
    def is_live(self) -> bool:
        """Whether HELLO was accepted and the session has not ended."""
        return self.state is SessionState.LIVE

    def hold(self, waiting: deque[Held] | None) -> None:
        """Makes messages wait in a queue; with None, each is handled as it comes."""
        self.held = waiting
        self.is_busy = waiting is not None and self.state is not SessionState.CLOSED

    def close(self) -> None:
        """Drops all messages from now on, since the session has ended."""
        self.state = SessionState.CLOSED
        for held in self.held or ():
            self.account.add(MemoryKind.MESSAGES, -held.size_bytes)
        self.hold(_NO_MORE)


class AbsentSession(Session):
    """Stands for the session of a bundle that was scheduled before the relay was restarted; it gets no messages."""

    __slots__ = ()

    def __init__(self, session_id: str, codec: Codec, identity: Identity, origin: str) -> None:
        super().__init__(session_id, NoOutbox(), "", codec, origin=origin)
        self.identity = identity
        self.close()


class NoOutbox:
    """An outbox that drops everything."""

    def send(self, frame: Frame) -> None:
        """Drops it."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Drops it."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Does nothing."""

    def discard(self) -> None:
        """Does nothing."""


ALLOWED_LIVE: frozenset[type[m.Message]] = frozenset(
    {
        m.Announce,
        m.Bundle,
        m.Get,
        m.Ping,
        m.Pong,
        m.Publish,
        m.Query,
        m.Replay,
        m.Set,
        m.Subscribe,
        m.Sync,
        m.Unsubscribe,
    }
)

ALLOWED: dict[SessionState, frozenset[type[m.Message]]] = {
    SessionState.NEW: frozenset({m.Hello}),
    SessionState.LIVE: ALLOWED_LIVE,
    SessionState.CLOSED: frozenset(),
}
"""The message types that a session may send in each of its states."""


def check_legal(state: SessionState, message: m.Message) -> None:
    """Refuses a message that is not legal in a session's state.

    Raises:
        RequestError: MESSAGE, with the message type and the cause.
    """
    kind = type(message)
    if kind not in ALLOWED[state]:
        raise RequestError(ErrorCode.MESSAGE, _why(state, kind))


def _why(state: SessionState, kind: type[m.Message]) -> str:
    name = kind.__name__
    if state is SessionState.NEW:
        return f"the first message must be HELLO, not {name.upper()}"
    if kind is m.Hello:
        return "this session has said HELLO before; open another connection for another session"
    return f"{name.upper()} is a message that only the relay sends"


class SessionTable:
    """The table of live sessions."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_subject: dict[str, dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._by_id

    def get(self, session_id: str) -> Session | None:
        """Returns the session with an id, if it is live."""
        return self._by_id.get(session_id)

    def all(self) -> list[Session]:
        """Returns all live sessions."""
        return list(self._by_id.values())

    def of_token(self, subject: str, token: bytes) -> list[Session]:
        """Returns the sessions of one of a user's tokens, given by the token's id (``Identity.token``)."""
        return [session for session in self._by_subject.get(subject, ()) if session.identity.token == token]

    def has_subject(self, subject: str) -> bool:
        """Tells whether a user has a live session."""
        return subject in self._by_subject

    def of_subject(self, subject: str) -> list[Session]:
        """Returns the sessions of a user; none in open mode, where there are no users."""
        return list(self._by_subject.get(subject, ()))

    def add(self, session: Session) -> None:
        """Adds a session that has become live; its identity must not change."""
        self._by_id[session.id] = session
        if session.identity.subject:
            self._by_subject.setdefault(session.identity.subject, {})[session] = None

    def discard(self, session: Session) -> None:
        """Removes a session that has ended; does nothing if it was never live."""
        if self._by_id.pop(session.id, None) is not None:
            sessions = self._by_subject.get(session.identity.subject)
            if sessions is not None:
                del sessions[session]
                if not sessions:
                    del self._by_subject[session.identity.subject]
