"""Commits changes: applies each one, tells its recipients, records it in the log, and then releases the answers.

Everything that alters what the relay keeps passes here. A change is applied and put into every queue in the same step,
so no session gets an older value after a newer one. Then it is given to the log. The change's ACK, and the ERRORs and
PONGs behind it, are sent once the log has recorded the change. With a log that records at once no answer waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from clasp_relay.core.decide import P2P_SIGNAL, Decider
from clasp_relay.core.fanout.catch_ups import CatchUpSender, Opening
from clasp_relay.core.fanout.gestures import Gestures
from clasp_relay.core.fanout.recipients import Recipients
from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.ports import Clock, Frame, Log
from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.schedule import Schedule
from clasp_relay.core.session.sessions import LongAnswer, Session, SessionState, SessionTable
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import WAIT_US, Pieces, Work
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Bundle, Publish, Value

_GESTURE = Signal.GESTURE
_LIVE = SessionState.LIVE

ENDED_AT_ONCE = 16
"""Params or locks that end in one piece of work. A hundred thousand can end at the same time."""

MAX_HELD_ANSWERS = 10_000
"""Answers that may wait behind a REPLAY. A session with more is ended, since its client does not read."""

NULL_US, END_US, LOOK_US = 40, 5, 100
"""Estimated cost in µs: to end a param and tell its recipients, to end a lock or a scheduled bundle, to look for
expired params."""


class Committer:
    """Commits changes; see the module.

    Args:
        params: the state.
        schedule: the scheduled bundles.
        decider: makes the nulls of params that expire or are evicted.
        recipients: tells the sessions that get a change.
        catch_ups: tells sessions what a change newly lets them see.
        visibility: decides who sees which address.
        permissions: their cached answers end when a change alters what these depend on.
        keeping: the history rules; None if no history is kept.
        sessions: the live sessions.
        log: where changes are recorded.
        clock: the current time.
        work: runs long work in pieces.
    """

    def __init__(
        self,
        params: Params,
        schedule: Schedule,
        decider: Decider,
        recipients: Recipients,
        catch_ups: CatchUpSender,
        visibility: Visibility,
        permissions: Permissions,
        keeping: Keeping | None,
        sessions: SessionTable,
        log: Log,
        clock: Clock,
        work: Work,
    ) -> None:
        self._work = work
        self._is_expiring = False
        self._params = params
        self._schedule = schedule
        self._decider = decider
        self._recipients = recipients
        self._catch_ups = catch_ups
        self._visibility = visibility
        self._is_open = permissions.is_open
        self._memory = permissions.memory
        self._keeping = keeping
        self._stamp_of: Callable[[str, Value], str | None] = permissions.stamp_of
        self._sessions = sessions
        self._log = log
        self._is_immediate = log.is_immediate
        log.watch(self._recorded)
        self._held: dict[int, list[tuple[Session, Frame | None]]] = {}
        """Waiting answers in order, by the batch that they wait for. None stands for a session whose answers wait in
        their own queue (``Session.answers``), which is released then."""
        self._recorded_batch = self._released_batch = 0
        """The last batch that is recorded, and the last one whose answers have all been sent."""
        self._clock = clock
        self.is_following = False
        """Whether another relay decides: then params and locks end only by the changes of its log (``follow``)."""
        self.carries_signals = False
        """Whether signals are recorded instead of sent: the relays that follow the log send them."""
        self.followed: Change | None = None
        """The change by another relay whose recipients are being told; None at any other time."""
        self.followed_with = b""
        """The bytes that the door of its sender sent with that change (``Session.sent_with``)."""
        self.when_read: Callable[[str], None] = self._renew
        """Called with the address of a param that a GET has answered with."""
        self.when_accounts: Callable[[Change], None] = _ignore
        """Called with a change of accounts, in order with the changes that ``follow`` applies."""
        self.too_slow: Callable[[Session], None] = _ignore
        """Ends a session for which too many answers wait behind a REPLAY; set by the relay."""
        self.gestures = Gestures(clock, self._tell_signal)
        """Coalesces gesture moves."""

    # Changes

    def write(self, session: Session, change: Change) -> None:
        """Commits one write of a session.

        Raises:
            RequestError: OVERLOADED if there is no room; nothing has changed.
        """
        if not self._is_immediate:
            self._log.check()
        if self._is_open and self._params.replace(change):
            self._recipients.tell_change(change, None)
        elif not self._is_open and self._replace(change):
            """It was a usual write, and is told."""
        elif self._params.has_room(change.param):
            self._write(change)
        else:
            self.write_all(session, (change,), (change,))
            return
        if not self._is_immediate:
            self._record((change,), session)

    def write_all(self, session: Session, changes: Sequence[Change | Publish], outcomes: Iterable[Change]) -> None:
        """Commits the members of a bundle together; see ``accept_all``."""
        self.carry_out(session, self.accept_all(session, changes, outcomes))

    def accept_all(
        self,
        session: Session,
        changes: Sequence[Change | Publish],
        outcomes: Iterable[Change],
        *,
        is_due: bool = False,
    ) -> Sequence[Change | Publish]:
        """Records the members of a bundle together.

        The caller carries them out before any other change at their addresses.

        Args:
            session: the writer.
            changes: writes, and signals that were accepted.
            outcomes: the last write at each address.
            is_due: whether the bundle was scheduled; then it is recorded even while the log refuses new changes.

        Returns:
            what is to be carried out: the nulls of evicted params, then ``changes``.

        Raises:
            RequestError: OVERLOADED if there is no room; nothing has changed.
        """
        if not (self._is_immediate or is_due):
            self._log.check()
        evicted = [self._decider.null(address) for address in self._params.victims(outcomes, self._stamp_of)]
        if self._keeping is None and not self.carries_signals:
            recorded = [*evicted, *(each for each in changes if isinstance(each, Change))]
            self._record(recorded, session)
            return [*evicted, *changes] if evicted else changes
        return self._accept_signals(session, [*evicted, *changes])

    def _accept_signals(self, session: Session, changes: Sequence[Change | Publish]) -> Sequence[Change | Publish]:
        """Records changes, and those signals that are kept or carried; returns all of them with the current time."""
        keeping = self._keeping
        recorded: list[Change] = []
        accepted: list[Change | Publish] = []
        timed: list[tuple[Change | Publish, int]] = []
        for each in changes:
            if isinstance(each, Change):
                # A long bundle was decided in pieces; times rise in the order of the log.
                recorded.append(each if keeping is None else keeping.timed(each))
                accepted.append(recorded[-1])
                if recorded[-1] is not each:
                    timed.append((recorded[-1], recorded[-1].param.timestamp_us))
                continue
            kept = None if keeping is None else keeping.event(session, each)
            if kept is not None:
                recorded.append(kept)
                each = _signal_of(kept)  # noqa: PLW2901
                timed.append((each, kept.param.timestamp_us))
            accepted.append(each)
            if self.carries_signals and (kept is None or each.signal is _GESTURE):
                recorded.append(self._carried(session, each))
        if keeping is None:
            self._record(recorded, session)
            return accepted
        with keeping.ahead_of(recorded):
            self._record(recorded, session)
        keeping.accepted(timed)
        return accepted

    def carry_out(self, session: Session, changes: Iterable[Change | Publish]) -> None:
        """Applies recorded changes and tells their recipients."""
        for change in changes:
            if self._keeping is not None:
                self._keeping.tells(change)
            if not isinstance(change, Publish):
                self._write(change)
            elif self.carries_signals:
                self._tell_own(change)
            else:
                self._pass_on(session, change)

    def publish(self, session: Session, message: Publish) -> None:
        """Passes an accepted signal on; first commits it if history keeps it.

        Raises:
            RequestError: OVERLOADED if it is to be kept and cannot be recorded; then no session was told.
        """
        kept = None if self._keeping is None else self._keeping.event(session, message)
        if kept is not None:
            self._log.check()
            self._record((kept,), session)
            message = _signal_of(kept)
            if self.carries_signals and message.signal is not _GESTURE:
                self._tell_own(message)
                return
        self._pass_on(session, message)

    def renew(self, address: str) -> None:
        """Handles that a GET was answered with a param, which may renew the param's life time."""
        self.when_read(address)

    def _renew(self, address: str) -> None:
        """Commits the renewal of a life time, if the param's TTL is sliding."""
        # A bundle's write at this address is already recorded, with its own life time.
        is_replaced = address in self._params.reserved.writes
        change = None if is_replaced else self._params.renewal(address, self._clock.now_us())
        if change is not None:
            self._params.apply(change)
            self._record((change,), None)

    def schedule(self, session: Session, bundle: Bundle, due_us: int) -> None:
        """Commits that a bundle was scheduled.

        Raises:
            RequestError: it cannot be scheduled; nothing has changed.
        """
        if not self._is_immediate:
            self._log.check()
        change = self._schedule.decide(session, bundle, due_us)
        self._schedule.apply(change, session)
        self._record((change,), session)

    def due(self, number: int) -> None:
        """Commits that a scheduled bundle is due."""
        change = Change(no_param("", "", "", self._clock.now_us()), ChangeKind.DUE, number=number)
        self._schedule.apply(change, None)
        self._record((change,), None)

    def restore(self, change: Change) -> None:
        """Applies a change that was recorded before this start, without telling or recording it.

        Locks are not restored: their sessions have ended.
        """
        kind = change.kind
        if kind is ChangeKind.WRITE:
            self._params.apply(change._replace(takes_lock=False) if change.takes_lock else change)
        elif kind is ChangeKind.RENEWAL:
            if self._params.get(change.param.address) is not None:
                self._params.apply(change)
        elif kind in (ChangeKind.SCHEDULED, ChangeKind.DUE):
            self._schedule.restore(change)

    def record(self, changes: Sequence[Change]) -> None:
        """Records a batch that another relay has committed, before ``follow`` applies it."""
        if self._keeping is None:
            self._record(changes, None)
            return
        with self._keeping.ahead_of(changes):
            self._record(changes, None)

    def follow(self, change: Change) -> None:
        """Applies a change that another relay has committed, and tells its recipients in this relay."""
        kind, message = change.kind, change.message
        if self._keeping is not None:
            self._keeping.follows(change)
        if kind is ChangeKind.WRITE:
            self._write(change)
        elif isinstance(message, Publish):
            # A kept gesture comes twice: as an entry of history, and as the SIGNAL into which its moves were coalesced.
            if kind is ChangeKind.SIGNAL or message.signal is not _GESTURE:
                self._tell_signal(self._sessions.get(change.param.writer), message)
        elif kind is ChangeKind.LOCK_RELEASE:
            self._params.apply(change)
        elif kind is ChangeKind.ACCOUNTS:
            self.when_accounts(change)
        else:
            self.restore(change)

    def resume(self, change: Change, session: Session) -> None:
        """Schedules again a bundle that was recorded before this start."""
        self._schedule.apply(change, session)

    def expire_before(self, end_us: int) -> None:
        """Ends all params that had expired at a Unix time in µs; called before any session connects."""
        while (addresses := self._params.expired(end_us, ENDED_AT_ONCE)) or self._params.is_behind:
            for address in addresses:
                null = self._decider.null(address)
                self._write(null)
                self._record((null,), None)

    def drop_bundles(self, subject: str, token: bytes) -> None:
        """Commits that the scheduled bundles of a token that has ended are dropped."""
        numbers = self._schedule.of_token(subject, token)
        if numbers:
            self._work.add((subject, token), self._drop_bundles(numbers))

    def _drop_bundles(self, numbers: Sequence[int]) -> Pieces:
        for number in numbers:
            if number in self._schedule:
                self.due(number)
            yield END_US

    def expire(self) -> None:
        """Ends expired locks and params, in pieces."""
        if not self._is_expiring and not self.is_following:
            self._is_expiring = True
            self._work.add(self, self._expire())

    def _expire(self) -> Pieces:
        try:
            while addresses := self._params.locks.expired(self._clock.now_us(), ENDED_AT_ONCE):
                about, holder = no_param("", "", "", self._clock.now_us()), self._params.holder
                yield self._end_all([_lock_release(about, each, holder(each) or "") for each in addresses])
            while True:
                addresses = self._params.expired(self._clock.now_us(), ENDED_AT_ONCE)
                is_behind = self._params.is_behind
                cost_us = self.end_params(addresses)
                yield LOOK_US + cost_us
                # If none was ended, all of them are reserved; a later sweep ends them.
                if not cost_us and not is_behind:
                    break
        finally:
            self._is_expiring = False

    def until_free(self, addresses: Sequence[str]) -> Pieces:
        """Waits while a bundle is being decided that has read one of some addresses."""
        while self._params.reserved.any_is_read(addresses):
            yield WAIT_US

    def end_params(self, addresses: Sequence[str]) -> int:
        """Ends expired params by nulls of the relay's own, except those at reserved addresses.

        Args:
            addresses: at most ``ENDED_AT_ONCE`` addresses at which something is set. A caller that will not pass them
                again waits for ``until_free`` first.

        Returns:
            the estimated cost in µs; 0 if nothing was ended.
        """
        reserved = self._params.reserved
        changes = []
        for address in addresses:
            # A bundle's write at this address already has its revision, and its own expiry.
            if address not in reserved:
                changes.append(self._decider.null(address))
                self._write(changes[-1])
        self._record(changes, None)
        return NULL_US * len(changes)

    def clear(self, addresses: Sequence[str]) -> Pieces:
        """Ends the params at some addresses by nulls of the relay's own, in pieces."""
        for start in range(0, len(addresses), ENDED_AT_ONCE):
            next_ones = addresses[start : start + ENDED_AT_ONCE]
            yield from self.until_free(next_ones)
            yield 1 + self.end_params([each for each in next_ones if self._params.get(each) is not None])

    def end_session(self, session: Session) -> Pieces:
        """Releases a session's locks, in pieces; drops its subject's cached answers if it was the last session."""
        params, subject = self._params, session.identity.subject
        about = no_param("", session.id, subject, self._clock.now_us())
        while not self.is_following and (addresses := params.locks.of(session.id, ENDED_AT_ONCE)):
            yield self._end_all([_lock_release(about, each, session.id) for each in addresses])
        if not self._sessions.has_subject(subject):
            yield from self._memory.drop_pool(subject)

    def _end_all(self, changes: Sequence[Change]) -> int:
        for change in changes:
            self._params.apply(change)
        self._record(changes, None)
        return END_US * len(changes)

    # Answers

    def answer(self, session: Session, frame: Frame) -> None:
        """Sends an answer, in order, once the session's earlier changes are recorded."""
        answers = session.answers
        if answers is None:
            batch = session.awaits
            if batch <= self._released_batch:
                session.outbox.send(frame)
                return
            held = self._held.get(batch)
            if held is None:
                held = self._held[batch] = []
            held.append((session, frame))
            return
        self._mark(session, answers)
        answers.append(frame)
        if len(answers) > MAX_HELD_ANSWERS and isinstance(answers[0], LongAnswer):
            self.too_slow(session)

    def hold(self, session: Session, begin: Callable[[], None]) -> LongAnswer:
        """Reserves the place of a long answer among a session's answers; later ones wait for it.

        Args:
            session: the session.
            begin: called when all answers before it are sent. When the long answer is marked as done, ``release`` sends
                the later ones.
        """
        place = LongAnswer(begin)
        if session.answers is None:
            session.answers = deque()
            session.marked = 0
        self._mark(session, session.answers)
        session.answers.append(place)
        return place

    def _mark(self, session: Session, answers: deque[Frame | LongAnswer | int]) -> None:
        """Makes the next answers in a session's queue wait until its last change is recorded."""
        batch = session.awaits
        if batch > self._released_batch and batch > session.marked:
            session.marked = batch
            answers.append(batch)
            self._held.setdefault(batch, []).append((session, None))

    def release(self, session: Session) -> None:
        """Sends the answers at the front of a session's queue that need not wait any longer."""
        answers = session.answers
        if answers is None:  # the session was ended meanwhile
            return
        while answers:
            first = answers[0]
            if isinstance(first, int):
                if first > self._recorded_batch:
                    return
            elif isinstance(first, LongAnswer):
                if not first.is_done:
                    begin, first.begin = first.begin, None
                    if begin is None:
                        return
                    begin()  # which may empty this queue
                    continue
            else:
                session.outbox.send(first)
            answers.popleft()
        if session.answers is answers:
            session.answers = None

    def forget_answers(self, session: Session) -> None:
        """Drops the waiting answers of a session that ends."""
        for answer in session.answers or ():
            if isinstance(answer, LongAnswer):
                answer.begin = None  # it would hold the REPLAY, which holds it
        session.answers = None
        session.awaits = 0

    def _recorded(self, batch: int) -> None:
        """Sends the answers that waited for a batch, now that it is recorded."""
        self._recorded_batch = batch
        held = self._held.get(batch)
        if held is not None:
            for session, frame in held:  # it may grow meanwhile
                if frame is None:
                    self.release(session)
                elif session.state is _LIVE:
                    session.outbox.send(frame)
            del self._held[batch]
        self._released_batch = batch

    def _record(self, changes: Sequence[Change], session: Session | None) -> None:
        if self._is_immediate or not changes:
            return
        batch = self._log.append(changes)
        if session is not None and batch:
            session.awaits = batch

    # Applying and telling

    def _replace(self, change: Change) -> bool:
        """Applies a usual write (``Params.replace``) and tells those who may see it; tells whether it is one."""
        address = change.param.address
        place = self._visibility.place(address)
        if place.catch_ups or not self._params.replace(change):
            return False
        self._memory.changed(address, True, True)
        self._recipients.tell_change(change, place.live)
        return True

    def _write(self, change: Change) -> None:
        """Applies a write and tells its recipients, in one step."""
        if self._is_open:
            self._params.apply(change)
            self._recipients.tell_change(change, None)
            return
        param = change.param
        address = param.address
        exists = param.value != NULL
        existed = self._params.get(address) is not None
        place = self._visibility.place(address)
        opening: Opening | None = None
        if place.catch_ups:
            opening = self._catch_ups.before(place.catch_ups, address, exists=exists)
        if exists:
            self._params.apply(change)
            self._memory.changed(address, True, existed)
            self._recipients.tell_change(change, place.live)
        else:
            # A null is sent to the sessions that saw the value that it deletes.
            self._recipients.tell_change(change, place.live)
            self._params.apply(change)
            self._memory.changed(address, False, existed)
        if opening is not None:
            self._catch_ups.after(opening, param.subject)

    def _pass_on(self, session: Session, message: Publish) -> None:
        if message.signal is _GESTURE:
            self.gestures.pass_on(session, message)
        else:
            self._tell_signal(session, message)

    def _tell_signal(self, session: Session | None, message: Publish) -> None:
        """Sends a signal to its recipients, never to its sender."""
        if self.carries_signals and session is not None:
            self._record((self._carried(session, message),), session)
            self._tell_own(message)
            return
        address = message.address
        if address.startswith(P2P_SIGNAL):
            target = self._sessions.get(address[len(P2P_SIGNAL) :])
            if target is not None:
                self._recipients.tell_one(target, message)
        else:
            exclude = None if session is None or session.hears_itself else session.outbox
            self._recipients.tell_signal(message, exclude=exclude)

    def _tell_own(self, message: Publish) -> None:
        """Sends a signal that the log carries to this core's own subscribers: the rules (``rules/``) at the decider."""
        if not message.address.startswith(P2P_SIGNAL):
            self._recipients.tell_signal(message, exclude=None)

    def _carried(self, session: Session, message: Publish) -> Change:
        """Returns the change by which the log carries a signal."""
        about = no_param(message.address, session.id, session.identity.subject, self._clock.now_us())
        return Change(about, ChangeKind.SIGNAL, message=message)


def _lock_release(about: Param, address: str, holder: str) -> Change:
    return Change(about._replace(address=address, writer=holder), ChangeKind.LOCK_RELEASE)


def _ignore(_what: object) -> None:
    """Does nothing."""


def _signal_of(change: Change) -> Publish:
    """Returns the PUBLISH of a change that records one."""
    assert isinstance(change.message, Publish), "a change without a signal"
    return change.message
