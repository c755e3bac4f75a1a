"""Tests of clasp_relay.core.work: pieces of work, in bounded turns."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.work import TURN_US, Pieces, Work
from tests.core.world import WorldClock


class Owner:
    """A session, as far as work needs one."""

    def __init__(self, lane: str) -> None:
        self.lane = lane


class WorkTests(SynchronousTestCase):
    """Work of several owners."""

    def setUp(self) -> None:
        """No work yet."""
        self.clock = WorldClock()
        self.faults: list[str] = []
        self.work = Work(self.clock, lambda what, fault: self.faults.append(f"{what}: {fault}"))
        self.done: list[str] = []

    def pieces(self, name: str, count: int, cost_us: int = TURN_US) -> Pieces:
        """Yields work of this many pieces."""
        for number in range(count):
            self.done.append(f"{name}{number}")
            yield cost_us

    def after(self) -> tuple[list[str], int]:
        """Returns what was done and in how many turns, when no work is left."""
        self.clock.clock.advance(0)
        self.assertEqual((bool(self.work), self.clock.clock.getDelayedCalls()), (False, []))
        return self.done, self.work.turns

    def test_little_work_is_done_at_once(self) -> None:
        """And costs no more turns than one."""
        self.work.add("a", self.pieces("a", 3, 10))
        self.assertEqual((self.done, bool(self.work)), (["a0", "a1", "a2"], False))
        self.assertEqual(self.after(), (["a0", "a1", "a2"], 1))

    def test_owners_are_served_in_turn(self) -> None:
        """One piece of each; the work of one owner in the order in which it was added."""
        self.work.add("a", self.pieces("a", 2))
        self.work.add("a", self.pieces("later", 1))
        self.work.add("b", self.pieces("b", 1))
        self.assertEqual(self.done, ["a0"])
        self.assertEqual(self.after(), (["a0", "a1", "b0", "later0"], 5))

    def test_owners_of_one_address_have_one_place_together(self) -> None:
        """However many they are; the owner is the last item of a tuple."""
        for number in range(50):
            owner = Owner("192.0.2.1")
            self.work.add(("a", owner) if number % 2 else owner, self.pieces(f"crowd{number}-", 2))
        for name, other in (("other", Owner("192.0.2.2")), ("none", Owner(""))):
            self.work.add(other, self.pieces(name, 2))
        self.after()
        for name in ("other1", "none1"):
            self.assertLess(self.done.index(name), 10)
        self.assertEqual([name for name in self.done if name.endswith("-0")], [f"crowd{n}-0" for n in range(50)])
        self.assertLess(self.done.index("crowd49-0"), self.done.index("crowd1-1"), "they take turns, too")
        self.assertEqual(len(self.done), 104)

    def test_piece_that_takes_longer_than_it_says_counts_by_the_clock(self) -> None:
        """Also the last step of a work, which yields no cost. The rest waits for the next turn."""

        def slow(name: str) -> Pieces:
            for number in range(2):
                self.done.append(f"{name}{number}")
                self.clock.clock.rightNow += TURN_US * 0.6e-6
                yield 1
            self.clock.clock.rightNow += TURN_US * 1e-6

        self.work.add("a", slow("a"))
        self.assertEqual(self.done, ["a0", "a1"])
        self.work.add("b", slow("b"))
        self.assertEqual(self.done, ["a0", "a1"])
        done, turns = self.after()
        self.assertEqual(done, ["a0", "a1", "b0", "b1"])
        self.assertGreater(turns, 2)

    def test_work_that_is_added_by_work_waits_behind_it(self) -> None:
        """It is not done within the piece that adds it."""

        def adding() -> Pieces:
            self.work.add("b", self.pieces("b", 1, 1))
            self.done.append("after")
            yield 1

        self.work.add("a", adding())
        self.assertEqual(self.after(), (["after", "b0"], 1))

    def test_fault_ends_its_own_work_only(self) -> None:
        """It is reported."""

        def failing() -> Pieces:
            yield 1
            raise ZeroDivisionError("a secret")

        self.work.add("a", failing())
        self.work.add("a", self.pieces("a", 1))
        self.assertEqual(self.after(), (["a0"], 2))
        self.assertEqual(self.faults, ["work that was done in pieces: a secret"])
