"""Doors and rules of relays in a cluster, as processes: MQTT clients and rules do not notice that there are several."""

from __future__ import annotations

import json
import re
import select
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.mqtt.packets import V4, PublishPacket, decode_packet
from clasp_relay.wire.osc.packets import OscMessage, encode_message
from clasp_relay.wire.osc.packets import decode_packet as decode_osc
from tests.doors import mqtt_packets as p
from tests.integration.cluster import Cluster, Member
from tests.integration.process import PATIENCE_S, wait_until

RULES = [
    {
        "id": "double",
        "trigger": {"OnChange": {"pattern": "/mqtt/in/*"}},
        "actions": [
            {"SetFromTrigger": {"address": "/mqtt/out", "transform": {"Scale": {"scale": 2, "offset": 0}}}},
            {"Publish": {"address": "/mqtt/said", "signal": "event", "value": 1}},
        ],
    }
]


def port_of(member: Member, door: str) -> int:
    """Returns the port of a door of the process that runs."""
    pattern = re.compile(re.escape(door) + r" listens on 127\.0\.0\.1:(\d+)")
    wait_until(lambda: pattern.search(member.process.log), f"{door} listens")
    return int(pattern.findall(member.process.log)[-1])


class Thing:
    """An MQTT client over a socket."""

    def __init__(self, member: Member, client_id: str, *, clean: bool = True) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port_of(member, "MQTT")), PATIENCE_S)
        self._data = b""
        self.send(p.connect(client_id, clean=clean))
        self.heard: list[bytes] = []
        (connack,) = self.until(1)
        assert p.said(connack).endswith(" 0x0"), connack

    def send(self, *packets: bytes) -> None:
        """Sends packets."""
        self._socket.sendall(b"".join(packets))

    def until(self, count: int) -> list[bytes]:
        """Returns so many packets, and takes them away."""
        while len(self.heard) < count:
            piece = self._socket.recv(65_536)
            assert piece, "the connection has ended"
            self._take(piece)
        found, self.heard = self.heard[:count], self.heard[count:]
        return found

    def words(self, count: int) -> list[str]:
        """Returns so many packets in words."""
        return [p.said(each) for each in self.until(count)]

    def has_ended(self) -> bool:
        """Tells whether the relay has ended the connection; takes what has come."""
        while select.select([self._socket], [], [], 0)[0]:
            try:
                piece = self._socket.recv(65_536)
            except ConnectionResetError:
                return True
            if not piece:
                return True
            self._take(piece)
        return False

    def _take(self, piece: bytes) -> None:
        packets, self._data = p.split(self._data + piece)
        self.heard += packets

    def close(self) -> None:
        """Ends the connection without a word."""
        self._socket.close()


def payloads(packets: list[bytes]) -> list[bytes]:
    """Returns what the PUBLISHes among packets carry."""
    found = [decode_packet(each, V4) for each in packets if each[0] >> 4 == 3]
    return [each.payload for each in found if isinstance(each, PublishPacket)]


class DoorsTests(SynchronousTestCase):
    """Two relays with doors and rules, on one nats-server."""

    def setUp(self) -> None:
        """Starts them."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps(RULES), "utf-8")
        options = ("--auth-port", "0", "--mqtt-port", "0", "--osc-port", "0", "--rules", str(rules))
        self.cluster = Cluster(self.folder, options=(*options, "--rate-limit", "0"))
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.decider, (self.follower,) = self.cluster.decider, self.cluster.followers

    def thing(self, member: Member, client_id: str, *, clean: bool = True) -> Thing:
        """Returns a client that ends with the test."""
        thing = Thing(member, client_id, clean=clean)
        self.addCleanup(thing.close)
        return thing

    def test_messages_rules_and_clients_go_over_relays(self) -> None:
        """A client is at one relay at a time; OSC hears of it; after the decider is killed all goes on."""
        near, far = self.thing(self.follower, "near"), self.thing(self.decider, "far")
        far.send(p.subscribe(1, ("#", 1)))
        self.assertEqual(far.words(1), ["suback 1 01"])
        osc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(osc.close)
        osc.settimeout(PATIENCE_S)
        osc.sendto(encode_message(OscMessage("/hello", (1,))), ("127.0.0.1", port_of(self.decider, "OSC")))

        near.send(p.publish("in/a", " 21", qos=2, id=1, retain=True))
        self.assertEqual(near.words(1), ["pubrec 1"])
        self.assertEqual(
            sorted(far.words(3)), ["publish in/a  21 qos 1", "publish out 42 qos 1", "publish said 1 qos 1"]
        )

        taken = self.thing(self.follower, "x")
        again = self.thing(self.decider, "x")
        wait_until(taken.has_ended, "the first connection ends")
        again.send(p.publish("y", "1", qos=1, id=5))
        self.assertEqual(again.words(1), ["puback 5"])

        self.decider.kill()
        near.send(p.publish("in/a", "5", qos=1, id=2, retain=True))
        self.assertEqual(near.words(1), ["puback 2"])
        late = self.thing(self.follower, "late")
        late.send(p.subscribe(1, ("out", 1)))
        self.assertEqual(late.words(1), ["suback 1 01"])
        wait_until(lambda: not late.has_ended() and late.heard, "the retained message")
        near.send(p.publish("in/a", "7", qos=1, id=3, retain=True))
        wait_until(lambda: not late.has_ended() and b"14" in payloads(late.heard), "what the rule makes of it")
        packet, _ = self.osc_hears_of(self.follower)
        self.assertEqual(packet.address, "/seen")

    def osc_hears_of(self, member: Member) -> tuple[OscMessage, object]:
        """Has an OSC client listen at a relay, and another one set something there."""
        place = ("127.0.0.1", port_of(member, "OSC"))
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        with first, second:
            first.settimeout(0.5)
            found: list[OscMessage] = []

            def is_heard() -> bool:
                first.sendto(encode_message(OscMessage("/first", (1,))), place)
                second.sendto(encode_message(OscMessage("/seen", (1,))), place)
                try:
                    packet = decode_osc(first.recv(65_536))
                except TimeoutError:
                    return False
                if isinstance(packet, OscMessage) and packet.address == "/seen":
                    found.append(packet)
                return bool(found)

            wait_until(is_heard, "a value over OSC")
            return found[0], place

    def test_what_was_acknowledged_is_there_after_the_decider_was_killed(self) -> None:
        """Messages with QoS 1 go on, in their order, and none is lost."""
        near, watcher = self.thing(self.follower, "near"), self.thing(self.follower, "watcher")
        watcher.send(p.subscribe(1, ("flood/#", 1)))
        watcher.words(1)
        for number in range(1, 401):
            near.send(p.publish(f"flood/{number % 7}", str(number), qos=1, id=number, retain=number % 2 == 0))
            if number == 200:
                self.decider.kill()
        self.assertEqual(near.words(400), [f"puback {number}" for number in range(1, 401)])
        heard: list[bytes] = []
        while len(heard) < 400:
            for packet in watcher.until(1):
                heard += payloads([packet])
                ids = p.packet_ids(packet)
                watcher.send(*(p.acknowledge(0x40, number) for number in ids))
        self.assertEqual(heard, [b"%d" % number for number in range(1, 401)])
