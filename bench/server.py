"""A server under test: how it is started, watched and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.paths import ROOT
from bench.tokens import Tokens

START_TIMEOUT_S = 20.0


class ServerError(Exception):
    """A server cannot be used; the text says why."""


@dataclass(frozen=True)
class Kind:
    """How a server is run.

    Args:
        name: its name in the tables.
        version: its version.
        protocol: the protocol of the generator: ``clasp``, ``nats`` or ``mqtt``.
        command: makes the command line from port, auth port and a folder of its own.
        has_accounts: whether every client needs a token, and has to enter rooms.
        environment: environment variables in addition to this process's.
        takes_options: whether it takes the relay's options.
    """

    name: str
    version: str
    protocol: str
    command: Callable[[int, int, Path], list[str]]
    has_accounts: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    takes_options: bool = False


class Server:
    """A running server.

    Args:
        kind: its kind.
        process: its process.
        port: the port that it listens on.
        tokens: a source of tokens; None if it has no accounts.
        folder: the folder of its files.
    """

    def __init__(
        self, kind: Kind, process: subprocess.Popen[bytes], port: int, tokens: Tokens | None, folder: Path
    ) -> None:
        self.kind = kind
        self.process = process
        self.port = port
        self.tokens = tokens
        self.folder = folder

    @property
    def name(self) -> str:
        """The name in the tables."""
        return self.kind.name

    @property
    def cpu_s(self) -> float:
        """CPU time used so far."""
        return machine.cpu_s(self.process.pid)

    @property
    def rss_bytes(self) -> int:
        """Resident memory now."""
        return machine.rss_bytes(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it."""
        self.process.send_signal(number)


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(kind: Kind, *options: str) -> Iterator[Server]:
    """Runs a server on the core for servers while the block runs.

    Args:
        kind: what to run.
        options: options of the relay, or of ``bench.embed``, beside those of ``kind``; other servers do not get them.
            ``{folder}`` stands for the server's own folder.

    Raises:
        ServerError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="clasp-bench-") as name:
        folder = Path(name)
        port, auth_port = free_port(), free_port()
        command = [*kind.command(port, auth_port, folder), *(_within(folder, options) if kind.takes_options else ())]
        environment = {**os.environ, **kind.environment}
        log = folder / "output"
        with log.open("wb") as output, machine.on_core(machine.cores()[0]):
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT
            )
        try:
            _wait(kind, process, port, log)
            if kind.has_accounts:
                _wait(kind, process, auth_port, log)
            yield Server(kind, process, port, Tokens(auth_port, folder) if kind.has_accounts else None, folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _within(folder: Path, options: tuple[str, ...]) -> list[str]:
    return [option.replace("{folder}", str(folder)) for option in options]


def _wait(kind: Kind, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            lines = log.read_text("utf-8", "replace").strip().splitlines() or ["it ended without a word"]
            raise ServerError(f"{kind.name}: {lines[-1]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise ServerError(f"{kind.name}: does not listen after {START_TIMEOUT_S:.0f} s")
