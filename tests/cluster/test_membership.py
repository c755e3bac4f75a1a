"""What a relay has of the log."""

from __future__ import annotations

from clasp_relay.cluster.batches import NO_DIGEST, Batch
from clasp_relay.cluster.membership import Position, Role, position_of, position_row
from tests.cluster.world import TwoRelays


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
