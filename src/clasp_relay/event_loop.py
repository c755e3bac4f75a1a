"""The event loop's turns: how late they are, and garbage collections that do not make them long."""

from __future__ import annotations

import gc
import time
from bisect import bisect_left
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

__all__ = ["BOUNDS_S", "LoopLag", "keep_collections_short"]

INTERVAL_S = 0.25
"""Interval between two measurements: 4 calls per second cost nothing and find every turn that people notice."""

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper bounds of the histogram's buckets; a last bucket has no bound."""

THRESHOLDS = (1_000, 5, 1_000_000)
"""gc thresholds: generation 0 every 1,000 allocations, generation 1 every 5 collections of generation 0, generation 2
never: it took up to 6 ms."""

FULL_INTERVAL_S = 600
"""Interval between two full collections of what was made since the start; with 100,000 params one takes 15 ms."""


def keep_collections_short(clock: IReactorTime) -> None:
    """Sets the pace of garbage collections, for a process that is a relay; to be called once the state is loaded.

    Neither a message nor a connection leaves a cycle; a request to the auth API leaves a few kB. Python's own pace
    scans all living objects each time that a quarter of them are new, and every SET makes a new param: of 200,000
    params that takes 26 ms (``docs/performance.md``). What is loaded now is not scanned again.

    Args:
        clock: tells the time; the reactor.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    collecting = LoopingCall(gc.collect)
    collecting.clock = clock
    collecting.start(FULL_INTERVAL_S, now=False)


class LoopLag(Service):
    """Measures how late the event loop makes a call that is due, while the service runs.

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
        """Number of measurements in each bucket."""
        self.sum_s = 0.0
        """Sum of all lags."""

    def startService(self) -> None:
        """Starts to measure."""
        Service.startService(self)
        self._schedule()

    def stopService(self) -> None:
        """Stops to measure; the counts stay."""
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
