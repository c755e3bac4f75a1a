"""WebSocket with all doors open, side by side with the relay that has none: fan-out, and SETs that are acknowledged.

Usage: ``python -m bench.open_doors [ROUNDS]``; see docs/performance.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from bench import catalogue, generator, machine
from bench.generator import Traffic
from bench.record import Report
from bench.runner import Bench, Pace
from bench.scenarios import fan_out, ingest

ROUNDS = 7
OPEN = "doors open"
DOORS = ("--mqtt-port", "0", "--osc-port", "0", "--osc-tcp-port", "0", "--tcp-port", "0")
WORKS = (
    (fan_out.name_of(0, 100, 10), Traffic(subscribers=100, window=10), "deliveries"),
    (f"SET and ACK, {ingest.ONE}", Traffic(window=200), "acks"),
)


def main() -> None:
    """Measures, and prints the ratio of each work."""
    generator.build()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    closed = catalogue.relay()
    opened = replace(closed, name=OPEN, command=lambda *where: [*closed.command(*where), *DOORS])
    bench = Bench([closed, opened], Pace(rounds, 1.2, False), Report("", {}, {}))
    core = machine.cores()[1]
    if core is not None:
        os.sched_setaffinity(0, {core})
    with bench.all_running():
        for name, traffic, counted in WORKS:
            row = bench.compare("doors", name, traffic, counted)
            figures = ", ".join(f"{each} {row.median(each) or 0:,.0f} {counted}/s" for each in (catalogue.RELAY, OPEN))
            print(f"{name}: {figures}: {row.ratio(OPEN, catalogue.RELAY) or 0:.2f} ×", flush=True)


if __name__ == "__main__":
    main()
