"""What a relay has of the log."""

from __future__ import annotations

from clasp_relay.cluster.exchange.batches import NO_DIGEST, Batch
from clasp_relay.cluster.membership import Position, Role, position_of, position_row
from tests.cluster.world import ThreeRelays, TwoRelays, put
from tests.core.world import revisions


class MembershipTests(TwoRelays):
    """The state that the parts of a node share."""

    def test_files_count_while_it_joins(self) -> None:
        """Also beyond what it has read of the log."""
        membership = self.follower.node.membership
        membership.position = Position(700, NO_DIGEST)
        self.assertEqual(membership.seq, self.follower.ledger.seq)
        membership.role = Role.JOINING
        self.assertEqual(membership.seq, 700)

    def test_a_row_of_the_journal_says_where_the_log_is(self) -> None:
        """With the epoch and the decider's clock."""
        batch = Batch(3, NO_DIGEST, 1_700_000, 12, ())
        change, key, erasures, _ = position_row(9, b"0123456789abcdef", batch)
        self.assertEqual(position_of(change), Position(9, b"0123456789abcdef", 3, 1_700_000))
        self.assertEqual((key, erasures), (None, ()))
        self.assertIsNone(position_of(None))


class HearingTests(ThreeRelays):
    """Nobody is woken for what it has no use for."""

    def heard_of(self, name: str) -> list[int]:
        """Returns how many messages each relay has heard under a name: the decider, then the others."""
        return [member.engine.heard[f"test.{name}"] for member in (self.decider, self.first, self.second)]

    def test_what_is_asked_is_heard_by_the_decider_alone(self) -> None:
        """And what has left it by all others."""
        writer = self.first.join()
        before = self.heard_of("decide"), self.heard_of("live")
        self.assertEqual(revisions(writer.ask(put("/a", 1), 1)), [1])
        after = self.heard_of("decide"), self.heard_of("live")
        more = [[now - then for now, then in zip(*each, strict=True)] for each in zip(after, before, strict=True)]
        self.assertGreater(more[0][0], 0)
        self.assertEqual(more[0][1:], [0, 0])
        self.assertEqual(more[1][0], 0)
        self.assertEqual(more[1][1], more[1][2])

    def test_a_relay_that_has_decided_hears_what_the_next_one_does(self) -> None:
        """Without reading it from the log."""
        writer = self.first.join()
        self.assertTrue(self.decider.node.hand_over())
        self.cluster.advance(1)
        before = self.heard_of("live")[0]
        self.assertEqual(revisions(writer.ask(put("/a", 1), 1)), [1])
        self.assertGreater(self.heard_of("live")[0], before)
        self.assertEqual(self.decider.relay.params.image(), self.first.relay.params.image())
        asked = self.heard_of("decide")[0]
        self.second.join().ask(put("/a", 2), 1)
        self.assertEqual(self.heard_of("decide")[0], asked)
