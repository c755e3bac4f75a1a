"""The serving core of a relay in a cluster: answers reads itself, and sends writes to the decider.

What a session asks is numbered and kept until a batch of the log says that it is done; the answers come with that
batch. Where the decider changes, all that is not done is sent again, and nothing is done twice: the log says up to
which number each session's requests are done. What a session reads behind a write waits for that write.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from clasp_relay.cluster.batches import (
    Announced,
    Answered,
    Batch,
    Claimed,
    Ended,
    Group,
    Item,
    LinkBegan,
    LinkEnded,
    Marked,
    Named,
    decode_ack,
)
from clasp_relay.cluster.ledger import Ledger
from clasp_relay.cluster.packets import Asked, Entry, Packet, encode_addresses, encode_origin
from clasp_relay.core.records import Change
from clasp_relay.core.relay import Handler, Relay
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import HELD_BYTES, NoOutbox, Session, held_bytes
from clasp_relay.core.work import Pieces
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.tuples import new_tuple

__all__ = ["Following"]

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

TOKEN_S = 1.0
"""How long the HELLO of a session waits if its token is not known here."""

RENEW_STEP_S = 1.0
"""The shortest time between two notices to the decider that the param at one address was read."""

MAX_READ = 50_000
"""For how many addresses the time of the last such notice is remembered."""

CLEARED_AT_ONCE = 500
"""How many addresses one CLEAR names at most."""

RELAYS_OWN = "admin:/**"
"""The scope that a relay vouches for its own session."""

NOT_DONE = "not done: the relay has no connection to its cluster; try again"
UNKNOWN = "unknown whether it was done: the cluster did not answer in time; read before you try again"

GONE = Disconnect(CloseCode.TRY_AGAIN_LATER, "the relay has lost its cluster: connect again", ErrorCode.OVERLOADED)
"""The end of sessions whose relay the others count as lost."""

NOT_READY = Disconnect(
    CloseCode.TRY_AGAIN_LATER, "the relay has not caught up with its cluster: try again", ErrorCode.OVERLOADED
)
STANDBY = Disconnect(
    CloseCode.TRY_AGAIN_LATER, "this relay is a standby and takes no clients: try another", ErrorCode.OVERLOADED
)


_READS: tuple[type[m.Message], ...] = (m.Get, m.Subscribe, m.Query, m.Replay, m.Ping)
"""Messages that wait for the earlier writes of their session; a PONG promises that these are done."""


_ADDRESSED = (m.Set, m.Publish)

_MESSAGE = int(Asked.MESSAGE)
_MESSAGES = MemoryKind.MESSAGES


_GIVEN_UP = (Asked.MESSAGE, Asked.CLEAR)
"""The kinds of requests that are dropped once they have waited too long."""


class _Kept:
    """A request that is not done yet."""

    __slots__ = ("entry", "is_sent", "over", "since_s", "size_bytes")

    def __init__(self, entry: Entry, since_s: float, over: Callable[[bool], None] | None = None) -> None:
        self.entry = entry
        self.since_s = since_s
        self.over = over
        """Called with whether it was done; None if nobody waits for that."""
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


class _Asking:
    """A session of this relay, and its requests."""

    __slots__ = ("given_up", "kept", "later", "number", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.number = 0
        """The number of its last request."""
        self.kept: deque[_Kept] = deque()
        self.given_up: set[int] = set()
        """Requests that were refused since they waited too long; they may be done later, but are not answered again."""
        self.later: _Later | None = None
        """The read that waits for all of its requests."""


class _Later(NamedTuple):
    handler: Handler
    message: m.Message
    qos: int
    since_s: float


class Following:
    """The sessions of this relay and the log that it follows.

    Args:
        link: the id of this relay's link.
        name: the relay's name.
        ledger: the relays and sessions of the cluster, from the log.
        monotonic_s: returns seconds.
        send: sends a packet to the decider.
        call_later: makes a call in a later turn.
    """

    def __init__(
        self,
        link: str,
        name: str,
        ledger: Ledger,
        monotonic_s: Callable[[], float],
        send: Callable[[Packet], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.link = link
        self.ledger = ledger
        self.is_cut_off = False
        """Whether the decider cannot be reached now; set by the node."""
        self.is_local = False
        """Whether this relay is the decider; set by the node."""
        self.when_named: Callable[[Named, bool], None] = _unnamed
        """Called with each name that a session has taken, and whether that session is at this relay; set by the door
        that gives names."""
        self.when_marked: Callable[[Change, bytes], None] = _unmarked
        """Called with each change that has data of a door for that door at other relays; set by that door."""
        self.forwarded = 0
        """Number of messages that were forwarded to the decider."""
        self._name = name
        self._monotonic_s = monotonic_s
        self._send = send
        self._call_later = call_later
        self._relay: Relay | None = None
        self._asking: dict[str, _Asking] = {}
        self._lost: set[str] = set()
        """Ids of sessions whose wills are published when they end."""
        self._waiting: dict[str, _Asking] = {}
        """The sessions with requests that are not done."""
        self._turn: list[_Kept] = []
        self._reads: list[str] = []
        self._read_s: dict[str, float] = {}
        self._is_flushing = False
        self._waiting_bytes = 0
        self._packets = 0
        self._is_known = False
        """Whether the beginning of this link is in the log."""
        self.is_first = True
        """Whether the next packet repeats all requests that are not done."""
        self.when_expelled: Callable[[], None] = _nothing
        """Called when the log says that this link has ended."""
        self._is_fresh = True
        self.knows_token: Callable[[str], bool] = _any_token
        """Tells whether a token is, or was, known here."""
        self._newcomers: dict[Session, _Later] = {}
        """Sessions whose HELLO waits, since its token is not known here yet."""
        self._own: _Asking | None = None
        """The relay's own session, for its own requests; None until the first one."""

    def handlers(self, handlers: Mapping[type[m.Message], Handler]) -> dict[type[m.Message], Handler]:
        """Returns the handlers of a serving core.

        Args:
            handlers: the handlers of a relay without a cluster.
        """
        result = dict(handlers)
        result.update(dict.fromkeys((m.Set, m.Publish, m.Bundle, m.Announce), self._ask))
        result.update({kind: self._behind_writes(handlers[kind]) for kind in _READS})
        result[m.Hello] = self._behind_token(handlers[m.Hello])
        return result

    def be_called(self, name: str, link: str) -> None:
        """Sets the relay's name and the id of its link, before the first request."""
        self._name, self.link = name, link

    def attach(self, relay: Relay) -> None:
        """Begins to watch the sessions of the core that has these handlers."""
        self._relay = relay
        relay.refuses = NOT_READY
        relay.committer.is_following = True
        relay.committer.when_read = self._note_read
        began, ended = relay.hooks.when_began, relay.hooks.when_ended

        def when_began(session: Session) -> None:
            began(session)
            self._began(session)

        def when_ended(session: Session) -> None:
            ended(session)
            self._ended(session)

        relay.hooks.when_began, relay.hooks.when_ended = when_began, when_ended

    @property
    def refuses(self) -> Disconnect | None:
        """The reason why no session is admitted, or None; set by the node."""
        return self._core.refuses

    @refuses.setter
    def refuses(self, reason: Disconnect | None) -> None:
        self._core.refuses = reason

    # Requests to the decider

    @property
    def _core(self) -> Relay:
        assert self._relay is not None, "followed without a relay"
        return self._relay

    def _ask(self, _relay: Relay, session: Session, message: m.Message, qos: int) -> None:
        """Handles a message that alters the state: forwards it to the decider."""
        if self.is_cut_off and not _has_writes(self._asking[session.id]):  # else the refusal must follow their answers
            raise RequestError(ErrorCode.OVERLOADED, NOT_DONE, _about(message))
        if self._waiting_bytes > MAX_WAITING_BYTES:
            text = "not done: too much waits for the cluster; try again in a moment"
            raise RequestError(ErrorCode.OVERLOADED, text, _about(message))
        self.forwarded += 1
        self._keep(session, Asked.MESSAGE, qos, more=session.sent_as, mark=session.sent_with, message=message)

    def claim(self, session: Session, name: str, time_us: int, *, is_new: bool) -> None:
        """Requests a name for a session, which one session of the cluster has at a time; the answer is ``when_named``.

        Args:
            session: the session.
            name: the name.
            time_us: when it was taken, by the cluster's clock as this relay knows it, in Unix µs.
            is_new: whether nothing of the sessions that had the name before is kept.
        """
        if session.id in self._asking:
            self._keep(session, Asked.NAME, int(is_new), name, time_us.to_bytes(8))

    def _keep(
        self,
        session: Session,
        kind: Asked,
        qos: int = 0,
        text: str = "",
        data: bytes = b"",
        more: bytes = b"",
        mark: bytes = b"",
        message: m.Message | None = None,
        over: Callable[[bool], None] | None = None,
    ) -> None:
        asking = self._asking[session.id]
        asking.number += 1
        entry = new_tuple(Entry, (asking.number, session.id, int(kind), qos, text, data, more, mark, message))
        kept = _Kept(entry, self._monotonic_s(), over)
        if message is not None:
            # So that only a client that floods a cluster without a decider is refused.
            session.account.take(_MESSAGES, kept.size_bytes, _about(message))
        asking.kept.append(kept)
        self._waiting[session.id] = asking
        self._waiting_bytes += kept.size_bytes
        self._turn.append(kept)
        if not self._is_flushing:
            self._flush_later()

    def _began(self, session: Session) -> None:
        who = session.identity
        self._begin(session, self._core.permissions.vouch(who))

    def _begin(self, session: Session, vouched: str) -> _Asking:
        asking = self._asking[session.id] = _Asking(session)
        who = session.identity
        self._keep(session, Asked.BEGIN, 0, who.subject, who.token, encode_origin(session.origin, vouched))
        return asking

    def leave(self, session: Session, will: m.Message | None, more: bytes = b"", mark: bytes = b"") -> None:
        """Sets the will of a session, which the decider carries out when the session is lost, also with its relay.

        Args:
            session: the session.
            will: a SET or PUBLISH; None for no will.
            more: the client's own bytes of it (``Session.sent_as``).
            mark: ``Session.sent_with``.
        """
        if session.id in self._asking:  # else the log has ended the session, and its will was carried out
            self._keep(session, Asked.WILL, data=b"" if will is None else encode(will), more=more, mark=mark)

    def lose(self, session: Session) -> None:
        """Marks a session that is about to end as lost."""
        self._lost.add(session.id)

    def _ended(self, session: Session) -> None:
        asking = self._asking.get(session.id)
        if asking is not None:
            asking.later = None
            is_lost = session.id in self._lost
            self._lost.discard(session.id)
            self._keep(session, Asked.END, int(is_lost), "the session has ended")

    def clear(self, addresses: Sequence[str], over: Callable[[bool], None]) -> None:
        """Asks the decider to delete the params at some addresses, as the relay's own nulls.

        Args:
            addresses: the addresses.
            over: called once with whether it was done; False if that is not known in time, so that it is asked again.
        """
        if not addresses:
            over(True)
            return
        if self._own is None:
            session = self._core.connect(NoOutbox(), "", ClaspCodec())
            session.close()  # nothing is sent to it here
            self._own = self._begin(session, json.dumps([RELAYS_OWN]))
        parts = [addresses[start : start + CLEARED_AT_ONCE] for start in range(0, len(addresses), CLEARED_AT_ONCE)]
        left, is_done = len(parts), True

        def part_over(is_part_done: bool) -> None:
            nonlocal left, is_done
            left, is_done = left - 1, is_done and is_part_done
            if not left:
                over(is_done)

        for part in parts:
            self._keep(self._own.session, Asked.CLEAR, data=encode_addresses(part), over=part_over)

    def _note_read(self, address: str) -> None:
        """Notifies the decider of a GET of a param with a life time, once a second for each address."""
        if self._core.params.ends_us(address) is None:
            return
        now_s = self._monotonic_s()
        if now_s - self._read_s.get(address, -RENEW_STEP_S) < RENEW_STEP_S:
            return
        if len(self._read_s) >= MAX_READ:
            self._read_s.clear()
        self._read_s[address] = now_s
        self._reads.append(address)
        self._flush_later()

    def _flush_later(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._call_later(0, self.flush)

    def flush(self) -> None:
        """Sends the requests of this turn."""
        self._is_flushing = False
        turn, self._turn = self._turn, []
        reads, self._reads = self._reads, []
        if not self.ledger.decider or self.is_cut_off:
            # All requests that are not done are sent to the next decider.
            self.is_first = True
            return
        if self.is_first:
            turn = self._all_kept()
        entries: list[Entry] = []
        size_bytes = 0
        for kept in turn:
            kept.is_sent = True
            entries.append(kept.entry if self.is_local else kept.encoded())
            size_bytes += kept.size_bytes
            if size_bytes >= PACKET_BYTES:
                self._send_packet(entries)
                entries, size_bytes = [], 0
        entries += [Entry(0, "", int(Asked.READ), 0, address) for address in reads]
        if entries or self.is_first:
            self._send_packet(entries)

    def _all_kept(self) -> list[_Kept]:
        return [kept for asking in self._waiting.values() for kept in asking.kept]

    def _send_packet(self, entries: list[Entry]) -> None:
        self._packets += 1
        is_first, self.is_first = self.is_first, False
        self._send(
            Packet(
                self.link, self._name, self.ledger.epoch, self._packets, is_first, not self._is_known, tuple(entries)
            )
        )

    def resend(self) -> None:
        """Sends all requests that are not done again, to a new decider, or to one that has missed some."""
        self.is_first = True
        self._flush_later()

    def tick(self, now_s: float) -> None:
        """Ends what has waited too long; called several times a second."""
        self.give_up_old(now_s)
        for session, later in list(self._newcomers.items()):
            assert isinstance(later.message, m.Hello), "something else than a HELLO waits for a token"
            if self.knows_token(later.message.token) or now_s - later.since_s >= TOKEN_S:
                del self._newcomers[session]
                self._core.go_on(session, self._read_now(session, later))

    @property
    def oldest_s(self) -> float | None:
        """The time of the oldest request that is not done, in monotonic seconds; None if all are done."""
        return min((asking.kept[0].since_s for asking in self._waiting.values() if asking.kept), default=None)

    def give_up_old(self, now_s: float) -> None:
        """Refuses writes that have waited too long, some of them at a time."""
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
            self._waiting[asking.session.id] = self._waiting.pop(asking.session.id)
            self._let_go(asking, old)
            for each in old:
                asking.given_up.add(each.entry.number)
                if each.over is not None:
                    each.over(False)
                    continue
                text = UNKNOWN if each.is_sent else NOT_DONE
                about = None if each.entry.message is None else _about(each.entry.message)
                self._refuse(asking.session, RequestError(ErrorCode.OVERLOADED, text, about))
            if not asking.kept:
                self._waiting.pop(asking.session.id, None)
            self._go_on(asking)
        if self.holds_reads:
            for asking in list(self._asking.values()):
                if asking.later is not None and asking.later.since_s <= end_s:
                    self._core.end(asking.session, GONE)

    # Reads

    def note_fresh(self, is_fresh: bool) -> None:
        """Notes whether this relay has applied all batches that the log had when the engine was last heard.

        If it has not, a right may have ended without its knowledge: then, with accounts, reads wait.
        """
        was_fresh, self._is_fresh = self._is_fresh, is_fresh
        if is_fresh and not was_fresh:
            for asking in list(self._asking.values()):
                self._go_on(asking)

    @property
    def holds_reads(self) -> bool:
        """Whether reads have to wait."""
        return not (self._is_fresh or self._core.permissions.is_open)

    def _behind_token(self, handler: Handler) -> Handler:
        """Returns a handler that delays a HELLO with an unknown token: another relay may have issued it just now."""

        def handle(relay: Relay, session: Session, message: m.Message, qos: int) -> Pieces | None:
            assert isinstance(message, m.Hello), "a HELLO that is none"
            # A request over HTTP has to be answered at once.
            if not message.token or session.door.startswith("http") or self.knows_token(message.token):
                return handler(relay, session, message, qos)
            self._newcomers[session] = _Later(handler, message, qos, self._monotonic_s())
            relay.put_off(session)
            return None

        return handle

    def _behind_writes(self, handler: Handler) -> Handler:
        def handle(relay: Relay, session: Session, message: m.Message, qos: int) -> Pieces | None:
            asking = self._asking.get(session.id)
            if asking is None or not (_has_writes(asking) or self.holds_reads):
                return handler(relay, session, message, qos)
            asking.later = _Later(handler, message, qos, self._monotonic_s())
            relay.put_off(session)
            return None

        return handle

    def _go_on(self, asking: _Asking) -> None:
        """Handles the read of a session that has waited, if the session's writes are done."""
        later = asking.later
        if later is not None and not (_has_writes(asking) or self.holds_reads):
            asking.later = None
            self._core.go_on(asking.session, self._read_now(asking.session, later))

    def _read_now(self, session: Session, later: _Later) -> Iterator[int]:
        pieces = later.handler(self._core, session, later.message, later.qos)
        yield 1
        if pieces is not None:
            yield from pieces

    # The log

    def take_batch(self, seq: int, digest: bytes, batch: Batch, *, is_recorded: bool) -> None:
        """Applies the next batch, which was checked, and sends its messages to this relay's sessions.

        Args:
            seq: its number.
            digest: its digest.
            batch: the batch.
            is_recorded: whether this relay's journal has its changes.
        """
        committer, ledger = self._core.committer, self.ledger
        follow = committer.follow
        ledger.begin(seq, digest, batch)
        for item in batch.items:
            if type(item) is Group:
                if not is_recorded:
                    committer.record(item.changes)
                mark = committer.followed_with
                for change in item.changes:
                    committer.followed = change
                    follow(change)
                    if mark:
                        self.when_marked(change, mark)
                committer.followed = None
                if mark:
                    committer.followed_with = b""
                continue
            if isinstance(item, Marked):
                committer.followed_with = item.mark
                continue
            ledger.note(item)
            self._apply(item)

    def _apply(self, item: Item) -> None:
        if isinstance(item, Answered):
            asking = self._asking.get(item.session_id)
            if asking is not None:
                self._answered(asking, item)
        elif isinstance(item, Ended):
            self._has_ended(item)
        elif isinstance(item, Announced):
            message = decode(item.message)
            assert isinstance(message, m.Announce), "announced something else"
            self._core.signals.register(message.signals, item.time_us, item.subject)
        elif isinstance(item, Named):
            self.when_named(item, item.session_id in self._asking)
        elif isinstance(item, LinkBegan):
            self._is_known = self._is_known or item.link == self.link
        elif isinstance(item, LinkEnded):
            if item.link == self.link:
                self.when_expelled()
        elif isinstance(item, Claimed):
            if item.link == self.link:
                self._is_known = True
            elif item.is_cold and self._is_known:
                self.when_expelled()
            self.resend()

    def _answered(self, asking: _Asking, item: Answered) -> None:
        kept, done = asking.kept, list[_Kept]()
        while kept and kept[0].entry.number <= item.number:
            done.append(kept.popleft())
        self._let_go(asking, done)
        for each in done:
            if each.over is not None:
                each.over(True)
        session = asking.session
        if not kept:
            self._waiting.pop(session.id, None)
        if session.when_decided is None:
            self._answer(asking, item)
        else:
            self._tell_door(session, done, dict(item.answers))
        if asking.given_up:
            asking.given_up = {number for number in asking.given_up if number > item.number}
        self._go_on(asking)

    def _answer(self, asking: _Asking, item: Answered) -> None:
        """Sends the answers to a client of CLASP, without those to requests that were refused meanwhile."""
        session, given_up = asking.session, asking.given_up
        for number, data in item.answers:
            if given_up and number in given_up:
                continue
            ack = decode_ack(data)
            if ack is not None:
                self._core.ack(session, *ack)
                continue
            message = decode(data)
            if isinstance(message, m.Error):
                self._core.refuse(session, RequestError(ErrorCode(message.error), message.message, message.address))

    def _tell_door(self, session: Session, done: Sequence[_Kept], answers: dict[int, bytes]) -> None:
        """Reports the outcome of each message of a session to its door; a message has one answer at most."""
        for kept in done:
            if kept.entry.kind != Asked.MESSAGE:
                continue
            data = answers.get(kept.entry.number, b"")
            ack = decode_ack(data)
            answer = decode(data) if data and ack is None else None
            if isinstance(answer, m.Error):
                self._refuse(session, RequestError(ErrorCode(answer.error), answer.message, answer.address))
            elif session.when_decided is not None:
                session.when_decided(None if ack is None else ack[1], None)

    def _refuse(self, session: Session, refusal: RequestError) -> None:
        self._core.refuse(session, refusal)
        if session.when_decided is not None:
            session.when_decided(None, refusal)

    def _has_ended(self, item: Ended) -> None:
        self._waiting.pop(item.session_id, None)
        asking = self._asking.pop(item.session_id, None)
        if asking is None:
            return
        if asking is self._own:
            self._own = None
        self._give_up(asking)
        if item.close_code:
            self._core.end(asking.session, Disconnect(CloseCode(item.close_code), item.reason))

    def begin_anew(self, link: str) -> None:
        """Ends all sessions, which the log has ended, and continues with a new link."""
        asking, self._asking = self._asking, {}
        self._own = None
        self._waiting.clear()
        self._turn.clear()
        self.link, self._is_known = link, False
        self.is_first, self._packets = True, 0
        for each in asking.values():
            self._core.end(each.session, GONE)
            self._give_up(each)
        self._flush_later()

    def _let_go(self, asking: _Asking, kept: Iterable[_Kept]) -> None:
        """Removes requests from the counts of memory."""
        all_bytes = messages_bytes = 0
        for each in kept:
            all_bytes += each.size_bytes
            if each.entry.kind == _MESSAGE:
                messages_bytes += each.size_bytes
        self._waiting_bytes -= all_bytes
        if messages_bytes:
            asking.session.account.add(_MESSAGES, -messages_bytes)

    def _give_up(self, asking: _Asking) -> None:
        """Drops all requests of a session, and reports them as not done."""
        kept, asking.kept = asking.kept, deque()
        self._let_go(asking, kept)
        for each in kept:
            if each.over is not None:
                each.over(False)

    def end_sessions(self, reason: Disconnect) -> int:
        """Ends all sessions of this relay; returns how many there were."""
        sessions = self._core.sessions.all()
        for session in sessions:
            self._core.end(session, reason)
        return len(sessions)


def _has_writes(asking: _Asking) -> bool:
    """Tells whether a session has requests that its reads have to wait for."""
    return any(kept.entry.kind not in (Asked.BEGIN, Asked.NAME, Asked.WILL) for kept in asking.kept)


def _about(message: m.Message) -> str | None:
    """Returns the address that an ERROR about a message names."""
    return message.address if isinstance(message, _ADDRESSED) else None


def _any_token(_token: str) -> bool:
    """Returns True: in open mode tokens have no meaning."""
    return True


def _unmarked(_change: Change, _mark: bytes) -> None:
    """Does nothing: no door here understands it."""


def _unnamed(_named: Named, _is_here: bool) -> None:
    """Does nothing: no door here gives names."""


def _nothing() -> None:
    """Does nothing."""
