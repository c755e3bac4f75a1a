"""How much is logged: a level for all, and others for single parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LOG_FORMATS", "LOG_LEVELS", "PARTS", "LogLevels", "level_of", "part_of"]

LOG_LEVELS = ("error", "warn", "info", "debug", "trace")
"""What may be logged, from the fewest events to the most."""

LOG_FORMATS = ("text", "json")
"""How an event may be written."""

PARTS = ("auth", "core", "http", "net", "relay", "storage", "twisted")
"""What a level of its own may be given to; ``relay`` is the process as a whole, ``twisted`` is all that is not ours."""

_OURS = "clasp_relay"


def part_of(event: Mapping[str, Any]) -> str:
    """Returns the part that an event is of, by its namespace."""
    package, _, rest = str(event.get("log_namespace") or "").partition(".")
    if package != _OURS:
        return "twisted"
    part = rest.partition(".")[0]
    return part if part in PARTS else "relay"


def level_of(event: Mapping[str, Any]) -> str:
    """Returns the level of an event, one of ``LOG_LEVELS``.

    Twisted has nothing below debug: what has ``is_trace`` set is a trace. Its ``critical`` is an error here. What
    Twisted says at info («ClaspFactory starting on 7330») is about its own objects, so it counts as debug.
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
        default: the level of every part that has none of its own.
        parts: the level of each that has one.
    """

    default: str
    parts: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> LogLevels:
        """Reads ``info`` or ``info,net=debug,core=trace``; of several levels for one part the last one counts.

        Raises:
            ValueError: that is not what the text is.
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
