"""What clients publish, and how they are answered."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.mqtt import publishing
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Bundle, Publish, Set, Subscribe, Value
from clasp_relay.wire.mqtt import mapping
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from clasp_relay.wire.values import encode_value
from tests.core.guard import Guard
from tests.core.world import one_turn
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import ClusterCase, House
from tests.doors.site import told


class PublishTests(SynchronousTestCase):
    def test_retained_message_is_set_and_others_are_events(self) -> None:
        """Below the namespace; with ``publish_sets`` everything is set."""
        house = House()
        browser = house.site.clasp()
        house.site.say(browser, Subscribe(1, "/mqtt/**"))
        told(browser)
        thing = house.join()
        thing.say(p.publish("a/b", '{"x":1}', retain=True), p.publish("go", "now"), p.publish("a/b", retain=True))
        self.assertEqual(
            told(browser),
            [
                Set("/mqtt/a/b", encode_value({"x": 1}), 1),
                Publish("/mqtt/go", Signal.EVENT, value=encode_value("now")),
                Set("/mqtt/a/b", encode_value(None), 2),
            ],
        )
        house = House(publish_sets=True, namespace="/")
        house.join().say(p.publish("go", "now"))
        self.assertEqual(house.site.value("/go"), "now")

    def test_messages_are_acknowledged_by_their_qos(self) -> None:
        """QoS 2 is applied once, also when it comes again before PUBREL."""
        house = House()
        thing = house.join()
        self.assertEqual(thing.say(p.publish("a", "1", qos=1, id=7)), ["puback 7"])
        for dup in (False, True):
            self.assertEqual(thing.say(p.publish("a", "1", qos=2, id=8, retain=True, dup=dup)), ["pubrec 8"])
        self.assertEqual(house.site.relay.params.last_revision("/mqtt/a") or house.site.value("/mqtt/a"), 1)
        self.assertEqual(thing.say(p.acknowledge(0x62, 8)), ["pubcomp 8"])

    def test_message_that_waits_for_a_long_bundle_is_answered_as_it_is_decided(self) -> None:
        """Nobody is told that a refused one was accepted, nor left without an answer; what comes behind it waits."""
        for locks, first in ((False, "puback 1"), (True, "puback 1 80")):
            with self.subTest(locks=locks):
                house = House(Guard())
                thing = house.join("x", V5, password="ann")
                house.site.clasp("bob")
                relay = house.site.relay
                (bob,) = relay.sessions.of_subject("bob")
                members = [Set(f"/mqtt/b/{number}", encode_value(0)) for number in range(400)]
                relay.accept(bob, Bundle((*members, Set("/mqtt/x", encode_value(1), lock=locks))), 0)
                while not relay.params.reserved.is_used:
                    one_turn(house.site.reactor)
                reserved = p.publish("x", "2", qos=1, id=1, retain=True, version=V5)
                secret = p.publish("secret", "1", qos=1, id=2, version=V5)
                after = p.publish("y", "3", qos=2, id=3, retain=True, version=V5)
                thing.client.send(reserved + secret + p.subscribe(4, ("y/#", 1), version=V5) + after)
                house.site.turn()
                answers = thing.heard()
                self.assertEqual(answers[:4], [first, "puback 2 87", "suback 4 01", answers[3]])
                self.assertIn("pubrec 3", answers)
                self.assertEqual((house.site.value("/mqtt/x"), house.site.value("/mqtt/y")), (1 if locks else 2, 3))
                self.assertEqual(house.broker.counts.refused, 1 + locks)

    def test_message_that_waits_for_a_long_bundle_stays_as_it_is(self) -> None:
        """Its bytes, its QoS, its properties, and whose it is."""
        house = House()
        thing, reader = house.join("x", V5), house.join()
        thing.say(p.subscribe(1, ("399", 4), version=V5))
        reader.say(p.subscribe(1, ("399", 1)))
        house.site.clasp("bob")
        relay = house.site.relay
        bob = next(session for session in relay.sessions.all() if session.name == "bob")
        relay.accept(bob, Bundle(tuple(Set(f"/mqtt/{number}", encode_value(0)) for number in range(400))), 0)
        while not relay.params.reserved.is_used:
            one_turn(house.site.reactor)
        thing.client.send(p.publish("399", '{"a":  1.50}', qos=1, id=1, retain=True, version=V5))
        house.site.turn()
        self.assertEqual([each for each in reader.heard() if "1.5" in each], ['publish 399 {"a":  1.50} qos 1'])
        self.assertEqual([each for each in thing.heard() if "1.5" in each], [])
        late = house.join().say(p.subscribe(1, ("399", 1)))
        self.assertIn('{"a":  1.50}', late[-1])

    def test_connection_that_is_lost_while_its_message_waits_is_gone(self) -> None:
        """Its message goes with it, as one that had not come yet."""
        house = House()
        thing = house.join()
        house.site.clasp("bob")
        relay = house.site.relay
        bob = next(session for session in relay.sessions.all() if session.name == "bob")
        relay.accept(bob, Bundle(tuple(Set(f"/mqtt/{number}", encode_value(0)) for number in range(400))), 0)
        while not relay.params.reserved.is_used:
            one_turn(house.site.reactor)
        thing.client.protocol.dataReceived(p.publish("399", "2", qos=1, id=1, retain=True))
        thing.lose()
        house.site.turn()
        self.assertEqual((house.site.value("/mqtt/399"), house.site.faults), (0, []))

    def test_refused_message_is_told_as_its_version_can(self) -> None:
        """3.1.1 only acknowledges; the log says why."""
        house = House(Guard())
        for version, reasons in ((V4, ["", "", "", ""]), (V5, [" 90", " 87", " 99", " 90"])):
            thing = house.join("x", version, password="ann")
            answers = thing.say(
                p.publish("a//b", "1", version, qos=1, id=1),
                p.publish("secret", "1", version, qos=1, id=2, retain=True),
                p.publish("a", '{"__proto__": 1}', version, qos=1, id=3),
                p.publish("$SYS/x", "1", version, qos=2, id=4),
            )
            names = ["puback 1", "puback 2", "puback 3", "pubrec 4"]
            self.assertEqual(answers, [name + reason for name, reason in zip(names, reasons, strict=True)])
            thing.say(p.publish("a/*", "1", version))
        self.assertEqual(house.broker.counts.refused, 10)

    def test_message_over_the_rate_is_dropped_and_told(self) -> None:
        """Version 5 with its reason; as many pass as over WebSocket."""
        house = House(message_rate=(1, 3))
        thing = house.join("x", V5)
        answers = thing.say(*(p.publish("a", str(number), V5, qos=1, id=number + 1) for number in range(5)))
        self.assertEqual(answers, ["puback 1", "puback 2", "puback 3", "puback 4 97", "puback 5 97"])

    def test_what_the_rate_refuses_is_not_read(self) -> None:
        """Long JSON costs what it takes to parse, before it is parsed; a long text costs no more than a short one."""
        read: list[bytes] = []

        def payload_value(payload: bytes, *, is_retained: bool) -> Value:
            read.append(payload)
            return mapping.payload_value(payload, is_retained=is_retained)

        self.patch(publishing, "payload_value", payload_value)
        house = House(message_rate=(1, 20))
        thing = house.join("x", V5)
        numbers, text = "[" + "1," * 3_900 + "1]", "a,b " * 9_000
        answers = thing.say(*(p.publish("a", numbers, V5, qos=1, id=number + 1, retain=True) for number in range(3)))
        self.assertEqual(answers, ["puback 1", "puback 2 97", "puback 3 97"])
        self.assertEqual(thing.say(p.publish("b", text, V5, qos=1, id=4, retain=True)), ["puback 4"])
        self.assertEqual(thing.say(p.publish("a", numbers, V5, qos=2, id=5)), ["pubrec 5 97"])
        self.assertEqual(read, [numbers.encode(), text.encode()])
        self.assertEqual((house.site.relay.counts.limited, house.broker.counts.refused), (3, 3))

    def test_subscriptions_cost_what_they_cost_elsewhere(self) -> None:
        """By the wildcards of their filters."""
        house = House(message_rate=(1, 10))
        thing = house.join("x", V5)
        filters = [("/".join("+" * 32) + f"/{number}", 0) for number in range(3)]
        self.assertEqual(thing.say(p.subscribe(1, *filters, version=V5)), ["suback 1 000097"])

    def test_topic_aliases(self) -> None:
        """Of version 5; an unknown one ends the connection."""
        house = House()
        thing = house.join("x", V5)
        alias = {Prop.TOPIC_ALIAS: 1}
        thing.say(p.publish("a", "1", V5, retain=True, properties=alias))
        thing.say(p.publish("", "2", V5, retain=True, properties=alias))
        self.assertEqual(house.site.value("/mqtt/a"), 2)
        self.assertEqual(thing.say(p.publish("", "3", V5, properties={Prop.TOPIC_ALIAS: 2})), ["disconnect 0x81"])
        other = house.join("y", V5)
        self.assertEqual(other.say(p.publish("a", "3", V5, properties={Prop.TOPIC_ALIAS: 17})), ["disconnect 0x81"])

    def test_expiry_is_a_life_time(self) -> None:
        """Of a retained message."""
        house = House()
        house.join("x", V5).say(p.publish("a", "1", V5, retain=True, properties={Prop.MESSAGE_EXPIRY: 60}))
        self.assertEqual(house.site.value("/mqtt/a"), 1)
        house.site.reactor.advance(61)
        house.site.relay.sweep()
        self.assertIsNone(house.site.value("/mqtt/a"))


class ClusterTests(ClusterCase):
    def test_message_is_acknowledged_once_it_is_decided_and_recorded(self) -> None:
        """A retained one, and an event; the answers keep their order."""
        thing = self.near.join()
        self.decider.journal.hang(True)
        sent = (p.publish("a", "1", qos=1, id=1, retain=True), p.publish("b", "1", qos=1, id=2))
        self.assertEqual(thing.say(*sent, p.publish("c", "1", qos=2, id=3)), [])
        self.decider.journal.hang(False)
        self.assertEqual(thing.heard(), ["puback 1", "puback 2", "pubrec 3"])
        self.assertEqual(self.far.site.value("/mqtt/a"), 1)

    def test_refusal_of_the_decider_is_told_as_the_version_can(self) -> None:
        """What a session of another relay has locked."""
        owner = self.far.site.clasp()
        self.far.site.say(owner, Set("/mqtt/a", encode_value(1), lock=True))
        for version, answer in ((V4, "puback 7"), (V5, "puback 7 87")):
            thing = self.near.join(version=version)
            refused = p.publish("a", "2", version, qos=1, id=7, retain=True)
            self.assertEqual(thing.say(refused, p.publish("b", "1", version, qos=1, id=8)), [answer, "puback 8"])
        self.assertEqual(self.near.broker.counts.refused, 2)
        thing = self.near.join(version=V5)
        twice = p.publish("a", "2", V5, qos=2, id=7, retain=True)
        self.assertEqual(thing.say(twice), ["pubrec 7 87"])
        self.assertEqual(thing.say(twice), ["pubrec 7 87"])

    def test_what_the_cluster_cannot_take_is_not_acknowledged(self) -> None:
        """Version 5 says so; 3.1.1 cannot, so the connection ends, and the client sends it again elsewhere."""
        old, new, quiet = self.near.join(), self.near.join(version=V5), self.near.join()
        self.follower.engine.cut()
        self.cluster.advance(0.1)
        self.assertEqual(new.say(p.publish("a", "1", V5, qos=1, id=1)), ["puback 1 97"])
        self.assertEqual(old.say(p.publish("a", "1", qos=1, id=1)), [])
        self.assertEqual(quiet.say(p.publish("a", "1")), [])
        self.assertEqual([each.client.is_closed for each in (old, new, quiet)], [True, False, False])

    def test_what_waits_too_long_is_not_acknowledged_either(self) -> None:
        """Whether it is done is not known."""
        old, new = self.near.join(), self.near.join(version=V5)
        self.decider.engine.is_paused = self.follower.engine.is_paused = True
        self.assertEqual(old.say(p.publish("a", "1", qos=1, id=1)), [])
        self.assertEqual(new.say(p.publish("b", "1", V5, qos=1, id=1)), [])
        for _ in range(60):
            self.cluster.advance(0.1)
            # The engine's own signs of life come, so that only the decider is missed.
            self.follower.node._peers.engine_s = self.cluster.clock.seconds()
        self.assertEqual(new.heard(), ["puback 1 97"])
        self.assertTrue(old.client.is_closed)

    def test_client_that_is_gone_is_told_nothing(self) -> None:
        """What it sent is decided all the same."""
        self.decider.journal.hang(True)
        thing = self.near.join("x", clean=False)
        thing.say(p.publish("a", "1", qos=1, id=1, retain=True) + p.subscribe(2, ("a", 1)))
        thing.lose()
        back = self.near.connect()
        self.assertEqual(back.say(p.connect("x", clean=False)), ["connack 1 0x0"])
        self.assertEqual(back.say(p.publish("b", "1", qos=1, id=9)), [])
        self.decider.journal.hang(False)
        self.assertEqual(back.heard(), ["puback 9"])
        self.assertEqual(self.far.site.value("/mqtt/a"), 1)

    def test_messages_are_the_same_at_every_relay(self) -> None:
        """The bytes, the QoS and the properties that were sent; and their sender's own only where it wants them."""
        sent: dict[int, object] = {Prop.CONTENT_TYPE: "x", Prop.USER: [("a", "b")]}
        for house in (self.near, self.far):
            reader = house.join(version=V5)
            reader.say(p.subscribe(1, ("m/#", 2), version=V5))
            writer = self.near.join(version=V5)
            writer.say(p.subscribe(1, ("m/#", 2 | 4), version=V5))
            for retain in (False, True):
                message = p.publish("m/a", '{"k" : 1}', V5, qos=2, id=1, retain=retain, properties=sent)
                self.assertEqual(writer.say(message, p.acknowledge(0x62, 1)), ["pubrec 1", "pubcomp 1"])
                data = reader.client.heard()
                self.assertIn(b"\x03\0\x01x\x26\0\x01a\0\x01b", data)
                (packet,) = p.split(data)[0]
                self.assertEqual(p.said(packet, V5), 'publish m/a {"k" : 1} qos 2')
                writer.say(p.publish("m/a", "0", V5, retain=retain))
                self.assertEqual(reader.heard(), ["publish m/a 0 qos 0"])

    def test_retained_bytes_come_out_at_every_relay(self) -> None:
        """As they were sent."""
        self.near.join().say(p.publish("m", '{"k" : 1}', qos=1, id=1, retain=True))
        for house in (self.near, self.far):
            reader = house.join()
            self.assertEqual(reader.say(p.subscribe(1, ("m", 1))), ["suback 1 01", 'publish m {"k" : 1} qos 1 retain'])

    def test_retained_message_keeps_its_qos_at_all_relays(self) -> None:
        """As at a relay that is alone; until somebody sets something else."""
        writer = self.near.join()
        writer.say(p.publish("m", "1", qos=2, id=1, retain=True), p.publish("n", "1", qos=0, retain=True))
        for house in (self.near, self.far):
            self.assertEqual(house.join().say(p.subscribe(1, ("m", 2)))[1:], ["publish m 1 qos 2 retain"])
            self.assertEqual(house.join().say(p.subscribe(1, ("n", 2)))[1:], ["publish n 1 qos 0 retain"])
        clasp = self.far.site.clasp()
        self.far.site.say(clasp, Set("/mqtt/m", encode_value(2)))
        for house in (self.near, self.far):
            self.assertEqual(house.join().say(p.subscribe(1, ("m", 2)))[1:], ["publish m 2 qos 1 retain"])
