"""The decider of a cluster: a core of its own without sockets, whose changes go to the log.

Its sessions stand for those of all relays of the cluster, its own among them. Their requests are decided here ahead of
the log, as by a relay without a cluster; the changes and answers are gathered as the items of the next batch. No client
sees this core's state: when the relay is deposed, the core is discarded, with all that is not in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from clasp_relay.cluster.deciding.batch_log import BatchLog, Sealed
from clasp_relay.cluster.deciding.lost_sessions import LostSessions
from clasp_relay.cluster.deciding.remote_sessions import Link, RemoteSession, RemoteSessions
from clasp_relay.cluster.deciding.request_turns import TURN_US, RequestTurns
from clasp_relay.cluster.exchange.batches import Began, Ended, LinkBegan, LinkEnded, Named, Willed
from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.packets import Asked, Entry, Packet, decode_addresses, origin_and_vouched
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import CloseCode
from clasp_relay.wire.codec import decode

__all__ = ["Deciding"]

_MESSAGE, _END, _READ = int(Asked.MESSAGE), int(Asked.END), int(Asked.READ)

_GIVEN_UP = "its relay is gone"


def _unseen(_relay: Relay) -> None:
    """Does nothing."""


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
        self._sessions = RemoteSessions(relay, log, self._closed)
        self._turns = RequestTurns(relay, log, call_later, self._handle, self._sessions.touch)
        self._lost = LostSessions(relay)

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
            self._sessions.links[link] = Link()
        for known in ledger.sessions.values():
            remote = self._sessions.begin(known.began, known.number, is_known=True)
            if remote is not None:
                remote.will = known.will
        for change in served.schedule.image():
            relay.committer.restore(change)
        self._when_begun(relay)
        self._lost.delay_ends()
        relay.resume(report)

    def stop(self) -> None:
        """Stops deciding; nothing that the core does later has any effect."""
        self._turns.stop()
        self._stop_clock()

    # Requests

    def receive(self, packet: Packet) -> bool:
        """Takes a packet of requests.

        Returns:
            whether it could be taken; if not, the relay has to send all requests that are not done again.
        """
        links = self._sessions.links
        link = links.get(packet.link)
        if link is None:
            if not packet.is_new:
                return False
            link = links[packet.link] = Link()
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
        self._turns.decide()
        return True

    def knows(self, link: str) -> bool:
        """Tells whether a relay has joined."""
        return link in self._sessions.links

    def end_link(self, name: str) -> None:
        """Ends the sessions of a relay that has left or is lost; many of them take several turns."""
        link = self._sessions.links.pop(name, None)
        if link is not None:
            self._end_some(name, deque(link.remotes.values()))

    def _end_some(self, name: str, remotes: deque[RemoteSession]) -> None:
        """Ends as many of a relay's sessions as there is time for in this turn, then the relay."""
        if self._turns.is_over:
            return
        now_us = self.relay.clock.now_us
        end_us = now_us() + TURN_US
        while remotes:
            self._end_lost(remotes.popleft())
            if remotes and (now_us() >= end_us or self._turns.is_held):
                self._call_later(0, lambda: self._end_some(name, remotes))
                return
        self.log.add(LinkEnded(name))

    def _end_lost(self, remote: RemoteSession) -> None:
        session_id = remote.session.id
        if session_id not in self._sessions.by_id:
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
        self._sessions.pass_on(subject, old, new)

    def _take(self, link: str, entry: Entry) -> None:
        if entry.kind == _READ:
            self._read(entry.text)
            self.log.close_if_full()
            return
        remote = self._sessions.by_id.get(entry.session_id)
        if remote is None:
            if entry.kind == Asked.BEGIN:
                began = Began(entry.session_id, link, entry.text, entry.data, *origin_and_vouched(entry.more))
                self._sessions.begin(began, entry.number)
                self.log.close_if_full()
            return
        if entry.number > remote.taken and remote.link == link:
            remote.taken = entry.number
            self._turns.add(remote, entry)

    def _read(self, address: str) -> None:
        if self.relay.params.get(address) is not None:
            self.relay.committer.renew(address)

    def _handle(self, remote: RemoteSession, entry: Entry) -> None:
        """Handles a request of a session; see ``RequestTurns``."""
        session = remote.session
        kind = entry.kind
        if kind == _END:
            if entry.qos:
                self._leave_will(remote)
            self._forget(remote, entry.text)
            self.log.add(Ended(session.id))
            return
        remote.at_work = entry.number
        if kind == _MESSAGE:
            message = entry.message or decode(entry.data)
            mark = _WhileDecided(session, self.log, entry) if entry.more or entry.mark else None
            self.relay.accept(session, message, entry.qos, mark)
        elif entry.kind == Asked.NAME:
            self.log.add(Named(session.id, entry.text, bool(entry.qos), int.from_bytes(entry.data)))
        elif entry.kind == Asked.WILL:
            remote.will = Willed(session.id, entry.data, entry.more, entry.mark)
            self.log.add(remote.will, sum(map(len, entry[4:8])))
        elif entry.kind == Asked.CLEAR:
            self.relay.put_off(session)
            self.relay.go_on(session, self.relay.committer.clear(decode_addresses(entry.data)))

    def _leave_will(self, remote: RemoteSession) -> None:
        """Carries out the will of a session, as its message of this moment."""
        will, remote.will = remote.will, None
        if will is not None and will.message:
            session = remote.session
            entry = Entry(0, session.id, int(Asked.MESSAGE), more=will.more, mark=will.mark)
            self.relay.accept(session, decode(will.message), 0, _WhileDecided(session, self.log, entry))

    # Outcomes

    def _closed(self, remote: RemoteSession, close_code: CloseCode, reason: str) -> None:
        """Notes that the decider's core has ended a session."""
        session_id = remote.session.id
        if session_id not in self._sessions.by_id:
            return
        self._drop(remote)
        self._sessions.answer(remote)
        self.log.add(Ended(session_id, int(close_code), reason))

    def seal(self) -> list[Sealed]:
        """Closes the gathered batch; not while a bundle is being carried out, which is never split.

        Returns:
            one batch, or none.
        """
        if self._is_whole_later():
            return []
        # A bundle that has been carried out is in the batch, so its answer has to be there, too.
        self._turns.settle_all()
        self._sessions.answer_all()
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

    def _forget(self, remote: RemoteSession, cause: str) -> None:
        """Ends a session of the core that its relay has ended, or that is lost with its relay."""
        self._drop(remote)
        self.relay.disconnect(remote.session, cause)

    def _drop(self, remote: RemoteSession) -> None:
        self._sessions.remove(remote)
        self._turns.drop(remote)
