"""Whether a relay knows what the log had when the engine was heard last, and what it does while it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.ports import Bounds, Engine
from clasp_relay.cluster.freshness import Freshness
from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import Ack, Error, Get, Hello, Message, Publish, Set, Snapshot, Subscribe
from tests.cluster.policy_world import PolicyCluster
from tests.cluster.world import Client, Cluster
from tests.core.world import value


class _Engine:
    """Is asked where the log ends, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[Bounds | None], None]] = []

    def bounds(self, done: Callable[[Bounds | None], None]) -> None:
        """See ``Engine``."""
        self.asked.append(done)


class FreshnessTests(SynchronousTestCase):
    """One relay."""

    def setUp(self) -> None:
        """It has applied five batches."""
        self.engine, self.ledger = _Engine(), Ledger()
        self.ledger.seq = 5
        self.freshness = Freshness(cast("Engine", self.engine), self.ledger)

    def test_it_is_fresh_while_the_engine_is_heard(self) -> None:
        """Nothing is asked."""
        self.assertTrue(self.freshness.look(is_in_touch=True))
        self.assertEqual(self.engine.asked, [])

    def test_after_a_silence_it_has_to_reach_the_end_of_the_log(self) -> None:
        """The end that it had after the silence; an answer that fails is asked for again."""
        self.assertFalse(self.freshness.look(is_in_touch=False))
        self.assertFalse(self.freshness.look(is_in_touch=True))
        self.assertFalse(self.freshness.look(is_in_touch=True))
        self.engine.asked.pop()(None)
        self.assertEqual(self.engine.asked, [])
        self.assertFalse(self.freshness.look(is_in_touch=True))
        self.engine.asked.pop()(Bounds(1, 7))
        self.assertFalse(self.freshness.look(is_in_touch=True))
        self.ledger.seq = 7
        self.assertTrue(self.freshness.look(is_in_touch=True))

    def test_what_was_asked_before_a_silence_does_not_count_behind_it(self) -> None:
        """The log may have gone on meanwhile."""
        self.freshness.look(is_in_touch=False)
        self.freshness.look(is_in_touch=True)
        self.freshness.look(is_in_touch=False)
        self.engine.asked.pop()(Bounds(1, 5))
        self.assertFalse(self.freshness.look(is_in_touch=True))
        self.engine.asked.pop()(Bounds(1, 6))
        self.assertFalse(self.freshness.look(is_in_touch=True))


class StaleRelayTests(SynchronousTestCase):
    """A relay of a cluster with accounts that was cut off from the engine."""

    def setUp(self) -> None:
        """Bob reads at the follower what he may read while he is not banned."""
        checks = [{"type": "state_null", "lookup": "/bans/{session}"}]
        self.cluster = PolicyCluster(
            {
                "scopes": ["read:/**", "write:/**"],
                "snapshot_visibility": [{"path": "/room/**", "visible": "checks", "checks": checks}],
            }
        )
        for name in ("ann", "bob"):
            self.cluster.issue(name)
        self.decider, self.follower = self.cluster.pair()
        self.ann, self.bob = self.decider.join("ann"), self.follower.join("bob")
        self.ann.ask(Set("/room/1", value(1)), 1)

    def cut_off(self) -> None:
        """The follower hears the engine no more, while Bob is banned elsewhere."""
        self.follower.engine.is_paused = True
        self.cluster.advance(1.5)
        self.ann.ask(Set("/bans/bob", value(1)), 1)

    def shown(self, messages: list[Message]) -> list[str]:
        """Returns what SNAPSHOTs show."""
        return [each.address for one in messages if isinstance(one, Snapshot) for each in one.params if each.revision]

    def test_nothing_is_read_there_before_it_has_caught_up(self) -> None:
        """Then what was asked is answered, with what holds by then."""
        self.assertEqual(self.shown(self.bob.ask(Get("/room/1"))), ["/room/1"])
        self.cut_off()
        self.assertEqual(self.bob.ask(Get("/room/1")), [])
        self.bob.send(Subscribe(1, "/room/**"))
        self.assertFalse(self.follower.node.is_ready)
        self.follower.engine.is_paused = False
        self.cluster.advance(1)
        heard = self.bob.hear()
        self.assertEqual(len([each for each in heard if isinstance(each, Snapshot)]), 1)
        self.assertEqual(len(self.bob.session.subscriptions), 1)
        self.assertEqual(self.shown(heard), [])
        self.assertTrue(self.follower.node.is_ready)
        self.ann.ask(Publish("/room/1", value=value(2)))
        self.assertEqual(self.bob.hear(), [])

    def test_nobody_is_let_in_there_before_it_has_caught_up(self) -> None:
        """They are told to try again."""
        self.cut_off()
        client = Client(self.follower)
        client.send(Hello(1, 0xE0, "test", "bob"))
        (error,) = client.hear()
        assert isinstance(error, Error)
        self.assertEqual((error.error, client.outbox.closed and client.outbox.closed[0]), (503, 1013))

    def test_who_waits_for_too_long_is_sent_elsewhere(self) -> None:
        """A log that does not tell its end leaves nobody waiting for ever."""
        self.cut_off()
        self.bob.send(Get("/room/1"))
        self.patch(self.follower.engine, "bounds", lambda _done: None)
        self.follower.engine.is_paused = False
        self.cluster.advance(6)
        assert self.bob.outbox.closed is not None
        self.assertEqual(self.bob.outbox.closed[0], CloseCode.TRY_AGAIN_LATER)
        self.assertEqual(self.shown(self.bob.hear()), [])

    def test_without_accounts_reads_go_on(self) -> None:
        """Nobody has rights that could end."""
        cluster = Cluster()
        cluster.started("one", "two")
        (follower,) = cluster.followers
        client = follower.join()
        client.ask(Set("/a", value(1)), 1)
        follower.engine.is_paused = True
        cluster.advance(1.5)
        self.assertEqual(self.shown(client.ask(Get("/a"))), ["/a"])

    def test_without_a_decider_reads_go_on(self) -> None:
        """The log tells that nothing was missed."""
        self.decider.kill()
        self.cluster.advance(1)
        self.assertEqual(self.shown(self.bob.ask(Get("/room/1"))), ["/room/1"])

    def test_own_writes_come_before_reads_behind_them(self) -> None:
        """In the order in which a session sent them, also where each relay has its own core for reading."""
        self.bob.send(Set("/own", value(1)), 1)
        self.bob.send(Get("/own"))
        self.cluster.turn()
        first, second = self.bob.hear()
        self.assertIsInstance(first, Ack)
        self.assertEqual(self.shown([second]), ["/own"])
