"""Writes the report as Markdown tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench import catalogue
from bench.record import SUBJECTS, Report, Row, cases
from bench.targets import verdicts

BEGIN, END = "<!-- figures: written by python -m bench -->", "<!-- end of the figures -->"
"""The markers: the two lines of a document that enclose the tables."""

_WORDS = {True: "met", False: "**not met**", None: "–"}
_BUSY = 0.9


def write(text: str, path: Path) -> None:
    """Writes the tables between a document's markers, or as the whole file if it has none."""
    if path.exists():
        document = path.read_text("utf-8")
        before, begin, rest = document.partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and end:
            text = f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"
    path.write_text(text, "utf-8")


def links(pictures: list[Path], document: Path) -> str:
    """Returns the Markdown that shows pictures in a document."""
    folder = document.resolve().parent
    paths = [(picture.stem, os.path.relpath(picture.resolve(), folder)) for picture in pictures]
    return "".join(f"\n![{name}]({path})\n" for name, path in paths)


def lines(report: Report) -> Iterator[str]:
    """Yields the report's lines."""
    yield f"`{report.command}`, {report.elapsed_s / 60:.0f} min"
    yield ""
    for what, text in (report.machine | report.versions).items():
        yield f"- {what}: {text}"
    for text in report.missing:
        yield f"- left out: {text}"
    yield ""
    yield from _targets(report)
    for group, rows in report.groups().items():
        yield f"### {group[0].upper()}{group[1:]}"
        yield ""
        yield from _group(rows)
        yield ""


def _targets(report: Report) -> Iterator[str]:
    yield "### Targets"
    yield ""
    yield "| work | compared with | must be | is | |"
    yield "|---|---|---|---|---|"
    for verdict in verdicts(report):
        cells = (verdict.work, verdict.compared_with, verdict.bound, verdict.found, _WORDS[verdict.is_met])
        yield f"| {' | '.join(cells)} |"
    yield ""


def _group(rows: list[Row]) -> Iterator[str]:
    columns = cases(rows)
    subject = next((each for each in SUBJECTS if each in columns), None)
    if subject is None:
        yield from _growth(rows, columns)
        return
    compared = list(_compared(subject, columns))
    heads = ["work", "unit", *columns, *(_ratio_head(*pair) for pair in compared)]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        ratios = (row.ratio(*pair) for pair in compared)
        cells = [row.name, row.unit, *(_figure(row, column) for column in columns)]
        cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        yield f"| {' | '.join(cells)} |"


def _compared(subject: str, columns: list[str]) -> Iterator[tuple[str, str]]:
    """Yields what is divided by what: the relay by its peers, and by another version of it in the same mode."""
    for column in columns:
        same_mode = column.removesuffix(catalogue.BEFORE)
        if column == subject:
            continue
        if column in SUBJECTS:
            yield column, subject
        elif column == same_mode:
            yield subject, column
        elif same_mode in columns:
            yield same_mode, column


def _ratio_head(case: str, peer: str) -> str:
    if (case, peer) == (catalogue.CHAT, catalogue.RELAY):
        return "policy ÷ open"
    return f"{case} ÷ {peer}"


def _growth(rows: list[Row], columns: list[str]) -> Iterator[str]:
    columns = sorted(columns, key=lambda size: int(size.replace(",", "")))
    yield f"| with so many | unit | {' | '.join(columns)} | last ÷ first |"
    yield "|" + "---|" * (len(columns) + 3)
    for row in rows:
        medians = [row.median(column) for column in columns]
        known = [figure for figure in medians if figure is not None]
        slope = f"{known[-1] / known[0]:.2f}" if len(known) > 1 and known[0] else ""
        cells = ["" if figure is None else f"{figure:.2f}" for figure in medians]
        yield f"| {row.name} | {row.unit} | {' | '.join(cells)} | {slope} |"


def _figure(row: Row, column: str) -> str:
    figure = row.median(column)
    if figure is None:
        return ""
    text = f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"
    share = row.generator_share.get(column)
    # With a busy generator, the server may be able to do more than could be measured.
    return f"{text} ›" if share and min(share) > _BUSY and column != catalogue.PLAIN else text
