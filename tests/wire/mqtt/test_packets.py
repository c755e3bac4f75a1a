"""Tests of clasp_relay.wire.mqtt.packets: literal bytes in both directions, and random bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError
from clasp_relay.wire.mqtt.packets import (
    MAX_PACKET_BYTES,
    MAX_PROPERTIES,
    PINGRESP,
    V4,
    V5,
    Acknowledge,
    Connect,
    DisconnectPacket,
    Filter,
    Packet,
    PacketReader,
    PacketType,
    PingRequest,
    Prop,
    Properties,
    PublishPacket,
    SubscribePacket,
    UnsubscribePacket,
    Will,
    decode_packet,
    encode_acknowledge,
    encode_connack,
    encode_disconnect,
    encode_properties,
    encode_publish,
    encode_suback,
    encode_text,
    encode_unsuback,
    encode_varint,
)

READ: list[tuple[int, str, Packet]] = [
    (V4, "10 0d 0004 4d515454 04 02 003c 0001 61", Connect(V4, "a", True, 60)),
    (
        V4,
        "10 1c 0004 4d515454 04 ec 0000 0001 61 0001 77 0002 0001 0001 75 0003 707764",
        Connect(V4, "a", False, 0, Will("w", b"\0\1", 1, True), "u", b"pwd"),
    ),
    (
        V5,
        "10 24 0004 4d515454 05 46 000a 05 11 0000000a 0000 05 18 00000005 0001 77 0001 78 0004 746f6b6e",
        Connect(
            V5,
            "",
            True,
            10,
            Will("w", b"x", 0, False, {Prop.WILL_DELAY: 5}),
            None,
            b"tokn",
            {Prop.SESSION_EXPIRY: 10},
        ),
    ),
    (V4, "10 0a 0004 4d515454 03 00 0000", Connect(3, "")),
    (V4, "30 05 0003 612f62", PublishPacket("a/b", b"")),
    (V4, "3b 08 0001 61 0007 68 69 21", PublishPacket("a", b"hi!", 1, True, True, 7)),
    (
        V5,
        "34 10 0001 61 0007 09 26 0001 6b 0001 76 01 01 68",
        PublishPacket("a", b"h", 2, False, False, 7, {Prop.USER: [("k", "v")], Prop.PAYLOAD_FORMAT: 1}),
    ),
    (V4, "40 02 0007", Acknowledge(PacketType.PUBACK, 7)),
    (V5, "50 03 0007 10", Acknowledge(PacketType.PUBREC, 7, 0x10)),
    (V5, "70 04 0007 00 00", Acknowledge(PacketType.PUBCOMP, 7)),
    (V4, "62 02 0007", Acknowledge(PacketType.PUBREL, 7)),
    (V4, "82 06 0001 0001 61 01", SubscribePacket(1, (Filter("a", 1),))),
    (
        V5,
        "82 0c 0001 02 0b 05 0001 61 2e 0000 00",
        SubscribePacket(1, (Filter("a", 2, True, True, 2), Filter("")), 5),
    ),
    (V4, "a2 08 0001 0001 61 0001 62", UnsubscribePacket(1, ("a", "b"))),
    (V5, "a2 06 0001 00 0001 61", UnsubscribePacket(1, ("a",))),
    (V4, "c0 00", PingRequest()),
    (V4, "e0 00", DisconnectPacket()),
    (V5, "e0 01 04", DisconnectPacket(4)),
    (V5, "e0 07 00 05 11 00000001", DisconnectPacket(0, {Prop.SESSION_EXPIRY: 1})),
]

DAMAGED: list[tuple[int, str]] = [
    (V4, "00 00"),
    (V4, "20 00"),
    (V4, "f0 00"),
    (V4, "c1 00"),
    (V4, "80 06 0001 0001 61 01"),
    (V4, "c0 01 00"),
    (V4, "10 0d 0004 4d515458 04 02 003c 0001 61"),
    (V4, "10 0d 0004 4d515454 04 03 003c 0001 61"),
    (V4, "10 0d 0004 4d515454 04 08 003c 0001 61"),
    (V4, "10 0d 0004 4d515454 04 1e 003c 0001 61"),
    (V4, "10 11 0004 4d515454 04 40 003c 0001 61 0002 0000"),
    (V4, "36 05 0003 612f62"),
    (V4, "38 05 0003 612f62"),
    (V4, "32 05 0001 61 0000"),
    (V4, "30 03 0001 00"),
    (V4, "30 03 0001 ff"),
    (V4, "30 03 0005 61"),
    (V4, "40 01 00"),
    (V4, "82 02 0001"),
    (V4, "82 06 0001 0001 61 03"),
    (V4, "82 06 0001 0001 61 04"),
    (V5, "82 07 0001 00 0001 61 30"),
    (V5, "82 09 0001 02 0b 00 0001 61 00"),
    (V5, "82 0b 0001 04 0b 01 0b 02 0001 61 00"),
    (V5, "30 05 0001 61 02 01"),
    (V5, "30 06 0001 61 02 01 02"),
    (V5, "30 08 0001 61 04 01 01 01 01"),
    (V5, "30 06 0001 61 02 7f 00"),
    (V5, "30 08 0001 61 02 02 00000001"),
    (V5, "30 08 0001 61 ff ff ff ff 01"),
]


def data(text: str) -> bytes:
    """Returns bytes from hexadecimal digits."""
    return bytes.fromhex(text)


class DecodeTests(SynchronousTestCase):
    def test_packets_are_read(self) -> None:
        """Of both versions."""
        for version, text, expected in READ:
            with self.subTest(text):
                self.assertEqual(data(text)[1], len(data(text)) - 2)
                self.assertEqual(decode_packet(data(text), version), expected)

    def test_damaged_packets_are_refused(self) -> None:
        """Each with its own reason."""
        for version, text in DAMAGED:
            with self.subTest(text), self.assertRaises(DecodeError):
                decode_packet(data(text), version)

    def test_properties_are_bounded(self) -> None:
        """In their number, and by the length of the packet."""
        many = (b"\x26" + bytes(4)) * (MAX_PROPERTIES + 1)
        body = encode_text("a") + encode_varint(len(many)) + many
        with self.assertRaises(DecodeError):
            decode_packet(b"\x30" + encode_varint(len(body)) + body, V5)

    @given(st.binary(max_size=60), st.sampled_from((V4, V5)), st.integers(0, 255))
    def test_any_bytes_are_a_packet_or_refused(self, body: bytes, version: int, first: int) -> None:
        """A refusal is a DecodeError."""
        for packet in (body, bytes((first,)) + encode_varint(len(body)) + body):
            try:
                decode_packet(packet, version)
            except DecodeError:
                continue


class ReaderTests(SynchronousTestCase):
    @given(st.integers(1, 9))
    def test_packets_come_out_of_a_stream(self, size: int) -> None:
        """However the stream is cut, and with lengths of one to three bytes."""
        packets = [data("c0 00"), data("30 05 0003 612f62"), encode_publish(V4, PublishPacket("a", bytes(300)))]
        stream = b"".join(packets)
        reader = PacketReader()
        found = [each for at in range(0, len(stream), size) for each in reader.feed(stream[at : at + size])]
        self.assertEqual(found, packets)

    def test_packet_that_is_too_long_is_refused_at_its_beginning(self) -> None:
        """So is a length that does not end within four bytes."""
        at_most = MAX_PACKET_BYTES - 4
        PacketReader().feed(b"\x30" + encode_varint(at_most))
        for head in (b"\x30" + encode_varint(at_most + 1), data("30 ff ff ff ff")):
            with self.subTest(head), self.assertRaises(DecodeError):
                PacketReader().feed(head)


class EncodeTests(SynchronousTestCase):
    def test_answers_have_these_bytes(self) -> None:
        """In both versions of the protocol."""
        cases: list[tuple[bytes, str]] = [
            (encode_connack(V4, 5, False), "20 02 00 05"),
            (encode_connack(V4, 0, True), "20 02 01 00"),
            (encode_connack(V5, 0, False, {Prop.ASSIGNED_CLIENT_ID: "a"}), "20 07 00 00 04 12 0001 61"),
            (encode_connack(V5, 0x87, False), "20 03 00 87 00"),
            (encode_acknowledge(V4, Acknowledge(PacketType.PUBACK, 7, 0x97)), "40 02 0007"),
            (encode_acknowledge(V5, Acknowledge(PacketType.PUBACK, 7, 0x97)), "40 03 0007 97"),
            (encode_acknowledge(V5, Acknowledge(PacketType.PUBREL, 7)), "62 02 0007"),
            (encode_suback(V4, 1, [1, 0x80]), "90 04 0001 01 80"),
            (encode_suback(V5, 1, [1, 0x87]), "90 05 0001 00 01 87"),
            (encode_unsuback(V4, 1, [0]), "b0 02 0001"),
            (encode_unsuback(V5, 1, [0, 0x11]), "b0 05 0001 00 00 11"),
            (encode_disconnect(0x8E), "e0 02 8e 00"),
            (encode_disconnect(0x8B, "x"), "e0 06 8b 04 1f 0001 78"),
            (encode_publish(V4, PublishPacket("a", b"x", 0, True)), "31 04 0001 61 78"),
            (encode_publish(V4, PublishPacket("a", b"x", 1, False, True, 9)), "3a 06 0001 61 0009 78"),
            (
                encode_publish(V5, PublishPacket("a", b"", 2, id=9, properties={Prop.SUBSCRIPTION_ID: [1, 200]})),
                "34 0b 0001 61 0009 05 0b 01 0b c801",
            ),
            (PINGRESP, "d0 00"),
        ]
        for found, expected in cases:
            with self.subTest(expected):
                self.assertEqual(found.hex(), expected.replace(" ", ""))

    def test_properties_come_back(self) -> None:
        """Properties of every kind that are encoded in a PUBLISH are decoded from it."""
        properties: Properties = {
            Prop.PAYLOAD_FORMAT: 1,
            Prop.MESSAGE_EXPIRY: 60,
            Prop.TOPIC_ALIAS: 3,
            Prop.CONTENT_TYPE: "text/plain",
            Prop.CORRELATION_DATA: b"\0\1",
            Prop.USER: [("a", "b"), ("a", "c")],
            Prop.SUBSCRIPTION_ID: [7],
        }
        packet = PublishPacket("a", b"x", properties=dict(properties))
        self.assertEqual(decode_packet(encode_publish(V5, packet), V5), packet)
        self.assertEqual(encode_properties({}), b"\0")

    @given(st.integers(0, 268_435_455))
    def test_numbers_take_one_to_four_bytes(self, number: int) -> None:
        """Seven bits each."""
        found = encode_varint(number)
        self.assertEqual(len(found), 1 + (number > 127) + (number > 16_383) + (number > 2_097_151))
        self.assertEqual(sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(found)), number)
