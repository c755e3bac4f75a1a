"""WebSocket with all doors open, side by side with a relay without doors: fan-out, and acknowledged SETs.

Usage: ``python -m bench.open_doors [ROUNDS]``; see docs/performance.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from statistics import median

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
    """Measures, and prints each work's ratios; that of the CPU times is more reliable on a busy machine."""
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
            for each in (catalogue.RELAY, OPEN):
                cpu_us = median(row.cpu_us[each])
                print(f"{name}, {each}: {row.median(each):,.0f} {counted}/s, {cpu_us:.1f} µs of CPU time a message")
            pairs = zip(row.cpu_us[OPEN], row.cpu_us[catalogue.RELAY], strict=True)
            cpu = median(theirs / ours for theirs, ours in pairs)
            print(f"{name}: {row.ratio(OPEN, catalogue.RELAY):.2f} × as many, {cpu:.2f} × the CPU time", flush=True)


if __name__ == "__main__":
    main()
