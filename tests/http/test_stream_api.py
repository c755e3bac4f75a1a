"""The HTTP side of event streams: who gets one, with which headers, and what is refused."""

from __future__ import annotations

import gc
import json
import weakref
from itertools import count
from typing import Any

from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses, parse_networks
from clasp_relay.access.tickets import Given, Tickets
from clasp_relay.http import stream_api
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.json_answers import NotFound
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.site import make_site
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.messages import Set
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.doors.site import DoorClient, Site
from tests.doors.test_event_stream import events_of
from tests.http.memory_site import Answer, parse_answer

POLICY = {"scopes": ["read:/a/**", "write:/**"], "anonymous": {"scopes": ["read:/a/b/**"]}}
STREAM = "GET /api/stream?pattern=/a/**"


class StreamApiTests(SynchronousTestCase):
    """Requests over a transport with Twisted's producer rules."""

    def setUp(self) -> None:
        """A relay with a policy, and somebody who writes."""
        self.world = AuthWorld(POLICY)
        self.site = Site(NetLimits(max_sessions_per_address=2), permissions=self.world.relay.permissions)
        numbers = count()
        self.tickets = Tickets(self.site.reactor.seconds, lambda size: f"{next(numbers):0{2 * size}x}")
        proxies = parse_networks("10.0.0.0/8")
        addresses = ClientAddresses(proxies)
        self.gate = ClaspFactory(
            self.site.relay,
            self.site.writer,
            self.site.reactor,
            self.site.gate.limits,
            client_address=lambda peer, forwarded: addresses.of(peer, [forwarded] if forwarded else []),
            is_proxy=lambda peer: peer.startswith("10."),
        )
        self.told: list[tuple[str, str, str]] = []
        self.streams = StreamApi(self.site.relay, self.gate, self.tickets, lambda *told: self.told.append(told))
        sessions = ApiSessions(self.site.relay)
        self.addCleanup(sessions.close)
        origins = Origins(["https://desk.example"])
        root = NotFound()
        journal = JournalApi(self.site.relay, sessions)
        api = make_params_resource(sessions, self.streams, origins=origins, addresses=addresses, journal=journal)
        root.putChild(b"api", api)
        self.web: Any = make_site(root, self.site.reactor)
        self.web.startFactory()
        self.writer = self.site.clasp("owner")
        self.site.say(self.writer, Set("/a/x", encode_value(1)))

    def ask(self, line: str, host: str = "192.0.2.1", factory: Any = None, **headers: str) -> DoorClient:
        """Makes a request."""
        client = self.site.connect(factory or self.web, host)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        client.send(f"{line} HTTP/1.1\r\nHost: relay.example\r\n{lines}\r\n".encode())
        return client

    def refused(self, line: str, **headers: str) -> Answer:
        """Returns the answer to a request that is refused, on a connection that goes on."""
        client = self.ask(line, **headers)
        answer = parse_answer(client.heard())
        self.assertEqual(set(answer.json), {"error"})
        self.assertEqual(client.protocol, self.web.connections and client.pipe.protocol)
        return answer

    def test_token_in_the_header_opens_a_stream(self) -> None:
        """The response says that it is one, and that it ends with the connection."""
        client = self.ask(STREAM, Authorization="Bearer owner", Origin="https://desk.example")
        answer = parse_answer(client.heard())
        self.assertEqual(
            (answer.status, answer.headers),
            (
                200,
                {
                    "content-type": "text/event-stream",
                    "cache-control": "no-store",
                    "x-content-type-options": "nosniff",
                    "x-accel-buffering": "no",
                    "connection": "close",
                    "vary": "Origin",
                    "access-control-allow-origin": "https://desk.example",
                    "access-control-expose-headers": "ETag, Content-Range, Retry-After",
                },
            ),
        )
        self.assertEqual([kind for kind, _ in events_of(answer.body)], ["set", "live"])
        self.site.say(self.writer, Set("/a/x", encode_value(2)))
        self.assertEqual(events_of(client.heard()), [("set", {"address": "/a/x", "value": 2, "revision": 2})])
        self.assertEqual((len(self.web.connections), self.streams.counts.clients), (0, 1))

    def test_stream_keeps_nothing_of_its_request(self) -> None:
        """Nor does a reference cycle, which the garbage collector might not look at any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        client = self.ask(STREAM, Authorization="Bearer owner")
        self.assertEqual(parse_answer(client.heard()).status, 200)
        there = weakref.ref(client.protocol)
        client.protocol = client.pipe.protocol
        self.assertIsNone(there())

    def test_id_that_a_reader_saw_last_is_taken_from_header_or_query(self) -> None:
        """What is no id is none."""
        asked: list[int | None] = []
        self.patch(stream_api, "_hand_over", lambda _request, stream: asked.append(stream._asked.last_id))
        for line, headers in (
            (STREAM, {"Last_Event_ID": "17"}),
            (f"{STREAM}&lastEventId=18", {}),
            (STREAM, {"Last_Event_ID": "x"}),
            (f"{STREAM}&lastEventId={'9' * 19}", {}),
            (STREAM, {}),
        ):
            self.ask(line, Authorization="Bearer owner", **headers)
        self.assertEqual(asked, [17, 18, None, None, None])

    def test_ticket_of_another_relay_is_waited_for(self) -> None:
        """It may be on its way; one that nobody gave out is refused after a second, and who is gone gets nothing."""
        self.streams.is_shared = True
        other = Tickets(self.site.reactor.seconds, lambda size: f"{99:0{2 * size}x}")
        given: list[Given] = []
        other.when_given = given.append
        ticket = other.issue("owner", "192.0.2.1")
        client, gone, wrong = (self.ask(f"{STREAM}&ticket={each}") for each in (ticket, ticket, "cpst_wrong"))
        gone.pipe.lose()
        self.pass_time(0.2)
        self.assertEqual((client.heard(), wrong.heard()), (b"", b""))
        self.tickets.learn(given[0])
        self.pass_time(0.1)
        self.assertEqual(parse_answer(client.heard()).status, 200)
        self.pass_time(0.9)
        self.assertEqual(parse_answer(wrong.heard()).status, 401)
        self.assertEqual((gone.heard(), self.streams.counts.clients), (b"", 1))

    def test_stream_that_waited_for_its_ticket_leaves_nothing_of_its_request(self) -> None:
        """Neither in the table of connections, nor in a reference cycle."""
        self.streams.is_shared = True
        other = Tickets(self.site.reactor.seconds, lambda size: f"{99:0{2 * size}x}")
        other.when_given = self.tickets.learn
        ticket = f"cpst_{99:032x}"
        client = self.ask(f"{STREAM}&ticket={ticket}")
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual((other.issue("owner", "192.0.2.1"), len(self.web.connections)), (ticket, 1))
        self.pass_time(0.1)
        self.assertEqual(parse_answer(client.heard()).status, 200)
        self.assertEqual((len(self.web.connections), self.web.connections._count_at), (0, {}))
        there = weakref.ref(client.protocol)
        client.protocol = client.pipe.protocol
        self.assertIsNone(there())

    def test_fault_behind_the_wait_is_answered(self) -> None:
        """As the relay's."""
        self.streams.is_shared = True

        def fails(*_: object) -> None:
            raise KeyError

        self.patch(self.streams, "open", fails)
        client = self.ask(f"{STREAM}&ticket=cpst_wrong")
        self.pass_time(1.2)
        self.assertEqual(parse_answer(client.heard()).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def pass_time(self, seconds: float) -> None:
        """Lets time pass in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.site.reactor.advance(0.05)
        self.site.turn()

    def test_ticket_opens_one_stream(self) -> None:
        """As the token that it stands for."""
        ticket = self.tickets.issue("owner", "192.0.2.1")
        opened = parse_answer(self.ask(f"{STREAM}&ticket={ticket}").heard())
        self.assertEqual([kind for kind, _ in events_of(opened.body)], ["set", "live"])
        again = self.refused(f"{STREAM}&ticket={ticket}")
        self.assertEqual(again.status, 401)
        self.assertIn("POST /auth/ticket", again.json["error"])

    def test_stream_over_tls_is_handed_over_too(self) -> None:
        """TLS stands between the socket and the protocol."""
        wrapped: Any = WrappingFactory(self.web)
        wrapped.protocol = ProtocolWrapper
        client = self.ask(STREAM, factory=wrapped, Authorization="Bearer owner")
        self.assertEqual(parse_answer(client.heard()).status, 200)
        self.site.say(self.writer, Set("/a/x", encode_value(2)))
        self.assertEqual(len(events_of(client.heard())), 1)

    def test_who_may_not_read_is_refused(self) -> None:
        """With the status and the sentence of every request; nothing is left of it."""
        for line, headers, status in (
            ("GET /api/stream?pattern=/**", {"Authorization": "Bearer owner"}, 403),
            (STREAM, {"Authorization": "Bearer nonsense"}, 401),
            (STREAM, {}, 403),
            ("GET /api/stream", {}, 400),
            ("GET /api/stream?pattern=a", {}, 400),
            ("GET /api/stream?pattern=%FF", {}, 400),
            ("GET /api/stream?pattern=/a&pattern=/b", {}, 400),
            ("POST /api/stream?pattern=/a", {}, 405),
            ("GET /api/stream/a?pattern=/a", {}, 404),
        ):
            with self.subTest(line=line, headers=headers):
                self.assertEqual(self.refused(line, **headers).status, status)
        self.assertEqual((len(self.site.relay.sessions), self.gate.sessions), (1, 0))
        self.assertEqual((self.streams.counts.messages, self.streams.counts.refused), (7, 7))
        self.assertEqual({told[:2] for told in self.told}, {("event streams", "192.0.2.1")})
        self.assertEqual(len(self.told), 7)

    def test_anonymous_scopes_open_a_stream_without_a_token(self) -> None:
        """Where the policy has any."""
        self.assertEqual(parse_answer(self.ask("GET /api/stream?pattern=/a/b/**").heard()).status, 200)

    def test_streams_count_for_their_address(self) -> None:
        """Behind a trusted proxy for the client's; one too many is 503, after the hand-over or before it."""
        bearer = {"Authorization": "Bearer owner"}
        for peer, headers in (("192.0.2.7", bearer), ("10.0.0.1", {**bearer, "X_Forwarded_For": "192.0.2.8"})):
            with self.subTest(peer):
                answers = [parse_answer(self.ask(STREAM, peer, **headers).heard()) for _ in range(3)]
                self.assertEqual([answer.status for answer in answers], [200, 200, 503])
                self.assertEqual(answers[2].headers["retry-after"], "5")
                self.assertIn("your address", json.loads(answers[2].body)["error"])
        self.gate.stop_accepting()
        late = self.refused(STREAM, Authorization="Bearer owner")
        self.assertEqual((late.status, late.headers["retry-after"]), (503, "5"))
