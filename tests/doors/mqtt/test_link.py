"""The way out of a connection: answers in their order, and one end."""

from __future__ import annotations

from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Frame
from clasp_relay.doors.mqtt.link import MqttLink
from clasp_relay.doors.mqtt.reasons import Reason
from clasp_relay.errors import CloseCode
from clasp_relay.net.outbox import Outbox
from clasp_relay.wire.mqtt.packets import V4, V5, Acknowledge, PacketType, PublishPacket
from tests.doors import mqtt_packets as p


class Way:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[tuple[CloseCode, str]] = []

    def send(self, frame: Frame) -> None:
        """Takes bytes."""
        self.data += frame.wire

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Notes it."""
        self.ends.append((close_code, reason))


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A connection that has said nothing."""
        self.way = Way()
        self.refusals: list[str] = []
        self.link = MqttLink(cast("Outbox", self.way), bytes, "tcp", self.refusals.append)

    def said(self) -> list[str]:
        """Returns what was sent, in words, and forgets it."""
        found, self.way.data = p.split(self.way.data)
        return [p.said(each, self.link.version) for each in found]

    def test_answers_leave_in_the_order_of_what_they_answer(self) -> None:
        """Each once it is known and recorded; that to QoS 0 is none, and holds up those behind it all the same."""
        link = self.link
        first, second = (link.expect(PublishPacket("a", b"", qos, id=qos)) for qos in (1, 0))
        link.answer(Acknowledge(PacketType.PUBCOMP, 3))
        link.complete(second, None)
        link.complete(first, Acknowledge(PacketType.PUBACK, 1))
        self.assertEqual((self.said(), link.oldest_awaited()), ([], first))
        link.recorded()
        self.assertEqual((self.said(), link.oldest_awaited()), (["puback 1"], second))
        link.recorded()
        self.assertEqual((self.said(), link.oldest_awaited()), (["pubcomp 3"], None))
        link.recorded()
        self.assertEqual(self.said(), [])

    def test_client_that_is_turned_away_is_told_in_its_version(self) -> None:
        """And the door is told why."""
        for version, code in ((V4, "0x3"), (V5, "0x89")):
            with self.subTest(version):
                self.setUp()
                self.link.speak(version)
                self.link.turn_away(Reason.SERVER_BUSY, "busy")
                self.assertEqual((self.said(), self.link.is_closing), ([f"connack 0 {code}"], True))
                self.assertEqual(self.refusals, ["busy"])
                self.assertEqual(self.way.ends, [(CloseCode.POLICY_VIOLATION, "busy")])

    def test_end_is_said_once(self) -> None:
        """In version 5 with a DISCONNECT, unless the client was not let in yet."""
        for version, is_in, said in ((V4, True, []), (V5, True, ["disconnect 0x8b"]), (V5, False, [])):
            with self.subTest(version, is_in=is_in):
                self.setUp()
                self.link.speak(version)
                if is_in:
                    self.link.let_in(False, {})
                    self.said()
                for _ in range(2):
                    self.link.close(CloseCode.GOING_AWAY, "the relay stops")
                self.assertEqual((self.said(), len(self.way.ends)), (said, 1))

    def test_packets_are_those_of_version_and_transport(self) -> None:
        """So that those of one kind may be shared."""
        other = MqttLink(cast("Outbox", self.way), bytes, "websocket", self.refusals.append)
        for link in (self.link, other):
            link.speak(V5)
        self.assertNotEqual(self.link.key, other.key)
        other.speak(V4)
        self.assertEqual(other.version, V4)
