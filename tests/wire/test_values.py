"""Tests of clasp_relay.wire.values: bytes and Python objects, and bytes that are not a value."""

import math
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import encode_to_frame
from clasp_relay.wire.constants import MAX_DEPTH, MAX_VALUE_PARTS, Signal
from clasp_relay.wire.messages import Announce, Bundle, Publish, Set, SignalDefinition
from clasp_relay.wire.values import check_keys, decode_value, encode_value, has_suspect_key, skip_value
from tests.wire.strategies import ANY_OBJECTS, OBJECTS, VALUES, has_refused_key


def _nested(levels: int, innermost: bytes = b"\x00") -> bytes:
    return b"\x0a\x00\x01" * levels + innermost


def _nested_maps(levels: int) -> bytes:
    return b"\x0b\x00\x01\x00\x01k" * levels + b"\x00"


class ValueTests(SynchronousTestCase):
    def test_objects_are_exactly_these_bytes(self) -> None:
        """Each Python object has one encoding, which decodes to the same object."""
        cases: tuple[tuple[Any, bytes], ...] = (
            (None, b"\x00"),
            (False, b"\x01\x00"),
            (True, b"\x01\x01"),
            (1, b"\x05\x00\x00\x00\x00\x00\x00\x00\x01"),
            (-(2**63), b"\x05\x80\x00\x00\x00\x00\x00\x00\x00"),
            (2**63 - 1, b"\x05\x7f\xff\xff\xff\xff\xff\xff\xff"),
            (1.0, b"\x07\x3f\xf0\x00\x00\x00\x00\x00\x00"),
            (-math.inf, b"\x07\xff\xf0\x00\x00\x00\x00\x00\x00"),
            ("", b"\x08\x00\x00"),
            ("é\ufeff", b"\x08\x00\x05\xc3\xa9\xef\xbb\xbf"),
            (b"\x00\xff", b"\x09\x00\x02\x00\xff"),
            ([], b"\x0a\x00\x00"),
            ([None, [True]], b"\x0a\x00\x02\x00\x0a\x00\x01\x01\x01"),
            ({}, b"\x0b\x00\x00"),
            ({"b": 0.0, "a": None}, b"\x0b\x00\x02\x00\x01b\x07" + bytes(8) + b"\x00\x01a\x00"),
        )
        for obj, value in cases:
            with self.subTest(obj=obj):
                self.assertEqual(encode_value(obj), value)
                self.assertEqual(decode_value(value), obj)
                self.assertIs(type(decode_value(value)), type(obj))

    def test_forms_that_only_others_write_are_read(self) -> None:
        """Small integers and single floats; and equal keys of a map, of which the last is used."""
        cases: tuple[tuple[bytes, Any], ...] = (
            (b"\x02\x80", -128),
            (b"\x03\xff\xfe", -2),
            (b"\x04\x80\x00\x00\x00", -(2**31)),
            (b"\x06\x3f\x00\x00\x00", 0.5),
            (b"\x0b\x00\x02\x00\x01k\x02\x01\x00\x01k\x02\x02", {"k": 2}),
            (b"\x0b\x00\x01\x00\x09__proto__\x00", {"__proto__": None}),
        )
        for value, obj in cases:
            with self.subTest(value=value.hex()):
                self.assertEqual(decode_value(value), obj)

    def test_special_floats_keep_their_bits(self) -> None:
        """NaN and -0.0 are decoded as such."""
        self.assertTrue(math.isnan(decode_value(b"\x07\x7f\xf8\x00\x00\x00\x00\x00\x00")))
        self.assertEqual(math.copysign(1, decode_value(b"\x07\x80\x00\x00\x00\x00\x00\x00\x00")), -1)
        self.assertEqual(encode_value(-0.0), b"\x07\x80\x00\x00\x00\x00\x00\x00\x00")

    def test_a_tuple_is_written_as_an_array(self) -> None:
        """CLASP has only one kind of sequence."""
        self.assertEqual(encode_value((None,)), encode_value([None]))

    def test_values_may_nest_as_deep_as_the_limit(self) -> None:
        """One level more is refused, in arrays and maps, and also by the encoder."""
        deepest: Any = None
        for _ in range(MAX_DEPTH):
            deepest = [deepest]
        self.assertEqual(decode_value(_nested(MAX_DEPTH)), deepest)
        self.assertEqual(encode_value(deepest), _nested(MAX_DEPTH))
        self.assertEqual(skip_value(_nested_maps(MAX_DEPTH), 1, 0x0B), len(_nested_maps(MAX_DEPTH)))
        for value in (_nested(MAX_DEPTH + 1), _nested_maps(MAX_DEPTH + 1), _nested(21_000)):
            with self.subTest(size=len(value)):
                error = self.assertRaises(DecodeError, skip_value, value, 1, value[0])
                self.assertIn("deeper than 32", error.message)
        self.assertRaises(ValueError, encode_value, [deepest])
        self.assertRaises(ValueError, encode_value, {"k": deepest})

    def test_bytes_are_refused_when_they_are_no_value(self) -> None:
        """Each with ERROR 101 and a text that names the problem."""
        too_long = "longer than the bytes that are left"
        cases = (
            (b"", "at least a type byte"),
            (b"\x0c", "unknown value type 0x0C"),
            (b"\xff", "unknown value type 0xFF"),
            (b"\x01", too_long),
            (b"\x01\x02", "neither 0 nor 1"),
            (b"\x05\x00\x00\x00\x00\x00\x00\x00", too_long),
            (b"\x08\x00", too_long),
            (b"\x08\xff\xffabc", too_long),
            (b"\x08\x00\x01\xff", "not valid UTF-8"),
            (b"\x08\x00\x03\xed\xa0\x80", "not valid UTF-8"),
            (b"\x08\x00\x02\xc0\x80", "not valid UTF-8"),
            (b"\x09\x00\x02a", too_long),
            (b"\x0a\x00", too_long),
            (b"\x0a\x00\x02\x00", too_long),
            (b"\x0a\x00\x02\x07\x00", too_long),
            (b"\x0a\x00\x01\x0c", "unknown value type"),
            (b"\x0b\xff\xff", too_long),
            (b"\x0b\x00\x01\x00\x02k", too_long),
            (b"\x0b\x00\x01\x00\x01\xff\x00", "not valid UTF-8"),
            (b"\x0b\x00\x01\x00\x01k", too_long),
            (b"\x00\x00", "bytes follow"),
            (b"\x02\x00\x00", "bytes follow"),
        )
        for value, reason in cases:
            with self.subTest(value=value.hex()):
                error = self.assertRaises(DecodeError, decode_value, value)
                self.assertEqual(error.code, ErrorCode.MESSAGE)
                self.assertIn(reason, error.message)

    def test_a_count_is_checked_before_anything_is_read(self) -> None:
        """65,535 claimed items in 60,000 bytes are refused before the first item, which is invalid, is read."""
        value = b"\x0a\xff\xff\x0c" + bytes(60_000)
        error = self.assertRaises(DecodeError, skip_value, value, 1, 0x0A)
        self.assertNotIn("unknown", error.message)

    def test_skipping_ends_where_the_value_does(self) -> None:
        """Bytes before and after the value are not read."""
        data = b"\xff\xff" + b"\x0a\x00\x02\x01\x01\x08\x00\x01x" + b"\xff"
        self.assertEqual(skip_value(data, 3, data[2]), len(data) - 1)

    def test_objects_are_refused_when_clasp_cannot_say_them(self) -> None:
        """Each with a ValueError; none becomes a value with another meaning."""
        cases: tuple[Any, ...] = (
            2**63,
            -(2**63) - 1,
            "\ud800",
            "x" * 65_536,
            bytes(65_536),
            [None] * 65_536,
            {1: None},
            {b"k": None},
            {"\ud800": None},
            {"k" * 65_536: None},
            object(),
            {1, 2},
            [object()],
        )
        for number, obj in enumerate(cases):
            with self.subTest(number=number):
                self.assertRaises(ValueError, encode_value, obj)

    @given(OBJECTS)
    def test_any_object_comes_back_as_it_was(self, obj: Any) -> None:
        """After encoding and decoding; encoded again it has the same bytes, and maps keep their order."""
        value = encode_value(obj)
        self.assertEqual(skip_value(value, 1, value[0]), len(value))
        self.assertEqual(repr(decode_value(value)), repr(obj))
        self.assertEqual(encode_value(decode_value(value)), value)

    @given(VALUES)
    def test_no_shorter_piece_of_a_value_is_a_value(self, value: bytes) -> None:
        """Every truncation is refused."""
        for size in range(len(value)):
            self.assertRaises(DecodeError, decode_value, value[:size])

    @given(st.binary(max_size=60))
    def test_any_bytes_are_a_value_or_a_decode_error(self, data: bytes) -> None:
        """A value that ``skip_value`` accepts can be decoded; no exception but DecodeError is raised."""
        for code in range(13):
            try:
                end = skip_value(data, 0, code)
            except DecodeError:
                continue
            self.assertLessEqual(end, len(data))
            decode_value(bytes((code,)) + data[:end])

    def test_doubles_are_big_endian(self) -> None:
        """As in struct, on every machine."""
        self.assertEqual(encode_value(0.1)[1:], struct.pack(">d", 0.1))


class PartsTests(SynchronousTestCase):
    """Checking each string, container and BOOL takes time, so their number in a value is limited."""

    def test_value_of_too_many_parts_is_refused(self) -> None:
        """For parts of every kind at every depth; one part less is accepted."""
        most = MAX_VALUE_PARTS - 1  # beside the array around them
        cases: dict[str, tuple[Any, Any]] = {
            "strings": ([""] * most, [""] * (most + 1)),
            "bytes": ([b""] * most, [b""] * (most + 1)),
            "arrays": ([[]] * most, [[]] * (most + 1)),
            "maps": ([{}] * most, [{}] * (most + 1)),
            "truths": ([True] * most, [None, *[False] * (most + 1)]),
            "nested": ([[[1], {"": 2}]] * (most // 3), [[[1], {"": 2}]] * (most // 3 + 1)),
            "entries": ([{"a": 1, "b": []}] * (most // 2), [{"a": 1, "b": []}] * (most // 2 + 1)),
        }
        for name, (fits, too_many) in cases.items():
            with self.subTest(name):
                value = encode_value(fits)
                self.assertEqual(skip_value(value, 1, value[0], MAX_VALUE_PARTS), len(value))
                long = encode_value(too_many)
                error = self.assertRaises(DecodeError, skip_value, long, 1, long[0], MAX_VALUE_PARTS)
                self.assertIn("more than 5000 strings", error.message)
                self.assertEqual(skip_value(long, 1, long[0]), len(long), "what the relay has itself")
                for message in (Set("/a", long), Publish("/a", value=long), Bundle((Set("/a", long),))):
                    self.assertRaises(DecodeError, ClaspCodec().decode, encode_to_frame(message))

    def test_parts_of_all_values_of_a_message_count_together(self) -> None:
        """Those of all members of a BUNDLE, and of all definitions of an ANNOUNCE."""
        half = encode_value([[]] * (MAX_VALUE_PARTS // 2 - 1))
        fits = (Set("/a", half), Publish("/b", value=half), Publish("/c"), Set("/d", encode_value(1)))
        definition = SignalDefinition("/a", Signal.EVENT, default=half)
        for message, longer in (
            (Bundle(fits), Bundle((*fits, Set("/c", encode_value(True))))),
            (Announce("/n", (definition,) * 2), Announce("/n", (definition,) * 3)),
        ):
            with self.subTest(message=type(message)):
                self.assertEqual(ClaspCodec().decode(encode_to_frame(message))[0], message)
                self.assertRaises(DecodeError, ClaspCodec().decode, encode_to_frame(longer))

    def test_parts_are_counted_and_not_the_bytes_that_look_like_them(self) -> None:
        """A text of short lines, a file and numbers are accepted."""
        for obj in (
            "1\n" * 30_000,
            b"\x08\x0a" * 30_000,
            [10.5] * 7_000,
            [None] * 60_000,
            {"a": "\n" * 50_000, "b": 1},
        ):
            value = encode_value(obj)
            self.assertEqual(skip_value(value, 1, value[0], MAX_VALUE_PARTS), len(value))

    def test_deep_value_is_refused_for_its_depth(self) -> None:
        """Even if it may have too many parts, too."""
        value = b"\x0a\x00\x01" * 20_000 + b"\x00"
        error = self.assertRaises(DecodeError, skip_value, value, 1, value[0], MAX_VALUE_PARTS)
        self.assertIn("deeper", error.message)

    def test_damaged_value_of_many_parts_is_refused(self) -> None:
        """With the same error as one of few parts."""
        value = encode_value([""] * 4_000 + ["\n" * 20_000])
        for damaged in (value[:-1], value[:100], b"\x0a\xff\xff" + value[3:], b"\x0a\x00\x01\xfe" + b"\x0a" * 20_000):
            with self.subTest(damaged=damaged[:5]):
                self.assertRaises(DecodeError, skip_value, damaged, 1, damaged[0], MAX_VALUE_PARTS)


class RunTests(SynchronousTestCase):
    """Many items of fixed sizes, which are skipped together."""

    RUNS: tuple[list[Any], ...] = (
        [None] * 300,
        [1.5] * 300,
        [None, 1] * 150,
        [None, 1, 2.5] * 43,
        [*[7] * 63, "text", *[7] * 64, True, *[None] * 65, [[]], *[1, None] * 64],
        ["text", *[None] * 128, {"k": [1] * 200}],
        [[None, 2.5] * 40] * 3,
    )

    def test_long_arrays_end_where_they_do(self) -> None:
        """For items of any types; and their values come back unchanged."""
        for items in self.RUNS:
            with self.subTest(items=items[:4], count=len(items)):
                value = encode_value(items)
                self.assertEqual(skip_value(value + b"\x00" * 600, 1, value[0]), len(value))
                self.assertEqual(decode_value(value), items)
                for cut in (1, 2, 9, 100, len(value) - 4):
                    self.assertRaises(DecodeError, skip_value, value[:-cut], 1, value[0])

    def test_invalid_item_behind_a_run_is_found(self) -> None:
        """With an unknown type, or a BOOL of 2."""
        for item in (b"\x0c", b"\x01\x02"):
            for before in (64, 100, 128):
                with self.subTest(item=item, before=before):
                    head = b"\x0a" + struct.pack(">H", before + 1)
                    value = head + b"\x00\x02\x05" * (before // 2) + item
                    self.assertRaises(DecodeError, skip_value, value, 1, value[0])

    def test_key_behind_a_run_is_found(self) -> None:
        """In a map among the items, at any depth."""
        for bad in ("__proto__", "\ufeffa"):
            for items in self.RUNS:
                with self.subTest(bad=bad, items=items[:4]):
                    good = encode_value([*items, "__proto__"])
                    check_keys(good, 1, good[0])
                    value = encode_value({"a": [*items, {bad: 1}, *items]})
                    self.assertRaises(RequestError, check_keys, value, 1, value[0])


class KeyTests(SynchronousTestCase):
    def test_a_key_is_refused_when_clients_read_it_as_another(self) -> None:
        """At every depth, in arrays and maps, behind values of every type; the ERROR names the address."""
        before: dict[str, Any] = {"": None, "b": True, "i": 1, "f": 0.5, "s": "x", "y": b"__proto__", "a": [], "m": {}}
        deep: Any = {"__proto__": 1}
        for _ in range(MAX_DEPTH - 1):
            deep = [deep]
        cases: tuple[tuple[Any, str], ...] = (
            ({"__proto__": None}, "is '__proto__'"),
            ({"\ufeff": None}, "starts with U+FEFF"),
            ({"userId": "mal", "\ufeffuserId": "alice"}, "starts with U+FEFF"),
            ({**before, "__proto__": 1}, "is '__proto__'"),
            ([before, {"a": [1, {"\ufeffa": 1}]}], "starts with U+FEFF"),
            ({"a": {"b": {"__proto__": {"userId": "alice"}}}}, "is '__proto__'"),
            (deep, "is '__proto__'"),
        )
        for obj, reason in cases:
            with self.subTest(obj=obj):
                value = encode_value(obj)
                self.assertTrue(has_suspect_key(value))
                error = self.assertRaises(RequestError, check_keys, value, 1, value[0], "/a")
                self.assertEqual((error.code, error.address), (ErrorCode.VALUE, "/a"))
                self.assertIn(reason, error.message)
        value = encode_value({"__proto__": 1})
        self.assertIsNone(self.assertRaises(RequestError, check_keys, value, 1, value[0]).address)
        self.assertIsNone(self.assertRaises(RequestError, check_keys, value, 1, value[0], "/" + "a" * 5_000).address)

    @given(ANY_OBJECTS)
    def test_keys_are_checked_by_their_definition(self, obj: Any) -> None:
        """The search finds every refused key; strings that are not keys are accepted."""
        value = encode_value(obj)
        if has_refused_key(obj):
            self.assertTrue(has_suspect_key(value))
            self.assertRaises(RequestError, check_keys, value, 1, value[0])
        else:
            check_keys(value, 1, value[0])
