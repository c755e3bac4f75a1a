"""Latency of a message: from its due time until a subscriber reads it."""

from __future__ import annotations

from bench import catalogue
from bench.generator import Found, Traffic
from bench.record import Row
from bench.runner import Bench
from bench.scenarios.fan_out import name_of
from bench.server import Server, ServerError

GROUP = "latency"
GIVEN = "1,000 SET/s → 100"
HALF = "half of the relay's maximum → 100"
PERCENTILES = ("p50", "p99", "p99.9")
_FALLBACK_RATE = 4_000.0


def name_of_row(work: str, percentile: str) -> str:
    """Returns the name of a row."""
    return f"{work}, {percentile}"


def measure(bench: Bench) -> None:
    """Measures at a rate that every server can sustain, and at half of the relay's maximum (window 10)."""
    _measure_at(bench, GIVEN, 1_000.0, bench.servers)
    if bench.pace.is_quick:
        return
    maximum = bench.report.row(name_of(0, 100, 10))
    deliveries = maximum.median(catalogue.RELAY) if maximum is not None else None
    rate = deliveries / 200 if deliveries else _FALLBACK_RATE
    # The others cannot sustain this rate: a growing queue would be measured.
    able = [each for each in bench.servers if each.name in {catalogue.RELAY, catalogue.CHAT, catalogue.NATS}]
    _measure_at(bench, f"{HALF} ({round(rate, -2):,.0f} SET/s)", round(rate, -2), able)


def _measure_at(bench: Bench, work: str, rate: float, servers: list[Server]) -> None:
    rows: dict[str, Row] = {}
    for percentile in PERCENTILES:
        rows[percentile] = bench.row(GROUP, name_of_row(work, percentile), "ms", more_is_better=False)

    def note(server: Server, found: Found) -> None:
        if not found.latency_ms:
            raise ServerError(f"{server.name}: no message arrived in time")
        for percentile, row in rows.items():
            row.add(server.name, found.latency_ms[percentile], found.server_cpu_us)

    bench.in_turn(
        work,
        servers,
        Traffic(subscribers=100, rate=rate),
        note,
        max(1.5 if bench.pace.is_quick else 2.0, bench.pace.seconds),
    )
