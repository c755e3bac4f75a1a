"""Clients are let in by their token or their account, and told in their version why not."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.identity import Identity
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from tests.core.guard import Guard
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import ClusterCase, House, Strict


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

    def test_long_client_id_is_turned_away(self) -> None:
        """It would be kept, here and at the other relays of a cluster."""
        house = House()
        for version, answer in ((V4, "connack 0 0x2"), (V5, "connack 0 0x85")):
            thing = house.connect()
            thing.version = version
            self.assertEqual(thing.say(p.connect("ä" * 128 + "x", version)), [answer])
            house.join("ä" * 128, version)

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


class ClusterTests(ClusterCase):
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
