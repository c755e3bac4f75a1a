"""The console's API of a relay in a process of its own, with people in a room, and commands beside it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import Any

from clasp_relay.http.auth_api import load_openapi
from clasp_relay.wire.messages import Subscribe
from tests.integration.accounts import PASSWORD, AccountsRelay, AccountsTestCase, event, put, told
from tests.integration.process import PATIENCE_S, wait_until
from tests.integration.test_auth_api import FUZZ

ROOM = "/chat/room/r1"


class ConsoleTests(AccountsTestCase):
    """A relay with the administrator Root and two people in a room."""

    def command(self, *arguments: str) -> str:
        """Runs ``clasp-relay admin`` and returns what it prints."""
        line = [sys.executable, "-m", "clasp_relay", "admin", *arguments, "--data-dir", str(self.folder / "data")]
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def ask(self, relay: AccountsRelay, method: str, path: str, token: str, body: object = None) -> tuple[int, Any]:
        """Makes a call; returns status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", relay.auth_port, timeout=PATIENCE_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/admin/{path}", data, {"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def test_administrator_watches_and_moderates(self) -> None:
        """Sees what happens, ends a session, deletes a room; and is out when the right is taken away."""
        relay = self.start_accounts("--app-config", "chat")
        relay.api.register("Root", user_id="root")
        alice = self.sign_in(relay, relay.api.register("Alice", user_id="a1"))
        self.command("grant", "root")
        signed = relay.api.call("admin", {"username": "Root", "password": PASSWORD})
        self.assertEqual(signed.status, 200, signed.body)
        token = str(signed.body["token"])
        self.assertEqual(relay.api.call("me", bearer=token, method="GET").status, 401)

        stream = http.client.HTTPConnection("127.0.0.1", relay.auth_port, timeout=PATIENCE_S)
        self.addCleanup(stream.close)
        stream.request("GET", "/api/admin/stream?pattern=/chat/room/**", headers={"Authorization": f"Bearer {token}"})
        lines = stream.getresponse()
        self.assertEqual((lines.status, lines.getheader("content-type")), (200, "text/event-stream"))
        alice.ask(
            put(f"{ROOM}/meta", {"name": "Room", "creatorId": "a1", "isPublic": False}),
            put(f"{ROOM}/presence/a1", {"name": "Alice"}),
            Subscribe(1, f"{ROOM}/messages"),
            event(f"{ROOM}/messages", {"msgId": "m1", "text": "a secret"}),
        )
        wait_until(lambda: b"a secret" in lines.readline(), "the stream shows what was said in a private room")

        status, room = self.ask(relay, "GET", "rooms/r1", token)
        self.assertEqual((status, room["name"], room["present"], room["history"]["entries"]), (200, "Room", 1, 1))
        _, shown = self.ask(relay, "GET", "sessions?search=alice", token)
        self.assertEqual([each["id"] for each in shown["items"]], [alice.session])
        status, metrics = self.ask(relay, "GET", "metrics", token)
        self.assertIn("clasp_sessions", {each["name"] for each in metrics["metrics"]})
        status, log = self.ask(relay, "GET", "log", token)
        self.assertTrue(any("auth" in each["part"] for each in log["items"]), log)
        self.assertNotIn(token, json.dumps(log))

        self.assertEqual(self.ask(relay, "DELETE", f"sessions/{alice.session}", token)[0], 200)
        alice = self.sign_in(relay, relay.api.token("login", {"username": "Alice", "password": PASSWORD}))
        self.assertEqual(self.ask(relay, "DELETE", "rooms/r1", token)[0], 200)
        self.assertEqual(told(alice.ask(Subscribe(1, f"{ROOM}/**"))), [])
        self.assertEqual(self.ask(relay, "GET", "rooms/r1", token)[0], 404)

        self.command("revoke", "root")
        wait_until(lambda: not lines.readline(), "the stream ends with the right")
        self.assertEqual(self.ask(relay, "GET", "me", token)[0], 401)
        entries = [json.loads(line) for line in self.command("audit", "export").splitlines()]
        expected = ["register", "register", "admin.grant", "console", "admin.session.end", "login"]
        expected += ["admin.room.delete", "admin.revoke"]
        # What people do is written a moment later, so a command's entry may be before it.
        self.assertEqual(sorted(each["action"] for each in entries), sorted(expected))
        self.assertNotIn("127.0.0.1", json.dumps(entries))

    def test_api_keeps_to_its_description(self) -> None:
        """Requests made up from the relay's own document, to the console, push messages and the journal."""
        relay = self.start_accounts(
            "--app-config", "chat", "--rate-limit", "0", "--push-contact", "mailto:a@example.com"
        )
        member = relay.api.register("Root", user_id="root")
        self.command("grant", "root")
        token = str(relay.api.call("admin", {"username": "Root", "password": PASSWORD}).body["token"])
        only = ("/api/admin/", "/api/journal/", "/auth/push", "/auth/turn")
        url = f"http://127.0.0.1:{relay.auth_port}"
        fuzz = subprocess.run(
            [sys.executable, str(FUZZ), url, token, member, "--examples", "4", "--only", *only],
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE_S,
            check=False,
        )
        self.assertEqual(fuzz.returncode, 0, fuzz.stdout + fuzz.stderr)
        paths = [path for name, path in load_openapi()["paths"].items() if name.startswith(only)]
        methods = {"get", "put", "post", "delete", "patch"}
        # Without the stream, which does not end.
        self.assertIn(f"{sum(len(set(path) & methods) for path in paths) - 1} operations", fuzz.stdout)
        self.assertEqual(self.ask(relay, "GET", "me", token)[0], 401)
        self.assertNotIn("a fault of the relay", relay.log)
        entered = {json.loads(line)["action"] for line in self.command("audit", "export").splitlines()}
        self.assertLess({"admin.invite", "admin.registration", "admin.logout"}, entered)

    def test_person_is_deleted_with_what_was_said(self) -> None:
        """By a command while the relay runs, and while it does not; each time as it was asked."""
        relay = self.start_accounts("--app-config", "chat", "--admin-token", str(self.folder / "admin.token"))
        alice, bob = (
            self.sign_in(relay, relay.api.register(name, user_id=user_id))
            for name, user_id in (("Alice", "a1"), ("Bob", "b1"))
        )
        alice.ask(put(f"{ROOM}/meta", {"name": "Room"}))
        for client, user_id in ((alice, "a1"), (bob, "b1")):
            client.ask(
                put(f"{ROOM}/presence/{user_id}", {"name": user_id}),
                put(f"/chat/user/{user_id}/profile", {"name": user_id}),
                event(f"{ROOM}/messages", {"msgId": f"m-{user_id}", "text": f"said by {user_id}"}),
            )
        token = (self.folder / "admin.token").read_text().strip()

        def said() -> list[str]:
            status, entries = self.ask(relay, "GET", f"history?pattern={ROOM}/messages", token)
            self.assertEqual(status, 200, entries)
            return [each["value"]["text"] for each in entries]

        def is_set(address: str) -> bool:
            return self.ask(relay, "GET", f"param?address={address}", token)[0] == 200

        self.assertEqual(said(), ["said by a1", "said by b1"])
        self.command("delete", "Bob", "--messages", "erase")
        wait_until(lambda: said() == ["said by a1"], "what Bob said is gone")
        wait_until(lambda: not is_set("/chat/user/b1/profile"), "what Bob set is gone")
        self.assertEqual(relay.api.call("login", {"username": "Bob", "password": PASSWORD}).status, 401)
        relay.stop()
        self.command("delete", "Alice", "--messages", "keep")
        relay = self.start_accounts("--app-config", "chat", "--admin-token", str(self.folder / "admin.token"))
        wait_until(lambda: not is_set("/chat/user/a1/profile"), "what Alice set is gone")
        self.assertEqual((said(), is_set(f"{ROOM}/meta")), (["said by a1"], True))
        wait_until(lambda: self.command("audit", "export").count("person.deleted") == 2, "the audit log has both")
