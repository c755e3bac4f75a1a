"""Tests of clasp_relay.assembly.files: what users send, with real threads and files."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.assembly.running import ServerCase, until


class FilePartsTests(ServerCase):
    """A server that takes files."""

    async def test_files_are_taken_or_not(self) -> None:
        """What clients are told is what happens; off, there is nothing, not even a folder."""
        for value in ("on", "off"):
            with self.subTest(files=value):
                running = self.start(files=value, files_max_file=5, data_dir=self.folder / value)
                token = (await running.ask("POST", "/auth/guest", {})).json["token"]
                told = (await running.ask("GET", "/auth/config")).json["files"]
                statuses = [(await running.ask("POST", "/files", body, token)).status for body in ("abc", "abcd")]
                found = await running.ask("GET", "/files/" + "0" * 32, None, token)
                folder = self.folder / value / "files"
                if value == "on":
                    self.assertEqual((told["max_file"], told["per_guest"], told["days"]), (5, 25 * 1024 * 1024, 90))
                    self.assertEqual((statuses, found.status), ([201, 413], 404))
                    self.assertEqual(len(list(folder.iterdir())), 1)
                else:
                    self.assertEqual((told, statuses, found.status), (None, [404, 404], 404))
                    self.assertFalse(folder.exists())
                await running.server.stopService()

    async def test_files_of_a_guest_who_registers_count_as_the_users(self) -> None:
        """At once, and also where the relay was killed between the two."""
        running = self.start(data_dir=self.folder)
        guest = (await running.ask("POST", "/auth/guest", {"name": "Gina"})).json
        sent = await running.ask("POST", "/files", "abc", guest["token"])
        files = running.server.files
        assert files is not None
        self.assertEqual((sent.status, files.quotas.guest_bytes), (201, 4096))
        body = {"username": "Gina", "password": "password", "user_id": guest["user_id"]}
        answer = await running.ask("POST", "/auth/register", body, guest["token"])
        self.assertEqual((answer.status, answer.json["user_id"]), (200, guest["user_id"]))
        await until(running, lambda: not files.quotas.guest_bytes)
        self.assertEqual(files.quotas.used_by(guest["user_id"]), 4096)
        await running.server.stopService()
        with closing(sqlite3.connect(self.folder / "files.db")) as db, db:
            db.execute("UPDATE files SET origin = x'01'")
        again = self.start(data_dir=self.folder).server.files
        assert again is not None
        self.assertEqual((again.quotas.guest_bytes, again.quotas.used_by(guest["user_id"])), (0, 4096))
