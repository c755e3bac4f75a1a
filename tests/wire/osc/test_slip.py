"""Tests of clasp_relay.wire.osc.slip: packets of a stream that is cut anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pythonosc import slip
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError
from clasp_relay.wire.osc.slip import SlipReader, decode_slip, encode_slip


class SlipTests(SynchronousTestCase):
    def test_packet_stands_between_two_ends(self) -> None:
        """ENDs and escapes in the packet are escaped."""
        self.assertEqual(encode_slip(b"a\xc0b\xdbc"), b"\xc0a\xdb\xdcb\xdb\xddc\xc0")
        self.assertEqual(decode_slip(b"a\xdb\xdcb\xdb\xddc"), b"a\xc0b\xdbc")

    def test_unknown_escape_is_refused(self) -> None:
        """Also at the end of the packet."""
        for framed in (b"\xdb", b"a\xdbb", b"\xdb\xdb\xdc"):
            with self.subTest(framed), self.assertRaises(DecodeError):
                decode_slip(framed)

    def test_stream_that_never_ends_a_packet_is_refused(self) -> None:
        """As soon as a packet is longer than the limit, whether it ends or not."""
        SlipReader(4).feed(b"abcd")
        for data in (b"abcde", b"abcde\xc0"):
            with self.subTest(data), self.assertRaises(DecodeError):
                SlipReader(4).feed(data)

    @given(st.lists(st.binary(min_size=1), max_size=4), st.integers(1, 9))
    def test_packets_come_through_as_they_were(self, packets: list[bytes], size: int) -> None:
        """In pieces of any size, and python-osc writes and reads the same."""
        stream = b"".join(map(encode_slip, packets))
        self.assertEqual(stream, b"".join(map(slip.encode, packets)))
        reader = SlipReader(10_000)
        framed = [each for at in range(0, len(stream), size) for each in reader.feed(stream[at : at + size])]
        self.assertEqual(list(map(decode_slip, framed)), packets)
