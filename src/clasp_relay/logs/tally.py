"""Limits lines that a client can cause as often as it likes to one per client and minute, with a count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["MAX_OFFENDERS", "WINDOW_S", "Say", "Tally"]

WINDOW_S = 60.0
"""Interval between two lines about one client."""

MAX_OFFENDERS = 1_000
"""Maximum number of clients with lines of their own in one minute; the others share one line."""

Say = Callable[[int], None]
"""Writes a line; called with the number of occurrences."""


class _Timer(Protocol):
    def cancel(self) -> None:
        """Forgets the call."""


class _Entry:
    __slots__ = ("count", "say", "timer")

    def __init__(self, timer: _Timer) -> None:
        self.count = 0
        self.say: Say = _nothing
        self.timer = timer


class Tally:
    """Counts occurrences, and logs each client's first one at once and later ones at most once a minute.

    Args:
        call_later: makes a call after some seconds; as ``core.ports.Clock.call_later``.
        say_others: writes a line about the clients beyond ``MAX_OFFENDERS``.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], _Timer], say_others: Say) -> None:
        self._call_later = call_later
        self._say_others = say_others
        self._entries: dict[object, _Entry] = {}

    def note(self, offender: object, say: Say) -> None:
        """Counts an occurrence.

        Args:
            offender: the key that it is counted by: kind and client.
            say: writes the line: at once if it is the first occurrence, at the end of the minute if it is the last one.
        """
        if offender not in self._entries and len(self._entries) >= MAX_OFFENDERS:
            offender, say = None, self._say_others
        entry = self._entries.get(offender)
        if entry is None:
            self._entries[offender] = _Entry(self._call_later(WINDOW_S, lambda: self._due(offender)))
            say(1)
        else:
            entry.count += 1
            entry.say = say

    def flush(self) -> None:
        """Writes the lines that wait for the end of their minute, and starts again."""
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            entry.timer.cancel()
            if entry.count:
                entry.say(entry.count)

    def _due(self, offender: object) -> None:
        entry = self._entries.pop(offender)
        if entry.count:
            self._entries[offender] = _Entry(self._call_later(WINDOW_S, lambda: self._due(offender)))
            entry.say(entry.count)


def _nothing(_count: int) -> None:
    """Stands in for ``say`` until there is a second occurrence."""
