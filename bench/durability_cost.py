"""Measures what the journal, history and open doors cost: servers with and without them get the same traffic in turn.

Prints the median of each server, its CPU time for each message, and the ratio to the first server.

Run: ``python -m bench.durability_cost [--only acks,rooms] [--rounds 3] [--seconds 1] [--before CHECKOUT]``

``--before`` names a checkout of a version without a journal, for what ``--durability snapshot`` costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import catalogue, generator
from bench.generator import Found, Traffic
from bench.scenarios import ingest, rooms
from bench.server import Kind, free_port, running

Figure = Callable[[Found], float]

LATENCY = Traffic(subscribers=100, rate=1_000.0)
FAN_OUT = Traffic(subscribers=100, window=10)


def with_options(kind: Kind, name: str, *options: str) -> Kind:
    """Returns a relay with further options; of an option given twice the last value counts."""
    return replace(kind, name=name, command=lambda port, auth, folder: [*kind.command(port, auth, folder), *options])


def compare(
    what: str, kinds: Sequence[Kind], traffic: Traffic, unit: str, figure: Figure, pace: tuple[int, float]
) -> None:
    """Measures some servers in turn, and prints the figures."""
    rounds, seconds = pace
    found: dict[str, list[Found]] = {kind.name: [] for kind in kinds}
    with ExitStack() as stack:
        servers = [stack.enter_context(running(kind)) for kind in kinds]
        for _ in range(rounds):
            for server in servers:
                found[server.name].append(generator.run(server, traffic, seconds))
    print(f"{what} (load {os.getloadavg()[0]:.0f})", flush=True)
    first = 0.0
    for name, results in found.items():
        value = statistics.median(figure(each) for each in results)
        cpu_us = statistics.median(each.server_cpu_us for each in results)
        first = first or value
        print(f"  {name:28} {value:12,.2f} {unit}  {cpu_us:7.1f} µs of a processor  {value / first:.2f}", flush=True)


def acks(pace: tuple[int, float], before: Path | None) -> None:
    """Measures acknowledged SETs in each mode."""
    relay = catalogue.relay()
    kinds = [with_options(relay, mode, "--durability", mode) for mode in ("snapshot", "kill", "power")]
    if before is not None:
        kinds.insert(0, replace(catalogue.relay(before), name="before"))
    for name, traffic in ((ingest.ONE, Traffic(window=200)), (ingest.FIFTY, Traffic(publishers=50, tail="{pub}"))):
        compare(f"ACKs, {name}", kinds, traffic, "/s", lambda found: found.per_s["acks"], pace)


def fan_out(pace: tuple[int, float], before: Path | None) -> None:
    """Measures the latency of a SET to a hundred subscribers, and deliveries per second."""
    relay = catalogue.relay()
    kinds = [with_options(relay, mode, "--durability", mode) for mode in ("snapshot", "power")]
    compare(
        "1,000 SET/s → 100, p50", kinds, LATENCY, "ms", lambda found: found.latency_ms.get("p50", float("nan")), pace
    )
    if before is not None:
        kinds.insert(0, replace(catalogue.relay(before), name="before"))
    compare("1 → 100, window 10", kinds, FAN_OUT, "deliveries/s", lambda found: found.per_s["deliveries"], pace)


def chat_rooms(pace: tuple[int, float], _before: Path | None) -> None:
    """Measures rooms of the chat, with and without history."""
    chat = with_options(catalogue.chat(), "history off", "--durability", "power", "--history", "off")
    kinds = [chat, with_options(catalogue.chat(), "history on", "--durability", "power")]
    compare(rooms.NAME, kinds, rooms.TRAFFIC, "deliveries/s", lambda found: found.per_s["deliveries"], pace)


def doors(pace: tuple[int, float], _before: Path | None) -> None:
    """Measures fan-out over WebSocket, with all doors open and with none."""
    ports = [word for door in ("mqtt", "osc", "tcp") for word in (f"--{door}-port", str(free_port()))]
    kinds = [replace(catalogue.relay(), name="doors closed"), with_options(catalogue.relay(), "doors open", *ports)]
    compare(
        "1 → 100, window 10, WebSocket", kinds, FAN_OUT, "deliveries/s", lambda found: found.per_s["deliveries"], pace
    )


WORKS = {"acks": acks, "fan-out": fan_out, "rooms": chat_rooms, "doors": doors}


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(prog="python -m bench.durability_cost", description=__doc__)
    parser.add_argument("--only", default=",".join(WORKS), help="what is measured: " + ", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--before", type=Path, help="another checkout, for acks and fan-out")
    arguments = parser.parse_args()
    generator.build()
    for name in arguments.only.split(","):
        WORKS[name]((arguments.rounds, arguments.seconds), arguments.before)


if __name__ == "__main__":
    main()
