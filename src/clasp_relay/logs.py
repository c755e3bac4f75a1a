"""Where the log goes and how much of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, TextIO, cast

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile

__all__ = ["level_observer", "log_target"]

_LEVELS = {
    "error": LogLevel.error,
    "warn": LogLevel.warn,
    "info": LogLevel.info,
    "debug": LogLevel.debug,
    "trace": LogLevel.debug,  # Twisted's log has nothing below debug
}


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


def level_observer(level: str, target: TextIO | LogFile) -> ILogObserver:
    """Makes an observer that keeps to a level.

    Args:
        level: one of ``settings.LOG_LEVELS``.
        target: where it writes.
    """
    return FilteringLogObserver(textFileLogObserver(cast(IO[str], target)), [LogLevelFilterPredicate(_LEVELS[level])])
