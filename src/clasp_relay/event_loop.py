"""The event loop: measures its lag, and keeps garbage collections short."""

from __future__ import annotations

import gc
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

__all__ = ["BOUNDS_S", "Collections", "LoopLag", "choose_reactor", "keep_collections_short"]

INTERVAL_S = 0.25
"""Interval between two measurements in seconds: 4 calls per second cost nothing and find every turn that people
notice."""

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper bounds of the histogram's buckets in seconds; a last bucket has no bound."""

THRESHOLDS = (700, 3, 1)
"""gc thresholds: generation 0 every 700 allocations (Python's own), generation 1 every 4 collections of generation 0,
generation 2 every 2 collections of generation 1: one of these scans about 6,000 new objects, which takes a
millisecond."""

FROZEN_AT = 6_000
"""The survivors of generation 2 are frozen once there are so many: the next collection would scan them for a
millisecond. Fewer are scanned again, so that a request that ends soon is not frozen with its reference cycles."""

WHOLE_INTERVAL_S = 600
"""Interval between two checks whether a full collection can be run, in seconds."""

MAX_WHOLE_S = 0.005
"""Maximum duration of a full collection while a client is connected, in seconds, estimated from the slowest one so far:
at most some 100,000 objects. With more objects it runs only while no client is connected: the objects of a relay that
has run for long are scattered over the memory, where one takes up to three times as long as at the start."""


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


def keep_collections_short(reactor: Any) -> Collections:
    """Sets the garbage collector's thresholds, for a process that is a relay; called once the state is loaded.

    With its default thresholds Python scans all live objects each time that a quarter of them are new, and every SET
    makes a new param: with 200,000 params that takes 26 ms (``docs/performance.md``). Here no collection scans more
    than some thousand objects: what is loaded now is frozen, and later the survivors of generation 2 (``FROZEN_AT``).

    A reference cycle of frozen objects is found only by a full collection: every ten minutes, if that is short or no
    client is connected. So long-lived objects must leave no cycles; ``tests/integration/test_memory.py`` checks
    connections of every kind.

    Args:
        reactor: has the clock and the connections.

    Returns:
        the object whose ``freeze_survivors`` is now one of ``gc.callbacks``.
    """
    collections = Collections(reactor)
    gc.callbacks.append(collections.freeze_survivors)
    collections.collect()
    gc.set_threshold(*THRESHOLDS)
    looking = LoopingCall(collections.look)
    looking.clock = reactor
    looking.start(WHOLE_INTERVAL_S, now=False)
    return collections


class Collections:
    """Freezes what has survived, and runs full garbage collections, frozen objects included.

    Args:
        reactor: has the connections.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._frozen = 0
        """The number of objects that the last full collection left, and of those that were frozen since then.
        ``gc.get_freeze_count`` visits each object: in a relay that had run for long that took 9 ms for some 200,000."""
        self._per_object_s = 0.0
        """The longest duration of a full collection in seconds, per surviving object."""

    def freeze_survivors(self, phase: str, info: dict[str, int]) -> None:
        """Freezes the survivors of a collection of generation 2 if there are many; see ``gc.callbacks``."""
        if phase == "stop" and info["generation"] == 2:
            survivors = len(gc.get_objects(2))
            if survivors >= FROZEN_AT:
                self._frozen += survivors
                gc.freeze()

    def collect(self) -> None:
        """Runs a full collection."""
        began_s = time.thread_time()
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        took_s = time.thread_time() - began_s
        self._frozen = gc.get_freeze_count()
        self._per_object_s = max(self._per_object_s, took_s / max(1, self._frozen))
        # Python collects generation 2 only once its new objects are a quarter of those that its last collection left.
        # After the first one above that would be a quarter of all objects; this second one leaves none.
        gc.collect()

    def look(self) -> None:
        """Runs a full collection if it is short, or if no client is connected."""
        if self._per_object_s * self._frozen <= MAX_WHOLE_S or not self._is_anybody_connected:
            self.collect()

    @property
    def _is_anybody_connected(self) -> bool:
        reactor = self._reactor
        return any(isinstance(each, Connection) for each in (*reactor.getReaders(), *reactor.getWriters()))


class LoopLag(Service):
    """Measures the lag of the event loop while the service runs: how late it makes a call that is due.

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
