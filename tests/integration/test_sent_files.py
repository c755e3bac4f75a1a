"""Files that users send to each other, at a relay that runs, is killed, and sees days go by."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import socket
import threading
from collections.abc import Mapping
from typing import Any

from clasp_relay.wire.messages import Ping
from tests.integration.accounts import WATCHED, AccountsRelay, AccountsTestCase, Answer
from tests.integration.process import PATIENCE_S, wait_until

MIB = 1024 * 1024
UPLOADS = 10
BOUNDS = ("--files-max-file", str(2 * MIB), "--files-per-user", str(20 * MIB), "--files-max-bytes", str(31 * MIB))


def some_bytes(seed: int, size: int = 2 * MIB) -> bytes:
    """Returns bytes that no compression makes smaller."""
    return random.Random(seed).randbytes(size)


class FilesApi:
    """The files of a relay, asked with one connection for each call."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, token: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Makes one call; returns status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {token}", **(headers or {})})
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return response.status, got, response.read()
        finally:
            connection.close()

    def send(self, token: str, body: bytes, **headers: str) -> Answer:
        """Sends a file."""
        status, got, text = self.ask("POST", "/files", token, body, headers)
        return Answer(status, json.loads(text), got)

    def begin(self, token: str, body: bytes) -> socket.socket:
        """Sends half of a file; returns the connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        head = (
            f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body[: len(body) // 2])
        return connection


class SentFilesTests(AccountsTestCase):
    """A relay with small bounds."""

    def begin(self, *options: str, **variables: str) -> AccountsRelay:
        """Starts a relay."""
        return self.start_accounts(*BOUNDS, *options, command=WATCHED, variables=variables)

    @property
    def stored(self) -> dict[str, str]:
        """Names and hashes of the files on the disk."""
        folder = self.folder / "data" / "files"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    def names(self) -> set[str]:
        """Returns the names of the files on the disk."""
        return set(os.listdir(self.folder / "data" / "files"))

    def parts(self) -> set[str]:
        """Returns the half-written files."""
        return {name for name in self.names() if name.endswith(".part")}

    def turns(self, relay: AccountsRelay) -> float:
        """Returns the CPU time in ms of the longest turn since the last time."""
        before = sum(line.startswith("turns") for line in relay.lines)
        relay.say("turns")
        wait_until(lambda: sum(line.startswith("turns") for line in relay.lines) > before, "turns are told")
        line = [line for line in relay.lines if line.startswith("turns")][-1]
        report: dict[str, Any] = json.loads(line.removeprefix("turns "))
        return float(report["longest_cpu_ms"])

    def send_at_once(self, files: FilesApi, token: str) -> list[str]:
        """Sends ten files at once; returns their ids."""
        ids: list[str] = []
        threads = [
            threading.Thread(target=lambda seed=seed: ids.append(files.send(token, some_bytes(seed)).body["id"]))
            for seed in range(UPLOADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ids

    def test_ten_uploads_at_once_hold_nobody_up(self) -> None:
        """Every byte arrives, and no turn takes 10 ms of CPU time; in one of three rounds, as machines are shared."""
        relay = self.begin()
        files, token = FilesApi(relay.auth_port), relay.api.register("Uma")
        bystander = self.guest(relay, "ann")
        longest = []
        for _ in range(3):
            self.turns(relay)
            ids = self.send_at_once(files, token)
            bystander.ask(Ping())
            sums = sorted(hashlib.sha256(some_bytes(seed)).hexdigest() for seed in range(UPLOADS))
            self.assertEqual(sorted(self.stored.values()), sums)
            self.assertEqual(files.send(token, b"x").status, 429)
            got = [files.ask("GET", f"/files/{each}", token)[2] for each in ids]
            self.assertEqual(sorted(hashlib.sha256(each).hexdigest() for each in got), sums)
            for each in ids:
                self.assertEqual(files.ask("DELETE", f"/files/{each}", token)[0], 200)
            longest.append(self.turns(relay))
            if longest[-1] < 10:
                break
        self.assertLess(min(longest), 10)
        self.assertEqual(self.stored, {})

    def test_bounds_are_told_and_outlive_a_restart(self) -> None:
        """413, 429 and 507 in sentences; hostile names and types reach no disk and no browser."""
        relay = self.begin()
        files = FilesApi(relay.auth_port)
        uma, ben = relay.api.register("Uma"), relay.api.register("Ben")
        for _ in range(10):
            self.assertEqual(files.send(uma, some_bytes(1)).status, 201)
        self.assertEqual(relay.stop(), 0)
        relay = self.begin()
        files = FilesApi(relay.auth_port)
        guest = relay.api.guest("gus")
        for token, size, status in ((uma, 1, 429), (uma, 2 * MIB + 1, 413), (ben, 2 * MIB, 201), (guest, 2 * MIB, 201)):
            with self.subTest(size=size, status=status):
                answer = files.send(token, some_bytes(2, size))
                self.assertEqual(answer.status, status)
                self.assertEqual("error" in answer.body, status != 201)
        for _ in range(3):
            self.assertEqual(files.send(ben, some_bytes(3)).status, 201)
        full = files.send(ben, some_bytes(3))
        self.assertEqual((full.status, list(full.body)), (507, ["error"]))
        self.assertEqual(files.send("nonsense", b"x").status, 401)
        hostile = {
            "Content-Type": "text/html",
            "Content-Disposition": 'attachment; filename="../../etc/passwd\\0"',
            "X-File-Name": "evil.html",
        }
        answer = files.send(ben, b"<script>alert(1)</script>", **hostile)
        status, headers, body = files.ask("GET", f"/files/{answer.body['id']}", guest, headers={"Range": "bytes=1-6"})
        self.assertEqual((status, body, headers["content-range"]), (206, b"script", "bytes 1-6/25"))
        self.assertEqual(
            (headers["content-type"], headers["content-disposition"]), ("application/octet-stream", "attachment")
        )
        self.assertEqual(files.ask("GET", "/files/..%2f..%2fusers.db", guest)[0], 404)
        for path in (self.folder / "data").rglob("*"):
            self.assertNotIn("evil", path.name)
            self.assertFalse(path.is_file() and (b"evil.html" in path.read_bytes() or b"passwd" in path.read_bytes()))

    def test_kill_in_an_upload_leaves_nothing(self) -> None:
        """Nor does a client that goes; whole files stay. Those that nobody reads for 90 days go."""
        relay = self.begin()
        files, token = FilesApi(relay.auth_port), relay.api.register("Uma")
        kept, old = (files.send(token, some_bytes(seed)).body["id"] for seed in (1, 2))
        for is_killed in (False, True):
            with self.subTest(is_killed=is_killed):
                with files.begin(token, some_bytes(3)):
                    wait_until(self.parts, "an upload is under way")
                    if is_killed:
                        relay.kill()
                if is_killed:
                    self.assertEqual(len(self.names()), 3)
                    relay = self.begin(WATCHED_AHEAD_S=str(80 * 86_400))
                    self.assertIn("1 half-written files and 0 records", relay.log)
                wait_until(lambda: not self.parts(), "the half of it is gone")
                self.assertEqual(self.names(), {kept, old})
        files, guest = FilesApi(relay.auth_port), relay.api.guest("gus")
        self.assertEqual(files.ask("GET", f"/files/{kept}", guest)[2], some_bytes(1))
        self.assertEqual(relay.stop(), 0)
        relay = self.begin(WATCHED_AHEAD_S=str(91 * 86_400))
        wait_until(lambda: self.names() == {kept}, "the other one is gone")
        files, guest = FilesApi(relay.auth_port), relay.api.guest("gus2")
        self.assertEqual([files.ask("HEAD", f"/files/{each}", guest)[0] for each in (kept, old)], [200, 404])
        self.assertEqual(relay.stop(), 0)
