"""Tests of clasp_relay.wire.binary_encode: ready frames, frames cut by size, and what has no encoding."""

from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire import messages as m
from clasp_relay.wire.binary_encode import (
    COUNTED_BYTES,
    ENCODERS,
    encode,
    encode_to_frame,
    result_entry,
    result_frame,
    snapshot_entry,
    snapshot_frame,
)
from clasp_relay.wire.codec import decode
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, Signal
from clasp_relay.wire.frame import decode_frame, encode_frame
from tests.wire.cases import CASES


class EncodeTests(SynchronousTestCase):
    def test_every_kind_of_message_has_an_encoder(self) -> None:
        """No kind is missing."""
        self.assertEqual(set(ENCODERS), set(get_args(m.Message)))

    def test_messages_are_framed_with_the_qos_that_a_relay_gives_them(self) -> None:
        """SET and events have QoS 1, timelines 2, everything else 0."""
        for name, (message, payload) in CASES.items():
            qos = 0
            if isinstance(message, m.Set):
                qos = 1
            if isinstance(message, m.Publish):
                qos = {Signal.EVENT: 1, Signal.TIMELINE: 2}.get(message.signal, 0)
            with self.subTest(name):
                self.assertEqual(encode_to_frame(message), encode_frame(payload, qos))

    def test_a_message_is_refused_when_a_field_does_not_fit(self) -> None:
        """A ValueError is raised, and no frame with another meaning is made."""
        cases: tuple[m.Message, ...] = (
            m.Hello(256, 0, ""),
            m.Get("/" + "a" * 65_535),
            m.Get("/\ud800"),
            m.Unsubscribe(2**32),
            m.Set("/a", b"\x00", -1),
            m.Publish("/a", id=2**32),
            m.Bundle((m.Bundle(),)),
            m.Bundle((m.Query("a" * 65_534),)),
        )
        for number, message in enumerate(cases):
            with self.subTest(number=number):
                self.assertRaises(ValueError, encode, message)
                self.assertRaises(ValueError, encode_to_frame, message)

    def test_a_message_is_refused_when_it_does_not_fit_a_frame(self) -> None:
        """Its payload can be encoded, its frame cannot."""
        message = m.Error(100, "x" * 40_000, "/" + "a" * 40_000)
        self.assertGreater(len(encode(message)), MAX_PAYLOAD_BYTES)
        self.assertRaises(ValueError, encode_to_frame, message)


class CutTests(SynchronousTestCase):
    def test_a_snapshot_is_made_of_encoded_params(self) -> None:
        """The frame equals that of the whole message, and its size is known before it is made."""
        params = (m.SnapshotParam("/a", b"\x00", 1), m.SnapshotParam("/b", b"\x01\x01", 2, "w", 3))
        entries = [snapshot_entry(param) for param in params]
        frame = snapshot_frame(entries)
        self.assertEqual(frame, encode_to_frame(m.Snapshot(params)))
        self.assertEqual(len(frame), 4 + COUNTED_BYTES + sum(map(len, entries)))
        self.assertEqual(decode(decode_frame(frame).payload), m.Snapshot(params))
        self.assertEqual(snapshot_frame([]), encode_to_frame(m.Snapshot()))

    def test_a_snapshot_fills_a_frame_to_the_last_byte(self) -> None:
        """One byte more is refused."""
        room = MAX_PAYLOAD_BYTES - COUNTED_BYTES
        empty = snapshot_entry(m.SnapshotParam("/a", b"\x09\x00\x00", 1))
        size = room - len(empty)
        value = b"\x09" + size.to_bytes(2, "big") + bytes(size)
        full = snapshot_entry(m.SnapshotParam("/a", value, 1))
        self.assertEqual(len(decode_frame(snapshot_frame([full])).payload), MAX_PAYLOAD_BYTES)
        self.assertRaises(ValueError, snapshot_frame, [full + b"\x00"])

    def test_a_result_is_made_of_encoded_signals(self) -> None:
        """Of address, signal, datatype and access; a RESULT has no other fields."""
        signal = m.SignalDefinition("/a", Signal.EVENT, "f32", "rw", "dB", (0, 1), b"\x00", "level")
        frame = result_frame([result_entry(signal)])
        self.assertEqual(frame, encode_to_frame(m.Result((signal,))))
        bare = m.SignalDefinition("/a", Signal.EVENT, "f32", "rw")
        self.assertEqual(decode(decode_frame(frame).payload), m.Result((bare,)))
