"""The console put together: with real threads and files, and another process's commands on the same file."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from clasp_relay.access.policy import Policy
from clasp_relay.command_line import admin_commands
from clasp_relay.settings import Settings
from tests.assembly.running import Running, until

REACTOR: Any = reactor


class ConsolePartsTests(TestCase):
    """A server with the administrator Root."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Starts it."""
        self.patch(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("CLASP_")})
        self.folder = Path(self.mktemp()).absolute()
        self.start()
        await self.running.ask("POST", "/auth/register", {"username": "Root", "password": "password"})
        self.command("grant", "Root")

    def start(self) -> None:
        """Starts the server on the folder."""
        settings = Settings(data_dir=self.folder, web_root="none", token_ttl_s=600)
        self.running = Running(settings, Policy.packaged("chat"))
        self.addCleanup(self.running.server.stopService)

    def command(self, *arguments: str) -> str:
        """Does what ``clasp-relay admin`` does beside the server."""
        out = StringIO()
        admin_commands.run((*arguments, "--data-dir", str(self.folder)), out)
        return out.getvalue()

    async def ask(self, method: str, path: str, body: object = None, bearer: str = "") -> Any:
        """Asks for something that takes turns of the relay's own clock."""
        calls: list[Any] = []

        def turn() -> None:
            self.running.world.clock.clock.advance(0)
            calls[:] = [REACTOR.callLater(0.005, turn)]

        turn()
        try:
            return await self.running.ask(method, path, body, bearer)
        finally:
            calls[0].cancel()

    async def sign_in(self, password: str = "password") -> Any:  # noqa: S107
        """Signs Root in to the console."""
        return await self.running.ask("POST", "/auth/admin", {"username": "Root", "password": password})

    async def test_administrator_signs_in_and_looks_around(self) -> None:
        """At what every part of the API has."""
        token = (await self.sign_in()).json["token"]
        for path in ("me", "overview", "people", "registration", "invites", "rooms", "reports", "audit", "sessions"):
            answer = await self.ask("GET", f"/api/admin/{path}", None, token)
            self.assertEqual(answer.status, 200, (path, answer.body))
        for path in ("doors", "metrics", "log", "params"):
            answer = await self.ask("GET", f"/api/admin/{path}", None, token)
            self.assertEqual(answer.status, 200, (path, answer.body))
        lines = (await self.ask("GET", "/api/admin/log", None, token)).json["items"]
        self.assertNotIn(token, json.dumps(lines))
        written = await self.ask("PUT", "/api/admin/param", {"address": "/x", "value": 1}, token)
        self.assertEqual(written.json, {"revision": 1})
        self.assertEqual((await self.ask("GET", "/api/admin/nothing", None, token)).status, 404)

    async def test_commands_hold_while_the_server_runs(self) -> None:
        """Within a second: a right that is taken away, an account that is disabled."""
        token = (await self.sign_in()).json["token"]
        user = (await self.running.ask("POST", "/auth/login", {"username": "Root", "password": "password"})).json
        self.command("disable", "Root")
        await until(self.running, lambda: not self.running.tokens.has_any(user["user_id"]))
        self.assertEqual((await self.ask("GET", "/api/admin/me", None, token)).status, 401)
        self.assertEqual((await self.sign_in()).status, 403)
        self.command("enable", "Root")
        self.assertEqual((await self.sign_in()).status, 200)
        self.command("revoke", "Root")
        self.assertEqual((await self.sign_in()).status, 403)

    async def test_password_is_chosen_by_a_link(self) -> None:
        """Made by the command line while the server runs."""
        secret = self.command("reset-password", "Root").strip().partition("#")[2]
        body = {"secret": secret, "password": "new password"}
        self.assertEqual((await self.running.ask("POST", "/auth/reset", body)).json, {"username": "Root"})
        self.assertEqual((await self.running.ask("POST", "/auth/reset", body)).status, 401)
        self.assertEqual((await self.sign_in()).status, 401)
        self.assertEqual((await self.sign_in("new password")).status, 200)

    async def test_decisions_and_the_audit_log_survive_a_restart(self) -> None:
        """Console tokens do not."""
        token = (await self.sign_in()).json["token"]
        body = {"registration": "closed", "guests": False}
        self.assertEqual((await self.ask("PUT", "/api/admin/registration", body, token)).status, 200)
        self.assertEqual((await self.running.ask("POST", "/auth/guest", {})).status, 403)
        await self.running.server.stopService()
        self.start()
        config = (await self.running.ask("GET", "/auth/config")).json
        self.assertEqual((config["registration"], config["guests"]), ("closed", False))
        self.assertEqual((await self.ask("GET", "/api/admin/me", None, token)).status, 401)
        actions = [json.loads(line)["action"] for line in self.command("audit", "export").splitlines()]
        # What people do is written a moment later, so the command's entry may be before it.
        self.assertEqual(sorted(actions), sorted(["register", "admin.grant", "console", "admin.registration", "guest"]))
