"""Tests of clasp_relay.core.state.shares: how many addresses one subject may take."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state.shares import Move, Shares
from clasp_relay.errors import ErrorCode


class SharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Alice has two of two, Bob one."""
        self.shares = Shares(2)
        for subject in ("alice", "alice", "bob"):
            self.shares.move("", subject)

    def refusal(self, *moves: Move) -> str | None:
        """Returns the address that is refused."""
        found = list(self.shares.excess(moves))
        if not found:
            return None
        ((_, self.over, error),) = found
        self.assertEqual(error.code, ErrorCode.OVERLOADED)
        self.assertIn("max-params-per-subject", error.message)
        return error.address

    def test_subject_at_its_limit_gets_no_more(self) -> None:
        """Neither a new address nor somebody else's."""
        self.assertEqual(self.refusal(Move("/new", "", "alice", True)), "/new")
        self.assertEqual(self.refusal(Move("/bob", "bob", "alice", True)), "/bob")
        self.assertIsNone(self.refusal(Move("/alice", "alice", "alice", True)))

    def test_others_are_not_counted(self) -> None:
        """Bob has room, and nobody in particular has no limit."""
        self.assertIsNone(self.refusal(Move("/new", "", "bob", True)))
        self.assertIsNone(self.refusal(*(Move(f"/{n}", "", "", True) for n in range(9))))

    def test_changes_count_together(self) -> None:
        """What frees a place makes room for another."""
        freed, new = Move("/old", "alice", "", False), Move("/new", "", "alice", True)
        self.assertIsNone(self.refusal(freed, new))
        self.assertEqual(self.refusal(freed, new, Move("/more", "", "alice", True)), "/more")
        self.assertEqual(self.refusal(Move("/b1", "", "bob", True), Move("/b2", "", "bob", True)), "/b2")
        self.assertEqual(self.over, 1)
        self.refusal(*(Move(f"/{number}", "", "bob", True) for number in range(5)))
        self.assertEqual(self.over, 4)

    def test_end_always_passes(self) -> None:
        """What stays stamped for a subject is counted, and never a reason to keep a value."""
        self.assertIsNone(self.refusal(Move("/bob", "bob", "alice", False)))

    def test_moved_address_counts_for_its_new_subject(self) -> None:
        """The old one has room again."""
        self.shares.move("alice", "bob")
        self.assertIsNone(self.refusal(Move("/new", "", "alice", True)))
        self.assertEqual(self.refusal(Move("/new", "", "bob", True)), "/new")

    def test_no_limit_refuses_nothing(self) -> None:
        """0 is no limit."""
        self.assertEqual(list(Shares(0).excess([Move("/a", "", "alice", True)] * 100)), [])

    def test_nothing_is_kept_of_who_has_nothing(self) -> None:
        """Subjects come and go."""
        for subject in ("alice", "alice", "bob"):
            self.shares.move(subject, "")
        self.shares.move("bob", "bob")
        self.assertFalse(self.shares._counts)
