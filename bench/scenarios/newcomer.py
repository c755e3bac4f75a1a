"""Time until a newcomer to a relay with many params has received them all."""

from __future__ import annotations

import time

from bench import generator
from bench.client import SNAPSHOT, Client
from bench.generator import Traffic
from bench.runner import Bench
from bench.server import Kind, Server, ServerError, running

GROUP = "newcomer"
PARAMS = (10_000, 100_000)
REPEATS = 5
STOCK = "stock"


def name_of(params: int) -> str:
    """Returns the name of a row."""
    return f"{params:,} params, HELLO to last SNAPSHOT"


def fill(server: Server, params: int, message_bytes: int = 0) -> None:
    """Sets params, all in one room, where nothing else happens."""
    traffic = Traffic(
        window=200, total=params, distinct=params, tail="{h}/{n}", room=STOCK, message_bytes=message_bytes
    )
    generator.run(server, traffic, 0.0, 0.0)


def measure(bench: Bench) -> None:
    """Measures only the relay, since its peers keep no state."""
    for params in PARAMS[: 1 if bench.pace.is_quick else 2]:
        row = bench.row(GROUP, name_of(params), "ms", more_is_better=False)
        for kind in bench.relays():
            bench.note(f"{row.name}: {kind.name}")
            try:
                for figure in _measure_kind(kind, params):
                    row.add(kind.name, figure)
            except (ServerError, OSError) as error:
                bench.leave_out(f"{row.name}: {error}")


def _measure_kind(kind: Kind, params: int) -> list[float]:
    with running(kind) as server:
        fill(server, params)
        return [newcomer_ms(server, params) for _ in range(REPEATS)]


def newcomer_ms(server: Server, params: int) -> float:
    """Connects once. If HELLO returns no params, it enters the room and subscribes, as the chat does."""
    client = Client(server.port)
    began_s = time.perf_counter()
    if server.tokens is None:
        client.hello()
    else:
        token, user = server.tokens.guests(2)[1]
        client.hello(token)
        client.set_name(f"/chat/room/{STOCK}/presence/{user}", "newcomer")
        client.subscribe(f"/chat/room/{STOCK}/reactions/**")
    got = 0
    for payload in client.payloads():
        if payload[0] == SNAPSHOT:
            got += payload[1] << 8 | payload[2]
            if got >= params:
                break
    elapsed_ms = (time.perf_counter() - began_s) * 1e3
    client.close()
    time.sleep(0.1)
    return elapsed_ms
