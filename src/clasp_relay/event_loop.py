"""The event loop: measures its lag, and keeps garbage collections short."""

from __future__ import annotations

import gc
import math
import select
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Connection

__all__ = ["BOUNDS_S", "LoopLag", "choose_reactor", "freeze_survivors", "keep_collections_short"]

INTERVAL_S = 0.25
"""Interval between two measurements: 4 calls per second cost nothing and find every turn that people notice."""

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper bounds of the histogram's buckets; a last bucket has no bound."""

THRESHOLDS = (700, 3, 1)
"""gc thresholds: generation 0 every 700 allocations (Python's own), generation 1 every 4 collections of generation 0,
generation 2 every 2 collections of generation 1: one looks at about 6,000 objects, which takes it a millisecond."""

WHOLE_INTERVAL_S = 600
"""Interval between two checks whether a collection of everything is due."""

MAX_WHOLE_S = 0.005
"""The longest that one may take while somebody is connected, estimated from the fastest so far: about 60,000 objects.
Where there are more, as in a relay with accounts, it is done only while nobody is connected. The estimate is short:
among busy attackers one of 8 ms took 11 (``make soak``)."""


def choose_reactor() -> None:
    """Installs the relay's own reactor for this process, with short garbage collections.

    Does nothing where a reactor is there already: the one that ``twistd --reactor`` names, or that of a program that
    embeds the relay.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    if hasattr(select, "epoll"):
        from clasp_relay.net.reactor import install  # noqa: PLC0415  it is Linux only

        install()
    from twisted.internet import reactor  # noqa: PLC0415  installed above, or Twisted's choice

    reactor.callWhenRunning(keep_collections_short, reactor)


def keep_collections_short(reactor: Any) -> None:
    """Sets the garbage collector's thresholds, for a process that is a relay; called once the state is loaded.

    Python's own pace scans all living objects each time that a quarter of them are new, and every SET makes a new
    param: of 200,000 params that takes 26 ms (``docs/performance.md``). Here no collection looks at more than
    some thousand objects: what has survived one of generation 2 is frozen, as is what is loaded now.

    A cycle of frozen objects is not found until everything is looked at: every ten minutes, where that is short or
    nobody is connected. So whatever lives long must leave none: ``tests/integration/test_memory.py`` looks at
    connections of every kind.

    Args:
        reactor: tells the time, and who is connected.
    """
    gc.callbacks.append(freeze_survivors)
    whole = _WholeCollections(reactor)
    whole.collect()
    gc.set_threshold(*THRESHOLDS)
    looking = LoopingCall(whole.look)
    looking.clock = reactor
    looking.start(WHOLE_INTERVAL_S, now=False)


def freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """Freezes what a collection of generation 2 has left; see ``gc.callbacks``."""
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


class _WholeCollections:
    """Runs full garbage collections, of frozen objects too.

    Args:
        reactor: tells who is connected.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._per_object_s = math.inf
        """The shortest time that one took, per object that was left."""

    def collect(self) -> None:
        """Runs a full collection."""
        began_s = time.thread_time()
        gc.unfreeze()
        gc.collect()  # ``freeze_survivors`` freezes what is left
        took_s = time.thread_time() - began_s
        self._per_object_s = min(self._per_object_s, took_s / max(1, gc.get_freeze_count()))
        # Python waits until a quarter is new of what the last full collection has left: of nothing, from now on.
        gc.collect()

    def look(self) -> None:
        """Runs a full collection if it is short, or if nobody is connected."""
        if self._per_object_s * gc.get_freeze_count() <= MAX_WHOLE_S or not self._is_anybody_connected:
            self.collect()

    @property
    def _is_anybody_connected(self) -> bool:
        reactor = self._reactor
        return any(isinstance(each, Connection) for each in (*reactor.getReaders(), *reactor.getWriters()))


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
