"""The interface for reading history: a page at a time, off the event loop where it is on disk.

A *position* is a place between entries, in ``from`` and ``to`` of a REPLAY and in ``next`` of its end mark: the seq
of an entry with the highest bit set. A number without this bit is a time in Unix µs (docs/protocol.md, REPLAY).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.messages import Publish

POSITION = 1 << 63
"""The bit that distinguishes a position from a time."""

NEWEST = (1 << 64) - 1
"""The ``from`` that asks for the newest entries."""

MAX_SEQ = POSITION - 1

PAGE_ROWS = 256
"""Entries in a page at most; sending them takes about a millisecond."""

PAGE_BYTES = 256 * 1024
"""Bytes after which a page ends."""

COUNTED_ROWS = 1_000
"""Entries at most in a page that is read backwards, without their changes."""

COUNTED_BYTES = 1024 * 1024
"""Bytes after which a page that is read backwards ends."""

EXAMINED_ROWS = 2_000
"""Examined entries after which a page ends, so that other REPLAYs get their turn."""

EXAMINED_BYTES = 100
"""Bytes that an entry counts for which was examined and is not in the page."""


class Asked(NamedTuple):
    """Which entries are to be read."""

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
    """Whether the newest entries come first; then they come without their changes."""
    page_rows: int = PAGE_ROWS
    """Entries in a page at most: up to ``PAGE_ROWS``, or up to ``COUNTED_ROWS`` if it is read backwards."""

    def wants(self, change: Change) -> bool:
        """Tells whether an entry is asked for, apart from its seq and its address."""
        param = change.param
        return self.from_us <= param.timestamp_us <= self.to_us and bool(self.types >> signal_of(change) & 1)


class HistoryEntry(NamedTuple):
    """One entry."""

    seq: int
    address: str
    bytes: int
    """How many bytes it counts for of those that one REPLAY may read."""
    change: Change | None
    """None if the page was read backwards."""


class Page(NamedTuple):
    """One page of entries."""

    entries: list[HistoryEntry]
    examined_seq: int
    """The seq of the last examined entry; the next page begins behind it."""
    examined_bytes: int
    is_end: bool


class HistoryReader(Protocol):
    """Reads history, and erases entries. Every method calls its ``done`` once, at once or in a later turn."""

    page_us: int
    """Time that one page takes on the event loop, in µs; an estimate."""

    def settle(self, done: Callable[[int | None], None], /) -> None:
        """Waits until all changes up to now are recorded.

        Args:
            done: called with the seq of the last change; with None if nothing can be recorded any more.
        """

    def read(self, asked: Asked, done: Callable[[Page | None], None], /) -> None:
        """Reads a page.

        Args:
            asked: which entries.
            done: called with the page; with None if it cannot be read.
        """

    def erase_of(self, subject: str, done: Callable[[int | None], None], /) -> None:
        """Erases all entries of a subject, at all addresses.

        Args:
            subject: the author of the entries, of whom no further change is committed.
            done: called with the number of erased entries; with None if they cannot be erased now.
        """


def signal_of(change: Change) -> Signal:
    """Returns the signal of an entry."""
    return change.message.signal if isinstance(change.message, Publish) else Signal.PARAM


def is_emptied(change: Change) -> bool:
    """Tells whether an entry was erased, so that only its seq is left."""
    return change.kind is ChangeKind.EVENT and change.message is None
