"""``journal.db``: the SQLite file of the journal, for one thread at a time.

One connection writes and checkpoints. SQLite before 3.51.3 can lose rows when two connections checkpoint a WAL at once;
readers open the file read-only, and those never checkpoint.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from clasp_relay.core.history.rules import Erasure
from clasp_relay.core.records import Change, ChangeKind, decode_change, encode_change
from clasp_relay.errors import DecodeError
from clasp_relay.storage.journal.history_table import HistoryTable, Keep

TIME_STEP_US = 60_000_000
"""A minute: how far apart the rows are that lead from a time to a seq."""

TRIMMED_AT_ONCE = 500
"""How many rows one piece of trimming deletes: a few milliseconds between two commits."""

FREED_AT_ONCE = 64
"""How many free pages one piece of trimming gives back to the file system."""

_AT_ONCE = (128, 16, 1)
"""How many rows one statement inserts. The interpreter's lock is released and taken again once per statement, which
takes up to 5 ms each time while the event loop is busy; so few statements matter more than short ones."""

_ROW = "(?, ?, ?, ?, ?)"
_INSERT = {size: f"INSERT INTO entries VALUES {', '.join([_ROW] * size)}" for size in _AT_ONCE}  # noqa: S608 - constants
_CRC = struct.Struct(">I")


class Entry(NamedTuple):
    """One change, on its way into the journal."""

    seq: int
    change: Change
    key: str | None = None
    """The key under which history keeps it; None where no history rule does."""
    erasures: tuple[Erasure, ...] = ()
    """What it erases of the history before it."""


class Recorded(NamedTuple):
    """One change as it was read from the journal."""

    seq: int
    change: Change


class Sizes(NamedTuple):
    """How much room the journal takes."""

    used_bytes: int
    """What its rows take, and its WAL."""
    free_bytes: int
    """What its file has besides, for rows to come."""
    oldest_us: int
    """Unix µs of its oldest row; 0 where it has none."""


class DamagedRowError(ValueError):
    """A row cannot be read; the text names it and says why."""


class JournalFile:
    """The open file. Made by ``opening.open_journal``.

    Args:
        path: where it is.
        connection: the one that writes and checkpoints, in autocommit mode.
        syncs_each_commit: whether a commit is on the disk when it returns; else ``sync`` puts it there.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, syncs_each_commit: bool) -> None:
        self.path = path
        self._db = connection
        self._syncs_each_commit = syncs_each_commit
        self._wal = path.with_name(path.name + "-wal")
        self._wal_descriptor = -1
        self._is_unsynced = False
        self.history = HistoryTable(connection, lambda: self.trimmed_seq, decode_body, encode_body)
        """What history keeps."""
        self._last_time_us = self._one("SELECT max(time_us) FROM times") or 0
        self.trimmed_seq: int = self._one("SELECT seq FROM trimmed") or 0
        """Up to this one rows were trimmed."""
        self.last_seq: int = max(self._one("SELECT max(seq) FROM entries") or 0, self.trimmed_seq)
        """The last row that is or was in the file."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Commits changes, all or none.

        Raises:
            sqlite3.Error: they are not recorded, and nobody may rely on the file any more.
            OSError: likewise.
        """
        rows = [_row(entry) for entry in entries]
        with self.transaction():
            self._insert(rows)
            self.history.keep(
                Keep(entry.seq, entry.key, entry.change.param.subject, entry.erasures)
                for entry in entries
                if entry.key is not None or entry.erasures
            )
            first = entries[0]
            if first.change.param.timestamp_us - self._last_time_us >= TIME_STEP_US:
                self._last_time_us = first.change.param.timestamp_us
                self._db.execute("INSERT INTO times (seq, time_us) VALUES (?, ?)", (first.seq, self._last_time_us))
        self.last_seq = entries[-1].seq
        self._is_unsynced = True

    def sync(self) -> None:
        """Puts on the disk what was committed since the last call, where commits do not.

        Raises:
            OSError: it is not there, and must not be tried again: the system may have dropped what it could not write.
        """
        if self._syncs_each_commit or not self._is_unsynced:
            return
        if self._wal_descriptor < 0:
            # The locks of SQLite are on other files, so closing this descriptor releases none.
            self._wal_descriptor = os.open(self._wal, os.O_RDONLY)
        os.fsync(self._wal_descriptor)
        self._is_unsynced = False

    def read(self, after_seq: int) -> Iterator[Recorded]:
        """Yields the changes behind a seq, in order.

        Raises:
            DamagedRowError: a row cannot be read.
        """
        for seq, body in self._db.execute("SELECT seq, body FROM entries WHERE seq > ? ORDER BY seq", (after_seq,)):
            yield Recorded(seq, decode_body(seq, body))

    def trim(self, floor_seq: int, at_most_bytes: int) -> bool:
        """Deletes one piece of what is not needed any more.

        Rows up to ``floor_seq`` go, the oldest first, but for those that history keeps; those go where the journal
        takes more than ``at_most_bytes`` all the same.

        Returns:
            Whether there may be more to delete.
        """
        if self.trimmed_seq < floor_seq:
            end = min(self.trimmed_seq + TRIMMED_AT_ONCE, floor_seq)
            with self.transaction():
                self._db.execute(
                    "DELETE FROM entries WHERE seq > ? AND seq <= ?"
                    " AND NOT EXISTS (SELECT 1 FROM history WHERE history.seq = entries.seq)",
                    (self.trimmed_seq, end),
                )
                self._db.execute("UPDATE trimmed SET seq = ?", (end,))
            self.trimmed_seq = end
            return True
        sizes = self.sizes()
        if sizes.used_bytes > at_most_bytes and self._trim_history():
            return True
        if sizes.free_bytes > at_most_bytes // 4:
            self._db.execute(f"PRAGMA incremental_vacuum({FREED_AT_ONCE})").fetchall()
            return True
        return False

    def sizes(self) -> Sizes:
        """Measures the file and its WAL."""
        page_bytes = self._one("PRAGMA page_size") or 0
        free = self._one("PRAGMA freelist_count") or 0
        pages = self._one("PRAGMA page_count") or 0
        try:
            wal_bytes = self._wal.stat().st_size
        except FileNotFoundError:
            wal_bytes = 0
        oldest_us = self._one("SELECT time_us FROM entries ORDER BY seq LIMIT 1") or 0
        return Sizes((pages - free) * page_bytes + wal_bytes, free * page_bytes, oldest_us)

    def close(self) -> None:
        """Checkpoints, so that one file has everything, and closes it."""
        if self._wal_descriptor >= 0:
            os.close(self._wal_descriptor)
            self._wal_descriptor = -1
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commits what is done with the connection inside, all or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            self.history.forget_counts()
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    def _trim_history(self) -> bool:
        """Deletes the oldest rows that history keeps; returns whether there were any."""
        with self.transaction():
            rows = self._db.execute(
                "SELECT key, seq FROM history WHERE seq <= ? ORDER BY seq LIMIT ?", (self.trimmed_seq, TRIMMED_AT_ONCE)
            ).fetchall()
            self._db.executemany("DELETE FROM history WHERE key = ? AND seq = ?", rows)
            self.history.forget_counts()
            self._db.executemany("DELETE FROM entries WHERE seq = ?", [(seq,) for _, seq in rows])
        return bool(rows)

    def _insert(self, rows: Sequence[tuple[int, int, int, str, bytes]]) -> None:
        done = 0
        for size in _AT_ONCE:
            while len(rows) - done >= size:
                self._db.execute(_INSERT[size], [field for row in rows[done : done + size] for field in row])
                done += size

    def _one(self, query: str) -> int | None:
        row = self._db.execute(query).fetchone()
        return None if row is None else row[0]


def _row(entry: Entry) -> tuple[int, int, int, str, bytes]:
    change = entry.change
    param = change.param
    return entry.seq, param.timestamp_us, int(change.kind), param.address, encode_body(change)


def encode_body(change: Change) -> bytes:
    """Returns what a row's ``body`` holds."""
    data = encode_change(change)
    return data + _CRC.pack(zlib.crc32(data))


def decode_body(seq: int, body: object) -> Change:
    """Reads a row's ``body``.

    Raises:
        DamagedRowError: it is not what ``encode_body`` made.
    """
    if not isinstance(body, bytes) or len(body) < _CRC.size:
        raise DamagedRowError(f"row {seq} is damaged (it has no body)")
    data = body[: -_CRC.size]
    if _CRC.pack(zlib.crc32(data)) != body[-_CRC.size :]:
        raise DamagedRowError(f"row {seq} is damaged (its checksum is wrong)")
    try:
        return decode_change(data)
    except DecodeError as error:
        raise DamagedRowError(f"row {seq} is damaged ({error.message})") from None


RECORDED_KINDS = frozenset(
    {ChangeKind.WRITE, ChangeKind.RENEWAL, ChangeKind.SCHEDULED, ChangeKind.DUE, ChangeKind.EVENT}
)
"""What is recorded. Locks end with their session, and no session outlives the process."""

KeyOf = Callable[[Change], "str | None"]
"""Returns the key under which history keeps a change, None where no history rule does. Asked on the event loop, when
the change has been applied."""

ErasuresOf = Callable[[Change], tuple[Erasure, ...]]
"""Returns what a change erases of the history before it. Asked likewise."""
