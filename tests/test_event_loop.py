"""Tests of clasp_relay.event_loop."""

import gc
import subprocess
import sys
import time
import weakref
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import event_loop
from clasp_relay.event_loop import (
    BOUNDS_S,
    FROZEN_AT,
    INTERVAL_S,
    THRESHOLDS,
    WHOLE_INTERVAL_S,
    LoopLag,
    keep_collections_short,
)


class Node:
    """Something that can be part of a cycle."""

    other: Any = None


def make_cycle() -> Node:
    """Makes two that hold each other, and returns one of them."""
    one, two = Node(), Node()
    one.other, two.other = two, one
    return one


class Sockets(Clock):
    """A reactor that has a time and connections."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = [object()]
        self.writers: list[object] = []

    def getReaders(self) -> list[object]:  # noqa: N802  Twisted's
        """What is read from; a port, at least."""
        return self.readers

    def getWriters(self) -> list[object]:  # noqa: N802
        """What is written to."""
        return self.writers


class CollectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Leaves Python as it was."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        self.reactor = Sockets()
        collections = keep_collections_short(self.reactor)
        self.addCleanup(gc.callbacks.remove, collections.freeze_survivors)
        self.looked_at: list[int] = []
        """At how many objects each collection of generation 2 looked."""
        gc.callbacks.append(self.look)
        self.addCleanup(gc.callbacks.remove, self.look)

    def look(self, phase: str, info: dict[str, int]) -> None:
        """Notes at how many objects a collection looks."""
        if phase == "start" and info["generation"] == 2:
            self.looked_at.append(sum(len(gc.get_objects(generation)) for generation in range(3)))

    def test_what_is_there_is_not_looked_through_again(self) -> None:
        """It is frozen."""
        self.assertGreater(gc.get_freeze_count(), 1_000)
        self.assertLess(sum(len(gc.get_objects(generation)) for generation in range(3)), 1_000)

    def test_no_collection_looks_at_many_objects(self) -> None:
        """However many are made, and stay, as params and sessions do; also after everything was looked at."""
        self.reactor.advance(WHOLE_INTERVAL_S)
        self.looked_at.clear()
        kept = [Node() for _ in range(400_000)]
        first, second, third = THRESHOLDS
        new = (first + 1) * (second + 1) * (third + 1) + first
        self.assertGreater(len(self.looked_at), 8)
        self.assertLess(max(self.looked_at), FROZEN_AT + 2 * new)
        self.assertGreater(gc.get_freeze_count(), len(kept) - FROZEN_AT - 2 * new)

    def test_what_ends_soon_is_found(self) -> None:
        """A request that is answered while others come: a collection was made meanwhile, and its cycle is no leak."""
        node = make_cycle()
        there = weakref.ref(node)
        gc.collect()
        self.assertIsNotNone(there())
        del node
        gc.collect()
        self.assertIsNone(there())

    def test_garbage_that_grew_old_is_found_when_nobody_is_connected(self) -> None:
        """Then nobody waits for it, however long it takes."""
        self.patch(event_loop, "MAX_WHOLE_S", 0.0)
        node = make_cycle()
        there = weakref.ref(node)
        gc.freeze()
        del node
        connection = Connection.__new__(Connection)
        for open_ones in (self.reactor.readers, self.reactor.writers):
            open_ones.append(connection)
            self.reactor.advance(WHOLE_INTERVAL_S)
            self.assertIsNotNone(there())
            open_ones.remove(connection)
        self.reactor.advance(WHOLE_INTERVAL_S)
        self.assertIsNone(there())
        self.assertGreater(gc.get_freeze_count(), 1_000)

    def test_one_that_took_long_is_not_repeated_before_nobody_is_connected(self) -> None:
        """An estimate from a quick one would be too short: the same objects take longer once they are scattered."""
        durations_s = iter((0.0, 60.0))  # before the collection, and behind it
        now_s = 0.0

        def thread_time() -> float:
            nonlocal now_s
            now_s += next(durations_s, 0.0)
            return now_s

        self.patch(time, "thread_time", thread_time)
        self.reactor.advance(WHOLE_INTERVAL_S)  # nobody is connected
        self.reactor.readers.append(Connection.__new__(Connection))
        there = weakref.ref(make_cycle())
        gc.freeze()
        for _ in range(3):
            self.reactor.advance(WHOLE_INTERVAL_S)
        self.assertIsNotNone(there())
        self.reactor.readers.pop()
        self.reactor.advance(WHOLE_INTERVAL_S)
        self.assertIsNone(there())

    def test_nothing_is_counted_while_somebody_is_connected(self) -> None:
        """To count the objects takes nearly as long as to collect them; those that were frozen are known."""
        seconds = iter((0.0, 0.001 * gc.get_freeze_count() / 1_000))  # 5 ms for 5,000 objects
        self.patch(time, "thread_time", lambda: next(seconds, 0.0))
        self.reactor.advance(WHOLE_INTERVAL_S)  # nobody is connected
        self.reactor.readers.append(Connection.__new__(Connection))
        counts: list[None] = []

        def count() -> int:
            counts.append(None)
            return 0

        self.patch(gc, "get_freeze_count", count)
        there = weakref.ref(make_cycle())
        gc.freeze()
        self.reactor.advance(WHOLE_INTERVAL_S)
        self.assertIsNotNone(there())
        self.assertEqual(counts, [])

    def test_garbage_that_grew_old_is_found_where_that_is_short(self) -> None:
        """Also while somebody is connected."""
        self.patch(event_loop, "MAX_WHOLE_S", 60.0)
        self.reactor.readers.append(Connection.__new__(Connection))
        there = weakref.ref(make_cycle())
        gc.freeze()
        self.reactor.advance(WHOLE_INTERVAL_S)
        self.assertIsNone(there())
        self.assertGreater(gc.get_freeze_count(), 1_000)


# Has twistd parse a command line and make the relay, and says what it would run on and who paces collections.
MADE_BY_TWISTD = """
import gc, sys, tempfile
from twisted.scripts.twistd import ServerOptions
from clasp_relay.tap import makeService
from clasp_relay.event_loop import Collections
options = ServerOptions()
options.parseOptions([*sys.argv[1:], "-n", "clasp-relay", "--data-dir", tempfile.mkdtemp(), "--web-root", "none"])
makeService(options.subOptions)
from twisted.internet import reactor
reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
reactor.run()
print(type(reactor).__name__, any(isinstance(getattr(each, '__self__', None), Collections) for each in gc.callbacks))
"""


class ReactorTests(SynchronousTestCase):
    def test_twistd_runs_the_relay_on_the_relays_reactor(self) -> None:
        """Unless it is told of another one."""
        for arguments, expected in (((), "RelayReactor True"), (("--reactor=poll",), "PollReactor False")):
            with self.subTest(arguments=arguments):
                command = [sys.executable, "-c", MADE_BY_TWISTD, *arguments]
                found = subprocess.run(command, capture_output=True, text=True, check=False)
                self.assertEqual(found.stdout.splitlines()[-1:], [expected], found.stderr)


class LoopLagTests(SynchronousTestCase):
    def test_lag_is_how_late_a_call_is_made(self) -> None:
        """Each measurement is in the bucket that it is not longer than; the last has no bound."""
        clock = Clock()
        held_up_s = 0.0
        lag = LoopLag(clock, lambda: clock.seconds() + held_up_s)
        lag.startService()
        for late_s in (0.0, 0.0005, 0.015, 7.0):
            held_up_s += late_s
            clock.advance(INTERVAL_S)
        expected = [0] * (len(BOUNDS_S) + 1)
        expected[0], expected[BOUNDS_S.index(0.02)], expected[-1] = 2, 1, 1
        self.assertEqual(lag.counts, expected)
        self.assertAlmostEqual(lag.sum_s, 7.0155)
        lag.stopService()

    def test_clock_that_is_early_is_not_late(self) -> None:
        """Rounding must not make a sum go down."""
        clock = Clock()
        lag = LoopLag(clock, lambda: 0.0)
        lag.startService()
        clock.advance(INTERVAL_S)
        self.assertEqual((lag.counts[0], lag.sum_s), (1, 0.0))
        lag.stopService()

    def test_nothing_is_measured_after_the_stop(self) -> None:
        """And no call is left; a stop that has no start before it is none."""
        clock = Clock()
        lag = LoopLag(clock)
        lag.stopService()
        lag.startService()
        lag.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
