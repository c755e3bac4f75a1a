"""Node with the npm client, as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.integration.process import PATIENCE_S, ROOT

FOLDER = ROOT / "tests" / "js"
MODULES = FOLDER / "node_modules"
OLDEST_NODE = 20


def node_command() -> str:
    """Returns the path of Node.

    Raises:
        SkipTest: there is none, or the npm client is not installed; in CI that is a failure.
    """
    node = shutil.which("node")
    if node is None:
        return _without("there is no Node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        return _without(f"Node {OLDEST_NODE} or newer is needed, not {version.strip()}")
    if not MODULES.is_dir():
        return _without("the npm client is not installed (make js)")
    return node


def _without(why: str) -> str:
    if os.environ.get("CI") == "true":
        raise AssertionError(why)
    raise SkipTest(why)


class NodeProcess:
    """A script that runs.

    Args:
        arguments: of Node.
        folder: where.
    """

    def __init__(self, *arguments: str, folder: Path = FOLDER) -> None:
        self._process = subprocess.Popen(
            [node_command(), *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # So that nobody waits for ever for a line.
        self._guard = threading.Timer(2 * PATIENCE_S, self._process.kill)
        self._guard.start()

    def tell(self, line: object) -> None:
        """Writes a line: a str as it is, everything else as JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Returns the next line, which is JSON.

        Raises:
            AssertionError: the script has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the script has ended: {self.end()}")
        return json.loads(line)

    def end(self) -> tuple[int, str, str]:
        """Closes its stdin, waits until it has ended, and returns its status, stdout and stderr."""
        output, errors = self._process.communicate()
        self._guard.cancel()
        return self._process.returncode, output, errors

    def kill(self) -> None:
        """Ends it."""
        self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self.end()
