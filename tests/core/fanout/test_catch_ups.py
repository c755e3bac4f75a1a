"""Tests of clasp_relay.core.fanout.catch_ups: what a change opens is sent for existing subscriptions."""

from __future__ import annotations

from collections.abc import Sequence
from time import thread_time

from clasp_relay.core.fanout import catch_ups
from clasp_relay.core.rights.port import FULL, HIDDEN, CatchUp, State, Verdict
from clasp_relay.core.rights.visibility import Place
from clasp_relay.core.work import Pieces
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES, MessageCode, Signal
from clasp_relay.wire.messages import NULL, Set, Snapshot, Subscribe
from tests.core.guard import Rule, members_of, reads_of
from tests.core.rights.test_visibility import VisibilityCase
from tests.core.world import heard

ROOM = Pattern.parse("/room/**")


class OpeningTests(VisibilityCase):
    """A room that its members see."""

    def setUp(self) -> None:
        """Two params, a list of members, and everybody subscribed to the room."""
        self.begin(Rule(members_of("/members"), catch_up=True))

    def begin(self, rule: Rule | None, *openers: str) -> None:
        """Begins with a new relay, a rule for the room, and addresses that open it beside the list of members."""
        super().setUp()
        self.openers = ("/members", *openers)
        if rule is not None:
            self.guard.rules["/room/"] = rule
        self.guard.opens = self.opens
        self.subject: str | None = None
        self.existence_only = False
        self.write("/room/1", 1)
        self.write("/room/2", {"pin": 2})
        self.subscribe("/room/**")

    def opens(self, address: str) -> Sequence[CatchUp]:
        """The list of members opens the room."""
        return [CatchUp(self.subject, ROOM, self.existence_only)] if address in self.openers else []

    def opened(self, *members: str) -> list[list[object]]:
        """Returns what each session gets when the list of members is written."""
        self.values()
        self.write("/members", list(members))
        return self.values()

    def test_new_member_gets_what_it_sees_now(self) -> None:
        """As one SNAPSHOT; sessions that saw it before, or still do not see it, get nothing."""
        self.write("/members", ["alice"])
        self.values()
        before = self.world.relay.counts.sent[MessageCode.SNAPSHOT]
        self.write("/members", ["alice", "bob"])
        self.assertEqual(self.alice.hear(), [])
        (message,) = self.bob.hear()
        assert isinstance(message, Snapshot)
        self.assertGreater(self.world.relay.counts.sent[MessageCode.SNAPSHOT], before)
        self.assertEqual(sorted(address for address, _ in heard([message])), ["/room/1", "/room/2"])

    def test_member_hears_what_follows_after_what_was_there(self) -> None:
        """The SNAPSHOT stands before later changes."""
        self.opened("bob")
        self.write("/room/1", 5)
        self.assertEqual(self.values(), [[5], [], [5]])

    def test_subscription_that_leaves_out_params_gets_nothing(self) -> None:
        """Nor does a subscription to other addresses."""
        self.bob.send(Subscribe(1, "/room/**", 1 << Signal.EVENT))
        self.bob.send(Subscribe(2, "/other/**"))
        self.assertEqual(self.opened("bob"), [[], [], []])

    def test_only_one_user_is_looked_at_where_only_one_may_see_more(self) -> None:
        """Whether the subscription's pattern equals the room's, is narrower or wider, overlaps it, or is disjoint."""
        for pattern, found in (
            ("/room/**", ["/room/1", "/room/2"]),
            ("/room/1", ["/room/1"]),
            ("/**", ["/room/1", "/room/2"]),
            ("/*/2", ["/room/2"]),
            ("/other/**", []),
            ("/roo*/2", ["/room/2"]),
            ("/room", []),
        ):
            with self.subTest(pattern):
                self.begin(Rule(members_of("/members"), catch_up=True))
                self.subject = "bob"
                self.bob.send(Subscribe(1, pattern))
                self.values()
                self.write("/members", ["alice", "bob"])
                self.assertEqual(self.alice.hear(), [])
                told = [address for address, _ in heard(self.bob.hear()) if address != "/members"]
                self.assertEqual(sorted(told), found)
                self.write("/members", ["bob"])
                self.assertEqual([address for address, _ in heard(self.bob.hear()) if address != "/members"], [])

    def searched(self) -> list[str]:
        """Returns a list of the patterns that the relay searches for from now on."""
        params = self.world.relay.params
        searched: list[str] = []
        search = params.search

        def look(pattern: Pattern, max_cost: int) -> tuple[list[str], bool]:
            searched.append(pattern.text)
            return search(pattern, max_cost)

        self.patch(params, "search", look)
        return searched

    def test_only_what_a_user_has_asked_for_is_looked_for(self) -> None:
        """If there are few patterns, and only one user may see more; a room may have thousands of other params."""
        cases: tuple[tuple[list[str], list[str]], ...] = (
            (["/room/1"], ["/room/1"]),
            (["/room/1", "/room/new/*", "/other/**"], ["/room/1", "/room/new/*"]),
            (["/other/**"], []),
            (["/room/1", "/*/2"], ["/room/**"]),
            ([f"/room/{number}" for number in range(catch_ups.NARROWED_AT_MOST + 1)], ["/room/**"]),
        )
        for patterns, expected in cases:
            with self.subTest(patterns):
                self.begin(Rule(members_of("/members"), catch_up=True))
                self.subject = "bob"
                for session in self.world.relay.sessions.of_subject("bob"):
                    self.world.relay.unsubscribe(session, 1)
                for number, pattern in enumerate(patterns):
                    self.bob.send(Subscribe(number, pattern))
                searched = self.searched()
                self.write("/members", ["bob"])
                self.assertEqual(searched, expected)

    def test_session_gets_each_param_once(self) -> None:
        """Even if several of its subscriptions match."""
        self.bob.send(Subscribe(2, "/room/1"))
        self.bob.send(Subscribe(3, "/room/**"))
        self.assertEqual(len(self.opened("bob")[2]), 2)

    def test_many_subscriptions_to_many_params_are_judged_once(self) -> None:
        """The work for a change does not grow with their product."""
        for number in range(300):
            self.write(f"/room/more{number}", number)
            self.bob.send(Subscribe(number, "/room/**"))
        self.values()
        before, before_s = self.guard.memory.missed, thread_time()
        self.assertEqual(len(self.opened("bob")[2]), 302)
        self.assertLess(self.guard.memory.missed - before, 20)
        self.assertLess(thread_time() - before_s, 0.1)

    def test_much_is_told_in_pieces(self) -> None:
        """The step of the change sends a bounded part, and decides for a bounded part who saw it before."""
        self.patch(catch_ups, "PIECE_COST", 20)
        self.patch(catch_ups, "TOLD_AT_ONCE", 50)
        for number in range(1_000):
            self.write(f"/room/more{number}", number)
        self.values()
        relay = self.world.relay
        self.write("/members", ["bob"])
        self.assertTrue(relay.work)
        told = len(heard(self.bob.hear()))
        self.assertLess(told, 1_002)
        self.finish()
        self.assertGreater(told + len(heard(self.bob.hear())), 1_001)
        self.assertFalse(relay.work)

    def pieces(self) -> list[tuple[int, int]]:
        """Opens the room for bob, and returns for each piece the examined addresses and the sessions that were told."""
        work = self.world.relay.work
        added: list[Pieces] = []
        self.patch(work, "add", lambda _owner, pieces: added.append(pieces))
        self.write("/members", ["bob"])
        (telling,) = added
        looked_at: list[str] = []
        visibility, sent = self.world.relay.visibility, self.world.relay.counts.sent
        place = visibility.place

        def look_at(address: str) -> Place:
            looked_at.append(address)
            return place(address)

        self.patch(visibility, "place", look_at)
        found = []
        before = sent[MessageCode.SNAPSHOT]
        for _ in telling:
            found.append((len(looked_at), sent[MessageCode.SNAPSHOT] - before))
            looked_at.clear()
            before = sent[MessageCode.SNAPSHOT]
        return found

    def test_each_piece_is_bounded(self) -> None:
        """For any number of params and sessions."""
        for number in range(1_000):
            self.write(f"/room/more{number}", number)
        self.values()
        found = self.pieces()
        self.assertGreaterEqual(sum(addresses for addresses, _ in found), 1_002)
        self.assertLessEqual(max(addresses for addresses, _ in found), catch_ups.TOLD_AT_ONCE)
        self.begin(Rule(members_of("/members"), catch_up=True))
        sessions = 100
        for _ in range(sessions):
            self.world.join("bob").send(Subscribe(1, "/room/**"))
        found = self.pieces()
        self.assertEqual(sum(told for _, told in found), sessions + 1)
        self.assertLessEqual(max(told for _, told in found), catch_ups.PIECE_COST // catch_ups.FIND_COST + 1)
        self.begin(Rule(members_of("/members"), catch_up=True))
        for number in range(2_000):
            self.write(f"/elsewhere/{number}", number)
        self.patch(catch_ups, "SEARCH_COST", 1)
        self.assertGreaterEqual(len(self.pieces()), 2_000 // catch_ups.PIECE_COST)

    def test_search_in_the_step_of_a_change_is_bounded(self) -> None:
        """For any params, and any number of patterns."""
        costs: list[int] = []
        search = self.world.relay.params.search

        def look(pattern: Pattern, max_cost: int) -> tuple[list[str], bool]:
            costs.append(max_cost)
            return search(pattern, max_cost)

        self.subject = "bob"
        self.bob.send(Subscribe(2, "/room/1"))
        self.bob.send(Subscribe(3, "/room/2"))
        self.bob.send(Subscribe(1, "/other/**"))
        self.patch(self.world.relay.params, "search", look)
        self.write("/members", ["bob"])
        self.assertEqual(costs, [catch_ups.SEARCH_COST // 2] * 2)

    def test_who_was_not_judged_before_is_told(self) -> None:
        """Perhaps a second time; no session is left out."""
        self.patch(catch_ups, "BEFORE_COST", 1)
        self.assertEqual([len(each) for each in self.opened("alice")], [2, 2, 0])
        self.assertEqual([len(each) for each in self.opened("alice", "bob")], [2, 2, 2])

    def test_what_takes_long_to_find_is_found_in_pieces(self) -> None:
        """By comparing all params."""
        self.patch(catch_ups, "SEARCH_COST", 1)
        self.patch(catch_ups, "PIECE_COST", 10)
        self.bob.send(Subscribe(2, "/room/1", 1 << Signal.EVENT))
        del self.guard.rules["/room/"]
        self.guard.rules["/room/1"] = self.guard.rules["/room/2"] = Rule(members_of("/members"), catch_up=True)
        self.write("/room/of all", 1)
        for number in range(100):
            self.write(f"/elsewhere/{number}", number)
        self.values()
        self.write("/members", ["bob"])
        self.finish()
        told = [address for address, _ in heard(self.bob.hear())]
        self.assertEqual(sorted(told), ["/room/1", "/room/2"])

    def test_changes_that_open_the_same_are_told_together(self) -> None:
        """However many there are before the first one is told."""
        self.patch(catch_ups, "PIECE_COST", 1)
        work, sent = self.world.relay.work, self.world.relay.counts.sent
        work.add("others", iter([catch_ups.UNIT_US * 2_000]))
        before = sent[MessageCode.SNAPSHOT]
        for members in (["bob"], [], ["bob"], ["alice", "bob"]):
            self.write("/members", members)
        self.finish()
        self.assertEqual([len(each) for each in self.values()], [0, 2, 2])
        self.assertLessEqual(sent[MessageCode.SNAPSHOT] - before, 4)

    def test_change_while_others_are_told_is_not_missed(self) -> None:
        """Params that were told before are told again."""
        self.patch(catch_ups, "PIECE_COST", 1)
        work = self.world.relay.work

        def meanwhile() -> Pieces:
            for members in ([], ["alice", "bob"]):
                self.write("/members", members)
            yield 1

        work.add("others", iter([catch_ups.UNIT_US * 2_000]))
        self.write("/members", ["bob"])
        work.add("meanwhile", meanwhile())
        self.finish()
        self.assertEqual([len(set(map(str, each))) for each in self.values()], [0, 2, 2])

    def finish(self) -> None:
        """Runs turns until all work is done."""
        while self.world.relay.work:
            self.world.clock.clock.advance(0)

    def test_catch_up_can_be_for_one_user(self) -> None:
        """Other users that newly see it get it when they ask."""
        self.subject = "alice"
        found = self.opened("alice", "bob")
        self.assertEqual([len(each) for each in found], [0, 2, 0])

    def test_rule_without_catch_up_sends_nothing(self) -> None:
        """A session gets only later changes."""
        self.begin(Rule(members_of("/members")))
        self.assertEqual(self.opened("bob"), [[], [], []])

    def test_address_without_a_rule_is_no_opening(self) -> None:
        """Every session saw it before."""
        self.begin(None)
        self.assertEqual(self.opened("bob"), [[], [], []])

    def test_existence_opens_only_when_it_changes(self) -> None:
        """A new value at a set address causes no search."""
        self.existence_only = True
        self.assertEqual(len(self.opened("alice")[1]), 2)
        self.assertEqual(self.opened("alice", "bob"), [[], [], []])
        self.admin.send(Set("/members", NULL))
        self.assertEqual(len(self.opened("bob")[2]), 2)

    def test_end_of_a_param_can_open(self) -> None:
        """The params that it hid are sent."""

        def judge(_subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
            return Verdict(HIDDEN if state.get("/members") else FULL, reads_of("/members"))

        self.begin(Rule(judge, catch_up=True))
        self.opened("anybody")
        self.admin.send(Set("/members", NULL))
        self.assertEqual([len(each) for each in self.values()], [0, 2, 2])

    def test_what_ends_by_the_change_itself_is_not_sent(self) -> None:
        """It is no longer set when it could be seen."""

        def judge(_subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
            return Verdict(HIDDEN if state.get("/room/1") else FULL, reads_of("/room/1"))

        self.begin(Rule(judge, catch_up=True), "/room/1")
        self.values()
        self.admin.send(Set("/room/1", NULL))
        self.assertEqual(self.values(), [[None], [{"pin": 2}], [{"pin": 2}]])

    def test_what_stays_hidden_is_not_sent(self) -> None:
        """A change that may open something need not open it."""
        self.assertEqual(self.opened("carol"), [[], [], []])

    def test_older_value_that_is_held_back_does_not_follow(self) -> None:
        """The SNAPSHOT has the current value; the one that maxRate held back is dropped."""
        self.write("/members", ["bob"])
        self.bob.send(Subscribe(1, "/room/**", ALL_TYPES, 1))
        self.bob.hear()
        for number in range(5, 8):
            self.write("/room/1", number)
        self.assertEqual(heard(self.bob.hear()), [("/room/1", 5)])
        self.write("/members", [])
        self.write("/members", ["bob"])
        shown = heard(self.bob.hear())
        self.assertEqual(sorted(shown), [("/room/1", 7), ("/room/2", {"pin": 2})])
        self.world.clock.clock.advance(5)
        self.assertEqual(self.bob.hear(), [])
        self.assertEqual(self.world.clock.clock.getDelayedCalls(), [])

    def test_rule_that_looks_at_the_address_is_asked_for_each(self) -> None:
        """Its verdict for one address is not used for another."""

        def judge(_subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
            reads = reads_of("/members")
            reads.reads_address = True
            return Verdict(FULL if state.get("/members") else HIDDEN, reads)

        self.begin(Rule(judge, catch_up=True))
        self.assertEqual([len(each) for each in self.opened("anybody")], [0, 2, 2])
