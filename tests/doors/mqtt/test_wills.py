"""What is published when a client is lost."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.account import MemoryKind
from clasp_relay.wire.messages import Subscribe
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from tests.core.guard import Guard
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import ClusterCase, House
from tests.doors.site import told


class WillTests(SynchronousTestCase):
    def test_will_is_published_when_the_client_is_lost(self) -> None:
        """Retained or not; not when it says goodbye."""
        house = House()
        reader = house.join()
        reader.say(p.subscribe(1, ("will/#", 1)))
        for version in (V4, V5):
            house.join("x", version, will=("will/x", b"gone", 1, True)).lose()
            self.assertEqual(reader.heard(), ["publish will/x gone qos 1"])
            self.assertEqual(house.site.value("/mqtt/will/x"), "gone")
            polite = house.join("x", version, will=("will/x", b"gone", 1, True))
            polite.say(p.DISCONNECT)
            polite.lose()
            self.assertEqual(reader.heard(), [])
        thing = house.join("x", V5, will=("will/x", b"event", 0, False))
        thing.say(p.packet(0xE0, b"\4"))
        thing.lose()
        self.assertEqual(reader.heard(), ["publish will/x event qos 0"])

    def test_will_counts_for_its_client(self) -> None:
        """As long as it is kept, be it published, dropped or taken along; where there is no room there is none."""
        house = House(Guard())
        accounts = house.site.relay.accounts
        will = ("will/x", b"x" * 5_000, 0, False)
        properties: dict[str, Any] = {"password": "ann", "will": will}
        polite = house.join("x", **properties)
        self.assertGreater(accounts.bytes[MemoryKind.MESSAGES], 10_000)
        polite.say(p.DISCONNECT)
        polite.lose()
        self.assertEqual(accounts.bytes[MemoryKind.MESSAGES], 0)
        later = properties | {"properties": {Prop.SESSION_EXPIRY: 100}, "will_properties": {Prop.WILL_DELAY: 10}}
        for back in (True, False):
            house.join("y", V5, **later).lose()
            self.assertGreater(accounts.bytes[MemoryKind.MESSAGES], 10_000)
            if back:
                house.join("y", V5, password="ann", clean=True).lose()
            house.site.turn(0 if back else 11)
            self.assertEqual(accounts.bytes[MemoryKind.MESSAGES], 0)
        accounts._max_bytes = 9_000
        reader = house.join("r", password="bob")
        reader.say(p.subscribe(1, ("will/#", 0)))
        house.join("z", **properties).lose()
        self.assertEqual(reader.heard(), [])
        self.assertIn("too much is kept for you", house.refusals[-1][1])

    def test_will_is_the_clients_own_write(self) -> None:
        """What it may not write, its will may not either."""
        house = House(Guard())
        house.join("x", will=("secret", b"gone", 0, True), password="ann").lose()
        house.join("y", will=("a//b", b"gone", 0, True), password="ann").lose()
        self.assertIsNone(house.site.value("/mqtt/secret"))
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


class ClusterTests(ClusterCase):
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
