"""Tests of clasp_relay.core.rights.memory: which answers are kept, what ends them, and that nothing remains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.memory import (
    ANSWER_BYTES,
    FORGOTTEN_AT_ONCE,
    FORGOTTEN_WITH_ONE,
    MAX_KEY_CHARACTERS,
    READ_BYTES,
    Answer,
    Memory,
    Pool,
    Reads,
)
from clasp_relay.core.rights.port import FULL, HIDDEN, State, Verdict
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Set, Subscribe
from tests.core.guard import Guard, Rule
from tests.core.world import World, value

NOW_US = 1_000_000


def at(time_us: int) -> Callable[[], int]:
    """Returns a clock that stands at a time."""
    return lambda: time_us


def reads_of(
    by_value: Sequence[str] = (),
    by_existence: Sequence[str] = (),
    patterns: Sequence[str] = (),
    *,
    address: bool = False,
    until_us: int | None = None,
) -> Reads:
    """Returns a record of reads."""
    reads = Reads()
    reads.lookups = {**dict.fromkeys(by_existence, False), **dict.fromkeys(by_value, True)}
    reads.patterns = tuple(map(Pattern.parse, patterns))
    reads.reads_address = address
    reads.until_us = until_us
    return reads


class MemoryCase(SynchronousTestCase):
    """A memory, and a pool of one subject."""

    def setUp(self) -> None:
        """An empty memory."""
        self.memory = Memory()
        self.pool = self.memory.pool("ann")

    def keep(self, question: str, reads: Reads, *, address: str = "/x", pool: Pool | None = None) -> Answer[str]:
        """Keeps an answer whose value is its question."""
        answer = self.memory.keep(pool or self.pool, question, address, question, reads)
        assert answer is not None, "it was not kept"
        return answer

    def found(self, question: str, *, address: str = "/x", now_us: int = NOW_US) -> str | None:
        """Returns the cached answer."""
        answer: Answer[str] | None = self.memory.find(self.pool, question, address, at(now_us))
        return None if answer is None else answer.value

    def drop(self, subject: str) -> list[int]:
        """Drops a subject's pool; returns the costs of the pieces."""
        return list(self.memory.drop_pool(subject))

    def assert_empty(self, memory: Memory) -> None:
        """Asserts that all tables are empty."""
        self.assertEqual((len(memory), memory.bytes, memory.shared.bytes), (0, 0, 0))
        self.assertEqual(len(memory._ended), 0)
        for table in (memory._by_value, memory._by_existence, memory._by_pattern, memory._by_thing):
            self.assertEqual(table, {})


class KeyTests(MemoryCase):
    """The questions for which an answer is used."""

    def test_an_answer_counts_for_all_addresses_unless_it_read_one(self) -> None:
        """Then it is used for that address only."""
        self.keep("all", reads_of())
        self.keep("one", reads_of(address=True))
        self.assertEqual([self.found("all", address=address) for address in ("/x", "/y")], ["all", "all"])
        self.assertEqual([self.found("one", address=address) for address in ("/x", "/y")], ["one", None])
        self.assertIsNone(self.found("other"))

    def test_each_pool_has_its_own(self) -> None:
        """Answers for one subject are not used for another."""
        self.keep("q", reads_of())
        self.assertIsNone(self.memory.find(self.memory.pool("bob"), "q", "/x", at(NOW_US)))
        self.assertIs(self.memory.pool("ann"), self.pool)

    def test_an_answer_that_read_the_value_is_not_kept(self) -> None:
        """For another value the answer may differ."""
        reads = Reads()
        reads.reads_value = True
        self.assertIsNone(self.memory.keep(self.pool, "q", "/x", "q", reads))
        self.assert_empty(self.memory)

    def test_a_long_address_is_no_key(self) -> None:
        """If the address is not in the key, its length does not matter."""
        address = "/" + "x" * MAX_KEY_CHARACTERS
        self.assertIsNone(self.memory.keep(self.pool, "q", address, "q", reads_of(address=True)))
        self.keep("q", reads_of(), address=address)

    def test_a_second_answer_takes_the_place_of_the_first(self) -> None:
        """The first one is no longer valid for code that holds it."""
        first = self.keep("q", reads_of(["/a"]))
        second = self.keep("q", reads_of(["/b"]))
        self.assertEqual((first.is_valid, second.is_valid, len(self.memory)), (False, True, 1))
        self.memory.changed("/a", True, True)
        self.assertTrue(second.is_valid)


class EndTests(MemoryCase):
    """What ends an answer."""

    def test_a_change_ends_exactly_the_answers_that_read_it(self) -> None:
        """By value at any change; by existence when a param begins or ends; by a pattern that matches."""
        for exists, existed in ((True, True), (True, False), (False, True), (False, False)):
            with self.subTest(exists=exists, existed=existed):
                self.setUp()
                answers = {
                    "value": self.keep("value", reads_of(["/a"])),
                    "existence": self.keep("existence", reads_of([], ["/a"])),
                    "subtree": self.keep("subtree", reads_of([], [], ["/a/**"])),
                    "everything": self.keep("everything", reads_of([], [], ["/**", "/a/*"])),
                    "siblings": self.keep("siblings", reads_of([], [], ["/*", "/a/*/c"])),
                    "elsewhere": self.keep("elsewhere", reads_of(["/b"], ["/a/b"], ["/a/*", "/b/**"])),
                    "nothing": self.keep("nothing", reads_of()),
                }
                self.memory.changed("/a", exists, existed)
                left = {name for name, answer in answers.items() if answer.is_valid}
                self.assertEqual(left, {"elsewhere", "nothing"} | ({"existence"} if exists == existed else set()))
                self.assertEqual(self.memory.ended, len(answers) - len(left))
                self.assertEqual(len(self.memory), len(left))

    def test_a_pattern_is_found_below_any_head(self) -> None:
        """Also if the address is deeper than any pattern may be."""
        for text, address, matches in (
            ("/a/b/*/d", "/a/b/c/d", True),
            ("/a/b/c*", "/a/b/cd", True),
            ("/a/b/**", "/a/b", True),
            ("/a/b/*", "/a/b", False),
            ("/a/*/c", "/b/x/c", False),
            ("/a/**", "/a" + "/x" * 200, True),
            ("/*", "/a" + "/x" * 200, False),
        ):
            with self.subTest(text=text, address=address):
                answer = self.keep("q", reads_of([], [], [text]))
                self.memory.changed(address, True, True)
                self.assertIs(answer.is_valid, not matches)

    def test_an_end_in_time_counts(self) -> None:
        """To the microsecond, for look-ups and for code that holds the answer."""
        answer = self.keep("q", reads_of(until_us=NOW_US + 10))
        self.assertTrue(answer.holds(at(NOW_US + 9)))
        self.assertFalse(answer.holds(at(NOW_US + 10)))
        self.assertEqual(self.found("q", now_us=NOW_US + 9), "q")
        self.assertIsNone(self.found("q", now_us=NOW_US + 10))
        self.assertFalse(answer.holds(at(NOW_US)), "it was found to be over")
        self.assertTrue(self.keep("q", reads_of()).holds(at(NOW_US * 1000)))
        self.assertEqual(len(self.memory), 1)

    def test_what_else_was_read_ends_it_when_it_is_outdated(self) -> None:
        """The code that changes the object calls ``outdated``."""
        thing, other = object(), object()
        reads = reads_of()
        reads.things = (thing,)
        answer = self.keep("q", reads)
        self.memory.outdated(other)
        self.assertTrue(answer.is_valid)
        self.memory.outdated(thing)
        self.assertFalse(answer.is_valid)
        self.assert_empty(self.memory)


class RestingTests(MemoryCase):
    """Answers that depend on other answers."""

    def rest(self, question: str, *others: Answer[Any], reads: Reads | None = None) -> Answer[str]:
        """Keeps a shared answer that depends on others."""
        reads = reads or reads_of()
        for other in others:
            reads.rest_on(other)
        return self.keep(question, reads, pool=self.memory.shared)

    def test_an_answer_ends_with_what_it_rests_on(self) -> None:
        """Also indirectly."""
        below = self.keep("below", reads_of(["/a"]))
        beside = self.keep("beside", reads_of(["/b"]))
        middle = self.rest("middle", below, beside, below)
        top = self.rest("top", middle)
        also = self.rest("also", beside)
        self.memory.changed("/a", True, True)
        valid = [answer.is_valid for answer in (below, middle, top, beside, also)]
        self.assertEqual(valid, [False, False, False, True, True])
        self.assertEqual(beside.users, {also: None})
        self.memory.changed("/b", True, True)
        self.assert_empty(self.memory)

    def test_an_answer_ends_once_however_many_ways_lead_to_it(self) -> None:
        """If it depends on two answers that depend on the same one."""
        first = self.keep("first", reads_of(["/a"]))
        left, right = self.rest("left", first), self.rest("right", first)
        top = self.rest("top", left, right)
        self.memory.changed("/a", True, False)
        self.assertEqual([answer.is_valid for answer in (first, left, right, top)], [False] * 4)
        self.assert_empty(self.memory)

    def test_the_end_of_the_users_leaves_what_they_rest_on(self) -> None:
        """Others may depend on it."""
        below = self.keep("below", reads_of(["/a"]))
        self.rest("top", below, reads=reads_of(["/b"]))
        self.memory.changed("/b", True, True)
        self.assertTrue(below.is_valid)
        self.assertEqual(below.users, {})

    def test_two_that_end_at_once_end_once(self) -> None:
        """One change may end an answer in several ways."""
        below = self.keep("below", reads_of(["/a"]))
        self.rest("top", below, reads=reads_of(["/a"], [], ["/*"]))
        other = self.rest("other", below)
        self.rest("both", below, other)
        self.memory.changed("/a", True, True)
        self.assert_empty(self.memory)

    def test_the_earliest_end_counts(self) -> None:
        """Of whichever answer it is."""
        long = self.keep("long", reads_of(until_us=NOW_US + 30))
        short = self.keep("short", reads_of(until_us=NOW_US + 10))
        self.assertEqual(self.rest("top", long, short).until_us, NOW_US + 10)
        self.assertEqual(self.rest("own", short, reads=reads_of(until_us=NOW_US + 5)).until_us, NOW_US + 5)

    def test_what_rests_on_an_answer_about_an_address_is_about_it_too(self) -> None:
        """So the key is never too general."""
        self.rest("q", self.keep("below", reads_of(address=True)))
        find = self.memory.find
        self.assertIsNotNone(find(self.memory.shared, "q", "/x", at(NOW_US)))
        self.assertIsNone(find(self.memory.shared, "q", "/y", at(NOW_US)))

    def test_nothing_is_kept_that_rests_on_an_end(self) -> None:
        """The answer that it depends on may have been removed for the limit meanwhile."""
        below = self.keep("below", reads_of(["/a"]))
        self.memory.changed("/a", True, True)
        reads = reads_of()
        reads.rest_on(below)
        self.assertIsNone(self.memory.keep(self.memory.shared, "top", "/x", "top", reads))
        self.assert_empty(self.memory)

    def test_records_add_up(self) -> None:
        """All reads of both; the earlier of two ends."""
        below = self.keep("below", reads_of())
        one = reads_of(["/a", "/c"], ["/b"], until_us=20)
        other = reads_of(["/b"], ["/a", "/d"], ["/e/*"], address=True, until_us=10)
        other.reads_value = True
        other.things = ("thing",)
        other.rest_on(below)
        one.add(other)
        self.assertEqual(one.lookups, {"/a": True, "/b": True, "/c": True, "/d": False})
        self.assertEqual([pattern.text for pattern in one.patterns], ["/e/*"])
        self.assertEqual((one.until_us, one.reads_address, one.reads_value), (10, True, True))
        self.assertEqual((one.answers, one.things), ([below], ("thing",)))
        one.add(reads_of(until_us=15))
        one.add(reads_of())
        self.assertEqual(one.until_us, 10)


class RoomTests(MemoryCase):
    """Limits of memory."""

    def test_bytes_follow_what_is_kept(self) -> None:
        """Each read counts, with its text."""
        self.keep("q", reads_of(["/value"], ["/existence"], ["/pattern/*"]))
        texts = 2 * len("/x") + len("/value/existence/pattern/*")
        self.assertEqual(self.memory.bytes, ANSWER_BYTES + 3 * READ_BYTES + texts)
        self.assertEqual(self.pool.bytes, self.memory.bytes)
        self.memory.changed("/value", True, True)
        self.assert_empty(self.memory)

    def test_the_answer_that_was_used_longest_ago_goes_first(self) -> None:
        """And the answers that depend on it."""
        pool = Pool(3 * ANSWER_BYTES)
        for name in ("a", "b"):
            self.keep(name, reads_of(), pool=pool)
        oldest = self.keep("top", reads_of(), pool=self.memory.shared)
        answer: Answer[str] | None = self.memory.find(pool, "a", "/x", at(NOW_US))
        assert answer is not None
        reads = reads_of()
        reads.rest_on(pool.answers["b"])
        user = self.keep("user", reads, pool=self.memory.shared)
        self.keep("c", reads_of(), pool=pool)
        self.assertEqual(list(pool.answers), ["a", "c"])
        self.assertEqual((user.is_valid, oldest.is_valid), (False, True))
        self.assertEqual(self.memory.evicted, 1)
        self.assertFalse(pool.is_full)

    def test_an_answer_larger_than_its_pool_is_not_kept(self) -> None:
        """It removes no other answers."""
        pool = Pool(ANSWER_BYTES)
        self.assertIsNone(self.memory.keep(pool, "q", "/x", "q", reads_of(["/a"])))
        self.assert_empty(self.memory)

    def test_a_pool_goes_with_its_subject(self) -> None:
        """And answers that depend on it; other subjects keep theirs. A subject without a pool is accepted."""
        mine = self.keep("mine", reads_of(["/a"], ["/b"], ["/c/*"]))
        reads = reads_of()
        reads.rest_on(mine)
        shared = self.keep("shared", reads, pool=self.memory.shared)
        other = self.keep("other", reads_of(["/a"]), pool=self.memory.pool("bob"))
        for subject in ("ann", "ann"):
            self.drop(subject)
        self.assertEqual([answer.is_valid for answer in (mine, shared, other)], [False, False, True])
        self.assertIsNot(self.memory.pool("ann"), self.pool)
        self.drop("bob")
        self.assert_empty(self.memory)

    def test_misses_are_counted(self) -> None:
        """Each question whose answer was not cached."""
        self.keep("a", reads_of())
        self.found("a")
        self.keep("b", reads_of())
        self.assertEqual(self.memory.missed, 2)


class ManyTests(MemoryCase):
    """Many answers that end at the same moment."""

    MANY = 5_000

    def keep_many(self, reads: Callable[[], Reads]) -> list[Answer[str]]:
        """Keeps many answers; a third of them end only because they depend on others."""
        shared = self.memory.shared
        answers = []
        for number in range(self.MANY):
            answers.append(self.keep(f"q{number}", reads(), pool=shared))
            if number % 2:
                rests = reads_of()
                rests.rest_on(answers[-1])
                answers.append(self.keep(f"r{number}", rests, pool=shared))
        return answers

    def assert_nobody_is_found(self) -> None:
        """Asserts that none of them is valid, whether still in the tables or not."""
        for number in (0, 1, self.MANY // 2, self.MANY - 1):
            self.assertIsNone(self.memory.find(self.memory.shared, f"q{number}", "/x", at(NOW_US)))

    def test_a_change_ends_all_at_once_and_takes_some_out(self) -> None:
        """Whatever they read of the address; the others are removed when later answers are kept."""

        def by_thing() -> Reads:
            reads = reads_of()
            reads.things = ("thing",)
            return reads

        for name, reads, change in (
            ("value", lambda: reads_of(["/a"]), lambda: self.memory.changed("/a", True, True)),
            ("existence", lambda: reads_of([], ["/a"]), lambda: self.memory.changed("/a", True, False)),
            ("pattern", lambda: reads_of([], [], ["/*"]), lambda: self.memory.changed("/a", True, True)),
            ("thing", by_thing, lambda: self.memory.outdated("thing")),
        ):
            with self.subTest(name):
                self.setUp()
                answers = self.keep_many(reads)
                change()
                self.assertEqual([answer for answer in answers if answer.is_valid], [])
                self.assertEqual(self.memory.ended, len(answers))
                left = len(self.memory)
                self.assertGreaterEqual(left, len(answers) - FORGOTTEN_AT_ONCE)
                self.assertLess(left, len(answers))
                self.assert_nobody_is_found()
                change()
                self.assertEqual(self.memory.ended, len(answers), "they end once")
                for number in range(len(answers)):
                    before = len(self.memory)
                    self.keep("new", reads_of())
                    self.assertGreaterEqual(len(self.memory), before - FORGOTTEN_WITH_ONE)
                    if not number % 100:
                        self.keep(f"q{number}", reads(), pool=self.memory.shared)
                self.assertEqual(len(self.memory._ended), 0)
                change()
                self.drop("ann")
                self.assert_empty(self.memory)

    def test_what_ended_and_is_in_the_tables_ends_nothing_new(self) -> None:
        """A new answer to the same question replaces the ended one, and is not removed with it."""
        self.keep_many(lambda: reads_of(["/a"], [], ["/a/*"]))
        self.memory.changed("/a", True, True)
        last = f"q{self.MANY - 1}"
        again = self.keep(last, reads_of(["/a"], [], ["/a/*"]), pool=self.memory.shared)
        self.drop("nobody")
        self.assertTrue(again.is_valid)
        self.assertEqual(len(self.memory), 1)
        self.memory.changed("/a/b", True, True)
        self.assertFalse(again.is_valid)
        self.assert_empty(self.memory)

    def test_a_subjects_answers_go_in_pieces(self) -> None:
        """For any number of answers, and of answers that depend on them."""
        count = 0
        while not self.memory.evicted:
            count += 1
            reads = reads_of()
            reads.rest_on(self.keep(f"q{count}", reads_of(["/a"])))
            self.keep(f"r{count}", reads, pool=self.memory.shared)
        costs = self.drop("ann")
        self.assertGreater(len(costs), 2 * count * 2 // (FORGOTTEN_AT_ONCE + 3))
        self.assertLessEqual(max(costs), FORGOTTEN_AT_ONCE + 3)
        self.assert_empty(self.memory)


def is_member(subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
    """Shows an address to a subject for which a param is set."""
    address = f"/members/{subject}"
    return Verdict(HIDDEN if state.get(address) is None else FULL, reads_of([address]))


class GuestTests(MemoryCase):
    """Sessions that begin and end."""

    def test_guests_who_come_and_go_leave_nothing(self) -> None:
        """6,000 of them, in a room whose visibility is decided for each, with one session that stays."""
        guard = Guard()
        guard.hello_snapshot = False
        guard.rules["/room/"] = Rule(is_member)
        guard.rules["/notes/"] = Rule(frozenset(("secret",)))
        world = World(permissions=guard)
        host = world.join("admin")
        names = [f"guest{number}" for number in range(6000)]
        for number, name in enumerate(names):
            guest = world.join(name)
            guest.send(Subscribe(1, "/room/*"))
            guest.send(Subscribe(2, "/notes/*"))
            if number % 2:
                guest.send(Set(f"/members/{name}", value(True)))
            for address in (f"/room/{number % 10}", "/notes/1"):
                guest.send(Set(address, value({"secret": number})))
            self.assertTrue(guest.hear())
            guest.leave()
            world.advance(0)
        self.assertGreater(guard.memory.missed, len(names))
        self.assertEqual(guard.memory._pools.keys() - {"admin"}, set())
        host.leave()
        world.advance(0)
        self.assert_empty(guard.memory)
        self.assertEqual(guard.memory._pools, {})
        self.assertEqual(world.faults, [])
