"""Fan-out to MQTT subscribers, the relay side by side with mosquitto: 1 → 100, QoS 0, a window of 10 by PUBACK.

Usage: ``python -m bench.mqtt_fan_out [ROUNDS]``; see docs/performance.md.
"""

from __future__ import annotations

import os
import sys

from bench import catalogue, generator, machine
from bench.generator import Traffic
from bench.record import Report
from bench.runner import Bench, Pace

ROUNDS = 5
TRAFFIC = Traffic(subscribers=100, window=10)


def main() -> None:
    """Measures, and prints deliveries per second and their ratio, relay to mosquitto."""
    generator.build()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    bench = Bench([catalogue.mqtt_door(), catalogue.mosquitto()], Pace(rounds, 1.2, False), Report("", {}, {}))
    core = machine.cores()[1]
    if core is not None:
        os.sched_setaffinity(0, {core})
    with bench.all_running():
        row = bench.compare("MQTT", "1 → 100, 8 B value, window 10", TRAFFIC, "deliveries")
    for name in (catalogue.MQTT_DOOR, catalogue.MOSQUITTO):
        print(f"{name}: {row.median(name):,.0f} deliveries/s")
    print(f"{row.ratio(catalogue.MQTT_DOOR, catalogue.MOSQUITTO):.2f} ×")


if __name__ == "__main__":
    main()
