"""The console's API to test with: over a relay in memory, and checked against the OpenAPI document."""

from __future__ import annotations

import json
import time
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.rooms import Reports, Rooms
from clasp_relay.access.tickets import Tickets
from clasp_relay.doors.door import DoorCounts
from clasp_relay.http.admin_api import Route, console_routes, make_admin_resource
from clasp_relay.http.admin_params import reading_routes, writing_routes
from clasp_relay.http.admin_people import admission_routes, audit_routes, people_routes
from clasp_relay.http.admin_rooms import room_routes
from clasp_relay.http.admin_state import Watched, relay_routes, session_routes
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import load_openapi
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.ring import LogRing
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from tests.access.console_world import ConsoleWorld, MemoryFiles
from tests.core.world import START_US
from tests.http.memory_site import Answer, MemorySite, parse_answer

OPENAPI = load_openapi()


class Counted:
    """A door that counts."""

    def __init__(self) -> None:
        self.counts = (DoorCounts("mqtt", clients=1, messages=7), DoorCounts("osc"))


class AdminSite:
    """The API over one relay.

    Args:
        policy: the policy's document, or the name of a packaged one.
        registry: the metrics.
    """

    def __init__(self, policy: Any, registry: CollectorRegistry | None = None) -> None:
        self.files = MemoryFiles()
        self.world = world = ConsoleWorld(policy, self.files)
        relay = world.relay
        self.sessions = ApiSessions(relay)
        clock = world.world.clock.clock
        self.gate = ClaspFactory(relay, TurnWriter(clock), clock)
        self.ring = LogRing(LogLevels.parse("info"))
        streams = StreamApi(relay, self.gate, Tickets(time.time, world.stack.random_hex))
        journal = JournalApi(relay, self.sessions)

        def write(who: Any, address: str, message: Any) -> Any:
            return self.sessions.ask(who.token, address, message)

        def now_ms() -> int:
            return START_US // 1000

        rooms = Rooms(relay.params, world.search, relay.replays, world.audit, write, now_ms)
        reports = Reports(relay.params, world.search, world.audit, write, now_ms, relay.replays)
        watched = Watched(
            relay=relay,
            factory=self.gate,
            tokens=world.stack.tokens,
            sessions=self.sessions,
            streams=streams,
            journal=journal,
            search=world.search,
            audit=world.audit,
            policy=world.policy,
            registry=lambda: registry,
            doors=lambda: (Counted(),),
            ring=self.ring,
            name="Test",
            cluster=lambda: ("one", "follower"),
            now_s=world.stack.clock.seconds,
        )
        self.routes: list[Route] = [
            *console_routes(world.console, world.audit),
            *people_routes(world.people),
            *admission_routes(world.people, world.console, world.stack.accounts),
            *audit_routes(world.audit),
            *room_routes(rooms, reports),
            *relay_routes(watched, world.people, reports),
            *session_routes(watched),
            *reading_routes(watched),
            *writing_routes(watched),
        ]
        given: dict[str, Any] = {"origins": Origins(None), "addresses": ClientAddresses(())}
        admin = make_admin_resource(world.console, self.routes, **given)
        self.site = MemorySite(make_params_resource(self.sessions, streams, journal=journal, admin=admin, **given))
        self.token = world.sign_in()

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = "", headers: str = "") -> Answer:
        """Makes a request of the API, and lets the relay turn until it is answered.

        Args:
            method: of HTTP.
            path: below ``/api/admin``.
            body: bytes as they are, or what becomes JSON.
            token: what is presented; the administrator's where it is empty, None for nothing.
            headers: more lines.
        """
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = f"{method} /auth/admin/{path} HTTP/1.1\r\nHost: relay\r\nContent-Length: {len(data)}\r\n{headers}"
        if token is not None:
            lines += f"Authorization: Bearer {token or self.token}\r\n"
        protocol, transport = self.site.connect()
        protocol.dataReceived(f"{lines}\r\n".encode() + data)
        for _ in range(50):
            self.site.clock.advance(0)
            self.world.world.turn()
            if transport.value() or transport.disconnecting:
                break
        return parse_answer(transport.value())

    def close(self) -> None:
        """Closes all."""
        self.sessions.close()
        self.world.close()


class AdminCase(SynchronousTestCase):
    """Tests with one relay under the packaged policy of the chat."""

    policy: Any = "chat"

    def setUp(self) -> None:
        """Makes the API."""
        self.api = AdminSite(self.policy)
        self.addCleanup(self.api.close)
        self.world = self.api.world

    def get(self, path: str, **options: Any) -> Any:
        """Returns the JSON of an answer, which must be as the OpenAPI document says."""
        return self.call("GET", path, **options)

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """Returns the JSON of an answer with status 200, which must be as the OpenAPI document says."""
        answer = self.api.ask(method, path, body, **options)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["cache-control"], "no-store")
        operation = operation_of(method, path.partition("?")[0])
        response = resolved(operation["responses"]["200"])
        problems = list(differences(answer.json, response["content"]["application/json"]["schema"], path))
        self.assertEqual(problems, [])
        return answer.json

    def refused(self, status: int, method: str, path: str, body: object = None, **options: Any) -> str:
        """Returns the sentence of an answer that refuses, with a status that the OpenAPI document has."""
        answer = self.api.ask(method, path, body, **options)
        self.assertEqual((answer.status, list(answer.json)), (status, ["error"]), answer.body)
        self.assertIn(str(status), operation_of(method, path.partition("?")[0])["responses"])
        sentence: str = answer.json["error"]
        return sentence


def operation_of(method: str, path: str) -> dict[str, Any]:
    """Returns what the OpenAPI document says about a call."""
    segments = path.split("/")
    for template, operations in OPENAPI["paths"].items():
        wanted = template.removeprefix("/api/admin/").split("/")
        if template.startswith("/api/admin/") and len(wanted) == len(segments) and method.lower() in operations:
            pairs = zip(wanted, segments, strict=True)
            if all(each == segment or each.startswith("{") for each, segment in pairs):
                operation: dict[str, Any] = operations[method.lower()]
                return operation
    raise AssertionError(f"{method} {path} is not described")


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Follows a reference."""
    found: Any = schema
    while "$ref" in found:
        target: Any = OPENAPI
        for word in found["$ref"][2:].split("/"):
            target = target[word]
        found = target
    result: dict[str, Any] = found
    return result


_KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def differences(value: Any, schema: dict[str, Any], where: str) -> list[str]:
    """Returns how a value differs from a schema; keys that no schema names are a difference, too."""
    schema = merged(schema)
    if value is None:
        return [] if schema.get("nullable") else [f"{where} is null"]
    kind = schema.get("type")
    if kind is None:
        return []
    if not isinstance(value, _KINDS[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        return [f"{where} is no {kind}: {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where} is none of {schema['enum']}: {value!r}"]
    if kind == "array":
        return [
            each
            for number, item in enumerate(value)
            for each in differences(item, schema["items"], f"{where}[{number}]")
        ]
    if kind != "object":
        return []
    properties = schema.get("properties", {})
    found = [f"{where} lacks {name}" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        if name in properties:
            found += differences(item, properties[name], f"{where}.{name}")
        elif "additionalProperties" not in schema:
            found.append(f"{where} has {name}")
    return found


def merged(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with what it refers to, and what it takes together, put into one."""
    schema = resolved(schema)
    parts = [merged(each) for each in schema.get("allOf", ())]
    if not parts:
        return schema
    whole: dict[str, Any] = {"properties": {}, "required": []}
    for part in parts:
        whole["properties"] |= part.get("properties", {})
        whole["required"] += part.get("required", ())
        whole |= {name: part[name] for name in ("type", "nullable") if name in part}
    return whole
