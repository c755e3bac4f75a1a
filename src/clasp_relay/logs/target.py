"""The target of the log: stdout, or a file that logrotate may rotate."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from typing import IO, Any, TextIO, cast

from twisted.logger import FileLogObserver, ILogObserver
from twisted.python.logfile import LogFile
from zope.interface import implementer

from clasp_relay.logs.levels import LogLevels, level_of, part_of
from clasp_relay.logs.lines import LINES

__all__ = ["LevelObserver", "SharedLogFile", "log_observer", "log_target"]


class SharedLogFile(LogFile):
    """twistd's log file, rotated at 1 MB as there; logrotate may also move, replace or truncate it."""

    _file: Any

    def start_new(self) -> None:
        """Continues in a new file.

        If the path names another file than the one that is open, or none, logrotate has moved the file (``create``,
        ``nocreate``), and the path is opened again. Otherwise the file is rotated as twistd does.
        """
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            named = None
        if named is not None and os.path.samestat(named, os.fstat(self._file.fileno())):
            self.rotate()  # type: ignore[no-untyped-call]
        else:
            self.reopen()  # type: ignore[no-untyped-call]

    def _openFile(self) -> None:  # noqa: N802  Twisted's name
        super()._openFile()  # type: ignore[no-untyped-call]
        # After a truncation (``copytruncate``) the next line is written at the start of the file, without a hole
        # before it.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)


def log_target(twistd_options: Mapping[str, object]) -> TextIO | SharedLogFile | None:
    """Opens the target that twistd's options name.

    Args:
        twistd_options: twistd's own options.

    Returns:
        The target, or None where twistd's own observer must stay (``--syslog``, ``--logger``).
    """
    if twistd_options.get("logger") or twistd_options.get("syslog"):
        return None
    path = twistd_options.get("logfile")
    if not path and not twistd_options.get("nodaemon"):
        path = "twistd.log"
    if path not in (None, "", "-"):
        return cast(SharedLogFile, SharedLogFile.fromFullPath(str(path)))  # type: ignore[no-untyped-call]
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # so that no line is lost in an ASCII locale
    return sys.stdout


@implementer(ILogObserver)
class LevelObserver:
    """Passes on the events that the levels include.

    Args:
        levels: the levels.
        observer: receives the events.
    """

    def __init__(self, levels: LogLevels, observer: ILogObserver) -> None:
        self._levels = levels
        self._observer = observer

    def __call__(self, event: dict[str, Any]) -> None:
        """See ``ILogObserver``."""
        if self._levels.passes(part_of(event), level_of(event)):
            self._observer(event)


def log_observer(levels: LogLevels, log_format: str, target: TextIO | SharedLogFile) -> ILogObserver:
    """Makes an observer that writes a line for each event that the levels include.

    Args:
        levels: the levels.
        log_format: one of ``LOG_FORMATS``.
        target: where the lines go.
    """
    line_of = LINES[log_format]
    return LevelObserver(levels, FileLogObserver(cast(IO[str], target), line_of))
