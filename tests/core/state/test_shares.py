"""Tests of clasp_relay.core.state.shares: the addresses and bytes of owners."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state.shares import Excess, Move, ShareLimits, Shares
from clasp_relay.errors import ErrorCode

_OWNERS = ("", "alice", "bob")


def new(address: str, owner: str, size_bytes: int = 10) -> Move:
    """Returns the move of an owner that writes at a new address."""
    return Move(address, "", 0, owner, size_bytes, is_written=True)


class SharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Alice has two of two params and 20 of 30 bytes, Bob one param and 10 bytes."""
        self.shares = Shares(ShareLimits(2, 30), "one user")
        for owner in ("alice", "alice", "bob"):
            self.shares.add(owner, 10)

    def excess(self, *moves: Move) -> Excess | None:
        """Returns the excesses; checks that the ERROR names the owner."""
        found = list(self.shares.excess(moves))
        if not found:
            return None
        (excess,) = found
        self.assertEqual(excess.refusal.code, ErrorCode.OVERLOADED)
        self.assertIn("one user", excess.refusal.message)
        return excess

    def refusal(self, *moves: Move) -> tuple[str | None, int, int] | None:
        """Returns the refused address, and the params and bytes that are too many."""
        excess = self.excess(*moves)
        return None if excess is None else (excess.refusal.address, excess.params, excess.size_bytes)

    def test_owner_at_its_limit_gets_no_more(self) -> None:
        """Neither a new address nor that of another owner; it may overwrite its own."""
        self.assertEqual(self.refusal(new("/new", "alice")), ("/new", 1, 0))
        self.assertEqual(self.refusal(Move("/bob", "bob", 10, "alice", 10, True)), ("/bob", 1, 0))
        self.assertIsNone(self.refusal(Move("/alice", "alice", 10, "alice", 20, True)))
        self.assertEqual(self.refusal(Move("/alice", "alice", 10, "alice", 25, True)), ("/alice", 0, 5))
        self.assertEqual(self.refusal(new("/new", "bob", 25)), ("/new", 0, 5))
        self.assertEqual(self.refusal(new("/new", "alice", 25)), ("/new", 1, 15))

    def test_refusal_says_which_limit_it_is(self) -> None:
        """With the name of the option."""
        for move, text in (
            (new("/new", "alice"), "2 params (max-params-per-subject)"),
            (new("/new", "bob", 25), "30 bytes (max-bytes-per-subject)"),
        ):
            with self.subTest(text):
                excess = self.excess(move)
                self.assertIn(text, str(excess and excess.refusal))

    def test_others_are_not_counted(self) -> None:
        """Bob has room, and an empty owner has no limit."""
        self.assertIsNone(self.refusal(new("/new", "bob")))
        self.assertIsNone(self.refusal(*(new(f"/{n}", "", 1000) for n in range(9))))

    def test_changes_count_together(self) -> None:
        """One change may use the room that another frees."""
        freed = Move("/old", "alice", 10, "", 0, is_written=False)
        self.assertIsNone(self.refusal(freed, new("/new", "alice")))
        self.assertEqual(self.refusal(freed, new("/new", "alice"), new("/more", "alice")), ("/more", 1, 0))
        self.assertEqual(self.refusal(freed, new("/new", "alice", 25)), ("/new", 0, 5))
        self.assertEqual(self.refusal(*(new(f"/{number}", "bob") for number in range(5))), ("/4", 4, 30))

    def test_every_owner_that_gets_too_much_is_told(self) -> None:
        """All owners of the changes."""
        moves = (new("/a", "alice"), new("/b", "bob"), new("/c", "bob"))
        self.assertEqual([excess.owner for excess in self.shares.excess(moves)], ["alice", "bob"])

    def test_end_always_passes(self) -> None:
        """A stamped tombstone counts for its owner, but never prevents the end of a param."""
        self.assertIsNone(self.refusal(Move("/bob", "bob", 10, "alice", 4, is_written=False)))

    def test_who_has_too_much_already_may_write_less(self) -> None:
        """As after a start with smaller limits."""
        self.shares.resize("alice", 100)
        self.assertIsNone(self.refusal(Move("/alice", "alice", 110, "alice", 100, True)))
        self.assertEqual(self.refusal(Move("/alice", "alice", 110, "alice", 111, True)), ("/alice", 0, 91))

    def test_owner_surely_has_room(self) -> None:
        """For one more address."""
        self.assertTrue(self.shares.has_room("bob", 20))
        self.assertFalse(self.shares.has_room("bob", 21))
        self.assertFalse(self.shares.has_room("alice", 1))
        self.assertTrue(self.shares.has_room("", 1000))
        self.assertTrue(self.shares.has_room("new", 30))

    def test_either_limit_may_be_missing(self) -> None:
        """0 is no limit."""
        many = [new(f"/{number}", "alice", 100) for number in range(9)]
        for limits, expected in (
            (ShareLimits(), None),
            (ShareLimits(max_params=2), (7, 0)),
            (ShareLimits(max_bytes=200), (0, 700)),
        ):
            with self.subTest(limits=limits):
                shares = Shares(limits, "one user")
                self.assertEqual(shares.is_limited, expected is not None)
                found = [(excess.params, excess.size_bytes) for excess in shares.excess(many)]
                self.assertEqual(found, [expected] if expected else [])
                self.assertTrue(shares.has_room("alice", 100))

    @given(st.lists(st.tuples(st.sampled_from(_OWNERS), st.sampled_from(_OWNERS), st.integers(1, 99))))
    def test_what_is_counted_is_what_owners_have(self, steps: list[tuple[str, str, int]]) -> None:
        """Nothing is kept of those who have nothing: owners come and go."""
        shares = Shares(ShareLimits(), "one user")
        has: dict[str, list[int]] = {owner: [] for owner in _OWNERS}
        for loses, gets, size_bytes in steps:
            if has[loses]:
                shares.remove(loses, has[loses].pop())
            shares.add(gets, size_bytes)
            shares.resize(gets, 1)
            has[gets].append(size_bytes + 1)
        counted = [owner for owner in _OWNERS[1:] if has[owner]]
        self.assertEqual(sorted(shares._params), counted)
        self.assertEqual(sorted(shares._bytes), counted)
        for owner in counted:
            self.assertEqual((shares.params_of(owner), shares.bytes_of(owner)), (len(has[owner]), sum(has[owner])))
