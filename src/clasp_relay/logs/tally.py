"""Lines that a client can cause as often as it likes: one for each offender and minute, with a count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["MAX_OFFENDERS", "WINDOW_S", "Say", "Tally"]

WINDOW_S = 60.0
"""How far apart two lines about one offender are."""

MAX_OFFENDERS = 1_000
"""About how many a minute has lines; what others do is counted together."""

Say = Callable[[int], None]
"""Writes a line about as many occurrences."""


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
    """Counts occurrences, and has each offender spoken of at once and then at most once a minute.

    Args:
        call_later: makes a call in as many seconds; as ``core.ports.Clock.call_later``.
        say_others: writes a line about the offenders that there was no room for.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], _Timer], say_others: Say) -> None:
        self._call_later = call_later
        self._say_others = say_others
        self._entries: dict[object, _Entry] = {}

    def note(self, offender: object, say: Say) -> None:
        """Counts an occurrence.

        Args:
            offender: what it is counted by.
            say: writes about this one, now or, if it is the last one in a minute, for all of that minute.
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
        """Writes what is still to be said, and begins anew."""
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
    """Stands in until there is something to say."""
