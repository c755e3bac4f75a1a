"""Tests of ``clasp_relay.net.liveness``."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.liveness import Liveness


class Pinged:
    """Counts how often it was looked after."""

    def __init__(self) -> None:
        self.visits: list[float] = []
        self.is_faulty = False

    def keep_alive(self, interval_s: float) -> None:
        """Notes the visit."""
        self.visits.append(interval_s)
        if self.is_faulty:
            raise ZeroDivisionError


class KeeperTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes liveness checks with the default timeout."""
        self.clock = Clock()
        self.liveness = Liveness(self.clock, 300)

    def test_keeper_visits_everybody_every_30_s(self) -> None:
        """Spread over the 30 s, so that no second does much more than its share."""
        kept = [Pinged() for _ in range(60)]
        for each in kept:
            self.liveness.add(each)
        for second in range(30):
            self.clock.advance(1)
            self.assertEqual(sum(len(each.visits) for each in kept), 2 * (second + 1))
        self.clock.pump([1] * 30)
        self.assertEqual([each.visits for each in kept], [[30, 30]] * 60)

    def test_keeper_has_one_timer_and_none_for_nobody(self) -> None:
        """No timer per connection."""
        kept = [Pinged() for _ in range(60)]
        for each in kept:
            self.liveness.add(each)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for each in kept:
            self.liveness.remove(each)
            self.liveness.remove(each)
        self.assertEqual((self.clock.getDelayedCalls(), len(self.liveness)), ([], 0))

    def test_keeper_goes_on_after_a_fault(self) -> None:
        """A connection that cannot be looked after is logged; the others are visited, and it again later."""
        faulty, other = Pinged(), Pinged()
        faulty.is_faulty = True
        self.liveness.add(faulty)
        self.liveness.add(other)
        self.clock.pump([1] * 60)
        self.assertEqual((len(faulty.visits), len(other.visits)), (2, 2))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_keeper_visits_more_often_for_a_short_timeout(self) -> None:
        """Three times within it."""
        self.assertEqual(Liveness(self.clock, 6).interval_s, 2)
