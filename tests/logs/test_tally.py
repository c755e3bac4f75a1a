"""Tests of clasp_relay.logs.tally."""

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.tally import MAX_OFFENDERS, WINDOW_S, Tally


class TallyTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a tally."""
        self.clock = Clock()
        self.said: list[tuple[str, int]] = []
        self.tally = Tally(self.clock.callLater, self.saying("others"))

    def saying(self, name: str) -> Callable[[int], None]:
        """Returns what keeps a line."""
        return lambda count: self.said.append((name, count))

    def lines(self) -> list[tuple[str, int]]:
        """Returns what was said since the last time."""
        said = self.said[:]
        self.said.clear()
        return said

    def test_first_one_is_told_at_once(self) -> None:
        """And nothing follows when it was the only one."""
        self.tally.note("a", self.saying("a"))
        self.assertEqual(self.lines(), [("a", 1)])
        self.clock.advance(WINDOW_S)
        self.assertEqual(self.lines(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_others_of_a_minute_are_told_together_at_its_end(self) -> None:
        """By the words of the last one; minute after minute while it goes on."""
        self.tally.note("a", self.saying("first"))
        for minute in range(3):
            self.lines()
            for number in range(5 + minute):
                self.tally.note("a", self.saying(f"number {number}"))
            self.clock.advance(WINDOW_S - 1)
            self.assertEqual(self.lines(), [])
            self.clock.advance(1)
            self.assertEqual(self.lines(), [(f"number {4 + minute}", 5 + minute)])
        self.clock.advance(WINDOW_S)
        self.tally.note("a", self.saying("again"))
        self.assertEqual(self.lines(), [("again", 1)])

    def test_offenders_are_told_apart(self) -> None:
        """Each has its own lines."""
        for name in "abab":
            self.tally.note(name, self.saying(name))
        self.clock.advance(WINDOW_S)
        self.assertEqual(self.lines(), [("a", 1), ("b", 1), ("a", 1), ("b", 1)])

    def test_offenders_without_room_are_counted_together(self) -> None:
        """So memory and lines stay bounded, whatever addresses somebody has."""
        for number in range(MAX_OFFENDERS + 50):
            self.tally.note(number, self.saying("one"))
        self.assertEqual(self.lines(), [("one", 1)] * MAX_OFFENDERS + [("others", 1)])
        self.assertLessEqual(len(self.clock.getDelayedCalls()), MAX_OFFENDERS + 1)
        self.clock.advance(WINDOW_S)
        self.assertEqual(self.lines(), [("others", 49)])

    def test_what_is_still_to_be_said_is_said_at_the_end(self) -> None:
        """Nothing is left to be called afterwards."""
        for name in "aab":
            self.tally.note(name, self.saying(name))
        self.lines()
        self.tally.flush()
        self.assertEqual(self.lines(), [("a", 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
