"""Tests of clasp_relay.http.journal_api: history for the operator's tools."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.tickets import Tickets
from clasp_relay.core.history import memory
from clasp_relay.core.history.reading import NEWEST, POSITION
from clasp_relay.http import journal_api
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import load_openapi
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import PATHS, JournalApi
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.messages import Publish, Set
from tests.access.test_permissions import AuthWorld
from tests.core.world import START_US, value
from tests.http.memory_site import Answer, MemorySite

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "history": [{"path": "/a/**", "signals": ["param", "event"]}],
    "snapshot_visibility": [{"path": "/a/hidden", "visible": False}],
}


class JournalApiTests(SynchronousTestCase):
    """Requests; the memory site has the API at /auth."""

    def setUp(self) -> None:
        """A relay with history, and some of it."""
        self.begin(POLICY)
        self.owner = self.world.join("owner")
        self.owner.send(Publish("/a/e", value=value({"n": 1})))
        self.owner.send(Set("/a/p", value(b"x")))
        self.owner.send(Set("/a/hidden", value(2)))
        self.owner.send(Set("/b", value(3)))
        self.owner.send(Publish("/a/e"))

    def begin(self, policy: dict[str, Any]) -> None:
        """Begins anew."""
        self.world = AuthWorld(policy)
        self.sessions = ApiSessions(self.world.relay)
        self.addCleanup(self.sessions.close)
        journal = JournalApi(self.world.relay, self.sessions)
        addresses = ClientAddresses(())
        clock = self.world.clock.clock
        gate = ClaspFactory(self.world.relay, TurnWriter(clock), clock)
        streams = StreamApi(self.world.relay, gate, Tickets(clock.seconds, token_hex))
        self.site = MemorySite(
            make_params_resource(self.sessions, streams, origins=Origins(None), addresses=addresses, journal=journal)
        )

    def ask(self, path: str, who: str = "admin", method: str = "GET") -> Answer:
        """Makes one request."""
        self.site.clock.advance(0)
        return self.site.request(method, f"/auth/journal/{path}", None, bearer=who or None)

    def seqs(self, path: str) -> list[int]:
        """Returns the seqs of an answer."""
        answer = self.ask(path)
        self.assertEqual(answer.status, 200, answer.json)
        return [entry["seq"] for entry in answer.json]

    def test_entry_has_all_that_the_rust_relay_tells(self) -> None:
        """Values as everywhere in this API."""
        event, param, _, nothing = self.ask("query").json
        expected = {
            "seq": 1,
            "timestamp": START_US,
            "author": "owner",
            "address": "/a/e",
            "signal_type": "event",
            "value": {"n": 1},
            "revision": None,
            "msg_type": 32,
        }
        self.assertEqual(event, expected)
        expected |= {"seq": 2, "timestamp": START_US + 1, "address": "/a/p", "signal_type": "param"}
        self.assertEqual(param, expected | {"value": {"$bytes": "eA=="}, "revision": 1, "msg_type": 33})
        self.assertEqual((nothing["seq"], nothing["value"]), (5, None))
        schema = load_openapi()["components"]["schemas"]["Entry"]
        self.assertEqual(set(schema["properties"]), set(event))

    def test_query_narrows(self) -> None:
        """By pattern, type, time, position and count; administrators see everything."""
        for query, seqs in (
            ("", [1, 2, 3, 5]),
            ("?pattern=/a/e", [1, 5]),
            ("?types=param", [2, 3]),
            ("?types=param,event", [1, 2, 3, 5]),
            ("?limit=2", [1, 2]),
            (f"?from={START_US + 1}&to={START_US + 2}", [2, 3]),
            (f"?from={POSITION | 2}", [3, 5]),
            (f"?from={POSITION | 1}&to={POSITION | 3}", [2]),
            (f"?from={NEWEST}&limit=2", [3, 5]),
            (f"?from={NEWEST}&pattern=/c", []),
        ):
            with self.subTest(query=query):
                self.assertEqual(self.seqs(f"query{query}"), seqs)

    def test_since_goes_on_behind_an_entry(self) -> None:
        """From the beginning without one."""
        self.assertEqual(self.seqs("since"), [1, 2, 3, 5])
        self.assertEqual(self.seqs("since?seq=2&limit=1"), [3])
        self.assertEqual(self.seqs("since?seq=5"), [])

    def test_latest_is_the_last_change(self) -> None:
        """Whether it is kept or not."""
        self.owner.send(Set("/b", value(4)))
        self.assertEqual(self.ask("latest").json, {"seq": 6})

    def test_snapshot_is_what_is_set(self) -> None:
        """As entries that have no seq."""
        protocol, transport = self.site.connect()
        protocol.dataReceived(
            b"GET /auth/journal/snapshot?pattern=/b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\n\r\n"
        )
        self.site.clock.advance(0)
        self.world.turn()
        self.assertIn(b'"seq": 0', transport.value())
        self.assertIn(b'"address": "/b"', transport.value())
        self.assertIn(b'"value": 3', transport.value())

    def test_long_answers_are_read_in_pages(self) -> None:
        """And end where they are large; what is read is bounded, too."""
        self.patch(memory, "PAGE_ROWS", 1)
        self.patch(self.world.clock, "call_later", lambda _s, call: call())
        self.assertEqual(self.seqs("query"), [1, 2, 3, 5])
        self.assertEqual(self.seqs(f"query?from={NEWEST}&limit=3"), [2, 3, 5])
        self.patch(journal_api, "MAX_ANSWER_BYTES", 150)
        self.assertEqual(self.seqs("query"), [1])
        self.patch(journal_api, "MAX_READ_BYTES", 100)
        self.patch(journal_api, "MAX_ANSWER_BYTES", 1_000)
        self.assertEqual(self.seqs("query"), [1, 2])

    def test_it_is_for_administrators(self) -> None:
        """401 without a valid token, 403 with another one."""
        for path in PATHS:
            with self.subTest(path=path):
                statuses = [self.ask(path, who).status for who in ("", "nonsense", "owner")]
                self.assertEqual(statuses, [401, 401, 403])

    def test_bad_query_is_told(self) -> None:
        """In a sentence."""
        for query, said in (
            ("query?limit=x", "limit is no whole number from 0 to 10000"),
            ("query?limit=10001", "limit is no whole number from 0 to 10000"),
            ("query?from=-1", f"from is no whole number from 0 to {NEWEST}"),
            ("query?to=1.5", f"to is no whole number from 0 to {NEWEST}"),
            ("query?types=params", "types: 'params' is none of param, event, stream, gesture, timeline"),
            ("query?pattern=a", "the pattern does not start with '/'"),
            ("query?pattern=%FF", "the query is not UTF-8"),
            (f"since?seq={POSITION}", f"seq is no whole number from 0 to {POSITION - 1}"),
        ):
            with self.subTest(query=query):
                answer = self.ask(query)
                self.assertEqual((answer.status, set(answer.json)), (400, {"error"}))
                self.assertIn(said.partition(" ")[2], answer.json["error"])

    def test_unknown_paths_and_methods_are_refused(self) -> None:
        """As everywhere."""
        self.assertEqual([self.ask(path).status for path in ("", "else", "query/x")], [404, 404, 404])
        self.assertEqual(self.ask("query", method="POST").status, 405)
        self.assertEqual(self.ask("latest", method="HEAD").body, b"")

    def test_relay_without_history_says_so(self) -> None:
        """501; 503 where it cannot be read."""
        reader = self.world.relay.replays.reader  # type: ignore[union-attr]
        self.patch(reader, "read", lambda _asked, done: done(None))
        self.assertEqual(self.ask("query").status, 503)
        self.patch(reader, "settle", lambda done: done(None))
        self.assertEqual([self.ask(path).status for path in ("query", "latest")], [503, 503])
        self.begin({"scopes": ["read:/**"]})
        answer = self.ask("latest")
        self.assertEqual((answer.status, answer.json), (501, {"error": "this relay keeps no history"}))
