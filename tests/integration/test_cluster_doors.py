"""Doors and rules of relays in a cluster, as processes: MQTT clients and rules do not notice that there are several."""

from __future__ import annotations

import json
import re
import select
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.mqtt.packets import V4, PublishPacket, decode_packet
from clasp_relay.wire.osc.packets import OscMessage, encode_message
from clasp_relay.wire.osc.packets import decode_packet as decode_osc
from tests.doors import mqtt_packets as p
from tests.integration.accounts import PASSWORD
from tests.integration.cluster import Cluster, Member
from tests.integration.process import PATIENCE_S, wait_until
from tests.integration.test_cluster_accounts import Relay

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

    def __init__(
        self, member: Member, client_id: str, *, clean: bool = True, user: str = "", password: str | None = None
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port_of(member, "MQTT")), PATIENCE_S)
        self._data = b""
        self.send(p.connect(client_id, clean=clean, user=user, password=password))
        self.heard: list[bytes] = []
        (connack,) = self.until(1)
        self.is_let_in = p.said(connack).endswith(" 0x0")

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


def joined(member: Member, client_id: str, **more: Any) -> Thing:
    """Returns a client that was let in; a relay that has just lost its cluster turns some away before."""
    made: list[Thing] = []

    def is_let_in() -> bool:
        thing = Thing(member, client_id, **more)
        (made.append if thing.is_let_in else Thing.close)(thing)
        return thing.is_let_in

    wait_until(is_let_in, f"{member.name} lets {client_id} in")
    return made[0]


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

    def thing(self, member: Member, client_id: str, **more: Any) -> Thing:
        """Returns a client that ends with the test."""
        thing = joined(member, client_id, **more)
        self.addCleanup(thing.close)
        return thing

    def publish(self, member: Member, topic: str, payload: str, qos: int = 1) -> None:
        """Has a client send a retained message, and again where it is not acknowledged, as clients do."""

        def is_acknowledged() -> bool:
            writer = self.thing(member, "writer")
            writer.send(p.publish(topic, payload, qos=qos, id=1, retain=True))
            wait_until(lambda: writer.has_ended() or writer.heard, "an answer")
            return [p.said(each) for each in writer.heard] == [f"pub{'rec' if qos == 2 else 'ack'} 1"]

        wait_until(is_acknowledged, f"{topic} is acknowledged")

    def test_messages_rules_and_clients_go_over_relays(self) -> None:
        """A client is at one relay at a time; OSC hears of it; after the decider is killed all goes on."""
        far = self.thing(self.decider, "far")
        far.send(p.subscribe(1, ("#", 1)))
        self.assertEqual(far.words(1), ["suback 1 01"])
        self.publish(self.follower, "in/a", " 21", qos=2)
        said = {"publish in/a  21 qos 1", "publish out 42 qos 1", "publish said 1 qos 1"}
        self.assertEqual(set(far.words(3)), said)

        taken = self.thing(self.follower, "x")
        again = self.thing(self.decider, "x")
        wait_until(taken.has_ended, "the first connection ends")
        again.send(p.publish("y", "1", qos=1, id=5))
        self.assertEqual(again.words(1), ["puback 5"])

        self.decider.kill()
        self.publish(self.follower, "in/a", "5")
        late = self.thing(self.follower, "late")
        late.send(p.subscribe(1, ("out", 1)))
        self.assertEqual(late.words(1), ["suback 1 01"])
        wait_until(lambda: not late.has_ended() and late.heard, "the retained message")
        self.publish(self.follower, "in/a", "7")
        wait_until(lambda: not late.has_ended() and b"14" in payloads(late.heard), "what the rule makes of it")
        self.check_osc(self.follower)

    def check_osc(self, member: Member) -> None:
        """Checks that an OSC client hears what another one sets."""
        place = ("127.0.0.1", port_of(member, "OSC"))
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        with first, second:
            first.settimeout(0.5)

            def is_heard() -> bool:
                first.sendto(encode_message(OscMessage("/first", (1,))), place)
                second.sendto(encode_message(OscMessage("/seen", (1,))), place)
                try:
                    packet = decode_osc(first.recv(65_536))
                except TimeoutError:
                    return False
                return isinstance(packet, OscMessage) and packet.address == "/seen"

            wait_until(is_heard, "a value over OSC")

    def test_what_was_acknowledged_is_there_after_the_decider_was_killed(self) -> None:
        """Messages with QoS 1 go on, and none is lost; what was not acknowledged is sent again, as clients do."""
        watcher = self.thing(self.follower, "watcher")
        watcher.send(p.subscribe(1, ("flood/#", 1)))
        watcher.words(1)
        acknowledged = 0
        while acknowledged < 400:
            near = self.thing(self.follower, "near")
            sent = range(acknowledged + 1, 401)
            near.send(*(p.publish(f"flood/{n % 7}", str(n), qos=1, id=n, retain=n % 2 == 0) for n in sent))
            if not acknowledged:
                self.decider.kill()
            wait_until(lambda near=near, sent=sent: near.has_ended() or len(near.heard) == len(sent), "the answers")  # type: ignore[misc]
            self.assertEqual([p.said(each) for each in near.heard], [f"puback {n}" for n in sent][: len(near.heard)])
            acknowledged += len(near.heard)
        heard: dict[bytes, None] = {}
        while len(heard) < 400:
            (packet,) = watcher.until(1)
            heard.update(dict.fromkeys(payloads([packet])))
            watcher.send(*(p.acknowledge(0x40, number) for number in p.packet_ids(packet)))
        self.assertEqual(list(heard), [b"%d" % number for number in range(1, 401)])


class AccountsTests(SynchronousTestCase):
    """Two relays with MQTT and accounts."""

    def test_clients_sign_in_at_any_relay_until_it_ends_at_another_one(self) -> None:
        """With a token that was issued just now, or with name and password."""
        folder = Path(self.mktemp()).absolute()
        options = ("--app-config", "none", "--web-root", "none", "--mqtt-port", "0", "--mqtt-namespace", "/")
        cluster = Cluster(folder, relays=0, options=options)
        self.addCleanup(cluster.close)
        relays = [Relay(folder, name, cluster) for name in ("r1", "r2")]
        cluster.members += relays
        cluster.start()
        first, second = relays
        answer = first.api.call("register", {"username": "ann", "password": PASSWORD})
        self.assertEqual(answer.status, 200)
        things = [
            joined(second, "token", password=answer.body["token"]),
            *(joined(relay, relay.name, user="ann", password=PASSWORD) for relay in relays),
        ]
        for number, thing in enumerate(things):
            self.addCleanup(thing.close)
            thing.send(p.publish(f"by/{number}", "1", qos=1, id=1, retain=True), p.subscribe(2, (f"by/{number}", 1)))
            expected = ["puback 1", "suback 2 01", f"publish by/{number} 1 qos 1 retain"]
            self.assertEqual(thing.words(3), expected)
        end = second.api.call("password", {"old": PASSWORD, "new": "another horse"}, answer.body["token"])
        self.assertEqual(end.status, 200)
        for thing in things[1:]:
            wait_until(thing.has_ended, "the end of a connection")
