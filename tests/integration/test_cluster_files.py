"""Files that people send to each other through the relays of a cluster, as processes."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import partial

from tests.integration.accounts import AccountsRelay
from tests.integration.followed import FollowedTestCase, Pair
from tests.integration.process import wait_until
from tests.integration.test_sent_files import MIB, FilesApi, some_bytes

BOUNDS = ("--files-max-file", str(2 * MIB), "--files-per-user", str(6 * MIB), "--files-max-bytes", str(31 * MIB))
OPTIONS = ("--app-config", "chat", "--rate-limit", "0", "--admin-token", "admin.token", *BOUNDS)


class ClusterFilesTests(FollowedTestCase):
    """Two relays, in one life of both: each test is about people of its own."""

    def copies(self, relay: AccountsRelay) -> set[str]:
        """Returns which files a relay has a copy of."""
        folder = {self.pair.decider: "data", self.pair.follower: "data-2"}[relay]
        return set(os.listdir(self.folder / folder / "files-cache"))

    def has_no_copy(self, relay: AccountsRelay, file_id: str) -> bool:
        """Tells whether a relay has no copy of a file."""
        return file_id not in self.copies(relay)

    def pieces(self) -> int:
        """Returns how much there is in the object stores, in messages."""
        client = self.nats.client()
        try:
            streams = [name for name in client.streams() if name.startswith("OBJ_")]
            return sum(client.request(f"$JS.API.STREAM.INFO.{name}")["state"]["messages"] for name in streams)
        finally:
            client.close()

    def test_pictures_go_through_any_relay(self) -> None:
        """Sent and read anywhere, ranges and ETag too; bounds hold over both; what goes is gone everywhere."""
        old, old_token = self.send_alone()
        pair = self.start_pair(*OPTIONS)
        first, second = (FilesApi(relay.auth_port) for relay in pair.relays)
        uma, ben = pair.decider.api.register("Uma"), pair.follower.api.register("Ben")
        picture = some_bytes(1)
        wait_until(
            lambda: second.ask("GET", f"/files/{old}", ben)[2] == b"sent before", "what was sent before is there"
        )
        self.assertEqual(second.ask("DELETE", f"/files/{old}", old_token)[0], 200)
        wait_until(lambda: not self.pieces(), "it is gone")
        ids = [str(api.send(uma, picture).body["id"]) for api in (first, second)]
        for api in (first, second):
            for file_id in ids:
                self.assertEqual(api.ask("GET", f"/files/{file_id}", ben)[::2], (200, picture))
        self.assertEqual(self.copies(pair.decider), self.copies(pair.follower))
        part = second.ask("GET", f"/files/{ids[0]}", ben, headers={"Range": "bytes=5-9"})
        self.assertEqual((part[0], part[2], part[1]["content-range"]), (206, picture[5:10], f"bytes 5-9/{2 * MIB}"))
        self.assertEqual(second.ask("GET", f"/files/{ids[0]}", ben, headers={"If-None-Match": part[1]["etag"]})[0], 304)
        self.check_bounds(first, second, uma)
        self.assertEqual(second.ask("DELETE", f"/files/{ids[0]}", ben)[0], 403)
        self.assertEqual(second.ask("DELETE", f"/files/{ids[0]}", uma)[0], 200)
        self.assertEqual(second.ask("GET", f"/files/{ids[0]}", ben)[0], 404)
        wait_until(lambda: first.ask("GET", f"/files/{ids[0]}", ben)[0] == 404, "it is gone at the other relay, too")
        for relay in pair.relays:
            wait_until(partial(self.has_no_copy, relay, ids[0]), "the copies are gone")
        self.check_deletion(pair, second, ids[1], ben)
        wait_until(lambda: not self.pieces(), "nothing is left in the object store")
        self.check_failover(pair, first, ben)

    def send_alone(self) -> tuple[str, str]:
        """Sends a file while the first relay is alone; returns its id, and its sender's token."""
        relay = AccountsRelay(self.folder, *OPTIONS, "--data-dir", "data")
        self.addCleanup(self._end, relay)
        token = relay.api.register("Old")
        file_id = str(FilesApi(relay.auth_port).send(token, b"sent before").body["id"])
        self.assertEqual(relay.stop(), 0)
        return file_id, token

    def check_bounds(self, first: FilesApi, second: FilesApi, token: str) -> None:
        """One user has room for one more, whichever of the relays are asked for how many at once."""
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda api=api: answers.append(api.send(token, some_bytes(2)).status))
            for api in (first, second) * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(answers), [201, 429, 429, 429, 429, 429])

    def check_deletion(self, pair: Pair, api: FilesApi, file_id: str, reader: str) -> None:
        """A person who is deleted at the relay that follows leaves no file."""
        admin = (self.folder / "admin.token").read_text("ascii").strip()
        uma = pair.decider.api.call("login", {"username": "Uma", "password": "correct horse"}).body["user_id"]
        status, _, text = api.ask("DELETE", f"/api/admin/people/{uma}?messages=keep", admin)
        self.assertEqual(status, 200, text)
        wait_until(lambda: api.ask("GET", f"/files/{file_id}", reader)[0] == 404, "her files are gone")

    def check_failover(self, pair: Pair, first: FilesApi, token: str) -> None:
        """What was acknowledged survives the relay that took it, with all that it had on its disk."""
        sent = {str(first.send(token, some_bytes(seed)).body["id"]): seed for seed in range(3)}
        self.assertEqual(len(sent), 3)
        pair.decider.kill()
        wait_until(lambda: "second decides from now on" in pair.follower.log, "the other decides")
        api = FilesApi(pair.follower.auth_port)
        for file_id, seed in sent.items():
            status, _, body = api.ask("GET", f"/files/{file_id}", token)
            self.assertEqual((status, hashlib.sha256(body).digest()), (200, hashlib.sha256(some_bytes(seed)).digest()))
        self.assertEqual(api.ask("DELETE", f"/files/{next(iter(sent))}", token)[0], 200)
        self.nats.servers[0].kill()
        try:
            answer = api.send(token, b"hello")
            self.assertEqual((answer.status, list(answer.body)), (503, ["error"]))
            self.assertIn("retry-after", answer.headers)
        finally:
            self.nats.start()
        wait_until(lambda: api.send(token, b"hello").status == 201, "files are taken again")
        parts = [name for name in self.copies(pair.follower) if name.endswith(".part")]
        self.assertEqual(parts, [])
