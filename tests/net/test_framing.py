"""Tests of ``clasp_relay.net.framing``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.framing import CODEC, header, wire_bytes
from clasp_relay.wire.codec import encode_to_frame
from clasp_relay.wire.messages import Ping
from tests.net.helpers import server_frames


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


class CodecTests(SynchronousTestCase):
    def test_codec_puts_each_message_into_a_websocket_message(self) -> None:
        """What the core is given for a session's way out goes to the transport as it is."""
        message = Ping()
        self.assertEqual(server_frames(CODEC.encode(message)), [(2, encode_to_frame(message))])
        self.assertEqual(CODEC.decode(encode_to_frame(message)), (message, 0))
