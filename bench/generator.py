"""Compiles the load generator, runs it on its own core and reads its figures."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.paths import BUILD, GENERATOR_SOURCES
from bench.server import Server, ServerError

LATEST_S = 300.0
"""Timeout of the generator in seconds, longer than any run."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic of one measurement.

    Args:
        subscribers: connections that subscribe.
        publishers: connections that send.
        both: connections that do both, in the place of those two.
        window: maximum number of a publisher's unacknowledged messages.
        rate: messages per second of all publishers together, in the place of the window.
        rooms: number of rooms that the connections are spread over.
        message_bytes: size of a chat message; 0 for a number of 8 bytes.
        is_event: PUBLISH and not SET.
        distinct: number of addresses of a publisher.
        total: number of messages of each publisher, in the place of a duration.
        tail: the rest of the address, below the room.
        room: the room in the address, if it is not the room's number.
        dashboard: whether the only subscriber subscribes to everything, with the admin token.
        extra: number of further patterns of each connection, which match nothing.
        concurrency: number of connections made at a time.
        subscriber_ports: the ports that the subscribers connect to in turn; without any, the server's own.
    """

    subscribers: int = 0
    publishers: int = 1
    both: int = 0
    window: int = 1
    rate: float = 0.0
    rooms: int = 1
    message_bytes: int = 0
    is_event: bool = False
    distinct: int = 1
    total: int = 0
    tail: str = "a"
    room: str = "{room}"
    dashboard: bool = False
    extra: int = 0
    concurrency: int = 64
    subscriber_ports: tuple[int, ...] = ()

    @property
    def connections(self) -> int:
        """The number of connections that it needs."""
        return self.both or self.subscribers + self.publishers

    def arguments(self, server: Server) -> list[str]:
        """Returns the generator's command line, without the time."""
        words: dict[str, object] = {
            "-P": server.port,
            "-m": server.kind.protocol,
            "-w": self.window,
            "-g": self.rooms,
            "-d": self.distinct,
            "-k": self.concurrency,
            "-a": f"/bench/{self.room}/{self.tail}",
        }
        words |= {"-b": self.both} if self.both else {"-s": self.subscribers, "-p": self.publishers}
        if server.tokens is not None:
            # Only its user may write a reaction: reactions/{msgId}/{emoji}/{userId}.
            reaction = self.tail if "/" in self.tail else f"{self.tail}/x"
            words["-a"] = f"/chat/room/{self.room}/{'messages' if self.is_event else f'reactions/{reaction}/{{user}}'}"
            words["-E"] = f"/chat/room/{self.room}/presence/{{user}}"
            if not self.is_event:
                words["-S"] = f"/chat/room/{self.room}/reactions/{reaction}/*"
            words["-T"] = server.tokens.file(self.connections, first_is_admin=self.dashboard)
        if self.dashboard:
            words["-S"] = "/**"
        if self.extra:
            words |= {"-X": self.extra, "-x": "/chat/room/other-{pub}/reactions/{n}/x/*"}
        words |= {"-Q": ",".join(map(str, self.subscriber_ports))} if self.subscriber_ports else {}
        words |= {"-r": self.rate} if self.rate else {}
        words |= {"-v": self.message_bytes} if self.message_bytes else {}
        words |= {"-N": self.total} if self.total else {}
        return [str(word) for pair in words.items() for word in pair] + ["-e"] * self.is_event


@dataclass(frozen=True)
class Found:
    """The figures of one run.

    Args:
        per_s: messages sent, acknowledged and delivered per second.
        server_cpu_us: CPU time of the server for each message sent, in µs.
        generator_share: the share of the time that the generator was busy; near 1 it may limit the figures.
        connects_per_s: connections made per second, each up to the answer to its first message.
        latency_ms: percentiles, if there was a rate.
    """

    per_s: dict[str, float]
    server_cpu_us: float
    generator_share: float
    connects_per_s: float
    latency_ms: dict[str, float]


def build() -> Path:
    """Compiles the generator, unless that was done since its sources changed.

    Raises:
        ServerError: there is no compiler.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "load"
    sources = sorted(GENERATOR_SOURCES.glob("*.[ch]"))
    if program.exists() and program.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise ServerError("a C compiler is needed for the load generator; with apt: apt-get install gcc libc6-dev")
    units = [str(source) for source in sources if source.suffix == ".c"]
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), *units], check=True)
    return program


def run(
    server: Server,
    traffic: Traffic,
    seconds: float,
    warm_s: float = 0.4,
    on_measuring: Callable[[], object] = lambda: None,
    core: int | None = None,
) -> Found:
    """Runs the generator for a given time.

    Args:
        server: the server under test.
        traffic: the traffic.
        seconds: the duration of the measurement; 0 for only connecting.
        warm_s: the duration of the warm-up, in seconds.
        on_measuring: called when the warm-up is over.
        core: the generator's core; None for the usual one.

    Raises:
        ServerError: the server refused something, or ended a connection.
    """
    with _started(server, traffic, "-t", f"{seconds:g}", "-W", f"{warm_s:g}", core=core) as process:
        assert process.stdout is not None, "it was started with a pipe"
        before_s = server.cpu_s
        line = process.stdout.readline()
        if line == "measuring\n":
            on_measuring()
            before_s = server.cpu_s
            line = process.stdout.readline()
        used_s = server.cpu_s - before_s
        if process.wait(LATEST_S) or not line:
            raise ServerError(f"{server.name}: the generator could not go on with {traffic}")
    return _found(json.loads(line), used_s, server, traffic)


@contextmanager
def idle(server: Server, traffic: Traffic) -> Iterator[None]:
    """Keeps idle connections with their subscriptions while the block runs."""
    with _started(server, traffic, "-H") as process:
        assert process.stdout is not None, "it was started with a pipe"
        if process.stdout.readline() != "ready\n":
            raise ServerError(f"{server.name}: the connections were not made for {traffic}")
        yield


@contextmanager
def _started(server: Server, traffic: Traffic, *more: str, core: int | None = None) -> Iterator[subprocess.Popen[str]]:
    command = [str(build()), *traffic.arguments(server), *more]
    with machine.on_core(machine.cores()[1] if core is None else core):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        # The generator ends when its input does.
        process.communicate(timeout=LATEST_S)


def _found(report: dict[str, Any], used_s: float, server: Server, traffic: Traffic) -> Found:
    if report["errors"]:
        raise ServerError(f"{server.name}: {report['errors']} messages were refused with {traffic}")
    listens = traffic.both or (traffic.subscribers and traffic.publishers)
    if listens and report["sent"] and not report["deliveries"]:
        raise ServerError(f"{server.name}: not one message has arrived with {traffic}")
    elapsed_s = report["elapsed_s"] or 1.0
    return Found(
        {what: report[what] / elapsed_s for what in ("sent", "acks", "deliveries")},
        used_s * 1e6 / max(1, report["sent"]),
        report["generator_cpu_s"] / elapsed_s,
        report["connections"] / report["connect_s"] if report["connect_s"] else 0.0,
        {name: value / 1e3 for name, value in report.get("latency_us", {}).items()},
    )
