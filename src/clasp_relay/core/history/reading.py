"""How history is read: a page at a time, off the event loop.

A *position* is a place between entries, as REPLAY's ``from`` and ``to`` have it and as the end mark gives it: the seq
of an entry with the highest bit set. Anything below is a time in Unix µs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.messages import Publish

POSITION = 1 << 63
"""The bit that tells a position from a time."""

NEWEST = (1 << 64) - 1
"""The ``from`` that asks for the newest entries."""

MAX_SEQ = POSITION - 1

PAGE_ROWS = 256
"""How many entries a page has at most: about a millisecond of work to send."""

PAGE_BYTES = 256 * 1024
"""After so many bytes a page ends."""

COUNTED_ROWS = 1_000
"""How many entries a page has at most that is read backwards, without their changes."""

COUNTED_BYTES = 1024 * 1024
"""After so many bytes such a page ends."""

EXAMINED_ROWS = 2_000
"""After so many entries that were looked at a page ends, so that others have their turn."""

EXAMINED_BYTES = 100
"""What an entry counts for that was looked at and not taken."""


class Asked(NamedTuple):
    """What is read."""

    pattern: Pattern
    types: int = ALL_TYPES
    """Mask of signals."""
    after_seq: int = 0
    """Only entries behind this one."""
    before_seq: int = MAX_SEQ
    """Only entries before this one."""
    from_us: int = 0
    """Unix µs; included."""
    to_us: int = MAX_SEQ
    """Unix µs; included."""
    is_backwards: bool = False
    """Whether the newest come first; then without their changes."""
    page_rows: int = PAGE_ROWS
    """How many entries a page has at most; no more than ``PAGE_ROWS``, read backwards than ``COUNTED_ROWS``."""

    def wants(self, change: Change) -> bool:
        """Tells whether an entry is asked for, apart from its seq and its address."""
        param = change.param
        return self.from_us <= param.timestamp_us <= self.to_us and bool(self.types >> signal_of(change) & 1)


class HistoryEntry(NamedTuple):
    """One entry."""

    seq: int
    address: str
    bytes: int
    """How much of what a REPLAY may read it counts for."""
    change: Change | None
    """None where it was read backwards."""


class Page(NamedTuple):
    """Some of what was asked for."""

    entries: list[HistoryEntry]
    examined_seq: int
    """Up to here was looked; the next page begins there."""
    examined_bytes: int
    is_end: bool


class HistoryReader(Protocol):
    """Reads what is kept, and erases it. All calls end with ``done``, in a later turn or at once."""

    page_us: int
    """About what a page costs the event loop, in µs."""

    def settle(self, done: Callable[[int | None], None], /) -> None:
        """Waits until all that has happened is recorded.

        Args:
            done: told the seq of the last change; None when nothing is recorded any more.
        """

    def read(self, asked: Asked, done: Callable[[Page | None], None], /) -> None:
        """Reads a page.

        Args:
            asked: what is read.
            done: told the page; None when it cannot be read.
        """

    def erase_of(self, subject: str, done: Callable[[int | None], None], /) -> None:
        """Erases all that a subject said, wherever.

        Args:
            subject: whose; nothing of theirs is committed any more.
            done: told how many entries went; None when they cannot be erased now.
        """


def signal_of(change: Change) -> Signal:
    """Returns the signal of an entry."""
    return change.message.signal if isinstance(change.message, Publish) else Signal.PARAM


def is_emptied(change: Change) -> bool:
    """Tells whether nothing is left of an entry but its place."""
    return change.kind is ChangeKind.EVENT and change.message is None
