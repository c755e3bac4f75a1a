"""The decider of a cluster: a core of its own without sockets, whose changes go to the log.

Its sessions stand for those of all relays of the cluster, its own among them. Their requests are decided here ahead of
the log, as by a relay without a cluster; the changes and answers are gathered as the items of the next batch. No client
sees this core's state: when the relay is deposed, the core is discarded, with all that is not in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from clasp_relay.cluster.batch_log import MAX_BATCH_BYTES, BatchLog, Sealed
from clasp_relay.cluster.batches import (
    Answered,
    Began,
    Ended,
    LinkBegan,
    LinkEnded,
    Named,
    Willed,
    encode_ack,
)
from clasp_relay.cluster.ledger import Ledger
from clasp_relay.cluster.lost_sessions import LostSessions
from clasp_relay.cluster.packets import Asked, Entry, Packet, decode_addresses, origin_and_vouched
from clasp_relay.core.ports import Frame
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.messages import Error, Message

__all__ = ["Deciding"]

TURN_US = 3_000
"""How long messages of sessions are decided in one turn. A packet may have hundreds, and the flood of one follower must
not block the sessions of others."""

_MESSAGE, _END, _READ = int(Asked.MESSAGE), int(Asked.END), int(Asked.READ)


REFUSED = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again", ErrorCode.TOKEN_EXPIRED)
"""The end of a session whose token the decider does not know any more."""

_GIVEN_UP = "its relay is gone"


def _unseen(_relay: Relay) -> None:
    """Does nothing."""


class _Payloads(ClaspCodec):
    """Encodes answers as payloads, without a frame around them."""

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        locked: bool | None = None,
        holder: str | None = None,
        /,
    ) -> bytes:
        """See ``Codec``."""
        return encode_ack(address, revision, locked, holder)

    def encode(self, message: Message, /) -> bytes:
        """See ``Codec``."""
        return encode(message)


_PAYLOADS = _Payloads()


class _Remote:
    """A session of some relay, as the decider knows it. Its outbox is itself."""

    def __init__(self, deciding: Deciding, link: str, done: int) -> None:
        self._deciding = deciding
        self.link = link
        self.session: Session
        self.taken = done
        """The number of its last request that was taken."""
        self.done = done
        self.at_work = 0
        """The number of the request that is being handled, perhaps in pieces; 0 for none."""
        self.queue: deque[Entry] = deque()
        self.answers: list[tuple[int, bytes]] = []
        self.will: Willed | None = None
        """Its will; None for none."""

    def send(self, frame: Frame) -> None:
        """See ``Outbox``."""
        self.answers.append((self.at_work, frame.wire))
        self._deciding.touch(self, len(frame.wire))

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``Outbox``; does nothing, since nothing is read here."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``Outbox``: the session ends, at its relay too."""
        self._deciding.closed(self, close_code, reason)

    def discard(self) -> None:
        """See ``Outbox``; does nothing, since decided requests are answered."""


class _WhileDecided:
    """Sets the door's data of a message in session and log while the message is handled."""

    __slots__ = ("_entry", "_log", "_session")

    def __init__(self, session: Session, log: BatchLog, entry: Entry) -> None:
        self._session = session
        self._log = log
        self._entry = entry

    def __enter__(self) -> None:
        self._session.sent_as, self._log.mark = self._entry.more, self._entry.mark

    def __exit__(self, *_: object) -> None:
        self._session.sent_as = self._log.mark = b""


def _asked(session: Session, log: BatchLog, entry: Entry) -> _WhileDecided | None:
    """Returns the context in which to handle a message with data of a door; None for any other message."""
    return _WhileDecided(session, log, entry) if entry.more or entry.mark else None


class _Link:
    """A relay whose sessions send requests here."""

    def __init__(self) -> None:
        self.expected = 0
        """The number of its next packet; 0 if it first has to send all requests that are not done."""
        self.remotes: dict[str, _Remote] = {}


class Deciding:
    """The decider's part of a relay, for one epoch.

    Args:
        relay: the core, made only for this with ``log``, and not used yet.
        log: gathers what it commits.
        epoch: the epoch of this decider.
        call_later: makes a call in a later turn.
        stop_clock: stops the core's clock.
        when_begun: called with the core once it has the state, before it decides anything.
    """

    def __init__(
        self,
        relay: Relay,
        log: BatchLog,
        epoch: int,
        call_later: Callable[[float, Callable[[], None]], object],
        stop_clock: Callable[[], None],
        when_begun: Callable[[Relay], None] = _unseen,
    ) -> None:
        self.relay = relay
        self.epoch = epoch
        self.log = log
        self._call_later = call_later
        self._stop_clock = stop_clock
        self._when_begun = when_begun
        self._links: dict[str, _Link] = {}
        self._sessions: dict[str, _Remote] = {}
        self._touched: dict[_Remote, None] = {}
        self._busy: dict[_Remote, None] = {}
        self._ready: dict[_Remote, None] = {}
        """Sessions with a request that can be decided now; the next one comes first."""
        self._turn_end_us: int | None = None
        """When this turn's time for messages ends; None before the first message."""
        self._lost = LostSessions(relay)
        self._is_looking = False
        self._is_over = False

    # Begin and end

    def begin(self, served: Relay, ledger: Ledger, report: Callable[[str, str], None]) -> None:
        """Takes over the state that the log has led to.

        Args:
            served: the serving core, which has followed the log.
            ledger: the relays and sessions.
            report: called for each scheduled bundle that is refused; see ``Relay.resume``.
        """
        relay, params = self.relay, self.relay.params
        params.load(served.params.image())
        params.load_locks(lock for lock in served.params.locks.all() if lock[1] in ledger.sessions)
        for definition, announced_us, owner in served.signals.all():
            relay.signals.register((definition,), announced_us, owner)
        if relay.keeping is not None:
            relay.keeping.begin(ledger.time_us)
        relay.committer.carries_signals = True
        for link in ledger.links:
            self._links[link] = _Link()
        for known in ledger.sessions.values():
            self._began(known.began, known.number, is_known=True)
            remote = self._sessions.get(known.began.session_id)
            if remote is not None:
                remote.will = known.will
        for change in served.schedule.image():
            relay.committer.restore(change)
        self._when_begun(relay)
        self._lost.delay_ends()
        relay.resume(report)

    def stop(self) -> None:
        """Stops deciding; nothing that the core does later has any effect."""
        self._is_over = True
        self._stop_clock()

    # Requests

    def receive(self, packet: Packet) -> bool:
        """Takes a packet of requests.

        Returns:
            whether it could be taken; if not, the relay has to send all requests that are not done again.
        """
        link = self._links.get(packet.link)
        if link is None:
            if not packet.is_new:
                return False
            link = self._links[packet.link] = _Link()
            self.log.add(LinkBegan(packet.link, packet.relay))
        if packet.is_first:
            if packet.number < link.expected:
                return True
        elif packet.number != link.expected:
            # An older packet came twice; a newer one can be taken only after those before it.
            return bool(link.expected) and packet.number < link.expected
        link.expected = packet.number + 1
        for entry in packet.entries:
            self._take(packet.link, entry)
        self._decide()
        return True

    def knows(self, link: str) -> bool:
        """Tells whether a relay has joined."""
        return link in self._links

    def end_link(self, name: str) -> None:
        """Ends the sessions of a relay that has left or is lost; many of them take several turns."""
        link = self._links.pop(name, None)
        if link is not None:
            self._end_some(name, deque(link.remotes.values()))

    def _end_some(self, name: str, remotes: deque[_Remote]) -> None:
        """Ends as many of a relay's sessions as there is time for in this turn, then the relay."""
        if self._is_over:
            return
        now_us = self.relay.clock.now_us
        end_us = now_us() + TURN_US
        while remotes:
            self._end_lost(remotes.popleft())
            if remotes and (now_us() >= end_us or self._is_held):
                self._call_later(0, lambda: self._end_some(name, remotes))
                return
        self.log.add(LinkEnded(name))

    def _end_lost(self, remote: _Remote) -> None:
        session_id = remote.session.id
        if session_id not in self._sessions:
            return
        self._lost.add(remote.session)
        has_will = remote.will is not None
        self._leave_will(remote)
        self._forget(remote, _GIVEN_UP)
        if has_will:
            # In the same batch as its will, so that the next decider does not carry that out again.
            self.log.add(Ended(session_id, int(CloseCode.TRY_AGAIN_LATER), _GIVEN_UP))
        self.log.close_if_full()

    def pass_sessions(self, subject: str, old: bytes, new: bytes) -> None:
        """Moves the sessions of a token to its successor, also at the next decider."""
        for session in self.relay.sessions.of_token(subject, old):
            session.identity = replace(session.identity, token=new)
            remote = self._sessions.get(session.id)
            if remote is not None:
                self.log.add(Began(session.id, remote.link, subject, new, session.origin))

    def _take(self, link: str, entry: Entry) -> None:
        if entry.kind == _READ:
            self._read(entry.text)
            self.log.close_if_full()
            return
        remote = self._sessions.get(entry.session_id)
        if remote is None:
            if entry.kind == Asked.BEGIN:
                began = Began(entry.session_id, link, entry.text, entry.data, *origin_and_vouched(entry.more))
                self._began(began, entry.number)
                self.log.close_if_full()
            return
        if entry.number > remote.taken and remote.link == link:
            remote.taken = entry.number
            remote.queue.append(entry)
            if not remote.at_work:
                self._ready[remote] = None

    def _began(self, began: Began, number: int, *, is_known: bool = False) -> None:
        """Admits a session here, or ends it.

        Args:
            began: the session.
            number: the number of its last request that is done.
            is_known: whether the log has its beginning.
        """
        try:
            remote = self._admit(began, number)
        except Disconnect as refusal:
            if refusal.code is not None:
                error = encode(Error(refusal.code, refusal.reason))
                self.log.add(Answered(began.session_id, number, ((0, error),)), len(error))
            self.log.add(Ended(began.session_id, int(refusal.close_code), refusal.reason))
            return
        if not is_known:
            self.log.add(began)
            self.touch(remote, 0)

    def _admit(self, began: Began, number: int) -> _Remote:
        """Makes a session live here.

        Raises:
            Disconnect: its token is not valid any more, or sessions without a token are not admitted.
        """
        relay, permissions = self.relay, self.relay.permissions
        remote = _Remote(self, began.link, number)
        session = remote.session = relay.connect(remote, "", _PAYLOADS)
        session.id, session.origin = began.session_id, began.origin
        if began.token or began.vouched:
            identity = permissions.readmit(began.subject, began.token, began.vouched)
        else:
            identity = permissions.admit("", session)
        if identity is None:
            raise REFUSED.again()
        session.identity = identity
        session.account = relay.accounts.open(identity.subject, session.origin)
        relay.admit(session)
        # Its own relay applies the message limits.
        session.limiter = None
        self._sessions[began.session_id] = remote
        self._links.setdefault(began.link, _Link()).remotes[began.session_id] = remote
        return remote

    def _read(self, address: str) -> None:
        if self.relay.params.get(address) is not None:
            self.relay.committer.renew(address)

    def _decide(self) -> None:
        """Decides requests, one of each session in turn, as long as there is time in this turn."""
        now_us = self.relay.clock.now_us
        if self._turn_end_us is None:
            self._turn_end_us = now_us() + TURN_US
            self._call_later(0, self._next_turn)
        ready = self._ready
        while ready and now_us() < self._turn_end_us and not self._is_held:
            remote = next(iter(ready))
            del ready[remote]
            self._do_next(remote)
            if remote.queue and not remote.at_work:
                ready[remote] = None

    def _next_turn(self) -> None:
        self._turn_end_us = None
        if self._ready and not self._is_over:
            self._decide()

    def _do_next(self, remote: _Remote) -> None:
        """Handles the next request of a session."""
        session = remote.session
        entry = remote.queue.popleft()
        kind = entry.kind
        if kind == _END:
            if entry.qos:
                self._leave_will(remote)
            self._forget(remote, entry.text)
            self.log.add(Ended(session.id))
            self.log.close_if_full()
            return
        remote.at_work = entry.number
        if kind == _MESSAGE:
            message = entry.message or decode(entry.data)
            self.relay.accept(session, message, entry.qos, _asked(session, self.log, entry))
        elif entry.kind == Asked.NAME:
            self.log.add(Named(session.id, entry.text, bool(entry.qos), int.from_bytes(entry.data)))
        elif entry.kind == Asked.WILL:
            remote.will = Willed(session.id, entry.data, entry.more, entry.mark)
            self.log.add(remote.will, sum(map(len, entry[4:8])))
        elif entry.kind == Asked.CLEAR:
            self.relay.put_off(session)
            self.relay.go_on(session, self.relay.committer.clear(decode_addresses(entry.data)))
        self._settle(remote)
        if self.log.size_bytes > MAX_BATCH_BYTES:  # as ``BatchLog.close_if_full``, without another call
            self.log.when_full()

    @property
    def _is_held(self) -> bool:
        """Whether the batch is full and waits for a bundle, which is never split; then all other requests wait, too.

        Otherwise the batch would become longer than the engine accepts.
        """
        return self.log.size_bytes > MAX_BATCH_BYTES and not self.relay.bundles.is_whole

    def _leave_will(self, remote: _Remote) -> None:
        """Carries out the will of a session, as its message of this moment."""
        will, remote.will = remote.will, None
        if will is not None and will.message:
            session = remote.session
            entry = Entry(0, session.id, int(Asked.MESSAGE), more=will.more, mark=will.mark)
            self.relay.accept(session, decode(will.message), 0, _asked(session, self.log, entry))

    def _settle(self, remote: _Remote) -> None:
        """Notes that the request in work is done, if it is."""
        if not remote.at_work:
            return
        if remote.session.is_busy:
            self._busy[remote] = None
            self._look_later()
            return
        remote.done, remote.at_work = remote.at_work, 0
        self.touch(remote, 0)

    def _look_later(self) -> None:
        if not self._is_looking and not self._is_over:
            self._is_looking = True
            self._call_later(0, self._look)

    def _look(self) -> None:
        """Continues sessions whose message was handled in pieces and is done."""
        self._is_looking = False
        if self._is_over:
            return
        busy, self._busy = self._busy, {}
        for remote in busy:
            self._settle(remote)
            if remote.queue and not remote.at_work:
                self._ready[remote] = None
        self._decide()

    # Outcomes

    def touch(self, remote: _Remote, size_bytes: int) -> None:
        """Notes that a session has an answer, or that a request of it is done."""
        self.log.size_bytes += size_bytes
        if remote not in self._touched and remote.session.id in self._sessions:
            self._touched[remote] = None
            self.log.when_filled()

    def closed(self, remote: _Remote, close_code: CloseCode, reason: str) -> None:
        """Notes that the decider has ended a session."""
        session_id = remote.session.id
        if self._sessions.pop(session_id, None) is None:
            return
        self._drop(remote)
        self._answer(remote)
        self.log.add(Ended(session_id, int(close_code), reason))

    def seal(self) -> list[Sealed]:
        """Closes the gathered batch; not while a bundle is being carried out, which is never split.

        Returns:
            one batch, or none.
        """
        if self._is_whole_later():
            return []
        # A bundle that has been carried out is in the batch, so its answer has to be there, too.
        for remote in list(self._busy):
            self._settle(remote)
        for remote in list(self._touched):
            self._answer(remote)
        self._touched.clear()
        return self.log.seal()

    def _is_whole_later(self) -> bool:
        """Tells whether a bundle is being carried out; then ``when_filled`` is called when that is done."""
        is_whole = False

        def whole() -> None:
            nonlocal is_whole
            is_whole = True
            if is_waiting:
                # In the next turn, when the bundle has its answer, too.
                self._call_later(0, self.log.when_filled)

        is_waiting = False
        self.relay.bundles.when_whole(whole)
        is_waiting = True
        return not is_whole

    def _answer(self, remote: _Remote) -> None:
        self._touched.pop(remote, None)
        self.log.items.append(Answered(remote.session.id, remote.done, tuple(remote.answers)))
        remote.answers.clear()

    def _forget(self, remote: _Remote, cause: str) -> None:
        self._sessions.pop(remote.session.id, None)
        self._drop(remote)
        self.relay.disconnect(remote.session, cause)

    def _drop(self, remote: _Remote) -> None:
        remote.queue.clear()
        self._touched.pop(remote, None)
        self._busy.pop(remote, None)
        self._ready.pop(remote, None)
        link = self._links.get(remote.link)
        if link is not None:
            link.remotes.pop(remote.session.id, None)
