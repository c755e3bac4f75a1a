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
"""A generator that is not done by then never will be."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic of one measurement.

    Args:
        subscribers: connections that listen.
        publishers: connections that send.
        both: connections that do both, in the place of those two.
        window: messages of a publisher without an answer.
        rate: messages per second of all publishers together, in the place of the window.
        rooms: over how many rooms the connections are spread.
        message_bytes: size of a chat message; 0 for a number of 8 bytes.
        is_event: PUBLISH and not SET.
        distinct: addresses of a publisher.
        total: messages of each publisher, in the place of a time.
        tail: the rest of the address, below the room.
        room: what stands for the room in the address, where it is not its number.
        dashboard: whether the only subscriber listens to everything, with the admin token.
        extra: further patterns of each connection, which match nothing.
        concurrency: connections made at a time.
        subscriber_ports: to which ports the subscribers connect in turn; the server's own where there are none.
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
            # A reaction is its user's own: reactions/{msgId}/{emoji}/{userId}.
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
        generator_share: part of the time in which the generator was busy; near 1 it may be what is measured.
        connects_per_s: connections made per second, each up to the answer to its first message.
        latency_ms: percentiles, where there was a rate.
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
        server: to whom.
        traffic: what.
        seconds: for how long it is measured; 0 for only connecting.
        warm_s: for how long before that it is not.
        on_measuring: called when the warm-up is over.
        core: where the generator runs; None for the one that is for generators.

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
    """Keeps connections with their subscriptions, which do nothing, while the block runs."""
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
