"""The accounts put together: what is opened, served, and closed again. Without sockets, with real threads and files."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from clasp_relay.access.names import name_keys
from clasp_relay.access.policy import Policy
from clasp_relay.errors import StartError
from clasp_relay.storage import users_file
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.assembly.running import PATIENCE_S, ServerCase


class AuthServerTests(ServerCase):
    """Opens, serves and closes."""

    async def test_tokens_are_given_out_and_told(self) -> None:
        """Each call is told once, without anything secret, and counted."""
        running = self.start()
        answer = await running.ask("POST", "/auth/guest", {"user_id": "ann"})
        token = answer.json["token"]
        self.assertEqual(running.tokens.lookup(token).subject, "ann")
        self.assertEqual(running.calls, [("guest", "192.0.2.1", "ok", "ann")])
        self.assertEqual(running.server.outcomes, {("guest", "ok"): 1})
        me = await running.ask("GET", "/auth/me", bearer=token)
        self.assertEqual(me.json["scopes"], ["read:/**", "write:/**"])

    async def test_client_addresses_count_the_same_after_a_restart(self) -> None:
        """An IPv6 address as its /64, and none as nobody; each data folder has a key of its own."""
        first = self.start().server
        one, other = (first.origin_of(address) for address in ("2001:db8::1", "2001:db8::ffff:2"))
        self.assertEqual((one, len(one)), (other, 16))
        self.assertNotEqual(first.origin_of("2001:db8:0:1::1"), one)
        self.assertEqual(first.origin_of(""), "")
        await first.stopService()
        self.assertEqual(self.start().server.origin_of("2001:db8::1"), one)
        elsewhere = self.start(data_dir=Path(self.mktemp()).absolute()).server
        self.assertNotEqual(elsewhere.origin_of("2001:db8::1"), one)

    async def test_policy_gives_scopes_limits_and_whose_ids_guests_have(self) -> None:
        """As its file says."""
        policy = Policy.from_document(
            {"scopes": ["read:/u/{userId}"], "guest_ids": "open", "rate_limits": {"register_max_attempts": 2}}
        )
        running = self.start(policy)
        answers = [await running.ask("POST", "/auth/guest", {"user_id": "ann"}) for _ in range(3)]
        self.assertEqual([answer.status for answer in answers], [200, 200, 429])
        me = await running.ask("GET", "/auth/me", bearer=answers[0].json["token"])
        self.assertEqual(me.json["scopes"], ["read:/u/ann"])

    async def test_tokens_outlive_a_restart(self) -> None:
        """They are in the file, whose folder is made; it is closed at the end."""
        first = self.start(token_ttl_s=1000)
        token = (await first.ask("POST", "/auth/guest", {})).json["token"]
        await first.server.stopService()
        self.assertFalse((self.folder / "users.db-wal").exists(), "the file was closed in order")
        second = self.start()
        record = second.tokens.lookup(token)
        assert record.expires_s is not None
        self.assertLess(abs(record.expires_s - time.time() - 1000), PATIENCE_S)

    async def test_admin_token_is_valid(self) -> None:
        """From its file, made when it is missing."""
        running = self.start(admin_token=self.folder / "admin.token")
        token = (self.folder / "admin.token").read_text("ascii").strip()
        me = await running.ask("GET", "/auth/me", bearer=token)
        self.assertEqual((me.json["scopes"], me.json["expires_at"]), (["admin:/**"], None))

    async def test_calls_under_way_at_the_end_are_answered(self) -> None:
        """What waits for a thread is told to come back."""
        running = self.start()
        answer = running.ask("POST", "/auth/guest", {})
        stopped = running.server.stopService()
        self.assertIn((await answer).status, (200, 503))
        await stopped

    def test_file_that_cannot_be_used_stops_the_start(self) -> None:
        """With its name."""
        self.folder.mkdir()
        (self.folder / "users.db").write_bytes(b"no database" * 100)
        self.assertIn("users.db", str(self.assertRaises(StartError, self.start)))

    async def test_file_that_another_process_holds_stops_the_start(self) -> None:
        """A relay that was in a cluster writes to it when it starts alone."""
        self.patch(users_file, "BUSY_TIMEOUT_S", 0.05)
        self.folder.mkdir()
        path = self.folder / "users.db"
        with closing(SqliteUsers(path, name_keys)) as store:
            store.rows.begin()
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            error = self.assertRaises(StartError, self.start)
        self.assertIn(f"{path}: another process holds the users' database; end it", str(error))
        self.start()

    async def test_damaged_tokens_stop_the_start_in_one_line(self) -> None:
        """The file is closed again."""
        first = self.start()
        await first.ask("POST", "/auth/guest", {})
        await first.server.stopService()
        with closing(sqlite3.connect(self.folder / "users.db")) as db, db:
            db.execute("UPDATE tokens SET subject = x'00'")
        error = self.assertRaises(StartError, self.start)
        self.assertIn("users.db: the users' database cannot be used (", str(error))
        self.assertNotIn("\n", str(error))
        self.assertFalse((self.folder / "users.db-wal").exists(), "the file was closed in order")

    async def test_table_that_is_overwritten_stops_the_start_in_one_line(self) -> None:
        """Any of those that a start reads, and its file is closed again; the other tables stop no start."""
        await self.start().server.stopService()
        told: set[str] = set()
        for path in (self.folder / "users.db", self.folder / "files.db"):
            whole = path.read_bytes()
            with closing(sqlite3.connect(path)) as db:
                pages = db.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 1").fetchall()
            for name, page in pages:
                path.write_bytes(whole[: (page - 1) * 4096] + b"\xff" * 4096 + whole[page * 4096 :])
                try:
                    await self.start().server.stopService()
                except StartError as error:
                    told.add(name)
                    self.assertIn(f"{path}: ", str(error))
                    self.assertIn("(database disk image is malformed)", str(error))
                    self.assertNotIn("\n", str(error))
                self.assertFalse(path.with_name(f"{path.name}-wal").exists(), name)
            path.write_bytes(whole)
        read = {"users", "device_tokens", "session_ids_by_time", "administrators", "disabled_subjects", "choices"}
        self.assertEqual((read | {"log_position", "files_by_subject", "files_by_read"}) - told, set())
