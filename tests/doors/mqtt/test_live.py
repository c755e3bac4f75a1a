"""What a client asks for once it was let in."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.work import TURN_US
from clasp_relay.doors.mqtt import subscribing
from clasp_relay.doors.packet_queue import PacketQueue
from clasp_relay.wire.mqtt.packets import V5, Prop
from tests.core.world import one_turn
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import ClusterCase, House


class LiveTests(SynchronousTestCase):
    def test_silent_client_is_ended(self) -> None:
        """After one and a half of its keep-alive interval; without one it may be silent for ever."""
        house = House()
        strict, lax = house.join(version=V5, keep_alive=10), house.join()
        house.site.turn(10)
        self.assertEqual(strict.say(p.PINGREQ), ["pingresp"])
        house.site.turn(14)
        self.assertFalse(strict.client.is_closed)
        house.site.turn(2)
        self.assertEqual(strict.heard(), ["disconnect 0x8d"])
        house.site.turn(1000)
        self.assertFalse(lax.client.is_closed)

    def test_client_whose_filters_take_long_is_not_silent(self) -> None:
        """Its connection is not read meanwhile."""
        house = House()
        thing = house.join(version=V5, keep_alive=1)
        self.patch(subscribing, "FILTER_US", TURN_US)
        filters = ((f"a/{number}", 0) for number in range(10))
        thing.client.protocol.dataReceived(p.subscribe(1, *filters, version=V5) + p.PINGREQ)
        self.assertTrue(house.site.relay.work)
        house.site.reactor.advance(1.6)
        while house.site.relay.work:
            one_turn(house.site.reactor)
        self.assertEqual(thing.heard(), ["suback 1 " + "00" * 10, "pingresp"])
        house.site.turn(2)
        self.assertEqual(thing.heard(), ["disconnect 0x8d"])

    def test_client_that_hangs_up_behind_its_filters_has_said_what_it_sent(self) -> None:
        """Its messages come, and its will does not: its DISCONNECT came before the end of its connection."""
        house = House()
        reader = house.join()
        reader.say(p.subscribe(1, ("said/#", 0)))
        thing = house.join("x", will=("said/will", b"lost", 0, False))
        self.patch(subscribing, "FILTER_US", TURN_US)
        filters = ((f"a/{number}", 0) for number in range(10))
        packets = (p.subscribe(1, *filters), p.publish("said/1", "1"), p.publish("said/2", "2", qos=1, id=1))
        thing.client.protocol.dataReceived(b"".join(packets) + p.DISCONNECT + p.publish("said/3", "too late"))
        self.assertTrue(house.site.relay.work)
        thing.lose()
        self.assertEqual(reader.heard(), ["publish said/1 1 qos 0", "publish said/2 2 qos 0"])
        self.assertEqual((len(house.site.relay.subscriptions), house.site.faults), (1, []))

    def test_packets_that_the_rate_does_not_count_are_bounded(self) -> None:
        """As control frames of WebSocket are."""
        house = House()
        thing = house.join("x", V5)
        answers = thing.say(*[p.PINGREQ] * 30, *[p.unsubscribe(1, "a", version=V5)] * 30)
        self.assertEqual((len(answers), answers[-1]), (51, "disconnect 0x96"))

    def test_qos_2_is_sent_once(self) -> None:
        """After PUBREC only PUBREL comes again."""
        house = House()
        writer, reader = house.join(), house.join("r", clean=False)
        reader.say(p.subscribe(1, ("a", 2)))
        writer.say(p.publish("a", "1", qos=2, id=1))
        (number,) = p.packet_ids(reader.client.heard())
        self.assertEqual(reader.say(p.acknowledge(0x50, number)), ["pubrel 0"])
        reader.lose()
        back = house.connect()
        self.assertEqual(back.say(p.connect("r", clean=False)), ["connack 1 0x0", "pubrel 0"])
        self.assertEqual(back.say(p.acknowledge(0x70, number), p.acknowledge(0x40, 99)), [])
        back.lose()
        self.assertEqual(house.connect().say(p.connect("r", clean=False)), ["connack 1 0x0"])

    def test_window_bounds_what_is_in_flight(self) -> None:
        """Version 5 says its own; the rest waits for acknowledgements."""
        house = House()
        writer, reader = house.join(), house.join("r", V5, properties={Prop.RECEIVE_MAXIMUM: 2})
        reader.say(p.subscribe(1, ("a", 1), version=V5))
        writer.say(*(p.publish("a", str(number), qos=1, id=1) for number in range(4)))
        first = reader.client.heard()
        self.assertEqual(len(p.packet_ids(first, V5)), 2)
        self.assertEqual(reader.say(p.acknowledge(0x40, p.packet_ids(first, V5)[0])), ["publish a 2 qos 1"])


class ClusterTests(ClusterCase):
    def test_client_that_waits_has_one_timer(self) -> None:
        """However many of its SUBSCRIBEs have waited, and none once it is gone."""
        reactor = self.near.site.reactor
        thing = self.near.join()
        before = len(reactor.getDelayedCalls())
        for number in range(1, 6):
            answers = thing.say(p.publish("m", "1", qos=1, id=number) + p.subscribe(number, ("n", 0)))
            self.assertEqual(answers, [f"puback {number}", f"suback {number} 00"])
        self.assertEqual(len(reactor.getDelayedCalls()), before)
        self.decider.journal.hang(True)
        self.assertEqual(thing.say(p.publish("m", "1", qos=1, id=6) + p.subscribe(6, ("n", 0))), [])
        self.assertEqual(self.looks(), 1)
        thing.lose()
        self.assertEqual(self.looks(), 0)
        self.decider.journal.hang(False)

    def looks(self) -> int:
        """Returns how many timers there are of clients that wait."""
        calls: list[Any] = list(self.near.site.reactor.getDelayedCalls())
        return sum(getattr(call.func, "__func__", None) is PacketQueue.look_now for call in calls)
