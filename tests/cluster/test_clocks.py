"""The decider's time, at the decider and elsewhere."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.clocks import DecidersClock, FollowersClock
from tests.cluster.world import Cluster
from tests.core.world import START_US, WorldClock


class DecidersClockTests(SynchronousTestCase):
    """The clock of the core that decides."""

    def test_it_goes_on_from_the_last_record(self) -> None:
        """By a monotonic clock; nothing is called once it has stopped."""
        clock = Clock()
        deciders = DecidersClock(START_US, clock.seconds, clock.callLater)
        called: list[int] = []
        deciders.call_later(1, lambda: called.append(1))
        deciders.call_later(3, lambda: called.append(3))
        clock.advance(2)
        self.assertEqual((deciders.now_us(), called), (START_US + 2_000_000, [1]))
        deciders.stop()
        clock.advance(2)
        self.assertEqual(called, [1])


class FollowersClockTests(SynchronousTestCase):
    """The clock of the core that serves clients."""

    def setUp(self) -> None:
        """Nobody was heard yet."""
        self.own = WorldClock()
        self.heard_us: int | None = None
        self.clock = FollowersClock(self.own, lambda: self.heard_us)

    def test_it_is_the_deciders_once_that_is_known(self) -> None:
        """However far apart they are; late signs of life do not turn it back."""
        self.assertEqual(self.clock.now_us(), START_US)
        for heard_us, expected_us in (
            (START_US - 3_600_000_000, START_US - 3_600_000_000),
            (START_US - 3_600_000_000 + 50, START_US - 3_600_000_000 + 50),
            (START_US - 3_600_000_000 + 20, START_US - 3_600_000_000 + 50),
            (START_US, START_US),
        ):
            self.heard_us = heard_us
            self.assertEqual(self.clock.now_us(), expected_us)

    def test_calls_are_this_machines(self) -> None:
        """They wait as long as they say."""
        called: list[int] = []
        self.clock.call_later(1, lambda: called.append(1))
        self.own.clock.advance(1)
        self.assertEqual(called, [1])

    def test_relays_whose_clocks_are_apart_have_one_time(self) -> None:
        """The decider's."""
        cluster = Cluster()
        one, two = cluster.started("one", "two")
        decider = cluster.decider
        follower = two if decider is one else one
        assert decider is not None
        expected_us = decider.node.now_us()
        assert expected_us is not None
        found_us = FollowersClock(self.own, follower.node.now_us).now_us()
        self.assertLessEqual(abs(found_us - expected_us), 300_000)
