"""Accounts and policies in a cluster: the tables through a relay that follows, and people at different relays."""

from __future__ import annotations

import contextlib
import http.client
import json
import time

from clasp_relay.wire.messages import Bundle, Error, Get, Replay, Set, Subscribe
from tests.access.policy.chat_cases import WRITES
from tests.integration import test_access_clients, test_access_ways_out, test_chat_policy
from tests.integration.accounts import AccountsRelay, Person, event, put, told
from tests.integration.followed import FollowedTestCase
from tests.integration.process import PATIENCE_S, wait_until

ROOM = "/chat/room/r1"
ROOMY = ("--rate-limit", "0", "--admin-token", "admin.token")


class FollowedWriteTests(FollowedTestCase, test_chat_policy.WriteTests):
    """Who may write what: some of the table's rows, since what decides is the same code as in one relay."""

    test_everybody_writes_what_the_compatible_policy_says = None  # type: ignore[assignment]

    def test_everybody_writes_what_the_safe_policy_says(self) -> None:
        """And nobody else does, nor in a bundle."""
        self.check_writes("chat", WRITES[::6])


class FollowedSightTests(FollowedTestCase, test_chat_policy.SightTests):
    """Who sees what."""

    test_everybody_sees_what_the_compatible_policy_says = None  # type: ignore[assignment]


class FollowedFlowTests(FollowedTestCase, test_chat_policy.FlowTests):
    """What the original app does."""

    test_everything_works_under_the_compatible_policy = None  # type: ignore[assignment]


class FollowedWaysOutTests(FollowedTestCase, test_access_ways_out.WaysOutTests):
    """Each way by which a value leaves."""

    test_ack_and_error_tell_a_writer_nothing_it_may_not_see = None  # type: ignore[assignment]
    test_null_reaches_those_who_saw_what_it_ends = None  # type: ignore[assignment]
    test_peer_to_peer_signals_keep_to_the_rules_too = None  # type: ignore[assignment]


class FollowedJsClientTests(FollowedTestCase, test_access_clients.JsClientTests):
    """``@clasp-to/core``, unmodified."""

    test_client_is_told_why_it_is_not_let_in = None  # type: ignore[assignment]


class FollowedPythonClientTests(FollowedTestCase, test_access_clients.PythonClientTests):
    """``clasp-to``, unmodified."""

    test_client_is_told_why_it_is_not_let_in = None  # type: ignore[assignment]


class AcrossTests(FollowedTestCase):
    """People of one room at two relays, in one life of both."""

    def hears(self, person: Person, address: str, value: object) -> None:
        """Waits until somebody is told of something."""
        person.receive_until(lambda message: (address, value) in told([message]))

    def test_two_relays_are_one_chat(self) -> None:
        """Step by step: a room, presence, a message, a ban, a token that ends, a scheduled bundle, and a failover."""
        pair = self.start_pair("--app-config", "chat", *ROOMY)
        first, second = pair.relays
        tokens = {name: second.api.guest(name) for name in ("ann", "bob", "eve")}
        ann, bob = self.sign_in(first, tokens["ann"]), self.sign_in(second, tokens["bob"])
        ann.ask(put(f"{ROOM}/meta", {"isPublic": True}), put(f"{ROOM}/presence/ann", {"name": "Ann"}))
        for person in (ann, bob):
            person.ask(Subscribe(1, f"{ROOM}/messages"), Subscribe(2, f"{ROOM}/receipts/*"))
        self.assertEqual(bob.code(put(f"{ROOM}/presence/bob", {"name": "Bob"}), 1), 0)
        ann.ask(event(f"{ROOM}/messages", {"text": "hi"}))
        self.hears(bob, f"{ROOM}/messages", {"text": "hi", "userId": "ann"})

        self.check_ban(ann, bob)
        self.check_revoked(first, second, tokens["eve"])
        self.check_cleared(first, second)
        self.check_http(first, second, ann, tokens["ann"])
        self.check_failover(pair.decider, second, ann)

    def check_ban(self, ann: Person, bob: Person) -> None:
        """Nothing that Bob sends is let through behind his ban, and nothing is shown to him."""
        ann.send(put(f"{ROOM}/bans/bob", {"by": "ann"}), qos=1)
        for number in range(50):
            bob.send(event(f"{ROOM}/messages", {"n": number}))
        refused = bob.code(event(f"{ROOM}/messages", {"n": "last"}))
        self.assertEqual(refused, 403)
        ann.ask(put(f"{ROOM}/receipts/ann", {"n": 1}))
        self.assertEqual(told(bob.ask(Get(f"{ROOM}/receipts/ann"))), [(f"{ROOM}/receipts/ann", None)])
        self.assertNotIn((f"{ROOM}/messages", {"n": "last", "userId": "bob"}), told(ann.settle()))

    def check_revoked(self, first: AccountsRelay, second: AccountsRelay, token: str) -> None:
        """A token that is signed out at one relay ends its sessions at the other, and what they had scheduled."""
        eve = self.sign_in(second, token)
        address = "/chat/user/eve/settings"
        due_us = (time.time_ns() // 1000) + 3_000_000
        self.assertEqual(eve.code(Bundle((put(address, {"late": True}),), due_us), 1), 0)
        self.assertEqual(first.api.call("logout", None, token).status, 200)
        messages, closed = eve.end()
        (error,) = [each for each in messages if isinstance(each, Error)]
        self.assertEqual((error.error, closed.code), (302, 1008))
        time.sleep(max(0.0, due_us / 1e6 - time.time()) + 0.5)
        admin = self.admin(second)
        self.assertEqual(told(admin.ask(Get(address))), [(address, None)])
        admin.close()

    def check_cleared(self, first: AccountsRelay, second: AccountsRelay) -> None:
        """An administrator at the relay that follows deletes somebody: the decider ends what they have left.

        The history of each relay loses what they said.
        """
        zoe = self.sign_in(first, first.api.register("Zoe", user_id="zoe"))
        address = "/chat/user/zoe/profile"
        self.assertEqual(zoe.code(put(address, {"name": "Zoe"}), 1), 0)
        self.assertEqual(zoe.code(put(f"{ROOM}/presence/zoe", {"name": "Zoe"}), 1), 0)
        self.assertEqual(zoe.code(event(f"{ROOM}/messages", {"text": "bye"})), 0)
        admins = [self.admin(relay) for relay in (first, second)]
        self.assertEqual([self.said_by(admin, "zoe") for admin in admins], [1, 1])
        admins[1].ask(Subscribe(1, address))
        answer = self.console(second, "DELETE", "people/zoe?messages=erase")
        self.assertEqual((answer["params"], answer["messages"]), (2, 1))
        self.hears(admins[1], address, None)
        wait_until(lambda: not any(self.said_by(admin, "zoe") for admin in admins), "nothing is kept of her words")

    def said_by(self, reader: Person, user: str) -> int:
        """Returns how many messages of somebody a relay's history has."""
        found = told(reader.ask(Replay(f"{ROOM}/messages")))
        return sum(
            at == f"{ROOM}/messages" and isinstance(value, dict) and value["userId"] == user for at, value in found
        )

    def console(self, relay: AccountsRelay, method: str, path: str) -> dict[str, object]:
        """Makes a call of the console, with the administrator's token."""
        token = (self.folder / "admin.token").read_text("ascii").strip()
        status, body = self.http(relay, method, f"/api/admin/{path}", token)
        self.assertEqual(status, 200, body)
        answer: dict[str, object] = json.loads(body)
        return answer

    def http(self, relay: AccountsRelay, method: str, path: str, token: str, body: object = None) -> tuple[int, bytes]:
        """Makes a request of the HTTP API; returns status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", relay.auth_port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            return response.status, response.read()

    def check_http(self, first: AccountsRelay, second: AccountsRelay, ann: Person, token: str) -> None:
        """What is set over HTTP at one relay is read at the other; a ticket opens one stream, at any relay."""
        address = "/chat/user/ann/notes"
        self.assertEqual(self.http(second, "PUT", f"/api/params{address}", token, 7)[0], 200)
        self.assertIn((address, 7), told(ann.ask(Get(address))))
        self.assertEqual(json.loads(self.http(first, "GET", f"/api/params{address}", token)[1])["value"], 7)
        (found,) = json.loads(self.http(second, "GET", "/api/params?pattern=/chat/user/ann/notes", token)[1])["params"]
        self.assertEqual(found["value"], 7)
        ticket = second.api.call("ticket", None, token).body["ticket"]
        for expected in (200, 401):
            connection = http.client.HTTPConnection("127.0.0.1", first.auth_port, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                connection.request("GET", f"/api/stream?pattern={address}&ticket={ticket}")
                self.assertEqual(connection.getresponse().status, expected)

    def check_failover(self, decider: AccountsRelay, follower: AccountsRelay, ann: Person) -> None:
        """Rights hold at the next decider as well."""
        ann.close()
        kim = self.guest(follower, "kim")
        decider.kill()
        wait_until(lambda: "second decides from now on" in follower.log, "the other one decides")
        self.assertEqual(kim.code(put(f"{ROOM}/presence/kim", {"name": "Kim"}), 1), 0)
        self.assertEqual(kim.code(put("/chat/user/ann/profile", {"name": "Kim"}), 1), 301)
        self.assertEqual(kim.code(Set(f"{ROOM}/bans/ann", put("/", 1).value), 1), 403)
