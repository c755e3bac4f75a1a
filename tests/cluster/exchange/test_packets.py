"""What relays of a cluster tell each other, as bytes."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.packets import (
    Asked,
    Beat,
    Entry,
    Packet,
    decode_addresses,
    decode_beat,
    decode_packet,
    encode_addresses,
    encode_beat,
    encode_origin,
    encode_packet,
    origin_and_vouched,
)
from clasp_relay.errors import DecodeError
from clasp_relay.wire.messages import Ping

BEAT = Beat("one.1", "one", 3, 17, True, True, 99, True)
PACKET = Packet("one.1", "one", 3, 5, True, False, (Entry(1, "s", int(Asked.MESSAGE), 1, "", b"set", b"osc", b"mark"),))


class PacketTests(SynchronousTestCase):
    """What is encoded is decoded, and nothing else."""

    def test_packets_and_beats_come_back(self) -> None:
        """With all their fields."""
        self.assertEqual(decode_packet(encode_packet(PACKET)), PACKET)
        self.assertEqual(decode_beat(encode_beat(BEAT)), BEAT)

    def test_others_are_refused(self) -> None:
        """Another version, another number of fields, other kinds of fields."""
        for data in (
            b"",
            msgpack.packb(3),
            msgpack.packb((2, *BEAT)),
            msgpack.packb((1, *BEAT[:-1])),
            msgpack.packb((1, *BEAT[:-1], "text")),
            msgpack.packb((1, *PACKET[:-1], [3])),
            msgpack.packb((1, *PACKET[:-1], [(1, "s")])),
        ):
            with self.subTest(data=data):
                self.assertRaises(DecodeError, decode_beat, data)
                self.assertRaises(DecodeError, decode_packet, data)

    def test_what_a_session_begins_with_and_addresses_come_back(self) -> None:
        """And nothing else passes for them."""
        self.assertEqual(origin_and_vouched(encode_origin("home", "admin:/**")), ("home", "admin:/**"))
        self.assertEqual(decode_addresses(encode_addresses(["/a", "/b"])), ("/a", "/b"))
        self.assertEqual(origin_and_vouched(b""), ("", ""))
        for data in (b"x", msgpack.packb(3), msgpack.packb(("a",)), msgpack.packb(("a", 3))):
            with self.subTest(data=data):
                self.assertRaises(DecodeError, origin_and_vouched, data)
        for data in (b"", msgpack.packb(3), msgpack.packb(("/a", 3))):
            with self.subTest(data=data):
                self.assertRaises(DecodeError, decode_addresses, data)

    @given(st.binary(max_size=100))
    def test_any_bytes_are_one_or_refused(self, data: bytes) -> None:
        """Nothing else is raised."""
        for decode in (decode_beat, decode_packet):
            try:
                decode(data)
            except DecodeError:
                continue

    def test_a_message_that_does_not_leave_the_process_is_not_sent(self) -> None:
        """Its bytes are."""
        (entry,) = PACKET.entries
        local = PACKET._replace(entries=(entry._replace(message=Ping()),))
        self.assertEqual(decode_packet(encode_packet(local)), PACKET)
