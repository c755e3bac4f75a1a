"""Log levels: a default, and levels for single parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["LOG_FORMATS", "LOG_LEVELS", "PARTS", "LogLevels", "level_of", "part_of"]

LOG_LEVELS = ("error", "warn", "info", "debug", "trace")
"""The levels, from the fewest events to the most; each includes those before it."""

LOG_FORMATS = ("text", "json")
"""The formats of a line."""

PARTS = ("auth", "cluster", "core", "http", "net", "relay", "storage", "twisted")
"""The parts that can have a level of their own. ``relay`` is the process as a whole, ``twisted`` is every library."""

_OURS = "clasp_relay"


def part_of(event: Mapping[str, Any]) -> str:
    """Returns the part of an event, by its namespace."""
    return _part(str(event.get("log_namespace") or ""))


@lru_cache(1024)
def _part(namespace: str) -> str:
    package, _, rest = namespace.partition(".")
    if package != _OURS:
        return "twisted"
    part = rest.partition(".")[0]
    return part if part in PARTS else "relay"


def level_of(event: Mapping[str, Any]) -> str:
    """Returns the level of an event, one of ``LOG_LEVELS``.

    Twisted has no level below debug: an event with ``is_trace`` is a trace. Its ``critical`` is an error here. Its
    info lines are about its own objects («ClaspFactory starting on 7330»), so they count as debug.
    """
    level = event.get("log_level")
    name = "info" if level is None else level.name
    if name == "info" and part_of(event) == "twisted":
        return "debug"
    if name == "debug":
        return "trace" if event.get("is_trace") else "debug"
    return name if name in LOG_LEVELS else "error"


@dataclass(frozen=True, slots=True)
class LogLevels:
    """Which events are logged.

    Args:
        default: the level of all other parts.
        parts: the levels of single parts.
    """

    default: str
    parts: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> LogLevels:
        """Parses ``info`` or ``info,net=debug,core=trace``; of several levels for one part the last one counts.

        Raises:
            ValueError: the text has another form, or an unknown part or level.
        """
        default, parts = "info", {}
        for word in text.lower().split(","):
            part, equals, level = (piece.strip() for piece in word.partition("="))
            if not equals:
                default = level = part
            elif part in PARTS:
                parts[part] = level
            else:
                raise ValueError(f"{part!r} is no part")
            if level not in LOG_LEVELS:
                raise ValueError(f"{level!r} is no level")
        return cls(default, parts)

    def passes(self, part: str, level: str) -> bool:
        """Tells whether events of a part and a level are logged."""
        return LOG_LEVELS.index(level) <= LOG_LEVELS.index(self.parts.get(part, self.default))
