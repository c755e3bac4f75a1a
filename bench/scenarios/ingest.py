"""Acknowledged SETs: from one client, from fifty, and from five hundred with one subscriber to all."""

from __future__ import annotations

from bench.generator import Traffic
from bench.runner import Bench

ONE = "1 client, window 200"
FIFTY = "50 clients, window 1"
MANY_TO_ONE = "500 writers, one dashboard on /**"


def measure(bench: Bench) -> None:
    """Measures acknowledged SETs per second."""
    bench.compare("ingest (SET and ACK)", ONE, Traffic(window=200), "acks")
    bench.compare("ingest (SET and ACK)", FIFTY, Traffic(publishers=50, tail="{pub}"), "acks")


def measure_many_to_one(bench: Bench) -> None:
    """Measures deliveries to the dashboard; with accounts it has the admin token."""
    traffic = Traffic(subscribers=1, publishers=500, rooms=1, tail="{pub}", dashboard=True)
    bench.compare("many to one", MANY_TO_ONE, traffic, "deliveries")
