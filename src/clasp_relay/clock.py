"""The core's clock: the machine's Unix time, which here never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.core.ports import Timer

CHECK_INTERVAL_S = 1.0
"""Interval between two checks for a step of the machine's clock, in seconds, while calls wait for longer than that."""

STEP_S = 0.5
"""Minimum size of a step in seconds; less than that is a late reactor."""


class ReactorClock:
    """Implements ``core.ports.Clock``.

    When the machine's clock is set back, time goes on at half its pace until the machine has caught up; it neither
    jumps nor stands still, so that orders and intervals hold.

    Args:
        reactor: makes calls later.
        wall_s: the machine's Unix time, in seconds.
        monotonic_s: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._last_us = int(wall_s() * 1e6)
        self._long: dict[_LongTimer, None] = {}
        self._check: IDelayedCall | None = None
        self._checked = (0, 0.0)
        self._is_stopped = False
        self._ahead_since: tuple[int, float] | None = None
        """The last time before the machine's clock was set back, and the monotonic time when that was noticed."""

    def now_us(self) -> int:
        """Returns the Unix time in µs."""
        now_us = int(self._wall_s() * 1e6)
        if now_us < self._last_us:
            now_us = self._while_ahead_us()
        elif self._ahead_since is not None:
            self._ahead_since = None
        self._last_us = now_us
        return now_us

    def _while_ahead_us(self) -> int:
        """Returns the time while the machine's clock is behind the relay's."""
        monotonic_s = self._monotonic_s()
        if self._ahead_since is None:
            self._ahead_since = (self._last_us, monotonic_s)
        last_us, since_s = self._ahead_since
        return last_us + int((monotonic_s - since_s) * 5e5)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Makes ``call`` in ``delay_s`` seconds, or earlier when the machine's clock is set forward beyond that time.

        After ``stop`` nothing is called.
        """
        if delay_s <= CHECK_INTERVAL_S or self._is_stopped:
            return self._reactor.callLater(delay_s, self._make, call)
        timer = _LongTimer(self._long, self.now_us() + int(delay_s * 1e6), call)
        timer.start(self._reactor, delay_s)
        if self._check is None:
            self._schedule_check()
        return timer

    def stop(self) -> None:
        """Makes no more calls, those that wait included."""
        self._is_stopped = True
        for timer in list(self._long):
            timer.cancel()
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _make(self, call: Callable[[], None]) -> None:
        if not self._is_stopped:
            call()

    def _schedule_check(self) -> None:
        self._checked = (self.now_us(), self._reactor.seconds())
        self._check = self._reactor.callLater(CHECK_INTERVAL_S, self._look_for_a_step)

    def _look_for_a_step(self) -> None:
        """Makes the calls that are due because the machine's clock was set forward."""
        before_us, before_s = self._checked
        now_us = self.now_us()
        if now_us - before_us > (self._reactor.seconds() - before_s + STEP_S) * 1e6:
            for timer in sorted((each for each in self._long if each.due_us <= now_us), key=lambda each: each.due_us):
                timer.make_now()
        self._check = None
        if self._long:
            self._schedule_check()


class _LongTimer:
    """A call that is made earlier if the machine's clock is set forward.

    Args:
        waiting: the waiting calls; it is one of them until it is made or cancelled.
        due_us: when it is due, in the relay's Unix time in µs.
        call: the call.
    """

    __slots__ = ("_call", "_delayed", "_waiting", "due_us")

    def __init__(self, waiting: dict[_LongTimer, None], due_us: int, call: Callable[[], None]) -> None:
        self.due_us = due_us
        self._waiting = waiting
        self._call = call
        self._delayed: IDelayedCall | None = None

    def start(self, reactor: IReactorTime, delay_s: float) -> None:
        """Begins to wait."""
        self._waiting[self] = None
        self._delayed = reactor.callLater(delay_s, self._make)

    def make_now(self) -> None:
        """Makes the call in the next turn."""
        if self._delayed is not None:
            self._delayed.reset(0)

    def cancel(self) -> None:
        """Forgets the call, unless it is forgotten or made already."""
        if self._waiting.pop(self, self) is None and self._delayed is not None:
            self._delayed.cancel()

    def _make(self) -> None:
        del self._waiting[self]
        # The reactor's call holds this timer, also afterwards: they would be a reference cycle.
        self._delayed = None
        self._call()


def steady_timers(reactor: Any, monotonic_s: Callable[[], float] = time.monotonic) -> None:
    """Makes a reactor's timers use a monotonic clock.

    Twisted's timers use the machine's clock. When that is set back by a day, no timer fires for a day: tokens stay
    valid, dead connections stay open, nothing is saved. Timers that wait already keep their remaining time.

    Args:
        reactor: one whose time is its attribute ``seconds``, as in all of Twisted's reactors.
        monotonic_s: a monotonic clock, in seconds.
    """
    if reactor.seconds is monotonic_s:
        return
    ahead_s = reactor.seconds() - monotonic_s()
    reactor.seconds = lambda: monotonic_s() + ahead_s
