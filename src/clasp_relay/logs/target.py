"""Where the log goes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, Any, TextIO, cast

from twisted.logger import FileLogObserver, ILogObserver
from twisted.python.logfile import LogFile
from zope.interface import implementer

from clasp_relay.logs.levels import LogLevels, level_of, part_of
from clasp_relay.logs.lines import LINES

__all__ = ["LevelObserver", "log_observer", "log_target"]


def log_target(twistd_options: Mapping[str, object]) -> TextIO | LogFile | None:
    """Opens what twistd would log to.

    Args:
        twistd_options: what twistd itself was told.

    Returns:
        The target, or None where twistd's own observer must stay: it was told of another log than a file.
    """
    if twistd_options.get("logger") or twistd_options.get("syslog"):
        return None
    path = twistd_options.get("logfile")
    if not path and not twistd_options.get("nodaemon"):
        path = "twistd.log"
    return sys.stdout if path in (None, "", "-") else LogFile.fromFullPath(str(path))


@implementer(ILogObserver)
class LevelObserver:
    """Lets through what is to be logged.

    Args:
        levels: what that is.
        observer: gets it.
    """

    def __init__(self, levels: LogLevels, observer: ILogObserver) -> None:
        self._levels = levels
        self._observer = observer

    def __call__(self, event: dict[str, Any]) -> None:
        """See ``ILogObserver``."""
        if self._levels.passes(part_of(event), level_of(event)):
            self._observer(event)


def log_observer(levels: LogLevels, log_format: str, target: TextIO | LogFile) -> ILogObserver:
    """Makes an observer that writes a line for each event that is to be logged.

    Args:
        levels: which these are.
        log_format: how, one of ``LOG_FORMATS``.
        target: where to.
    """
    line_of = LINES[log_format]
    return LevelObserver(levels, FileLogObserver(cast(IO[str], target), line_of))
