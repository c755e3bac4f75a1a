"""Reading checks: their table, and every mistake with its path."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.checks import BEYOND, CHECKS, CLASSIC
from clasp_relay.errors import StartError
from tests.access.policy.world import World, check_of, question

SAMPLES: dict[str, dict[str, object]] = {
    "state_field_equals_session": {"lookup": "/a", "field": "f"},
    "state_not_null": {"lookup": "/a"},
    "either_state_not_null": {"lookup_a": "/a", "lookup_b": "/b"},
    "value_field_equals_session": {"field": "f"},
    "require_value_field": {"field": "f"},
    "segment_equals_session": {"segment": "user"},
    "reject_unless_path_matches": {"pattern": "/a/{x}", "message": "m"},
    "dm_users_match_room": {"segment": "user", "field": "f"},
    "state_null": {"lookup": "/a"},
    "value_null": {},
    "value_is_map": {},
    "value_field_missing_or_session": {"field": "f"},
    "value_field_has_session": {"field": "f"},
    "value_field_equals_state_field": {"field": "f", "lookup": "/a", "state_field": "g"},
    "state_field_missing": {"lookup": "/a", "field": "f"},
    "state_field_has_session": {"lookup": "/a", "field": "f"},
    "present": {"lookup": "/a"},
    "last_writer_is_session": {"lookup": "/a/*"},
    "writer_is_account": {},
    "segment_is_own_session_id": {"segment": "user"},
    "state_not_null_at_value_field": {"field": "f", "lookup": "/a/{value}"},
    "state_fields_equal": {"lookup_a": "/a", "field_a": "f", "lookup_b": "/b", "field_b": "g"},
    "value_field_equals": {"field": "f", "value": 1},
    "state_field_equals": {"lookup": "/a", "field": "f", "value": 1},
    "not": {"check": {"type": "value_null"}},
    "any_of": {"checks": [{"type": "value_null"}]},
    "all_of": {"checks": [{"type": "value_null"}]},
}


class ReadingTests(SynchronousTestCase):
    """Every check type, right and wrong."""

    def test_every_type_is_read(self) -> None:
        """The samples are all there is, and every one says what it is."""
        self.assertEqual(set(SAMPLES), set(CHECKS))
        self.assertEqual(len(CLASSIC) + len(BEYOND), len(CHECKS))
        for kind, keys in SAMPLES.items():
            with self.subTest(kind=kind):
                check = check_of({"type": kind, **keys})
                self.assertIs(type(check), CHECKS[kind])
                asked = question(World())
                self.assertIsInstance(check.passes(asked), bool)
                self.assertIn(kind.removesuffix("_of"), check.describe(asked.words))

    def test_unknown_key_is_refused(self) -> None:
        """Of every type."""
        for kind, keys in SAMPLES.items():
            with self.subTest(kind=kind):
                error = self.assertRaises(StartError, check_of, {"type": kind, **keys, "feild": 1})
                self.assertIn("check.feild: is not known here", str(error))

    def test_missing_key_is_refused(self) -> None:
        """Of every type; message and grace have defaults."""
        for kind, keys in SAMPLES.items():
            for key in keys:
                with self.subTest(kind=kind, key=key):
                    document = {"type": kind, **{name: value for name, value in keys.items() if name != key}}
                    if key == "message":
                        check_of(document)
                    else:
                        error = self.assertRaises(StartError, check_of, document)
                        self.assertIn(f"check.{key}: is missing", str(error))

    def test_wrong_type_is_refused(self) -> None:
        """A list is never right, nor is a number where a word belongs."""
        for kind, keys in SAMPLES.items():
            for key in keys:
                with self.subTest(kind=kind, key=key):
                    error = self.assertRaises(StartError, check_of, {"type": kind, **keys, key: [7]})
                    self.assertIn(f"check.{key}", str(error))

    def test_malformed_lookup_is_refused(self) -> None:
        """No address, an unknown capture, a wildcard where there may be none."""
        for lookup in ("a/b", "/a//b", "/a/", "/a/{nobody}", "/a/{room", "/a/*", "/a/{room**}"):
            with self.subTest(lookup=lookup):
                error = self.assertRaises(StartError, check_of, {"type": "state_null", "lookup": lookup})
                self.assertIn("check.lookup", str(error))
        error = self.assertRaises(StartError, check_of, {"type": "last_writer_is_session", "lookup": "a/*"})
        self.assertIn("check.lookup", str(error))

    def test_unknown_type_is_refused_with_a_hint(self) -> None:
        """A slip of the pen is recognised."""
        error = self.assertRaises(StartError, check_of, {"type": "state_notnull", "lookup": "/a"})
        self.assertIn("did you mean 'state_not_null'?", str(error))
        self.assertRaises(StartError, check_of, {"lookup": "/a"})

    def test_segment_that_is_not_captured_is_refused(self) -> None:
        """The message says what is."""
        error = self.assertRaises(StartError, check_of, {"type": "segment_equals_session", "segment": "usr"})
        self.assertIn("check.segment: 'usr' is not captured by the path (it captures room, user)", str(error))

    def test_checks_nested_without_end_are_refused(self) -> None:
        """Deciding recurses as deep as the document goes."""
        document: dict[str, object] = {"type": "value_null"}
        for _ in range(40):
            document = {"type": "not", "check": document}
        self.assertRaises(StartError, check_of, document)


class ScalarTests(SynchronousTestCase):
    """What a ``value`` may be."""

    def test_value_that_is_no_scalar_is_refused(self) -> None:
        """Lists, objects, numbers beyond the wire, and captures that do not exist."""
        values: tuple[object, ...] = ([], {}, ["a"], 2**63, "{nobody}", "{room")
        for value in values:
            with self.subTest(value=value):
                document = {"type": "value_field_equals", "field": "f", "value": value}
                error = self.assertRaises(StartError, check_of, document)
                self.assertIn("check.value", str(error))

    def test_missing_value_is_refused(self) -> None:
        """Null has to be said."""
        self.assertRaises(StartError, check_of, {"type": "value_field_equals", "field": "f"})

    def test_captured_text_is_not_expanded_again(self) -> None:
        """A segment that reads like a capture is text."""
        check = check_of({"type": "value_field_equals", "field": "f", "value": "{user}"})
        address = "/app/r1/{session}"
        self.assertFalse(check.passes(question(World(), address=address, value={"f": "alice"})))
        self.assertTrue(check.passes(question(World(), address=address, value={"f": "{session}"})))

    def test_value_is_described_as_people_read_it(self) -> None:
        """With its captures filled in."""
        for value, said in (("{user}!", "bob!"), (None, "null"), (False, "false"), (1.5, "1.5")):
            with self.subTest(value=value):
                check = check_of({"type": "value_field_equals", "field": "f", "value": value})
                self.assertEqual(check.describe(question(World()).words), f"value_field_equals(field=f, value={said})")

    def test_text_longer_than_any_value_equals_nothing(self) -> None:
        """A very long address is no fault of the relay."""
        check = check_of({"type": "value_field_equals", "field": "f", "value": "{room}{room}"})
        self.assertFalse(check.passes(question(World(), address=f"/app/{'x' * 40_000}/bob", value={"f": "x"})))
