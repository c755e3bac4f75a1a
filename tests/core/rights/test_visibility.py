"""Tests of clasp_relay.core.rights.visibility: who sees what, in every kind of message."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, Param
from clasp_relay.core.rights import memory, visibility
from clasp_relay.core.rights.memory import Answer, Reads
from clasp_relay.core.rights.port import FULL, HIDDEN, State, Verdict
from clasp_relay.core.session.identity import Identity
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    NULL,
    Announce,
    Get,
    Hello,
    Publish,
    Query,
    Result,
    Set,
    SignalDefinition,
    Subscribe,
)
from tests.core.guard import Guard, Rule, members_of, reads_of
from tests.core.world import START_US, Client, World, heard, value


class VisibilityCase(SynchronousTestCase):
    """Alice, Bob and an admin; each test makes its rules."""

    def setUp(self) -> None:
        """A relay without rules."""
        self.guard = Guard()
        self.start_again()

    def start_again(self) -> None:
        """Begins with a new relay, and connects all three."""
        self.world = World(permissions=self.guard)
        self.admin = self.world.join("admin")
        self.alice = self.world.join("alice")
        self.bob = self.world.join("bob")

    def everybody(self) -> tuple[Client, Client, Client]:
        """Returns the three."""
        return self.admin, self.alice, self.bob

    def subscribe(self, pattern: str = "/**") -> None:
        """Subscribes all three."""
        for client in self.everybody():
            client.ask(Subscribe(1, pattern))

    def values(self) -> list[list[object]]:
        """Returns the values that each of the three got."""
        return [[found for _, found in heard(client.hear())] for client in self.everybody()]

    def write(self, address: str, obj: object) -> None:
        """Sets a value, as the admin."""
        self.admin.send(Set(address, value(obj)))


class WaysOutTests(VisibilityCase):
    """One decision for all kinds of messages with a value."""

    def ways(self, address: str) -> list[list[list[object]]]:
        """Returns what each of the three gets of an address by GET, SUBSCRIBE, HELLO and live."""
        found = []
        for client, name in zip(self.everybody(), ("admin", "alice", "bob"), strict=True):
            newcomer = self.world.connect()
            newcomer.send(Hello(1, 0, "x", name))
            by_get = heard(client.ask(Get(address)))
            by_subscribe = heard(client.ask(Subscribe(7, address)))
            by_hello = heard(newcomer.hear())
            newcomer.leave()
            found.append([[one for _, one in way] for way in (by_get, by_subscribe, by_hello)])
        return found

    def test_one_address_that_somebody_may_see_shows_none_beside_it(self) -> None:
        """In one SNAPSHOT, though the same rule decides about all of them."""

        def sees_all(who: Identity, address: str, reads: Reads) -> bool:
            reads.reads_address = True
            return who.subject == "admin" or address == "/room/2"

        self.patch(self.guard, "sees_all", sees_all)
        self.guard.rules["/room/"] = Rule(lambda *_: Verdict(HIDDEN))
        for number in range(1, 5):
            self.write(f"/room/{number}", number)
        self.write("/else", 5)
        shown = heard(self.alice.ask(Subscribe(1, "/**")))
        self.assertEqual(shown, [("/room/2", 2), ("/else", 5)])

    def test_address_without_a_rule_is_seen_by_everybody(self) -> None:
        """Unchanged."""
        self.write("/a", 1)
        self.assertEqual(self.ways("/a"), [[[1], [1], [1]]] * 3)

    def test_hidden_address_is_seen_by_the_admin_alone(self) -> None:
        """A GET is answered with null, and no snapshot has it."""
        self.guard.rules["/a"] = Rule(HIDDEN)
        self.write("/a", 1)
        self.assertEqual(self.ways("/a"), [[[1], [1], [1]], [[None], [], []], [[None], [], []]])

    def test_reader_decides(self) -> None:
        """By the value at another address."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        self.write("/a", 1)
        _, alice, bob = self.ways("/a")
        self.assertEqual(alice, [[1], [1], [["alice"], 1]])
        self.assertEqual(bob, [[None], [], [["alice"]]])

    def test_keys_are_left_out(self) -> None:
        """In every kind of message."""
        self.guard.rules["/a"] = Rule(frozenset(("pin",)))
        self.write("/a", {"name": "x", "pin": 5})
        less = {"name": "x"}
        self.assertEqual(self.ways("/a")[1:], [[[less]] * 3] * 2)
        self.subscribe("/a")
        self.write("/a", {"name": "y", "pin": 6})
        self.assertEqual(self.values(), [[{"name": "y", "pin": 6}], [{"name": "y"}], [{"name": "y"}]])

    def test_hello_snapshot_can_be_turned_off(self) -> None:
        """Then new sessions get nothing before they ask."""
        self.guard.hello_snapshot = False
        self.write("/a", 1)
        self.assertEqual(self.ways("/a")[1], [[1], [1], []])

    def test_hello_snapshot_keeps_to_the_scope(self) -> None:
        """It has no address outside the read scopes."""
        for address in ("/secret", "/public"):
            self.world.relay.params.apply(Change(Param(address, value(1), 1, "w", START_US)))
        newcomer = self.world.connect()
        newcomer.send(Hello(1, 0, "x", "alice"))
        self.assertEqual(heard(newcomer.hear()), [("/public", 1)])

    def test_query_finds_what_is_seen(self) -> None:
        """A hidden address is not named either."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        self.admin.send(Announce("/x", (SignalDefinition("/a", Signal.PARAM), SignalDefinition("/b", Signal.PARAM))))
        found = []
        for client in self.everybody():
            (result,) = client.ask(Query("/*"))
            assert isinstance(result, Result)
            found.append([one.address for one in result.signals])
        self.assertEqual(found, [["/a", "/b"], ["/a", "/b"], ["/b"]])

    def test_signals_are_hidden_alike(self) -> None:
        """A PUBLISH goes to sessions that see its address, without keys that are hidden from them."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.guard.rules["/k"] = Rule(frozenset(("pin",)))
        self.write("/members", ["bob"])
        self.subscribe()
        self.alice.send(Publish("/a", Signal.EVENT, value=value(1)))
        self.alice.send(Publish("/k", Signal.EVENT, value=value({"pin": 1})))
        self.alice.send(Publish("/k", Signal.EVENT))
        self.assertEqual(self.values(), [[1, {"pin": 1}, None], [], [1, {}, None]])

    def test_type_filter_holds_where_somebody_sees_less(self) -> None:
        """A subscription to events gets no params."""
        self.guard.rules["/a"] = Rule(frozenset(("pin",)))
        self.subscribe("/a")
        self.bob.send(Subscribe(1, "/a", 1 << Signal.EVENT))
        self.write("/a", {"n": 1})
        self.assertEqual(self.values(), [[{"n": 1}], [{"n": 1}], []])

    def test_signal_to_one_session_is_decided_too(self) -> None:
        """P2P is no exception."""
        self.guard.rules["/clasp/p2p/signal/"] = Rule(
            lambda subject, _pattern, _state, _now: Verdict(HIDDEN if subject == "bob" else frozenset(("pin",)))
        )
        for client in self.everybody():
            message = Publish(f"/clasp/p2p/signal/{client.session.id}", Signal.EVENT, value=value({"pin": 1}))
            self.alice.send(message)
        self.assertEqual(self.values(), [[{"pin": 1}], [{}], []])

    def test_live_values_can_follow_rules_of_their_own(self) -> None:
        """If the policy distinguishes them."""
        self.guard.tells_live_apart = True
        self.start_again()
        self.guard.live_rules["/a"] = Rule(HIDDEN)
        self.subscribe()
        self.write("/a", 1)
        self.assertEqual(self.values(), [[1], [], []])
        self.assertEqual(heard(self.bob.ask(Get("/a"))), [("/a", 1)])

    def test_pattern_that_shows_most_counts(self) -> None:
        """Of several matching subscriptions of one session."""

        def judge(_subject: str, pattern: Pattern | None, _state: State, _now_us: int) -> Verdict:
            if pattern is None or pattern.text == "/**":
                return Verdict(HIDDEN)
            return Verdict(FULL if pattern.is_literal else frozenset(("pin",)))

        self.guard.rules["/a"] = Rule(judge, depends_on_pattern=True)
        self.subscribe()
        self.bob.send(Subscribe(2, "/*"))
        self.write("/a", {"pin": 1})
        self.assertEqual(self.values(), [[{"pin": 1}], [], [{}]])
        self.bob.send(Subscribe(3, "/a"))
        self.bob.hear()
        self.write("/a", {"pin": 2})
        self.assertEqual(self.values(), [[{"pin": 2}], [], [{"pin": 2}]])


class KeptVerdictTests(VisibilityCase):
    """Verdicts are cached until something that was read changes."""

    def answers(self) -> list[Answer[object]]:
        """Returns all cached answers."""
        kept = self.guard.memory
        return [answer for pool in (kept.shared, *kept._pools.values()) for answer in pool.answers.values()]

    def views(self) -> list[Any]:
        """Returns the cached views of recipients."""
        return [answer.value for answer in self.guard.memory.shared.answers.values()]

    def test_verdict_is_judged_once(self) -> None:
        """For any number of values, and of sessions of one user."""
        rule = self.guard.rules["/a"] = Rule(members_of("/members"))
        self.world.join("alice").send(Subscribe(1, "/**"))
        self.subscribe()
        for number in range(10):
            self.write("/a/x", number)
        self.assertEqual(sorted(rule.judged), [("alice", None), ("bob", None)])

    def test_change_of_what_was_looked_up_is_seen_by_the_next_value(self) -> None:
        """A write there and its end; no other change."""
        rule = self.guard.rules["/a"] = Rule(members_of("/members"))
        self.subscribe("/a")
        self.write("/a", 1)
        self.assertEqual(self.values(), [[1], [], []])
        self.write("/members", ["alice"])
        self.write("/a", 2)
        self.assertEqual(self.values(), [[2], [2], []])
        self.admin.send(Set("/members", NULL))
        self.write("/a", 3)
        self.assertEqual(self.values(), [[3], [], []])
        judged = len(rule.judged)
        self.write("/other", 1)
        self.write("/a", 4)
        self.assertEqual(len(rule.judged), judged)

    def test_verdict_that_stays_the_same_changes_nothing(self) -> None:
        """A list of the same readers leads to the same audience."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        self.subscribe("/a")
        self.write("/a", 1)
        (before,) = self.views()
        self.write("/members", ["alice", "carol"])
        self.write("/a", 2)
        (after,) = self.views()
        self.assertEqual([fields for fields, _ in after], [fields for fields, _ in before])
        for (_, one), (_, other) in zip(before, after, strict=True):
            for first, second in zip(one.audiences, other.audiences, strict=True):
                self.assertIs(first, second)
        self.assertEqual(self.values(), [[1, 2], [1, 2], []])

    def test_existence_counts_only_when_it_changes(self) -> None:
        """A new value at a set address ends no verdict."""

        def judge(_subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
            is_closed = state.get("/closed") is not None
            reads = Reads()
            reads.lookups["/closed"] = False
            return Verdict(HIDDEN if is_closed else FULL, reads)

        rule = self.guard.rules["/a"] = Rule(judge)
        self.subscribe("/a")
        self.write("/a", 1)
        self.write("/closed", 1)
        self.write("/a", 2)
        self.assertEqual(self.values(), [[1, 2], [1], [1]])
        judged = len(rule.judged)
        self.write("/closed", 2)
        self.write("/a", 3)
        self.assertEqual(len(rule.judged), judged)
        self.admin.send(Set("/closed", NULL))
        self.write("/a", 4)
        self.assertEqual(self.values(), [[3, 4], [4], [4]])

    def test_patterns_that_were_looked_up_count(self) -> None:
        """Any change at a matching address."""
        pattern = Pattern.parse("/bans/*")

        def judge(_subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
            banned = any(True for _ in state.match(pattern))
            reads = Reads()
            reads.patterns = (pattern,)
            return Verdict(HIDDEN if banned else FULL, reads)

        self.guard.rules["/a"] = Rule(judge)
        self.subscribe("/a")
        self.write("/a", 1)
        self.write("/bans/x", 1)
        self.write("/a", 2)
        self.assertEqual(self.values(), [[1, 2], [1], [1]])

    def test_verdict_can_end_by_itself(self) -> None:
        """At its time; verdicts with later ends stay."""
        ends_us = {"alice": START_US + 1_000_000, "bob": START_US + 2_000_000}

        def judge(subject: str, _pattern: Pattern | None, _state: State, now_us: int) -> Verdict:
            until_us = ends_us[subject]
            return Verdict(FULL, reads_of(until_us=until_us)) if now_us < until_us else Verdict(HIDDEN)

        rule = self.guard.rules["/a"] = Rule(judge)
        self.subscribe("/a")
        for number, expected in enumerate(([[0], [0], [0]], [[1], [], [1]], [[2], [], []])):
            self.write("/a", number)
            self.assertEqual(self.values(), expected)
            self.world.clock.clock.advance(1)
        self.assertEqual([subject for subject, _ in rule.judged].count("alice"), 2)

    def test_kept_verdicts_are_bounded(self) -> None:
        """In bytes; the least recently used one is removed, and all results stay right."""

        def judge(subject: str, pattern: Pattern | None, state: State, now_us: int) -> Verdict:
            hidden, reads = members_of("/members")(subject, pattern, state, now_us)
            reads.reads_address = True
            return Verdict(hidden, reads)

        self.guard.rules["/a"] = Rule(judge)
        self.write("/members", ["alice"])
        self.subscribe("/a/**")
        kept = self.guard.memory
        room = 3 * (memory.ANSWER_BYTES + 3 * memory.READ_BYTES)
        self.patch(kept.shared, "_max_bytes", room)
        for name in ("alice", "bob"):
            self.patch(kept.pool(name), "_max_bytes", room)
        for _ in range(2):
            for number in range(9):
                self.write(f"/a/{number}", number)
                self.assertEqual(self.values(), [[number], [number], []])
                self.assertLessEqual(max(kept.shared.bytes, kept.pool("alice").bytes), room)
                self.assertEqual(sum(answer.bytes for answer in self.answers()), kept.bytes)
        self.assertGreater(kept.evicted, 0)
        self.write("/members", ["bob"])
        self.write("/a/1", 9)
        self.assertEqual(self.values(), [[9], [], [9]])

    def test_addresses_share_what_decides_about_all_of_them(self) -> None:
        """A room's messages are judged once for each reader, not for each address, and have the same audience."""
        rule = self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        self.subscribe("/a/**")
        for number in range(5):
            self.write(f"/a/{number}", number)
        self.assertEqual(sorted(subject for subject, _ in rule.judged), ["alice", "bob"])
        self.assertEqual(len(self.views()), 1)

    def test_rule_that_decides_alike_is_one_whatever_object_it_is(self) -> None:
        """The permissions may make a new rule object for every address of a room."""

        def rule_of_its_own(_address: str, _is_live: bool) -> Rule:
            rule = Rule(members_of("/members"))
            rule.key = "room"  # type: ignore[assignment]
            made.append(rule)
            return rule

        made: list[Rule] = []
        self.write("/members", ["alice"])
        self.subscribe("/a/**")
        self.patch(self.guard, "visibility_rule", rule_of_its_own)
        for number in range(5):
            self.write(f"/a/{number}", number)
        self.assertEqual((len(made), sum(len(rule.judged) for rule in made)), (5, 2))

    def test_recipients_of_many_routes_are_right(self) -> None:
        """A session with several matching subscriptions gets each value once."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        for number in range(5):
            self.alice.send(Subscribe(number, f"/a/{number}"))
            self.write(f"/a/{number}", number)
        self.assertEqual(self.values()[1], [0, 1, 2, 3, 4])
        self.assertEqual(len(self.views()), 5)

    def test_long_addresses_are_found_anew(self) -> None:
        """Their visibility is decided as for others."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        address = "/a/" + "x" * visibility.MAX_PLACE_CHARACTERS
        self.subscribe("/a/**")
        self.write(address, 1)
        self.assertEqual(self.values(), [[1], [1], []])
        self.assertNotIn(address, self.world.relay.visibility._places)

    def test_long_patterns_are_judged_anew(self) -> None:
        """If a rule depends on the pattern."""
        pattern = "/a/**/" + "x" * memory.MAX_KEY_CHARACTERS
        rule = self.guard.rules["/a"] = Rule(lambda *_: Verdict(FULL), depends_on_pattern=True)
        self.write(pattern.replace("**", "b"), 1)
        for _ in range(2):
            self.assertEqual(len(heard(self.alice.ask(Subscribe(1, pattern)))), 1)
        self.assertEqual(len(rule.judged), 2)

    def test_remembered_places_are_bounded(self) -> None:
        """The oldest is looked up again; also if a write opens nothing, and if an admin sees all."""
        self.patch(visibility, "MAX_PLACES", 3)
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.subscribe("/**")
        for _ in range(2):
            for number in range(10):
                for start in ("/a", "/free"):
                    self.write(f"{start}/{number}", number)
                    self.assertEqual(heard(self.admin.hear()), [(f"{start}/{number}", number)])
                    self.assertLessEqual(len(self.world.relay.visibility._places), 3)

    def test_answers_that_go_while_others_are_found_stay_right(self) -> None:
        """The limit may be reached while a value is sent."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.subscribe("/a/**")
        for address in ("/a/1", "/a/2"):
            self.write(address, 0)
        self.values()
        self.write("/members", ["alice", "bob"])
        for pool in (self.guard.memory.shared, self.guard.memory.pool("alice"), self.guard.memory.pool("bob")):
            self.patch(pool, "_max_bytes", 1)
        for number in range(3):
            self.write("/a/1", number)
            self.assertEqual(self.values(), [[number]] * 3)
        self.assertEqual(self.answers(), [])

    def test_fixed_verdicts_take_no_room(self) -> None:
        """They are kept in the rule."""
        self.guard.rules["/a"] = Rule(HIDDEN)
        for number in range(10):
            self.write(f"/a/{number}", number)
            self.assertEqual(heard(self.bob.ask(Get(f"/a/{number}"))), [(f"/a/{number}", None)])
        self.assertEqual(self.answers(), [])
