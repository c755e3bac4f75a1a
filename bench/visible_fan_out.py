"""Measures the cost of visibility rules in a fan-out.

Runs two relays with the chat's policy, one of them without its visibility rules and redactions, and has one publisher
send to a room of subscribers at each in turn. Prints deliveries per second, the relay's CPU time for each message, and
the ratio of the CPU times, with the rules to without.

Run: ``python -m bench.visible_fan_out [--subscribers 100] [--rounds 5] [--seconds 1.5]``
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

from bench import catalogue, generator
from bench.generator import Found, Traffic
from bench.server import Kind, Server, running

WITHOUT: dict[str, object] = {"snapshot_visibility": [], "snapshot_transforms": []}


def without_rules(chat: Kind) -> Kind:
    """Returns the same relay with the same policy, but without visibility rules and redactions."""

    def command(port: int, auth_port: int, folder: Path) -> list[str]:
        words = chat.command(port, auth_port, folder)
        config = Path(words[words.index("--app-config") + 1])
        config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | WITHOUT), "utf-8")
        return words

    return replace(chat, name="without visibility rules", command=command)


def works(subscribers: int) -> dict[str, Traffic]:
    """Returns the works by name."""
    return {
        "SET, window 1": Traffic(subscribers=subscribers, window=1),
        "SET, window 10": Traffic(subscribers=subscribers, window=10),
        "SET of 300 B, window 10": Traffic(subscribers=subscribers, window=10, message_bytes=300),
    }


def measure(servers: list[Server], traffic: Traffic, rounds: int, seconds: float) -> list[list[Found]]:
    """Measures the servers in turn, and returns the figures of each."""
    found: list[list[Found]] = [[] for _ in servers]
    for _ in range(rounds):
        for server, results in zip(servers, found, strict=True):
            results.append(generator.run(server, traffic, seconds))
    return found


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    generator.build()
    chat = replace(catalogue.chat(), name="with visibility rules")
    with running(chat) as ruled, running(without_rules(chat)) as free:
        for name, traffic in works(options.subscribers).items():
            print(f"1 → {options.subscribers}, {name}", flush=True)
            costs_us = []
            for server, found in zip(
                (ruled, free), measure([ruled, free], traffic, options.rounds, options.seconds), strict=True
            ):
                costs_us.append(statistics.median(each.server_cpu_us for each in found))
                delivered = statistics.median(each.per_s["deliveries"] for each in found)
                print(f"  {server.name:24} {delivered:10,.0f} deliveries/s {costs_us[-1]:8.1f} µs CPU a message")
            print(f"  with the rules {costs_us[0] / costs_us[1]:.2f} times the CPU time", flush=True)


if __name__ == "__main__":
    main()
