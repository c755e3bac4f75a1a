"""The relay: receives the messages of sessions, and passes each through one gate to its handler.

It uses no socket: ``net`` and other doors give it each session's outbox, and its bytes (:meth:`Relay.receive`) or
messages (:meth:`Relay.accept`); the clock is given to it, too. There is one thread: a change is applied and put into
every queue in one step, so no update can overtake another one or a snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from clasp_relay.core.bundles import Bundles
from clasp_relay.core.commit import Committer
from clasp_relay.core.decide import Decider
from clasp_relay.core.fanout.catch_ups import CatchUpSender
from clasp_relay.core.fanout.recipients import Recipients
from clasp_relay.core.fanout.snapshots import Snapshots
from clasp_relay.core.fanout.subscriptions import SubscriptionTable
from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.history.reading import HistoryReader
from clasp_relay.core.history.replays import Replays, Ways
from clasp_relay.core.history.rules import HistoryRules
from clasp_relay.core.observer import Counts, Observer, Unwatched
from clasp_relay.core.ports import Clock, Codec, FanOut, Frame, ImmediateLog, Kind, Log, Outbox
from clasp_relay.core.rights.port import OpenPermissions, Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.account import Accounts, MemoryKind
from clasp_relay.core.session.hooks import SessionHooks
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.core.session.schedule import Schedule, bundle_of
from clasp_relay.core.session.sessions import (
    ALLOWED_LIVE,
    AbsentSession,
    Held,
    Session,
    SessionState,
    SessionTable,
    Subscription,
    check_legal,
    held_bytes,
)
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.signals import SIGNAL_TTL_US, Signals
from clasp_relay.core.work import Pieces, Work
from clasp_relay.errors import CloseCode, DecodeError, Disconnect, ErrorCode, RequestError
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.constants import MessageCode
from clasp_relay.wire.cost import message_cost
from clasp_relay.wire.messages import Bundle, Error, Message
from clasp_relay.wire.tuples import new_tuple
from clasp_relay.wire.values import decode_value

# As names of the module, since they are looked up for every message.
_LIVE, _CLOSED = SessionState.LIVE, SessionState.CLOSED
_ACK, _KEEP = int(MessageCode.ACK), Kind.KEEP

MAX_BAD_FRAMES = 100
"""Undecodable frames within ``BAD_FRAMES_US`` that end a session: its client does not send CLASP."""

BAD_FRAMES_US = 10_000_000

SUBSCRIPTION_US = 20
"""Estimated cost in µs of ending a subscription."""


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """The settings of the core.

    Args:
        name: the server name in WELCOME.
        params: limits of the state.
        message_rate: messages a second and burst of each session, or None for no limit.
        session_memory_bytes: memory for each session, without its outbox; 0 for no limit.
        signal_ttl_us: µs after which an announced signal is forgotten; 0 for never.
    """

    name: str = "CLASP Relay"
    params: ParamLimits = field(default_factory=ParamLimits)
    message_rate: tuple[float, float] | None = None
    session_memory_bytes: int = 0
    signal_ttl_us: int = SIGNAL_TTL_US


Handler: TypeAlias = "Callable[[Relay, Session, Any, int], Pieces | None]"
"""Handles one type of message, given the relay, the session, the message and its QoS. It may return work to be done in
pieces; later messages of the session wait until that is done."""

MAX_HELD = 1_000
"""Messages that may wait behind one that is being handled in pieces. Its connection is not read meanwhile
(``is_busy``)."""

HELD_US = 30
"""Estimated cost in µs of handling a message that waited."""


class Relay:
    """All state of one relay, and the one gate that every message passes.

    Args:
        options: its settings.
        handlers: the handler of each message type that a session may send (``core.handlers.HANDLERS``).
        clock: the current time and timers.
        new_id: makes session ids (UUID4, lower case).
        fan_out: sends one frame to many sessions.
        report_fault: called with every unexpected exception and a description of the action.
        permissions: decide what sessions may do and see; None for the open mode.
        observer: gets reports of what happens; None for no reports.
        log: where changes are recorded before they are acknowledged; None for no log.
        history: the rules of what history keeps; None for no history.
        reader: reads history; None without history.
    """

    def __init__(
        self,
        options: RelayOptions,
        handlers: Mapping[type[Message], Handler],
        clock: Clock,
        new_id: Callable[[], str],
        fan_out: FanOut,
        report_fault: Callable[[str, Exception], None],
        permissions: Permissions | None = None,
        observer: Observer | None = None,
        log: Log | None = None,
        history: HistoryRules | None = None,
        reader: HistoryReader | None = None,
    ) -> None:
        self.options = options
        self._handlers = handlers
        self.observer: Observer = observer or Unwatched()
        self.counts = Counts()
        self.clock = clock
        self.permissions: Permissions = permissions or OpenPermissions()
        self.sessions = SessionTable()
        self.accounts = Accounts(options.session_memory_bytes)
        """The accounts of the memory that sessions take."""
        self.params = Params(options.params)
        self.subscriptions = SubscriptionTable()
        self.signals = Signals(options.params.exempt_subject, options.signal_ttl_us)
        self.visibility = Visibility(self.permissions, self.params, clock)
        self.snapshots = Snapshots(self.permissions, self.visibility, self.params, clock)
        self.snapshots.waiting.too_slow = self._end_as_too_slow
        self.work = Work(clock, report_fault)
        """Runs long work in pieces."""
        self.recipients = Recipients(self.subscriptions, fan_out, self.visibility, self.permissions, clock, self.work)
        self.throttles = self.recipients.throttles
        memory = None if self.permissions.is_open else self.permissions.memory
        self.keeping = None if history is None else Keeping(history, self.params, clock, memory)
        """Decides what history keeps; None without history."""
        self.decider = Decider(self.params, self.permissions, self.visibility, self.sessions, self.keeping, clock)
        self.schedule = Schedule(clock, self.work, self._run_due)
        self.committer = self._make_committer(log or ImmediateLog())
        self.bundles = Bundles(self.params, self.decider, self.committer, clock, is_open=self.permissions.is_open)
        self.committer.too_slow = self._end_as_too_slow
        self.replays = None if reader is None else self._make_replays(reader)
        """Answers REPLAYs; None without history."""
        self.gestures = self.committer.gestures
        self._new_id = new_id
        self.refuses: Disconnect | None = None
        """The refusal of every HELLO; None while sessions are admitted."""
        self.hooks = SessionHooks()
        """Functions of other layers that are called at a session's beginning and end."""
        self._report_fault = report_fault
        self._report_unheard: Callable[[str, str], None] = _unreported

    def _make_committer(self, log: Log) -> Committer:
        catch_ups = CatchUpSender(
            self.visibility,
            self.params,
            self.subscriptions,
            self.sessions,
            self.snapshots,
            self.throttles,
            self.counts,
            self.work,
        )
        return Committer(
            self.params,
            self.schedule,
            self.decider,
            self.recipients,
            catch_ups,
            self.visibility,
            self.permissions,
            self.keeping,
            self.sessions,
            log,
            self.clock,
            self.work,
        )

    def _make_replays(self, reader: HistoryReader) -> Replays:
        assert self.keeping is not None, "a reader of history without rules"
        ways = Ways(self.committer.hold, self.committer.release, self.refuse)
        return Replays(
            self.keeping, reader, self.permissions, self.visibility, self.params, self.clock, self.work, ways
        )

    @property
    def are_reads_held(self) -> bool:
        """Whether reads are put off now: with accounts, while this relay may not know yet that a right has ended."""
        return self.refuses is not None and not self.permissions.is_open

    def connect(self, outbox: Outbox, peer: str, codec: Codec) -> Session:
        """Begins a session, whose first message has to be HELLO.

        Args:
            outbox: its outbox.
            peer: the client's address.
            codec: its protocol.
        """
        origin = self.hooks.origin_of(peer)
        group = "" if origin else self.hooks.group_of(peer)
        return Session(self._new_id(), outbox, peer, codec, self.clock.now_us(), origin, group)

    def disconnect(self, session: Session, cause: str = "the connection ended") -> None:
        """Ends a session and all that depends on it; params and scheduled bundles stay. May be called again.

        Args:
            session: the session.
            cause: the cause, for people; that of the first call counts.
        """
        if session.state is SessionState.CLOSED:
            return
        session.close()
        self.sessions.discard(session)
        self.gestures.forget(session)
        self.committer.forget_answers(session)
        if self.replays is not None:
            self.replays.forget(session)
        self.work.add(session, self._forget(session))
        self.observer.ended(session, cause)

    def _forget(self, session: Session) -> Pieces:
        """Forgets all that depends on a session, in pieces. Until then what is sent to it is dropped."""
        while session.subscriptions:
            _, subscription = session.subscriptions.popitem()
            self._remove(session, subscription)
            yield SUBSCRIPTION_US
        self.throttles.forget(session)
        yield from self.committer.end_session(session)
        self.hooks.when_ended(session)
        subject = session.identity.subject
        if subject and not self.sessions.has_subject(subject):
            self.hooks.when_gone(subject)

    def receive(self, session: Session, data: bytes) -> None:
        """Decodes and handles one message of a session. Never raises.

        Args:
            session: its sender.
            data: the message, in the session's codec.
        """
        if session.held is not None:
            self._hold(session, data)
            return
        if self.observer.traces:
            self.observer.frame(session, data)
        # A message over the rate limit is not decoded.
        if session.limiter is not None and not self._within_limit(session, session.codec.cost(data)):
            return
        try:
            message, qos = session.codec.decode(data)
            self._handle(session, message, qos)
        except Exception as error:
            self._gate(session, error)

    def accept(
        self, session: Session, message: Message, qos: int, mark: AbstractContextManager[object] | None = None
    ) -> None:
        """Handles one message of a session. Never raises.

        Args:
            session: its sender.
            message: the message.
            qos: above 0 the session waits for an ACK.
            mark: a context that is entered while the message is handled, again for each piece of work: so a door knows
                which message causes the frames that are encoded meanwhile.
        """
        if session.held is not None:
            self._hold(session, (message, qos), mark)
            return
        if session.limiter is not None and not self._within_limit(session, message_cost(message)):
            return
        try:
            self._handle(session, message, qos, mark)
        except Exception as error:
            self._gate(session, error)

    def pay(self, session: Session, cost: int) -> bool:
        """Takes the cost of decoding a message from a session's limiter, before a door decodes it.

        Args:
            session: its sender.
            cost: the cost, in messages, in addition to what ``accept`` takes; 0 if decoding takes no time.

        Returns:
            Whether the door may decode it; if not, the message is dropped, and the session gets an ERROR as for any
            message over its limit.
        """
        limiter = session.limiter
        return not cost or limiter is None or self._within_limit(session, limiter.reading_cost(cost))

    def _handle(
        self, session: Session, message: Message, qos: int, mark: AbstractContextManager[object] | None = None
    ) -> None:
        kind = type(message)
        self.counts.received[kind] += 1
        session.received += 1
        if session.state is not _LIVE or kind not in ALLOWED_LIVE:
            check_legal(session.state, message)
        if self.observer.watches:
            self.observer.operation(session, message)
        if mark is None:
            pieces = self._handlers[kind](self, session, message, qos)
        else:
            with mark:
                pieces = self._handlers[kind](self, session, message, qos)
        if pieces is not None:
            if mark is not None:
                pieces = _marked(pieces, mark)
            waiting: deque[Held] = deque()
            session.hold(waiting)
            self.work.add(session, self._in_pieces(session, pieces, waiting))

    def _hold(
        self,
        session: Session,
        message: bytes | tuple[Message, int],
        mark: AbstractContextManager[object] | None = None,
    ) -> None:
        """Queues a message behind one that is being handled; drops it if the session has ended."""
        if session.state is _CLOSED:
            return
        assert session.held is not None, "nothing to wait for"
        if len(session.held) >= MAX_HELD:
            self._end_as_too_slow(session)
            return
        size_bytes = held_bytes(message)
        try:
            session.account.take(MemoryKind.MESSAGES, size_bytes)
        except RequestError as refusal:
            self._gate(session, refusal)
            return
        session.held.append(Held(message, mark, size_bytes))

    def _in_pieces(self, session: Session, pieces: Pieces, waiting: deque[Held]) -> Pieces:
        """Runs the remaining work of a message, then handles the messages that waited behind it."""
        yield from self._guarded(session, pieces)
        while waiting and session.held is waiting:
            session.hold(None)
            self._take_up(session, waiting.popleft())
            if session.held is not None:
                # The message's own work handles the others later, or the session has ended.
                session.held.extend(waiting)
                if session.state is _CLOSED:
                    _forget_held(session, waiting)
                return
            session.hold(waiting)
            yield HELD_US
        if session.held is waiting:
            session.hold(None)

    def put_off(self, session: Session) -> None:
        """Puts off a session's messages, the current one and later ones, until ``go_on``."""
        session.hold(deque())

    def go_on(self, session: Session, pieces: Pieces) -> None:
        """Handles a message that was put off, then those that waited behind it."""
        if session.held is not None and session.state is not _CLOSED:
            self.work.add(session, self._in_pieces(session, pieces, session.held))

    def _take_up(self, session: Session, held: Held) -> None:
        """Handles a message that waited."""
        message, mark, size_bytes = held
        session.account.add(MemoryKind.MESSAGES, -size_bytes)
        if isinstance(message, bytes):
            self.receive(session, message)
        else:
            self.accept(session, *message, mark)

    def _guarded(self, session: Session, pieces: Pieces) -> Pieces:
        try:
            yield from pieces
        except Exception as error:
            self._gate(session, error)

    def _gate(self, session: Session, error: Exception) -> None:
        """The error gate of messages: answers with an ERROR, ends the session, or reports a fault of the relay."""
        if isinstance(error, RequestError):
            self.refuse(session, error)
        elif isinstance(error, Disconnect):
            self.end(session, error)
        else:
            self._report_fault(f"a message of session {session.id}", error)
            self.refuse(session, RequestError(ErrorCode.INTERNAL, "internal error"))

    def ack(
        self,
        session: Session,
        address: str | None = None,
        revision: int | None = None,
        locked: bool | None = None,
        holder: str | None = None,
    ) -> None:
        """Sends an ACK; the arguments are the fields of ``messages.Ack``."""
        if session.limiter is not None:
            self.pay_error(session)
        self.counts.sent[_ACK] += 1
        frame = new_tuple(Frame, (session.codec.ack(address, revision, locked, holder), _KEEP, ""))
        if session.awaits or session.answers is not None:
            self.committer.answer(session, frame)
        else:
            session.outbox.send(frame)

    def answer(self, session: Session, code: MessageCode, message: Message) -> None:
        """Sends an answer, after an ERROR that was held back.

        Args:
            session: the recipient.
            code: its message code.
            message: the answer.
        """
        self.pay_error(session)
        self.counts.sent[code] += 1
        self.committer.answer(session, Frame(session.codec.encode(message)))

    def send_snapshot(self, session: Session, key: object, frames: Iterator[bytes]) -> None:
        """Sends a SNAPSHOT, after an ERROR that was held back; see ``Outbox.send_snapshot``."""
        self.pay_error(session)
        self.counts.sent[MessageCode.SNAPSHOT] += 1
        session.outbox.send_snapshot(key, frames)

    def send_empty_snapshot(self, session: Session) -> None:
        """Sends a SNAPSHOT without params, in one piece with what is sent in the same turn."""
        self.counts.sent[MessageCode.SNAPSHOT] += 1
        for wire in session.codec.snapshot(()):
            session.outbox.send(Frame(wire))

    def _new_limiter(self, who: Identity) -> Limiter | None:
        rate = who.message_rate or self.options.message_rate
        if rate is None:
            return None
        per_second, burst = rate
        return Limiter(per_second, burst, self.clock.now_us())

    def end(self, session: Session, reason: Disconnect) -> None:
        """Ends a session with an ERROR, if the reason has a code, and a close."""
        # Answers that wait for the log are dropped: the ERROR would wait behind them, and the close would come first.
        self.committer.forget_answers(session)
        if reason.code is not None:
            self._send_error(session, reason.code, reason.reason, None)
        session.outbox.close(reason.close_code, reason.reason)
        self.disconnect(session, reason.reason)

    def identify(self, session: Session, token: str) -> None:
        """Sets a session's identity, and opens its account of memory.

        Raises:
            Disconnect: the token is not valid, or no session is admitted now.
        """
        if self.refuses is not None:
            raise self.refuses.again()
        session.identity = self.permissions.admit(token, session)
        session.account = self.accounts.open(session.identity.subject, session.origin)

    def admit(self, session: Session) -> None:
        """Makes a session live, with its identity."""
        session.limiter = self._new_limiter(session.identity)
        session.state = SessionState.LIVE
        session.hello_us = self.clock.now_us()
        self.counts.began += 1
        self.sessions.add(session)
        self.hooks.when_began(session)

    def _end_as_too_slow(self, session: Session) -> None:
        session.outbox.discard()
        self.end(session, Disconnect(CloseCode.TRY_AGAIN_LATER, "too slow", ErrorCode.OVERLOADED))

    def end_token(self, subject: str, token: bytes, reason: Disconnect) -> None:
        """Ends the sessions of a token that is no longer valid; what waits for them is discarded.

        Their scheduled bundles are dropped, those of ended sessions included.

        Args:
            subject: the token's subject.
            token: its id (``Identity.token``).
            reason: the ERROR and close that its sessions get.
        """
        for session in self.sessions.of_token(subject, token):
            session.outbox.discard()
            self.end(session, reason)
        self.committer.drop_bundles(subject, token)

    def resume(self, report: Callable[[str, str], None]) -> None:
        """Resumes the bundles that were scheduled before this start, in time order with expiries.

        Those that were due while the relay was off run now. Called once, before the first session connects.

        Args:
            report: called with each bundle that is refused, now or later: the id of its session, and the cause.
        """
        self._report_unheard = report
        for change in self.schedule.take_restored():
            bundle, due_us = bundle_of(change)
            param = change.param
            there = self.sessions.get(param.writer)
            if there is not None:  # of another relay, which is still running
                self.committer.resume(change, there)
                continue
            token = decode_value(param.value)
            identity = self.permissions.readmit(param.subject, token if isinstance(token, bytes) else b"")
            if identity is None:
                self.committer.due(change.number)
                report(param.writer, "its token is not valid any more")
                continue
            session = AbsentSession(param.writer, ClaspCodec(), identity, param.origin)
            self.committer.resume(change, session)
            if due_us <= self.clock.now_us():
                self.committer.expire_before(due_us)
                for _ in self._run_due(change.number, session, bundle):
                    """Runs the work at once: there are no sessions yet that it could delay."""

    def sweep(self) -> None:
        """Ends expired params, gestures and signals. Called twice a second."""
        self.committer.expire()
        self.gestures.sweep()
        self.signals.sweep(self.clock.now_us())
        self.snapshots.waiting.look_through()

    def check_subscription(self, session: Session, subscription: Subscription) -> None:
        """Refuses a subscription over the session's limits.

        Raises:
            RequestError: LIMIT if too much is kept for the session.
        """
        replaced = session.subscriptions.get(subscription.id)
        more_bytes = subscription.kept_bytes - (0 if replaced is None else replaced.kept_bytes)
        session.account.check(MemoryKind.SUBSCRIPTIONS, more_bytes, subscription.pattern.text)

    def subscribe(self, session: Session, subscription: Subscription) -> None:
        """Adds a subscription to a session; replaces one with the same id."""
        self.throttles.begin(session, subscription)
        self.unsubscribe(session, subscription.id)
        session.subscriptions[subscription.id] = subscription
        session.account.add(MemoryKind.SUBSCRIPTIONS, subscription.kept_bytes)
        self.subscriptions.add(subscription)

    def unsubscribe(self, session: Session, subscription_id: int) -> None:
        """Ends a subscription; an unknown id is ignored."""
        subscription = session.subscriptions.pop(subscription_id, None)
        if subscription is not None:
            self._remove(session, subscription)
            self.throttles.end(session, subscription)

    def _remove(self, session: Session, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)
        session.account.add(MemoryKind.SUBSCRIPTIONS, -subscription.kept_bytes)

    def pay_error(self, session: Session) -> None:
        """Sends the ERROR that was held back, so that it comes before the next answer."""
        if session.limiter is not None and session.limiter.owes_error:
            session.limiter.settle(self.clock.now_us())
            self._send_error(session, ErrorCode.LIMIT, "too many messages; some were dropped", None)

    def _within_limit(self, session: Session, cost: int) -> bool:
        """Takes a message's cost from the session's limiter, or drops the message, with at most one ERROR a second."""
        limiter = session.limiter
        assert limiter is not None, "asked for the limit of a session without one"
        now_us = self.clock.now_us()
        if limiter.take(cost, now_us):
            return True
        self.counts.limited += 1
        self.observer.limited(session)
        if limiter.may_send_error(now_us):
            text = "too many messages; this one was dropped"
            if cost > limiter.burst:
                text = f"this message counts as {cost}, at most {limiter.burst} pass at once: send its parts one by one"
            self._send_error(session, ErrorCode.LIMIT, text, None)
        return False

    def refuse(self, session: Session, refusal: RequestError) -> None:
        """Sends a session the ERROR of a refused message; a session before its HELLO is ended."""
        if session.state is SessionState.CLOSED:
            if isinstance(session, AbsentSession):
                self._report_unheard(session.id, str(refusal))
            return
        if isinstance(refusal, DecodeError):
            self.counts.undecodable[refusal.code] += 1
        if session.state is SessionState.NEW:
            close_code = CloseCode.INTERNAL if refusal.code is ErrorCode.INTERNAL else CloseCode.POLICY_VIOLATION
            self.end(session, Disconnect(close_code, refusal.message, refusal.code))
            return
        self.observer.refused(session, refusal)
        self._send_error(session, refusal.code, refusal.message, refusal.address)
        if isinstance(refusal, DecodeError) and self._is_babble(session):
            self.end(session, Disconnect(CloseCode.POLICY_VIOLATION, "too many messages that are not CLASP"))

    def _is_babble(self, session: Session) -> bool:
        times_us = session.bad_frames_us
        times_us.append(self.clock.now_us())
        if len(times_us) < MAX_BAD_FRAMES:
            return False
        return times_us[-1] - times_us.pop(0) <= BAD_FRAMES_US

    def _send_error(self, session: Session, code: ErrorCode, text: str, address: str | None) -> None:
        self.counts.errors[code] += 1
        session.errors += 1
        self.committer.answer(session, Frame(session.codec.encode(Error(code, text, address))))

    def _run_due(self, number: int, session: Session, bundle: Bundle) -> Pieces:
        self.committer.due(number)
        who = session.identity
        if not self.permissions.is_current(who) or (who.ends_with_session and not session.is_live):
            if isinstance(session, AbsentSession):
                self._report_unheard(session.id, "its token is not valid any more")
            return
        yield from self._guarded(session, self.bundles.in_pieces(session, bundle, is_due=True))


def _marked(pieces: Pieces, mark: AbstractContextManager[object]) -> Pieces:
    """Runs work, each piece within a mark."""
    while True:
        with mark:
            cost_us = next(pieces, None)
        if cost_us is None:
            return
        yield cost_us


def _forget_held(session: Session, waiting: deque[Held]) -> None:
    """Frees the memory of messages that will not be handled."""
    session.account.add(MemoryKind.MESSAGES, -sum(each.size_bytes for each in waiting))


def _unreported(_session_id: str, _why: str) -> None:
    """Does nothing."""
