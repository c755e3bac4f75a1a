"""Tests of clasp_relay.core.state.draft: the state as staged changes would leave it."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, Ended, Param
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import MATCH_COST, ParamLimits, Params
from clasp_relay.core.state.tree import TooMuchError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import NULL
from tests.core.world import value, written


def change(address: str, revision: int, obj: object = 1, writer: str = "w") -> Param:
    """Returns a change."""
    return Param(address, value(obj), revision, writer, revision * 10)


class DraftTests(SynchronousTestCase):
    def setUp(self) -> None:
        """/a is set, /b is set and locked by «w», /gone was deleted."""
        self.params = Params(ParamLimits())
        for one in (change("/a", 1), change("/gone", 1), change("/gone", 2, None)):
            self.params.apply(Change(one))
        self.params.apply(written(self.params, change("/b", 1), lock=True))
        self.image = self.params.image()
        self.draft = Draft(self.params)

    def tearDown(self) -> None:
        """Checks that nothing of a draft was applied."""
        self.assertEqual(self.params.image(), self.image)
        self.assertEqual(self.params.holder("/b"), "w")

    def stage(self, one: Param, *, lock: bool = False, unlock: bool = False, stamp: str | None = None) -> None:
        """Stages a change."""
        self.draft.stage(written(self.params, one, lock=lock, unlock=unlock, stamp=stamp))

    def outcomes(self) -> list[tuple[Param, str | None]]:
        """Returns the last param of each address, and the stamp that it leaves."""
        return [(each.param, each.stamp) for each in self.draft.outcomes()]

    def found(self, pattern: str) -> list[tuple[str, int]]:
        """Returns address and revision of the params that match."""
        return sorted((one.address, one.revision) for one in self.draft.match(Pattern.parse(pattern)))

    def test_empty_draft_is_what_lies_below(self) -> None:
        """In all its methods."""
        self.assertEqual(self.draft.get("/a"), self.params.get("/a"))
        self.assertEqual(self.found("/**"), [("/a", 1), ("/b", 1)])
        self.assertEqual(self.draft.ended("/gone"), Ended(2, 20))
        self.assertEqual([self.draft.last_revision(address) for address in ("/a", "/gone", "/new")], [1, 2, 0])
        self.assertEqual((self.draft.holder("/a"), self.draft.holder("/b")), (None, "w"))
        self.assertEqual(self.outcomes(), [])

    def test_staged_change_is_seen_on_top(self) -> None:
        """Only the last change of each address, once."""
        for one in (change("/a", 2), change("/a", 3), change("/gone", 3), change("/new/x", 1)):
            self.stage(one)
        self.assertEqual(self.draft.get("/a"), change("/a", 3))
        self.assertEqual(self.found("/**"), [("/a", 3), ("/b", 1), ("/gone", 3), ("/new/x", 1)])
        self.assertEqual(self.found("/new/*"), [("/new/x", 1)])
        self.assertIsNone(self.draft.ended("/gone"))
        self.assertEqual(self.draft.last_revision("/a"), 3)
        expected = [(one, None) for one in (change("/a", 3), change("/gone", 3), change("/new/x", 1))]
        self.assertEqual(self.outcomes(), expected)

    def test_staged_null_ends_a_param(self) -> None:
        """It is not found, and its end has its stamp, until it is set again."""
        end = Param("/a", NULL, 2, "w", 99, None, "alice")
        self.stage(end, stamp="bob")
        self.assertIsNone(self.draft.get("/a"))
        self.assertEqual(self.found("/**"), [("/b", 1)])
        self.assertEqual(self.draft.ended("/a"), Ended(2, 99, "alice", "bob"))
        self.assertEqual(self.outcomes(), [(end, "bob")])
        self.stage(change("/a", 3))
        self.assertIsNone(self.draft.ended("/a"))
        self.assertEqual(self.outcomes(), [(change("/a", 3), None)])

    def test_patterns_are_found_whatever_is_staged_behind_the_first_look(self) -> None:
        """Nulls, and params that are set again."""
        self.stage(change("/n/1", 1))
        self.stage(change("/n/2", 1, None))
        self.assertEqual(self.found("/n/*"), [("/n/1", 1)])
        for one in (change("/n/1", 2, None), change("/n/1", 3, None), change("/n/2", 2), change("/n/3", 1)):
            self.stage(one)
        self.assertEqual(self.found("/n/*"), [("/n/2", 2), ("/n/3", 1)])
        self.assertEqual((self.found("/n/2"), self.found("/n/1")), ([("/n/2", 2)], []))

    def test_search_of_many_changes_is_bounded(self) -> None:
        """As in ``Params``: if many match, only some are found."""
        count = 10 * MATCH_COST
        for number in range(count):
            self.stage(change(f"/n/{number}", 1))
        found = self.found("/n/*")
        self.assertTrue(0 < len(found) <= MATCH_COST, len(found))
        self.assertEqual(self.found("/n/*00"), [("/n/100", 1)])
        self.assertRaises(TooMuchError, self.found, f"/n/*{count - 1}")

    def test_locks_are_as_the_changes_leave_them(self) -> None:
        """Taken, released, and ended with the param."""
        self.stage(change("/a", 2, writer="me"), lock=True)
        self.stage(change("/b", 2), unlock=True)
        self.assertEqual((self.draft.holder("/a"), self.draft.holder("/b")), ("me", None))
        self.stage(change("/a", 3, None))
        self.assertIsNone(self.draft.holder("/a"))

    def test_life_time_is_that_of_the_table(self) -> None:
        """With the server's default."""
        params = Params(ParamLimits(default_ttl_s=10))
        draft = Draft(params)
        for ttl in (None, 0, 5, 5 | TTL_ABSOLUTE):
            self.assertEqual(draft.due_us(ttl, 7), params.due_us(ttl, 7))
