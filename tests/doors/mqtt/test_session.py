"""What waits for an MQTT client is bounded, expires, and comes in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import NOT_YET, Frame
from clasp_relay.core.session.account import Accounts
from clasp_relay.doors.mqtt import session as mqtt_session
from clasp_relay.doors.mqtt.messages import Delivery, MqttCodec, SharedBatches
from clasp_relay.doors.mqtt.session import KeptTotal, MqttSession, Subscribed
from clasp_relay.errors import CloseCode
from clasp_relay.net.backlog import Batch
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import SnapshotParam
from clasp_relay.wire.mqtt.packets import V4, V5, Acknowledge, Filter, PacketType, Prop, Properties, PublishPacket
from clasp_relay.wire.values import encode_value
from tests.doors import mqtt_packets as p


class Wire:
    """A connection in memory."""

    def __init__(self, version: int = V4) -> None:
        self.version = version
        self.key: object = version
        self.wrap: Callable[[bytes], bytes] = bytes
        self.receive_maximum = 65_535
        self.max_packet_bytes = 1 << 28
        self.data = b""
        self.closed = ""

    def send(self, frame: Frame) -> None:
        """Takes bytes."""
        self.data += frame.wire

    def send_batch(self, batch: Batch) -> None:
        """Takes bytes."""
        self.data += batch.wire

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """Takes bytes."""
        self.data += b"".join(frames)

    def recorded(self) -> None:
        """Is not called here."""

    def close(self, _close_code: CloseCode, reason: str) -> None:
        """Notes why."""
        self.closed = reason

    def discard(self) -> None:
        """Drops what came."""
        self.data = b""

    def said(self) -> list[str]:
        """Returns what came, in words, and forgets it."""
        found, self.data = p.split(self.data)
        return [p.said(each, self.version) for each in found]


def new_session(
    client_id: str, now_s: Callable[[], float] = lambda: 0, batches: SharedBatches | None = None
) -> MqttSession:
    """Returns a session of nobody; the core has what it subscribes to."""
    session = MqttSession("", client_id, lambda _group: None, now_s, batches)

    def ids_at(address: str) -> list[int]:
        asked = session.subscriptions.values()
        return [each.id for each in asked if each.pattern is not None and each.pattern.matches(address)]

    session.ids_at = ids_at
    return session


class SessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A session that has subscribed to everything with QoS 1."""
        self.now_s = 0.0
        self.session = new_session("x", lambda: self.now_s)
        self.session.add(Subscribed(1, Filter("#", 1), Pattern.parse("/mqtt/**"), 0, None))
        self.codec = MqttCodec("/mqtt")

    def deliver(self, payload: str, address: str = "/mqtt/a") -> None:
        """Has a message come."""
        self.session.deliver(Frame(self.codec.set(address, encode_value(payload), 1, False, False, None)))

    def test_oldest_messages_go_when_too_much_waits(self) -> None:
        """Measured in bytes."""
        self.patch(mqtt_session, "MAX_QUEUED_BYTES", 3 * (mqtt_session.MESSAGE_BYTES + 2))
        for number in range(5):
            self.deliver(str(number))
        wire = Wire()
        self.session.resume(wire)
        self.assertEqual(wire.said(), [f"publish a {number} qos 1" for number in (2, 3, 4)])
        self.assertEqual(self.session.queued_bytes, 0)

    def test_properties_of_a_message_count(self) -> None:
        """Whoever sends little else cannot fill the memory with them."""
        self.patch(mqtt_session, "MAX_QUEUED_BYTES", 10_000)
        properties: Properties = {
            Prop.USER: [("a" * 500, "b" * 500)] * 2,
            Prop.CORRELATION_DATA: b"c" * 1_000,
            Prop.PAYLOAD_FORMAT: 1,
        }
        account = Accounts().open("ann", "")
        self.session.charge(account)
        for _ in range(10):
            self.session.enqueue(PublishPacket("a", b"1", 1, properties=properties), "/mqtt/a")
        self.assertEqual(self.session.kept_messages, 2)
        self.assertGreater(account.bytes, 2 * 3_000)
        self.session.discard()
        self.assertEqual((self.session.queued_bytes, account.bytes), (0, 0))

    def test_total_of_all_sessions_is_bounded(self) -> None:
        """While there is no connection."""
        total = self.session.kept_total = KeptTotal(2, 0)
        for number in range(4):
            self.deliver(str(number))
        self.assertEqual((self.session.kept_messages, total.messages), (2, 2))
        self.session.discard()
        self.assertEqual((self.session.kept_messages, total.messages), (0, 0))

    def test_nobody_loses_its_share_to_others(self) -> None:
        """Whoever has more lets its oldest go, whatever others keep."""
        total = self.session.kept_total = KeptTotal(5, 2)
        total.add(5)
        for number in range(4):
            self.deliver(str(number))
        wire = Wire()
        self.session.resume(wire)
        self.assertEqual(wire.said(), [f"publish a {number} qos 1" for number in (2, 3)])

    def test_message_expires_while_it_waits(self) -> None:
        """What is left of its time is told."""
        for number in range(2):
            packet = PublishPacket("a", b"%d" % number, 1, properties={Prop.MESSAGE_EXPIRY: 10 + 10 * number})
            self.session.enqueue(packet, "/mqtt/a")
        self.now_s = 12
        wire = Wire(V5)
        self.session.resume(wire)
        self.assertIn(b"\x02\0\0\0\x09", wire.data)
        self.assertEqual(wire.said(), ["publish a 1 qos 1"])

    def test_message_that_is_too_long_for_the_client_is_left_out(self) -> None:
        """As it asked."""
        wire = Wire(V5)
        wire.max_packet_bytes = 20
        self.session.resume(wire)
        self.deliver("x" * 30)
        self.deliver("short")
        self.assertEqual(wire.said(), ["publish a short qos 1"])

    def test_ids_are_not_given_twice(self) -> None:
        """While the first message is in flight."""
        self.patch(mqtt_session, "MAX_IN_FLIGHT", 70_000)
        wire = Wire()
        self.session.resume(wire)
        self.deliver("first")
        for _ in range(65_534):
            self.session._last_id = self.session._last_id % 65_535 + 1
        self.deliver("second")
        self.assertEqual(sorted(p.packet_ids(wire.data)), [1, 2])
        self.session.acknowledged(Acknowledge(PacketType.PUBACK, 1))
        self.assertEqual(self.session.kept_messages, 1)

    def test_retained_messages_come_as_the_socket_takes_them(self) -> None:
        """In pieces; others have their turn in between; given up without a connection."""
        params = [SnapshotParam(f"/mqtt/{number}", encode_value("x" * 1000), 1) for number in range(40)]

        def frames() -> Iterator[bytes]:
            for delivery in self.codec.snapshot(params):
                yield delivery
                yield NOT_YET

        self.session.add(Subscribed(1, Filter("#", 0), Pattern.parse("/mqtt/**"), 0, None))
        wire = Wire()
        self.session.link = wire
        pieces = list(self.session._retained(("subscription", 1), frames()))
        self.assertEqual(len(pieces), 40)
        pieces = list(self.session._retained(("subscription", 1), self.codec.snapshot(params)))
        self.assertEqual(len(pieces), 3)
        self.assertEqual(sum(len(p.split(piece)[0]) for piece in pieces), 40)
        half = self.session._retained(("subscription", 1), self.codec.snapshot(params))
        next(half)
        self.session.link = None
        self.assertEqual(list(half), [])
        ended: list[bool] = []

        def noted() -> Iterator[bytes]:
            try:
                yield NOT_YET
            finally:
                ended.append(True)

        unread = noted()
        next(unread)
        self.session.send_snapshot(object(), unread)
        self.assertEqual(ended, [True])

    def test_subscriptions_with_one_id_are_named_together(self) -> None:
        """A message that several match comes once, with the highest QoS and all identifiers."""
        self.session.add(Subscribed(2, Filter("a", 0), Pattern.parse("/mqtt/a"), 9, None))
        self.session.add(Subscribed(3, Filter("$x"), None, 0, None))
        wire = Wire(V5)
        self.session.resume(wire)
        self.deliver("1")
        self.assertIn(b"\x0b\x09", wire.data)
        self.assertEqual(wire.said(), ["publish a 1 qos 1"])
        removed = self.session.remove("#")
        assert removed is not None
        self.assertEqual(removed.id, 1)
        self.deliver("2")
        self.assertIn(b"\x0b\x09", wire.data)
        self.assertEqual(wire.said(), ["publish a 2 qos 0"])

    def test_what_does_not_match_is_not_sent(self) -> None:
        """Nor is what is no message, nor QoS 0 without a connection."""
        self.session.add(Subscribed(1, Filter("#", 0, retain_as_published=True), Pattern.parse("/mqtt/b"), 0, None))
        self.deliver("1")
        self.deliver("1", "/mqtt/b")
        self.session.deliver(Frame(b""))
        wire = Wire()
        self.session.resume(wire)
        self.assertEqual(wire.said(), [])
        self.deliver("2", "/mqtt/b")
        self.assertEqual(wire.said(), ["publish b 2 qos 0 retain"])

    def test_end_of_the_session_ends_its_connection(self) -> None:
        """Also after a fault of ours; without a connection it is noted."""
        self.session.abort()
        self.assertEqual(self.session.ended, "internal error")
        wire = Wire()
        self.session.link = wire
        self.session.close(CloseCode.GOING_AWAY, "going away")
        self.session.discard()
        self.assertEqual((wire.closed, self.session.ended), ("going away", "internal error"))

    def test_plain_sessions_share_bytes(self) -> None:
        """Those whose subscriptions all have QoS 0 and no option."""
        wires = [Wire(), Wire()]
        delivery = self.codec.set("/mqtt/a", encode_value("x"), 1, False, False, None)
        assert isinstance(delivery, Delivery)
        for wire in wires:
            session = new_session("y")
            session.add(Subscribed(1, Filter("a"), Pattern.parse("/mqtt/a"), 0, None))
            session.link = wire
            session.send(Frame(delivery))
        self.assertEqual([wire.said() for wire in wires], [["publish a x qos 0"]] * 2)
        self.assertEqual(len(delivery.shared), 1)

    def test_messages_of_a_turn_are_made_once_for_all_plain_sessions(self) -> None:
        """Those of one version get the very same bytes; others get theirs one by one."""
        batches = SharedBatches()
        frames = [Frame(self.codec.set("/mqtt/a", encode_value(n), n, False, False, None)) for n in (1, 2)]
        frames.append(Frame(b""))
        batch = Batch(frames, b"")
        wires = [Wire(), Wire(), Wire(V5)]
        first, second, other = (batches.find(batch, wire.key, wire.version, wire.wrap) for wire in wires)
        self.assertIs(first, second)
        self.assertIsNot(first, other)
        for wire in wires:
            session = new_session("y", batches=batches)
            session.add(Subscribed(1, Filter("a"), Pattern.parse("/mqtt/a"), 0, None))
            session.put(batch)
            session.link = wire
            session.put(batch)
        self.assertEqual([wire.said() for wire in wires], [["publish a 1 qos 0", "publish a 2 qos 0"]] * 3)
        rich = Wire()
        self.session.resume(rich)
        self.session.put(batch)
        self.assertEqual(rich.said(), ["publish a 1 qos 1", "publish a 2 qos 1"])
