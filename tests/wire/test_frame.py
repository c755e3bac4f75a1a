"""Tests of clasp_relay.wire.frame, by exact bytes."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES
from clasp_relay.wire.frame import ClaspFrame, decode_frame, encode_frame

_US = b"\x00\x06\x0a\x24\x18\x20\x22\x40"


class FrameTests(SynchronousTestCase):
    def test_frames_are_exactly_these_bytes(self) -> None:
        """QoS, timestamp and payload, in both directions."""
        cases = (
            (ClaspFrame(0, None, b"\x41"), b"\x53\x01\x00\x01\x41"),
            (ClaspFrame(1, None, b"\x41\x42"), b"\x53\x41\x00\x02\x41\x42"),
            (ClaspFrame(2, None, b"\x41"), b"\x53\x81\x00\x01\x41"),
            (ClaspFrame(0, 1_700_000_000_123_456, b"\x41"), b"\x53\x21\x00\x01" + _US + b"\x41"),
            (ClaspFrame(2, 2**64 - 1, b"\x41"), b"\x53\xa1\x00\x01" + b"\xff" * 8 + b"\x41"),
        )
        for frame, data in cases:
            with self.subTest(data=data.hex()):
                self.assertEqual(decode_frame(data), frame)
                self.assertEqual(encode_frame(frame.payload, frame.qos, frame.timestamp_us), data)

    def test_a_frame_decodes_whatever_its_encoding_bits(self) -> None:
        """The payload's first byte determines its encoding: clients do not set these bits correctly."""
        for bits in range(8):
            with self.subTest(bits=bits):
                self.assertEqual(decode_frame(bytes((0x53, 0x40 | bits, 0, 1, 0x41))), ClaspFrame(1, None, b"\x41"))

    def test_bytes_are_refused_when_they_are_not_one_frame(self) -> None:
        """Each with ERROR 100 and a text that names the problem."""
        cases = (
            (b"", "too short"),
            (b"\x53\x01\x00\x00", "too short"),
            (b"\x43\x01\x00\x01\x41", "starts with 0x43"),
            (b"\x53\xc1\x00\x01\x41", "QoS 3"),
            (b"\x53\xe1\x00\x01" + _US + b"\x41", "QoS 3"),
            (b"\x53\x11\x00\x01\x41", "encrypted"),
            (b"\x53\x09\x00\x01\x41", "compressed"),
            (b"\x53\x01\x00\x02\x41", "says 2 payload bytes, 1 follow"),
            (b"\x53\x01\x00\x01\x41\x41", "says 1 payload bytes, 2 follow"),
            (b"\x53\x21\x00\x01\x00\x00\x00\x00", "says 1 payload bytes, 0 follow"),
            (b"\x53\x21\x00\x01" + _US, "says 1 payload bytes, 0 follow"),
            (b"\x53\x21\x00\x00" + _US, "payload is empty"),
            (b"\x53\x01\x00\x00\x41", "says 0 payload bytes, 1 follow"),
        )
        for data, reason in cases:
            with self.subTest(data=data.hex()):
                error = self.assertRaises(DecodeError, decode_frame, data)
                self.assertEqual(error.code, ErrorCode.FRAME)
                self.assertIn(reason, error.message)

    def test_a_payload_is_refused_when_the_length_field_cannot_say_it(self) -> None:
        """The longest payload is accepted; an empty one and one that is a byte longer are refused."""
        longest = b"\x41" * MAX_PAYLOAD_BYTES
        self.assertEqual(decode_frame(encode_frame(longest)).payload, longest)
        for payload in (b"", longest + b"\x41"):
            with self.subTest(size=len(payload)):
                self.assertRaises(ValueError, encode_frame, payload)

    @given(st.binary(max_size=40))
    def test_any_bytes_are_a_frame_or_a_decode_error(self, data: bytes) -> None:
        """No other exception is raised."""
        for candidate in (data, b"\x53" + data):
            try:
                frame = decode_frame(candidate)
            except DecodeError as error:
                self.assertEqual(error.code, ErrorCode.FRAME)
            else:
                self.assertTrue(frame.payload)
