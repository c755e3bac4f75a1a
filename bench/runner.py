"""Parameters and helpers of every scenario: servers, durations, rounds, measuring."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import generator
from bench.generator import Found, Traffic
from bench.record import Report, Row
from bench.server import Kind, Server, ServerError, running

GAP_S = 0.25
"""Pause between two measurements in seconds, in which the servers close the connections of the first one."""


@dataclass(frozen=True)
class Pace:
    """How much is measured.

    Args:
        rounds: how often each work is measured on each server.
        seconds: the duration of each measurement.
        is_quick: whether only the most important works are measured.
    """

    rounds: int
    seconds: float
    is_quick: bool


class Bench:
    """The running servers and the report.

    Args:
        kinds: the servers to compare.
        pace: how much is measured.
        report: gets the figures.
    """

    def __init__(self, kinds: list[Kind], pace: Pace, report: Report) -> None:
        self.kinds = kinds
        self.pace = pace
        self.report = report
        self.servers: list[Server] = []
        """The servers that run all the time; idle ones cost nothing."""

    @contextmanager
    def all_running(self) -> Iterator[None]:
        """Runs every server while the block runs."""
        with self.fresh_servers() as self.servers:
            yield
        self.servers = []

    @contextmanager
    def fresh_servers(self) -> Iterator[list[Server]]:
        """Runs another instance of every server while the block runs, for figures that earlier works would affect."""
        with ExitStack() as stack:
            yield [stack.enter_context(running(kind)) for kind in self.kinds]

    def has(self, name: str) -> bool:
        """Tells whether there is a server of that name."""
        return any(kind.name == name for kind in self.kinds)

    def kind(self, name: str) -> Kind:
        """Returns a kind of server by its name."""
        return next(kind for kind in self.kinds if kind.name == name)

    def relays(self) -> list[Kind]:
        """Returns the kinds that are the relay itself."""
        return [kind for kind in self.kinds if kind.takes_options]

    def row(self, group: str, name: str, unit: str, *, more_is_better: bool = True) -> Row:
        """Begins a row of the report."""
        row = Row(group, name, unit, more_is_better)
        self.report.rows.append(row)
        return row

    def note(self, text: str) -> None:
        """Prints progress."""
        print(text, file=sys.stderr, flush=True)

    def leave_out(self, what: str) -> None:
        """Records a measurement that failed, and why."""
        self.note(f"left out: {what}")
        self.report.missing.append(what)

    def attempt(self, name: str, scenario: Callable[[Bench], None]) -> None:
        """Measures a scenario; if it fails, it is left out and the others still run."""
        try:
            scenario(self)
        except (ServerError, OSError, subprocess.SubprocessError) as error:
            self.leave_out(f"{name}: {error}")

    def measure(self, server: Server, traffic: Traffic, seconds: float | None = None, warm_s: float = 0.4) -> Found:
        """Runs traffic once, after a pause."""
        time.sleep(GAP_S)
        return generator.run(server, traffic, self.pace.seconds if seconds is None else seconds, warm_s)

    def compare(
        self,
        group: str,
        name: str,
        traffic: Traffic,
        counted: str,
        *,
        without: Iterable[str] = (),
        seconds: float | None = None,
    ) -> Row:
        """Measures one work on every server in turn, as many rounds as asked for.

        Args:
            group: the scenario.
            name: the work.
            traffic: the work.
            counted: ``sent``, ``acks`` or ``deliveries``.
            without: servers that are left out.
            seconds: the duration of each measurement; None for the usual one.
        """
        row = self.row(group, name, f"{counted}/s")
        skipped = set(without)

        def note(server: Server, found: Found) -> None:
            row.add(server.name, found.per_s[counted], found.server_cpu_us, found.generator_share)

        self.in_turn(name, [server for server in self.servers if server.name not in skipped], traffic, note, seconds)
        return row

    def in_turn(
        self,
        name: str,
        servers: list[Server],
        traffic: Traffic,
        note: Callable[[Server, Found], None],
        seconds: float | None = None,
    ) -> None:
        """Measures one work on servers in turn, so that other load affects all of them alike."""
        self.note(name)
        failed: set[str] = set()
        for _ in range(self.pace.rounds):
            for server in servers:
                if server.name in failed:
                    continue
                try:
                    note(server, self.measure(server, traffic, seconds))
                except ServerError as error:
                    failed.add(server.name)
                    self.leave_out(f"{name}: {error}")
