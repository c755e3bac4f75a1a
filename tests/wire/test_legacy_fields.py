"""Tests of clasp_relay.wire.legacy_fields."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError
from clasp_relay.wire.legacy_fields import Fields, join_doubles


class FieldsTests(SynchronousTestCase):
    def test_a_field_is_found_in_both_spellings(self) -> None:
        """Rust's and JavaScript's; if both are there, Rust's is used, unless it is nil."""
        for document, found in (
            ({"max_rate": 1}, 1),
            ({"maxRate": 2}, 2),
            ({"max_rate": 1, "maxRate": 2}, 1),
            ({"max_rate": None, "maxRate": 2}, 2),
            ({"maxrate": 3}, None),
        ):
            with self.subTest(document=document):
                self.assertEqual(Fields(document).optional_integer("max_rate"), found)

    def test_nil_is_absent_but_for_a_value(self) -> None:
        """The field of a value is present even if it is nil: the value is null."""
        fields = Fields({"x": None})
        self.assertNotIn("x", fields)
        self.assertEqual(list(fields), ["x"])
        self.assertIsNone(fields.optional_text("x"))
        self.assertIsNone(fields.optional_double("x"))
        self.assertIsNone(fields.optional_doubles("x"))
        self.assertIsNone(fields.optional_map("x"))
        self.assertIsNone(fields.optional_value("x", "y"))
        self.assertEqual((fields.texts("x"), list(fields.maps("x", 1)), fields.boolean("x")), ([], [], False))
        self.assertEqual(fields.value("x"), b"\x00")
        self.assertRaises(DecodeError, fields.text, "x")

    def test_only_maps_with_string_keys_have_fields(self) -> None:
        """Everything else is refused."""
        documents: tuple[object, ...] = (None, [], "x", {1: 2}, {b"x": 1})
        for document in documents:
            with self.subTest(document=document):
                self.assertRaises(DecodeError, Fields, document)

    def test_integers_have_no_more_bits_than_their_place(self) -> None:
        """Negative numbers, fractions and booleans are refused, too."""
        fields = Fields({"top": 255, "over": 256, "minus": -1, "float": 1.0, "bool": True})
        self.assertEqual(fields.integer("top", bits=8), 255)
        for name in ("over", "minus", "float", "bool"):
            with self.subTest(name):
                self.assertIn(f"'{name}'", self.assertRaises(DecodeError, fields.integer, name, 8).message)

    def test_an_error_stays_short_when_a_name_is_long(self) -> None:
        """A long name that a client chose is cut."""
        name = "n" * 60_000
        error = self.assertRaises(DecodeError, Fields({name: "x"}).integer, name)
        self.assertLess(len(error.message), 120)

    def test_numbers_are_joined_as_doubles(self) -> None:
        """Big-endian, 8 bytes each."""
        self.assertEqual(join_doubles([]), b"")
        self.assertEqual(join_doubles([0.5, 1]), b"\x3f\xe0" + bytes(6) + b"\x3f\xf0" + bytes(6))
