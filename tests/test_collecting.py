"""Collections are short, and garbage is found in the end."""

import gc
import weakref
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.collecting import SEARCH_INTERVAL_S, THRESHOLDS, keep_collections_short


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
        self.clock.advance(SEARCH_INTERVAL_S)
        self.assertIsNone(there())
