"""Memory per connection and per param."""

from __future__ import annotations

import time

from bench import generator
from bench.generator import Traffic
from bench.runner import Bench
from bench.scenarios.newcomer import fill
from bench.server import Kind, ServerError, running

GROUP = "memory"
CONNECTION = "idle connection"
PARAM = "small param"


def measure(bench: Bench) -> None:
    """Measures how much the resident memory of a fresh server rises."""
    connections, params = (500, 20_000) if bench.pace.is_quick else (2_000, 100_000)
    row = bench.row(GROUP, CONNECTION, "B", more_is_better=False)
    for kind in bench.kinds:
        bench.note(f"{CONNECTION}: {kind.name}")
        try:
            row.add(kind.name, _per_connection(kind, connections))
        except (ServerError, OSError) as error:
            bench.leave_out(f"{CONNECTION}: {error}")
    row = bench.row(GROUP, PARAM, "B", more_is_better=False)
    for kind in bench.relays():
        bench.note(f"{PARAM}: {kind.name}")
        try:
            row.add(kind.name, _per_param(kind, params))
        except (ServerError, OSError) as error:
            bench.leave_out(f"{PARAM}: {error}")


def _per_connection(kind: Kind, count: int) -> float:
    with running(kind) as server:
        # So that one-time allocations are not counted.
        with generator.idle(server, Traffic(subscribers=20, publishers=0)):
            pass
        if server.tokens is not None:
            server.tokens.guests(count)
        time.sleep(0.5)
        before = server.rss_bytes
        with generator.idle(server, Traffic(subscribers=count, publishers=0)):
            time.sleep(0.5)
            return (server.rss_bytes - before) / count


def _per_param(kind: Kind, count: int) -> float:
    with running(kind) as server:
        fill(server, 200)
        before = server.rss_bytes
        fill(server, count)
        return (server.rss_bytes - before) / count
