"""Formats a log event as a line of text for people, or of JSON for programs.

In both formats an event is one line (in text a traceback adds indented lines), whatever a client put into its name or
its close reason, and tokens are masked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from twisted.logger import formatEvent

from clasp_relay.logs.events import NOT_OURS
from clasp_relay.logs.levels import level_of, part_of
from clasp_relay.logs.masks import mask_tokens

__all__ = ["LINES", "LineOf", "json_line", "text_line"]

LineOf = Callable[[Mapping[str, Any]], str]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that break lines, control a terminal, change the writing direction, or have no UTF-8 form."""


def text_line(event: Mapping[str, Any]) -> str:
    """Returns ``2026-01-31T12:00:00.000Z info  net: what happened``."""
    words = _escaped(formatEvent(dict(event)))
    traceback = "".join(f"\n    {_escaped(line)}" for line in _traceback(event).splitlines())
    return mask_tokens(f"{_time(event)} {level_of(event):<5} {part_of(event)}: {words}{traceback}\n")


def json_line(event: Mapping[str, Any]) -> str:
    """Returns an object with ``time``, ``level``, ``part``, ``event``, ``message`` and the values of the message."""
    line: dict[str, object] = {
        "time": _time(event),
        "level": level_of(event),
        "part": part_of(event),
        "event": str(event.get("event", NOT_OURS)),
        "message": formatEvent(dict(event)),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in (*line, "is_trace") and isinstance(value, str | int | float):
            # JSON has no NaN and no infinity.
            line[name] = value if not isinstance(value, float) or isfinite(value) else str(value)
    traceback = _traceback(event)
    if traceback:
        line["traceback"] = traceback
    # ensure_ascii escapes every character that breaks a line or has no UTF-8 form.
    return mask_tokens(json.dumps(line, ensure_ascii=True) + "\n")


LINES: Mapping[str, LineOf] = {"text": text_line, "json": json_line}
"""The function for each format in ``LOG_FORMATS``."""


def _time(event: Mapping[str, Any]) -> str:
    when = datetime.fromtimestamp(float(event.get("log_time") or 0.0), UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(event: Mapping[str, Any]) -> str:
    failure = event.get("log_failure")
    return "" if failure is None else str(failure.getTraceback()).rstrip()


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
