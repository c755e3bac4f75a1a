"""Tests of clasp_relay.event_loop."""

import gc
import weakref
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.event_loop import (
    BOUNDS_S,
    FULL_INTERVAL_S,
    INTERVAL_S,
    THRESHOLDS,
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


class CollectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Leaves Python as it was."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        self.clock = Clock()

    def test_collections_look_at_little(self) -> None:
        """Of the new objects, and of what those left; never of all."""
        keep_collections_short(self.clock)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)

    def test_what_is_there_is_not_looked_through_again(self) -> None:
        """It is frozen."""
        node = Node()
        keep_collections_short(self.clock)
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertFalse(any(each is node for each in gc.get_objects()))

    def test_garbage_that_grew_old_is_found(self) -> None:
        """In the end, though no collection of the young finds it."""
        keep_collections_short(self.clock)
        node = make_cycle()
        there = weakref.ref(node)
        gc.collect(1)
        del node
        gc.collect(1)
        self.assertIsNotNone(there())
        self.clock.advance(FULL_INTERVAL_S)
        self.assertIsNone(there())


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
