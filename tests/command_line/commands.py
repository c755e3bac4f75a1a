"""The base of tests of commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import TextIO

from twisted.trial.unittest import SynchronousTestCase

Command = Callable[[Sequence[str], TextIO], None]


class CommandTestCase(SynchronousTestCase):
    """Runs a command on a folder, in an environment that sets nothing.

    Attributes:
        folder: what the command gets as ``--data-dir``; set by the test.
        stderr: what it has written there.
    """

    command: Command
    """The command's function, as a static method."""

    folder: Path

    def setUp(self) -> None:
        """Makes the environment."""
        self.patch(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("CLASP_")})
        self.stderr = StringIO()
        self.patch(sys, "stderr", self.stderr)
        self.patch(sys, "__stderr__", self.stderr)

    def ask(self, *arguments: str) -> str:
        """Returns what the command prints on stdout."""
        out = StringIO()
        self.command((*arguments, "--data-dir", str(self.folder)), out)
        return out.getvalue()

    def refusal(self, *arguments: str) -> str:
        """Returns the one line on stderr of a command that fails."""
        self.stderr.truncate(0)
        self.stderr.seek(0)
        with self.assertRaises(SystemExit) as caught:
            self.ask(*arguments)
        self.assertEqual(caught.exception.code, 1)
        (line,) = self.stderr.getvalue().splitlines()
        return line.removeprefix("clasp-relay: ")
