"""Checks of the value in question: one table for each."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.values import PyValue
from tests.access.policy.world import World, check_of, question

Cases = list[tuple[PyValue, bool]]


class ValueCheckTests(SynchronousTestCase):
    """Each check against what may be written."""

    def check(self, document: dict[str, object], cases: Cases) -> None:
        """Asserts whether the check passes for what alice writes."""
        check = check_of(document)
        for value, passes in cases:
            with self.subTest(type=document["type"], value=value):
                asked = question(World(), value=value)
                self.assertIs(check.passes(asked), passes)
                self.assertTrue(check.refusal(asked))

    def test_value_null(self) -> None:
        """Null and nothing else."""
        self.check({"type": "value_null"}, [(None, True), (False, False), ({}, False), ("", False)])

    def test_value_is_map(self) -> None:
        """A map, be it empty."""
        self.check({"type": "value_is_map"}, [({}, True), ({"a": 1}, True), ([], False), (None, False), ("{}", False)])

    def test_value_field_equals_session(self) -> None:
        """The field must be there."""
        cases: Cases = [({"by": "alice"}, True), ({"by": "bob"}, False), ({}, False), (None, False), ("alice", False)]
        self.check({"type": "value_field_equals_session", "field": "by"}, cases)

    def test_require_value_field(self) -> None:
        """A string, be it empty."""
        cases: Cases = [
            ({"f": "x"}, True),
            ({"f": ""}, True),
            ({"f": 1}, False),
            ({"f": None}, False),
            ({}, False),
            (1, False),
        ]
        self.check({"type": "require_value_field", "field": "f"}, cases)

    def test_value_field_missing_or_session(self) -> None:
        """Left out, null, or the own id."""
        cases: Cases = [
            ({}, True),
            ({"by": None}, True),
            ("text", True),
            (None, True),
            ({"by": "alice"}, True),
            ({"by": "bob"}, False),
            ({"by": 1}, False),
        ]
        self.check({"type": "value_field_missing_or_session", "field": "by"}, cases)

    def test_value_field_has_session(self) -> None:
        """A key or an item; what is missing passes only where allowed."""
        cases: Cases = [
            ({"f": {"alice": 1}}, True),
            ({"f": ["alice"]}, True),
            ({"f": {"bob": 1}}, False),
            ({"f": "alice"}, False),
        ]
        strict: dict[str, object] = {"type": "value_field_has_session", "field": "f"}
        self.check(strict, [*cases, ({}, False), (None, False)])
        self.check({**strict, "allow_if_missing": True}, [*cases, ({}, True), (None, True), ({"f": None}, True)])

    def test_value_field_equals(self) -> None:
        """A given thing, captures filled in."""
        self.check(
            {"type": "value_field_equals", "field": "f", "value": "{room}"}, [({"f": "r1"}, True), ({"f": "r2"}, False)]
        )
        self.check(
            {"type": "value_field_equals", "field": "f", "value": 2.5}, [({"f": 2.5}, True), ({"f": "2.5"}, False)]
        )
        self.check(
            {"type": "value_field_equals", "field": "f", "value": True}, [({"f": True}, True), ({"f": 1}, False)]
        )

    def test_value_field_equals_state_field(self) -> None:
        """What is written equals what is stored; what is missing equals nothing, not even what is missing."""
        check = check_of(
            {
                "type": "value_field_equals_state_field",
                "field": "hash",
                "lookup": "/app/{room}/meta",
                "state_field": "secret",
            }
        )
        for value, stored, passes in (
            ({"hash": "h"}, {"secret": "h"}, True),
            ({"hash": "h"}, {"secret": "g"}, False),
            ({"hash": None}, {"secret": None}, False),
            ({}, {}, False),
            ({"hash": "h"}, {}, False),
            (None, {"secret": "h"}, False),
        ):
            with self.subTest(value=value, stored=stored):
                world = World()
                world.put("/app/r1/meta", stored)
                asked = question(world, value=value)
                self.assertIs(check.passes(asked), passes)
                self.assertNotIn("'h'", check.refusal(asked), "a secret is not told")

    def test_last_of_equal_keys_counts(self) -> None:
        """A map with a key twice is read as every client reads it."""
        check = check_of({"type": "value_field_equals_session", "field": "by"})
        twice = b"\x0b\x00\x02" + b"".join(
            b"\x00\x02by\x08" + len(name).to_bytes(2, "big") + name for name in (b"alice", b"bob")
        )
        asked = question(World(), value={})
        asked._value = twice
        self.assertFalse(check.passes(asked))
