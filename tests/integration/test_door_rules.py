"""The same verdicts at every door: tables of who may do what, under the chat policy and a studio's own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.policy_choice import load_policy
from clasp_relay.access.secret_files import admin_record
from clasp_relay.access.tickets import Tickets
from clasp_relay.access.tokens import TokenRecord, TokenTable, digest_of
from clasp_relay.core.records import Change
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.event_stream import Asked, EventStream, codec_of
from clasp_relay.doors.mqtt.broker import Broker
from clasp_relay.doors.mqtt.door import MqttConnection
from clasp_relay.doors.mqtt.publishing import MqttOptions
from clasp_relay.doors.osc import OscClients, OscDatagrams, OscOptions
from clasp_relay.doors.osc_source import RESYNC_INTERVAL_S
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.doors.tcp import TcpConnection, wire_bytes
from clasp_relay.errors import RequestError
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Bundle, Hello, Message, Publish, Set, Subscribe
from clasp_relay.wire.mqtt.packets import V5
from clasp_relay.wire.osc.packets import OscMessage, encode_message
from clasp_relay.wire.values import encode_value
from tests.access.policy.chat_cases import EVERYBODY, SIGHTS, WRITES, Sight, scene
from tests.access.stack import START_S
from tests.doors import mqtt_packets as p
from tests.doors.site import DoorClient, Site
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


class Scene:
    """A relay with the rooms of the chat's own tables, everybody of whom has a token.

    Args:
        more: what else is set, by nobody in particular.
    """

    def __init__(self, more: Mapping[str, Any]) -> None:
        document = json.loads((resources.files("clasp_relay.access.policies") / "chat.json").read_text("utf-8"))
        del document["message_rate"]
        policy, rooms = Policy.from_document(document), scene("chat")
        for address, value in more.items():
            if address not in rooms.params:
                rooms.put(address, value, "")
        policy.session_ids = rooms
        tokens = TokenTable(Clock(), lambda: START_S)
        for name in EVERYBODY.split():
            tokens.add(TokenRecord(digest_of(name), name, name, False, "policy", START_S, None))
        tokens.add(admin_record("admin", START_S))
        self.site = Site(permissions=TokenPermissions(tokens, policy, lambda: START_S * 1_000_000))
        for param in rooms.params.values():
            self.site.relay.committer.restore(Change(param))
        self.refused = 0
        """How often somebody was refused something."""

    def judge_only(self, case: SynchronousTestCase) -> None:
        """Has nothing change from now on, whatever is allowed; what is refused is counted."""
        for name in ("write", "write_all", "publish"):
            case.patch(self.site.relay.committer, name, lambda *_: None)
        self.count_refusals(case)

    def count_refusals(self, case: SynchronousTestCase) -> None:
        """Has refusals counted."""
        relay = self.site.relay
        refuse = relay.refuse

        def count(session: Session, error: RequestError) -> None:
            self.refused += 1
            refuse(session, error)

        case.patch(relay, "refuse", count)

    def allows(self, act: Callable[[], None]) -> bool:
        """Tells whether what somebody does is allowed."""
        counts, refused = self.site.relay.counts.received, self.refused
        received = counts[Set] + counts[Publish] + counts[Bundle]
        act()
        assert counts[Set] + counts[Publish] + counts[Bundle] == received + 1, (act, "did not reach the relay")
        return self.refused == refused


class WebSocketUser:
    """Somebody with CLASP over WebSocket."""

    def __init__(self, world: World | Scene, user: str) -> None:
        self._world = world
        self._client = world.site.clasp(user)
        self._subscriptions = 0

    def write(self, address: str, value: Any) -> None:
        """Sets a value."""
        self._world.site.say(self._client, Set(address, encode_value(value)))

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self.say(Publish(address, value=encode_value(value)))

    def say(self, message: Message) -> None:
        """Sends a message."""
        self._world.site.say(self._client, message)

    def subscribe(self, address: str) -> bytes:
        """Asks to hear of an address, and returns what is there."""
        self._subscriptions += 1
        self._world.site.say(self._client, Subscribe(self._subscriptions, address))
        heard = self.heard()
        self._client.clear()
        return heard

    def heard(self) -> bytes:
        """Returns what came."""
        self._client.turn()
        return bytes(self._client.pipe.taken)


class TcpUser:
    """Somebody with CLASP over TCP."""

    def __init__(self, world: World | Scene, user: str) -> None:
        counts, gate = DoorCounts("tcp"), world.site.gate
        self._subscriptions = 0
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

    def subscribe(self, address: str) -> bytes:
        """Asks to hear of an address, and returns what is there."""
        self._subscriptions += 1
        self._say(Subscribe(self._subscriptions, address))
        return self._client.heard()

    def heard(self) -> bytes:
        """Returns what came."""
        return self._client.heard()


class MqttUser:
    """Somebody with MQTT; the token is the password."""

    def __init__(self, world: World | Scene, user: str) -> None:
        site = world.site
        broker = Broker(site.relay, site.gate, MqttOptions(namespace="/"), lambda _host, _why: None)
        self._client = site.connect(StreamFactory(site.gate, broker.counts, lambda: MqttConnection(broker)))
        self._client.send(p.connect(user, V5, password=user or None))

    def write(self, address: str, value: Any) -> None:
        """Sets a value."""
        payload = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        self._client.send(p.publish(address[1:], payload, V5, qos=1, id=1, retain=True))

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self._client.send(p.publish(address[1:], json.dumps(value), V5, qos=1, id=1))

    def subscribe(self, address: str) -> bytes:
        """Asks to hear of an address, and returns what is there."""
        topic = address[1:].replace("**", "#").replace("*", "+")
        self._client.send(p.subscribe(1, (topic, 0), version=V5))
        return self._client.heard()

    def heard(self) -> bytes:
        """Returns what came."""
        return self._client.heard()


class OscUser:
    """Somebody with OSC; the token is the door's."""

    def __init__(self, world: World | Scene, user: str) -> None:
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

    def publish(self, address: str, _value: Any) -> None:
        """Says something, for which OSC has no value."""
        self.write_packet(encode_message(OscMessage(address, ())))

    def subscribe(self, address: str) -> bytes:
        """Asks to hear of an address, and returns what is there."""
        self.write_packet(encode_message(OscMessage("/clasp/subscribe", (address,))))
        self.write_packet(encode_message(OscMessage("/clasp/resync", ())))
        for _ in range(20):
            self._site.reactor.advance(RESYNC_INTERVAL_S)
        heard = self.heard()
        self._packets.clear()
        return heard

    def heard(self) -> bytes:
        """Returns what came."""
        self._site.turn()
        return b"".join(self._packets)


class HttpUser:
    """Somebody with HTTP; what they hear is what they get when they ask."""

    def __init__(self, world: World | Scene, user: str) -> None:
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
        self._ask("DELETE" if value is None else "PUT", f"params{quote(address)}", value)

    def publish(self, address: str, value: Any) -> None:
        """Says something."""
        self._ask("POST", f"events{quote(address)}", value)

    def subscribe(self, address: str) -> bytes:
        """Notes which address is asked for, and returns what is there."""
        self._address = address
        return self.heard()

    def heard(self) -> bytes:
        """Returns what is there."""
        got = self._ask("GET", f"params?pattern={quote(self._address, '/*')}")
        return got.body if got.status == 200 else b""

    def _ask(self, method: str, path: str, body: object = None) -> Answer:
        sent = self._api.start(method, f"/auth/{path}", body, bearer=self._user)
        self._site.turn()
        self._sessions.close()
        return parse_answer(sent.value())


class StreamUser:
    """Somebody with event streams, one for each pattern."""

    def __init__(self, world: World | Scene, user: str) -> None:
        self._site, self._user = world.site, user
        self._codec = codec_of(world.site.relay)
        self._clients: list[DoorClient] = []

    def subscribe(self, address: str) -> bytes:
        """Asks to hear of an address, and returns what is there."""
        site, asked = self._site, Asked(self._user, address, b"", str.encode)
        make = lambda: EventStream(site.gate, DoorCounts("sse"), site.relay, self._codec, asked)  # noqa: E731
        self._clients.append(site.connect(StreamFactory(site.gate, DoorCounts("sse"), make)))
        return self._clients[-1].heard()

    def heard(self) -> bytes:
        """Returns what came."""
        return b"".join(client.heard() for client in self._clients)


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


Heard: TypeAlias = "dict[tuple[str, str], bytes]"
"""What somebody was told, by who it is and the pattern."""


def as_(user: str, value: Any) -> Any:
    """Puts a user where a row says ``{me}``."""
    return json.loads(json.dumps(value).replace("{me}", user))


class ChatTableTests(SynchronousTestCase):
    """Every row of the chat policy's own tables, for everybody in them."""

    def allowed(self, door: type[Any], values: Callable[[Any], Any] = lambda value: value) -> dict[int, set[str]]:
        """Returns who may do what each row says, at a door.

        Args:
            door: which.
            values: what is sent instead of a value.
        """
        world = Scene({})
        world.judge_only(self)
        allowed: dict[int, set[str]] = defaultdict(set)
        for name in EVERYBODY.split():
            user = door(world, name)
            for number, row in enumerate(WRITES):
                address, value = as_(name, row.address), values(as_(name, row.value))
                if world.allows(partial(user.publish if row.is_publish else user.write, address, value)):
                    allowed[number].add(name)
        self.assertEqual(world.site.faults, [])
        return allowed

    def test_everybody_writes_what_the_table_says(self) -> None:
        """By CLASP over WebSocket and TCP, MQTT, and HTTP."""
        for door in (WebSocketUser, TcpUser, MqttUser, HttpUser):
            allowed = self.allowed(door)
            for number, row in enumerate(WRITES):
                with self.subTest(door=door.__name__, row=row):
                    self.assertEqual(allowed[number], set(row.who.split()))

    def test_osc_has_the_verdicts_of_websocket(self) -> None:
        """For values that OSC can say: it has no maps, and no null that deletes."""
        by_osc = self.allowed(OscUser, lambda _value: 1)
        world = Scene({})
        world.judge_only(self)
        for name in EVERYBODY.split():
            user = WebSocketUser(world, name)
            for number, row in enumerate(WRITES):
                address = as_(name, row.address)
                message = Publish(address) if row.is_publish else Set(address, encode_value(1))
                is_allowed = world.allows(partial(user.say, message))
                with self.subTest(row=row, user=name):
                    self.assertEqual(name in by_osc[number], is_allowed)
        self.assertGreater(sum(map(len, by_osc.values())), 20)

    def test_everybody_sees_what_the_table_says(self) -> None:
        """What is there, and what happens; OSC what is no map. A list over HTTP is what is there."""
        for door in (WebSocketUser, TcpUser, MqttUser, OscUser, HttpUser, StreamUser):
            # A client of OSC has one pattern, and a stream is for one.
            has_one = door in (OscUser, StreamUser)
            sights = [sight for sight in SIGHTS if sight.pattern != "hello" and not (has_one and sight.pattern is None)]
            world = Scene({sight.address: "text" for sight in sights})
            world.count_refusals(self)
            there, happens = self.seen(world, door, sights)
            for sight in sights:
                told = sight.address[1:].encode()
                param = world.site.relay.params.get(sight.address)
                assert param is not None, sight
                for heard in (there, happens):
                    if not heard or (door is OscUser and heard is there and param.value != encode_value("text")):
                        continue
                    who = {name for name in EVERYBODY.split() if told in heard[name, sight.pattern or sight.address]}
                    with self.subTest(door=door.__name__, sight=sight, happens=heard is happens):
                        self.assertEqual(who, set(sight.who.split()), (door, sight, heard is happens))
            self.assertEqual(world.site.faults, [])

    def seen(self, world: Scene, door: type[Any], sights: list[Sight]) -> tuple[Heard, Heard]:
        """Returns what everybody is told by each pattern: what is there, and what happens at each address."""
        there: Heard = {}
        users: dict[tuple[str, str], Any] = {}
        for name in EVERYBODY.split():
            literal = door(world, name)
            for sight in sights:
                key = name, sight.pattern or sight.address
                if key not in users:
                    users[key] = literal if sight.pattern is None else door(world, name)
                    refused = world.refused
                    told = users[key].subscribe(key[1])
                    # An ERROR names what it is about.
                    there[key] = told if world.refused == refused else b""
        if door is HttpUser:
            return there, {}
        admin = world.site.clasp("admin")
        for address in dict.fromkeys(sight.address for sight in sights):
            world.site.say(admin, Publish(address))
        heard = {user: user.heard() for user in dict.fromkeys(users.values())}
        return there, {key: heard[user] for key, user in users.items()}
