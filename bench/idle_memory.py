"""Prints the memory of an idle connection: the rise of a fresh relay's resident memory per connection.

Run: ``python -m bench.idle_memory [CONNECTIONS]``. Each connection is upgraded, past HELLO, and subscribed to a room.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.client import SNAPSHOT, Client

ROOT = Path(__file__).parent.parent
WARM_UP = 50
"""Connections before the first measurement, so that one-time allocations are not counted."""

_LISTENS = re.compile(r"listens on [0-9.]+:(\d+) for WebSocket connections")


def connect(port: int, count: int) -> list[Client]:
    """Connects clients, and returns them live and subscribed."""
    clients = []
    for number in range(count):
        client = Client(port)
        client.hello()
        # A ping may come first, which has no payload.
        next(payload for payload in client.payloads() if payload[:1] == bytes((SNAPSHOT,)))
        client.subscribe(f"/room/{number // 20}/**")
        clients.append(client)
    return clients


def rss_bytes(pid: int) -> int:
    """Returns a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def main() -> None:
    """Measures once and prints one line."""
    count = int(sys.argv[1]) if sys.argv[1:] else 2_000
    files = count + WARM_UP + 100
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files if hard == resource.RLIM_INFINITY else min(files, hard), hard))
    with tempfile.TemporaryDirectory() as folder:
        options = ["--host", "127.0.0.1", "--port", "0", "--auth-port", "0", "--max-sessions", str(files)]
        log = Path(folder, "log")
        with log.open("wb") as output:
            relay = subprocess.Popen(
                [sys.executable, "-c", "from clasp_relay.cli import main; main()", *options, "--data-dir", folder],
                cwd=ROOT,
                stdout=output,
            )
        try:
            while (found := _LISTENS.search(log.read_text("utf-8"))) is None:
                if relay.poll() is not None:
                    raise SystemExit("the relay did not start")
                time.sleep(0.05)
            port = int(found[1])
            warm = connect(port, WARM_UP)
            time.sleep(0.5)
            before_bytes, began_s = rss_bytes(relay.pid), time.perf_counter()
            clients = connect(port, count)
            took_s = time.perf_counter() - began_s
            time.sleep(0.5)
            each = (rss_bytes(relay.pid) - before_bytes) / count
            print(f"{each:.0f} bytes per idle connection ({count} connections, {count / took_s:.0f} made per second)")
            for client in (*warm, *clients):
                client.close()
        finally:
            relay.terminate()
            relay.wait()


if __name__ == "__main__":
    main()
