"""The scenarios, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.runner import Bench
from bench.scenarios import fan_out, growth, ingest, latency, memory, newcomer, rooms, snapshot, storm

SCENARIOS: Mapping[str, Callable[[Bench], None]] = {
    "fan-out": fan_out.measure,
    "rooms": rooms.measure,
    "ingest": ingest.measure,
    "many-to-one": ingest.measure_many_to_one,
    "latency": latency.measure,
    "storm": storm.measure,
    "newcomer": newcomer.measure,
    "memory": memory.measure,
    "snapshot": snapshot.measure,
    "growth": growth.measure,
    "growth in process": growth.measure_in_process,
}
