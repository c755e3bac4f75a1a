"""Tests of clasp_relay.wire.binary_hot: the payloads of SET, PUBLISH and ACK."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import decode, encode


class DecodeTests(SynchronousTestCase):
    def test_every_fixed_size_type_is_set_as_it_came(self) -> None:
        """A number keeps the type that its sender chose."""
        for value_type, size in ((0, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 4), (7, 8)):
            with self.subTest(value_type=value_type):
                data = bytes(range(200, 200 + size))
                message = decode(bytes((0x21, value_type)) + b"\x00\x02/a" + data)
                self.assertEqual(message, m.Set("/a", bytes((value_type,)) + data))

    def test_a_value_wins_over_samples(self) -> None:
        """The encoding has room for only one of them."""
        message = m.Publish("/a", value=b"\x00", samples=bytes(8))
        self.assertEqual(encode(message), b"\x20\x20\x00\x02/a\x01\x00")

    def test_payloads_are_refused_when_they_are_no_set(self) -> None:
        """Each with ERROR 101 and a text that names the problem."""
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
        """Each with ERROR 101 and a text that names the problem; exactly four more bytes are the rate."""
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
