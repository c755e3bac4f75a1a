"""Who was heard, and what follows from silence."""

from __future__ import annotations

from twisted.logger import capturedLogs

from clasp_relay.cluster.exchange.packets import Beat
from clasp_relay.cluster.peers import Peers
from tests.cluster.world import TwoRelays


class PeersTests(TwoRelays):
    """The follower, and what it hears."""

    def setUp(self) -> None:
        """Finds its peers."""
        super().setUp()
        self.peers = self.follower.node._peers

    def test_a_relay_that_is_silent_is_not_there(self) -> None:
        """After two seconds; after three it is gone."""
        peers, link = self.decider.node._peers, self.follower.following.link
        self.assertEqual([beat.link for beat in peers.living()], [link])
        self.follower.engine.is_paused = True
        self.cluster.advance(2.5)
        self.assertEqual((peers.living(), peers.gone([link])), ([], []))
        self.cluster.advance(0.8)
        self.assertEqual(peers.gone([link, self.decider.following.link]), [link])

    def test_who_hears_nothing_counts_nobody_as_gone(self) -> None:
        """Neither meanwhile nor at once when it hears the engine again."""
        link = self.decider.following.link
        self.follower.engine.is_paused = True
        self.cluster.advance(4)
        self.assertEqual((self.peers.living(), self.peers.gone([link])), ([], []))
        self.decider.kill()
        self.follower.engine.is_paused = False
        self.cluster.advance(2)
        self.assertEqual(self.peers.gone([link]), [])
        self.cluster.advance(1.5)
        self.assertEqual(self.peers.gone([link]), [link])

    def test_a_relay_that_was_never_heard_gets_its_time(self) -> None:
        """Of a decider that is new."""
        self.assertEqual(self.peers.gone(["other"]), [])
        self.cluster.advance(2.9)
        self.assertEqual(self.peers.gone(["other"]), [])
        self.cluster.advance(0.2)
        self.assertEqual(self.peers.gone(["other"]), ["other"])

    def test_who_has_more_of_the_log_outdoes(self) -> None:
        """One that joins only where those count, too."""
        self.assertFalse(self.peers.is_outdone())
        self.peers.hear(Beat("other", "other", 1, 1_000, False, False, 0))
        self.assertTrue(self.peers.is_outdone())
        self.assertFalse(self.peers.is_outdone(by_joined=True))

    def test_the_deciders_clock_goes_on_without_it(self) -> None:
        """By this machine's monotonic clock; without a decider by the wall's."""
        self.follower.engine.is_paused = True
        self.peers.hear_decider(5_000_000)
        self.cluster.clock.advance(1.5)
        self.assertEqual(self.peers.deciders_now_us, 6_500_000)
        stranger = Peers(self.follower.node.membership, lambda: 42)
        self.assertEqual(stranger.deciders_now_us, 42)

    def test_another_relay_with_the_same_name_is_told_of_once(self) -> None:
        """Not the run before this one, which may still be heard at the beginning."""
        name, now_s = self.follower.name, self.cluster.clock.seconds()
        peers = Peers(self.follower.node.membership, lambda: 42)
        peers.begin()
        with capturedLogs() as logs:
            peers.hear(Beat("before", name, 0, 0, True, False, 0))
            self.cluster.advance(3.5)
            for _ in range(3):
                peers.hear(Beat("twin", name, 0, 0, True, False, 0))
        self.assertGreater(self.cluster.clock.seconds(), now_s)
        self.assertEqual(
            [each["event"] for each in logs if each["event"] == "cluster.name_twice"], ["cluster.name_twice"]
        )

    def test_clocks_that_are_apart_are_told_of_once(self) -> None:
        """And again when they were together meanwhile."""
        now_us = [100_000_000]
        peers = Peers(self.follower.node.membership, lambda: now_us[0])
        with capturedLogs() as logs:
            for clock_s in (100, 50, 49, 95, 130, 131):
                peers.hear_decider(clock_s * 1_000_000)
        said = [(each["event"], each["seconds"], each["direction"]) for each in logs]
        self.assertEqual(said, [("cluster.clocks_apart", 50, "ahead of"), ("cluster.clocks_apart", 30, "behind")])

    def test_those_that_are_gone_are_forgotten_when_they_are_many(self) -> None:
        """Every start of a relay is one of its own."""
        for number in range(1_100):
            self.peers.hear(Beat(f"old-{number}", "old", 0, 0, False, False, 0))
        self.assertEqual(len(self.peers.living()), 1_101)
        self.cluster.advance(4)
        self.assertEqual(len(self.peers._peers), 1)
