"""Coalesces gesture moves: of those with the same address and id, the latest one is sent every 16 ms.

Starts, ends and cancels are always sent, after the last move (``docs/protocol.md``, Gestures).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from clasp_relay.core.fanout.throttles import HELD_BYTES, message_bytes
from clasp_relay.core.ports import Clock, Timer
from clasp_relay.core.records import text_bytes
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import Session
from clasp_relay.wire.constants import Phase
from clasp_relay.wire.messages import Publish

MOVE_INTERVAL_US = 16_000
"""One frame of a 60 Hz display: a surface that moves faster cannot be shown faster."""

FORGET_US = 300_000_000
"""A gesture that nobody ended is forgotten after 5 minutes without a move."""

MAX_OPEN = 1_000
"""Open gestures of one session; beyond it the one that moved longest ago is forgotten."""

FORGOTTEN_AT_ONCE = 500
"""Gestures that one sweep forgets, about a millisecond of work. Many may have begun at the same time."""

GESTURE_BYTES = 300
"""Memory of a gesture in bytes, without its address."""

Deliver: TypeAlias = Callable[[Session, Publish], None]

_Key: TypeAlias = tuple[str, int | None]


class _Gesture:
    __slots__ = ("held", "held_bytes", "moved_us", "timer")

    def __init__(self, moved_us: int) -> None:
        self.moved_us = moved_us
        self.held: Publish | None = None
        self.held_bytes = 0
        """The bytes that are counted for the held move."""
        self.timer: Timer | None = None


class Gestures:
    """The gestures under way, by session, address and id.

    Args:
        clock: the current time and timers.
        deliver: sends one message to its subscribers.
    """

    def __init__(self, clock: Clock, deliver: Deliver) -> None:
        self._clock = clock
        self._deliver = deliver
        self._sessions: dict[Session, OrderedDict[_Key, _Gesture]] = {}
        self.replaced = 0
        """Moves that a newer one replaced before they were sent."""

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def pass_on(self, session: Session, message: Publish) -> None:
        """Sends a gesture's message now; a move perhaps later, or never."""
        if message.phase is Phase.MOVE:
            self._move(session, message)
            return
        gestures = self._sessions.get(session)
        gesture = None if gestures is None else gestures.get((message.address, message.id))
        if gesture is not None:
            self._flush(session, gesture)
            if message.phase is not Phase.START:
                self._remove(session, (message.address, message.id))
        self._deliver(session, message)

    def forget(self, session: Session) -> None:
        """Drops the gestures of a session that has ended."""
        for key in list(self._sessions.get(session, ())):
            self._remove(session, key)

    def sweep(self) -> None:
        """Forgets gestures that were not ended for too long, a bounded number in one call."""
        limit_us = self._clock.now_us() - FORGET_US
        left = FORGOTTEN_AT_ONCE
        for session, gestures in list(self._sessions.items()):
            while gestures:
                key, gesture = next(iter(gestures.items()))
                if gesture.moved_us > limit_us:
                    break
                if not left:
                    return
                left -= 1
                self._remove(session, key)

    def _move(self, session: Session, message: Publish) -> None:
        if not session.is_live:
            # A scheduled bundle may run after its session has ended; then nothing may be kept for that session.
            self._deliver(session, message)
            return
        now_us = self._clock.now_us()
        gestures = self._sessions.setdefault(session, OrderedDict())
        key = (message.address, message.id)
        gesture = gestures.get(key)
        if gesture is None:
            gestures[key] = _Gesture(now_us)
            session.account.add(MemoryKind.GESTURES, _key_bytes(key))
            self._deliver(session, message)
            if len(gestures) > MAX_OPEN or session.account.is_over:
                self._forget_oldest(session, gestures)
            return
        if gesture.timer is not None:
            _hold(session, gesture, message)
            self.replaced += 1
            return
        gestures.move_to_end(key)
        wait_us = gesture.moved_us + MOVE_INTERVAL_US - now_us
        if wait_us <= 0:
            gesture.moved_us = now_us
            self._deliver(session, message)
            return
        _hold(session, gesture, message)
        gesture.timer = self._clock.call_later(wait_us / 1e6, lambda: self._due(session, gesture))
        if session.account.is_over:
            self._forget_oldest(session, gestures)

    def _forget_oldest(self, session: Session, gestures: OrderedDict[_Key, _Gesture]) -> None:
        oldest = next(iter(gestures))
        self._flush(session, gestures[oldest])
        self._remove(session, oldest)

    def _due(self, session: Session, gesture: _Gesture) -> None:
        gesture.timer = None
        self._flush(session, gesture)

    def _flush(self, session: Session, gesture: _Gesture) -> None:
        message = gesture.held
        _cancel(session, gesture)
        if message is not None:
            gesture.moved_us = self._clock.now_us()
            self._deliver(session, message)

    def _remove(self, session: Session, key: _Key) -> None:
        gestures = self._sessions[session]
        _cancel(session, gestures.pop(key))
        session.account.add(MemoryKind.GESTURES, -_key_bytes(key))
        if not gestures:
            del self._sessions[session]


def _hold(session: Session, gesture: _Gesture, message: Publish) -> None:
    size_bytes = HELD_BYTES + message_bytes(message)
    session.account.add(MemoryKind.GESTURES, size_bytes - gesture.held_bytes)
    gesture.held, gesture.held_bytes = message, size_bytes


def _cancel(session: Session, gesture: _Gesture) -> None:
    timer, gesture.timer = gesture.timer, None
    if timer is not None:
        timer.cancel()
    if gesture.held_bytes:
        session.account.add(MemoryKind.GESTURES, -gesture.held_bytes)
    gesture.held, gesture.held_bytes = None, 0


def _key_bytes(key: _Key) -> int:
    return GESTURE_BYTES + text_bytes(key[0])
