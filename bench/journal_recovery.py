"""Measures how long a relay takes to start from a journal alone, and how much memory that needs.

Writes a journal of changes to some addresses, starts a relay on it, and prints the duration of the recovery, the time
until the relay listens, the CPU time for that, and its resident memory.

Run: ``python -m bench.journal_recovery [--rows 1000000] [--params 100000] [--folder DIR]``
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clasp_relay.core.records import Change, Param
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.values import encode_value

BATCH = 1_000
TIME_US = 1_700_000_000_000_000
WRITER = "0d1f6f54-6a43-4d4e-a2fb-6a8ba7b2d1a9"

_RECOVERED = re.compile(r"([0-9]+) changes after the state file applied in ([0-9]+) ms")


def write_journal(path: Path, rows: int, params: int) -> None:
    """Writes a journal in which all addresses are set equally often, to a short text."""
    journal = open_journal(path, syncs_each_commit=False)
    for begin in range(0, rows, BATCH):
        journal.write(
            [
                Entry(number + 1, _change(number, number % params, number // params + 1))
                for number in range(begin, min(begin + BATCH, rows))
            ]
        )
    journal.close()


def _change(number: int, address: int, revision: int) -> Change:
    value = encode_value(f"the text number {number}, of a usual length")
    return Change(Param(f"/bench/group{address % 97}/param{address}", value, revision, WRITER, TIME_US + number))


def start(folder: Path) -> str:
    """Starts a relay on the folder, stops it, and returns its figures in one line.

    Raises:
        SystemExit: it does not start.
    """
    options = ["--host", "127.0.0.1", "--port", "0", "--auth-port", "0", "--data-dir", str(folder)]
    began_s = time.perf_counter()
    relay = subprocess.Popen(
        [sys.executable, "-c", "from clasp_relay.cli import main; main()", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert relay.stdout is not None, "the log goes to a pipe"
    said = ""
    for line in relay.stdout:
        said += line
        if " listens on " in line:
            break
    else:
        raise SystemExit("the relay did not start:\n" + said)
    took_s = time.perf_counter() - began_s
    ticks = Path(f"/proc/{relay.pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{relay.pid}/status").read_text("ascii")
    memory = {name: int(re.findall(rf"{name}:\s+([0-9]+)", status)[0]) / 1024 for name in ("VmHWM", "VmRSS")}
    relay.terminate()
    relay.communicate()
    found = _RECOVERED.search(said)
    if found is None:
        raise SystemExit("the relay has recovered nothing:\n" + said)
    return (
        f"{found[1]} rows recovered in {int(found[2]) / 1000:.1f} s; listening after {took_s:.1f} s ({cpu_s:.1f} s "
        f"of a processor); "
        f"{memory['VmHWM']:.0f} MiB at most, {memory['VmRSS']:.0f} MiB when it listens"
    )


def main() -> None:
    """Measures once and prints one line."""
    parser = argparse.ArgumentParser(prog="python -m bench.journal_recovery", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--params", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, help="where the journal is made; default: the folder for temporary files"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        write_journal(Path(name, "journal.db"), arguments.rows, arguments.params)
        print(start(Path(name)))


if __name__ == "__main__":
    main()
