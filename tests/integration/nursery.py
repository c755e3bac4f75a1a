"""Relays that start in a tenth of a second: forked from a process that has imported everything already.

Importing Twisted and the relay takes most of a start. A test that starts a relay again and again, to kill it, has a
nursery do so once. What is forked then runs ``twistd -n clasp-relay`` as any other process does, one at a time: the
reactor's descriptors come from the nursery.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.integration.process import PATIENCE_S, environment, wait_until

_LISTENS = re.compile(r"listens on [0-9.]+:(\d+) for WebSocket connections")
_BORN = re.compile(r"nursery: process (\d+) runs\n")
_ENDED = re.compile(r"nursery: it ended with (-?\d+)\n")


class Nursery:
    """A process that forks relays.

    Args:
        folder: the working folder of the relays; their data-dir is ``data`` in it.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.nursery"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.relay: ForkedRelay | None = None
        """The last one; another one is forked when it has ended."""
        self.log = ""
        """What all relays have logged."""

    def start(self, *options: str) -> ForkedRelay:
        """Starts a relay in open mode on a free port of the loopback, and returns it at once."""
        assert self.relay is None or self.relay.status is not None, "one at a time"
        relay = self.relay = ForkedRelay()
        where = ["--host", "127.0.0.1", "--port", "0", "--auth-port", "0", "--data-dir", "data"]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([*where, *options]) + "\n")
        self._process.stdin.flush()
        wait_until(lambda: relay.pid or self._process.poll() is not None, "the nursery forks a relay")
        return relay

    def close(self) -> None:
        """Ends the relay, if one is there, and the nursery."""
        if self.relay is not None and self.relay.status is None:
            self.relay.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                relay = self.relay
                assert relay is not None, line
                self.log += line
                if found := _LISTENS.search(line):
                    relay.port = int(found[1])
                elif found := _BORN.fullmatch(line):
                    relay.pid = int(found[1])
                elif found := _ENDED.search(line):  # a line of the relay's may have been cut off before it
                    relay.status = int(found[1])


class ForkedRelay:
    """A relay that a nursery has forked."""

    def __init__(self) -> None:
        self.pid = 0
        self.port = 0
        """0 until it listens."""
        self.status: int | None = None
        """What it ended with, as ``subprocess`` says it; None while it runs."""

    def listens(self) -> int:
        """Waits until it listens, and returns its port.

        Raises:
            AssertionError: it does not.
        """
        wait_until(lambda: self.port or self.status is not None, "the relay listens")
        assert self.port, f"the relay ended with {self.status}"
        return self.port

    def signal(self, number: signal.Signals) -> int:
        """Sends a signal, waits for the end, and returns what it ended with."""
        os.kill(self.pid, number)
        wait_until(lambda: self.status is not None, "the relay ends")
        assert self.status is not None, "it has not ended"
        return self.status

    def kill(self) -> None:
        """Ends it as the system does when memory is short."""
        self.signal(signal.SIGKILL)


def main() -> None:
    """Forks a relay for each line of stdin, a JSON list of its options, and tells of its beginning and its end."""
    # All that a relay imports.
    from twisted.application.service import IServiceMaker  # noqa: PLC0415
    from twisted.plugin import getPlugins  # noqa: PLC0415
    from twisted.scripts.twistd import run  # noqa: PLC0415

    import clasp_relay.service  # noqa: PLC0415
    import clasp_relay.tap  # noqa: PLC0415

    assert any(plugin.tapname == clasp_relay.tap.relay.tapname for plugin in getPlugins(IServiceMaker)), "no plugin"
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv[1:] = ["--nodaemon", "--pidfile=", "clasp-relay", *json.loads(line)]
            run()
            sys.exit()
        print(f"nursery: process {child} runs", flush=True)
        _, status = os.waitpid(child, 0)
        print(f"nursery: it ended with {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
