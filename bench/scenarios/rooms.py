"""Chat rooms in which every member sends."""

from __future__ import annotations

from bench.generator import Traffic
from bench.runner import Bench
from bench.scenarios.fan_out import MESSAGE_BYTES

ROOMS, MEMBERS = 50, 20
NAME = f"{ROOMS} rooms × {MEMBERS} members, {MESSAGE_BYTES} B PUBLISH"
TRAFFIC = Traffic(both=ROOMS * MEMBERS, rooms=ROOMS, message_bytes=MESSAGE_BYTES, is_event=True)


def measure(bench: Bench) -> None:
    """Measures deliveries per second; a member sends its next message when the last one has reached its neighbour."""
    bench.compare("rooms", NAME, TRAFFIC, "deliveries")
