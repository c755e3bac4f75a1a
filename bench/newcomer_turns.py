"""Measures the longest turn of the event loop while a newcomer gets 100,000 params.

Run: ``python -m bench.newcomer_turns [--rounds N]``
"""

from __future__ import annotations

import argparse

from bench import catalogue, turns
from bench.scenarios.newcomer import fill, newcomer_ms
from bench.server import running

PARAMS = 100_000


def main() -> None:
    """Measures the relay in open mode, and with tokens and the chat policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="number of rounds (default 6)")
    options = parser.parse_args()
    for kind in (catalogue.relay(), catalogue.chat()):
        with running(kind, *turns.OPTIONS) as server:
            fill(server, PARAMS)
            if server.tokens is not None:
                server.tokens.guests(2)
            for _ in range(options.rounds):
                turns.since_last_time(server)
                all_ms = newcomer_ms(server, PARAMS)
                found = turns.since_last_time(server)
                print(f"{kind.name}: all {all_ms:.0f} ms, {found['turns']} turns, longest {found['longest_ms']:.1f} ms")


if __name__ == "__main__":
    main()
