"""What a relay asks the decider to delete."""

from __future__ import annotations

from clasp_relay.cluster.exchange.batches import Answered, Ended
from clasp_relay.cluster.exchange.packets import Asked, decode_addresses
from clasp_relay.cluster.following.clearing import CLEARED_AT_ONCE
from tests.cluster.following_world import OneFollower


class ClearingTests(OneFollower):
    """It is asked for in a session of the relay's own."""

    def test_nothing_to_clear_is_done_at_once(self) -> None:
        """The decider is not asked."""
        told: list[bool] = []
        self.following.clear([], told.append)
        self.assertEqual((told, self.asked()), ([True], []))

    def test_many_addresses_are_asked_for_in_parts(self) -> None:
        """All of it is done when the last part is."""
        told: list[bool] = []
        addresses = [f"/a/{number}" for number in range(CLEARED_AT_ONCE + 1)]
        self.following.clear(addresses, told.append)
        self.turn()
        (packet,) = self.packets
        began, *parts = packet.entries
        self.assertEqual([began.kind, *(each.kind for each in parts)], [Asked.BEGIN, Asked.CLEAR, Asked.CLEAR])
        self.assertEqual([address for each in parts for address in decode_addresses(each.data)], addresses)
        self.apply(Answered(began.session_id, 2, ()))
        self.assertEqual(told, [])
        self.apply(Answered(began.session_id, 3, ()))
        self.assertEqual(told, [True])

    def test_it_is_asked_for_in_another_session_where_the_log_has_ended_the_last(self) -> None:
        """What was asked in that one is not known to be done."""
        told: list[bool] = []
        self.following.clear(["/a"], told.append)
        self.turn()
        first = self.packets.pop().entries[0].session_id
        self.apply(Ended(first))
        self.assertEqual(told, [False])
        self.following.clear(["/a"], told.append)
        self.turn()
        began, part = self.packets.pop().entries
        self.assertEqual((began.kind, part.kind), (Asked.BEGIN, Asked.CLEAR))
        self.assertNotEqual(began.session_id, first)
