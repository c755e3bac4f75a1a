"""The requests of a relay's sessions to the decider: kept until a batch of the log says that they are done.

A request is numbered within its session. Those of a turn are sent in one packet. Where the decider changes, all that
are not done are sent again, and nothing is done twice: the log says up to which number each session's requests are
done. Writes that have waited too long are refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Protocol

from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.packets import Asked, Entry, Packet, encode_origin
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import HELD_BYTES, Session, held_bytes
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import encode
from clasp_relay.wire.tuples import new_tuple

__all__ = ["Reach", "Request", "Requests", "SessionRequests"]

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Memory limit of the requests that wait for the decider; beyond it writes are refused."""

ENTRY_BYTES = 200
"""Approximate memory of a request besides its message."""

SET_BYTES = ENTRY_BYTES + 2 * HELD_BYTES
"""Approximate memory of a waiting SET besides the bytes of its address and value."""

PACKET_BYTES = 256 * 1024
"""A packet of this size gets no more requests; a message of NATS may have 1 MiB."""

WAITS_S = 5.0
"""How long a write waits for a decider."""

GIVEN_UP_AT_ONCE = 200
"""How many writes that have waited too long are refused at a time, about 10 µs each; sessions take turns."""

NOT_DONE = "not done: the relay has no connection to its cluster; try again"
UNKNOWN = "unknown whether it was done: the cluster did not answer in time; read before you try again"

_ADDRESSED = (m.Set, m.Publish)

_MESSAGE = int(Asked.MESSAGE)
_MESSAGES = MemoryKind.MESSAGES

_GIVEN_UP = (Asked.MESSAGE, Asked.CLEAR)
"""The kinds of requests that are dropped once they have waited too long."""


class Reach(Protocol):
    """Whose requests these are, and whether and how they reach the decider."""

    link: str
    """The id of this relay's link."""
    name: str
    """The relay's name."""
    ledger: Ledger
    """Names the decider, from the log."""
    is_cut_off: bool
    """Whether the decider cannot be reached now."""
    is_local: bool
    """Whether this relay is the decider, so that messages need no encoding."""


class Request:
    """A request that is not done yet.

    Args:
        entry: the request, as a packet has it.
        since_s: when it was made, in monotonic seconds.
        over: called with whether it was done; None if nobody waits for that.
    """

    __slots__ = ("entry", "is_sent", "over", "since_s", "size_bytes")

    def __init__(self, entry: Entry, since_s: float, over: Callable[[bool], None] | None = None) -> None:
        self.entry = entry
        self.since_s = since_s
        self.over = over
        self.is_sent = False
        message = entry.message
        if type(message) is m.Set:  # the usual one
            self.size_bytes = SET_BYTES + len(message.address) + len(message.value)
        else:
            self.size_bytes = ENTRY_BYTES + (0 if message is None else held_bytes((message, 0)))

    def encoded(self) -> Entry:
        """Returns the request as it is sent to another process."""
        message = self.entry.message
        if message is not None and not self.entry.data:
            self.entry = self.entry._replace(data=encode(message))
        return self.entry

    def refusal(self) -> RequestError:
        """Returns the ERROR for a request that has waited too long: it says whether it was surely not done."""
        message = self.entry.message
        about = None if message is None else _about(message)
        return RequestError(ErrorCode.OVERLOADED, UNKNOWN if self.is_sent else NOT_DONE, about)


class SessionRequests:
    """A session of this relay, and its requests."""

    __slots__ = ("given_up", "kept", "number", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.number = 0
        """The number of its last request."""
        self.kept: deque[Request] = deque()
        """The requests that are not done, in their order."""
        self.given_up: set[int] = set()
        """Requests that were refused since they waited too long; they may be done later, but are not answered again."""

    @property
    def has_writes(self) -> bool:
        """Whether there are requests that the session's reads have to wait for."""
        return any(kept.entry.kind not in (Asked.BEGIN, Asked.NAME, Asked.WILL) for kept in self.kept)


class Requests:
    """The requests of all sessions of a relay.

    Args:
        reach: whose requests they are, and how they reach the decider.
        monotonic_s: returns seconds.
        send: sends a packet to the decider.
        call_later: makes a call in a later turn.
    """

    def __init__(
        self,
        reach: Reach,
        monotonic_s: Callable[[], float],
        send: Callable[[Packet], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.sessions: dict[str, SessionRequests] = {}
        """The sessions of this relay that the log has not ended, by id."""
        self.forwarded = 0
        """Number of messages that were forwarded to the decider."""
        self.is_known = False
        """Whether the beginning of this relay's link is in the log."""
        self._reach = reach
        self._monotonic_s = monotonic_s
        self._send = send
        self._call_later = call_later
        self._waiting: dict[str, SessionRequests] = {}
        """The sessions with requests that are not done."""
        self._waiting_bytes = 0
        self._turn: list[Request] = []
        self._read: list[str] = []
        self._is_flushing = False
        self._packets = 0
        self._is_first = True
        """Whether the next packet repeats all requests that are not done."""

    # Making requests

    def begin(self, session: Session, vouched: str) -> None:
        """Adds a session; its first request says that it has begun.

        Args:
            session: the session.
            vouched: the rights that this relay vouches for (``Permissions.vouch``).
        """
        self.sessions[session.id] = SessionRequests(session)
        who = session.identity
        self.keep(session, Asked.BEGIN, 0, who.subject, who.token, encode_origin(session.origin, vouched))

    def ask(self, _relay: Relay, session: Session, message: m.Message, qos: int) -> None:
        """Handles a message that alters the state: forwards it to the decider. A ``Handler``.

        Raises:
            RequestError: the decider cannot be reached, or too much waits for it.
        """
        if self._reach.is_cut_off and not self.sessions[session.id].has_writes:
            # Behind writes the refusal must follow their answers.
            raise RequestError(ErrorCode.OVERLOADED, NOT_DONE, _about(message))
        if self._waiting_bytes > MAX_WAITING_BYTES:
            text = "not done: too much waits for the cluster; try again in a moment"
            raise RequestError(ErrorCode.OVERLOADED, text, _about(message))
        self.forwarded += 1
        asking = self.sessions[session.id]
        number = asking.number + 1
        more, mark = session.sent_as, session.sent_with
        self._keep(asking, new_tuple(Entry, (number, session.id, _MESSAGE, qos, "", b"", more, mark, message)), None)

    def keep(
        self,
        session: Session,
        kind: Asked,
        qos: int = 0,
        text: str = "",
        data: bytes = b"",
        more: bytes = b"",
        mark: bytes = b"",
        over: Callable[[bool], None] | None = None,
    ) -> None:
        """Makes a request without a message; it is sent at the end of the turn.

        ``Asked`` and ``Entry`` say what the fields mean.

        Args:
            session: one of ``sessions``.
            kind: the kind.
            qos: the QoS.
            text: the text.
            data: the data.
            more: more data.
            mark: the door's data.
            over: called once with whether it was done; False if that is not known in time.
        """
        asking = self.sessions[session.id]
        self._keep(asking, Entry(asking.number + 1, session.id, int(kind), qos, text, data, more, mark), over)

    def _keep(self, asking: SessionRequests, entry: Entry, over: Callable[[bool], None] | None) -> None:
        """Keeps a request. The session's account has the memory of its message until the request is done.

        Raises:
            RequestError: the session may not have so much memory.
        """
        kept = Request(entry, self._monotonic_s(), over)
        message = entry.message
        if message is not None:
            # So that only a client that floods a cluster without a decider is refused.
            about = message.address if type(message) is m.Set else _about(message)
            asking.session.account.take(_MESSAGES, kept.size_bytes, about)
        asking.number = entry.number
        asking.kept.append(kept)
        self._waiting[entry.session_id] = asking
        self._waiting_bytes += kept.size_bytes
        self._turn.append(kept)
        if not self._is_flushing:
            self._flush_later()

    def note_read(self, address: str) -> None:
        """Notifies the decider that the param at an address was read; the notice is never sent again."""
        self._read.append(address)
        self._flush_later()

    # Sending them

    def _flush_later(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._call_later(0, self.flush)

    def flush(self) -> None:
        """Sends the requests of this turn."""
        self._is_flushing = False
        turn, self._turn = self._turn, []
        read, self._read = self._read, []
        if not self._reach.ledger.decider or self._reach.is_cut_off:
            # All requests that are not done are sent to the next decider.
            self._is_first = True
            return
        if self._is_first:
            turn = self._all_kept()
        entries: list[Entry] = []
        size_bytes = 0
        for kept in turn:
            kept.is_sent = True
            entries.append(kept.entry if self._reach.is_local else kept.encoded())
            size_bytes += kept.size_bytes
            if size_bytes >= PACKET_BYTES:
                self._send_packet(entries)
                entries, size_bytes = [], 0
        entries += [Entry(0, "", int(Asked.READ), 0, address) for address in read]
        if entries or self._is_first:
            self._send_packet(entries)

    def _all_kept(self) -> list[Request]:
        return [kept for asking in self._waiting.values() for kept in asking.kept]

    def _send_packet(self, entries: list[Entry]) -> None:
        self._packets += 1
        is_first, self._is_first = self._is_first, False
        reach, is_new = self._reach, not self.is_known
        self._send(Packet(reach.link, reach.name, reach.ledger.epoch, self._packets, is_first, is_new, tuple(entries)))

    def resend(self) -> None:
        """Sends all requests that are not done again, to a new decider, or to one that has missed some."""
        self._is_first = True
        self._flush_later()

    # Their end

    @property
    def oldest_s(self) -> float | None:
        """The time of the oldest request that is not done, in monotonic seconds; None if all are done."""
        return min((asking.kept[0].since_s for asking in self._waiting.values() if asking.kept), default=None)

    def take_done(self, asking: SessionRequests, number: int) -> list[Request]:
        """Removes the requests of a session that are done.

        Args:
            asking: the session.
            number: the number of the last one that is done.

        Returns:
            those that were not removed before, in their order.
        """
        kept, done = asking.kept, list[Request]()
        while kept and kept[0].entry.number <= number:
            done.append(kept.popleft())
        self._let_go(asking, done)
        for each in done:
            if each.over is not None:
                each.over(True)
        if not kept:
            self._waiting.pop(asking.session.id, None)
        return done

    def take_old(self, now_s: float) -> Iterator[tuple[SessionRequests, list[Request]]]:
        """Removes writes that have waited too long, some of them at a time; sessions take turns.

        Args:
            now_s: the monotonic time in seconds.

        Yields:
            each session, and its messages among them, for the caller to refuse before the next session's turn.
        """
        end_s, left = now_s - WAITS_S, GIVEN_UP_AT_ONCE
        for asking in list(self._waiting.values()):
            if not left:
                break
            if not asking.kept or asking.kept[0].since_s > end_s:
                continue
            waiting = takewhile(lambda each: each.since_s <= end_s, asking.kept)
            old = list(islice((each for each in waiting if each.entry.kind in _GIVEN_UP), left))
            left -= len(old)
            dropped = set(map(id, old))
            asking.kept = deque(each for each in asking.kept if id(each) not in dropped)
            self._turn = [each for each in self._turn if id(each) not in dropped]
            self._waiting.pop(asking.session.id)
            if asking.kept:
                self._waiting[asking.session.id] = asking  # behind all others
            self._let_go(asking, old)
            asking.given_up.update(each.entry.number for each in old)
            for each in old:
                if each.over is not None:
                    each.over(False)
            yield asking, [each for each in old if each.over is None]

    def end(self, session_id: str) -> SessionRequests | None:
        """Removes a session, which the log has ended.

        Returns:
            the session, or None if it is not at this relay; its requests are for ``drop``.
        """
        self._waiting.pop(session_id, None)
        return self.sessions.pop(session_id, None)

    def end_all(self) -> list[SessionRequests]:
        """Removes all sessions and what was to be sent; returns the sessions, whose requests are for ``drop``."""
        ended = list(self.sessions.values())
        self.sessions.clear()
        self._waiting.clear()
        self._turn.clear()
        self.is_known = False
        self._is_first, self._packets = True, 0
        return ended

    def drop(self, asking: SessionRequests) -> None:
        """Drops all requests of a session that was removed, and reports them as not done."""
        kept, asking.kept = asking.kept, deque()
        self._let_go(asking, kept)
        for each in kept:
            if each.over is not None:
                each.over(False)

    def _let_go(self, asking: SessionRequests, kept: Iterable[Request]) -> None:
        """Removes requests from the counts of memory."""
        all_bytes = messages_bytes = 0
        for each in kept:
            all_bytes += each.size_bytes
            if each.entry.kind == _MESSAGE:
                messages_bytes += each.size_bytes
        self._waiting_bytes -= all_bytes
        if messages_bytes:
            asking.session.account.add(_MESSAGES, -messages_bytes)


def _about(message: m.Message) -> str | None:
    """Returns the address that an ERROR about a message names."""
    return message.address if isinstance(message, _ADDRESSED) else None
