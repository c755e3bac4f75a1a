"""SET, PUBLISH and ACK: the short ways say the same as the long ones."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.binary_hot import ack_frame, decode_usual, publish_frame, set_frame
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, Phase, Signal
from clasp_relay.wire.frame import decode_frame, encode_frame
from tests.wire.strategies import TEXT, U32, U64, VALUES

_FULL = bytes((9,)) + (MAX_PAYLOAD_BYTES - 8).to_bytes(2, "big") + bytes(MAX_PAYLOAD_BYTES - 8)


class FrameTests(SynchronousTestCase):
    def test_frames_carry_the_qos_of_their_kind(self) -> None:
        """SET and events 1, streams and gestures 0, timelines 2, as the clients' own router sends them."""
        cases = (
            (set_frame("/a", b"\x00"), 0x41),
            (publish_frame(m.Publish("/a", Signal.PARAM)), 0x41),
            (publish_frame(m.Publish("/a", Signal.EVENT)), 0x41),
            (publish_frame(m.Publish("/a", Signal.STREAM)), 0x01),
            (publish_frame(m.Publish("/a", Signal.GESTURE)), 0x01),
            (publish_frame(m.Publish("/a", Signal.TIMELINE)), 0x81),
            (ack_frame("/a", 1), 0x01),
        )
        for number, (frame, flags) in enumerate(cases):
            with self.subTest(number=number):
                self.assertEqual(frame[1], flags)

    @given(TEXT, VALUES, st.none() | U64, st.booleans(), st.booleans(), st.none() | U32)
    def test_a_set_frame_is_its_message_in_a_frame(
        self, address: str, value: bytes, revision: int | None, lock: bool, unlock: bool, ttl: int | None
    ) -> None:
        """Whatever its fields."""
        frame = set_frame(address, value, revision, lock=lock, unlock=unlock, ttl=ttl)
        message = m.Set(address, value, revision, lock, unlock, ttl)
        self.assertEqual(frame, encode_frame(encode(message), 1))
        self.assertEqual(decode(decode_frame(frame).payload), message)

    @given(TEXT, st.sampled_from(Signal), st.sampled_from(Phase), st.none() | VALUES, st.none() | U64, st.none() | U32)
    def test_a_publish_frame_is_its_message_in_a_frame(
        self, address: str, signal: Signal, phase: Phase, value: bytes | None, time_us: int | None, rate: int | None
    ) -> None:
        """Whatever its fields."""
        message = m.Publish(address, signal, phase, value, None, time_us, None, rate)
        frame = publish_frame(message)
        self.assertEqual(frame, encode_frame(encode(message), frame[1] >> 6))
        self.assertEqual(decode(decode_frame(frame).payload), message)

    @given(st.none() | TEXT, st.none() | U64, st.none() | st.booleans(), st.none() | TEXT, st.none() | U32)
    def test_an_ack_frame_is_its_message_in_a_frame(
        self,
        address: str | None,
        revision: int | None,
        locked: bool | None,
        holder: str | None,
        correlation_id: int | None,
    ) -> None:
        """Whatever its fields."""
        fields = (address, revision, locked, holder, correlation_id)
        self.assertEqual(ack_frame(*fields), encode_frame(encode(m.Ack(*fields))))

    def test_a_frame_is_refused_when_it_would_be_too_long(self) -> None:
        """The longest one is not."""
        self.assertEqual(len(set_frame("/a", _FULL)), 4 + MAX_PAYLOAD_BYTES)
        self.assertRaises(ValueError, set_frame, "/aa", _FULL)
        self.assertRaises(ValueError, set_frame, "/" + "a" * 70_000, b"\x00")
        self.assertRaises(ValueError, publish_frame, m.Publish("/aa", value=_FULL))
        self.assertRaises(ValueError, ack_frame, "/" + "a" * (MAX_PAYLOAD_BYTES - 4))
        self.assertRaises(ValueError, set_frame, "/a", _FULL, 1)
        self.assertRaises(ValueError, ack_frame, "/" + "a" * (MAX_PAYLOAD_BYTES - 12), 1)


class DecodeTests(SynchronousTestCase):
    def test_every_fixed_size_type_is_set_as_it_came(self) -> None:
        """The type of a number is the sender's."""
        for value_type, size in ((0, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 4), (7, 8)):
            with self.subTest(value_type=value_type):
                data = bytes(range(200, 200 + size))
                message = decode(bytes((0x21, value_type)) + b"\x00\x02/a" + data)
                self.assertEqual(message, m.Set("/a", bytes((value_type,)) + data))

    def test_a_value_wins_over_samples(self) -> None:
        """The wire has room for one of them."""
        message = m.Publish("/a", value=b"\x00", samples=bytes(8))
        self.assertEqual(encode(message), b"\x20\x20\x00\x02/a\x01\x00")

    @given(TEXT, VALUES, st.none() | U64, st.booleans(), st.none() | U32, st.integers(0, 2), st.none() | U64)
    def test_a_set_without_options_is_decoded_from_its_frame_as_it_is_step_by_step(
        self, address: str, value: bytes, revision: int | None, lock: bool, ttl: int | None, qos: int, at_us: int | None
    ) -> None:
        """Any other is left to the steps."""
        message = m.Set(address, value, revision, lock, False, ttl)
        is_plain = revision is None and ttl is None and not lock and at_us is None
        data = encode_frame(encode(message), qos, at_us)
        self.assertEqual(decode_usual(data), message if is_plain else None)

    @given(st.binary(max_size=40), st.sampled_from((b"\x20\x20\x00\x02/a", b"\x21\x0b\x00\x02/a", b"")))
    def test_what_is_decoded_from_its_frame_is_what_the_steps_decode(self, rest: bytes, beginning: bytes) -> None:
        """Of any bytes; what they refuse is left to them."""
        payload = beginning + rest
        try:
            message = decode(payload)
        except RequestError:
            message = None
        usual = decode_usual(b"\x53\x01" + len(payload).to_bytes(2, "big") + payload)
        self.assertIn(usual, (message, None))
        if type(message) is m.Publish:
            self.assertEqual(usual, message)

    def test_a_frame_is_left_to_the_steps_when_it_is_not_a_usual_one(self) -> None:
        """They say what is wrong with it."""
        good = b"\x53\x41\x00\x07\x21\x02\x00\x02/a\x05"
        self.assertEqual(decode_usual(good), m.Set("/a", b"\x02\x05"))
        cases = {
            "too short": good[:7],
            "another magic": b"\x54" + good[1:],
            "compressed": good[:1] + b"\x49" + good[2:],
            "QoS 3": good[:1] + b"\xc1" + good[2:],
            "a longer length": good[:3] + b"\x08" + good[4:],
            "another message": good[:4] + b"\x20" + good[5:],
            "an option": good[:5] + b"\x42" + good[6:],
            "a string that ends too early": good[:5] + b"\x08" + good[6:],
            "an unknown type": good[:5] + b"\x0f" + good[6:],
            "a longer address": good[:7] + b"\x03" + good[8:],
            "no UTF-8": good[:9] + b"\xff" + good[10:],
            "a byte too many": good + b"\x00",
        }
        for name, data in cases.items():
            with self.subTest(name=name):
                self.assertIsNone(decode_usual(data))

    def test_payloads_are_refused_when_they_are_no_set(self) -> None:
        """Each is a message error that says what is wrong."""
        cases = (
            (b"\x21", "ends too early"),
            (b"\x21\x07\x00\x02/", "longer than"),
            (b"\x21\x00\x00\x02/", "longer than"),
            (b"\x21\x07\x00\x02/a\x00", "longer than"),
            (b"\x21\x01\x00\x02/a\x02", "neither 0 nor 1"),
            (b"\x21\x0c\x00\x02/a", "unknown value type"),
            (b"\x21\x00\x00\x02/\xff", "not valid UTF-8"),
            (b"\x21\x00\x00\x02/a\x00", "bytes follow"),
            (b"\x21\x80\x00\x02/a" + bytes(7), "ends too early"),
            (b"\x21\x10\x00\x02/a" + bytes(3), "ends too early"),
            (b"\x21\x90\x00\x02/a" + bytes(13), "bytes follow"),
        )
        self._assert_refused(cases)

    def test_payloads_are_refused_when_they_are_no_publish(self) -> None:
        """Each is a message error that says what is wrong; exactly four more bytes are the rate."""
        cases = (
            (b"\x20", "ends too early"),
            (b"\x20\x20\x00\x02/a", "ends too early"),
            (b"\x20\x20\x00\x02/a\x01", "ends too early"),
            (b"\x20\x20\x00\x02/a\x01\x07\x00", "ends too early"),
            (b"\x20\x20\x00\x02/a\x01\x0c", "unknown value type"),
            (b"\x20\x20\x00\x02/a\x02\x00", "ends too early"),
            (b"\x20\x20\x00\x02/a\x02\xff\xff" + bytes(8), "ends too early"),
            (b"\x20\x20\x00\x02/a\x03", "indicator 3"),
            (b"\x20\x30\x00\x02/a\x00" + bytes(7), "ends too early"),
            (b"\x20\x28\x00\x02/a\x00" + bytes(3), "ends too early"),
            (b"\x20\x20\x00\x02/a\x00" + bytes(3), "bytes follow"),
            (b"\x20\x20\x00\x02/a\x00" + bytes(5), "bytes follow"),
            (b"\x20\xa0\x00\x02/a\x00", "unknown signal 5"),
            (b"\x20\xe0\x00\x02/a\x00", "unknown signal 7"),
            (b"\x20\x24\x00\x02/a\x00", "phase 4"),
            (b"\x20\x67\x00\x02/a\x00", "phase 7"),
            (b"\x20\x20\x00\x02/\xff\x00", "not valid UTF-8"),
        )
        self._assert_refused(cases)

    def _assert_refused(self, cases: tuple[tuple[bytes, str], ...]) -> None:
        for payload, reason in cases:
            with self.subTest(payload=payload.hex()):
                error = self.assertRaises(DecodeError, decode, payload)
                self.assertEqual(error.code, ErrorCode.MESSAGE)
                self.assertIn(reason, error.message)
