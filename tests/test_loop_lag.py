"""Tests of clasp_relay.loop_lag."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.loop_lag import BOUNDS_S, INTERVAL_S, LoopLag


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
