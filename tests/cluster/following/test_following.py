"""A relay that follows, as its clients see it."""

from __future__ import annotations

from clasp_relay.cluster.exchange.batches import Ended
from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import Set
from tests.cluster.following_world import OneFollower
from tests.core.world import value


class FollowingTests(OneFollower):
    """Its sessions, as the log has them."""

    def test_a_session_that_was_ended_by_the_decider_ends_here(self) -> None:
        """With its reason."""
        self.send(Set("/a", value(1)), 1)
        self.apply(Ended(self.session.id, int(CloseCode.POLICY_VIOLATION), "revoked"))
        self.assertEqual(self.outbox.closed, (CloseCode.POLICY_VIOLATION, "revoked"))
        self.assertIsNone(self.following.requests.oldest_s)

    def test_it_begins_anew_when_it_was_given_up(self) -> None:
        """Its sessions end; what they asked is not sent any more."""
        self.send(Set("/a", value(1)), 1)
        self.following.begin_anew("one.2")
        self.assertIsNotNone(self.outbox.closed)
        self.turn()
        (packet,) = self.packets
        self.assertEqual((packet.link, packet.is_first, packet.is_new, packet.entries), ("one.2", True, True, ()))
