"""Params, events and bundles over HTTP."""

from __future__ import annotations

from secrets import token_hex

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.tickets import Tickets
from clasp_relay.doors.door import RequestDoor
from clasp_relay.errors import ErrorCode
from clasp_relay.http import api_sessions, params_api
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import load_openapi
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.params_api import METHODS, STATUS, make_params_resource
from clasp_relay.http.site import MAX_BODY_BYTES
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.json_values import parse_json
from clasp_relay.wire.messages import Set, Subscribe
from tests.access.test_permissions import AuthWorld
from tests.core.world import heard, value
from tests.http.memory_site import Answer, MemorySite, parse_answer

POLICY = {
    "scopes": ["read:/**", "write:/a/**"],
    "write_rules": [
        {"path": "/a/map", "checks": [{"type": "value_is_map"}], "message": "A map, please."},
        {"path": "/a/by/{name}", "stamp": {"field": "by"}},
    ],
    "snapshot_visibility": [{"path": "/a/own/{id}", "visible": "owner", "owner_segment": "id"}],
}


class ParamsApiTests(SynchronousTestCase):
    """Requests of somebody with a token; the memory site has the API at /auth."""

    def setUp(self) -> None:
        """A relay, and somebody who listens by WebSocket."""
        self.world = AuthWorld(POLICY)
        self.sessions = ApiSessions(self.world.relay)
        self.addCleanup(self.sessions.close)
        clock = self.world.clock.clock
        gate = ClaspFactory(self.world.relay, TurnWriter(clock), clock)
        streams = StreamApi(self.world.relay, gate, Tickets(clock.seconds, token_hex))
        journal = JournalApi(self.world.relay, self.sessions)
        addresses = ClientAddresses(())
        self.told: list[tuple[str, str, str]] = []
        self.door = RequestDoor("http", "HTTP", lambda *told: self.told.append(told))
        resource = make_params_resource(
            self.sessions, streams, origins=Origins(None), addresses=addresses, journal=journal, door=self.door
        )
        self.site = MemorySite(resource)
        self.reader = self.world.join("reader")
        self.reader.ask(Subscribe(1, "/a/**"))

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, who: str = "owner"
    ) -> Answer:
        """Makes one request."""
        return self.site.request(method, f"/auth/{path}", body, bearer=who or None, headers=headers)

    def test_param_is_put_got_and_deleted(self) -> None:
        """With its revision as ETag; HEAD has no body."""
        put = self.ask("PUT", "params/a/x", {"n": 0.5})
        self.assertEqual((put.status, put.json, put.headers["etag"]), (200, {"revision": 1}, '"1"'))
        got = self.ask("GET", "params/a/x")
        self.assertEqual((got.status, got.headers["etag"], got.json["value"]), (200, '"1"', {"n": 0.5}))
        self.assertEqual(set(got.json), {"address", "value", "revision", "timestamp", "writer"})
        head = self.ask("HEAD", "params/a/x")
        self.assertEqual((head.status, head.headers["etag"], head.body), (200, '"1"', b""))
        gone = self.ask("DELETE", "params/a/x")
        self.assertEqual((gone.status, gone.body), (204, b""))
        self.assertEqual(self.ask("GET", "params/a/x").status, 404)
        self.ask("PUT", "params/a/x", 1)
        self.assertEqual(self.ask("PUT", "params/a/x", b"null").status, 204)
        self.assertEqual(heard(self.reader.hear()), [("/a/x", {"n": 0.5}), ("/a/x", None), ("/a/x", 1), ("/a/x", None)])

    def test_requests_are_counted_and_refused_ones_are_told(self) -> None:
        """Not that nothing is there, or another revision: that is an answer."""
        self.ask("PUT", "params/a/x", 1)
        self.ask("GET", "params/a/nothing")
        self.ask("PUT", "params/a/x", 2, {"If-Match": '"7"'})
        self.assertEqual((self.door.counts.messages, self.door.counts.refused, self.told), (3, 0, []))
        self.assertEqual(self.sessions.clients, 1)
        self.ask("PUT", "params/elsewhere", 1)
        self.ask("PUT", "params/a/map", 1)
        self.ask("POST", "bundle", b"{")
        self.assertEqual((self.door.counts.messages, self.door.counts.refused), (6, 3))
        self.assertEqual(self.told[1], ("HTTP", "192.0.2.1", "A map, please."))

    def test_if_match_writes_only_against_that_revision(self) -> None:
        """0 creates only; anything that is no ETag of ours is 400."""
        cases = [('"0"', 200), ('"0"', 412), ('"7"', 412), ('"1"', 200), ("1", 400), ('W/"1"', 400), ("*", 400)]
        for tag, status in cases:
            with self.subTest(tag):
                self.assertEqual(self.ask("PUT", "params/a/x", 1, {"If-Match": tag}).status, status)
        self.assertEqual(self.ask("DELETE", "params/a/x", None, {"If-Match": '"1"'}).status, 412)
        self.assertEqual(self.ask("DELETE", "params/a/x", None, {"If-Match": '"2"'}).status, 204)

    def test_bytes_come_as_they_are_and_a_ttl_with_the_address(self) -> None:
        """The life time ends the param as after a SET."""
        stream = {"Content-Type": "application/octet-stream"}
        self.assertEqual(self.ask("PUT", "params/a/x?ttl=5", b"\x00\xff", stream).status, 200)
        self.assertEqual(self.ask("GET", "params/a/x").json["value"], {"$bytes": "AP8="})
        self.world.advance(6)
        self.assertEqual(self.ask("GET", "params/a/x").status, 404)
        for ttl in ("", "-1", "x", "9999999999"):
            self.assertEqual(self.ask("PUT", f"params/a/x?ttl={ttl}", 1).status, 400, ttl)

    def test_address_is_the_path_each_segment_encoded(self) -> None:
        """A slash in a segment is refused, and what is no address."""
        self.assertEqual(self.ask("PUT", "params/a/%C3%A9%20x", 1).status, 200)
        self.assertIsNotNone(self.world.relay.params.get("/a/é x"))
        for path in ("params/a%2Fb", "params/a/%FF", "params/a//b", "params/a/", "params/a/*"):
            with self.subTest(path):
                answer = self.ask("PUT", path, 1)
                self.assertEqual((answer.status, set(answer.json)), (400, {"error"}))

    def test_rights_are_those_of_every_session(self) -> None:
        """Scopes, rules, stamps and visibility; a wrong token and none are 401."""
        self.assertEqual(self.ask("PUT", "params/b", 1).status, 403)
        refused = self.ask("PUT", "params/a/map", 1)
        self.assertEqual((refused.status, refused.json), (403, {"error": "A map, please."}))
        self.ask("PUT", "params/a/by/x", {"v": 1})
        self.assertEqual(self.ask("GET", "params/a/by/x").json["value"], {"v": 1, "by": "owner"})
        self.ask("PUT", "params/a/own/owner", 1)
        statuses = [self.ask("GET", "params/a/own/owner", who=who).status for who in ("owner", "reader")]
        self.assertEqual(statuses, [200, 404])
        for who in ("nonsense", ""):
            answer = self.ask("GET", "params/a/x", who=who)
            self.assertEqual((answer.status, answer.headers["www-authenticate"]), (401, "Bearer"))

    def test_locked_address_is_409(self) -> None:
        """Another session holds it."""
        self.world.join("other").ask(Set("/a/x", value(1), lock=True))
        self.assertEqual(self.ask("PUT", "params/a/x", 2).status, 409)

    def test_params_are_listed_in_parts_in_the_order_of_their_addresses(self) -> None:
        """Those that match and that the reader may see; the last part says that it is the last."""
        admin = self.world.join("admin")
        for number in range(25):
            admin.send(Set(f"/a/n{number:02}", value(number)))
        admin.send(Set("/a/own/other", value(1)))
        self.patch(api_sessions, "LOOKED_AT_ONCE", 4)
        found: list[str] = []
        after: str | None = ""
        for _ in range(3):
            part = self.list(f"pattern=/a/**&limit=10&after={after}").json
            found += [param["address"] for param in part["params"]]
            after = part["next"]
        self.assertEqual((found, after), ([f"/a/n{number:02}" for number in range(25)], None))
        whole = self.list("").json
        self.assertEqual((len(whole["params"]), whole["next"]), (25, None))
        self.assertEqual(whole["params"][0]["value"], 0)
        self.assertEqual(len(self.list("pattern=/a/own/*", who="other").json["params"]), 1)
        self.assertEqual(self.list("pattern=/a/n03").json["params"][0]["address"], "/a/n03")
        self.patch(self.world.relay.params, "find", lambda _pattern: None)
        self.assertEqual(len(self.list("pattern=/a/n1*").json["params"]), 10)

    def test_list_is_bounded_in_bytes(self) -> None:
        """At least one param is in each part, however large."""
        admin = self.world.join("admin")
        for name in "xyz":
            admin.send(Set(f"/a/{name}", value(name * 1000)))
        self.patch(api_sessions, "MAX_LIST_BYTES", 1000)
        self.assertEqual(self.list("pattern=/a/*").json["next"], "/a/x")

    def test_list_that_is_not_allowed_or_malformed_is_refused(self) -> None:
        """A scope must cover the pattern, as for a SUBSCRIBE."""
        self.world.add("nobody", scopes_name="own")
        for query, who, status in (
            ("pattern=/a/**", "nobody", 403),
            ("", "nonsense", 401),
            ("", "", 401),
            ("pattern=a", "owner", 400),
            ("pattern=%FF", "owner", 400),
            ("limit=0", "owner", 400),
            ("limit=10001", "owner", 400),
            ("limit=x", "owner", 400),
        ):
            with self.subTest(query=query, who=who):
                self.assertEqual(self.list(query, who=who).status, status)
        self.assertEqual(self.ask("PUT", "params", 1).status, 405)

    def list(self, query: str, who: str = "owner") -> Answer:
        """Asks for a list, and lets as many turns pass as it takes."""
        protocol, transport = self.site.connect()
        head = f"GET /auth/params?{query} HTTP/1.1\r\nHost: a\r\n"
        if who:
            head += f"Authorization: Bearer {who}\r\n"
        protocol.dataReceived(f"{head}\r\n".encode())
        self.site.clock.advance(0)
        for _ in range(60):
            self.world.clock.clock.advance(0)
        return parse_answer(transport.value())

    def test_event_is_accepted_and_told(self) -> None:
        """With a value or without one."""
        for body, told in (({"k": 1}, {"k": 1}), (None, None)):
            answer = self.ask("POST", "events/a/cue", body)
            self.assertEqual((answer.status, answer.json), (202, {}))
            self.assertEqual(heard(self.reader.hear()), [("/a/cue", told)])
        self.assertEqual(self.ask("POST", "events/b", 1).status, 403)

    def test_bundle_is_applied_whole_or_not_at_all(self) -> None:
        """The answer has the last revision."""
        members = [{"set": "/a/x", "value": 1}, {"publish": "/a/cue", "value": {"$bytes": "eA=="}}]
        answer = self.ask("POST", "bundle", {"messages": members})
        self.assertEqual((answer.status, answer.json), (200, {"revision": 1}))
        self.assertEqual(heard(self.reader.hear()), [("/a/x", 1), ("/a/cue", b"x")])
        refused = self.ask("POST", "bundle", {"messages": [*members, {"set": "/b", "value": 1}]})
        self.assertEqual((refused.status, heard(self.reader.hear())), (403, []))
        bodies: list[object] = [
            [],
            {},
            {"messages": []},
            {"messages": [1]},
            {"messages": members, "more": 1},
            {"messages": [{"set": "/a/x", "publish": "/a/x"}]},
            {"messages": [{"set": 1}]},
            {"messages": [{"set": "a"}]},
            {"messages": members, "at": "soon"},
            {"messages": members, "at": True},
            {"messages": members, "at": -1},
            {"messages": members, "at": 1 << 63},
        ]
        for body in bodies:
            with self.subTest(str(body)):
                self.assertEqual(self.ask("POST", "bundle", body).status, 400)

    def test_bundle_with_a_time_is_applied_then(self) -> None:
        """Accepted at once; a time that has passed is now, and one that is more than an hour ahead is refused."""
        now_us = self.world.clock.now_us()
        members = [{"set": "/a/x", "value": 1}]
        later = self.ask("POST", "bundle", {"messages": members, "at": now_us + 2_000_000})
        self.assertEqual((later.status, later.json, heard(self.reader.hear())), (200, {"revision": None}, []))
        self.world.advance(2.5)
        self.assertEqual(heard(self.reader.hear()), [("/a/x", 1)])
        self.assertEqual(self.ask("POST", "bundle", {"messages": members, "at": 1}).json, {"revision": 2})
        far = self.ask("POST", "bundle", {"messages": members, "at": now_us + 4_000_000_000})
        self.assertEqual(far.status, 400)

    def test_bad_requests_are_refused_in_sentences(self) -> None:
        """And change nothing."""
        self.assertEqual(self.ask("PUT", "params/a/x", b"{").status, 400)
        self.assertEqual(self.ask("PUT", "params/a/x", {"__proto__": 1}).status, 400)
        for method, path in (("PUT", "params/a/x"), ("POST", "bundle"), ("POST", "events/a/x")):
            long = self.ask(method, path, b"[" + b"1," * 6_000 + b"1]")
            self.assertEqual((long.status, "send it in parts" in long.json["error"]), (400, True))
        self.assertEqual(self.ask("PUT", "params/a/x", b" " * (MAX_BODY_BYTES + 1)).status, 413)
        for path in ("", "entities", "bundle/x", "params%FF/x"):
            self.assertEqual(self.ask("GET", path).json, {"error": "There is nothing here."})
        wrong = self.ask("POST", "params/a/x", 1)
        self.assertEqual((wrong.status, wrong.headers["allow"]), (405, "DELETE, GET, HEAD, OPTIONS, PUT"))
        options = self.ask("OPTIONS", "events/a/x")
        self.assertEqual((options.status, options.headers["allow"]), (204, "OPTIONS, POST"))
        self.assertEqual(heard(self.reader.hear()), [])

    def test_message_limit_is_429_with_a_time_to_wait(self) -> None:
        """In whole seconds."""
        self.sessions.close()
        self.world.relay.options = self.world.relay.options.__class__(message_rate=(1, 2))
        statuses = [self.ask("GET", "params/a/x").status for _ in range(3)]
        self.assertEqual(statuses, [404, 404, 429])
        self.assertEqual(self.ask("GET", "params/a/x").headers["retry-after"], "1")

    def test_what_the_limit_refuses_is_not_read(self) -> None:
        """Long JSON costs what it takes to parse, before it is parsed; bytes and long texts cost no more than short."""
        read: list[bytes] = []

        def parse(data: bytes, max_marks: int = 0) -> object:
            read.append(data)
            return parse_json(data, max_marks)

        self.patch(params_api, "parse_json", parse)
        self.sessions.close()
        self.world.relay.options = self.world.relay.options.__class__(message_rate=(1, 20))
        numbers, text = b"[" + b"1," * 3_900 + b"1]", b'"' + b"a" * 9_000 + b'"'
        members = b'{"messages": [' + b",".join([b'{"publish": "/a/x"}'] * 300) + b"]}"
        asked = [self.ask("PUT", "params/a/x", each) for each in (numbers, numbers, text)]
        self.assertEqual([each.status for each in asked], [200, 429, 200])
        refused = self.ask("POST", "bundle", members)
        self.assertEqual((refused.status, refused.headers["retry-after"]), (429, "1"))
        stream = {"Content-Type": "application/octet-stream"}
        self.assertEqual(self.ask("PUT", "params/a/x", numbers, stream).status, 200)
        self.assertEqual(read, [numbers, text])
        self.assertEqual(self.world.relay.counts.limited, 2)

    def test_what_a_stranger_sends_is_not_read(self) -> None:
        """Where it would take long: neither without a token nor with a wrong one."""
        self.patch(params_api, "parse_json", lambda *_: 1 / 0)
        for who in ("", "nobody"):
            refused = self.ask("PUT", "params/a/x", b"[" + b"1," * 3_900 + b"1]", who=who)
            self.assertEqual((refused.status, refused.json), (401, self.ask("GET", "params/a/x", who=who).json))

    def test_list_costs_what_its_pattern_does(self) -> None:
        """As a QUERY of it."""
        self.sessions.close()
        self.world.relay.options = self.world.relay.options.__class__(message_rate=(1, 8))
        statuses = [self.ask("GET", "params?pattern=" + "/*" * 32).status for _ in range(2)]
        self.assertEqual(statuses, [200, 429])

    def test_document_has_every_path_and_no_other(self) -> None:
        """With its methods; HEAD goes without saying."""
        described = {
            (path.split("/")[2], method.upper())
            for path, methods in load_openapi()["paths"].items()
            for method in methods
            if path.startswith("/api/") and method != "parameters" and path != "/api/params"
            if not path.startswith("/api/admin/")
        }
        self.assertEqual(described, {(kind, each) for kind, all_ in METHODS.items() for each in all_ if each != "HEAD"})

    def test_every_error_of_a_message_has_a_status(self) -> None:
        """But those that no request can cause, and faults of ours."""
        others = {
            ErrorCode.FRAME,
            ErrorCode.VERSION,
            ErrorCode.NOT_FOUND,
            ErrorCode.INTERNAL,
        }
        self.assertEqual(set(ErrorCode) - set(STATUS), others)

    def test_answer_to_a_client_that_has_gone_is_dropped(self) -> None:
        """Nobody is told of it, and nothing breaks."""
        protocol, _transport = self.site.connect()
        protocol.dataReceived(b"GET /auth/params/a/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer owner\r\n\r\n")
        protocol.connectionLost(None)
        self.site.clock.advance(0)
        self.assertEqual(self.flushLoggedErrors(), [])
