"""Measures a cluster of two relays, side by side with one relay: latency, fan-out, ingest, fail-over, and their costs.

Everything runs on this machine: with two cores the first relay has one core, and the second relay, nats-server and the
load generator share the other one; for latency the generator has one alone. So throughput is reported twice: as
measured, and by the CPU time that each process needs for a message, as it would be with a core for each process.
``--costs FILE`` writes these costs for ``bench.cluster_plan``.

Run: ``python -m bench.cluster [--only latency,fan-out,ingest,fail-over,costs,off] [--rounds 5] [--seconds 2]
[--costs FILE] [--before CHECKOUT]``

``--before`` names a checkout of a version without clusters, for ``off``: it is compared with a relay without
``--cluster``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import catalogue, generator, machine
from bench.client import ACK, Client
from bench.durability_cost import with_options
from bench.generator import Found, Traffic
from bench.scenarios import ingest
from bench.server import Kind, Server, ServerError, free_port, running

JOURNAL = ("--durability", "power")
LATENCY = Traffic(subscribers=1, rate=1_000.0)
FAN_OUT = Traffic(subscribers=1_000, window=10)
INGEST = Traffic(window=200)
START_S = 30.0

_ENGINE = """\
server_name: n{number}
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}", max_memory_store: 268435456, max_file_store: 4294967296 }}
"""
_QUORUM = 'cluster {{ name: bench, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'


@dataclass(frozen=True)
class Pace:
    """How much is measured: rounds, and seconds of each measurement."""

    rounds: int
    seconds: float


class Engine:
    """Some nats-servers with JetStream.

    Args:
        folder: for their files.
        count: one, or three for a quorum.
        core: the core that they run on; None for any.
    """

    def __init__(self, folder: Path, count: int, core: int | None) -> None:
        program = catalogue.nats_program()
        ports, routes = [free_port() for _ in range(count)], [free_port() for _ in range(count)]
        self.url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.processes: list[subprocess.Popen[bytes]] = []
        listed = ", ".join(f'"nats-route://127.0.0.1:{route}"' for route in routes)
        for number, (port, route) in enumerate(zip(ports, routes, strict=True), 1):
            own = folder / f"n{number}"
            own.mkdir()
            text = _ENGINE.format(number=number, port=port, folder=own / "store")
            config = own / "nats.conf"
            config.write_text(text + (_QUORUM.format(route=route, routes=listed) if count > 1 else ""), "ascii")
            with (own / "log").open("wb") as log, machine.on_core(core):
                self.processes.append(
                    subprocess.Popen([program, "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )

    @property
    def cpu_s(self) -> float:
        """CPU time of all servers so far."""
        return sum(machine.cpu_s(process.pid) for process in self.processes)

    def close(self) -> None:
        """Stops them."""
        for process in self.processes:
            process.kill()
            process.wait()


class Fleet:
    """Relays on one engine; the first one decides.

    Args:
        relays: all of them, the decider first.
        engine: their nats-servers.
    """

    def __init__(self, relays: Sequence[Server], engine: Engine) -> None:
        self.relays = relays
        self.engine = engine

    def measure(self, traffic: Traffic, seconds: float, to: int = 0) -> Measured:
        """Runs traffic with the publishers at one of the relays.

        Args:
            traffic: the traffic.
            seconds: the duration.
            to: the index of that relay.
        """
        before: list[float] = []

        def used_s() -> list[float]:
            return [*(relay.cpu_s for relay in self.relays), self.engine.cpu_s]

        found = generator.run(self.relays[to], traffic, seconds, on_measuring=lambda: before.extend(used_s()))
        count = max(1.0, found.per_s["sent"] * seconds)
        *relays, engine = [(after - since) * 1e6 / count for after, since in zip(used_s(), before, strict=True)]
        return Measured(found, tuple(relays), engine)


@dataclass(frozen=True)
class Measured:
    """One measurement of a fleet.

    Args:
        found: the generator's figures.
        relays_us: CPU time of each relay for each message sent, in µs.
        engine_us: the same of all nats-servers together.
    """

    found: Found
    relays_us: tuple[float, ...]
    engine_us: float


@contextmanager
def fleet(relays: int = 2, servers: int = 1, *, is_apart: bool = True) -> Iterator[Fleet]:
    """Runs a cluster while the block runs.

    Args:
        relays: how many.
        servers: how many nats-servers.
        is_apart: whether all but the first relay share the generator's core; else the generator has it alone, since it
            is never idle at a given rate.

    Raises:
        ServerError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="clasp-bench-") as folder, ExitStack() as stack:
        engine = Engine(Path(folder), servers, machine.cores()[1 if is_apart else 0])
        stack.callback(engine.close)
        started: list[Server] = []
        for number in range(relays):
            health = free_port()
            name = f"relay {number + 1}"
            options = ("--cluster", engine.url, "--relay-name", f"bench-{number}", "--health-port", str(health))
            server = stack.enter_context(running(with_options(catalogue.relay(), name, *JOURNAL, *options)))
            _wait_until_ready(health, "decider" if number == 0 else "follower")
            if number and is_apart:
                move(server.process.pid, machine.cores()[1])
            started.append(server)
        yield Fleet(started, engine)


def move(pid: int, core: int | None) -> None:
    """Moves all threads of a process to a core."""
    if core is None:
        return
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), {core})


def _wait_until_ready(port: int, role: str) -> None:
    end_s = time.monotonic() + START_S
    said: Any = None
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            said = json.loads(connection.getresponse().read())
            connection.close()
            if said["ready"] and said["role"] == role:
                return
        time.sleep(0.05)
    raise ServerError(f"a relay is not {role} after {START_S:.0f} s: {said}")


@contextmanager
def alone() -> Iterator[Server]:
    """Runs a relay with a journal and without a cluster while the block runs."""
    with running(with_options(catalogue.relay(), "one relay", *JOURNAL)) as server:
        yield server


def latency(pace: Pace) -> None:
    """Measures the latency of a SET to a subscriber: at one relay, and in clusters with one and three nats-servers."""
    print("1,000 SET/s to one subscriber")
    for servers in (1, 3):
        found: dict[str, list[dict[str, float]]] = {}
        with ExitStack() as stack:
            server = stack.enter_context(alone())
            both = stack.enter_context(fleet(servers=servers, is_apart=False))
            decider, follower = (relay.port for relay in both.relays)
            for _ in range(pace.rounds):
                found.setdefault("one relay", []).append(generator.run(server, LATENCY, pace.seconds).latency_ms)
                for where, to, port in (
                    ("writer at the decider, subscriber at the follower", 0, follower),
                    ("writer and subscriber at the follower", 1, follower),
                    ("writer and subscriber at the decider", 0, decider),
                ):
                    measured = both.measure(replace(LATENCY, subscriber_ports=(port,)), pace.seconds, to)
                    found.setdefault(f"R{servers}, {where}", []).append(measured.found.latency_ms)
        for name, results in found.items():
            p50, p99 = (statistics.median(each[what] for each in results) for what in ("p50", "p99"))
            pairs = zip(results, found["one relay"], strict=True)
            more = statistics.median(each["p50"] - first["p50"] for each, first in pairs)
            print(f"  {name:56} p50 {p50:7.2f} ms (+{more:.2f})  p99 {p99:7.2f} ms", flush=True)


def fan_out(pace: Pace) -> None:
    """Measures fan-out to a thousand subscribers: at one relay, and with half of them at each of two."""
    with ExitStack() as stack:
        server = stack.enter_context(alone())
        both = stack.enter_context(fleet())
        ports = tuple(relay.port for relay in both.relays)
        rounds = [
            (
                generator.run(server, FAN_OUT, pace.seconds),
                both.measure(replace(FAN_OUT, subscriber_ports=ports), pace.seconds),
            )
            for _ in range(pace.rounds)
        ]
    print("1 → 1,000, window 10")
    one = statistics.median(single.per_s["deliveries"] for single, _ in rounds)
    two = statistics.median(double.found.per_s["deliveries"] for _, double in rounds)
    measured = statistics.median(
        double.found.per_s["deliveries"] / single.per_s["deliveries"] for single, double in rounds
    )
    print(f"  one relay {one:12,.0f} deliveries/s, two {two:12,.0f}: {measured:.2f} × as measured on these cores")
    allowed = statistics.median(single.server_cpu_us / max(double.relays_us) for single, double in rounds)
    cpu = statistics.median(single.server_cpu_us for single, _ in rounds)
    each = [statistics.median(double.relays_us[number] for _, double in rounds) for number in range(2)]
    engine = statistics.median(double.engine_us for _, double in rounds)
    print(
        f"  CPU for a message: one relay {cpu:,.0f} µs; of two {each[0]:,.0f} and {each[1]:,.0f}; engine {engine:,.0f}"
    )
    print(f"  {allowed:.2f} × where each process has a core of its own, by CPU time", flush=True)


def ingest_rate(pace: Pace) -> None:
    """Measures acknowledged SETs per second at the decider, with one nats-server, and at one relay."""
    with ExitStack() as stack:
        server = stack.enter_context(alone())
        one = stack.enter_context(fleet())
        rounds = [
            (generator.run(server, INGEST, pace.seconds), one.measure(INGEST, pace.seconds)) for _ in range(pace.rounds)
        ]
    print(f"SET and ACK, {ingest.ONE}")
    acks = [
        statistics.median(pair)
        for pair in zip(*((a.per_s["acks"], b.found.per_s["acks"]) for a, b in rounds), strict=True)
    ]
    ratio = statistics.median(b.found.per_s["acks"] / a.per_s["acks"] for a, b in rounds)
    print(f"  one relay {acks[0]:,.0f}/s, decider {acks[1]:,.0f}/s: {ratio:.2f} ×")
    for name, values in (
        ("one relay", [a.server_cpu_us for a, _ in rounds]),
        ("decider", [b.relays_us[0] for _, b in rounds]),
        ("follower", [b.relays_us[1] for _, b in rounds]),
        ("engine", [b.engine_us for _, b in rounds]),
    ):
        print(f"    {name:10} {statistics.median(values):7.1f} µs of a processor for each", flush=True)


class Writer(threading.Thread):
    """Increments a counter by SETs, each after the ACK of the last one, until it is stopped.

    Args:
        port: of the relay.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._client = Client(port)
        self._client.hello()
        self.acked = 0
        self.times_s: list[float] = []
        self.is_over = False

    def run(self) -> None:
        """Writes."""
        payloads = self._client.payloads()
        while not self.is_over:
            self._client.set_number("/bench/counter", self.acked + 1.0, confirm=True)
            while (payload := next(payloads))[0] != ACK:
                if payload[0] == 0x51:
                    # It was refused, or its outcome is unknown, so the same number is sent again.
                    time.sleep(0.02)
                    self._client.set_number("/bench/counter", self.acked + 1.0, confirm=True)
            self.acked += 1
            self.times_s.append(time.monotonic())
        self._client.close()


def fail_over(pace: Pace) -> None:
    """Measures how long a writer at the follower waits when the decider is killed."""
    waits_s = []
    for _ in range(pace.rounds):
        with fleet() as both:
            decider, follower = both.relays
            writer = Writer(follower.port)
            writer.start()
            time.sleep(1.0)
            killed_s = time.monotonic()
            decider.signal(signal.SIGKILL)
            end_s = killed_s + START_S
            while not (writer.times_s and writer.times_s[-1] > killed_s + 0.5):
                if time.monotonic() > end_s or not writer.is_alive():
                    raise ServerError("writes did not go on after the decider was killed")
                time.sleep(0.02)
            writer.is_over = True
            writer.join(START_S)
            times_s = [each for each in writer.times_s if each > killed_s - 0.5]
            waits_s.append(max(later - earlier for earlier, later in itertools.pairwise(times_s)))
    times = ", ".join(f"{each:.2f}" for each in sorted(waits_s))
    print(
        f"fail-over after kill -9 of the decider: writes wait {statistics.median(waits_s):.2f} s ({times})", flush=True
    )


def costs(pace: Pace) -> dict[str, float]:
    """Measures the costs for ``bench.cluster_plan``, and returns them."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    listening = Traffic(subscribers=100, window=10)
    with ExitStack() as stack:
        server = stack.enter_context(alone())
        solo = stack.enter_context(fleet(1))
        both = stack.enter_context(fleet(2))
        for _ in range(pace.rounds):
            note("single_us", generator.run(server, INGEST, pace.seconds).server_cpu_us)
            decided = solo.measure(INGEST, pace.seconds)
            note("decide_us", decided.relays_us[0])
            note("engine_us", decided.engine_us)
            followed = both.measure(INGEST, pace.seconds)
            note("follow_us", followed.relays_us[1])
            note("engine_copy_us", max(0.0, followed.engine_us - decided.engine_us))
            forwarded = both.measure(INGEST, pace.seconds, 1)
            note("decide_forwarded_us", forwarded.relays_us[0])
            note("forward_us", max(0.0, forwarded.relays_us[1] - followed.relays_us[1]))
            heard = both.measure(replace(listening, subscriber_ports=(both.relays[1].port,)), pace.seconds)
            note("deliver_us", max(0.0, heard.relays_us[1] - followed.relays_us[1]) / listening.subscribers)
        note("relay_bytes", float(server.rss_bytes))
        with generator.idle(server, Traffic(subscribers=1_000, publishers=0)):
            note("session_bytes", (server.rss_bytes - found["relay_bytes"][0]) / 1_000)
    result = {name: round(statistics.median(values), 2) for name, values in found.items()}
    print("costs (µs of CPU for each record or message; bytes)")
    for name, value in result.items():
        print(f"  {name:22} {value:12,.1f}", flush=True)
    return result


def off(pace: Pace, before: Path | None) -> None:
    """Compares a relay without ``--cluster`` with a version before there were clusters."""
    if before is None:
        print("off: left out, since --before names no checkout without clusters")
        return
    kinds: list[Kind] = [replace(catalogue.relay(before), name="before"), replace(catalogue.relay(), name="now")]
    kinds = [with_options(kind, kind.name, *JOURNAL) for kind in kinds]
    works = {"1 → 100, window 10": (Traffic(subscribers=100, window=10), "deliveries"), ingest.ONE: (INGEST, "acks")}
    with ExitStack() as stack:
        servers = [stack.enter_context(running(kind)) for kind in kinds]
        for name, (traffic, unit) in works.items():
            rounds = [
                [generator.run(server, traffic, pace.seconds).per_s[unit] for server in servers]
                for _ in range(pace.rounds)
            ]
            ratio = statistics.median(now / then for then, now in rounds)
            print(f"without --cluster, {name}: {ratio:.3f} × the version before", flush=True)


WORKS = ("latency", "fan-out", "ingest", "fail-over", "costs", "off")


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--only", default=",".join(WORKS), help="what is measured: " + ", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--costs", type=Path, help="where the costs are written to, as JSON")
    parser.add_argument("--before", type=Path, help="a checkout of a version without clusters")
    arguments = parser.parse_args()
    pace = Pace(arguments.rounds, arguments.seconds)
    generator.build()
    asked = arguments.only.split(",")
    for name, work in (("latency", latency), ("fan-out", fan_out), ("ingest", ingest_rate), ("fail-over", fail_over)):
        if name in asked:
            work(pace)
    if "costs" in asked:
        result = costs(pace)
        if arguments.costs:
            text = json.dumps({**result, "machine": machine.describe()}, indent=1)
            arguments.costs.write_text(text + "\n", "utf-8")
    if "off" in asked:
        off(pace, arguments.before)


if __name__ == "__main__":
    main()
