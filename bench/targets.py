"""The relay's performance targets, and whether it meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import catalogue
from bench.record import Report, Row
from bench.scenarios import fan_out, ingest, latency, memory, newcomer, rooms, snapshot


@dataclass(frozen=True)
class Verdict:
    """One line of the table of targets.

    Args:
        work: the measured work.
        compared_with: a peer, or nothing.
        bound: the target, in words.
        found: the figure, in words.
        is_met: whether the figure meets the target; None if it was not measured.
    """

    work: str
    compared_with: str
    bound: str
    found: str
    is_met: bool | None


_RATIOS: tuple[tuple[str, str, float], ...] = (
    (fan_out.name_of(0, 100, 10), catalogue.NATS, 0.8),
    (fan_out.name_of(0, 100, 100), catalogue.NATS, 1.2),
    (fan_out.name_of(0, 1000, 10), catalogue.NATS, 1.0),
    (fan_out.name_of(0, 100, 1), catalogue.MOSQUITTO, 1.0),
    (ingest.ONE, catalogue.MOSQUITTO, 1.0),
    (ingest.FIFTY, catalogue.MOSQUITTO, 0.5),
)
"""Work, peer, and the minimum ratio of the relay's figure to the peer's."""

_LIMITS: tuple[tuple[str, str, float, str], ...] = (
    (newcomer.GROUP, newcomer.name_of(10_000), 25.0, "ms"),
    (memory.GROUP, memory.CONNECTION, 12_000.0, "B"),
    (memory.GROUP, memory.PARAM, 600.0, "B"),
    (snapshot.GROUP, snapshot.DURING, 20.0, "ms"),
)
"""Scenario, work, and the maximum of the relay's figure, with its unit."""

_P99_AT_MOST = 2.0
_WITH_POLICY_AT_LEAST = 0.7
_THROUGHPUT = (fan_out.GROUP, "rooms", "ingest (SET and ACK)", "many to one", "connection storm")


def verdicts(report: Report) -> Iterator[Verdict]:
    """Yields the table of targets."""
    for work, peer, bound in _RATIOS:
        yield _ratio(report.row(work), work, catalogue.RELAY, peer, bound)
    for row in report.groups().get(fan_out.GROUP, []):
        bound = 2.0 if row.name.endswith("window 1") else 5.0
        yield _ratio(row, row.name, catalogue.RELAY, catalogue.PLAIN, bound)
    work = latency.name_of_row(latency.GIVEN, "p99")
    yield _ratio(report.row(work), work, catalogue.RELAY, catalogue.NATS, _P99_AT_MOST, is_enough=_at_most)
    yield from _with_policy(report)
    for group, work, bound, unit in _LIMITS:
        for subject in (catalogue.RELAY, catalogue.CHAT):
            limited = report.row(work)
            found = None if limited is None else limited.median(subject)
            yield Verdict(
                f"{group}: {work}" if subject == catalogue.RELAY else f"{group}: {work}: {subject}",
                "",
                f"at most {bound:,.0f} {unit}",
                "not measured" if found is None else f"{found:,.1f} {unit}",
                None if found is None else found <= bound,
            )


def _with_policy(report: Report) -> Iterator[Verdict]:
    for row in report.rows:
        if row.group in _THROUGHPUT and row.name != rooms.NAME:
            yield _ratio(row, row.name, catalogue.CHAT, catalogue.RELAY, _WITH_POLICY_AT_LEAST)
    yield _ratio(report.row(rooms.NAME), rooms.NAME, catalogue.CHAT, catalogue.RELAY, _WITH_POLICY_AT_LEAST)


def _at_least(found: float, bound: float) -> bool:
    return found >= bound


def _at_most(found: float, bound: float) -> bool:
    return found <= bound


def _ratio(
    row: Row | None,
    work: str,
    subject: str,
    peer: str,
    bound: float,
    is_enough: Callable[[float, float], bool] = _at_least,
) -> Verdict:
    found = None if row is None else row.ratio(subject, peer)
    return Verdict(
        work if subject == catalogue.RELAY else f"{work}: {subject}",
        peer,
        f"{'at least' if is_enough is _at_least else 'at most'} {bound:g} ×",
        "not measured" if found is None else f"{found:.2f} ×",
        None if found is None else is_enough(found, bound),
    )
