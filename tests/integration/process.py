"""A relay as a process of its own, started as an operator starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.namespaces import HERE, Host

ROOT = Path(__file__).parent.parent.parent
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=", "clasp-relay")
"""``twistd -n clasp-relay``, with the plugin found where twistd looks for it."""

PATIENCE_S = 60.0
"""How long a test waits for anything before it gives up: far longer than anything takes."""

_LISTENS = re.compile(r"listens on [0-9.]+:(\d+) for WebSocket connections")


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {patience_s:.0f} s: {what}")
        time.sleep(0.01)


def environment() -> dict[str, str]:
    """Returns the environment of this process without what would tell a relay something."""
    result = {name: value for name, value in os.environ.items() if not name.startswith("CLASP_") and name != "RUST_LOG"}
    result["PYTHONPATH"] = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    return result


class RelayProcess:
    """A relay on a free port of the loopback; in open mode, unless the options say where its auth server is.

    Args:
        folder: its working folder; its data-dir is ``data`` in it.
        options: of the relay.
        command: how Python starts it.
        variables: more environment.
        host: where it runs.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        command: Sequence[str] = TWISTD,
        variables: Mapping[str, str] | None = None,
        host: Host = HERE,
    ) -> None:
        self.folder = folder
        self.state_file = folder / "data" / "state.json"
        self.lines: list[str] = []
        """What it has logged."""
        mode = (
            ()
            if any(option.startswith(("--auth-port", "--auth-endpoint")) for option in options)
            else ("--auth-port", "0")
        )
        where = ("--host", host.address, "--port", "0", *mode)
        self._process = subprocess.Popen(
            [*host.prefix, sys.executable, *command, *where, "--data-dir", "data", *options],
            cwd=folder,
            env=environment() | dict(variables or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self.port or not self.is_running, "the relay listens")
        if not self.port:
            self.wait()
            raise AssertionError("the relay did not start:\n" + self.log)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All that it has logged."""
        return "".join(self.lines)

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def rss_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def say(self, line: str) -> None:
        """Writes a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        """Waits until the process has ended, and returns its exit status."""
        status = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stdin is not None
        self._process.stdin.close()
        return status

    def stop(self) -> int:
        """Stops it in order and returns its exit status."""
        self.signal()
        return self.wait()

    def kill(self) -> None:
        """Ends it as a loss of power does."""
        self._process.kill()
        self.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self.lines.append(line)
                found = _LISTENS.search(line)
                if found:
                    self.port = int(found[1])


def cpu_s(relay: RelayProcess) -> float:
    """Returns the CPU time of the event loop's thread."""
    return int(Path(f"/proc/{relay.pid}/schedstat").read_text("ascii").split()[0]) / 1e9


class RelayTestCase(SynchronousTestCase):
    """Runs relays, and holds them to a log without a traceback."""

    def setUp(self) -> None:
        """Makes a folder."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def start(
        self, *options: str, command: Sequence[str] = TWISTD, variables: Mapping[str, str] | None = None
    ) -> RelayProcess:
        """Starts a relay on the files of the one before it; it ends with the test, if not earlier."""
        relay = RelayProcess(self.folder, *options, command=command, variables=variables)
        self.addCleanup(self._end, relay)
        return relay

    def _end(self, relay: RelayProcess) -> None:
        if relay.is_running:
            relay.kill()
        self.assertNotIn("Traceback (most recent call last)", relay.log)
