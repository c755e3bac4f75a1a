"""Messages that wait at a relay that follows."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.batches import Answered
from clasp_relay.cluster.following.following import GONE
from clasp_relay.cluster.following.requests import WAITS_S
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import Ack, Get, Hello, Ping, Pong, Set, Snapshot, Welcome
from tests.cluster.following_world import OneFollower
from tests.cluster.policy_world import PolicyCluster
from tests.cluster.world import Client
from tests.core.world import codes, value


class ReadTests(OneFollower):
    """Reads behind writes of their session."""

    def test_a_read_waits_for_the_writes_before_it(self) -> None:
        """What comes behind the read waits for the read."""
        self.send(Set("/a", value(1)), 1)
        self.send(Get("/b"))
        self.send(Ping())
        self.turn()
        self.assertEqual(self.hear(), [])
        self.apply(Answered(self.session.id, 2, ((2, ("/a", 1, None, None)),)))
        self.assertEqual([type(each) for each in self.hear()], [Ack, Snapshot, Pong])

    def test_a_read_without_writes_before_it_is_answered_at_once(self) -> None:
        """That the beginning of its session is not in the log yet does not matter."""
        self.send(Get("/b"))
        self.assertEqual([type(each) for each in self.hear()], [Snapshot])


class FreshnessTests(SynchronousTestCase):
    """Reads at a relay with accounts that has not caught up with the log."""

    def setUp(self) -> None:
        """Two relays; a client of the one that follows, whose reads are answered at once."""
        self.cluster = PolicyCluster({"scopes": ["read:/**", "write:/**"]})
        self.cluster.issue("ann")
        _, self.follower = self.cluster.pair()
        self.client = self.follower.join("ann")
        self.assertEqual([type(each) for each in self.client.ask(Get("/a"))], [Snapshot])
        self.follower.following.note_fresh(False)
        self.assertEqual(self.client.ask(Get("/a")), [])

    def test_they_wait_until_it_has_caught_up(self) -> None:
        """Until then a right may have ended without its knowledge."""
        self.follower.following.note_fresh(True)
        self.cluster.turn()
        self.assertEqual([type(each) for each in self.client.hear()], [Snapshot])

    def test_a_session_whose_read_has_waited_too_long_is_ended(self) -> None:
        """So that its client connects to another relay."""
        now_s = self.cluster.clock.seconds()
        self.follower.following.give_up_old(now_s + WAITS_S - 0.1)
        self.assertIsNone(self.client.outbox.closed)
        self.follower.following.give_up_old(now_s + WAITS_S + 0.1)
        self.assertEqual(self.client.outbox.closed, (GONE.close_code, GONE.reason))


class TokenTests(SynchronousTestCase):
    """Newcomers whose token another relay has issued."""

    def setUp(self) -> None:
        """Two relays."""
        self.cluster = PolicyCluster({"scopes": ["read:/**", "write:/**"]})
        self.cluster.issue("ann")
        _, self.follower = self.cluster.pair()

    def hello(self, token: str, door: str = "") -> Client:
        """Returns somebody who has said HELLO."""
        client = Client(self.follower)
        client.session.door = door
        client.send(Hello(1, 0xE0, "test", token))
        return client

    def test_a_token_that_is_not_known_yet_is_waited_for(self) -> None:
        """What its session sends meanwhile waits, too."""
        client = self.hello("new")
        client.send(Get("/a"))
        self.cluster.advance(0.2)
        self.assertEqual(client.hear(), [])
        self.cluster.issue("new")
        self.cluster.advance(0.1)
        self.assertEqual([type(each) for each in client.hear()], [Welcome, Snapshot, Snapshot])

    def test_a_token_that_nobody_has_issued_is_refused_after_a_second(self) -> None:
        """As at once where there is one relay; over HTTP at once here, too."""
        client = self.hello("wrong")
        self.cluster.advance(0.9)
        self.assertEqual(client.hear(), [])
        self.cluster.advance(0.2)
        self.assertEqual(codes(client.hear()), [ErrorCode.UNAUTHENTICATED])
        self.assertEqual(codes(self.hello("wrong", "http").hear()), [ErrorCode.UNAUTHENTICATED])
        self.assertEqual(codes(self.hello("").hear()), [ErrorCode.UNAUTHENTICATED])

    def test_one_who_is_gone_meanwhile_is_not_let_in(self) -> None:
        """Nobody waits for it."""
        client = self.hello("new")
        self.follower.relay.disconnect(client.session)
        self.cluster.issue("new")
        self.cluster.advance(0.2)
        self.assertEqual(len(self.follower.relay.sessions), 0)
