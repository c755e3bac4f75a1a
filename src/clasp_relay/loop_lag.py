"""How late the event loop is: the time for which somebody else's turn held up what was due."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["BOUNDS_S", "LoopLag"]

INTERVAL_S = 0.25
"""How often it is measured: 4 calls a second cost nothing and find every turn that matters to people."""

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The upper bounds of the histogram's buckets; what is later than the last one is in one of its own."""


class LoopLag(Service):
    """Measures while it runs.

    Args:
        clock: makes calls when they are due, or later; the reactor.
        monotonic: seconds.
    """

    def __init__(self, clock: IReactorTime, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._due_s = 0.0
        self._call: IDelayedCall | None = None
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """How many measurements there were in each bucket."""
        self.sum_s = 0.0
        """The sum of all lags."""

    def startService(self) -> None:
        """Begins to measure."""
        Service.startService(self)
        self._schedule()

    def stopService(self) -> None:
        """Ends the measuring; what was measured stays."""
        Service.stopService(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due_s = self._monotonic() + INTERVAL_S
        self._call = self._clock.callLater(INTERVAL_S, self._measure)

    def _measure(self) -> None:
        lag_s = max(0.0, self._monotonic() - self._due_s)
        self.counts[bisect_left(BOUNDS_S, lag_s)] += 1
        self.sum_s += lag_s
        self._schedule()
