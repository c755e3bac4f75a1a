"""Plots the report; needs matplotlib (the extra ``bench``)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.record import Report, Row, cases
from bench.scenarios import fan_out, latency

_COLOURS = {
    "relay": "#1b6ca8",
    "relay, chat policy": "#7fb3d5",
    "nats-server": "#27ae60",
    "mosquitto": "#8e44ad",
    "plain Autobahn": "#95a5a6",
}


def can_be_made() -> bool:
    """Returns whether matplotlib is installed; call it before measuring."""
    return find_spec("matplotlib") is not None


def write(report: Report, folder: Path) -> list[Path]:
    """Writes a PNG for each plotted group.

    Args:
        report: the figures.
        folder: the folder for the files; created if it is missing.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = report.groups()
    written: list[Path] = []
    for group, name, is_log in ((fan_out.GROUP, "fan-out.png", True), (latency.GROUP, "latency.png", True)):
        if group in groups:
            written.append(_bars(groups[group], folder / name, is_log=is_log))
    throughput = [row for row in report.rows if row.group.startswith(("rooms", "ingest", "many"))]
    if throughput:
        written.append(_bars(throughput, folder / "throughput.png", is_log=True))
    growth = [row for row in report.rows if row.group.startswith("growth")]
    if growth:
        written.append(_lines(growth, folder / "growth.png"))
    return written


def _pyplot() -> Any:
    import_module("matplotlib").use("Agg")
    return import_module("matplotlib.pyplot")


def _bars(rows: list[Row], path: Path, *, is_log: bool) -> Path:
    pyplot = _pyplot()
    columns = cases(rows)
    figure, axes = pyplot.subplots(figsize=(10, 1.2 + 0.17 * len(columns) * len(rows) + 0.25 * len(rows)))
    height = 0.8 / len(columns)
    for index, column in enumerate(columns):
        places = [at + index * height for at, row in enumerate(rows) if row.median(column) is not None]
        figures = [value for row in rows if (value := row.median(column)) is not None]
        axes.barh(places, figures, height, label=column, color=_COLOURS.get(column))
    axes.set_yticks([at + 0.4 - height / 2 for at in range(len(rows))], [row.name for row in rows])
    axes.invert_yaxis()
    if is_log:
        axes.set_xscale("log")
    axes.set_xlabel(" or ".join(dict.fromkeys(row.unit for row in rows)))
    return _finish(figure, axes, path)


def _lines(rows: list[Row], path: Path) -> Path:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(10, 5))
    for row in rows:
        figures = [row.median(size) for size in row.samples]
        where = "core alone" if "core" in row.group else "whole relay"
        axes.plot([int(size.replace(",", "")) for size in row.samples], figures, "o-", label=f"{where}, {row.name}")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("how many of them there are")
    axes.set_ylabel("µs per SET to 10 subscribers")
    return _finish(figure, axes, path)


def _finish(figure: Any, axes: Any, path: Path) -> Path:
    axes.legend(fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return path
