"""The document that the state is written as."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any, NoReturn

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Ended, Param, StateImage
from clasp_relay.storage.state_writing import (
    MAX_APPROXIMATION_BYTES,
    MAX_TRANSLATED_BYTES,
    PIECE_CHARACTERS,
    PIECE_PARAMS,
    encode,
)
from tests.storage.values import TIME_US, WRITER, decode, encoded_values, image, param, string

_u64 = st.integers(0, 2**64 - 1)
_addresses = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/*"), min_size=1, max_size=6), min_size=1
)
_people = st.text(st.characters(codec="utf-8"), max_size=8)


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def document(state: StateImage) -> dict[str, Any]:
    """Writes a state and reads it as strict JSON."""
    read: dict[str, Any] = json.loads(b"".join(encode(state)), parse_constant=_refuse)
    return read


def f64(number: float) -> bytes:
    """Encodes a float."""
    return b"\x07" + struct.pack(">d", number)


@st.composite
def states(draw: st.DrawFn) -> StateImage:
    """Makes a state of a few params and tombstones."""
    addresses = ["/" + "/".join(segments) for segments in draw(st.lists(_addresses, max_size=6, unique_by=tuple))]
    cut = draw(st.integers(0, len(addresses)))
    params = [
        Param(
            address,
            draw(encoded_values),
            draw(st.integers(1, 2**63)),
            draw(_people),
            draw(_u64),
            draw(st.none() | st.integers(0, 2**32 - 1)),
            draw(_people),
        )
        for address in addresses[:cut]
    ]
    ended = [
        (address, Ended(draw(st.integers(1, 2**63)), draw(_u64), draw(_people), draw(st.none() | _people)))
        for address in addresses[cut:]
    ]
    return StateImage(params, ended, {address: draw(_u64) for address in addresses[:cut] if draw(st.booleans())})


class RoundTripTests(SynchronousTestCase):
    @given(states())
    def test_state_comes_back_as_it_was(self, state: StateImage) -> None:
        """Every field of every param and tombstone survives, in order, values byte for byte."""
        restored = decode(b"".join(encode(state)))
        self.assertEqual(restored.image, state)
        self.assertEqual((restored.left_out, restored.postdated), ("", ""))

    @given(encoded_values)
    def test_value_comes_back_byte_for_byte(self, value: bytes) -> None:
        """Whatever a sender encoded is restored as it was, and the JSON is strict."""
        state = image(param("/a", value))
        document(state)
        self.assertEqual(decode(b"".join(encode(state))).image.params[0].value, value)


class DocumentTests(SynchronousTestCase):
    def test_document_is_what_the_rust_relay_writes(self) -> None:
        """A plain param has the five keys of the Rust relay and no others."""
        self.assertEqual(
            document(image(param("/a", f64(1.0), 3))),
            {
                "version": 1,
                "params": [{"address": "/a", "value": 1.0, "revision": 3, "writer": WRITER, "timestamp": TIME_US}],
                "tombstones": [],
            },
        )

    def test_document_has_optional_keys_where_they_say_something(self) -> None:
        """Life time, end, subject, origin, the bytes that were sent, and stamp are written where there are any."""
        sent = param("/a")._replace(ttl=60, subject="user:1", origin="0a1b", sent_as=b" 1")
        state = StateImage(
            [sent, param("/b")._replace(ttl=0)],
            [("/c", Ended(7, 5, "user:2", "user:3")), ("/d", Ended(8, 6))],
            {"/a": 99},
        )
        read = document(state)
        self.assertEqual(
            [[entry.get(key) for key in ("ttl", "expires", "subject", "origin", "sent")] for entry in read["params"]],
            [[60, 99, "user:1", "0a1b", "IDE="], [0, None, None, None, None]],
        )
        self.assertEqual(
            read["tombstones"],
            [
                {"address": "/c", "revision": 7, "timestamp": 5, "subject": "user:2", "stamp": "user:3"},
                {"address": "/d", "revision": 8, "timestamp": 6},
            ],
        )

    def test_value_is_plain_json_where_that_says_it_exactly(self) -> None:
        """What JSON can say stands alone; a whole float stays a float."""
        cases: list[tuple[bytes, str]] = [
            (b"\x01\x01", "true"),
            (b"\x05" + struct.pack(">q", 2**53 + 1), "9007199254740993"),
            (f64(1.0), "1.0"),
            (f64(-0.0), "-0.0"),
            (b"\x08" + string("é\u2028"), '"é\u2028"'),
            (b"\x0a\x00\x01" + f64(2.0), "[2.0]"),
            (b"\x0b\x00\x01" + string("k") + b"\x00", '{"k":null}'),
        ]
        for value, text in cases:
            with self.subTest(text):
                line = b"".join(encode(image(param("/a", value)))).decode()
                self.assertIn(f'"value":{text},"revision"', line)
                self.assertNotIn("encoded", line)

    def test_value_is_encoded_where_json_falls_short(self) -> None:
        """Bytes, other widths, numbers not finite and keys there twice have their bytes beside them."""
        pair = string("k") + b"\x01\x00" + string("k") + b"\x01\x01"
        cases: list[tuple[bytes, object]] = [
            (b"\x02\xff", -1),
            (b"\x03\x00\x05", 5),
            (b"\x04\x00\x00\x00\x05", 5),
            (b"\x06" + struct.pack(">f", 0.5), 0.5),
            (b"\x06" + struct.pack(">f", float("nan")), None),
            (f64(float("nan")), None),
            (f64(float("-inf")), None),
            (b"\x09\x00\x02\x01\x02", [1, 2]),
            (b"\x0a\x00\x02\x09\x00\x01\x07" + f64(float("inf")), [[7], None]),
            (b"\x0a\x00\x01\x02\x05", [5]),
            (b"\x0b\x00\x02" + pair, {"k": True}),
            (b"\x0b\x00\x01" + string("k") + b"\x09\x00\x00", {"k": []}),
        ]
        for value, about in cases:
            with self.subTest(value=value):
                (entry,) = document(image(param("/a", value)))["params"]
                self.assertEqual(entry["value"], about)
                self.assertEqual(b64decode(entry["encoded"]), value)

    def test_value_that_is_big_has_no_approximation(self) -> None:
        """Beside the bytes of big bytes, and of an array too big to be taken apart, stands null."""
        count = MAX_TRANSLATED_BYTES // 9 + 1
        big_bytes = b"\x09" + struct.pack(">H", MAX_APPROXIMATION_BYTES) + bytes(MAX_APPROXIMATION_BYTES)
        for value in (big_bytes, b"\x0a" + struct.pack(">H", count) + count * f64(1.0)):
            with self.subTest(kind=value[0]):
                (entry,) = document(image(param("/a", value)))["params"]
                self.assertIsNone(entry["value"])
                self.assertEqual(b64decode(entry["encoded"]), value)


class PieceTests(SynchronousTestCase):
    def test_document_comes_in_pieces_of_few_params(self) -> None:
        """No piece has more params than allowed, and all params are there, one on each line."""
        params = [param(f"/p/{number}") for number in range(2 * PIECE_PARAMS + 1)]
        pieces = list(encode(image(*params)))
        counts = [piece.count(b'"address"') for piece in pieces]
        self.assertEqual([count for count in counts if count], [PIECE_PARAMS, PIECE_PARAMS, 1])
        self.assertEqual(len([line for line in b"".join(pieces).splitlines() if b'"address"' in line]), len(params))
        self.assertEqual(decode(b"".join(pieces)).image.params, params)

    def test_document_comes_in_pieces_of_few_bytes(self) -> None:
        """Big values make a piece ready earlier."""
        value = b"\x08" + string("x" * 60_000)
        pieces = list(encode(image(*(param(f"/p/{number}", value) for number in range(9)))))
        self.assertLess(max(map(len, pieces)), PIECE_CHARACTERS + 61_000)

    def test_tombstones_come_in_pieces(self) -> None:
        """Tombstones are cut like params."""
        ended = [(f"/p/{number}", Ended(number + 1, TIME_US)) for number in range(PIECE_PARAMS + 1)]
        pieces = list(encode(image(ended=ended)))
        self.assertEqual([piece.count(b'"address"') for piece in pieces if b'"address"' in piece], [PIECE_PARAMS, 1])
        self.assertEqual(decode(b"".join(pieces)).image.ended, ended)
