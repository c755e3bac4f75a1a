"""Looking into values and changing maps, byte by byte."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.language.maps import (
    entry_heads,
    fields_of,
    find_field,
    get_field,
    holds,
    may_repeat,
    names_in,
    redact,
    repeated_key,
    same,
    text_of,
    with_fields,
    without_mark,
)
from clasp_relay.wire.values import decode_value, encode_value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.text("aé", max_size=3)
    | st.binary(max_size=3)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
)
MAPS = st.dictionaries(st.text("abc", max_size=2), VALUES, max_size=5)


NAMES = st.sampled_from([b"\x00\x01a", b"\x00\x02ab", b"\x00\x00", b"a", b"\x00"])
"""What lies in a map's bytes like the name of a field."""
LOOKALIKES = st.lists(NAMES, max_size=4).map(b"".join)
TWISTED_MAPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "ab", "", "\0\1a", "b"]),
        st.one_of(
            LOOKALIKES,
            LOOKALIKES.map(bytes.decode),
            LOOKALIKES.map(lambda raw: {raw.decode(): raw}),
            st.none(),
            st.integers(-1, 1),
        ).map(encode_value),
    ),
    max_size=5,
)
"""Entries with equal keys, and with values that look like entries."""


def raw_map(*entries: tuple[str, bytes]) -> bytes:
    """Encodes a map entry by entry, equal keys too."""
    body = b"".join(len(key).to_bytes(2, "big") + key.encode() + value for key, value in entries)
    return b"\x0b" + len(entries).to_bytes(2, "big") + body


class LookingTests(SynchronousTestCase):
    """What a value holds."""

    @given(MAPS)
    def test_fields_are_the_encoded_values(self, document: dict[str, object]) -> None:
        """Each as its sender wrote it."""
        fields = fields_of(encode_value(document))
        self.assertEqual({key.decode(): decode_value(value) for key, value in fields.items()}, document)

    @given(TWISTED_MAPS)
    def test_repeated_keys_are_found(self, entries: list[tuple[str, bytes]]) -> None:
        """Wherever bytes look like a key; only those that are asked for."""
        value = raw_map(*entries)
        names = [name for name, _ in entries]
        for key in ("a", "ab", "", "c"):
            is_repeated = names.count(key) > 1
            self.assertEqual(repeated_key(value, [key.encode()]), key.encode() if is_repeated else None)
            self.assertTrue(may_repeat(value, entry_heads(frozenset([key.encode()]))) or not is_repeated)
        self.assertIsNone(repeated_key(value, []))
        self.assertFalse(may_repeat(encode_value({"a": 1, "ab": 2}), entry_heads(frozenset([b"a", b"ab", b"c"]))))

    def test_what_is_no_map_has_no_keys(self) -> None:
        """Whatever its bytes."""
        self.assertIsNone(repeated_key(encode_value("\0\1a\0\1a"), [b"a"]))

    def test_fields_are_read_as_javascript_reads_them(self) -> None:
        """Without one U+FEFF at the start, in a string and nowhere else."""
        for stored, read in (
            ("\ufeffalice", "alice"),
            ("\ufeff", ""),
            ("\ufeff\ufeffalice", "\ufeffalice"),
            ("al\ufeffice", "al\ufeffice"),
            ("\xef\xbb\xbfalice", "\xef\xbb\xbfalice"),
            (b"\xef\xbb\xbf", b"\xef\xbb\xbf"),
            (["\ufeffalice"], ["\ufeffalice"]),
        ):
            with self.subTest(stored=stored):
                value = encode_value({"f": stored, "pad": "x" * 5000})
                small = encode_value({"f": stored})
                self.assertEqual(without_mark(encode_value(stored)), encode_value(read))
                for found in (get_field(value, b"f"), find_field(value, b"f"), find_field(small, b"f")):
                    self.assertEqual(found, encode_value(read))
        self.assertTrue(holds(encode_value(["bob", "\ufeffalice"]), b"alice"))
        self.assertTrue(same(encode_value(["\ufeffa"]), encode_value(["a"])))
        self.assertFalse(same(encode_value(["\ufeffa"]), encode_value(["b"])))

    def test_big_map_is_taken_apart_too(self) -> None:
        """Only small ones are remembered."""
        value = encode_value({"text": "x" * 10_000, "f": 1})
        self.assertEqual(get_field(value, b"f"), encode_value(1))

    def test_last_of_equal_keys_counts(self) -> None:
        """As in every client."""
        self.assertEqual(fields_of(raw_map(("a", b"\x01\x00"), ("a", b"\x01\x01"))), {b"a": b"\x01\x01"})

    @given(TWISTED_MAPS, st.sampled_from([b"a", b"ab", b"", b"c"]))
    def test_field_is_found_without_taking_a_map_apart(self, entries: list[tuple[str, bytes]], key: bytes) -> None:
        """The same one, whatever there is around it."""
        value = raw_map(*entries)
        self.assertEqual(find_field(value, key), get_field(value, key))

    def test_field_of_a_big_map_is_found(self) -> None:
        """Behind ten thousand others."""
        value = encode_value({**{f"{n}": n for n in range(9_000)}, "f": 1})
        self.assertEqual(find_field(value, b"f"), encode_value(1))

    def test_other_values_have_no_fields(self) -> None:
        """Whatever they are."""
        for value in (None, True, 1, "a", b"a", [], ["a"]):
            with self.subTest(value=value):
                self.assertEqual(fields_of(encode_value(value)), {})
                self.assertIsNone(get_field(encode_value(value), b"a"))
                self.assertIsNone(find_field(encode_value(value), b"a"))

    def test_null_field_counts_as_missing(self) -> None:
        """For lookups of a field."""
        self.assertIsNone(get_field(encode_value({"a": None}), b"a"))

    def test_holds_finds_keys_and_items(self) -> None:
        """Nothing else."""
        for value, found in (({"a": 1}, True), (["b", "a"], True), ([], False), ({"b": "a"}, False), ("a", False)):
            with self.subTest(value=value):
                self.assertIs(holds(encode_value(value), b"a"), found)
        self.assertFalse(holds(None, b"a"))

    def test_items_of_long_lists_are_found(self) -> None:
        """Behind numbers and nulls without end, which hold nobody up."""
        for items in ([None] * 60_000, [None, 1] * 6_000, [*[1] * 70, {"a": 1}, True, *[None] * 200]):
            with self.subTest(items=items[:4]):
                value = encode_value([*items, "ann", *items[:100], "\ufeffbob"])
                self.assertEqual([holds(value, word) for word in (b"ann", b"bob", b"an", b"carol")], [1, 1, 0, 0])
                self.assertEqual(names_in(value), {"ann", "bob"})
                self.assertFalse(holds(encode_value([*items, {"ann": 1}]), b"ann"), "no item, but a key of one")

    def test_large_values_are_the_same_by_their_bytes(self) -> None:
        """To decode two of them would take long; small ones are compared by what they mean."""
        for size, expected in ((10, True), (5_000, False)):
            one, other = (encode_value([*[None] * size, number]) for number in (1, 1.0))
            self.assertEqual((same(one, other), same(one, one)), (expected, True))

    def test_text_of_is_text_only(self) -> None:
        """None for the rest."""
        self.assertEqual(text_of(encode_value("é")), "é")
        self.assertIsNone(text_of(encode_value(b"a")))
        self.assertIsNone(text_of(None))

    @given(VALUES)
    def test_value_is_the_same_as_itself_decoded_and_encoded(self, value: object) -> None:
        """NaN aside, which is not made here."""
        self.assertTrue(same(encode_value(value), encode_value(value)))

    def test_numbers_are_the_same_in_every_width(self) -> None:
        """A JavaScript 1 is a Python 1."""
        ones = [
            encode_value(1),
            encode_value(1.0),
            b"\x02\x01",
            b"\x03\x00\x01",
            b"\x04\x00\x00\x00\x01",
            b"\x06\x3f\x80\x00\x00",
        ]
        for one in ones:
            for other in ones:
                self.assertTrue(same(one, other))
        self.assertFalse(same(encode_value(1), encode_value(True)))
        self.assertFalse(same(encode_value(1), encode_value(2.0)))
        self.assertTrue(same(encode_value({"a": 1, "b": 2}), encode_value({"b": 2.0, "a": 1.0})))


class RedactTests(SynchronousTestCase):
    """Removing keys."""

    @given(MAPS, st.lists(st.text("abc", max_size=2), max_size=3))
    def test_redacted_map_is_the_map_encoded_without_them(self, document: dict[str, object], keys: list[str]) -> None:
        """Every other byte, and the order, stays."""
        left = {key: value for key, value in document.items() if key not in keys}
        self.assertEqual(redact(encode_value(document), keys), encode_value(left))

    def test_every_occurrence_goes(self) -> None:
        """A key that stands there twice does not shine through."""
        value = raw_map(("s", b"\x02\x01"), ("t", b"\x02\x02"), ("s", b"\x02\x03"), ("t", b"\x02\x04"))
        self.assertEqual(redact(value, ["s"]), raw_map(("t", b"\x02\x02"), ("t", b"\x02\x04")))

    def test_nothing_to_remove_gives_the_same_object(self) -> None:
        """No copy is made, and other values pass."""
        for value in ({"a": 1}, [{"s": 1}], "s", None, {"a": {"s": 1}}):
            with self.subTest(value=value):
                encoded = encode_value(value)
                self.assertIs(redact(encoded, ["s"]), encoded)

    def test_key_is_compared_as_utf_8(self) -> None:
        """Not as text cut somewhere."""
        self.assertEqual(redact(encode_value({"é": 1, "e": 2}), ["é"]), encode_value({"e": 2}))


class WithFieldsTests(SynchronousTestCase):
    """Giving a map what it must have."""

    @given(MAPS, MAPS)
    def test_map_has_the_fields_and_keeps_the_rest(
        self, document: dict[str, object], fields: dict[str, object]
    ) -> None:
        """In its order, new ones last."""
        encoded = {key.encode(): encode_value(value) for key, value in fields.items()}
        self.assertEqual(with_fields(encode_value(document), encoded), encode_value({**document, **fields}))

    def test_field_that_stands_twice_stands_once_after(self) -> None:
        """A second, contradicting one does not stay."""
        value = raw_map(("c", b"\x02\x01"), ("t", b"\x00"), ("c", b"\x02\x02"))
        self.assertEqual(with_fields(value, {b"c": b"\x02\x09"}), raw_map(("c", b"\x02\x09"), ("t", b"\x00")))

    def test_map_that_has_them_is_the_same_object(self) -> None:
        """Nothing is built for nothing."""
        value = encode_value({"c": 1})
        self.assertIs(with_fields(value, {b"c": encode_value(1)}), value)
