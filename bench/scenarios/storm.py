"""Connection storm: all clients reconnect at once."""

from __future__ import annotations

from bench import catalogue
from bench.generator import Found, Traffic
from bench.runner import Bench
from bench.server import Server

CONNECTIONS = 2_000
NAME = f"{CONNECTIONS:,} connections at once, 500 at a time"


def measure(bench: Bench) -> None:
    """Measures connections per second, each up to the answer to its first message; with accounts each has a token."""
    row = bench.row("connection storm", NAME, "connections/s")

    def note(server: Server, found: Found) -> None:
        row.add(server.name, found.connects_per_s)

    # Fresh servers, since HELLO may be answered with all params, those that other works have left included.
    with bench.fresh_servers() as servers:
        for server in servers:
            if server.tokens is not None:
                bench.note(f"{CONNECTIONS} guests for {catalogue.CHAT}")
                server.tokens.guests(CONNECTIONS)
        traffic = Traffic(subscribers=CONNECTIONS, publishers=0, concurrency=500)
        bench.in_turn(NAME, servers, traffic, note, 0.0)
