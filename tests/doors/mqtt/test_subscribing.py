"""What clients subscribe to, and what they get."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.following.following import NOT_READY
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.work import TURN_US
from clasp_relay.doors.mqtt import subscribing
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Set
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from clasp_relay.wire.values import encode_value
from tests.core.guard import Guard, Rule
from tests.core.world import one_turn
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import ClusterCase, House


class SubscribeTests(SynchronousTestCase):
    def test_suback_comes_before_retained_messages(self) -> None:
        """These have the retain flag, live ones have not."""
        house = House()
        writer, reader = house.join(), house.join()
        writer.say(p.publish("a/b", "1", retain=True, qos=1, id=1), p.publish("c", "2", retain=True, qos=1, id=1))
        self.assertEqual(
            reader.say(p.subscribe(1, ("a/#", 0), ("+", 1))),
            ["suback 1 0001", "publish a/b 1 qos 0 retain", "publish c 2 qos 1 retain"],
        )
        writer.say(p.publish("a/b", "3", retain=True), p.publish("x/y", "no"), p.publish("z", "yes", qos=2, id=2))
        self.assertEqual(reader.heard(), ["publish a/b 3 qos 0", "publish z yes qos 1"])

    def test_payload_comes_out_as_it_went_in_after_a_restart(self) -> None:
        """From the params that were saved; where its value tells the bytes nothing is kept besides."""
        house = House()
        writer = house.join()
        for topic, payload in (("a", '{"n" : 1}'), ("b", '{"n":1}'), ("c", " 7"), ("d", "text")):
            writer.say(p.publish(topic, payload, retain=True))
        params = house.site.relay.params.all()
        self.assertEqual({each.address: each.sent_as for each in params}["/mqtt/a"], b'{"n" : 1}')
        self.assertEqual([each.address for each in params if each.sent_as], ["/mqtt/a", "/mqtt/c"])
        house.site.say(house.site.clasp(), Set("/mqtt/c", encode_value(7)))
        again = House()
        again.site.relay.params.load(house.site.relay.params.image(), again.site.clock.now_us())
        again.broker.publisher.codec.load(again.site.relay.params.all())
        told = again.join().say(p.subscribe(1, ("#", 0)))
        self.assertEqual(
            sorted(told[1:]),
            [
                'publish a {"n" : 1} qos 0 retain',
                'publish b {"n":1} qos 0 retain',
                "publish c 7 qos 0 retain",
                "publish d text qos 0 retain",
            ],
        )

    def test_payload_comes_out_as_it_went_in(self) -> None:
        """Live and retained, until CLASP writes something else."""
        house = House()
        writer, reader = house.join(), house.join()
        reader.say(p.subscribe(1, ("#", 0)))
        for payload in ('{ "b": 1.10,  "a": [ ] }', " 12 ", '"quoted"', "text", "\x00\xff", "1e3"):
            with self.subTest(payload):
                writer.say(p.publish("a", payload.encode("latin-1"), retain=True))
                self.assertEqual(reader.heard(), [f"publish a {payload} qos 0"])
                self.assertEqual(house.join().say(p.subscribe(1, ("a", 0)))[1], f"publish a {payload} qos 0 retain")
                writer.say(p.publish("event", payload.encode("latin-1")))
                self.assertEqual(reader.heard(), [f"publish event {payload} qos 0"])
        house.site.say(house.site.clasp(), Set("/mqtt/a", encode_value({"x": [1, 2]})))
        self.assertEqual(reader.heard(), ['publish a {"x":[1,2]} qos 0'])
        self.assertEqual(house.join().say(p.subscribe(1, ("a", 0)))[1], 'publish a {"x":[1,2]} qos 0 retain')

    def test_own_messages_come_back(self) -> None:
        """Unless version 5 asks for No Local."""
        house = House()
        thing = house.join()
        thing.say(p.subscribe(1, ("a", 0)))
        self.assertEqual(thing.say(p.publish("a", "1")), ["publish a 1 qos 0"])
        five, other = house.join("x", V5), house.join()
        five.say(p.subscribe(1, ("a", 4), version=V5))
        self.assertEqual(five.say(p.publish("a", "1", V5), p.publish("a", "2", V5, retain=True)), [])
        other.say(p.publish("a", "3"))
        self.assertEqual(five.heard(), ["publish a 3 qos 0"])
        # Both in one turn, whose messages come as one piece.
        six = house.join("y", V5)
        six.say(p.subscribe(1, ("a", 4), version=V5))
        five.client.protocol.dataReceived(p.publish("a", "4", V5))
        six.client.protocol.dataReceived(p.publish("a", "5", V5))
        self.assertEqual((five.heard(), six.heard()), (["publish a 5 qos 0"], ["publish a 4 qos 0"]))

    def test_options_of_version_5(self) -> None:
        """Retain As Published, Retain Handling, and subscription identifiers."""
        house = House()
        writer, reader = house.join(), house.join("x", V5)
        writer.say(p.publish("a", "1", retain=True))
        self.assertEqual(len(reader.say(p.subscribe(1, ("a", 0x18), version=V5))), 2)
        self.assertEqual(len(reader.say(p.subscribe(1, ("a", 0x18), version=V5))), 1)
        self.assertEqual(len(reader.say(p.subscribe(1, ("a", 0x28), version=V5))), 1)
        writer.say(p.publish("a", "2", retain=True))
        self.assertEqual(reader.heard(), ["publish a 2 qos 0 retain"])
        reader.say(p.subscribe(2, ("a", 0x20), version=V5, properties={Prop.SUBSCRIPTION_ID: [300]}))
        writer.say(p.publish("a", "3", retain=True))
        self.assertIn(b"\x0b\xac\x02", reader.client.heard())

    def test_filters_are_granted_or_refused(self) -> None:
        """What nothing matches is granted; a scope refuses; what is no filter ends the connection."""
        house = House(Guard())
        four, five = house.join("x", V4, password="ann"), house.join("y", V5, password="ann")
        filters = (("$SYS/#", 0), ("a//b", 1), ("a*", 2), ("secret/x", 1))
        self.assertEqual(four.say(p.subscribe(1, *filters)), ["suback 1 00010280"])
        self.assertEqual(five.say(p.subscribe(1, *filters, version=V5)), ["suback 1 00010287"])
        self.assertEqual(five.say(p.unsubscribe(2, "a*", "b", version=V5)), ["unsuback 2 0011"])
        self.assertEqual(four.say(p.subscribe(1, ("a/#/b", 0))), [])
        self.assertTrue(four.client.is_closed)

    def test_unsubscribed_client_gets_nothing(self) -> None:
        """From then on."""
        house = House()
        thing = house.join()
        thing.say(p.subscribe(1, ("a", 0), ("b", 0)))
        self.assertEqual(
            thing.say(p.unsubscribe(2, "a"), p.publish("a"), p.publish("b")), ["unsuback 2", "publish b  qos 0"]
        )

    def test_filters_of_a_client_are_bounded(self) -> None:
        """Those that nothing matches, too."""
        house = House()
        self.patch(subscribing, "MAX_SUBSCRIPTION_FILTERS", 2)
        thing = house.join("x", V5)
        filters = [("$a", 0), ("$b", 0), ("$c", 0)]
        self.assertEqual(thing.say(p.subscribe(1, *filters, version=V5)), ["suback 1 000097"])

    def test_many_filters_are_subscribed_and_ended_in_pieces(self) -> None:
        """A bounded amount in each turn; what the client sends behind them waits, and gets its answer behind theirs."""
        house = House()
        house.join().say(p.publish("a/7", "1", retain=True))
        thing = house.join()
        filters = [f"a/{number}" for number in range(40)]
        work = house.site.relay.work
        self.patch(subscribing, "FILTER_US", TURN_US // 2)
        self.patch(subscribing, "END_US", TURN_US // 2)
        for packet, *answers in (
            (p.subscribe(1, *((each, 0) for each in filters)), "suback 1 " + "00" * 40, "publish a/7 1 qos 0 retain"),
            (p.unsubscribe(2, *filters), "unsuback 2"),
        ):
            turns = work.turns
            thing.client.protocol.dataReceived(packet + p.packet(0xC0))
            self.assertTrue(work)
            while work:
                one_turn(house.site.reactor)
            self.assertGreaterEqual(work.turns - turns, 20)
            self.assertEqual(sorted(thing.heard()), sorted([*answers, "pingresp"]))
        self.assertEqual(len(house.site.relay.subscriptions), 0)

    def test_client_that_leaves_amid_its_filters_leaves_nothing(self) -> None:
        """Neither subscriptions nor snapshots that wait."""
        house = House()
        house.join().say(p.publish("a/1", "1", retain=True))
        thing = house.join()
        self.patch(subscribing, "FILTER_US", TURN_US)
        thing.client.protocol.dataReceived(p.subscribe(1, *((f"a/{number}", 0) for number in range(10))))
        self.assertTrue(house.site.relay.work)
        thing.lose()
        house.site.turn()
        while house.site.relay.work:
            one_turn(house.site.reactor)
        relay = house.site.relay
        self.assertEqual((len(relay.subscriptions), len(relay.snapshots.waiting), house.site.faults), (0, 0, []))
        self.assertEqual(thing.heard(), [])

    def test_message_comes_once_while_sessions_of_before_are_forgotten(self) -> None:
        """A client with many filters was taken over, and another time lost before it came back."""
        for rules in ({}, {"/mqtt/": Rule(frozenset())}):
            guard = Guard()
            guard.rules.update(rules)
            house = House(guard)
            relay = house.site.relay
            writer = house.join("w", password="bob")
            thing = house.join("x", clean=False, password="ann")
            filters = [f"a/{number}" for number in range(300)]
            for qos in (0, 1):
                with self.subTest(qos=qos, is_judged=bool(rules)):
                    thing.say(p.subscribe(1, *((each, qos) for each in filters)))
                    house.site.turn(1)
                    before = thing
                    thing = house.connect()
                    thing.client.protocol.dataReceived(p.connect("x", clean=False, password="ann"))
                    if qos:
                        thing.client.pipe.lose()
                        one_turn(house.site.reactor)
                        before, thing = thing, house.connect()
                        thing.client.protocol.dataReceived(p.connect("x", clean=False, password="ann"))
                    self.assertGreater(len(relay.subscriptions), len(filters))
                    packets = [p.publish(f"a/{number}", "1", qos=1, id=1) for number in (0, 150, 299)]
                    writer.client.protocol.dataReceived(b"".join(packets))
                    house.site.turn(1)
                    got = [f"publish a/{number} 1 qos {qos}" for number in (0, 150, 299)]
                    self.assertEqual(sorted(thing.heard()), sorted(["connack 1 0x0", *got]))
                    self.assertEqual(len(relay.subscriptions), len(filters))
                    self.assertTrue(before.client.is_closed)

    def test_client_that_comes_back_keeps_its_filters_where_its_memory_is_full(self) -> None:
        """Its session of before counts until it is forgotten; what was granted is not refused for that."""
        house = House(Guard())
        filters = [(f"a/{number}", 0) for number in range(300)]
        for name in ("x", "y", "z"):
            house.join(name, clean=False, password="ann").say(p.subscribe(1, *filters))
        accounts = house.site.relay.accounts
        kept = sum(accounts.bytes)
        accounts._max_bytes = kept // 3 + 1_000
        self.assertEqual(house.connect().say(p.connect("x", clean=False, password="ann")), ["connack 1 0x0"])
        house.site.turn(1)
        self.assertEqual((len(house.site.relay.subscriptions), sum(accounts.bytes)), (900, kept))

    def test_client_that_comes_back_amid_an_unsubscribe_ends_the_rest_itself(self) -> None:
        """What was not ended yet it is subscribed to again: the old connection ends nothing of that any more."""
        house = House()
        writer, thing = house.join("w"), house.join("x", clean=False)
        filters = [f"a/{number}" for number in range(10)]
        thing.say(p.subscribe(1, *((each, 0) for each in filters)))
        with_pieces = self.patch(subscribing, "END_US", TURN_US)
        thing.client.protocol.dataReceived(p.unsubscribe(2, *filters))
        self.assertTrue(house.site.relay.work)
        back = house.connect()
        back.client.protocol.dataReceived(p.connect("x", clean=False))
        while house.site.relay.work:
            one_turn(house.site.reactor)
        self.assertEqual((thing.heard(), back.heard()), ([], ["connack 1 0x0"]))
        writer.say(p.publish("a/9", "1"))
        self.assertEqual(back.heard(), ["publish a/9 1 qos 0"])
        with_pieces.restore()
        self.assertEqual(back.say(p.unsubscribe(3, *filters)), ["unsuback 3"])
        writer.say(p.publish("a/9", "2"))
        self.assertEqual(back.heard(), [])
        self.assertEqual(len(house.site.relay.subscriptions), 0)

    def test_fault_amid_many_filters_ends_the_client(self) -> None:
        """It is ours, and told."""
        house = House()
        thing = house.join()
        self.patch(house.broker.subscribing, "_add", lambda *_: 1 / 0)
        thing.say(p.subscribe(1, *((f"a/{number}", 0) for number in range(10))))
        self.assertTrue(thing.client.is_closed)
        self.assertEqual([type(fault) for fault in house.site.faults], [ZeroDivisionError])

    def test_message_is_compared_with_no_filter_again(self) -> None:
        """The core has found those that match: a client with a thousand of them costs each message no more."""
        guard = Guard()
        guard.rules["/mqtt/"] = Rule(frozenset())
        house = House(guard)
        writer, reader = house.join("w", password="bob"), house.join("r", password="ann")
        reader.say(*(p.subscribe(1, (f"+/{number}/#", 1)) for number in range(100)), p.subscribe(1, ("a/7/+", 0)))
        writer.say(p.publish("a/7/x", "first"))
        compared: list[str] = []
        matches = Pattern.matches

        def compare(pattern: Pattern, address: str) -> bool:
            compared.append(address)
            return matches(pattern, address)

        self.patch(Pattern, "matches", compare)
        for number in range(5):
            writer.say(p.publish(f"a/7/{number}", "1", qos=1, id=1))
        self.assertEqual(compared, [])
        self.assertEqual(reader.heard(), ["publish a/7/x first qos 0", *(f"publish a/7/{n} 1 qos 1" for n in range(5))])

    def test_session_that_ends_in_the_turn_of_a_message_is_no_fault(self) -> None:
        """The message was told before, and is delivered after; another client has the same filter."""
        guard = Guard()
        guard.rules["/mqtt/"] = Rule(frozenset())
        house = House(guard)
        writer = house.join("w", password="bob")
        reader, other = (house.join(name, password="ann", clean=False) for name in ("r", "o"))
        for thing in (reader, other):
            thing.say(p.subscribe(1, ("a/+", 1)))
        writer.say(p.publish("a/1", "1", qos=1, id=1))
        self.assertEqual((reader.heard(), other.heard()), (["publish a/1 1 qos 1"],) * 2)
        (core,) = (each for each in house.site.relay.sessions.all() if each.name == "r")
        writer.client.protocol.dataReceived(p.publish("a/2", "2", qos=1, id=2))
        house.site.relay.end(core, Disconnect(CloseCode.NORMAL, "ended by an administrator"))
        house.site.turn()
        self.assertEqual(other.heard(), ["publish a/2 2 qos 1"])
        self.assertTrue(reader.client.is_closed)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_kept_client_comes_back_without_a_search(self) -> None:
        """Its filters find nothing anew; those that it may not have now are gone."""
        guard = Guard()
        house = House(guard)
        thing = house.join("r", clean=False, password="ann")
        thing.say(p.subscribe(1, ("a/#", 1), ("b/#", 1), ("$x", 1)))
        relay = house.site.relay
        self.patch(relay.params, "find", lambda _pattern: 1 / 0)
        thing.lose()
        self.assertEqual(len(relay.subscriptions), 2)

        def check(_who: Identity, pattern: Pattern) -> None:
            if pattern.text == "/mqtt/b/**":
                raise RequestError(ErrorCode.SCOPE, "not any more")

        self.patch(guard, "check_subscribe", check)
        refused = house.broker.counts.refused
        back = house.connect()
        self.assertEqual(back.say(p.connect("r", clean=False, password="ann")), ["connack 1 0x0"])
        self.assertEqual((len(relay.subscriptions), house.broker.counts.refused - refused), (1, 1))
        self.assertEqual(back.say(p.publish("a/x", "1", qos=1, id=1)), ["puback 1", "publish a/x 1 qos 1"])

    def test_shared_subscription_goes_round(self) -> None:
        """Each message goes to one of the group, without retained ones; who leaves gets none."""
        house = House()
        writer, members = house.join(), [house.join(), house.join()]
        writer.say(p.publish("a", "0", retain=True))
        for member in members:
            self.assertEqual(member.say(p.subscribe(1, ("$share/g/a", 0))), ["suback 1 00"])
        for number in range(4):
            writer.say(p.publish("a", str(number)))
        self.assertEqual([len(member.heard()) for member in members], [2, 2])
        members[0].lose()
        writer.say(p.publish("a", "5"), p.publish("a", "6"))
        self.assertEqual(len(members[1].heard()), 2)
        self.assertEqual(members[1].say(p.subscribe(1, ("$share/g", 0))), [])
        self.assertTrue(members[1].client.is_closed)

    def test_rules_hold_as_over_websocket(self) -> None:
        """Who may not see a room gets neither what is set there nor what happens."""
        house = House(Guard())
        ann = house.join("x", password="ann")
        browser = house.site.clasp("bob")
        ann.say(p.subscribe(1, ("#", 0)))
        house.site.say(browser, Set("/mqtt/open", encode_value(1)), Set("/mqtt/secret", encode_value(1)))
        self.assertEqual(ann.heard(), ["publish open 1 qos 0"])

    def test_properties_are_forwarded(self) -> None:
        """Live, to version 5; 3.1.1 has none."""
        house = House()
        five, four, writer = house.join("x", V5), house.join(), house.join("w", V5)
        five.say(p.subscribe(1, ("a", 1), version=V5))
        four.say(p.subscribe(1, ("a", 1)))
        writer.say(p.publish("a", "1", V5, qos=1, id=1, properties={Prop.CONTENT_TYPE: "x/y", Prop.USER: [("k", "v")]}))
        data = five.client.heard()
        self.assertIn(b"x/y", data)
        self.assertIn(b"\x26\0\1k\0\1v", data)
        self.assertEqual(four.heard(), ["publish a 1 qos 1"])


class ClusterTests(ClusterCase):
    def test_subscription_finds_what_was_set_before_it(self) -> None:
        """It waits for that; so do packets behind it."""
        thing = self.near.join()
        answers = thing.say(
            p.publish("m", "1", qos=1, id=1, retain=True)
            + p.subscribe(2, ("m", 1))
            + p.publish("n", "1", qos=1, id=3)
            + p.unsubscribe(4, "n")
        )
        self.assertEqual(answers[:2], ["puback 1", "suback 2 01"])
        self.assertEqual(sorted(answers[2:]), ["puback 3", "publish m 1 qos 1 retain", "unsuback 4"])

    def test_filter_that_is_none_ends_its_client_also_where_it_waited(self) -> None:
        """As at once."""
        thing = self.near.join()
        self.assertEqual(thing.say(p.publish("m", "1", qos=1, id=1) + p.subscribe(2, ("a#", 1))), ["puback 1"])
        self.assertTrue(thing.client.is_closed)

    def test_subscription_waits_while_rights_are_not_known(self) -> None:
        """With accounts nothing is read at a relay that may have missed that a right has ended."""
        thing = self.near.join()
        self.patch(self.follower.node, "_look_at_engine", lambda _now_s: None)
        self.patch(self.near.broker.relay.permissions, "is_open", False)
        self.patch(self.follower.relay, "refuses", NOT_READY)
        self.assertEqual(thing.say(p.subscribe(1, ("a", 1))), [])
        self.cluster.clock.pump([0.05] * 4)
        self.assertEqual(thing.client.heard(), b"")
        self.patch(self.near.broker.relay.permissions, "is_open", True)
        self.cluster.advance(0.3)
        self.assertEqual(thing.heard(), ["suback 1 01"])
