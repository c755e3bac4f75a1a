"""The relay: takes what sessions send, decides, and tells those who are to know.

It sees no socket. ``net`` gives it one binary WebSocket message at a time (:meth:`Relay.receive`) and each
session's way out; time comes from a clock that it was given. One thread decides: a change is applied and
put into every queue in one step, so no update can overtake another or a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clasp_relay.core.fanout.catch_ups import Opening
from clasp_relay.core.fanout.gestures import Gestures
from clasp_relay.core.fanout.recipients import Deliveries
from clasp_relay.core.fanout.subscriptions import Subscription, SubscriptionTable
from clasp_relay.core.fanout.throttles import Throttles
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.observer import Counts, Observer, Unwatched
from clasp_relay.core.ports import Clock, FanOut, Frame, Outbox
from clasp_relay.core.publishing import Publishing
from clasp_relay.core.rights.port import OpenPermissions, Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session import legality
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.core.session.schedule import Schedule
from clasp_relay.core.session.sessions import Session, SessionState
from clasp_relay.core.session.table import SessionTable
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.signals import Signals
from clasp_relay.core.writing import Writing
from clasp_relay.errors import CloseCode, DecodeError, Disconnect, ErrorCode, RequestError
from clasp_relay.wire.codec import decode, decode_usual, encode_to_frame
from clasp_relay.wire.constants import MessageCode
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import Bundle, Error, Message, Publish

# Looked up for every message.
_LIVE, _CLOSED, _ALLOWED_LIVE = SessionState.LIVE, SessionState.CLOSED, legality.ALLOWED_LIVE

MAX_BAD_FRAMES = 100
"""So many undecodable frames within ``BAD_FRAMES_US`` end a session: its client does not speak CLASP."""

BAD_FRAMES_US = 10_000_000

MAX_NAMED_ADDRESS = 8_192
"""An ERROR names no longer address: with its text it would not fit into a frame."""


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """What the relay is told about itself.

    Args:
        name: the server name in WELCOME.
        params: how much may be set.
        message_rate: messages a second and burst of each session, or None for no limit.
    """

    name: str = "CLASP Relay"
    params: ParamLimits = field(default_factory=ParamLimits)
    message_rate: tuple[float, float] | None = None


class Relay:
    """All state of one relay, and the one gate that every message passes.

    Args:
        options: what it is told about itself.
        clock: when is now, and who calls later.
        new_id: makes session ids (UUID4, lower case).
        fan_out: the way out to many sessions.
        report_fault: told of every exception that is a fault of ours, with a sentence about what was being done.
        permissions: who may do and see what.
        observer: is told what happens.
    """

    def __init__(
        self,
        options: RelayOptions,
        clock: Clock,
        new_id: Callable[[], str],
        fan_out: FanOut,
        report_fault: Callable[[str, Exception], None],
        permissions: Permissions | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.options = options
        self.observer: Observer = observer or Unwatched()
        self.counts = Counts()
        self.clock = clock
        self.permissions: Permissions = permissions or OpenPermissions()
        self.sessions = SessionTable()
        self.params = Params(options.params)
        self.subscriptions = SubscriptionTable()
        self.throttles = Throttles(clock)
        self.visibility = Visibility(self.permissions, self.params, clock)
        self.deliveries = Deliveries(self.subscriptions, fan_out, self.throttles, self.visibility, self.permissions)
        opening = Opening(
            self.permissions, self.visibility, self.params, self.subscriptions, self.sessions, self.counts
        )
        self.signals = Signals()
        self.gestures = Gestures(clock, self._deliver_gesture)
        self.writing = Writing(self.params, self.deliveries, self.visibility, opening, self.permissions, clock)
        self.publishing = Publishing(self.sessions, self.deliveries, self.gestures, self.permissions)
        self.schedule = Schedule(clock, self._run_due)
        self._new_id = new_id
        self._report_fault = report_fault

    def connect(self, outbox: Outbox, peer: str) -> Session:
        """Begins a session; it must say HELLO before anything else."""
        return Session(self._new_id(), outbox, peer, self.clock.now_us())

    def disconnect(self, session: Session, cause: str = "the connection ended") -> None:
        """Ends a session and forgets all that hung on it; params and scheduled bundles stay. May be repeated.

        Args:
            session: which.
            cause: why, for people; of several calls the first one says it.
        """
        if session.state is SessionState.CLOSED:
            return
        session.state = SessionState.CLOSED
        self.sessions.discard(session)
        for subscription in session.subscriptions.values():
            self.subscriptions.remove(subscription)
        session.subscriptions.clear()
        self.throttles.forget(session)
        self.gestures.forget(session)
        self.params.release_all(session.id)
        for address in self.params.holds.forget(session):
            self.visibility.hold_ended(address)
        self.observer.ended(session, cause)

    def receive(self, session: Session, data: bytes) -> None:
        """Handles one binary WebSocket message of a session. Never raises.

        Args:
            session: whose it is.
            data: the message.
        """
        if session.state is _CLOSED:
            return
        if self.observer.traces:
            self.observer.frame(session, data)
        try:
            message: Message | None = decode_usual(data)
            if message is not None:
                qos = data[1] >> 6
            else:
                frame = decode_frame(data)
                message = decode(frame.payload)
                # Who announces in binary waits for an ACK, whatever the QoS.
                qos = frame.qos or frame.payload[0] == MessageCode.ANNOUNCE
            kind = type(message)
            self.counts.received[kind] += 1
            session.received += 1
            if session.state is not _LIVE or kind not in _ALLOWED_LIVE:
                legality.check(session.state, message)
            if session.limiter is None or self._within_limit(session, message):
                if self.observer.watches:
                    self.observer.operation(session, message)
                HANDLERS[kind](self, session, message, qos)
        except RequestError as refusal:
            self._refuse(session, refusal)
        except Disconnect as end:
            self.end(session, end)
        except Exception as fault:
            self._report_fault(f"a message of session {session.id}", fault)
            self._refuse(session, RequestError(ErrorCode.INTERNAL, "internal error"))

    def dispatch(self, session: Session, message: Message, qos: int) -> None:
        """Handles a message that passed the gate before."""
        HANDLERS[type(message)](self, session, message, qos)

    def answer(self, session: Session, frame: Frame) -> None:
        """Sends an answer, behind an ERROR that the session is still owed."""
        if session.limiter is not None:
            self._pay_error(session)
        self.counts.sent[frame.data[4]] += 1
        session.outbox.send(frame)

    def snapshot(self, session: Session, key: object, frames: Iterator[bytes]) -> None:
        """Sends a SNAPSHOT, behind an ERROR that the session is still owed; see ``Outbox.send_snapshot``."""
        self._pay_error(session)
        self.counts.sent[MessageCode.SNAPSHOT] += 1
        session.outbox.send_snapshot(key, frames)

    def _new_limiter(self) -> Limiter | None:
        if self.options.message_rate is None:
            return None
        per_second, burst = self.options.message_rate
        return Limiter(per_second, burst, self.clock.now_us())

    def end(self, session: Session, reason: Disconnect) -> None:
        """Ends a session with an ERROR, where the reason has a code, and a WebSocket close."""
        if reason.code is not None:
            self._send_error(session, reason.code, reason.reason, None)
        session.outbox.close(reason.close_code, reason.reason)
        self.disconnect(session, reason.reason)

    def admit(self, session: Session) -> None:
        """Makes a session live, as whom its token said."""
        session.limiter = self._new_limiter()
        session.state = SessionState.LIVE
        session.hello_us = self.clock.now_us()
        self.counts.began += 1
        self.sessions.add(session)

    def end_token(self, subject: str, token: bytes, reason: Disconnect) -> None:
        """Ends the sessions of a token that is valid no longer.

        Args:
            subject: whose it is.
            token: what it is known by (``Identity.token``).
            reason: what its sessions are told.
        """
        for session in self.sessions.of_token(subject, token):
            self.end(session, reason)

    def sweep(self) -> None:
        """Ends what has lived long enough: params, gestures, signals. To be called twice a second."""
        self.writing.expire()
        self.gestures.sweep()
        self.signals.sweep(self.clock.now_us())

    def subscribe(self, session: Session, subscription: Subscription) -> None:
        """Adds a subscription to a session, in the place of one with the same id."""
        self.throttles.begin(session, subscription)
        self.unsubscribe(session, subscription.id)
        session.subscriptions[subscription.id] = subscription
        self.subscriptions.add(subscription)

    def unsubscribe(self, session: Session, subscription_id: int) -> None:
        """Ends a subscription; an unknown id is ignored."""
        subscription = session.subscriptions.pop(subscription_id, None)
        if subscription is not None:
            self.subscriptions.remove(subscription)
            self.throttles.end(session, subscription)

    def _pay_error(self, session: Session) -> None:
        """Sends the ERROR that was held back, so that a client that asks afterwards knows."""
        if session.limiter is not None and session.limiter.owes_error:
            session.limiter.settle(self.clock.now_us())
            self._send_error(session, ErrorCode.LIMIT, "too many messages; some were dropped", None)

    def _within_limit(self, session: Session, message: Message) -> bool:
        limiter = session.limiter
        assert limiter is not None, "asked for the limit of a session without one"
        now_us = self.clock.now_us()
        cost = max(1, len(message.messages)) if isinstance(message, Bundle) else 1
        if limiter.take(cost, now_us):
            return True
        self.counts.limited += 1
        self.observer.limited(session)
        if limiter.may_send_error(now_us):
            self._send_error(session, ErrorCode.LIMIT, "too many messages; this one was dropped", None)
        return False

    def _refuse(self, session: Session, refusal: RequestError) -> None:
        if session.state is SessionState.CLOSED:
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
        if address is not None and len(address) > MAX_NAMED_ADDRESS:
            address = None
        self.counts.errors[code] += 1
        session.errors += 1
        session.outbox.send(Frame(encode_to_frame(Error(code, text, address))))

    def _deliver_gesture(self, session: Session, message: Publish) -> None:
        self.publishing.deliver(session, message)

    def _run_due(self, session: Session, bundle: Bundle) -> None:
        if not self.permissions.is_current(session.identity):
            return
        try:
            self.dispatch(session, bundle, 0)
        except RequestError as refusal:
            self._refuse(session, refusal)
        except Exception as fault:
            self._report_fault(f"a scheduled bundle of session {session.id}", fault)
            self._refuse(session, RequestError(ErrorCode.INTERNAL, "internal error"))
