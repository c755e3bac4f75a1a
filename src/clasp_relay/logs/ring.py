"""The last lines of the log, kept in memory for the console: by the same levels, and with tokens masked."""

from __future__ import annotations

from collections import deque
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple

from twisted.logger import ILogObserver
from zope.interface import implementer

from clasp_relay.logs.levels import LogLevels, level_of, part_of
from clasp_relay.logs.lines import text_line

__all__ = ["MAX_LINES", "Line", "LogRing"]

MAX_LINES = 1_000
"""Maximum number of lines that are kept."""

MAX_CHARACTERS = 2_000
"""Maximum length of a line in characters; the rest, as of a traceback, is cut off."""


class Line(NamedTuple):
    """A line of the log."""

    seq: int
    """Rises by one with each line."""
    at_s: float
    """Unix seconds."""
    level: str
    part: str
    text: str
    """The whole line, with time, level and part."""


@implementer(ILogObserver)
class LogRing:
    """Keeps the last lines. It may be called by any thread.

    Args:
        levels: which events are logged.
    """

    def __init__(self, levels: LogLevels) -> None:
        self._levels = levels
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._seq = 0
        self._lock = Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        """See ``ILogObserver``."""
        part, level = part_of(event), level_of(event)
        if self._levels.passes(part, level):
            text = text_line(event).rstrip("\n")
            if len(text) > MAX_CHARACTERS:
                text = f"{text[:MAX_CHARACTERS]} …"
            with self._lock:
                self._seq += 1
                self._lines.append(Line(self._seq, float(event.get("log_time") or 0.0), level, part, text))

    def after(self, seq: int) -> list[Line]:
        """Returns the lines after the one with this number, the oldest first."""
        with self._lock:
            lines, behind = list(self._lines), self._seq - seq
        return list(islice(lines, max(0, len(lines) - behind), None)) if behind > 0 else []
