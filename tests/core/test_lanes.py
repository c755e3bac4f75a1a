"""Tests of ``clasp_relay.core.lanes``."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.lanes import Lanes, in_turn

ITEMS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), unique=True)


class LanesTests(SynchronousTestCase):
    def test_lanes_take_turns(self) -> None:
        """However many items one lane has; within a lane, first in first out."""
        lanes: Lanes[str] = Lanes()
        for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
            lanes.add(item, item[0])
        self.assertEqual([lanes.pop() for _ in range(6)], ["a1", "b1", "c1", "a2", "b2", "a3"])
        self.assertRaises(KeyError, lanes.pop)

    def test_newcomer_waits_for_one_of_each_other_lane(self) -> None:
        """Even if the other lanes never become empty."""
        lanes: Lanes[str] = Lanes()
        for number in range(100):
            lanes.add(f"a{number}", "a")
        lanes.pop()
        lanes.add("b", "b")
        self.assertEqual([lanes.pop(), lanes.pop()], ["a1", "b"])

    def test_nothing_waits_twice(self) -> None:
        """A queued item keeps its place and its lane."""
        lanes: Lanes[str] = Lanes()
        for item, lane in (("x", "a"), ("y", "a"), ("x", "b")):
            lanes.add(item, lane)
        self.assertEqual((len(lanes), lanes.pop(), lanes.pop()), (2, "x", "y"))

    @given(ITEMS, st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))))
    def test_what_is_taken_out_leaves_the_others(
        self, items: list[tuple[str, int]], gone: list[tuple[str, int]]
    ) -> None:
        """Whether the item was queued or not."""
        lanes: Lanes[tuple[str, int]] = Lanes()
        for item in items:
            lanes.add(item, item[0])
        for item in gone:
            lanes.discard(item)
        left = [item for item in items if item not in gone]
        self.assertEqual([item in lanes for item in items], [item in left for item in items])
        self.assertEqual((len(lanes), bool(lanes)), (len(left), bool(left)))
        came = [lanes.pop() for _ in left]
        for name in "abc":
            self.assertEqual([each for each in came if each[0] == name], [each for each in left if each[0] == name])


class InTurnTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from("abcd")))
    def test_first_of_each_lane_comes_before_the_second_of_any(self, lanes: list[str]) -> None:
        """Otherwise in the given order."""
        items = list(enumerate(lanes))
        rounds: list[list[tuple[int, str]]] = []
        counts: dict[str, int] = {}
        for item in items:
            number = counts.get(item[1], 0)
            counts[item[1]] = number + 1
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(item)
        self.assertEqual(in_turn(items, lambda item: item[1]), list(chain.from_iterable(rounds)))

    @given(st.lists(st.integers(1, 3), min_size=60, max_size=60), st.integers(2, 200))
    def test_one_waits_for_one_of_each_other_lane_however_little_is_taken(self, taken: list[int], crowd: int) -> None:
        """If the rest is put before the later items."""
        waiting: list[tuple[str, int]] = []
        before: dict[str, list[str]] = {}
        for count in taken:
            ready = [("crowd", number) for number in range(crowd)] + [("one", 0), ("two", 0)]
            waiting = in_turn([*waiting, *(each for each in ready if each not in waiting)], lambda each: each[0])
            for lane, _ in waiting[:count]:
                if lane != "crowd":
                    served = before.pop(lane, [])
                    self.assertLessEqual(max(map(served.count, served), default=0), 1)
                for others in before.values():
                    others.append(lane)
            waiting = waiting[count:]
            for lane, _ in waiting:
                if lane != "crowd":
                    before.setdefault(lane, [])
