"""Places in calls: whose they are, and that they end with their sessions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.rules import call_places
from clasp_relay.rules.call_places import COMES_BACK_S, CallPlaces
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL, Set, Subscribe
from tests.access.test_permissions import AuthWorld
from tests.core.world import heard, value
from tests.rules.test_watcher import SEES_ALL

POLICY = {"scopes": ["read:/**", "write:/**"]}


class CallPlaceTests(SynchronousTestCase):
    """A relay with calls at /call."""

    def setUp(self) -> None:
        """Somebody who watches."""
        self.world = AuthWorld(POLICY)
        self.places = CallPlaces(self.world.relay, [Pattern.parse("/call/*/*")], SEES_ALL)
        self.places.open(None)
        self.reader = self.world.join("reader")
        self.reader.ask(Subscribe(1, "/**"))

    def told(self) -> list[tuple[str, object]]:
        """Returns what was told, once all work is done."""
        self.world.advance(1)
        return heard(self.reader.hear())

    def test_place_ends_with_the_session_that_wrote_it(self) -> None:
        """Not with another one of the same user's; nothing else of that session's ends."""
        self.patch(call_places, "ENDED_AT_ONCE", 2)
        first, second = self.world.join("owner"), self.world.join("owner")
        for number in range(3):
            first.send(Set(f"/call/{number}/a", value(1)))
        first.send(Set("/kept", value(1)))
        second.send(Set("/call/1/b", value(1)))
        self.told()
        second.leave()
        self.assertEqual(self.told(), [("/call/1/b", None)])
        first.leave()
        self.assertEqual(sorted(self.told()), [(f"/call/{number}/a", None) for number in range(3)])
        self.assertEqual(len(self.world.relay.params), 1)

    def test_place_that_a_bundle_rests_on_ends_after_it(self) -> None:
        """Only once the bundle is decided: it has read the value."""
        owner = self.world.join("owner")
        owner.send(Set("/call/1/a", value(1)))
        self.told()
        was_set = self.world.read_in_a_bundle("/call/1/a")
        owner.leave()
        self.assertEqual((self.told(), was_set), ([("/call/1/a", None)], [True]))

    def test_place_that_another_session_took_over_stays(self) -> None:
        """A client that has connected again goes on with its first id, before the first session is known to be dead."""
        first, second = self.world.join("owner"), self.world.join("owner")
        first.send(Set("/call/1/a", value(1)))
        second.send(Set("/call/1/a", value(2)))
        first.leave()
        self.assertEqual(self.told(), [("/call/1/a", 1), ("/call/1/a", 2)])
        second.leave()
        self.assertEqual(self.told(), [("/call/1/a", None)])

    def test_who_has_a_place_is_known(self) -> None:
        """As long as it is theirs."""
        owner, other = self.world.join("owner"), self.world.join("other")
        self.assertFalse(self.places.holds("owner"))
        owner.send(Set("/call/1/a", value(1)))
        owner.send(Set("/call/2/a", value(1)))
        self.assertEqual((self.places.holds("owner"), self.places.holds("other")), (True, False))
        other.send(Set("/call/1/a", value(1)))
        self.assertEqual((self.places.holds("owner"), self.places.holds("other")), (True, True))
        owner.send(Set("/call/2/a", NULL))
        self.assertFalse(self.places.holds("owner"))
        other.leave()
        self.told()
        self.assertFalse(self.places.holds("other"))

    def test_places_of_an_earlier_life_are_known(self) -> None:
        """Their sessions are not there; they end by their life time, unless their clients come back."""
        self.places.close()
        self.world.join("owner").send(Set("/call/1/a", value(1)))
        after = CallPlaces(self.world.relay, [Pattern.parse("/call/*/*")], SEES_ALL)
        self.assertFalse(after.holds("owner"))
        after.open(None)
        self.assertTrue(after.holds("owner"))

    def test_stop_ends_no_place(self) -> None:
        """Clients come back after it."""
        owner = self.world.join("owner")
        self.places.close()
        owner.send(Set("/call/1/a", value(1)))
        owner.leave()
        self.assertEqual(self.told(), [("/call/1/a", 1)])

    def test_place_of_a_session_that_is_gone_already_ends_at_once(self) -> None:
        """It ended in the turn in which it had written."""
        owner = self.world.join("owner")
        self.world.relay.sessions.discard(owner.session)
        owner.send(Set("/call/1/a", value(1)))
        self.assertEqual(self.told(), [("/call/1/a", 1), ("/call/1/a", None)])


class AtDeciderTests(SynchronousTestCase):
    """A relay of a cluster: its clients' core follows, and another one decides, here or elsewhere."""

    def setUp(self) -> None:
        """Two cores with the same place in each."""
        self.serving, self.deciding = AuthWorld(POLICY), AuthWorld(POLICY)
        self.places = CallPlaces(self.serving.relay, [Pattern.parse("/call/*/*")], SEES_ALL, is_alone=False)
        self.places.open(None)
        self.clients = [world.join("owner") for world in (self.serving, self.deciding)]
        for client in self.clients:
            client.send(Set("/call/1/a", value(1)))

    def ended(self) -> list[bool]:
        """Has both sessions end; tells where the place has ended with them."""
        for world, client in zip((self.serving, self.deciding), self.clients, strict=True):
            client.leave()
            world.advance(1)
        return [world.relay.params.get("/call/1/a") is None for world in (self.serving, self.deciding)]

    def test_places_end_only_in_the_core_that_decides(self) -> None:
        """Those that were there before are known there, too."""
        self.assertTrue(self.places.holds("owner"))
        self.places.act_in(self.deciding.relay)
        self.assertEqual(self.ended(), [False, True])

    def test_places_of_sessions_that_are_lost_end_in_a_while(self) -> None:
        """Their relay was lost with the decider before; whoever comes back meanwhile keeps theirs."""
        relay = self.deciding.relay
        for number in (2, 3):
            self.clients[1].send(Set(f"/call/{number}/a", value(1)))
        relay.sessions.discard(self.clients[1].session)
        staying = self.deciding.join("owner")
        staying.send(Set("/call/4/a", value(1)))
        self.places.act_in(relay)
        self.deciding.advance(COMES_BACK_S - 1)
        self.deciding.join("owner").send(Set("/call/2/a", value(2)))
        self.assertIsNotNone(relay.params.get("/call/1/a"))
        self.deciding.advance(2)
        left = [number for number in (1, 2, 3, 4) if relay.params.get(f"/call/{number}/a") is not None]
        self.assertEqual(left, [2, 4])

    def test_nothing_ends_while_another_relay_decides(self) -> None:
        """Be it before, or afterwards: what was begun is given up with its core."""
        self.assertEqual(self.ended(), [False, False])
        self.places.act_in(self.deciding.relay)
        self.places.rest()
        self.places.rest()
        self.assertTrue(self.places.holds("owner"))
