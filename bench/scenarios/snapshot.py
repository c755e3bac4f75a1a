"""Longest turn of the event loop while the state file is written under traffic."""

from __future__ import annotations

from bench import generator, turns
from bench.generator import Traffic
from bench.runner import Bench
from bench.scenarios.newcomer import fill
from bench.server import Kind, ServerError, running

GROUP = "snapshot"
PARAMS = 100_000
INTERVAL_S = 3.0
AUDIENCE = Traffic(subscribers=99, publishers=0)
TRAFFIC = Traffic(subscribers=1, rate=1_000.0)
DURING = f"longest turn while {PARAMS:,} params are written"
WITHOUT = "longest turn in the same time without that"


def measure(bench: Bench) -> None:
    """Measures under 1,000 SETs a second to 100 subscribers; each measurement sees two snapshots."""
    seconds = INTERVAL_S * 2.5
    for name, interval_s in ((DURING, INTERVAL_S), (WITHOUT, 3_600.0)):
        row = bench.row(GROUP, name, "ms", more_is_better=False)
        for kind in bench.relays():
            bench.note(f"{name}: {kind.name}")
            try:
                for _ in range(1 if bench.pace.is_quick else min(2, bench.pace.rounds)):
                    row.add(kind.name, _longest_ms(kind, interval_s, seconds))
            except (ServerError, OSError) as error:
                bench.leave_out(f"{name}: {error}")


def _longest_ms(kind: Kind, interval_s: float, seconds: float) -> float:
    options = (*turns.OPTIONS, "--persist-interval", f"{interval_s:g}")
    # Most subscribers connect before the params are set, so that no SNAPSHOTs for them are sent meanwhile.
    with running(kind, *options) as server, generator.idle(server, AUDIENCE):
        fill(server, PARAMS, 120)
        generator.run(server, TRAFFIC, seconds, 1.0, lambda: turns.since_last_time(server))
        return float(turns.since_last_time(server)["longest_ms"])
