"""The measured figures, in the form that the tables need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench import catalogue

SUBJECTS = (catalogue.RELAY, catalogue.CHAT)
"""The server under test; all others are for comparison."""


@dataclass
class Row:
    """One kind of work, measured on several servers in turn, several times.

    Args:
        group: the scenario.
        name: the work.
        unit: the unit of the figures.
        more_is_better: whether a higher figure is the better one.
        samples: the figures of each server or case, one for each round.
        cpu_us: CPU time of the server per message, of each server, one for each round.
        generator_share: the share of the time that the generator was busy, likewise.
    """

    group: str
    name: str
    unit: str
    more_is_better: bool = True
    samples: dict[str, list[float]] = field(default_factory=dict)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    generator_share: dict[str, list[float]] = field(default_factory=dict)

    def add(self, case: str, figure: float, cpu_us: float | None = None, generator_share: float | None = None) -> None:
        """Records the figure of one round."""
        self.samples.setdefault(case, []).append(figure)
        if cpu_us is not None:
            self.cpu_us.setdefault(case, []).append(cpu_us)
        if generator_share is not None:
            self.generator_share.setdefault(case, []).append(generator_share)

    def median(self, case: str) -> float | None:
        """Returns the median of a case, or None when it was not measured."""
        samples = self.samples.get(case)
        return median(samples) if samples else None

    def ratio(self, case: str, peer: str) -> float | None:
        """Returns the median of the rounds' ratios, each of two figures measured in succession."""
        pairs = zip(self.samples.get(case, ()), self.samples.get(peer, ()), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if theirs]
        return median(ratios) if ratios else None


@dataclass
class Report:
    """All figures of one run of the benchmarks.

    Args:
        command: the command line.
        machine: the facts about the machine.
        versions: the version of every server.
        missing: servers and scenarios that were left out, and why.
        rows: the figures.
    """

    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    missing: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    elapsed_s: float = 0.0

    def row(self, name: str) -> Row | None:
        """Returns a row by its name."""
        return next((row for row in self.rows if row.name == name), None)

    def groups(self) -> dict[str, list[Row]]:
        """Returns the rows by scenario, in the order in which they were measured."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.group, []).append(row)
        return groups

    def as_document(self) -> dict[str, Any]:
        """Returns the report as a document for JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Report:
        """Returns the report of a document that ``as_document`` has made."""
        rows = [Row(**row) for row in document.pop("rows")]
        return cls(**document, rows=rows)


def cases(rows: Iterable[Row]) -> list[str]:
    """Returns all cases of some rows, in the order in which they were measured."""
    return list(dict.fromkeys(case for row in rows for case in row.samples))
