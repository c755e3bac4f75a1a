"""Fan-out: one publisher, many subscribers."""

from __future__ import annotations

from bench.generator import Traffic
from bench.runner import Bench

GROUP = "fan-out"
MESSAGE_BYTES = 300
QUICK = {(0, 100, 1), (0, 100, 10), (0, 100, 100), (0, 1000, 10)}


def name_of(message_bytes: int, subscribers: int, window: int) -> str:
    """Returns the name of a row."""
    what = f"{message_bytes} B chat message" if message_bytes else "8 B value"
    return f"1 → {subscribers:,}, {what}, window {window}"


def measure(bench: Bench) -> None:
    """Measures deliveries per second of SETs for all sizes, numbers of subscribers and windows."""
    for message_bytes in (0, MESSAGE_BYTES):
        for subscribers in (100, 1000):
            for window in (1, 10, 100):
                if bench.pace.is_quick and (message_bytes, subscribers, window) not in QUICK:
                    continue
                traffic = Traffic(subscribers=subscribers, window=window, message_bytes=message_bytes)
                bench.compare(GROUP, name_of(message_bytes, subscribers, window), traffic, "deliveries")
