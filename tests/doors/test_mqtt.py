"""MQTT clients: what their packets do, and what they get."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.following import NOT_READY
from clasp_relay.core.rights.port import Permissions, Verdict
from clasp_relay.core.session.account import Kept
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors import mqtt
from clasp_relay.doors.mqtt import MAX_KEPT_S, Broker, MqttConnection, MqttDoor, MqttOptions
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.listening import TcpPlace
from clasp_relay.wire.codec import decode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import Bundle, Message, Publish, Set, Subscribe
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from clasp_relay.wire.values import decode_value, encode_value
from tests.cluster.world import Member
from tests.core.guard import Guard, Rule
from tests.core.world import START_US, one_turn
from tests.doors import mqtt_packets as p
from tests.doors.site import DoorClient, MemberSite, Site, door_cluster
from tests.net.helpers import Client, Pipe, client_frame, server_frames


class Strict(Guard):
    """Lets in who has ann's token."""

    def admit(self, token: str, session: Session) -> Identity:
        """See ``Guard``."""
        return super().admit(token if token in ("ann", "") else "old", session)


class House:
    """A relay with an MQTT door in memory."""

    def __init__(
        self,
        permissions: Permissions | None = None,
        message_rate: tuple[float, float] | None = None,
        limits: NetLimits | None = None,
        member: Member | None = None,
        **options: Any,
    ) -> None:
        self.site = Site(limits, message_rate, permissions) if member is None else MemberSite(member)
        self.refusals: list[tuple[str, str]] = []
        self.broker = Broker(
            self.site.relay,
            self.site.gate,
            MqttOptions(**options),
            lambda host, why: self.refusals.append((host, why)),
            claims=None if member is None else member.following,
        )
        self.factory = StreamFactory(self.site.gate, self.broker.counts, lambda: MqttConnection(self.broker))

    def connect(self) -> Thing:
        """Returns a client that has said nothing yet."""
        return Thing(self, self.site.connect(self.factory))

    def join(self, client_id: str = "", version: int = V4, **options: Any) -> Thing:
        """Returns a client whose CONNECT was accepted."""
        thing = self.connect()
        thing.version = version
        (connack,) = thing.say(p.connect(client_id, version, **options))
        assert connack.endswith(" 0x0"), connack
        return thing

    def value(self, address: str) -> object:
        """Returns what is set."""
        param = self.site.relay.params.get(address)
        return None if param is None else decode_value(param.value)


class Thing:
    """An MQTT client."""

    def __init__(self, house: House, client: DoorClient) -> None:
        self.house = house
        self.client = client
        self.version = V4

    def say(self, *packets: bytes) -> list[str]:
        """Sends packets and returns what came, in words."""
        self.client.send(*packets)
        return self.heard()

    def heard(self) -> list[str]:
        """Returns what came since the last call, in words."""
        return [p.said(each, self.version) for each in p.split(self.client.heard())[0]]

    def lose(self) -> None:
        """The connection is lost."""
        self.client.pipe.lose()
        self.house.site.turn()


def told(client: Client) -> list[Message]:
    """Returns what a CLASP session got, and forgets it."""
    client.turn()
    found = [decode(decode_frame(data).payload) for opcode, data in client.frames if opcode == 2]
    client.clear()
    return found


class ConnectTests(SynchronousTestCase):
    def test_client_is_let_in(self) -> None:
        """In open mode everybody, in both versions; version 5 gets a client id."""
        house = House()
        self.assertEqual(house.connect().say(p.connect()), ["connack 0 0x0"])
        thing = house.connect()
        thing.client.send(p.connect(version=V5))
        data = thing.client.heard()
        self.assertIn(b"clasp-2-", data)
        self.assertEqual(house.broker.counts.clients, 2)

    def test_password_is_the_token(self) -> None:
        """A wrong one is refused, and none has no rights; the reason is the version's own."""
        house = House(Guard())
        for version, password, answer in (
            (V4, "ann", "connack 0 0x0"),
            (V4, "old", "connack 0 0x4"),
            (V4, None, "connack 0 0x5"),
            (V5, "old", "connack 0 0x86"),
            (V5, None, "connack 0 0x87"),
        ):
            with self.subTest(version=version, password=password):
                thing = house.connect()
                self.assertEqual(thing.say(p.connect("x", version, password=password)), [answer])
                self.assertEqual(thing.client.is_closed, password != "ann")
        self.assertEqual((len(house.refusals), house.broker.counts.refused), (4, 4))

    def test_name_and_password_of_an_account_are_looked_at_elsewhere(self) -> None:
        """What the client sends meanwhile waits; a token, and what looks like one, is no password."""
        house = House(Strict())
        asked: list[tuple[str, str, str]] = []
        answers: list[Deferred[Identity]] = []

        def sign_in(*given: str) -> Deferred[Identity]:
            asked.append((given[0], given[1], given[2]))
            answers.append(Deferred())
            return answers[-1]

        house.broker.sign_in = sign_in
        wrong = Disconnect(CloseCode.POLICY_VIOLATION, "wrong", ErrorCode.UNAUTHENTICATED)
        busy = Disconnect(CloseCode.POLICY_VIOLATION, "busy", ErrorCode.OVERLOADED)
        for version, answer, said in (
            (V4, Identity("ann"), ["connack 0 0x0", "pingresp"]),
            (V5, Identity("ann"), ["connack 0 0x0", "pingresp"]),
            (V4, wrong, ["connack 0 0x4"]),
            (V5, wrong, ["connack 0 0x86"]),
            (V4, busy, ["connack 0 0x3"]),
            (V5, busy, ["connack 0 0x89"]),
            (V5, ValueError("a fault of ours"), ["connack 0 0x89"]),
        ):
            with self.subTest(version=version, answer=answer):
                thing = house.connect()
                thing.version = version
                self.assertEqual(thing.say(p.connect("x", version, user="Ann", password="secret"), p.PINGREQ), [])
                self.assertEqual(asked[-1], ("Ann", "secret", "192.0.2.1"))
                if isinstance(answer, Identity):
                    answers[-1].callback(answer)
                else:
                    answers[-1].errback(answer)
                self.assertEqual(thing.heard(), said)
                self.assertEqual(thing.client.is_closed, not isinstance(answer, Identity))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        count = len(asked)
        self.assertEqual(house.connect().say(p.connect("x", password="ann")), ["connack 0 0x0"])
        for user, password in (("Ann", "cpsk_0123"), ("", "secret"), ("Ann", "")):
            house.connect().say(p.connect("x", user=user, password=password))
        self.assertEqual(len(asked), count)

    def test_client_that_waits_for_its_password_may_go_or_say_something_malformed(self) -> None:
        """Neither disturbs the answer, and what it may send meanwhile is bounded."""
        house = House(Strict())
        answers: list[Deferred[Identity]] = []

        def sign_in(*_given: str) -> Deferred[Identity]:
            answers.append(Deferred())
            return answers[-1]

        house.broker.sign_in = sign_in
        connect = p.connect("x", V5, user="Ann", password="secret")
        for lose in (lambda: answers[-1].callback(Identity("ann")), lambda: answers[-1].errback(ValueError())):
            gone = house.connect()
            gone.say(connect)
            gone.lose()
            lose()
            self.assertEqual(len(house.site.relay.sessions), 0)
        maximum = p.connect("x", V5, user="Ann", password="secret", properties={Prop.RECEIVE_MAXIMUM: 0})
        for packets in ((connect, b"\x36\0"), (maximum,), (connect, connect)):
            with self.subTest(packets):
                thing = house.connect()
                thing.say(*packets)
                answers[-1].callback(Identity("ann"))
                self.assertTrue(thing.client.is_closed)
        much = house.connect()
        much.say(connect, p.PINGREQ * 1000)
        self.assertTrue(much.client.is_closed)

    def test_what_is_no_connect_is_refused(self) -> None:
        """Other versions with their code; what comes first must be a CONNECT, and only once."""
        house = House()
        old = house.connect()
        self.assertEqual(old.say(p.packet(0x10, b"\0\4MQTT\3\2\0\0\0\1a")), ["connack 0 0x1"])
        nameless = house.connect()
        self.assertEqual(nameless.say(p.connect(clean=False)), ["connack 0 0x2"])
        for packets in ((p.PINGREQ,), (p.connect(), p.connect()), (b"\xff\xff\xff\xff\xff",)):
            with self.subTest(packets):
                thing = house.connect()
                thing.say(*packets)
                self.assertTrue(thing.client.is_closed)

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

    def test_packets_that_the_rate_does_not_count_are_bounded(self) -> None:
        """As control frames of WebSocket are."""
        house = House()
        thing = house.join("x", V5)
        answers = thing.say(*[p.PINGREQ] * 30, *[p.unsubscribe(1, "a", version=V5)] * 30)
        self.assertEqual((len(answers), answers[-1]), (51, "disconnect 0x96"))

    def test_client_without_connect_is_ended(self) -> None:
        """After 10 s."""
        house = House()
        thing = house.connect()
        house.site.turn(11)
        self.assertTrue(thing.client.is_closed)
        thing.lose()
        self.assertEqual(house.broker.counts.clients, 0)

    def test_client_id_that_comes_again_takes_over(self) -> None:
        """Within one subject."""
        house = House(Guard())
        first = house.join("same", V5, password="ann")
        other = house.join("same", V5, password="bob")
        house.join("same", V5, password="ann")
        self.assertEqual(first.heard(), ["disconnect 0x8e"])
        self.assertTrue(first.client.is_closed)
        self.assertFalse(other.client.is_closed)

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

    def test_one_client_too_many_is_closed(self) -> None:
        """The limit is that of all sessions."""
        house = House(limits=NetLimits(max_sessions=1))
        house.join()
        self.assertTrue(house.connect().client.is_closed)


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
        self.assertEqual(house.value("/go"), "now")

    def test_messages_are_acknowledged_by_their_qos(self) -> None:
        """QoS 2 is applied once, also when it comes again before PUBREL."""
        house = House()
        thing = house.join()
        self.assertEqual(thing.say(p.publish("a", "1", qos=1, id=7)), ["puback 7"])
        for dup in (False, True):
            self.assertEqual(thing.say(p.publish("a", "1", qos=2, id=8, retain=True, dup=dup)), ["pubrec 8"])
        self.assertEqual(house.site.relay.params.last_revision("/mqtt/a") or house.value("/mqtt/a"), 1)
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
                self.assertEqual((house.value("/mqtt/x"), house.value("/mqtt/y")), (1 if locks else 2, 3))
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
        self.assertEqual((house.value("/mqtt/399"), house.site.faults), (0, []))

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

    def test_topic_aliases(self) -> None:
        """Of version 5; an unknown one ends the connection."""
        house = House()
        thing = house.join("x", V5)
        alias = {Prop.TOPIC_ALIAS: 1}
        thing.say(p.publish("a", "1", V5, retain=True, properties=alias))
        thing.say(p.publish("", "2", V5, retain=True, properties=alias))
        self.assertEqual(house.value("/mqtt/a"), 2)
        self.assertEqual(thing.say(p.publish("", "3", V5, properties={Prop.TOPIC_ALIAS: 2})), ["disconnect 0x81"])
        other = house.join("y", V5)
        self.assertEqual(other.say(p.publish("a", "3", V5, properties={Prop.TOPIC_ALIAS: 17})), ["disconnect 0x81"])

    def test_expiry_is_a_life_time(self) -> None:
        """Of a retained message."""
        house = House()
        house.join("x", V5).say(p.publish("a", "1", V5, retain=True, properties={Prop.MESSAGE_EXPIRY: 60}))
        self.assertEqual(house.value("/mqtt/a"), 1)
        house.site.reactor.advance(61)
        house.site.relay.sweep()
        self.assertIsNone(house.value("/mqtt/a"))


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
        again.broker.codec.load(again.site.relay.params.all())
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
        self.patch(mqtt, "MAX_SUBSCRIPTION_FILTERS", 2)
        thing = house.join("x", V5)
        filters = [("$a", 0), ("$b", 0), ("$c", 0)]
        self.assertEqual(thing.say(p.subscribe(1, *filters, version=V5)), ["suback 1 000097"])

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


class KeptTests(SynchronousTestCase):
    def test_messages_wait_for_a_client_that_is_away(self) -> None:
        """With QoS 1 and 2; what was in flight comes again, with DUP."""
        house = House()
        writer, reader = house.join(), house.join("r", clean=False)
        reader.say(p.subscribe(1, ("a", 1)))
        writer.say(p.publish("a", "1", qos=1, id=1))
        self.assertEqual(reader.heard(), ["publish a 1 qos 1"])
        reader.lose()
        self.assertEqual(house.broker.kept_sessions, 1)
        writer.say(p.publish("a", "2", qos=1, id=2), p.publish("a", "not kept"))
        back = house.connect()
        self.assertEqual(
            back.say(p.connect("r", clean=False)), ["connack 1 0x0", "publish a 1 qos 1 dup", "publish a 2 qos 1"]
        )
        writer.say(p.publish("a", "3", qos=1, id=3))
        self.assertEqual(back.heard(), ["publish a 3 qos 1"])
        back.lose()
        self.assertEqual(house.connect().say(p.connect("r")), ["connack 0 0x0"])
        self.assertEqual((house.broker.kept_sessions, len(house.site.relay.sessions)), (0, 2))

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

    def test_session_expires(self) -> None:
        """After its time, an hour at most; DISCONNECT may shorten it."""
        house = House()
        for properties, lasts_s in (({Prop.SESSION_EXPIRY: 10}, 10), ({Prop.SESSION_EXPIRY: 10**6}, MAX_KEPT_S)):
            thing = house.join("r", V5, properties=properties)
            thing.lose()
            house.site.turn(lasts_s - 1)
            self.assertEqual(house.broker.kept_sessions, 1)
            house.site.turn(2)
            self.assertEqual((house.broker.kept_sessions, len(house.site.relay.sessions)), (0, 0))
        thing = house.join("r", V5, properties={Prop.SESSION_EXPIRY: 10})
        thing.say(p.packet(0xE0, b"\0\5\x11\0\0\0\0"))
        thing.lose()
        self.assertEqual(house.broker.kept_sessions, 0)

    def test_kept_sessions_and_messages_are_bounded(self) -> None:
        """The session that waits longest goes; of a session the oldest messages."""
        self.patch(mqtt, "MAX_KEPT_SESSIONS", 2)
        self.patch(mqtt, "MAX_KEPT_MESSAGES", 3)
        house = House()
        for name in ("a", "b", "c"):
            thing = house.join(name, clean=False)
            thing.say(p.subscribe(1, (name, 1)))
            thing.lose()
        self.assertEqual(house.broker.kept_sessions, 2)
        house.join().say(*(p.publish("c", str(number), qos=1, id=1) for number in range(5)))
        back = house.connect().say(p.connect("c", clean=False))
        self.assertEqual(back[1:], [f"publish c {number} qos 1" for number in (2, 3, 4)])
        house.broker.stop()
        self.assertEqual(house.broker.kept_sessions, 0)

    def test_kept_messages_count_for_the_subject(self) -> None:
        """With those of its other sessions; the oldest go, and nothing is counted once the client is back."""
        house = House(Guard())
        accounts = house.site.relay.accounts
        writer, reader = house.join("w", password="bob"), house.join("r", clean=False, password="ann")
        reader.say(p.subscribe(1, ("a", 1)))
        writer.say(p.publish("a", "in flight", qos=1, id=1))
        before = accounts.bytes[Kept.MESSAGES]
        reader.lose()
        writer.say(*(p.publish("a", str(number) * 1_000, qos=1, id=1) for number in range(5)))
        self.assertEqual(before, 0)
        self.assertGreater(accounts.bytes[Kept.MESSAGES], 5_000)
        accounts._max_bytes = 4_000
        writer.say(p.publish("a", "5" * 1_000, qos=1, id=1))
        self.assertLessEqual(accounts.bytes[Kept.MESSAGES], 4_000)
        accounts._max_bytes = 0
        back = house.connect()
        told = back.say(p.connect("r", clean=False, password="ann"))
        self.assertEqual(told[1], "publish a in flight qos 1 dup")
        self.assertEqual(told[-1], f"publish a {'5' * 1_000} qos 1")
        self.assertLess(len(told), 6)
        self.assertEqual(accounts.bytes[Kept.MESSAGES], 0)

    def test_rights_are_asked_again_before_what_waited_is_sent(self) -> None:
        """A token that has ended takes its session with it; what is hidden now stays so."""
        guard = Guard()
        house = House(guard)
        writer, reader = house.join("w", password="bob"), house.join("r", clean=False, password="ann")
        reader.say(p.subscribe(1, ("a", 1), ("b", 1)))
        writer.say(p.publish("a", "in flight", qos=1, id=1))
        reader.lose()
        writer.say(p.publish("b", "waits", qos=1, id=1))
        self.patch(guard, "can_read", lambda _who, address: address != "/mqtt/a")
        back = house.connect()
        self.assertEqual(
            back.say(p.connect("r", clean=False, password="ann")), ["connack 1 0x0", "publish b waits qos 1"]
        )
        guard.ended_tokens.add(b"ann")
        back.lose()
        self.assertEqual(house.broker.kept_sessions, 0)

    def test_message_without_its_hidden_keys_is_sent(self) -> None:
        """Also what waited, unless more is hidden now."""
        for hidden, told in (({"pin"}, True), (set(), True), ({"pin", "n"}, False)):
            with self.subTest(hidden=hidden):
                guard = Guard()
                rule = guard.rules["/mqtt/a"] = Rule(frozenset({"pin"}))
                house = House(guard)
                writer, reader = house.join("w", password="bob"), house.join("r", clean=False, password="ann")
                reader.say(p.subscribe(1, ("a", 1)))
                writer.say(p.publish("a", '{"pin": 7, "n": 1}', qos=1, id=1))
                self.assertEqual(reader.heard(), ['publish a {"n":1} qos 1'])
                reader.lose()
                writer.say(p.publish("a", '{"pin": 7, "n": 2}', qos=1, id=1))
                rule.fixed = Verdict(frozenset(hidden))
                back = house.connect().say(p.connect("r", clean=False, password="ann"))
                expected = ['publish a {"n":1} qos 1 dup', 'publish a {"n":2} qos 1'] if told else []
                self.assertEqual(back, ["connack 1 0x0", *expected])


class WillTests(SynchronousTestCase):
    def test_will_is_published_when_the_client_is_lost(self) -> None:
        """Retained or not; not when it says goodbye."""
        house = House()
        reader = house.join()
        reader.say(p.subscribe(1, ("will/#", 1)))
        for version in (V4, V5):
            house.join("x", version, will=("will/x", b"gone", 1, True)).lose()
            self.assertEqual(reader.heard(), ["publish will/x gone qos 1"])
            self.assertEqual(house.value("/mqtt/will/x"), "gone")
            polite = house.join("x", version, will=("will/x", b"gone", 1, True))
            polite.say(p.DISCONNECT)
            polite.lose()
            self.assertEqual(reader.heard(), [])
        thing = house.join("x", V5, will=("will/x", b"event", 0, False))
        thing.say(p.packet(0xE0, b"\4"))
        thing.lose()
        self.assertEqual(reader.heard(), ["publish will/x event qos 0"])

    def test_will_is_the_clients_own_write(self) -> None:
        """What it may not write, its will may not either."""
        house = House(Guard())
        house.join("x", will=("secret", b"gone", 0, True), password="ann").lose()
        house.join("y", will=("a//b", b"gone", 0, True), password="ann").lose()
        self.assertIsNone(house.value("/mqtt/secret"))
        self.assertEqual(house.broker.counts.refused, 2)

    def test_will_waits_for_its_delay(self) -> None:
        """And is not published when the client is back."""
        house = House()
        reader = house.join()
        reader.say(p.subscribe(1, ("will", 0)))
        options: dict[str, Any] = {
            "clean": False,
            "will": ("will", b"gone", 0, False),
            "properties": {Prop.SESSION_EXPIRY: 60},
            "will_properties": {Prop.WILL_DELAY: 5},
        }
        house.join("x", V5, **options).lose()
        house.site.turn(4)
        back = house.connect()
        back.version = V5
        self.assertEqual(back.say(p.connect("x", V5, **options)), ["connack 1 0x0"])
        house.site.turn(10)
        self.assertEqual(reader.heard(), [])
        back.lose()
        house.site.turn(6)
        self.assertEqual(reader.heard(), ["publish will gone qos 0"])


class WebSocketTests(SynchronousTestCase):
    def test_mqtt_is_a_subprotocol(self) -> None:
        """Packets may be cut anywhere between WebSocket messages; keep-alive and the end are MQTT's."""
        house = House()
        house.site.gate.others["mqtt"] = (house.broker, house.broker.codec)
        client = Client(house.site, house.site.gate.buildProtocol(None), Pipe(house.site.reactor))  # type: ignore[arg-type]
        client.send(
            b"GET / HTTP/1.1\r\nHost: relay.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        self.assertIn("Sec-WebSocket-Protocol: mqtt", client.head)
        client.clear()
        data = p.connect("ws") + p.subscribe(1, ("a", 0))
        client.send(*(client_frame(data[at : at + 5]) for at in range(0, len(data), 5)))
        house.join().say(p.publish("a", "hello"))
        client.turn()
        found = b"".join(payload for _, payload in server_frames(bytes(client.pipe.taken)))
        self.assertEqual(
            [p.said(each) for each in p.split(found)[0]], ["connack 0 0x0", "suback 1 00", "publish a hello qos 0"]
        )
        self.assertEqual(house.broker.counts.clients, 2)
        client.send(client_frame(p.DISCONNECT))
        client.turn()
        client.pipe.lose()
        house.site.turn()
        self.assertEqual((house.broker.counts.clients, len(house.site.relay.sessions)), (1, 1))


class DoorTests(SynchronousTestCase):
    def test_door_listens_until_it_is_closed(self) -> None:
        """On one or two ports, once."""
        house = House(Guard())
        place = TcpPlace("127.0.0.1", 1883)
        door = MqttDoor(house.site.reactor, place, None, house.broker)
        for _ in range(2):
            door.open(None)
        self.assertEqual([each[0] for each in house.site.reactor.tcpServers], [1883])
        door.started(7330)
        door.close()
        self.assertFalse(door.ports)


class ClusterTests(SynchronousTestCase):
    """Two relays with an MQTT door each: clients see one broker."""

    def setUp(self) -> None:
        """A relay that decides (``far``) and one that follows (``near``)."""
        self.cluster = door_cluster()
        self.houses = {member: House(member=member) for member in map(self.cluster.add, ("one", "two"))}
        self.cluster.advance(4)
        assert self.cluster.decider is not None
        self.decider, (self.follower,) = self.cluster.decider, self.cluster.followers
        self.far, self.near = self.houses[self.decider], self.houses[self.follower]

    def tearDown(self) -> None:
        """No relay had a fault."""
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])

    def test_message_is_acknowledged_once_it_is_decided_and_recorded(self) -> None:
        """A retained one, and an event; the answers keep their order."""
        thing = self.near.join()
        self.decider.journal.hang(True)
        sent = (p.publish("a", "1", qos=1, id=1, retain=True), p.publish("b", "1", qos=1, id=2))
        self.assertEqual(thing.say(*sent, p.publish("c", "1", qos=2, id=3)), [])
        self.decider.journal.hang(False)
        self.assertEqual(thing.heard(), ["puback 1", "puback 2", "pubrec 3"])
        self.assertEqual(self.far.value("/mqtt/a"), 1)

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

    def test_client_is_at_one_relay_at_a_time(self) -> None:
        """The one to which it came last, also where it changes twice at once."""
        first = self.near.join("x", V5)
        second = self.far.join("x", V5)
        self.assertEqual((first.heard(), first.client.is_closed), (["disconnect 0x8e"], True))
        self.assertEqual(second.say(p.publish("a", "1", V5, qos=1, id=1)), ["puback 1"])
        other = self.near.join("y", V5)
        third = self.near.join("x", V5)
        self.assertTrue(second.client.is_closed)
        self.assertFalse(third.client.is_closed or other.client.is_closed)
        things = [house.connect() for house in (self.near, self.far, self.near)]
        for thing in things:
            thing.client.protocol.dataReceived(p.connect("x"))
        self.cluster.turn()
        self.assertEqual([thing.client.is_closed for thing in (third, *things)].count(False), 1)

    def test_kept_messages_stay_where_they_are(self) -> None:
        """While the client is at another relay nothing is added; once it is back it gets them."""
        writer = self.far.join("w")
        reader = self.near.join("r", clean=False)
        reader.say(p.subscribe(1, ("a", 1)))
        reader.lose()
        writer.say(p.publish("a", "1", qos=1, id=1))
        away = self.far.connect()
        self.assertEqual(away.say(p.connect("r", clean=False)), ["connack 0 0x0"])
        away.say(p.subscribe(1, ("a", 1)))
        writer.say(p.publish("a", "2", qos=1, id=2))
        self.assertEqual(away.heard(), ["publish a 2 qos 1"])
        away.say(p.acknowledge(0x40, 1), p.DISCONNECT)
        back = self.near.connect()
        self.assertEqual(back.say(p.connect("r", clean=False)), ["connack 1 0x0", "publish a 1 qos 1"])
        writer.say(p.publish("a", "3", qos=1, id=3))
        self.assertEqual(back.heard(), ["publish a 3 qos 1"])

    def test_client_that_begins_anew_elsewhere_leaves_nothing(self) -> None:
        """Its kept session ends, and with it its will is told."""
        listener = self.far.site.clasp()
        self.far.site.say(listener, Subscribe(1, "/mqtt/**"))
        reader = self.near.join(
            "r",
            V5,
            properties={Prop.SESSION_EXPIRY: 100},
            will=("gone", b"1", 0, False),
            will_properties={Prop.WILL_DELAY: 50},
        )
        reader.lose()
        self.assertEqual(self.near.broker.kept_sessions, 1)
        self.far.join("r", V5)
        self.assertEqual(self.near.broker.kept_sessions, 0)
        self.assertEqual([each.address for each in told(listener) if isinstance(each, Publish)], ["/mqtt/gone"])

    def test_will_that_waits_is_dropped_when_the_client_is_elsewhere(self) -> None:
        """It is not lost."""
        listener = self.far.site.clasp()
        self.far.site.say(listener, Subscribe(1, "/mqtt/**"))
        kept: dict[int, object] = {Prop.SESSION_EXPIRY: 100}
        reader = self.near.join(
            "r", V5, properties=kept, will=("gone", b"1", 0, False), will_properties={Prop.WILL_DELAY: 50}
        )
        reader.lose()
        back = self.far.connect()
        back.version = V5
        self.assertEqual(back.say(p.connect("r", V5, clean=False, properties=kept)), ["connack 0 0x0"])
        self.cluster.advance(120)
        self.assertEqual(told(listener), [])
        self.assertEqual(self.near.broker.kept_sessions, 0)

    def test_will_of_a_lost_client_is_told_everywhere(self) -> None:
        """With its QoS."""
        listener = self.far.join()
        listener.say(p.subscribe(1, ("gone", 2)))
        thing = self.near.join("t", will=("gone", b"yes", 2, True))
        thing.lose()
        self.assertEqual(listener.heard(), ["publish gone yes qos 2"])

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

    def test_clients_are_let_in_once_the_relay_has_caught_up(self) -> None:
        """Before that they are told to come again, in their version."""
        member = self.cluster.add("three")
        house = House(member=member)
        thing = house.connect()
        self.assertEqual(thing.say(p.connect()), ["connack 0 0x3"])
        self.assertTrue(thing.client.is_closed)
        thing = house.connect()
        thing.version = V5
        self.assertEqual(thing.say(p.connect(version=V5)), ["connack 0 0x89"])
        self.cluster.advance(3)
        house.join()

    def test_session_ends_with_its_relay(self) -> None:
        """One that was cut off has missed messages, so no session of it is taken up again."""
        for name in ("here", "away"):
            thing = self.near.join(name, clean=False)
            thing.say(p.subscribe(1, ("a", 1)))
            if name == "away":
                thing.lose()
        self.follower.engine.is_paused = True
        self.cluster.advance(8)
        self.follower.engine.is_paused = False
        self.cluster.advance(4)
        for name in ("here", "away"):
            self.assertEqual(self.near.connect().say(p.connect(name, clean=False)), ["connack 0 0x0"])

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
        self.assertEqual(self.far.value("/mqtt/a"), 1)

    def test_token_that_another_relay_has_just_issued_is_waited_for(self) -> None:
        """For two seconds; what the client sends meanwhile waits, too."""
        known: set[str] = set()
        self.follower.following.knows_token = known.__contains__
        late, never, gone = (self.near.connect() for _ in range(3))
        for thing, token in ((late, "cpsk_late"), (never, "cpsk_never"), (gone, "cpsk_gone")):
            thing.version = V5
            self.assertEqual(thing.say(p.connect("x" + token, V5, password=token) + p.PINGREQ), [])
        gone.lose()
        known.add("cpsk_late")
        self.cluster.advance(0.2)
        self.assertEqual(late.heard(), ["connack 0 0x0", "pingresp"])
        self.assertEqual(never.heard(), [])
        self.cluster.advance(3)
        # In open mode it is let in all the same.
        self.assertEqual(never.heard(), ["connack 0 0x0", "pingresp"])
        bad = self.near.connect()
        bad.say(p.connect("bad", V5, password="cpsk_bad", properties={Prop.RECEIVE_MAXIMUM: 0}))
        self.cluster.advance(3)
        self.assertTrue(bad.client.is_closed)

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

    def test_will_is_told_once_however_its_client_is_lost(self) -> None:
        """With its relay, which was killed or cut off, also where the decider has changed or joined since."""
        for how in ("client", "relay", "cut off", "decider", "newcomer"):
            self.setUp()
            with self.subTest(how):
                if how == "newcomer":
                    self.cluster.add("three")
                    self.cluster.advance(3)
                listener = self.far.join("listener")
                listener.say(p.subscribe(1, ("gone/#", 2)))
                thing = self.near.join("t", will=("gone/t", b" 7", 2, True))
                orderly = self.near.join("o", will=("gone/o", b"1", 0, False))
                orderly.say(p.DISCONNECT)
                orderly.lose()
                if how == "client":
                    thing.lose()
                elif how == "relay":
                    self.follower.kill()
                elif how == "cut off":
                    self.follower.engine.is_paused = True
                    thing.lose()
                if how in ("client", "relay", "cut off"):
                    self.cluster.advance(5)
                    self.follower.engine.is_paused = False
                    self.cluster.advance(5)
                    self.assertEqual(listener.heard(), ["publish gone/t  7 qos 2"])
                    continue
                self.decider.node.hand_over()
                self.cluster.advance(3)
                self.follower.kill()
                self.cluster.advance(9)
                self.assertEqual(listener.heard(), ["publish gone/t  7 qos 2"])

    def test_will_that_was_told_is_not_left_once_more(self) -> None:
        """By a session that is kept."""
        listener = self.far.join("listener")
        listener.say(p.subscribe(1, ("gone", 0)))
        kept: dict[int, object] = {Prop.SESSION_EXPIRY: 1_000}
        thing = self.near.join(
            "t", V5, properties=kept, will=("gone", b"1", 0, False), will_properties={Prop.WILL_DELAY: 2}
        )
        thing.lose()
        self.cluster.advance(3)
        self.assertEqual(listener.heard(), ["publish gone 1 qos 0"])
        self.follower.kill()
        self.cluster.advance(6)
        self.assertEqual(listener.heard(), [])

    def test_will_that_waits_goes_with_its_relay(self) -> None:
        """It is told once, when the others give the relay up, and not again at its own time."""
        listener = self.far.join("listener")
        listener.say(p.subscribe(1, ("gone", 0)))
        kept: dict[int, object] = {Prop.SESSION_EXPIRY: 1_000}
        thing = self.near.join(
            "t", V5, properties=kept, will=("gone", b"1", 0, False), will_properties={Prop.WILL_DELAY: 30}
        )
        thing.lose()
        self.follower.engine.is_paused = True
        self.cluster.advance(8)
        self.follower.engine.is_paused = False
        self.cluster.advance(30)
        self.assertEqual(listener.heard(), ["publish gone 1 qos 0"])

    def test_claim_that_is_told_late_ends_nobody(self) -> None:
        """Of a relay that was cut off while its client went elsewhere."""
        self.follower.engine.is_paused = True
        self.near.join("x").lose()
        self.cluster.advance(0.5)
        there = self.far.join("x")
        self.follower.engine.is_paused = False
        self.cluster.advance(2)
        self.assertFalse(there.client.is_closed)

    def test_client_moves_also_to_a_relay_whose_clock_is_behind(self) -> None:
        """What is known of it came before."""
        first = self.far.join("x")
        self.cluster.turn()
        self.patch(self.follower, "now_us", lambda: START_US - 3_600_000_000)
        second = self.near.join("x")
        self.assertEqual((first.client.is_closed, second.client.is_closed), (True, False))

    def test_times_of_claims_are_bounded(self) -> None:
        """The one that came first is forgotten first."""
        self.patch(mqtt, "MAX_CLAIMED", 3)
        for number in range(9):
            self.far.join(f"x{number}")
        self.assertEqual([name for _, name in self.near.broker._claimed_us], ["x6", "x7", "x8"])
