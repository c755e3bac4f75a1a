"""Clients without an account: sessions without a token, device tokens, and who may get an account."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time

from clasp_relay.wire.messages import Error, Hello, Subscribe, Welcome
from tests.integration.accounts import PASSWORD, AccountsRelay, AccountsTestCase, Answer, Person, put, told
from tests.integration.process import PATIENCE_S, environment, wait_until
from tests.integration.raw import RawClient

STUDIO = {
    "scopes": ["read:/studio/**", "write:/studio/**"],
    "anonymous": {
        "scopes": ["read:/studio/light/**", "write:/studio/fader/*"],
        "message_rate": {"per_second": 5, "burst": 20},
    },
    "write_rules": [{"path": "/studio/fader/{name}", "stamp": {"field": "by"}, "checks": [{"type": "value_is_map"}]}],
}
"""A studio where everybody sees the lights and moves faders."""


class NoAccountCase(AccountsTestCase):
    """Runs relays under the studio's policy."""

    def wait_for_429(self, person: Person) -> None:
        """Reads on until the message limit is told; a PING would be over the limit, too."""
        messages = person.receive_until(lambda message: isinstance(message, Error))
        self.assertEqual([each.error for each in messages if isinstance(each, Error)], [429])

    def start_studio(self, *options: str) -> AccountsRelay:
        """Starts a relay on that policy."""
        (self.folder / "studio.json").write_text(json.dumps(STUDIO), "utf-8")
        return self.start_accounts("--app-config", "studio.json", *options)


class AnonymousTests(NoAccountCase):
    """A HELLO without a token, where the policy lets it in."""

    def test_session_without_a_token_reads_and_writes_within_its_scopes(self) -> None:
        """Its subject is in the log, rules hold for it, and its own message rate does."""
        relay = self.start_studio()
        self.assertIn("sessions without a token are let in; their scopes: read:/studio/light/**", relay.log)
        visitor, member = self.sign_in(relay, ""), self.guest(relay, "ann")
        subject = f"clasp.anon.{visitor.session}"
        self.assertEqual(visitor.code(put("/studio/light/1", 1), 1), 301)
        self.assertEqual(visitor.code(put("/studio/fader/1", 1), 1), 403)
        self.assertEqual(visitor.code(put("/studio/fader/1", {"v": 1}), 1), 0)
        shown = told(member.ask(Subscribe(1, "/studio/fader/**")))
        self.assertEqual(shown, [("/studio/fader/1", {"v": 1, "by": subject})])
        self.assertEqual(told(visitor.ask(Subscribe(1, "/studio/light/**"))), [])
        member.ask(put("/studio/light/1", 0.5))
        self.assertEqual(told(visitor.settle()), [("/studio/light/1", 0.5)])
        self.assertEqual(visitor.code(Subscribe(2, "/studio/**")), 301)
        visitor.send(*(put("/studio/fader/2", {"v": number}) for number in range(40)), qos=1)
        self.wait_for_429(visitor)
        self.assertIn(f"user {subject}", relay.log)

    def test_wrong_token_is_refused_and_no_reason_to_be_anonymous(self) -> None:
        """With 300 and a Close."""
        relay = self.start_studio()
        client = RawClient(relay.port)
        self.addCleanup(client.close)
        client.send(Hello(1, 0xF8, "test", "cpsk_" + 32 * "0"))
        messages, closed = client.end()
        self.assertEqual([getattr(message, "error", None) for message in messages], [300])
        self.assertEqual(closed.code, 1008)


class DeviceTokenTests(NoAccountCase):
    """Tokens that the operator makes beside a relay that runs."""

    def command(self, *arguments: str) -> str:
        """Runs a command as an operator does, and returns its stdout."""
        command = [sys.executable, "-m", "clasp_relay", *arguments, "--data-dir", "data"]
        result = subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.strip()

    def connects(self, relay: AccountsRelay, token: str) -> bool:
        """Tells whether a HELLO with that token is accepted."""
        client = RawClient(relay.port)
        client.send(Hello(1, 0xF8, "device", token))
        first = client.receive_any()
        client.close()
        return isinstance(first, Welcome)

    def test_token_is_good_within_a_second_and_its_sessions_end_with_it(self) -> None:
        """Its scopes are its own, the policy's rules hold, and it is still good after a restart."""
        relay = self.start_studio()
        scopes = "read:/studio/**,write:/studio/fader/*,write:/desk/**"
        token = self.command("token", "create", "--scopes", scopes, "--name", "Desk 1")
        made_s = time.monotonic()
        wait_until(lambda: self.connects(relay, token), "the token is good")
        self.assertLess(time.monotonic() - made_s, 1.5)
        desk = self.sign_in(relay, token)
        (listed,) = json.loads(self.command("token", "list", "--json"))
        self.assertEqual(desk.code(put("/desk/a", 1), 1), 0)
        self.assertEqual(desk.code(put("/studio/light/1", 1), 1), 301)
        self.assertEqual(desk.code(put("/studio/fader/1", 1), 1), 403)
        self.assertIn(f"user {listed['subject']} (Desk 1)", relay.log)
        self.assertEqual(relay.stop(), 0)
        relay = self.start_studio()
        desk = self.sign_in(relay, token)
        self.command("token", "revoke", listed["id"])
        messages, closed = desk.end()
        self.assertEqual([getattr(message, "error", None) for message in messages], [302])
        self.assertEqual(closed.code, 1008)
        self.assertFalse(self.connects(relay, token))
        self.assertNotIn(token, relay.log)

    def test_invite_opens_registration(self) -> None:
        """Once; without it 403, and guests are refused where the relay says so."""
        relay = self.start_studio("--registration", "invite", "--guests", "off", "--name", "Studio")
        config = relay.api.call("config", method="GET")
        told = {name: config.body[name] for name in ("registration", "guests", "name")}
        self.assertEqual(told, {"registration": "invite", "guests": False, "name": "Studio"})
        body = {"username": "Alice", "password": PASSWORD}
        self.assertEqual(relay.api.call("guest", {}).status, 403)
        self.assertEqual(relay.api.call("register", body).status, 403)
        invite = self.command("invite", "create")
        self.assertEqual(relay.api.call("register", {**body, "invite": invite}).status, 200)
        bob = relay.api.call("register", {**body, "username": "Bob", "invite": invite})
        self.assertEqual((bob.status, bob.body["error"][:24]), (403, "This invite is not valid"))


class HttpTests(NoAccountCase):
    """Params by HTTP from a relay that runs, with and without a token."""

    def http(self, relay: AccountsRelay, method: str, path: str, body: object = None, token: str = "") -> Answer:
        """Makes one request."""
        connection = http.client.HTTPConnection("127.0.0.1", relay.auth_port, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            response = connection.getresponse()
            text = response.read()
            got = {name.lower(): text for name, text in response.getheaders()}
            return Answer(response.status, json.loads(text) if text else {}, got)
        finally:
            connection.close()

    def test_http_and_websocket_share_one_state_under_one_set_of_rights(self) -> None:
        """The same verdicts, a subscriber hears of it, and a revoked token is 401."""
        relay = self.start_studio()
        ann = self.guest(relay, "ann")
        ann.ask(Subscribe(1, "/studio/**"))
        token = relay.api.guest("bob")
        self.assertEqual(self.http(relay, "PUT", "/api/params/studio/light/1", 0.5, token).headers["etag"], '"1"')
        self.assertEqual(self.http(relay, "PUT", "/api/params/studio/fader/1", 1, token).status, 403)
        self.assertEqual(self.http(relay, "POST", "/api/events/studio/cue", "go", token).status, 202)
        self.assertEqual(told(ann.settle()), [("/studio/light/1", 0.5), ("/studio/cue", "go")])
        self.assertEqual(self.http(relay, "GET", "/api/params/studio/light/1").body["value"], 0.5)
        self.assertEqual(self.http(relay, "PUT", "/api/params/studio/light/1", 1).status, 403)
        self.assertEqual(self.http(relay, "GET", "/api/params/studio/other").status, 403)
        self.assertEqual(self.http(relay, "GET", "/api/params/studio/light/1", token="nonsense").status, 401)
        self.assertEqual(relay.api.call("logout", None, token).status, 200)
        self.assertEqual(self.http(relay, "GET", "/api/params/studio/light/1", token=token).status, 401)
        self.assertEqual(relay.stop(), 0)
