"""Tests of clasp_relay.wire.osc.packets: literal bytes in both directions, random bytes, and python-osc."""

from __future__ import annotations

import math
import struct

from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_message import OscMessage as TheirMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError
from clasp_relay.wire.osc.packets import (
    MAX_ARGUMENTS,
    MAX_DEPTH,
    MAX_MESSAGES,
    MESSAGES_A_UNIT,
    Argument,
    OscBundle,
    OscMessage,
    decode_packet,
    encode_message,
    packet_cost,
    time_tag_us,
)

LITERAL: list[tuple[OscMessage, bytes]] = [
    (OscMessage("/a/b", (0.5,)), b"/a/b\0\0\0\0,f\0\0\x3f\0\0\0"),
    (OscMessage("/a", (0.1,)), b"/a\0\0,d\0\0\x3f\xb9\x99\x99\x99\x99\x99\x9a"),
    (OscMessage("/a", (1,)), b"/a\0\0,i\0\0\0\0\0\1"),
    (OscMessage("/a", (2**40,)), b"/a\0\0,h\0\0\0\0\1\0\0\0\0\0"),
    (OscMessage("/abc", ("text", "xyz")), b"/abc\0\0\0\0,ss\0text\0\0\0\0xyz\0"),
    (OscMessage("/a", (b"12345",)), b"/a\0\0,b\0\0\0\0\0\x0512345\0\0\0"),
    (OscMessage("/a", (True, False, None)), b"/a\0\0,TFN\0\0\0\0"),
    (OscMessage("/a", ((1, (2,)), 3)), b"/a\0\0,[i[i]]i\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0\3"),
    (OscMessage("/a", (1e300,)), b"/a\0\0,d\0\0" + struct.pack(">d", 1e300)),
    (OscMessage("/ä", ("ö",)), "/ä\0,s\0\0ö\0\0".encode()),
    (OscMessage("/a", ()), b"/a\0\0,\0\0\0"),
]

READ_ONLY: list[tuple[bytes, tuple[Argument, ...]]] = [
    (b"/a\0\0", ()),
    (b"/a\0\0,S\0\0sym\0", ("sym",)),
    (b"/a\0\0,I\0\0", (None,)),
    (b"/a\0\0,c\0\0\0\0\0A", (65,)),
    (b"/a\0\0,r\0\0\xff\0\0\x80", (0xFF000080,)),
    (b"/a\0\0,m\0\0\0\x90\x40\x7f", (b"\0\x90\x40\x7f",)),
    (b"/a\0\0,t\0\0\0\0\0\0\0\0\0\1", (bytes(7) + b"\1",)),
]

DAMAGED = [
    b"",
    b"/a",
    b"abcd",
    b"/abc",
    b"a\0\0\0",
    b"/a\0\0f\0\0\0",
    b"/a\0\0,x\0\0",
    b"/a\0\0,i\0\0",
    b"/a\0\0,i\0\0\0\0\0\1\0\0\0\0",
    b"/a\0\0,[\0\0",
    b"/a\0\0,]\0\0",
    b"/a\0\0,b\0\0\0\0\0\x09abcd",
    b"/a\0\0,s\0\0\xff\0\0\0",
    b"/a\0\0,s\0\0abcd",
    b"/a\0\0," + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + bytes(1 + -(2 * MAX_DEPTH + 4) % 4),
    b"#bundle\0",
    b"#bundle\0" + bytes(8) + b"\0\0\0\x08/a\0\0",
    b"#bundle\0" + bytes(8) + b"\0\0\0\0",
]

arguments = st.recursive(
    st.one_of(
        st.booleans(),
        st.none(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        st.binary(),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


def bundle(*elements: bytes, time_tag: int = 1) -> bytes:
    """Returns the bytes of a bundle."""
    return b"#bundle\0" + struct.pack(">Q", time_tag) + b"".join(struct.pack(">I", len(e)) + e for e in elements)


def tags(text: str) -> bytes:
    """Returns the bytes of a message with these type tags, and no data for them."""
    return b"/a\0\0," + text.encode() + bytes(4 - (1 + len(text)) % 4)


def same(one: object, other: object) -> bool:
    """Compares arguments; all NaNs are equal."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


class PacketTests(SynchronousTestCase):
    def test_messages_have_these_bytes(self) -> None:
        """In both directions."""
        for message, data in LITERAL:
            with self.subTest(message):
                self.assertEqual(encode_message(message), data)
                self.assertEqual(decode_packet(data), message)

    def test_tags_that_are_read_only(self) -> None:
        """Other programs send these; the relay encodes the same arguments with shorter tags."""
        for data, expected in READ_ONLY:
            with self.subTest(data):
                self.assertEqual(decode_packet(data), OscMessage("/a", expected))

    def test_bundles_are_nested(self) -> None:
        """With their time tags."""
        message = LITERAL[0][1]
        self.assertEqual(
            decode_packet(bundle(message, bundle(message, time_tag=7))),
            OscBundle(1, (LITERAL[0][0], OscBundle(7, (LITERAL[0][0],)))),
        )

    def test_damaged_packets_are_refused(self) -> None:
        """Each with its own reason; no other exception is raised."""
        for data in DAMAGED:
            with self.subTest(data), self.assertRaises(DecodeError):
                decode_packet(data)

    def test_depth_and_number_are_bounded(self) -> None:
        """The depth of bundles in bundles, and the number of messages in a packet."""
        deep = LITERAL[0][1]
        for _ in range(MAX_DEPTH):
            deep = bundle(deep)
        decode_packet(deep)
        for data in (bundle(deep), bundle(*[b"/a\0\0"] * (MAX_MESSAGES + 1))):
            with self.assertRaises(DecodeError):
                decode_packet(data)

    def test_arguments_of_a_packet_are_bounded(self) -> None:
        """Those of all its messages together; brackets count, since each of them takes as long to read."""
        decode_packet(tags("T" * MAX_ARGUMENTS))
        half = tags("F" * (MAX_ARGUMENTS // 2))
        decode_packet(bundle(half, bundle(half)))
        for data in (tags("N" * (MAX_ARGUMENTS + 1)), tags("[]" * MAX_ARGUMENTS), bundle(half, tags("T"), half)):
            with self.assertRaisesRegex(DecodeError, f"more than {MAX_ARGUMENTS} arguments"):
                decode_packet(data)

    def test_long_packet_costs_more_before_it_is_read(self) -> None:
        """By its messages and its arguments, at any depth; long texts stay cheap."""
        one, many = tags("T"), tags("T" * 1_024)
        for data, cost in (
            (one, 0),
            (bundle(*[one] * 16), 0),
            (many, 4),
            (bundle(many, bundle(many)), 8),
            (bundle(*[one] * 640), 10 + 5),
            (bundle(bundle(*[one] * 64), *[b"/a\0\0"] * 64), 2),
            (tags("s") + b"," * 9_999 + b"\0", 0),
            (tags("T" * 60_000), 234),
        ):
            with self.subTest(data[:20], size=len(data)):
                self.assertEqual(packet_cost(data), cost)

    def test_cost_of_any_bytes_is_bounded(self) -> None:
        """A packet that claims more than it holds, or is nested without end, costs what can be counted."""
        endless = tags("T")
        for _ in range(1_000):
            endless = bundle(endless)
        self.assertEqual(packet_cost(endless), 0)
        self.assertEqual(packet_cost(bundle() + b"\xff" * 400), 0)
        self.assertLessEqual(packet_cost(bundle() + bytes(60_000)), MAX_MESSAGES // MESSAGES_A_UNIT + 1)

    def test_what_osc_has_no_word_for_is_refused(self) -> None:
        """NUL in a text, and numbers beyond 64 bits."""
        for argument in ("a\0b", 2**63):
            with self.subTest(argument), self.assertRaises(ValueError):
                encode_message(OscMessage("/a", (argument,)))

    def test_time_tags_are_unix_time(self) -> None:
        """They count from 1900, Unix time from 1970; the fraction is in 2^-32 s."""
        self.assertEqual(time_tag_us(1), 0)
        self.assertEqual(time_tag_us(2_208_988_800 << 32), 0)
        self.assertEqual(time_tag_us((2_208_988_801 << 32) + (1 << 31)), 1_500_000)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_packet_or_refused(self, data: bytes) -> None:
        """A refusal is a DecodeError."""
        for packet in (data, b"/a\0\0," + data, b"#bundle\0" + data):
            try:
                decode_packet(packet)
            except DecodeError:
                continue

    @given(st.lists(arguments, max_size=4).map(tuple))
    def test_what_is_written_is_read(self, given_arguments: tuple[Argument, ...]) -> None:
        """A decoded packet equals the encoded message; the packet is a multiple of 4 bytes long."""
        data = encode_message(OscMessage("/a", given_arguments))
        self.assertEqual(len(data) % 4, 0)
        packet = decode_packet(data)
        assert isinstance(packet, OscMessage)
        self.assertTrue(same(packet.arguments, given_arguments), packet)

    @given(
        st.lists(
            st.one_of(
                st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(min_size=1)
            )
            | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
            max_size=5,
        )
    )
    def test_python_osc_reads_the_same(self, given_arguments: list[bool | int | float | str | bytes]) -> None:
        """python-osc decodes what the relay encodes, and the relay what python-osc encodes."""
        theirs = TheirMessage(encode_message(OscMessage("/a/b", tuple(given_arguments))))
        self.assertEqual((theirs.address, theirs.params), ("/a/b", given_arguments))
        builder = OscMessageBuilder("/a/b")
        for argument in given_arguments:
            tag = {int: "h", float: "d"}.get(type(argument))
            builder.add_arg(argument, tag)
        self.assertEqual(decode_packet(builder.build().dgram), OscMessage("/a/b", tuple(given_arguments)))
