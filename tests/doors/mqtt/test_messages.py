"""One encoding for all MQTT sessions, and what is remembered of retained messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.mqtt import messages
from clasp_relay.doors.mqtt.messages import Delivery, MqttCodec, Sending, own_bytes
from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Ack, Error, Publish, SnapshotParam, Value
from clasp_relay.wire.mqtt.packets import V4
from clasp_relay.wire.values import encode_value


class CodecTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A codec."""
        self.codec = MqttCodec("/mqtt")

    def send(self, address: str, payload: bytes, value: Value, revision: int, qos: int = 1) -> None:
        """Has a client's message be set."""
        self.codec.sending = Sending(address, value, payload, qos, None, {}, own_bytes(value, payload))
        self.codec.ack(address, revision)
        self.codec.sending = None

    def retained(self, address: str, value: Value, revision: int) -> tuple[bytes, int]:
        """Returns payload and QoS of what a new subscriber gets."""
        (delivery,) = self.codec.snapshot([SnapshotParam(address, value, revision)])
        assert isinstance(delivery, Delivery)
        return delivery.payload, delivery.qos

    def test_sessions_of_a_version_share_their_packet(self) -> None:
        """It is made once, whatever their number."""
        made: list[bytes] = []

        def wrap(data: bytes) -> bytes:
            made.append(data)
            return data

        delivery = self.codec.set("/mqtt/a", encode_value(1), 1, False, False, None)
        assert isinstance(delivery, Delivery)
        first, second = (delivery.packet("tcp", V4, False, wrap) for _ in range(2))
        self.assertIs(first, second)
        self.assertEqual(made, [b"\x30\x04\0\1a1"])

    def test_bytes_hold_for_the_value_that_they_were_sent_for(self) -> None:
        """Not for what a policy made of it, nor for a later one."""
        value = encode_value({"a": 1})
        self.send("/mqtt/a", b'{"a": 1}', value, 1, qos=2)
        self.assertEqual(self.retained("/mqtt/a", value, 1), (b'{"a": 1}', 2))
        for other, revision in ((value, 2), (encode_value({"a": 2}), 1)):
            self.assertEqual(self.retained("/mqtt/a", other, revision)[1], 1)
        self.codec.sending = Sending("/mqtt/a", value, b'{"a": 1}', 0, None, {})
        for seen, payload in ((value, b'{"a": 1}'), (encode_value({}), b"{}")):
            live = self.codec.set("/mqtt/a", seen, 1, False, False, None)
            event = self.codec.publish(Publish("/mqtt/a", Signal.EVENT, value=seen))
            for delivery in (live, event):
                assert isinstance(delivery, Delivery)
                self.assertEqual((delivery.payload, delivery.qos), (payload, 0))

    def test_what_is_remembered_is_bounded(self) -> None:
        """In number and bytes, the oldest goes; what a value says itself is not remembered."""
        self.patch(messages, "MAX_KEPT", 2)
        self.patch(messages, "MAX_KEPT_BYTES", 20)
        value = encode_value(1)
        self.send("/mqtt/usual", b"1", value, 1)
        self.assertEqual(len(self.codec._kept), 0)
        for name in "abc":
            self.send(f"/mqtt/{name}", b" 1", value, 1)
        self.assertEqual([self.retained(f"/mqtt/{name}", value, 1)[0] for name in "abc"], [b"1", b" 1", b" 1"])
        self.send("/mqtt/c", b" " * 18 + b"1", value, 2)
        self.assertEqual(list(self.codec._kept), ["/mqtt/c"])
        self.send("/mqtt/c", b"", NULL, 3)
        self.assertEqual((len(self.codec._kept), self.codec._kept_bytes), (0, 0))

    def test_what_has_no_topic_is_nothing(self) -> None:
        """Nor is what is deleted, in a snapshot."""
        self.assertEqual(self.codec.set("/other", encode_value(1), 1, False, False, None), b"")
        params = [SnapshotParam("/mqtt/a", NULL, 1), SnapshotParam("/other", encode_value(1), 1)]
        self.assertEqual(list(self.codec.snapshot(params)), [b""])
        self.assertEqual(list(self.codec.result(())), [])
        self.assertEqual(self.codec.encode(Ack()), b"")

    def test_streams_go_out_with_qos_0(self) -> None:
        """Events of CLASP count as QoS 1."""
        for signal, qos in ((Signal.EVENT, 1), (Signal.STREAM, 0), (Signal.GESTURE, 0)):
            delivery = self.codec.publish(Publish("/mqtt/a", signal, value=encode_value(1)))
            assert isinstance(delivery, Delivery)
            self.assertEqual(delivery.qos, qos)

    def test_refusals_are_noted(self) -> None:
        """But not the rate limit's, which may be about an earlier message."""
        self.codec.encode(Error(ErrorCode.LIMIT, "too many messages"))
        self.assertIsNone(self.codec.refusal)
        for error in (Error(ErrorCode.LIMIT, "too many subscriptions", "/a"), Error(ErrorCode.SCOPE, "no", "/a")):
            self.codec.encode(error)
            self.assertIs(self.codec.refusal, error)

    def test_packets_are_not_decoded_here(self) -> None:
        """The door does."""
        self.assertEqual(self.codec.cost(b""), 1)
        with self.assertRaises(DecodeError):
            self.codec.decode(b"\xc0\0")
