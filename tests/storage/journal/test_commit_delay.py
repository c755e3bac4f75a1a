"""Tests of clasp_relay.storage.journal.commit_delay: which turns a commit waits for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.journal.commit_delay import MANY_CHANGES, MAX_DELAY_S, MAX_GROWTH_S, CommitDelay


class CommitDelayTests(SynchronousTestCase):
    """Turn after turn, by a clock of the test."""

    def setUp(self) -> None:
        """Nothing has been appended."""
        self.worked_s = 0.0
        self.delay = CommitDelay(lambda: self.worked_s)

    def goes_on(self, seq: int, changes: int = 1, *, is_behind: bool = False) -> bool:
        """Returns whether the commit waits for the next turn."""
        return self.delay.goes_on(seq, changes, is_behind=is_behind)

    def test_commit_waits_while_each_turn_brings_more(self) -> None:
        """It is made in the first turn that brings nothing."""
        self.assertEqual([self.goes_on(seq) for seq in (1, 2, 3, 3)], [True, True, True, False])

    def test_commit_of_many_changes_does_not_wait_for_more(self) -> None:
        """The limit is a number of changes."""
        self.assertTrue(self.goes_on(1, MANY_CHANGES - 1))
        self.assertFalse(self.goes_on(2, MANY_CHANGES))

    def test_commit_of_what_was_seen_does_not_wait(self) -> None:
        """Nothing has come since."""
        self.delay.saw(7)
        self.assertFalse(self.goes_on(7))

    def test_wait_for_growth_is_bounded_in_working_time(self) -> None:
        """However many turns bring more."""
        self.assertTrue(self.goes_on(1))
        self.worked_s = MAX_GROWTH_S
        self.assertFalse(self.goes_on(2))
        self.assertTrue(self.goes_on(3), "the next commit waits anew")

    def test_commit_waits_longer_while_there_is_more_to_read(self) -> None:
        """Also where it has many changes, and for a bounded time."""
        self.assertTrue(self.goes_on(1, MANY_CHANGES, is_behind=True))
        self.worked_s = MAX_GROWTH_S
        self.assertTrue(self.goes_on(1, MANY_CHANGES, is_behind=True))
        self.worked_s = MAX_DELAY_S
        self.assertFalse(self.goes_on(1, MANY_CHANGES, is_behind=True))
