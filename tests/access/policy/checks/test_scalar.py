"""The value that a check compares with."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from tests.access.policy.world import World, check_of, question


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
