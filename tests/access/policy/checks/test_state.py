"""Checks of what is stored: one table for each."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.wire.values import PyValue
from tests.access.policy.world import World, check_of, question

META = "/app/r1/meta"
LOOKUP = "/app/{room}/meta"
NOTHING = object()


class StateCheckTests(SynchronousTestCase):
    """Each check against what may stand at the address that it looks up."""

    def check(self, document: dict[str, object], cases: list[tuple[object, bool]]) -> None:
        """Asserts whether the check passes for alice when a value is stored."""
        check = check_of(document)
        for stored, passes in cases:
            with self.subTest(type=document["type"], stored=stored):
                world = World()
                if stored is not NOTHING:
                    world.put(META, stored)
                asked = question(world)
                self.assertIs(check.passes(asked), passes)
                self.assertIn(META, asked.reads.lookups)
                self.assertIn(META, check.refusal(asked))

    def test_state_field_equals_session(self) -> None:
        """The field is the subject's id, as a string."""
        cases: list[tuple[object, bool]] = [
            ({"by": "alice"}, True),
            ({"by": "bob"}, False),
            ({"by": "alice2"}, False),
            ({"by": ["alice"]}, False),
            ({"by": b"alice"}, False),
            ({"other": "alice"}, False),
            ({"by": None}, False),
            ("alice", False),
            (None, False),
            (NOTHING, False),
        ]
        document: dict[str, object] = {"type": "state_field_equals_session", "lookup": LOOKUP, "field": "by"}
        self.check(document, cases)

    def test_state_field_equals_session_or_missing(self) -> None:
        """Nothing there passes with allow_if_missing, a stored null too; a map without the field does not."""
        document = {"type": "state_field_equals_session", "lookup": LOOKUP, "field": "by", "allow_if_missing": True}
        self.check(
            document, [(NOTHING, True), (None, True), ({}, False), ({"by": "bob"}, False), ({"by": "alice"}, True)]
        )

    def test_state_not_null_and_state_null(self) -> None:
        """What is missing counts as null; false, 0 and empty maps do not."""
        for stored, is_set in ((NOTHING, False), (None, False), (False, True), (0, True), ({}, True), ("", True)):
            self.check({"type": "state_not_null", "lookup": LOOKUP}, [(stored, is_set)])
            self.check({"type": "state_null", "lookup": LOOKUP}, [(stored, not is_set)])

    def test_state_not_null_at_value_field(self) -> None:
        """The field is one segment of the address, as it stands; whatever else it may be looks nothing up."""
        document: dict[str, object] = {
            "type": "state_not_null_at_value_field",
            "field": "where",
            "lookup": "/app/{value}/{user}/{session}",
        }
        check = check_of(document)
        world = World()
        world.put("/app/r7/bob/alice", 1)
        world.put("/app/{user}/bob/alice", 1)
        cases: list[tuple[PyValue, bool]] = [
            ({"where": "r7"}, True),
            ({"where": "{user}"}, True),
            *[({"where": where}, False) for where in ("r8", "", "*", "**", "r*", "r7/bob", "x/../r7", 7, None, ["r7"])],
            ({}, False),
            ("r7", False),
            (None, False),
            ({"where": "x" * 60_000}, False),
        ]
        for written, passes in cases:
            with self.subTest(written=repr(written)[:40]):
                asked = question(world, value=written)
                self.assertIs(check.passes(asked), passes)
                self.assertTrue(asked.reads.reads_value)
        asked = question(world, value={"where": "r7"})
        check.passes(asked)
        self.assertEqual(asked.reads.lookups, {"/app/r7/bob/alice": False})
        self.assertIn("'where'", check.refusal(asked))

    def test_field_of_the_value_is_no_capture(self) -> None:
        """A path that captures ``{value}`` would make two things of one name; a lookup has to be an address."""
        document: dict[str, object] = {"type": "state_not_null_at_value_field", "field": "f", "lookup": "/a/{value}"}
        error = self.assertRaises(StartError, check_of, document, "/app/{value}")
        self.assertIn("check.lookup: {value} is the field of the value", str(error))
        for lookup in ("/a/{nobody}", "a/{value}", "/a/*/{value}"):
            with self.subTest(lookup=lookup):
                error = self.assertRaises(StartError, check_of, {**document, "lookup": lookup})
                self.assertIn("check.lookup", str(error))

    def test_either_state_not_null(self) -> None:
        """One of two is enough, and both were looked up when the first is missing."""
        check = check_of({"type": "either_state_not_null", "lookup_a": "/a/{room}", "lookup_b": "/b/{session}"})
        for there, passes in (
            (["/a/r1"], True),
            (["/b/alice"], True),
            (["/a/r1", "/b/alice"], True),
            (["/b/bob"], False),
        ):
            with self.subTest(there=there):
                world = World()
                for address in there:
                    world.put(address, 1)
                asked = question(world)
                self.assertIs(check.passes(asked), passes)
                self.assertEqual(set(asked.reads.lookups), {"/a/r1"} if "/a/r1" in there else {"/a/r1", "/b/alice"})

    def test_state_field_missing(self) -> None:
        """No value, no map, no field, or a null in it."""
        cases: list[tuple[object, bool]] = [
            (NOTHING, True), (None, True), ("text", True), ({}, True), ({"f": None}, True),
            ({"f": ""}, False), ({"f": 0}, False), ({"f": False}, False),
        ]  # fmt: skip
        self.check({"type": "state_field_missing", "lookup": LOOKUP, "field": "f"}, cases)

    def test_state_field_has_session(self) -> None:
        """A key of a map or an item of a list, not a piece of a text."""
        cases: list[tuple[object, bool]] = [
            ({"f": {"alice": "A", "bob": "B"}}, True),
            ({"f": {"alice": None}}, True),
            ({"f": {"bob": "alice"}}, False),
            ({"f": ["bob", "alice"]}, True),
            ({"f": [["alice"], {"alice": 1}, 7]}, False),
            ({"f": "alice"}, False),
            ({"f": {}}, False),
            ({}, False),
            (NOTHING, False),
        ]
        self.check({"type": "state_field_has_session", "lookup": LOOKUP, "field": "f"}, cases)

    def test_state_field_equals(self) -> None:
        """Text, truth and numbers; a number is equal whatever its width, and is no truth."""
        tables: list[tuple[object, list[tuple[object, bool]]]] = [
            (False, [({"f": False}, True), ({"f": 0}, False), ({"f": True}, False), ({}, False), (NOTHING, False)]),
            (1, [({"f": 1}, True), ({"f": 1.0}, True), ({"f": True}, False), ({"f": "1"}, False)]),
            ("dm", [({"f": "dm"}, True), ({"f": "DM"}, False)]),
            ("{user}-{session}", [({"f": "bob-alice"}, True), ({"f": "{user}-{session}"}, False)]),
            (None, [({"f": None}, True), ({}, True), (NOTHING, True), ({"f": 0}, False)]),
        ]
        for value, cases in tables:
            self.check({"type": "state_field_equals", "lookup": LOOKUP, "field": "f", "value": value}, cases)

    def test_state_fields_equal(self) -> None:
        """Both are there and say the same."""
        check = check_of(
            {
                "type": "state_fields_equal",
                "lookup_a": "/proof/{session}", "field_a": "hash",
                "lookup_b": LOOKUP, "field_b": "passwordHash",
            }
        )  # fmt: skip
        same: list[tuple[PyValue, PyValue]] = [("h", "h"), (1, 1.0), ([1, {"a": 2}], [1.0, {"a": 2}])]
        other: list[tuple[PyValue, PyValue]] = [
            ("h", "g"), (None, None), ("h", None), (None, "h"), (1, True), (1, "1"), ([1], [True]), ([1], [1, 2]),
            ({"a": 1}, {"b": 1}), ({"a": 1}, [1]), ([[1]], [{}]), (1.5, b"x"),
        ]  # fmt: skip
        for pairs, passes in ((same, True), (other, False)):
            for one, two in pairs:
                with self.subTest(one=one, two=two):
                    world = World()
                    world.put("/proof/alice", {"hash": one})
                    world.put(META, {"passwordHash": two})
                    self.assertIs(check.passes(question(world)), passes)
        self.assertFalse(check.passes(question(World())))
