"""What depends on sessions, when they end and when their relay is lost."""

from __future__ import annotations

from clasp_relay.wire.messages import Set
from tests.cluster.policy_world import PolicyCase
from tests.core.world import value


class LostSessionsTests(PolicyCase):
    """Params that end with their owners' sessions."""

    def test_what_somebody_leaves_ends_with_their_last_session_at_any_relay(self) -> None:
        """By a null of the relay."""
        first, second = self.follower.join("ann"), self.decider.join("ann")
        first.ask(Set("/here/ann", value(1)), 1)
        self.follower.relay.disconnect(first.session)
        self.cluster.advance(1)
        self.assertEqual(self.param("/here/ann"), 1)
        self.decider.relay.disconnect(second.session)
        self.cluster.advance(1)
        self.assertIsNone(self.param("/here/ann"))

    def test_what_is_left_by_the_loss_of_a_relay_stays_for_a_while(self) -> None:
        """Clients come back to another one; what belongs to those who do not ends."""
        self.cluster.issue("eve")
        for name in ("ann", "bob", "eve"):
            self.follower.join(name).ask(Set(f"/here/{name}", value(1)), 1)
        self.follower.kill()
        self.cluster.advance(5)
        self.assertEqual(self.cluster.decider, self.decider)
        self.decider.join("ann")
        self.follower = self.decider
        self.cluster.advance(10)
        self.assertEqual([self.param(f"/here/{name}") for name in ("ann", "bob")], [1, 1])
        self.cluster.advance(25)
        self.assertEqual([self.param(f"/here/{name}") for name in ("ann", "bob")], [1, None])
