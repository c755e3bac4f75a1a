"""The state file is written while there is traffic: how long is the longest turn of the event loop?"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from bench import generator
from bench.generator import Traffic
from bench.runner import Bench
from bench.scenarios.newcomer import fill
from bench.server import Kind, Server, ServerError, running

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
    options = ("--turns", "{folder}/turns", "--persist-interval", f"{interval_s:g}")
    # Most of those who listen are there before the params are, so that no snapshots for newcomers are on their way.
    with running(kind, *options) as server, generator.idle(server, AUDIENCE):
        fill(server, PARAMS, 120)
        generator.run(server, TRAFFIC, seconds, 1.0, lambda: _turns(server))
        return float(_turns(server)["longest_ms"])


def _turns(server: Server) -> dict[str, float]:
    """Returns what the relay measured since the last time."""
    path = Path(server.folder, "turns")
    path.unlink(missing_ok=True)
    server.signal(signal.SIGUSR1)
    end = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > end:
            raise ServerError(f"{server.name}: the event loop does not turn")
        time.sleep(0.02)
    report: dict[str, float] = json.loads(path.read_text("ascii"))
    return report
