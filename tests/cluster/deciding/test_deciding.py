"""The core that decides for a cluster, and what it gathers for the log."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.deciding.request_turns import TURN_US
from clasp_relay.cluster.exchange.batches import Answered, Began, Ended, Group, LinkBegan, LinkEnded
from clasp_relay.cluster.exchange.packets import Asked, Entry, Packet
from clasp_relay.core.records import ChangeKind
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import Ack, Bundle, Publish, Set, Subscribe
from tests.cluster.deciding_world import LINK, DecidingCase, said
from tests.cluster.policy_world import PolicyCase
from tests.cluster.world import Cluster
from tests.core.world import START_US, value


class DecidingTests(DecidingCase):
    """Packets in, batches out."""

    def test_a_relay_and_its_session_are_recorded(self) -> None:
        """Before anything that they ask."""
        self.ask(Entry(1, "s", int(Asked.BEGIN)), said(2, Set("/a", value(1)), 1))
        items = self.sealed()
        self.assertEqual([type(item) for item in items], [LinkBegan, Began, Group, Answered])
        self.assertEqual(items[-1], Answered("s", 2, ((2, ("/a", 1, None, None)),)))

    def test_nothing_is_done_twice(self) -> None:
        """What comes again is left out."""
        self.begin()
        self.ask(said(2, Set("/a", value(1)), 1))
        self.assertTrue(self.ask(said(2, Set("/a", value(1)), 1), said(3, Set("/a", value(2)), 1), is_first=True))
        self.assertEqual(self.answers(self.sealed()), [Ack("/a", 1), Ack("/a", 2)])

    def test_a_packet_that_is_missing_is_noticed(self) -> None:
        """Then all has to come again; an old one that comes late does nothing."""
        self.begin()
        self.assertFalse(self.ask(said(3, Set("/a", value(3)), 1), skip=1))
        self.assertEqual(self.sealed(), [])
        self.assertTrue(self.ask(said(2, Set("/a", value(1)), 1), said(3, Set("/a", value(3)), 1), is_first=True))
        late = Packet(LINK, "one", 1, 2, False, True, (said(2, Set("/a", value(1)), 1),))
        self.assertTrue(self.deciding.receive(late))
        self.assertTrue(self.deciding.receive(late._replace(is_first=True)))
        self.assertEqual(len(self.answers(self.sealed())), 2)

    def test_a_relay_that_was_given_up_is_not_known(self) -> None:
        """It has to begin anew."""
        self.begin()
        self.deciding.end_link(LINK)
        self.deciding.end_link(LINK)
        self.assertEqual([type(item) for item in self.sealed()], [LinkEnded])
        self.assertFalse(self.ask(said(2, Set("/a", value(1)), 1), is_new=False))
        self.assertFalse(self.deciding.knows(LINK))

    def test_what_sessions_ask_that_are_not_known_is_left_out(self) -> None:
        """The decider has ended them; their relay reads so in the log."""
        self.ask(said(1, Set("/a", value(1)), 1))
        self.assertEqual([type(item) for item in self.sealed()], [LinkBegan])

    def test_a_long_bundle_and_its_answer_are_in_one_batch(self) -> None:
        """Whatever others ask meanwhile."""
        self.begin()
        self.ask(said(2, Bundle(tuple(Set(f"/b/{n}", value(n)) for n in range(2_000))), 1))
        batches = []
        for _ in range(3_000):
            batches += [sealed.items for sealed in self.deciding.seal()]
            self.clock.advance(0)
            if batches:
                break
        (items,) = batches
        self.assertEqual([type(item) for item in items], [Group, Answered])
        self.assertEqual(self.answers(list(items)), [Ack(None, 1)])

    def test_gestures_pass_as_signals(self) -> None:
        """Their moves are coalesced before they are in the log."""
        self.begin()
        self.ask(said(2, Publish("/g", Signal.GESTURE, value=value(1), phase=Phase.START, id=1)))
        self.assertEqual([type(item) for item in self.sealed()], [Group, Answered])

    def test_the_end_of_a_session_is_recorded(self) -> None:
        """With the locks that it held."""
        self.begin()
        self.ask(said(2, Set("/l", value(1), lock=True), 1))
        self.sealed()
        self.ask(Entry(3, "s", int(Asked.END), text="gone"), said(4, Set("/a", value(1))))
        items = self.sealed()
        self.assertIn(Ended("s"), items)
        self.assertEqual(sum(isinstance(item, Group) for item in items), 1)
        self.assertIsNone(self.deciding.relay.params.holder("/l"))

    def test_the_sessions_of_a_relay_that_is_gone_end_in_several_turns(self) -> None:
        """Thousands would take as long as a decider may be silent; the relay has ended when all of them have."""
        self.ask(*(Entry(1, f"s{number}", int(Asked.BEGIN)) for number in range(5)))
        self.sealed()
        now_us = START_US
        turns: list[int] = []
        core, call_later = self.deciding.relay, self.call_later

        def long_since() -> int:
            nonlocal now_us
            now_us += TURN_US
            return now_us

        def later(delay_s: float, call: Callable[[], None]) -> object:
            turns.append(len(core.sessions.all()))
            return call_later(delay_s, call)

        self.patch(core.clock, "now_us", long_since)
        self.patch(self, "call_later", later)
        self.deciding.end_link(LINK)
        self.assertEqual(len(core.sessions.all()), 4)
        self.assertEqual(self.sealed(), [LinkEnded(LINK)])
        self.assertEqual((turns, core.sessions.all()), ([4, 3, 2, 1], []))

    def test_nothing_is_called_after_its_end(self) -> None:
        """Life times and bundles are the next decider's."""
        self.begin()
        self.ask(said(2, Bundle((Set("/later", value(1)),), START_US + 5_000_000), 1))
        self.sealed()
        self.deciding.stop()
        self.clock.advance(10)
        self.assertEqual(self.sealed(), [])


class PolicyTests(PolicyCase):
    """Writes are judged by the one that decides, with the rights of whoever asks at another relay."""

    def test_a_write_is_judged_and_stamped_for_its_writer(self) -> None:
        """As with one relay; and nobody writes behind their ban, whichever relay they are at."""
        ann, bob = self.decider.join("ann"), self.follower.join("bob")
        self.assertEqual(self.codes(bob.ask(Set("/room/1/said/1", value({"n": 1})), 1)), [0])
        self.assertEqual(self.param("/room/1/said/1"), {"n": 1, "by": "bob"})
        for number in range(2, 12):
            if number == 6:
                ann.send(Set("/room/1/bans/bob", value(1)))
            bob.send(Set(f"/room/1/said/{number}", value({"n": number})), 1)
            self.cluster.clock.advance(0)
        self.cluster.turn()
        ban = self.follower.relay.params.get("/room/1/bans/bob")
        assert ban is not None
        rows = [row.param for row in self.follower.journal.rows if row.kind is ChangeKind.WRITE]
        behind = rows[rows.index(ban) + 1 :]
        self.assertEqual([param.address for param in behind if param.subject == "bob"], [])
        self.assertEqual(self.codes(bob.hear())[-1], 403)

    def test_failures_count_together(self) -> None:
        """Whoever may guess twice may not guess twice at each relay."""
        for member, expected in ((self.decider, [403]), (self.follower, [403]), (self.decider, [429])):
            client = member.join("ann")
            self.assertEqual(self.codes(client.ask(Set("/safe/1", value({"key": "wrong"})), 1)), expected)

    def test_ids_of_sessions_at_other_relays_are_their_subjects(self) -> None:
        """What only a session's owner may write there, the owner may, and nobody else."""
        ann, bob = self.follower.join("ann"), self.decider.join("bob")
        address = f"/mine/{ann.session.id}"
        self.assertEqual(self.codes(bob.ask(Set(address, value(1)), 1)), [403])
        self.assertEqual(self.codes(ann.ask(Set(address, value(1)), 1)), [0])


class ClearTests(SynchronousTestCase):
    """What a relay asks the decider to end."""

    def setUp(self) -> None:
        """Two relays; some params, one of them locked."""
        self.cluster = Cluster()
        self.cluster.started("one", "two")
        assert self.cluster.decider is not None
        self.decider, (self.follower, *_) = self.cluster.decider, self.cluster.followers
        self.client = self.decider.join()
        for number in range(40):
            self.client.ask(Set(f"/a/{number}", value(number), lock=number == 7), 1)
        self.reader = self.follower.join()
        self.reader.ask(Subscribe(1, "/a/*"))
        self.over: list[bool] = []

    def clear(self, *addresses: str) -> None:
        """Asks."""
        self.follower.following.clear(addresses, self.over.append)

    def test_they_end_as_by_the_relay_itself(self) -> None:
        """Whoever holds a lock there; what is not set is passed over; it is told once all is done and known here."""
        self.clear(*(f"/a/{number}" for number in range(30)), "/not/set")
        self.assertEqual(self.over, [])
        self.cluster.turn()
        self.assertEqual(self.over, [True])
        self.assertEqual(len(self.follower.relay.params), 10)
        nulls = [each for each in self.reader.hear() if isinstance(each, Set)]
        self.assertEqual(sorted(each.address for each in nulls), sorted(f"/a/{number}" for number in range(30)))
        ended = self.decider.relay.params.ended("/a/7")
        assert ended is not None
        self.assertEqual(ended.subject, "")
        self.clear()
        self.assertEqual(self.over, [True, True])

    def test_they_end_once_whoever_decides(self) -> None:
        """What the decider has not done, the next one does."""
        self.clear("/a/1")
        self.decider.kill()
        self.cluster.advance(4)
        self.assertIs(self.cluster.decider, self.follower)
        self.assertEqual(self.over, [True])
        self.assertIsNone(self.follower.relay.params.get("/a/1"))
        self.clear("/a/2")
        self.cluster.turn()
        self.assertEqual(self.over, [True, True])

    def test_it_is_not_waited_for_for_ever(self) -> None:
        """Whoever asks hears that it is not known."""
        self.follower.engine.cut()
        self.clear("/a/1", "/a/2")
        self.cluster.advance(5.2)
        self.assertEqual(self.over, [False])

    def test_a_relay_that_was_given_up_asks_as_another_one(self) -> None:
        """What it had asked is not done for it any more."""
        self.clear("/a/1")
        self.cluster.turn()
        self.follower.engine.cut()
        self.clear("/a/2")
        self.cluster.advance(4)
        self.follower.engine.connect()
        self.cluster.advance(3)
        self.assertEqual(self.over, [True, False])
        self.clear("/a/2")
        self.cluster.turn()
        self.assertEqual(self.over, [True, False, True])
