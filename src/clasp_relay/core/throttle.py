"""maxRate and epsilon: a session that asked for fewer updates gets fewer, and the last one always.

What was sent last is kept per session, signal and address, not per subscription: the client applies a
value to all of them.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from clasp_relay.core.ports import Clock, Frame, Timer
from clasp_relay.core.sessions import Session
from clasp_relay.core.subscriptions import Subscription
from clasp_relay.wire.constants import Signal, ValueType
from clasp_relay.wire.messages import Value
from clasp_relay.wire.values import decode_value

MAX_ADDRESSES = 10_000
"""How many addresses are remembered per session; the one heard of longest ago starts anew."""

_NUMERIC = frozenset({ValueType.I8, ValueType.I16, ValueType.I32, ValueType.I64, ValueType.F32, ValueType.F64})


class _Throttle:
    """What one session last got at one address, and what is held back for it."""

    __slots__ = ("held", "held_number", "number", "sent_us", "timer")

    def __init__(self) -> None:
        self.sent_us: int | None = None
        self.number: float | None = None
        self.held: Frame | None = None
        self.held_number: float | None = None
        self.timer: Timer | None = None


class Throttles:
    """What maxRate and epsilon remember and hold back, for all sessions.

    Args:
        clock: when is now, and who calls later.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[Session, OrderedDict[tuple[Signal, str], _Throttle]] = {}

    def offer(
        self,
        session: Session,
        signal: Signal,
        address: str,
        subscriptions: tuple[Subscription, ...],
        frame: Frame,
        value: Value | None,
    ) -> None:
        """Sends a frame now, later, or not at all.

        Args:
            session: who may get it.
            signal: what kind it is.
            address: where it belongs.
            subscriptions: all of the session's that match; it goes out as soon as one of them lets it.
            frame: the frame.
            value: the value in it.
        """
        throttle = self._throttle(session, (signal, address))
        number = _number(value)
        if throttle.timer is not None:
            throttle.held, throttle.held_number = frame, number
            return
        wanting = [one for one in subscriptions if _is_news(throttle, one.epsilon, number)]
        if not wanting:
            return
        now_us = self._clock.now_us()
        wait_us = min(_wait_us(throttle, one.max_rate, now_us) for one in wanting)
        if wait_us <= 0:
            _send(session, throttle, frame, number, now_us)
            return
        throttle.held, throttle.held_number = frame, number
        throttle.timer = self._clock.call_later(wait_us / 1e6, lambda: self._release(session, throttle))

    def forget(self, session: Session, subscription: Subscription | None = None) -> None:
        """Drops what is held for a session: all of it, or what one subscription matches that ends now."""
        throttles = self._sessions.get(session)
        if throttles is None:
            return
        for key in list(throttles):
            if subscription is None or subscription.pattern.matches(key[1]):
                _cancel(throttles.pop(key))
        if not throttles:
            del self._sessions[session]

    def _throttle(self, session: Session, key: tuple[Signal, str]) -> _Throttle:
        throttles = self._sessions.setdefault(session, OrderedDict())
        throttle = throttles.get(key)
        if throttle is None:
            throttle = throttles[key] = _Throttle()
            if len(throttles) > MAX_ADDRESSES:
                self._evict(session, throttles)
        throttles.move_to_end(key)
        return throttle

    def _evict(self, session: Session, throttles: OrderedDict[tuple[Signal, str], _Throttle]) -> None:
        _, oldest = throttles.popitem(last=False)
        if oldest.timer is not None:
            oldest.timer.cancel()
            self._release(session, oldest)

    def _release(self, session: Session, throttle: _Throttle) -> None:
        throttle.timer = None
        frame, throttle.held = throttle.held, None
        assert frame is not None, "a throttle's timer without a frame"
        _send(session, throttle, frame, throttle.held_number, self._clock.now_us())


def _send(session: Session, throttle: _Throttle, frame: Frame, number: float | None, now_us: int) -> None:
    throttle.sent_us = now_us
    throttle.number = number
    session.outbox.send(frame)


def _cancel(throttle: _Throttle) -> None:
    if throttle.timer is not None:
        throttle.timer.cancel()
        throttle.timer = None


def _number(value: Value | None) -> float | None:
    if value is None or value[0] not in _NUMERIC:
        return None
    number = decode_value(value)
    assert isinstance(number, int | float), "a numeric type decodes to a number"
    return float(number)


def _is_news(throttle: _Throttle, epsilon: float | None, number: float | None) -> bool:
    if epsilon is None or number is None or throttle.number is None:
        return True
    change = abs(number - throttle.number)
    return math.isnan(change) or change >= epsilon


def _wait_us(throttle: _Throttle, max_rate: int | None, now_us: int) -> int:
    if max_rate is None or throttle.sent_us is None:
        return 0
    return throttle.sent_us + 1_000_000 // max_rate - now_us
