"""Applies maxRate and epsilon: such a subscription gets fewer updates, but always the last one.

The last value sent is kept per session, signal and address, not per subscription: the client applies a value to all of
them. A held value is kept as a message, and encoded when it is sent, as its session may see it then. The values that
one message leaves held for hundreds of sessions are due at the same time, so they are sent in pieces (``core.work``).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from clasp_relay.core.ports import Clock, Frame, Timer
from clasp_relay.core.records import text_bytes
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.core.work import Pieces, Work
from clasp_relay.wire.constants import Signal, ValueType
from clasp_relay.wire.messages import Publish, Set, Value
from clasp_relay.wire.values import decode_value

MAX_ADDRESSES = 10_000
"""Addresses that are remembered per session; beyond it the least recently updated one is forgotten."""

THROTTLE_BYTES = 350
"""Memory of a remembered address in bytes, without its text."""

HELD_BYTES = 1_100
"""Memory of a held message in bytes, without its texts and its value; most of it is the timer."""

LOOKED_AT_ONCE = 256
"""Addresses with which a new subscription is compared in one step. If a session has more, all of them are forgotten."""

FORGOTTEN_AT_ONCE, FORGET_US = 64, 4
"""Addresses that are forgotten in one piece, and the estimated cost in µs of forgetting one."""

RELEASE_US = 50
"""Estimated cost in µs of sending a held message."""

_NUMERIC = frozenset({ValueType.I8, ValueType.I16, ValueType.I32, ValueType.I64, ValueType.F32, ValueType.F64})


class _Fired:
    """Stands for the timer of a held message that is due and waits for its piece of work."""

    def cancel(self) -> None:
        """Does nothing: there is no call to cancel."""


_FIRED = _Fired()


ViewNow: TypeAlias = Callable[[Session, tuple[Subscription, ...], Set | Publish], Frame | None]
"""Encodes a message as a session may see it now, by some of its subscriptions; None if it may not."""


class _Throttle:
    """What one session was last sent at one address, and what is held for it there."""

    __slots__ = ("due_us", "held", "held_bytes", "held_for", "held_number", "number", "sent_us", "timer")

    def __init__(self) -> None:
        self.sent_us: int | None = None
        self.number: float | None = None
        self.held: Set | Publish | None = None
        self.held_bytes = 0
        """The bytes that are counted for the held message."""
        self.held_number: float | None = None
        self.held_for: tuple[Subscription, ...] = ()
        self.due_us = 0
        self.timer: Timer | None = None


_Table: TypeAlias = "OrderedDict[tuple[Signal, str], _Throttle]"


class Throttles:
    """What is remembered and held for maxRate and epsilon, for all sessions.

    Args:
        clock: the current time and timers.
        work: runs long work in pieces.
        view_now: encodes a held message as its session may see it now.
    """

    def __init__(self, clock: Clock, work: Work, view_now: ViewNow) -> None:
        self._clock = clock
        self._work = work
        self._view_now = view_now
        self._sessions: dict[Session, _Table] = {}
        self._crowded: set[Session] = set()
        """Sessions over their memory limit for which held messages are being sent to free some."""
        self.sent = 0
        """Frames that were sent, at once or later."""
        self.replaced = 0
        """Messages held for maxRate that a newer one replaced."""
        self.skipped = 0
        """Frames left out for epsilon."""

    def offer(
        self,
        session: Session,
        signal: Signal,
        subscriptions: tuple[Subscription, ...],
        message: Set | Publish,
        frame: Frame,
    ) -> None:
        """Sends a message now, later, or not at all.

        Args:
            session: the recipient.
            signal: the kind of signal.
            subscriptions: all matching subscriptions of the session; the message is sent as soon as one of them allows
                it.
            message: the message with its full value.
            frame: the message as the session may see it now.
        """
        throttle = self._throttle(session, (signal, message.address))
        number = _number(message.value)
        dues_us = [_due_us(throttle, one.max_rate) for one in subscriptions if _is_news(throttle, one.epsilon, number)]
        if not dues_us and throttle.timer is None:
            self.skipped += 1
            return
        self.replaced += throttle.timer is not None
        now_us = self._clock.now_us()
        due_us = min(dues_us, default=throttle.due_us)
        if due_us <= now_us:
            _cancel(session, throttle)
            self._send(session, throttle, frame, number, now_us)
            return
        if throttle.timer is None or due_us < throttle.due_us:
            _cancel(session, throttle)
            throttle.due_us = due_us
            throttle.timer = self._clock.call_later((due_us - now_us) / 1e6, lambda: self._is_due(session, throttle))
        throttle.held_number, throttle.held_for = number, subscriptions
        _hold(session, throttle, message)
        if session.account.is_over and session not in self._crowded:
            self._crowded.add(session)
            self._work.add((Throttles, session), self._make_room(session))

    def begin(self, session: Session, subscription: Subscription) -> None:
        """Sends at once what is held where a new subscription matches, and forgets what was sent there.

        The new subscription may get values without delay, and no older one may follow these. And once the client gets a
        SNAPSHOT, the last value sent is no longer the last one that it has seen.
        """
        throttles = self._sessions.get(session)
        if throttles is None:
            return
        if len(throttles) > LOOKED_AT_ONCE:
            del self._sessions[session]
            self._work.add((Throttles, session), self._flush_all(session, throttles))
            return
        for key in list(throttles):
            signal, address = key
            if subscription.wants(signal) and subscription.pattern.matches(address):
                self._flush(session, _pop(session, throttles, key))
        if not throttles:
            del self._sessions[session]

    def end(self, session: Session, subscription: Subscription) -> None:
        """Drops what is held for a subscription that has ended, and for no other."""
        if not subscription.is_throttled:
            return
        if not any(one.is_throttled for one in session.subscriptions.values()):
            self.forget(session)
            return
        throttles = self._sessions.get(session)
        if throttles is None:
            return
        for key, throttle in list(throttles.items()):
            if throttle.timer is not None and subscription in throttle.held_for:
                throttle.held_for = tuple(one for one in throttle.held_for if one is not subscription)
                if not throttle.held_for:
                    _cancel(session, _pop(session, throttles, key))

    def forget_param(self, session: Session, address: str) -> None:
        """Drops the held value of a param, since its session gets a SNAPSHOT of the current one."""
        throttles = self._sessions.get(session)
        key = (Signal.PARAM, address)
        if throttles is not None and key in throttles:
            _cancel(session, _pop(session, throttles, key))

    def forget(self, session: Session) -> None:
        """Drops all that is held for a session."""
        throttles = self._sessions.pop(session, None)
        if throttles is None:
            return
        pieces = _forget_all(session, throttles)
        if len(throttles) > FORGOTTEN_AT_ONCE:
            self._work.add((Throttles, session), pieces)
        else:
            for _ in pieces:
                """Few enough to be done at once."""

    def _throttle(self, session: Session, key: tuple[Signal, str]) -> _Throttle:
        throttles = self._sessions.setdefault(session, OrderedDict())
        throttle = throttles.get(key)
        if throttle is None:
            throttle = throttles[key] = _Throttle()
            session.account.add(MemoryKind.THROTTLES, _key_bytes(key))
            if len(throttles) > MAX_ADDRESSES:
                self._evict(session, throttles)
        throttles.move_to_end(key)
        return throttle

    def _make_room(self, session: Session) -> Pieces:
        """Forgets the least recently updated address, and sends at once what is held there."""
        try:
            while session.account.is_over and (throttles := self._sessions.get(session)):
                self._evict(session, throttles)
                yield RELEASE_US
        finally:
            self._crowded.discard(session)

    def _flush_all(self, session: Session, throttles: _Table) -> Pieces:
        """Sends what is held in a table that was replaced, except what is older than a later message."""
        while throttles:
            for _ in range(min(len(throttles), FORGOTTEN_AT_ONCE)):
                key, throttle = throttles.popitem(last=False)
                session.account.add(MemoryKind.THROTTLES, -_key_bytes(key))
                if throttle.timer is None:
                    continue
                if key in self._sessions.get(session, ()):
                    _cancel(session, throttle)
                else:
                    self._flush(session, throttle)
                    yield RELEASE_US
            yield FORGOTTEN_AT_ONCE * FORGET_US

    def _is_due(self, session: Session, throttle: _Throttle) -> None:
        """Adds the sending of a held message to the work."""
        throttle.timer = _FIRED
        self._work.add((Throttles, session), self._release_due(session, throttle))

    def _release_due(self, session: Session, throttle: _Throttle) -> Pieces:
        # A newer message may have replaced it meanwhile, which is due later.
        if throttle.timer is not None and throttle.due_us <= self._clock.now_us():
            self._release(session, throttle)
            yield RELEASE_US

    def _evict(self, session: Session, throttles: _Table) -> None:
        oldest = next(iter(throttles))
        self._flush(session, _pop(session, throttles, oldest))

    def _flush(self, session: Session, throttle: _Throttle) -> None:
        if throttle.timer is not None:
            throttle.timer.cancel()
            self._release(session, throttle)

    def _release(self, session: Session, throttle: _Throttle) -> None:
        throttle.timer = None
        message = throttle.held
        _let_go(session, throttle)
        assert message is not None, "a throttle's timer without a message"
        frame = self._view_now(session, throttle.held_for, message)
        if frame is not None:
            self._send(session, throttle, frame, throttle.held_number, self._clock.now_us())

    def _send(self, session: Session, throttle: _Throttle, frame: Frame, number: float | None, now_us: int) -> None:
        throttle.sent_us = now_us
        throttle.number = number
        self.sent += 1
        session.outbox.send(frame)


def _forget_all(session: Session, throttles: _Table) -> Pieces:
    """Drops what is held in a table that was replaced."""
    while throttles:
        for _ in range(min(len(throttles), FORGOTTEN_AT_ONCE)):
            _cancel(session, _pop(session, throttles, next(iter(throttles))))
        yield FORGOTTEN_AT_ONCE * FORGET_US


def _cancel(session: Session, throttle: _Throttle) -> None:
    if throttle.timer is not None:
        throttle.timer.cancel()
        throttle.timer = None
        _let_go(session, throttle)


def _hold(session: Session, throttle: _Throttle, message: Set | Publish) -> None:
    size_bytes = HELD_BYTES + message_bytes(message)
    session.account.add(MemoryKind.THROTTLES, size_bytes - throttle.held_bytes)
    throttle.held, throttle.held_bytes = message, size_bytes


def _let_go(session: Session, throttle: _Throttle) -> None:
    session.account.add(MemoryKind.THROTTLES, -throttle.held_bytes)
    throttle.held, throttle.held_bytes = None, 0


def _pop(session: Session, throttles: _Table, key: tuple[Signal, str]) -> _Throttle:
    """Forgets an address; what is held of it stays counted until it is sent or dropped."""
    session.account.add(MemoryKind.THROTTLES, -_key_bytes(key))
    return throttles.pop(key)


def _key_bytes(key: tuple[Signal, str]) -> int:
    return THROTTLE_BYTES + text_bytes(key[1])


def message_bytes(message: Set | Publish) -> int:
    """Returns the bytes of the texts and values of a message."""
    size_bytes = text_bytes(message.address) + len(message.value or b"")
    return size_bytes + len(message.samples or b"") if isinstance(message, Publish) else size_bytes


def _number(value: Value | None) -> float | None:
    """Returns a numeric value; an integer as it is, since large integers lose precision as a float."""
    if value is None or value[0] not in _NUMERIC:
        return None
    number: float = decode_value(value)
    return number


def _is_news(throttle: _Throttle, epsilon: float | None, number: float | None) -> bool:
    if epsilon is None or number is None or throttle.number is None:
        return True
    change = abs(number - throttle.number)
    return math.isnan(change) or change >= epsilon


def _due_us(throttle: _Throttle, max_rate: int | None) -> int:
    """Returns when the next message may be sent; rounded up, so that no second has more than ``max_rate``."""
    if max_rate is None or throttle.sent_us is None:
        return 0
    return throttle.sent_us - (-1_000_000 // max_rate)
