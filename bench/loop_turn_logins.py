"""Measures how long sign-ins block the event loop.

Many users sign in at once, with passwords hashed as in production, while one client sends messages to another. Prints
the durations of the event loop's turns before and meanwhile, the latency of the messages, and the memory that the
sign-ins need.

Run: ``python -m bench.loop_turn_logins [--users 200] [--rounds 3]``
"""

from __future__ import annotations

import argparse
import http.client
import json
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from bench import catalogue, turns
from bench.client import Client
from bench.server import Server, running
from clasp_relay.access.passwords import make_hasher

PASSWORD = "correct horse battery staple"
TALK = "/talk"
SCHEMA = (
    "CREATE TABLE users (id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL, password_hash TEXT NOT NULL,"
    " created_at INTEGER NOT NULL)"
)
SET = 0x21
REST_S = 0.002
"""Pause between two messages, in seconds."""


@dataclass
class Talk:
    """The latencies of the messages in ms."""

    latencies_ms: list[float]

    def __str__(self) -> str:
        times = sorted(self.latencies_ms)
        last = len(times) - 1
        return (
            f"{len(times):5} messages, median {times[last // 2]:6.2f} ms, "
            f"99 % {times[int(last * 0.99)]:6.2f} ms, longest {times[last]:6.2f} ms"
        )


def make_users(path: Path, count: int) -> None:
    """Writes a users.db with this number of users, all with the same password."""
    path.parent.mkdir(parents=True, exist_ok=True)
    password_hash = make_hasher().hash(PASSWORD)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(SCHEMA)
        rows = [(f"u-{number}", f"user {number}", password_hash, 0) for number in range(count)]
        db.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)


def turns_in_words(server: Server) -> str:
    """Returns a line about the turns since the last call."""
    report = turns.since_last_time(server)
    return (
        f"{report['turns']:5} turns,    median {report['p50_ms']:6.2f} ms, "
        f"99 % {report['p99_ms']:6.2f} ms, longest {report['longest_ms']:6.2f} ms "
        f"({report['longest_cpu_ms']:.2f} ms of CPU time)"
    )


def talk_while(speaker: Client, listener: Client, goes_on: Callable[[], bool]) -> Talk:
    """Sends messages from one client to another, one at a time, while ``goes_on`` returns True."""
    payloads = listener.payloads()
    latencies_ms = []
    while goes_on():
        began_s = time.perf_counter()
        speaker.set_number(TALK, began_s)
        next(payload for payload in payloads if payload[0] == SET)
        latencies_ms.append((time.perf_counter() - began_s) * 1e3)
        time.sleep(REST_S)
    return Talk(latencies_ms)


def sign_in(auth_port: int, number: int, barrier: threading.Barrier) -> int:
    """Signs a user in at the same moment as all others; returns the HTTP status."""
    # One loopback address for eight users, since the relay hashes that many passwords of one address and refuses more.
    source = f"127.0.{1 + number // 1000}.{1 + number % 1000 // 8}"
    connection = http.client.HTTPConnection("127.0.0.1", auth_port, timeout=120, source_address=(source, 0))
    connection.connect()
    barrier.wait()
    body = json.dumps({"username": f"user {number}", "password": PASSWORD})
    connection.request("POST", "/auth/login", body)
    status = connection.getresponse().status
    connection.close()
    return status


def sign_all_in(auth_port: int, users: int) -> dict[int, int]:
    """Signs this number of users in at the same moment; returns how many got each HTTP status."""
    barrier = threading.Barrier(users)
    with ThreadPoolExecutor(users) as pool:
        return Counter(pool.map(sign_in, repeat(auth_port), range(users), repeat(barrier)))


def measure(server: Server, auth_port: int, users: int) -> None:
    """Measures one round."""
    assert server.tokens is not None
    (first, _), (second, _) = server.tokens.guests(2)
    speaker, listener = Client(server.port), Client(server.port)
    speaker.hello(first)
    listener.hello(second)
    listener.subscribe(TALK)
    quiet_until_s = time.monotonic() + 2
    turns.since_last_time(server)
    print("quiet", flush=True)
    print("  talk ", talk_while(speaker, listener, lambda: time.monotonic() < quiet_until_s))
    print("  loop ", turns_in_words(server), flush=True)
    before_bytes = highest_bytes = server.rss_bytes
    # In a process of their own: so many threads would delay the talk, which needs Python's lock, too.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        began_s = time.monotonic()
        call = pool.submit(sign_all_in, auth_port, users)

        def goes_on() -> bool:
            nonlocal highest_bytes
            highest_bytes = max(highest_bytes, server.rss_bytes)
            return not call.done()

        talk = talk_while(speaker, listener, goes_on)
        took_s = time.monotonic() - began_s
    print(f"{users} sign in at once: {took_s:.1f} s, answers {dict(call.result())}")
    print("  talk ", talk)
    print("  loop ", turns_in_words(server))
    print(f"  memory {(highest_bytes - before_bytes) / 1024 / 1024:.0f} MiB more at most", flush=True)
    speaker.close()
    listener.close()


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        users_db = Path(folder) / "users.db"
        make_users(users_db, options.users)
        more = (*turns.OPTIONS, "--auth-db", str(users_db), "--app-config", "none")
        kind = catalogue.chat()
        ports: list[int] = []

        def command(port: int, auth_port: int, where: Path) -> list[str]:
            ports.append(auth_port)
            return kind.command(port, auth_port, where)

        with running(replace(kind, command=command), *more) as server:
            for _ in range(options.rounds):
                measure(server, ports[0], options.users)


if __name__ == "__main__":
    main()
