"""The same verdicts at every door: one table of who may do what, under the chat policy and a studio's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.policy_choice import load_policy
from clasp_relay.access.secret_files import admin_record
from clasp_relay.access.tickets import Tickets
from clasp_relay.access.tokens import TokenRecord, TokenTable, digest_of
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.mqtt import Broker, MqttConnection, MqttOptions
from clasp_relay.doors.osc import OscClients, OscDatagrams, OscOptions
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.doors.tcp import TcpConnection, wire_bytes
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Hello, Message, Publish, Set, Subscribe
from clasp_relay.wire.mqtt.packets import V5
from clasp_relay.wire.osc.packets import OscMessage, encode_message
from clasp_relay.wire.values import encode_value
from tests.access.stack import START_S
from tests.doors import mqtt_packets as p
from tests.doors.site import Site
from tests.http.memory_site import Answer, MemorySite, parse_answer

STUDIO = {
    "scopes": ["read:/studio/public/**", "read:/studio/desk/{userId}/**", "write:/studio/**"],
    "anonymous": {"scopes": ["read:/studio/public/**", "write:/studio/free/**", "write:/studio/lamp/**"]},
    "write_rules": [
        {
            "path": "/studio/lamp/{lamp}",
            "checks": [{"type": "state_not_null", "lookup": "/studio/operator/{session}"}],
            "message": "Only operators switch lamps.",
        },
        {
            "path": "/studio/desk/{desk}/**",
            "checks": [{"type": "segment_equals_session", "segment": "desk"}],
            "message": "This is somebody else's desk.",
        },
    ],
    "snapshot_visibility": [{"path": "/studio/public/hidden/**", "visible": False}],
}

STUDIO_STATE = {"/studio/operator/ann": True}
CHAT_STATE = {
    "/chat/room/r/meta": {"creatorId": "ann", "name": "R", "isPublic": True},
    "/chat/room/r/bans/bob": {"by": "ann"},
    "/chat/room/d/meta": {"creatorId": "ann", "name": "D", "dmUsers": ["ann", "carol"]},
    "/chat/room/locked/meta": {"creatorId": "ann", "name": "L", "isPublic": True, "passwordHash": "hash"},
}
CHAT_PRESENT = {"ann": "r", "carol": "r"}
"""``r`` is an open room with Ann, who made it, and Carol; Bob is banned. ``d`` is for Ann and Carol alone, and
``locked`` has a password."""


class Row(NamedTuple):
    """Somebody who writes, says (publishes) or hears something at an address; no name: without a token."""

    user: str
    does: str
    address: str
    value: Any
    is_allowed: bool


STUDIO_ROWS = [
    Row("ann", "write", "/studio/lamp/1", True, True),
    Row("bob", "write", "/studio/lamp/1", True, False),
    Row("bob", "write", "/studio/desk/bob/fader", 0.5, True),
    Row("bob", "write", "/studio/desk/ann/fader", 0.5, False),
    Row("bob", "write", "/elsewhere", 1, False),
    Row("bob", "write", "/studio/free", "text", True),
    Row("", "write", "/studio/free/x", 1, True),
    Row("", "write", "/studio/lamp/1", True, False),
    Row("", "write", "/studio/desk/ann/x", 1, False),
    Row("", "hear", "/studio/public/x", 1, True),
    Row("", "hear", "/studio/desk/ann/x", 1, False),
    Row("ann", "hear", "/studio/public/x", 1, True),
    Row("ann", "hear", "/studio/public/hidden/x", 1, False),
    Row("ann", "hear", "/studio/desk/ann/x", 1, True),
    Row("ann", "hear", "/studio/desk/bob/x", 1, False),
]
CHAT_ROWS = [
    Row("ann", "write", "/chat/user/ann/signingKey", "key", True),
    Row("bob", "write", "/chat/user/ann/signingKey", "key", False),
    Row("ann", "write", "/studio/lamp", 1, False),
    Row("ann", "hear", "/chat/user/ann/signingKey", "key", True),
    Row("bob", "hear", "/chat/user/ann/signingKey", "key", True),
    Row("bob", "hear", "/chat/user/ann/settings", "secret", False),
    Row("ann", "hear", "/chat/user/ann/settings", "mine", True),
    Row("", "write", "/chat/user/ann/settings", "x", False),
    Row("", "hear", "/chat/user/ann/signingKey", "key", False),
    # A room's settings and powers.
    Row("carol", "write", "/chat/room/r/meta", {"creatorId": "carol", "name": "Mine"}, False),
    Row("ann", "write", "/chat/room/r/admin/carol", {"by": "ann"}, True),
    Row("carol", "write", "/chat/room/r/admin/carol", {"by": "ann"}, False),
    Row("ann", "write", "/chat/room/r/bans/dave", {"by": "ann"}, True),
    Row("carol", "write", "/chat/room/r/bans/dave", {"by": "carol"}, False),
    Row("dave", "hear", "/chat/room/r/meta", {"creatorId": "ann", "name": "Other", "isPublic": True}, True),
    # Who comes in.
    Row("dave", "write", "/chat/room/r/presence/dave", {"name": "Dave"}, True),
    Row("bob", "write", "/chat/room/r/presence/bob", {"name": "Bob"}, False),
    Row("dave", "write", "/chat/room/r/presence/carol", {"name": "Carol"}, False),
    Row("dave", "write", "/chat/room/d/presence/dave", {"name": "Dave"}, False),
    Row("carol", "write", "/chat/room/locked/presence/carol", {"name": "Carol"}, False),
    Row("ann", "write", "/chat/room/locked/presence/ann", {"name": "Ann"}, True),
    # What those inside do.
    Row("carol", "write", "/chat/room/r/typing/carol", {"isTyping": True}, True),
    Row("carol", "write", "/chat/room/r/typing/ann", {"isTyping": True}, False),
    Row("bob", "write", "/chat/room/r/typing/bob", {"isTyping": True}, False),
    Row("dave", "write", "/chat/room/r/typing/dave", {"isTyping": True}, False),
    Row("carol", "write", "/chat/room/d/typing/carol", {"isTyping": True}, True),
    Row("dave", "write", "/chat/room/d/typing/dave", {"isTyping": True}, False),
    Row("dave", "write", "/chat/room/locked/typing/dave", {"isTyping": True}, False),
    Row("carol", "write", "/chat/room/r/reactions/m/x/carol", 1, True),
    Row("bob", "write", "/chat/room/r/reactions/m/x/bob", 1, False),
    Row("carol", "write", "/chat/room/d/reactions/m/x/carol", 1, True),
    Row("dave", "write", "/chat/room/d/reactions/m/x/dave", 1, False),
    Row("dave", "write", "/chat/room/locked/reactions/m/x/dave", 1, False),
    Row("carol", "write", "/chat/room/r/anything/else", 1, False),
    Row("carol", "say", "/chat/room/r/messages", {"userId": "carol", "text": "hello"}, True),
    Row("carol", "say", "/chat/room/r/messages", {"userId": "ann", "text": "hello"}, False),
    Row("bob", "say", "/chat/room/r/messages", {"userId": "bob", "text": "hello"}, False),
    Row("dave", "say", "/chat/room/r/messages", {"userId": "dave", "text": "hello"}, False),
    Row("", "say", "/chat/room/r/messages", {"text": "hello"}, False),
    # Who sees it.
    Row("dave", "hear", "/chat/room/r/typing/carol", True, True),
    Row("carol", "hear", "/chat/room/r/reactions/m/x/ann", 1, True),
    Row("dave", "hear", "/chat/room/r/reactions/m/x/ann", 1, False),
    Row("bob", "hear", "/chat/room/r/reactions/m/x/ann", 1, False),
    Row("carol", "hear", "/chat/room/d/typing/ann", True, True),
    Row("dave", "hear", "/chat/room/d/typing/ann", True, False),
    # Between two people, and the registry.
    Row("carol", "write", "/chat/requests/ann/carol", {"fromId": "carol", "type": "request"}, True),
    Row("carol", "write", "/chat/requests/ann/dave", {"fromId": "dave", "type": "request"}, False),
    Row("carol", "write", "/chat/requests/ann/carol", {"fromId": "ann", "type": "request"}, False),
    Row("carol", "write", "/chat/requests/ann/carol/x", 1, False),
    Row("ann", "hear", "/chat/requests/ann/carol", "text", True),
    Row("dave", "hear", "/chat/requests/ann/carol", "text", False),
    Row("dave", "write", "/chat/registry/rooms/r", {"name": "R"}, False),
    Row("ann", "hear", "/chat/registry/ns-meta/a/__auth", "hash", False),
]


class World:
    """A relay with accounts in memory, an administrator who sets what is there, and who is in which room."""

    def __init__(self, policy: Policy, state: dict[str, Any], present: Mapping[str, str]) -> None:
        tokens = TokenTable(Clock(), lambda: START_S)
        for name in ("ann", "bob", "carol", "dave"):
            tokens.add(TokenRecord(digest_of(name), name, name, False, "policy", START_S, None))
        tokens.add(admin_record("admin", START_S))
        self.site = Site(permissions=TokenPermissions(tokens, policy, lambda: START_S * 1_000_000))
        self._admin = self.site.clasp("admin")
        for address, value in state.items():
            self.put(address, value)
        for name, room in present.items():
            address = f"/chat/room/{room}/presence/{name}"
            self.site.say(self.site.clasp(name), Set(address, encode_value({"name": name})))
            assert self.has_written(name, address), address

    def put(self, address: str, value: Any) -> None:
        """Sets something as the administrator, for whom no rule holds."""
        self.site.say(self._admin, Set(address, encode_value(value)))
        assert self.is_set(address, value), address

    def listen(self) -> None:
        """Has the administrator hear of everything."""
        self.site.say(self._admin, Subscribe(1, "/**"))
        self._admin.clear()

    def is_heard(self, address: str) -> bool:
        """Says whether something came from an address."""
        self._admin.turn()
        return address.encode() in bytes(self._admin.pipe.taken)

    def has_written(self, user: str, address: str) -> bool:
        """Says whether what is at an address is by somebody; who has no token has a name that begins alike."""
        param = self.site.relay.params.get(address)
        return param is not None and param.subject.startswith(user or "clasp.anon.")

    def is_set(self, address: str, value: Any) -> bool:
        """Says whether a value is there."""
        param = self.site.relay.params.get(address)
        return param is not None and param.value == encode_value(value)


class WebSocketUser:
    """Somebody with CLASP over WebSocket."""

    def __init__(self, world: World, user: str) -> None:
        self._world = world
        self._client = world.site.clasp(user)

    def write(self, address: str, value: Any) -> None:
        """Sets a value."""
        self._world.site.say(self._client, Set(address, encode_value(value)))

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self._world.site.say(self._client, Publish(address, value=encode_value(value)))

    def subscribe(self, address: str) -> None:
        """Asks to hear of an address."""
        self._world.site.say(self._client, Subscribe(1, address))
        self._client.clear()

    def heard(self) -> bytes:
        """Returns what came."""
        self._client.turn()
        return bytes(self._client.pipe.taken)


class TcpUser:
    """Somebody with CLASP over TCP."""

    def __init__(self, world: World, user: str) -> None:
        counts, gate = DoorCounts("tcp"), world.site.gate
        self._client = world.site.connect(StreamFactory(gate, counts, lambda: TcpConnection(gate, counts)))
        self._say(Hello(1, 0, user, user))

    def _say(self, message: Message) -> None:
        self._client.send(wire_bytes(encode_frame(encode(message))))

    def write(self, address: str, value: Any) -> None:
        """Sets a value."""
        self._say(Set(address, encode_value(value)))

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self._say(Publish(address, value=encode_value(value)))

    def subscribe(self, address: str) -> None:
        """Asks to hear of an address."""
        self._say(Subscribe(1, address))
        self._client.heard()

    def heard(self) -> bytes:
        """Returns what came."""
        return self._client.heard()


class MqttUser:
    """Somebody with MQTT; the token is the password."""

    def __init__(self, world: World, user: str) -> None:
        site = world.site
        broker = Broker(site.relay, site.gate, MqttOptions(namespace="/"), lambda _host, _why: None)
        self._client = site.connect(StreamFactory(site.gate, broker.counts, lambda: MqttConnection(broker)))
        self._client.send(p.connect(user, V5, password=user or None))

    def write(self, address: str, value: Any) -> None:
        """Sets a value."""
        payload = value if isinstance(value, str) else json.dumps(value)
        self._client.send(p.publish(address[1:], payload, V5, qos=1, id=1, retain=True))

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self._client.send(p.publish(address[1:], json.dumps(value), V5, qos=1, id=1))

    def subscribe(self, address: str) -> None:
        """Asks to hear of an address."""
        self._client.send(p.subscribe(1, (address[1:], 1), version=V5))
        self._client.heard()

    def heard(self) -> bytes:
        """Returns what came."""
        return self._client.heard()


class OscUser:
    """Somebody with OSC; the token is the door's."""

    def __init__(self, world: World, user: str) -> None:
        self._site = world.site
        options = OscOptions(namespace="/", allows=lambda _host: True, token=user, rate=0)
        clients = OscClients(self._site.relay, self._site.gate, options, DoorCounts("osc"), lambda _host, _why: None)
        self._port = OscDatagrams(clients, self._site.reactor)
        self._packets: list[bytes] = []
        port: Any = self._port
        port.transport = self

    def write_packet(self, packet: bytes) -> None:
        """Sends a packet."""
        self._port.datagramReceived(packet, ("127.0.0.1", 9000))
        self._site.turn()

    def write(self, address: Any, value: Any) -> None:
        """Sets a value; as the port's transport: takes a packet."""
        if isinstance(address, bytes):
            self._packets.append(address)
        else:
            self.write_packet(encode_message(OscMessage(address, (value,))))

    def subscribe(self, address: str) -> None:
        """Asks to hear of an address."""
        self.write_packet(encode_message(OscMessage("/clasp/subscribe", (address,))))

    def heard(self) -> bytes:
        """Returns what came."""
        self._site.turn()
        return b"".join(self._packets)


class HttpUser:
    """Somebody with HTTP; what they hear is what they get when they ask."""

    def __init__(self, world: World, user: str) -> None:
        site = world.site
        self._site = site
        self._sessions = ApiSessions(site.relay)
        streams = StreamApi(site.relay, site.gate, Tickets(site.reactor.seconds, lambda _size: ""))
        journal = JournalApi(site.relay, self._sessions)
        addresses = ClientAddresses(())
        resource = make_params_resource(
            self._sessions, streams, origins=Origins(None), addresses=addresses, journal=journal
        )
        self._api = MemorySite(resource)
        self._user = user or None
        self._address = ""

    def write(self, address: str, value: Any) -> None:
        """Sets a value."""
        self._ask("PUT", f"params{address}", value)

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self._ask("POST", f"events{address}", value)

    def subscribe(self, address: str) -> None:
        """Notes which address is asked for."""
        self._address = address

    def heard(self) -> bytes:
        """Returns what is there."""
        got = self._ask("GET", f"params?pattern={self._address}")
        return got.body if got.status == 200 else b""

    def _ask(self, method: str, path: str, body: object = None) -> Answer:
        sent = self._api.start(method, f"/auth/{path}", body, bearer=self._user)
        self._site.turn()
        self._sessions.close()
        return parse_answer(sent.value())


DOORS: tuple[type[WebSocketUser | TcpUser | MqttUser | OscUser | HttpUser], ...] = (
    WebSocketUser,
    TcpUser,
    MqttUser,
    OscUser,
    HttpUser,
)


class DoorRulesTests(SynchronousTestCase):
    def check(self, policy: Policy, state: dict[str, Any], present: Mapping[str, str], rows: list[Row]) -> None:
        """Asks each row at each door, of a relay of its own."""
        for door in DOORS:
            for row in rows:
                if door is OscUser and isinstance(row.value, dict):
                    continue  # OSC has no maps
                with self.subTest(door=door.__name__, row=row):
                    self.check_row(World(policy, state, present), door, row)

    def check_row(self, world: World, door: type[Any], row: Row) -> None:
        """Asks one row at one door."""
        user = door(world, row.user)
        if row.does == "write":
            user.write(row.address, row.value)
            self.assertEqual(world.has_written(row.user, row.address), row.is_allowed)
        elif row.does == "say":
            world.listen()
            user.publish(row.address, row.value)
            self.assertEqual(world.is_heard(row.address), row.is_allowed)
        else:
            user.subscribe(row.address)
            world.put(row.address, row.value)
            self.assertEqual(row.address[1:].encode() in user.heard(), row.is_allowed)
        self.assertEqual(world.site.faults, [])

    def test_studio_policy_holds_at_every_door(self) -> None:
        """Scopes, write rules that look at the state, and what is hidden."""
        path = Path(self.mktemp())
        path.write_text(json.dumps(STUDIO), "utf-8")
        self.check(Policy.load(str(path)), STUDIO_STATE, {}, STUDIO_ROWS)

    def test_chat_policy_holds_at_every_door(self) -> None:
        """For what each of them can say."""
        self.check(load_policy("chat"), CHAT_STATE, CHAT_PRESENT, CHAT_ROWS)
