"""Where the log goes and how much of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile

__all__ = ["level_observer"]

_LEVELS = {
    "error": LogLevel.error,
    "warn": LogLevel.warn,
    "info": LogLevel.info,
    "debug": LogLevel.debug,
    "trace": LogLevel.debug,  # Twisted's log has nothing below debug
}


def level_observer(level: str, twistd_options: Mapping[str, object]) -> ILogObserver | None:
    """Makes an observer that writes where twistd would and keeps to a level.

    Args:
        level: one of ``settings.LOG_LEVELS``.
        twistd_options: what twistd itself was told.

    Returns:
        The observer, or None where twistd's own must stay: it was told of another log than a file.
    """
    if twistd_options.get("logger") or twistd_options.get("syslog"):
        return None
    path = twistd_options.get("logfile")
    if not path and not twistd_options.get("nodaemon"):
        path = "twistd.log"
    target = sys.stdout if path in (None, "", "-") else LogFile.fromFullPath(str(path))
    return FilteringLogObserver(textFileLogObserver(target), [LogLevelFilterPredicate(_LEVELS[level])])
