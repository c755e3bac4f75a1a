"""A connected client, as the core knows it: who it is, what it may send in which state, what it asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

from clasp_relay.core.ports import Codec, Frame, Outbox
from clasp_relay.core.records import text_bytes
from clasp_relay.core.session.account import UNCOUNTED, Account, Kept
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.errors import CloseCode, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal

SUBSCRIPTION_BYTES = 600
"""What a subscription takes beside its pattern: its object and its places in the tables."""

NODE_BYTES = 400
"""What a segment of a pattern takes: its node (``fanout.subscriptions``), and its part of the table for matching."""


ANYBODY = Identity()
"""Everybody in open mode."""


class SessionState(Enum):
    """Where a session is in its life (``docs/protocol.md``, Connection)."""

    NEW = "waiting for HELLO"
    LIVE = "live"
    CLOSED = "closed"


class Subscription:
    """One SUBSCRIBE of a session.

    Args:
        session: whose it is.
        subscription_id: the client's id.
        pattern: what it asks for.
        types: mask of the signals it asks for.
        max_rate: messages a second and address, or None.
        epsilon: the smallest numeric change it wants to hear of, or None.
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
        """Where the table of subscriptions keeps it."""

    def wants(self, signal: Signal) -> bool:
        """Tells whether its type filter lets a kind of signal through."""
        return bool(self.types >> signal & 1)

    @property
    def kept_bytes(self) -> int:
        """How much memory it takes, with all the nodes that lead to its pattern, whoever had them made."""
        text = self.pattern.text
        nodes = 1 if self.pattern.is_literal else text.count("/")
        return SUBSCRIPTION_BYTES + 4 * len(text) + nodes * NODE_BYTES

    @property
    def is_throttled(self) -> bool:
        """Whether it asked for less than everything that matches."""
        return self.max_rate is not None or self.epsilon is not None


class LongAnswer:
    """The place of a REPLAY in a session's queue of answers; what stands behind waits for its end.

    Args:
        begin: called once when it comes to the front.
    """

    __slots__ = ("begin", "is_done")

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin: Callable[[], None] | None = begin
        """See above; None once it was called."""
        self.is_done = False
        """Whether all of it is sent."""


MAX_NAME_CHARACTERS = 128
"""How much is kept of what a client calls itself: a frame has room for 65,000."""

HELD_BYTES = 400
"""What a message takes that waits, beside its address and value; each member of a BUNDLE, too."""


class Held(NamedTuple):
    """A message that waits behind one that is at work."""

    message: bytes | tuple[m.Message, int]
    """A frame, or a decoded message and its QoS."""
    mark: AbstractContextManager[object] | None
    """What is entered while it is handled (``Relay.accept``)."""
    size_bytes: int
    """What is counted for it."""


def held_bytes(message: bytes | tuple[m.Message, int]) -> int:
    """Returns about how much memory a message takes that waits."""
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
        outbox: its way out.
        peer: the client's address, for the log.
        codec: the protocol that it speaks.
        connected_us: the Unix time in µs.
        origin: what its client address counts as (``Relay.origin_of``).
        group: what it takes turns with where that counts as nothing, as in open mode (``Relay.group_of``).
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
        """The door that it came in by; empty for CLASP over WebSocket."""
        self.hears_itself = False
        """Whether what it publishes comes back to it where it subscribed, as MQTT has it."""
        self.connected_us = connected_us
        self.hello_us = 0
        """When its HELLO was accepted; 0 until then."""
        self.received = 0
        """Messages that it sent."""
        self.errors = 0
        """ERRORs that it was sent."""
        self.sent_as = b""
        """The bytes that its client sent for the SET that is being handled, where the value does not become them."""
        self.sent_with = b""
        """What the same door of other relays is to know of the message that is being handled, in its own words."""
        self.when_decided: Callable[[int | None, RequestError | None], None] | None = None
        """Is told what became of each message about which another relay decides, in their order: the revision, where
        there is one, or why it was refused. It takes the place of ACKs; None where the client gets those."""
        self.state = SessionState.NEW
        self.name = ""
        self.features = 0
        self.identity: Identity = ANYBODY
        self.limiter: Limiter | None = None
        self.account: Account = UNCOUNTED
        """What is kept for it, from its HELLO on."""
        self.subscriptions: dict[int, Subscription] = {}
        self.pending_bundles = 0
        self.bad_frames_us: list[int] = []
        """When the last frames came that could not be decoded."""
        self.awaits = 0
        """The log's batch with which its last change is recorded, or was."""
        self.answers: deque[Frame | LongAnswer | int] | None = None
        """Answers from a long one on, in order; a number stands for the batch for which those behind it wait. None
        while there is no long one: then answers wait with their batch (``Committer.answer``)."""
        self.marked = 0
        """The last of these numbers."""
        self.held: deque[Held] | None = None
        """Messages that came while one before them is at work in pieces; None while each is handled as it comes. Once
        the session has ended it takes none. Set by ``hold``."""
        self.is_busy = False
        """Whether a message of it is at work in pieces, and what comes waits behind it; kept, since each read asks."""

    @property
    def lane(self) -> str:
        """What has one place in a turn; see ``core.lanes``. Empty for a session without a client address."""
        return self.origin or self.group

    @property
    def is_live(self) -> bool:
        """Whether HELLO was accepted and the session has not ended."""
        return self.state is SessionState.LIVE

    def hold(self, waiting: deque[Held] | None) -> None:
        """Has messages wait behind one that is at work, or with None has each handled as it comes."""
        self.held = waiting
        self.is_busy = waiting is not None and self.state is not SessionState.CLOSED

    def close(self) -> None:
        """The session has ended: it takes no messages any more."""
        self.state = SessionState.CLOSED
        for held in self.held or ():
            self.account.add(Kept.MESSAGES, -held.size_bytes)
        self.hold(_NO_MORE)


class AbsentSession(Session):
    """Stands for the session of a bundle that was accepted before the relay was restarted: it hears nothing."""

    __slots__ = ()

    def __init__(self, session_id: str, codec: Codec, identity: Identity, origin: str) -> None:
        super().__init__(session_id, NoOutbox(), "", codec, origin=origin)
        self.identity = identity
        self.close()


class NoOutbox:
    """A way out that leads nowhere."""

    def send(self, frame: Frame) -> None:
        """Nobody gets it."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Nobody gets it."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """There is nothing to close."""

    def discard(self) -> None:
        """There is nothing to drop."""


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
"""What a session may send in each of its states."""


def check_legal(state: SessionState, message: m.Message) -> None:
    """Refuses a message that is not legal in a session's state.

    Raises:
        RequestError: MESSAGE, naming the message and what is wrong with it there.
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
    """Knows which sessions are live."""

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
        """Returns the sessions of one of a user's tokens, given by what it is known by."""
        return [session for session in self._by_subject.get(subject, ()) if session.identity.token == token]

    def has_subject(self, subject: str) -> bool:
        """Tells whether a user has a live session."""
        return subject in self._by_subject

    def of_subject(self, subject: str) -> list[Session]:
        """Returns the sessions of a user; none in open mode, where there are no users."""
        return list(self._by_subject.get(subject, ()))

    def add(self, session: Session) -> None:
        """Adds a session that is live now; its identity stays."""
        self._by_id[session.id] = session
        if session.identity.subject:
            self._by_subject.setdefault(session.identity.subject, {})[session] = None

    def discard(self, session: Session) -> None:
        """Removes a session that has ended, if it ever was live."""
        if self._by_id.pop(session.id, None) is not None:
            sessions = self._by_subject.get(session.identity.subject)
            if sessions is not None:
                del sessions[session]
                if not sessions:
                    del self._by_subject[session.identity.subject]
