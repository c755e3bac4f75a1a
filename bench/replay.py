"""Measures REPLAY over a journal with many entries: from the request to the end mark, on one connection.

Writes a journal of events of 300 bytes at a thousand addresses in a hundred groups, starts a relay on it, and asks for
1,000 entries of different patterns, several times each.

Run: ``python -m bench.replay [--entries 1000000] [--rounds 5] [--folder DIR]``
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.client import Client
from clasp_relay.access.policy.history_rules import HistoryRules, open_entries
from clasp_relay.core.history.reading import NEWEST
from clasp_relay.core.history.replays import END_MARK
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.codec import encode
from clasp_relay.wire.messages import Publish, Replay
from clasp_relay.wire.values import encode_value

BATCH = 1_000
ADDRESSES, GROUPS = 1_000, 100
LIMIT = 1_000
TIME_US = 1_700_000_000_000_000
PATTERNS = {
    "one address": "/bench/g7/r7/messages",
    "wildcards, one address matches": "/bench/*/r7/messages",
    "wildcards, 10 addresses match": "/bench/g7/*/messages",
    "wildcards, nothing matches": "/bench/*/nobody/*",
    "everything": "/bench/**",
}


def write_journal(path: Path, entries: int) -> None:
    """Writes a journal in which all addresses have equally many entries, in turn."""
    journal = open_journal(path, syncs_each_commit=False)
    rules = HistoryRules(open_entries())
    journal.history.begin(rules.limits, rules.fingerprint, lambda _: None)
    for begin in range(0, entries, BATCH):
        journal.write([_entry(number) for number in range(begin, min(begin + BATCH, entries))])
    journal.close()


def _entry(number: int) -> Entry:
    room = number % ADDRESSES
    address = f"/bench/g{room % GROUPS}/r{room}/messages"
    time_us = TIME_US + number * 1_000
    message = Publish(address, value=encode_value("x" * 300), timestamp_us=time_us)
    return Entry(
        number + 1, Change(no_param(address, "w", "", time_us), ChangeKind.EVENT, message=message), f"0:{address}"
    )


@contextmanager
def relay(folder: Path) -> Iterator[int]:
    """Runs a relay on the folder; yields its port.

    Raises:
        SystemExit: it does not start.
    """
    options = ["--host", "127.0.0.1", "--port", "0", "--auth-port", "0", "--data-dir", str(folder)]
    options += ["--journal", str(folder / "journal.db"), "--journal-max-bytes", str(8 << 30)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from clasp_relay.cli import main; main()", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None, "the log goes to a pipe"
    said = ""
    try:
        for line in process.stdout:
            said += line
            if found := re.search(r"listens on [^ ]*:([0-9]+)", line):
                yield int(found[1])
                return
        raise SystemExit("the relay did not start:\n" + said)
    finally:
        process.terminate()
        process.communicate()


def ask(client: Client, payloads: Iterator[bytes], pattern: str, *, is_newest: bool) -> tuple[float, int]:
    """Asks for a page of history; returns how many seconds it took and how many entries came."""
    began_s = time.perf_counter()
    client.send(encode(Replay(pattern, NEWEST if is_newest else None, None, LIMIT)))
    count = 0
    for payload in payloads:
        if END_MARK.encode() in payload:
            return time.perf_counter() - began_s, count
        count += payload.startswith(b"\x20")
    raise AssertionError("payloads end with an exception")


def main() -> None:
    """Measures, and prints a line for each pattern."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the journal is made; default: that for temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        write_journal(Path(name, "journal.db"), arguments.entries)
        with relay(Path(name)) as port:
            client = Client(port)
            client.hello()
            payloads = client.payloads()
            for about, pattern in PATTERNS.items():
                for is_newest in (False, True):
                    found = [ask(client, payloads, pattern, is_newest=is_newest) for _ in range(arguments.rounds)]
                    times_ms = [took_s * 1_000 for took_s, _ in found]
                    print(
                        f"{about}, {'newest' if is_newest else 'oldest'}: {found[0][1]} entries, the first time "
                        f"{times_ms[0]:.0f} ms, median {statistics.median(times_ms):.0f} ms "
                        f"(load {os.getloadavg()[0]:.0f})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
