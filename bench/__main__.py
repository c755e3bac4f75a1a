"""Measures the relay side by side with its peers; see docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from bench import catalogue, generator, machine, markdown, plots
from bench.record import Report
from bench.runner import Bench, Pace
from bench.scenarios import SCENARIOS
from bench.server import Kind, ServerError

QUICK = ("fan-out", "ingest", "latency", "newcomer", "memory")
"""The scenarios that ``--quick`` measures."""


def main() -> int:
    """Measures, and writes the requested reports."""
    options = _arguments()
    if options.plots and not plots.can_be_made():
        print("no plots: matplotlib is missing (the extra «bench»)", file=sys.stderr)
        return 1
    # So that SIGTERM ends the servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.read:
        report = Report.from_document(json.loads(options.read.read_text("utf-8")))
    else:
        try:
            report = _measure(options)
        except ServerError as error:
            print(error, file=sys.stderr)
            return 1
    if options.json:
        _write(report, options.json)
    pictures: list[Path] = []
    if options.plots:
        pictures = plots.write(report, options.plots)
    text = "\n".join(markdown.lines(report)) + "\n"
    if options.markdown:
        markdown.write(text + markdown.links(pictures, options.markdown), options.markdown)
    else:
        print(text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of the main scenarios")
    parser.add_argument("--only", action="append", metavar="NAME", choices=SCENARIOS, help=", ".join(SCENARIOS))
    parser.add_argument("--without", action="append", metavar="SERVER", default=[], help="leave a server out")
    parser.add_argument("--also", action="append", metavar="NAME=COMMAND", default=[], help="add a server")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the relay of another checkout, side by side")
    parser.add_argument("--rounds", type=int, help="rounds per work")
    parser.add_argument("--seconds", type=float, help="seconds per measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables, between the markers if FILE has them"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="measure nothing, read the figures from a --json file"
    )
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> Report:
    began_s = time.monotonic()
    generator.build()
    pace = Pace(
        options.rounds or (1 if options.quick else 3), options.seconds or (0.8 if options.quick else 1.2), options.quick
    )
    kinds, missing = _kinds(options)
    versions = {kind.name: kind.version for kind in kinds if kind.version}
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    report = Report(command, machine.describe(), versions)
    bench = Bench(kinds, pace, report)
    for text in missing:
        bench.leave_out(text)
    core = machine.cores()[1]
    if core is not None:
        os.sched_setaffinity(0, {core})
    with bench.all_running():
        for name in options.only or (QUICK if options.quick else SCENARIOS):
            bench.attempt(name, SCENARIOS[name])
            report.elapsed_s = time.monotonic() - began_s
            if options.json:
                _write(report, options.json)  # a run takes half an hour, and may be interrupted
    return report


def _write(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.as_document(), indent=1, ensure_ascii=False) + "\n", "utf-8")


def _kinds(options: argparse.Namespace) -> tuple[list[Kind], list[str]]:
    kinds, missing = catalogue.available()
    kinds += [catalogue.other(text) for text in options.also]
    if options.against is not None:
        checkout = options.against.resolve()
        kinds += [catalogue.relay(checkout), catalogue.chat(checkout)]
    return [kind for kind in kinds if kind.name not in options.without], missing


if __name__ == "__main__":
    sys.exit(main())
