"""Tests of clasp_relay.wire.binary_decode: what is refused, and what is tolerated."""

from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.binary_decode import DECODERS, decode_binary
from clasp_relay.wire.constants import ALL_TYPES, MAX_BUNDLE_MEMBERS, MAX_DEFINITIONS, MAX_SNAPSHOT_PARAMS, MessageCode
from tests.wire.cases import CASES


class BinaryDecodeTests(SynchronousTestCase):
    def test_every_message_code_has_a_decoder(self) -> None:
        """And each kind of message has one code; the one of FEDERATION_SYNC is always refused."""
        self.assertEqual(set(DECODERS), set(MessageCode))
        self.assertEqual(len(DECODERS), len(get_args(m.Message)) + 1)

    def test_a_message_is_refused_when_it_is_cut_or_something_follows(self) -> None:
        """Every truncation and every extra byte, of every message."""
        for name, (message, payload) in CASES.items():
            with self.subTest(name):
                if not isinstance(message, m.Publish):
                    for size in range(len(payload)):
                        self.assertRaises(DecodeError, decode_binary, payload[:size])
                self.assertRaises(DecodeError, decode_binary, payload + b"\x00")

    def test_a_message_is_refused_when_a_flag_is_unknown(self) -> None:
        """The flag may announce a field, so the rest cannot be decoded."""
        cases = (
            b"\x10\x00\x00\x00\x01\x00\x02/a\xff\x10",
            b"\x03\x00\x00\x00\x01\x00\x02/a\x00\x08",
            b"\x03\x00\x00\x00\x01\x00\x02/a\x00\x04\x10",
            b"\x23\x00\x01\x00\x02/a\x00" + bytes(8) + b"\x04",
            b"\x24\x10\x00\x02/a\xff",
            b"\x30\x40\x00\x00",
            b"\x40\x04" + bytes(8),
            b"\x50\x20",
            b"\x51\x00\x00\x00\x00\x04",
            b"\x61\x00\x01\x00\x02/a\x00\x04",
        )
        for payload in cases:
            with self.subTest(payload=payload.hex()):
                self.assertIn("unknown flags", self.assertRaises(DecodeError, decode_binary, payload).message)

    def test_a_count_is_checked_before_anything_is_read(self) -> None:
        """A count that the remaining bytes cannot hold is refused, whatever the first item is."""
        for payload in (
            b"\x03\x00\x00\xff\xff",
            b"\x23\xff\xff",
            b"\x30\x00\xff\xff",
            b"\x61\xff\xff",
        ):
            with self.subTest(payload=payload.hex()):
                error = self.assertRaises(DecodeError, decode_binary, payload + b"\xff" * 30)
                self.assertIn("a count is more", error.message)

    def test_a_message_is_refused_when_a_field_means_nothing(self) -> None:
        """Each with a text that names the problem."""
        cases = (
            (b"\x03\x00\x00\x00\x01\x00\x02/a\x05\x00", "unknown signal 5"),
            (b"\x50\x04\x02", "neither 0 nor 1"),
            (b"\x22\x00\x01\xff", "not valid UTF-8"),
            (b"\x22\x00\x05/a", "more than the bytes that are left"),
            (b"\x23\x00\x01\x00\x02/a\x0c" + bytes(9), "unknown value type"),
            (b"\x41\x00\x00", "2 bytes follow"),
        )
        for payload, reason in cases:
            with self.subTest(payload=payload.hex()):
                error = self.assertRaises(DecodeError, decode_binary, payload)
                self.assertEqual(error.code, ErrorCode.MESSAGE)
                self.assertIn(reason, error.message)

    def test_a_type_mask_of_nothing_means_all_types(self) -> None:
        """The Python client writes 0 if it is asked for types that it does not know; other masks are unchanged."""
        cases = ((0, ALL_TYPES), (0xFF, ALL_TYPES), (0x1F, 0x1F), (0x05, 0x05), (0x24, 0x24))
        for mask, types in cases:
            with self.subTest(mask=mask):
                message = decode_binary(b"\x10\x00\x00\x00\x01\x00\x02/a" + bytes((mask, 0)))
                self.assertEqual(message, m.Subscribe(1, "/a", types))
        self.assertEqual(decode_binary(b"\x24\x00\x00\x02/a\x00"), m.Replay("/a"))

    def test_history_and_window_of_a_subscribe_are_skipped(self) -> None:
        """The Python client sends them."""
        start = b"\x10\x00\x00\x00\x01\x00\x02/a\xff"
        for flags, fields in ((4, 4), (8, 4), (12, 8)):
            with self.subTest(flags=flags):
                payload = start + bytes((flags,)) + bytes(fields)
                self.assertEqual(decode_binary(payload), m.Subscribe(1, "/a"))
                self.assertRaises(DecodeError, decode_binary, payload[:-1])
                self.assertRaises(DecodeError, decode_binary, payload + b"\x00")

    def test_federation_sync_is_refused_by_its_code(self) -> None:
        """Nothing behind the code is read."""
        for payload in (b"\x04", b"\x04\x02\xff"):
            with self.subTest(payload=payload.hex()):
                error = self.assertRaises(RequestError, decode_binary, payload)
                self.assertEqual(error.code, ErrorCode.MESSAGE)
                self.assertEqual(error.message, "FEDERATION_SYNC is not offered by this relay")

    def test_a_bundle_is_refused_when_a_member_is(self) -> None:
        """A member has to be one complete binary message, and not a bundle; MessagePack is refused there."""
        members = (b"", b"\x30\x00\x00\x00", b"\x99", b"\x82\xa4type", b"\x21\x00\x00\x09/")
        for member in members:
            with self.subTest(member=member.hex()):
                payload = b"\x30\x00\x00\x01" + len(member).to_bytes(2, "big") + member
                self.assertRaises(DecodeError, decode_binary, payload)

    def test_a_bundle_holds_only_sets_and_publishes(self) -> None:
        """A member of another kind is refused with its name, before its fields are read."""
        for code in set(MessageCode) - {MessageCode.SET, MessageCode.PUBLISH, MessageCode.BUNDLE}:
            with self.subTest(code.name):
                payload = b"\x30\x00\x00\x01\x00\x01" + bytes((code,))
                error = self.assertRaises(RequestError, decode_binary, payload)
                self.assertEqual(error.code, ErrorCode.MESSAGE)
                self.assertEqual(error.message, f"a bundle may hold SET and PUBLISH, not {code.name}")

    def test_lists_are_bounded(self) -> None:
        """At the limit a list is accepted; with one entry more it is refused before any entry is read."""
        cases = (
            ("ANNOUNCE", b"\x03\x00\x00", b"\x00\x02/a\x00\x00", MAX_DEFINITIONS),
            ("RESULT", b"\x61", b"\x00\x02/a\x00\x00", MAX_DEFINITIONS),
            ("SNAPSHOT", b"\x23", b"\x00\x02/a\x00" + bytes(9), MAX_SNAPSHOT_PARAMS),
            ("BUNDLE", b"\x30\x00", b"\x00\x06\x21\x00\x00\x02/a", MAX_BUNDLE_MEMBERS),
        )
        for name, head, entry, most in cases:
            with self.subTest(name):
                self.assertEqual(
                    type(decode_binary(head + most.to_bytes(2, "big") + entry * most)).__name__.upper(), name
                )
                payload = head + (most + 1).to_bytes(2, "big") + b"\xff" * len(entry) * (most + 1)
                error = self.assertRaises(RequestError, decode_binary, payload)
                self.assertIn(f"{most + 1} entries, at most {most} are allowed", error.message)

    def test_bundles_in_bundles_are_not_walked_down(self) -> None:
        """A bundle of a thousand levels is refused at its second level."""
        payload = b"\x30\x00\x00\x00"
        for _ in range(1_000):
            payload = b"\x30\x00\x00\x01" + len(payload).to_bytes(2, "big") + payload
        self.assertIn("BUNDLE inside", self.assertRaises(DecodeError, decode_binary, payload).message)
