"""Processes that a test starts, and that end with it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.deploy.tools import ROOT

PATIENCE_S = 60
"""How long anything may take before a test gives it up."""

RELAY = (sys.executable, "-c", "from clasp_relay.cli import main; main()")
"""The console script, from the sources."""


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Waits for something to become true.

    Raises:
        AssertionError: it does not.
    """
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end_s:
            raise AssertionError(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Tells whether somebody listens on a port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def serves_tls(port: int, authority: Path) -> bool:
    """Tells whether a TLS handshake with ``localhost`` succeeds on a port of 127.0.0.1.

    Args:
        port: where.
        authority: the certificate of who has to have signed the server's; it may not exist yet.
    """
    with contextlib.suppress(OSError):  # ssl.SSLError is one
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            return True
    return False


def plain_environment(**variables: str) -> dict[str, str]:
    """Returns this process's environment without what is told to a relay, and with ``variables``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLASP_") and name != "RUST_LOG"}
    return kept | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))} | variables


class Background:
    """A process in the background, with its output in a file.

    Args:
        command: what to run.
        folder: its working directory; the log is there too.
        environment: its variables.
    """

    def __init__(self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_port(self, port: int) -> None:
        """Waits until it listens on a port of 127.0.0.1."""
        self.wait_for(lambda: listens(port), f"port {port}")

    def wait_for_tls(self, port: int, authority: Path) -> None:
        """Waits until it serves TLS on a port of 127.0.0.1; one that listens may have no certificate yet."""
        self.wait_for(lambda: serves_tls(port, authority), f"a certificate on port {port}")

    def wait_for(self, true: Callable[[], bool], what: str) -> None:
        """Waits for something that it does.

        Raises:
            AssertionError: it does not, or it has ended; with what it wrote.
        """
        wait_until(lambda: self.process.poll() is not None or true(), f"{what}: {self.said}")
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode} before {what}: {self.said}")

    def stop(self) -> int:
        """Ends it with SIGTERM, or SIGKILL where that is not enough; returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(PATIENCE_S)


def start_relay(folder: Path, *options: str, **variables: str) -> Background:
    """Starts a relay from the sources, in a folder of its own."""
    return Background([*RELAY, *options], folder, plain_environment(**variables))


def get(port: int, path: str) -> tuple[int, str]:
    """Returns status and body of a GET on 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
