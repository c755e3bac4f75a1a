"""The stream of a client becomes packets, and what is none ends that connection only."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import CloseCode, Disconnect
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from tests.core.guard import Guard
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import House, Thing


class ClientTests(SynchronousTestCase):
    def test_malformed_packet_closes_that_connection(self) -> None:
        """Version 5 is told why; others go on."""
        house = House()
        bad, good = house.join(version=V5), house.join()
        self.assertEqual(bad.say(b"\x36\0" + p.PINGREQ), ["disconnect 0x81"])
        self.assertTrue(bad.client.is_closed)
        self.assertEqual(good.say(p.PINGREQ), ["pingresp"])
        long = house.join(version=V5)
        self.assertEqual(long.say(b"\x30\xff\xff\xff\x7f"), ["disconnect 0x95"])
        for maximum in (Prop.RECEIVE_MAXIMUM, Prop.MAXIMUM_PACKET_SIZE):
            thing = house.connect()
            thing.say(p.connect(version=V5, properties={maximum: 0}))
            self.assertTrue(thing.client.is_closed)

    def test_end_of_a_token_ends_its_clients(self) -> None:
        """At once."""
        house = House(Guard())
        thing = house.join("x", V5, password="ann")
        house.site.relay.end_token("ann", b"ann", Disconnect(CloseCode.POLICY_VIOLATION, "revoked"))
        self.assertEqual(thing.heard(), ["disconnect 0x87"])
        self.assertTrue(thing.client.is_closed)

    def test_stop_says_so_in_version_5(self) -> None:
        """And closes everybody."""
        house = House()
        thing = house.join(version=V5)
        done = house.site.gate.close_all()
        house.site.turn(1)
        self.assertEqual(thing.heard(), ["disconnect 0x8b"])
        thing.client.pipe.lose()
        house.site.turn(1)
        self.assertEqual(self.successResultOf(done), 0)

    def test_fault_of_ours_ends_that_connection(self) -> None:
        """The client is told nothing of it, the log has its traceback, and others go on."""
        house = House()
        thing, other = house.join(version=V5), house.join()

        def fail(*_: object) -> None:
            raise ValueError("a fault of ours")

        patched = self.patch(house.broker.subscribing, "subscribe", fail)
        self.assertEqual(thing.say(p.subscribe(1, ("a", 0), version=V5)), ["disconnect 0x80"])
        patched.restore()
        self.assertTrue(thing.client.is_closed)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(other.say(p.subscribe(1, ("a", 0))), ["suback 1 00"])

    def test_slow_client_is_ended(self) -> None:
        """Version 5 is told why; whoever publishes is not disturbed."""
        for version, last in ((V4, []), (V5, ["disconnect 0x97"])):
            with self.subTest(version):
                house = House()
                slow = Thing(house, house.site.connect(house.factory, room_bytes=1_000))
                slow.version = version
                slow.say(p.connect("slow", version), p.subscribe(1, ("#", 0), version=version))
                writer = house.join("writer", V5)
                for numbers in (range(1, 41), range(41, 81)):
                    sent = (p.publish("a", bytes(40_000), V5, qos=1, id=number) for number in numbers)
                    self.assertEqual(writer.say(b"".join(sent)), [f"puback {number}" for number in numbers])
                self.assertEqual((house.site.writer.counters.slow_closes, house.broker.counts.refused), (1, 0))
                slow.client.pipe.drain()
                told = slow.heard()
                self.assertEqual([each for each in told if not each.startswith("publish")], last)
                self.assertTrue(slow.client.is_closed)
