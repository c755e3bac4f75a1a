"""The auth API over real sockets, with real threads and a real file."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import treq
from argon2 import PasswordHasher
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from clasp_relay.access.limits import RateLimits
from clasp_relay.access.names import name_keys
from clasp_relay.access.passwords import cheap_hasher, make_hasher
from clasp_relay.access.tokens import TokenUnknown
from clasp_relay.errors import StartError
from clasp_relay.http.auth_api import load_openapi
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.integration.auth_server import GENEROUS, REACTOR, AuthServer

RUST_HASH = "$argon2id$v=19$m=19456,t=2,p=1$ne+mJzzhvr7A4JZ+ygfwdg$BWxctXQCItlR15nAM6Pkp7/5DY79dR71q9eTQcw+ffM"
"""Of «correct horse battery», made with the argon2 crate 0.5 and its defaults, as the Rust relay does."""

METHODS = {"get", "put", "post", "delete", "patch"}
FUZZ = Path(__file__).parent / "fuzz_auth_api.py"


class GatedHasher(PasswordHasher):
    """A cheap hasher that waits for a gate, and notes the threads it is called on."""

    def __init__(self) -> None:
        cheap = cheap_hasher()
        super().__init__(cheap.time_cost, cheap.memory_cost, cheap.parallelism, cheap.hash_len, cheap.salt_len)
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.threads: set[threading.Thread] = set()
        self.running = self.most_running = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        """Waits, and verifies."""
        with self.lock:
            self.threads.add(threading.current_thread())
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.gate.wait(30)
        with self.lock:
            self.running -= 1
        return super().verify(hash, password)


class AuthApiTests(TestCase):
    """A server per test."""

    def setUp(self) -> None:
        """Makes a folder for users.db, and a client."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "users.db"
        self.pool = HTTPConnectionPool(REACTOR, persistent=False)
        self.client = treq.client.HTTPClient(Agent(REACTOR, pool=self.pool))
        self.addCleanup(self.pool.closeCachedConnections)

    def start(self, limits: RateLimits = GENEROUS, **options: Any) -> AuthServer:
        """Starts a server until the end of the test."""
        self.server = AuthServer(self.path, limits, **options)
        self.addCleanup(self.stop)
        return self.server

    async def stop(self) -> None:
        """Stops the server that runs now."""
        await self.server.stop()

    async def restart(self) -> None:
        """Stops the server and starts another one on the same file."""
        await self.server.stop()
        self.server = AuthServer(self.path)

    async def call(self, method: str, path: str, body: object = None, bearer: str | None = None) -> tuple[int, Any]:
        """Calls the API; returns status and JSON."""
        headers = Headers({} if bearer is None else {"Authorization": [f"Bearer {bearer}"]})
        response = await self.client.request(method, self.server.url + path, headers=headers, json=body)
        return response.code, await response.json()

    async def token(self, path: str, body: object = None, bearer: str | None = None) -> str:
        """Calls the API for a token."""
        status, answer = await self.call("POST", path, body, bearer)
        self.assertEqual(status, 200, answer)
        token: str = answer["token"]
        return token

    async def test_user_lives_a_life(self) -> None:
        """Guest, user, sign-in, another password, sign-out, over a restart."""
        self.start()
        status, guest = await self.call("POST", "/auth/guest", {"name": "Gina"})
        self.assertEqual(status, 200)
        registration = {"username": "Gina", "password": "password", "user_id": guest["user_id"]}
        first = await self.token("/auth/register", registration, guest["token"])
        second = await self.token("/auth/login", {"username": "gina", "password": "password"})
        third = await self.token("/auth/refresh", None, second)
        change = {"old": "password", "new": "new password"}
        self.assertEqual(await self.call("POST", "/auth/password", change, third), (200, {}))
        await self.restart()
        for bearer, expected in ((guest["token"], 401), (first, 401), (second, 401), (third, 200)):
            status, answer = await self.call("GET", "/auth/me", None, bearer)
            self.assertEqual(status, expected, answer)
        self.assertEqual(answer["user_id"], guest["user_id"])
        self.assertEqual(await self.call("POST", "/auth/logout", None, third), (200, {}))
        await self.restart()
        self.assertRaises(TokenUnknown, self.server.tokens.lookup, third)
        status, _ = await self.call("POST", "/auth/login", {"username": "Gina", "password": "password"})
        self.assertEqual(status, 401)
        await self.token("/auth/login", {"username": "Gina", "password": "new password"})

    async def test_user_of_the_rust_relay_signs_in(self) -> None:
        """With the parameters that are used in service; two users whose names differ in case are two."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute(
                "CREATE TABLE users (id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL,"
                " password_hash TEXT NOT NULL, created_at INTEGER NOT NULL)"
            )
            db.execute("INSERT INTO users VALUES ('u-1', 'Alice', ?, 1)", (RUST_HASH,))
            db.execute("INSERT INTO users VALUES ('u-2', 'alice', ?, 2)", (cheap_hasher().hash("password"),))
        self.start(hasher=make_hasher())
        for username, password, user_id in (
            ("Alice", "correct horse battery", "u-1"),
            ("ALICE", "correct horse battery", "u-1"),
            ("alice", "password", "u-2"),
        ):
            status, answer = await self.call("POST", "/auth/login", {"username": username, "password": password})
            self.assertEqual((status, answer.get("user_id")), (200, user_id))
        self.assertEqual((await self.call("POST", "/auth/login", {"username": "Alice", "password": "x"}))[0], 401)
        users = [self.server.store.user(user_id) for user_id in ("u-1", "u-2")]
        hashes = [user.password_hash for user in users if user is not None]
        self.assertEqual(hashes[0], RUST_HASH)
        self.assertIn("$m=19456,t=2,p=1$", hashes[1])

    async def test_hashing_is_off_the_loop_and_bounded(self) -> None:
        """Four at once, so many waiting, and 503 for the others; meanwhile the loop answers."""
        hasher = GatedHasher()
        self.start(hasher=hasher, max_waiting=3)
        self.addCleanup(hasher.gate.set)
        calls = [
            self.client.post(
                f"{self.server.url}/auth/login", json={"username": f"nobody {number}", "password": "password"}
            )
            for number in range(9)
        ]
        # The refused ones are answered while the others wait for the gate.
        refused = []
        for call in calls:
            call.addCallback(lambda response: refused.append(response) if response.code == 503 else response)
        while len(refused) < 2:
            status, _ = await self.call("GET", "/auth/me")
            self.assertEqual(status, 401)
        for response in refused:
            self.assertEqual(response.headers.getRawHeaders("retry-after"), ["2"])
            self.assertEqual(await response.json(), {"error": "The relay is busy. Try again in a moment."})
        hasher.gate.set()
        responses = [response for response in await gatherResults(calls) if response is not None]
        self.assertEqual([response.code for response in responses], [401] * 7)
        for response in responses:
            await response.content()
        self.assertLessEqual(hasher.most_running, 4)
        self.assertNotIn(threading.current_thread(), hasher.threads)

    async def test_crowd_of_one_address_leaves_the_hash_queue_to_others(self) -> None:
        """Four are hashed and eight wait; the next ones are told to come back, and another address is not."""
        hasher = GatedHasher()
        self.start(hasher=hasher)
        self.addCleanup(hasher.gate.set)

        async def status(number: int, source: str) -> int:
            agent = Agent(REACTOR, bindAddress=(source, 0))
            body = {"username": f"nobody {number}", "password": "password"}
            response = await HTTPClient(agent).post(f"{self.server.url}/auth/login", json=body)
            await response.content()
            return int(response.code)

        crowd = [Deferred.fromCoroutine(status(number, "127.0.0.1")) for number in range(15)]
        while sum(call.called for call in crowd) < 3:
            await deferLater(REACTOR, 0.01)
        other = Deferred.fromCoroutine(status(15, "127.0.0.2"))
        while self.server.hashing.waiting < 9:
            await deferLater(REACTOR, 0.01)
        hasher.gate.set()
        self.assertEqual(sorted(await gatherResults(crowd)), [401] * 12 + [503] * 3)
        self.assertEqual(await other, 401)

    async def test_file_that_another_process_holds_answers_503(self) -> None:
        """The first call after two seconds, the others at once, none with a traceback; then all is as before."""
        self.start()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before_s = time.monotonic()
            responses = [await self.client.post(f"{self.server.url}/auth/guest", json={}) for _ in range(10)]
            self.assertLess(time.monotonic() - before_s, 10)
            for response in responses:
                self.assertEqual((response.code, response.headers.getRawHeaders("retry-after")), (503, ["5"]))
                self.assertIn("cannot reach its accounts", (await response.json())["error"])
            self.assertEqual(await self.server.accounts.purge(), 0)
        await self.token("/auth/guest", {})
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_sql_is_off_the_loop_on_one_thread(self) -> None:
        """Every statement of a call."""
        threads = set()
        server = self.start()
        server.store._db.set_trace_callback(lambda _: threads.add(threading.current_thread()))
        registration = {"username": "Alice", "password": "password"}
        first = await self.token("/auth/register", registration)
        second = await self.token("/auth/login", registration)
        await self.token("/auth/guest", {})
        await self.token("/auth/refresh", None, first)
        await self.call("POST", "/auth/password", {"old": "password", "new": "new password"}, first)
        await self.call("POST", "/auth/logout", None, first)
        await server.accounts.purge()
        server.store._db.set_trace_callback(None)
        self.assertEqual(len(threads), 1)
        self.assertNotIn(threading.current_thread(), threads)
        self.assertRaises(TokenUnknown, server.tokens.lookup, second)

    async def test_failed_logins_are_limited(self) -> None:
        """The sixth is, whatever its password, and it says for how long."""
        self.start(RateLimits())
        await self.token("/auth/register", {"username": "Alice", "password": "password"})
        for _ in range(5):
            status, _ = await self.call("POST", "/auth/login", {"username": "Alice", "password": "wrong"})
            self.assertEqual(status, 401)
        response = await self.client.post(
            f"{self.server.url}/auth/login", json={"username": "ALICE", "password": "password"}
        )
        self.assertEqual(response.code, 429)
        (retry_after,) = response.headers.getRawHeaders("retry-after", [])
        self.assertGreater(int(retry_after), 600)
        self.assertIn("error", await response.json())

    async def test_long_body_is_refused_before_it_is_sent(self) -> None:
        """Its sender reads the 413."""
        self.start()
        for size in (20_000, 500_000):
            response = await self.client.post(f"{self.server.url}/auth/guest", data=b"x" * size)
            self.assertEqual(response.code, 413)
            self.assertIn("error", await response.json())

    async def test_file_in_use_is_not_opened_by_something_else_as_broken(self) -> None:
        """A second opening of the same file works, as a restart that overlaps needs it."""
        self.start()
        other = SqliteUsers(self.path, name_keys)
        other.close()
        self.path.with_name("broken.db").write_bytes(b"broken" * 100)
        self.assertRaises(StartError, SqliteUsers, self.path.with_name("broken.db"), name_keys)

    async def test_api_keeps_to_its_description(self) -> None:
        """Requests made up from openapi.json, good and bad, get only answers that it knows."""
        self.start()
        registration = {"username": "Fuzz", "password": "password"}
        bearers = [await self.token("/auth/register", registration), await self.token("/auth/guest", {})]

        def fuzz() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, str(FUZZ), self.server.url, *bearers, "--without", "/api/admin/"],
                capture_output=True,
                text=True,
                env=os.environ,
                timeout=570,
                check=False,
            )

        result = await deferToThread(fuzz)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        # Those of the console are asked where there is one (test_console); the description itself has none.
        left_out = ("/api/admin/", "/auth/openapi.json", "/api/stream")
        paths = [path for name, path in load_openapi()["paths"].items() if not name.startswith(left_out)]
        self.assertIn(f"{sum(len(set(path) & METHODS) for path in paths)} operations", result.stdout)
        self.assertEqual(self.flushLoggedErrors(), [])

    test_api_keeps_to_its_description.timeout = 600  # type: ignore[attr-defined]
