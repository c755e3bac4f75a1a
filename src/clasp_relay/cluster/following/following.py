"""The serving core of a relay in a cluster: answers reads itself, and sends writes to the decider.

What a session asks is kept until a batch of the log says that it is done (``requests``); the answers come with that
batch (``answering``). What a session reads behind a write waits for that write (``waiting``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from clasp_relay.cluster.exchange.batches import (
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
)
from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.packets import Asked, Packet
from clasp_relay.cluster.following.answering import answer, refuse
from clasp_relay.cluster.following.clearing import Clearing
from clasp_relay.cluster.following.read_notices import ReadNotices
from clasp_relay.cluster.following.requests import Requests, SessionRequests
from clasp_relay.cluster.following.waiting import WaitingHellos, WaitingReads
from clasp_relay.core.records import Change
from clasp_relay.core.relay import Handler, Relay
from clasp_relay.core.session.sessions import NoOutbox, Session
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire import messages as m
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import decode, encode

__all__ = ["Following"]

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


class Following:
    """The sessions of this relay and the log that it follows. Implements ``requests.Reach``.

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
        self.name = name
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
        self.when_expelled: Callable[[], None] = _nothing
        """Called when the log says that this link has ended."""
        self.knows_token: Callable[[str], bool] = _any_token
        """Tells whether a token is, or was, known here."""
        self.requests = Requests(self, monotonic_s, send, call_later)
        self._clearing = Clearing(self.requests, lambda: self._core.connect(NoOutbox(), "", ClaspCodec()))
        self._reads = WaitingReads(self.requests.sessions.get, monotonic_s)
        self._hellos = WaitingHellos(self._knows, monotonic_s)
        self._monotonic_s = monotonic_s
        self._relay: Relay | None = None
        self._lost: set[str] = set()
        """Ids of sessions whose wills are published when they end."""

    # The core

    def handlers(self, handlers: Mapping[type[m.Message], Handler]) -> dict[type[m.Message], Handler]:
        """Returns the handlers of a serving core.

        Args:
            handlers: the handlers of a relay without a cluster.
        """
        result = dict(handlers)
        result.update(dict.fromkeys((m.Set, m.Publish, m.Bundle, m.Announce), self.requests.ask))
        result.update({kind: self._reads.behind_writes(handlers[kind]) for kind in _READS})
        result[m.Hello] = self._hellos.behind_token(handlers[m.Hello])
        return result

    def _knows(self, token: str) -> bool:
        return self.knows_token(token)  # which may be set later

    def be_called(self, name: str, link: str) -> None:
        """Sets the relay's name and the id of its link, before the first request."""
        self.name, self.link = name, link

    def attach(self, relay: Relay) -> None:
        """Begins to watch the sessions of the core that has these handlers."""
        self._relay = relay
        relay.refuses = NOT_READY
        relay.committer.is_following = True
        relay.committer.when_read = ReadNotices(relay.params.ends_us, self._monotonic_s, self.requests.note_read).note
        began, ended = relay.hooks.when_began, relay.hooks.when_ended

        def when_began(session: Session) -> None:
            began(session)
            self.requests.begin(session, relay.permissions.vouch(session.identity))

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

    @property
    def _core(self) -> Relay:
        assert self._relay is not None, "followed without a relay"
        return self._relay

    # The sessions

    def claim(self, session: Session, name: str, time_us: int, *, is_new: bool) -> None:
        """Requests a name for a session, which one session of the cluster has at a time; the answer is ``when_named``.

        Args:
            session: the session.
            name: the name.
            time_us: when it was taken, by the cluster's clock as this relay knows it, in Unix µs.
            is_new: whether nothing of the sessions that had the name before is kept.
        """
        if session.id in self.requests.sessions:
            self.requests.keep(session, Asked.NAME, int(is_new), name, time_us.to_bytes(8))

    def leave(self, session: Session, will: m.Message | None, more: bytes = b"", mark: bytes = b"") -> None:
        """Sets the will of a session, which the decider carries out when the session is lost, also with its relay.

        Args:
            session: the session.
            will: a SET or PUBLISH; None for no will.
            more: the client's own bytes of it (``Session.sent_as``).
            mark: ``Session.sent_with``.
        """
        if session.id in self.requests.sessions:  # else the log has ended the session, and its will was carried out
            data = b"" if will is None else encode(will)
            self.requests.keep(session, Asked.WILL, data=data, more=more, mark=mark)

    def lose(self, session: Session) -> None:
        """Marks a session that is about to end as lost."""
        self._lost.add(session.id)

    def _ended(self, session: Session) -> None:
        asking = self.requests.sessions.get(session.id)
        if asking is not None:
            self._reads.forget(asking)
            self.requests.keep(session, Asked.END, int(session.id in self._lost), "the session has ended")
        self._lost.discard(session.id)

    def clear(self, addresses: Sequence[str], over: Callable[[bool], None]) -> None:
        """Asks the decider to delete the params at some addresses, as the relay's own nulls; see ``Clearing.clear``."""
        self._clearing.clear(addresses, over)

    def end_sessions(self, reason: Disconnect) -> int:
        """Ends all sessions of this relay; returns how many there were."""
        sessions = self._core.sessions.all()
        for session in sessions:
            self._core.end(session, reason)
        return len(sessions)

    def begin_anew(self, link: str) -> None:
        """Ends all sessions, which the log has ended, and continues with a new link."""
        ended = self.requests.end_all()
        self.link = link
        for asking in ended:
            self._reads.forget(asking)
            self._core.end(asking.session, GONE)
            self.requests.drop(asking)
        self.requests.resend()

    # Time

    def tick(self, now_s: float) -> None:
        """Ends what has waited too long; called several times a second."""
        self.give_up_old(now_s)
        self._hellos.go_on(now_s)

    def give_up_old(self, now_s: float) -> None:
        """Refuses writes that have waited too long, some of them at a time, and ends sessions whose reads have."""
        for asking, messages in self.requests.take_old(now_s):
            for each in messages:
                refuse(self._core, asking.session, each.refusal())
            self._reads.go_on(asking)
        for session in self._reads.overdue(now_s):
            self._core.end(session, GONE)

    def note_fresh(self, is_fresh: bool) -> None:
        """Notes whether this relay has caught up with the log; see ``WaitingReads.note_fresh``."""
        self._reads.note_fresh(is_fresh)

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
            asking = self.requests.sessions.get(item.session_id)
            if asking is not None:
                self._answered(asking, item)
        elif isinstance(item, Ended):
            self._has_ended(item)
        elif isinstance(item, Announced):
            message = decode(item.message)
            assert isinstance(message, m.Announce), "announced something else"
            self._core.signals.register(message.signals, item.time_us, item.subject)
        elif isinstance(item, Named):
            self.when_named(item, item.session_id in self.requests.sessions)
        elif isinstance(item, LinkBegan):
            self.requests.is_known = self.requests.is_known or item.link == self.link
        elif isinstance(item, LinkEnded):
            if item.link == self.link:
                self.when_expelled()
        elif isinstance(item, Claimed):
            if item.link == self.link:
                self.requests.is_known = True
            elif item.is_cold and self.requests.is_known:
                self.when_expelled()
            self.requests.resend()

    def _answered(self, asking: SessionRequests, item: Answered) -> None:
        done = self.requests.take_done(asking, item.number)
        answer(self._core, asking, done, item)
        if asking.given_up:
            asking.given_up = {number for number in asking.given_up if number > item.number}
        self._reads.go_on(asking)

    def _has_ended(self, item: Ended) -> None:
        asking = self.requests.end(item.session_id)
        if asking is None:
            return
        self._reads.forget(asking)
        self.requests.drop(asking)
        if item.close_code:
            self._core.end(asking.session, Disconnect(CloseCode(item.close_code), item.reason))


def _any_token(_token: str) -> bool:
    """Returns True: in open mode tokens have no meaning."""
    return True


def _unmarked(_change: Change, _mark: bytes) -> None:
    """Does nothing: no door here understands it."""


def _unnamed(_named: Named, _is_here: bool) -> None:
    """Does nothing: no door here gives names."""


def _nothing() -> None:
    """Does nothing."""
