"""Measures the throughput of several relays on one machine, each with its own rooms.

Runs one relay for each core, and a load generator on the same core for each: first one such pair alone, then more of
them at the same time. Relays share nothing: a client sees what goes on at the relay that it is connected to.

Run: ``python -m bench.several_processes [--rounds 5] [--seconds 2]``
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench import catalogue, generator
from bench.generator import Traffic
from bench.scenarios import fan_out, ingest, rooms
from bench.server import Server, running

WORKS = {
    fan_out.name_of(0, 100, 100): Traffic(subscribers=100, window=100),
    rooms.NAME: rooms.TRAFFIC,
    f"SET and ACK, {ingest.ONE}": Traffic(window=200),
}


def measure(servers: list[Server], cores: list[int], traffic: Traffic, seconds: float) -> float:
    """Returns messages per second of all servers together, each with its own load at the same time."""
    with ThreadPoolExecutor(len(servers)) as pool:
        runs = [
            pool.submit(generator.run, server, traffic, seconds, core=core)
            for server, core in zip(servers, cores, strict=False)
        ]
        return sum(run.result().per_s["sent"] for run in runs)


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    generator.build()
    with ExitStack() as stack:
        servers = [stack.enter_context(running(catalogue.relay())) for _ in cores]
        for server, core in zip(servers, cores, strict=True):
            os.sched_setaffinity(server.process.pid, {core})
        for name, traffic in WORKS.items():
            found = [
                [measure(servers[: count + 1], cores, traffic, options.seconds) for count in range(len(cores))]
                for _ in range(options.rounds)
            ]
            print(name)
            for count in range(len(cores)):
                per_s = statistics.median(figures[count] for figures in found)
                ratio = statistics.median(figures[count] / figures[0] for figures in found)
                print(f"  {count + 1} on as many cores: {per_s:9,.0f} messages/s, {ratio:.2f} ×", flush=True)


if __name__ == "__main__":
    main()
