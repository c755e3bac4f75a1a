"""A client has one connection and one session, which is kept without a connection where it wants that."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.port import Verdict
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.doors.mqtt import broker
from clasp_relay.doors.mqtt.broker import MAX_KEPT_S
from clasp_relay.wire.messages import Publish, Subscribe
from clasp_relay.wire.mqtt.packets import V5, Prop
from tests.core.guard import Guard, Rule
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import ClusterCase, House
from tests.doors.site import told


class TakeOverTests(SynchronousTestCase):
    def test_client_id_that_comes_again_takes_over(self) -> None:
        """Within one subject."""
        house = House(Guard())
        first = house.join("same", V5, password="ann")
        other = house.join("same", V5, password="bob")
        house.join("same", V5, password="ann")
        self.assertEqual(first.heard(), ["disconnect 0x8e"])
        self.assertTrue(first.client.is_closed)
        self.assertFalse(other.client.is_closed)


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

    def test_messages_wait_for_a_user_of_whom_nothing_else_is_kept(self) -> None:
        """Neither messages in flight nor another session."""
        house = House(Guard())
        writer, reader = house.join("w", password="bob"), house.join("r", clean=False, password="ann")
        reader.say(p.subscribe(1, ("a", 1)))
        reader.lose()
        writer.say(p.publish("a", "1", qos=1, id=1))
        back = house.connect().say(p.connect("r", clean=False, password="ann"))
        self.assertEqual(back, ["connack 1 0x0", "publish a 1 qos 1"])

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
        self.patch(broker, "MAX_KEPT_SESSIONS", 2)
        self.patch(broker, "MAX_KEPT_MESSAGES", 3)
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

    def test_client_address_with_most_kept_sessions_makes_room(self) -> None:
        """However many it keeps, others' stay; what they keep counts for the address, whoever its clients are."""
        self.patch(broker, "MAX_KEPT_SESSIONS", 3)
        house = House(Guard())
        relay = house.site.relay
        relay.hooks.origin_of = lambda peer: peer
        house.join("first", clean=False, password="ann", host="198.51.100.1").lose()
        for name in ("a", "b", "c"):
            thing = house.join(name, clean=False, password="bob")
            thing.say(p.subscribe(1, ("x", 1)))
            thing.lose()
        back = house.connect("198.51.100.1").say(p.connect("first", clean=False, password="ann"))
        self.assertEqual(back, ["connack 1 0x0"])
        self.assertEqual(house.connect().say(p.connect("a", clean=False, password="bob")), ["connack 0 0x0"])
        kept = relay.accounts._by_origin
        before = kept["192.0.2.1"]
        house.join("w", password="ann", host="198.51.100.1").say(p.publish("x", "1" * 9_000, qos=1, id=1))
        self.assertGreater(kept["192.0.2.1"] - before, 2 * 9_000)

    def test_client_addresses_share_kept_sessions_in_open_mode_too(self) -> None:
        """Where nothing else counts for them; a kept session has its client's turn of the work, not one of its own."""
        self.patch(broker, "MAX_KEPT_SESSIONS", 3)
        house = House()
        house.join("first", clean=False, host="198.51.100.1").lose()
        for name in ("a", "b", "c"):
            house.join(name, clean=False).lose()
        lanes = [each.lane for each in house.site.relay.sessions.all()]
        self.assertEqual(lanes, ["198.51.100.1", "192.0.2.1", "192.0.2.1"])
        self.assertEqual(house.connect().say(p.connect("a", clean=False)), ["connack 0 0x0"])
        self.assertEqual(house.connect("198.51.100.1").say(p.connect("first", clean=False)), ["connack 1 0x0"])

    def test_kept_messages_count_for_the_subject(self) -> None:
        """With those of its other sessions; the oldest go, and nothing is counted once the client is back."""
        house = House(Guard())
        accounts = house.site.relay.accounts
        writer, reader = house.join("w", password="bob"), house.join("r", clean=False, password="ann")
        reader.say(p.subscribe(1, ("a", 1)))
        writer.say(p.publish("a", "in flight", qos=1, id=1))
        before = accounts.bytes[MemoryKind.MESSAGES]
        reader.lose()
        writer.say(*(p.publish("a", str(number) * 1_000, qos=1, id=1) for number in range(5)))
        self.assertEqual(before, 0)
        self.assertGreater(accounts.bytes[MemoryKind.MESSAGES], 5_000)
        accounts._max_bytes = 4_000
        writer.say(p.publish("a", "5" * 1_000, qos=1, id=1))
        self.assertLessEqual(accounts.bytes[MemoryKind.MESSAGES], 4_000)
        accounts._max_bytes = 0
        back = house.connect()
        told = back.say(p.connect("r", clean=False, password="ann"))
        self.assertEqual(told[1], "publish a in flight qos 1 dup")
        self.assertEqual(told[-1], f"publish a {'5' * 1_000} qos 1")
        self.assertLess(len(told), 6)
        self.assertEqual(accounts.bytes[MemoryKind.MESSAGES], 0)

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
        for hidden, is_told in (({"pin"}, True), (set(), True), ({"pin", "n"}, False)):
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
                expected = ['publish a {"n":1} qos 1 dup', 'publish a {"n":2} qos 1'] if is_told else []
                self.assertEqual(back, ["connack 1 0x0", *expected])


class ClusterTests(ClusterCase):
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
