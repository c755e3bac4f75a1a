"""Cost of a message as unrelated state grows."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench import core_alone, generator
from bench.generator import Traffic
from bench.runner import Bench
from bench.scenarios.newcomer import fill
from bench.server import Kind, Server, ServerError, running

GROUP = "growth: CPU time per SET to 10 subscribers"
IN_PROCESS = "growth: the core alone, per SET to 10 subscribers"
SIZES = (100, 10_000, 100_000)
ELSEWHERE = "elsewhere-{pub}"
"""The room of a connection unrelated to the traffic."""

TRAFFIC = Traffic(subscribers=10, window=100)
PER_CONNECTION = 1_000
"""The maximum of subscriptions per session."""


def measure(bench: Bench) -> None:
    """Measures the whole relay with growing numbers of params, idle sessions and subscriptions elsewhere."""
    sizes = SIZES[: 2 if bench.pace.is_quick else 3]
    for what, grown in _GROWN.items():
        for kind in bench.relays():
            row = bench.row(GROUP, f"{what}: {kind.name}", "µs", more_is_better=False)
            for size in sizes:
                bench.note(f"{row.name}: {size:,}")
                try:
                    _measure_size(bench, kind, grown, size, row.add)
                except (ServerError, OSError) as error:
                    bench.leave_out(f"{row.name}, {size:,}: {error}")


def measure_in_process(bench: Bench) -> None:
    """Measures the core without sockets: also with more sessions than a process may have."""
    for what, measure_one in core_alone.GROWN.items():
        row = bench.row(IN_PROCESS, what, "µs", more_is_better=False)
        for size in SIZES[: 2 if bench.pace.is_quick else 3]:
            bench.note(f"{IN_PROCESS}, {what}: {size:,}")
            row.add(f"{size:,}", measure_one(size))


def _measure_size(
    bench: Bench,
    kind: Kind,
    grown: Callable[[Server, int], Iterator[None]],
    size: int,
    add: Callable[[str, float], None],
) -> None:
    size = min(size, _sessions_at_most()) if grown is _sessions else size
    with running(kind) as server, contextmanager(grown)(server, size):
        time.sleep(0.5)
        for _ in range(bench.pace.rounds):
            found = bench.measure(server, TRAFFIC)
            add(f"{size:,}", found.server_cpu_us)


def _params(server: Server, size: int) -> Iterator[None]:
    fill(server, size)
    yield


def _sessions(server: Server, size: int) -> Iterator[None]:
    if server.tokens is not None:
        server.tokens.guests(min(size, 1_000))
    with generator.idle(server, Traffic(subscribers=size, publishers=0, room=ELSEWHERE)):
        yield


def _subscriptions(server: Server, size: int) -> Iterator[None]:
    connections = max(1, size // PER_CONNECTION)
    traffic = Traffic(subscribers=connections, publishers=0, room=ELSEWHERE, extra=min(size, PER_CONNECTION) - 1)
    with generator.idle(server, traffic):
        yield


_GROWN = {
    "params": _params,
    "idle sessions": _sessions,
    "subscriptions that do not match": _subscriptions,
}


def _sessions_at_most() -> int:
    """Returns the maximum number of sessions: relay and generator need a file descriptor for each, and some more."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
