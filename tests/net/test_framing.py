"""Tests of ``clasp_relay.net.framing``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.framing import Batch, append_wire, header, wire_bytes
from tests.net.helpers import keep, server_frames


class HeaderTests(SynchronousTestCase):
    def test_header_says_the_length_in_its_shortest_form(self) -> None:
        """RFC 6455 §5.2: 7, 16 or 64 bits, the fewest that do."""
        for length, expected in (
            (0, b"\x82\x00"),
            (125, b"\x82\x7d"),
            (126, b"\x82\x7e\x00\x7e"),
            (0xFFFF, b"\x82\x7e\xff\xff"),
            (0x10000, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ):
            with self.subTest(length=length):
                self.assertEqual(header(length), expected)
                self.assertEqual(server_frames(wire_bytes(bytes(length))), [(2, bytes(length))])


class AppendWireTests(SynchronousTestCase):
    def test_append_wire_takes_frames_and_batches(self) -> None:
        """Both become the same bytes, and their number is told."""
        for item in (keep(b"abc"), Batch([keep(b"abc")], wire_bytes(b"abc"))):
            with self.subTest(item=type(item)):
                parts: list[bytes] = []
                self.assertEqual(append_wire(parts, item), 5)
                self.assertEqual(b"".join(parts), b"\x82\x03abc")
