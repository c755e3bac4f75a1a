"""Measures the cost of metrics: fan-out with the health port read every second, and without it, in turn.

The relay counts in either case; ``--against`` adds a version of the relay that counts less or nothing. The server's CPU
time for each message is compared, since other load on the machine changes it less than the throughput.

Run: ``python -m bench.metrics_cost [--against COMMIT] [--rounds 7] [--seconds 2] [--subscribers 100] [--window 10]``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench import catalogue, generator
from bench.generator import Traffic
from bench.paths import ROOT
from bench.server import Kind, Server, free_port, running

READ_EVERY_S = 1.0
"""Prometheus's usual interval is 15 s."""

OFF, ON = "health port off", "health port on, read every second"


def older(commit: str, folder: Path) -> Kind:
    """Returns the relay of a commit, and puts its sources into a folder."""
    archive = subprocess.run(["git", "archive", commit, "src", "bench"], capture_output=True, cwd=ROOT, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as sources:
        sources.extractall(folder, filter="data")
    kind = catalogue.relay()
    return replace(
        kind, name=f"commit {commit}", environment={**kind.environment, "PYTHONPATH": f"{folder / 'src'}:{folder}"}
    )


@contextmanager
def reading(port: int) -> Iterator[None]:
    """Reads the metrics every second while the block runs."""
    done = threading.Event()

    def read() -> None:
        while not done.wait(READ_EVERY_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def compare(servers: dict[str, Server], port: int, traffic: Traffic, rounds: int, seconds: float) -> None:
    """Measures every server in turn, and prints the figures."""
    cpu_us: dict[str, list[float]] = {name: [] for name in servers}
    per_s: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds):
        # Each is first as often as it is last.
        for name in sorted(servers, reverse=number % 2 == 1):
            with reading(port) if name == ON else contextlib.nullcontext():
                found = generator.run(servers[name], traffic, seconds)
            cpu_us[name].append(found.server_cpu_us)
            per_s[name].append(found.per_s["deliveries"])
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    for name in servers:
        ratios = [mine / other for mine, other in zip(cpu_us[ON], cpu_us[name], strict=True)]
        print(
            f"{name}: {median(per_s[name]):,.0f} deliveries/s, {median(cpu_us[name]):.1f} µs of CPU a message; "
            f"with the health port on {100 * (median(ratios) - 1):+.1f} % "
            f"({100 * (min(ratios) - 1):+.1f} to {100 * (max(ratios) - 1):+.1f})"
        )


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="also compare with this version of the relay")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--window", type=int, default=10)
    asked = parser.parse_args()
    traffic = Traffic(subscribers=asked.subscribers, window=asked.window)
    kind = catalogue.relay()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = {
            ON: stack.enter_context(running(kind, "--health-port", str(port))),
            OFF: stack.enter_context(running(kind)),
        }
        if asked.against is not None:
            old = older(asked.against, Path(folder))
            servers[old.name] = stack.enter_context(running(old))
        compare(servers, port, traffic, asked.rounds, asked.seconds)


if __name__ == "__main__":
    main()
