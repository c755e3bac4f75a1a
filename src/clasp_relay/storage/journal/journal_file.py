"""``journal.db``: the SQLite file of the journal, for one thread at a time.

One connection writes and checkpoints. SQLite before 3.51.3 can lose rows when two connections checkpoint a WAL at once;
readers open the file read-only, and those never checkpoint.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from clasp_relay.core.history.rules import Erasure, Judgement
from clasp_relay.core.records import Change, ChangeKind, decode_change, encode_change, is_about
from clasp_relay.errors import DecodeError
from clasp_relay.storage.journal.history_table import KEPT_COLUMNS, Erasing, HistoryTable, KeptColumns
from clasp_relay.storage.journal.parts import beside
from clasp_relay.storage.journal.statements import ROWS_AT_ONCE, inserts, rows_at_once

TIME_STEP_US = 60_000_000
"""A minute: how far apart the rows are that lead from a time to a seq."""

TRIMMED_AT_ONCE = 500
"""How many rows one piece of trimming deletes: a few milliseconds between two commits."""

FREED_AT_ONCE = 64
"""How many free pages one piece of trimming gives back to the file system."""

ENTRY_BYTES = 250
"""How much memory a change that waits takes besides the bytes of its record."""

READ_AT_ONCE = 256
"""How many rows one statement reads, where they are read in pieces."""

_COLUMNS = 5
_INSERT = inserts("INSERT OR ROLLBACK INTO entries VALUES", _COLUMNS)
_SIZES = (
    "SELECT page_size, freelist_count, page_count, (SELECT time_us FROM entries ORDER BY seq LIMIT 1)"
    " FROM pragma_page_size, pragma_freelist_count, pragma_page_count"
)
_CRC = struct.Struct(">I")
_pack_crc, _crc32 = _CRC.pack, zlib.crc32


class Entry(NamedTuple):
    """One change, on its way into the journal."""

    seq: int
    change: Change
    key: str | None = None
    """The key under which history keeps it; None where no history rule does."""
    erasures: tuple[Erasure, ...] = ()
    """What it erases of the history before it."""
    data: bytes = b""
    """The change, where it is encoded already."""


class Batch:
    """The changes of one commit, in the form in which SQLite takes them.

    Each is encoded where it is appended, on the event loop. The journal's thread then has nothing to do with single
    changes: it would take the interpreter's lock for as long, but a few ms at a time, in the middle of a turn.
    """

    __slots__ = ("erasing", "first_us", "kept", "last_seq", "size_bytes", "values")

    def __init__(self) -> None:
        self.values: list[int | str | bytearray] = []
        """The columns of all rows, one after the other."""
        self.kept: KeptColumns = []
        """What history keeps, in order."""
        self.erasing: list[Erasing] = []
        """What is erased of history, in order."""
        self.first_us = 0
        """Unix µs of the first change."""
        self.last_seq = 0
        """The seq of the last change; 0 where there is none yet."""
        self.size_bytes = 0
        """How much memory they take, about."""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Batch:
        """Makes a batch of some changes, in order."""
        batch = cls()
        for seq, change, key, erasures, data in entries:
            batch.add(seq, change, key, erasures, data)
        return batch

    def __len__(self) -> int:
        return len(self.values) // _COLUMNS

    def add(self, seq: int, change: Change, key: str | None, erasures: tuple[Erasure, ...], data: bytes = b"") -> None:
        """Adds a change; the arguments are those of ``Entry``.

        Raises:
            ValueError: it cannot be encoded; nothing was added.
        """
        param = change.param
        time_us = param.timestamp_us
        data = data or encode_change(change)
        # For each value that is bytes Python looks for an adapter to SQLite, for a bytearray it does not: that is a
        # quarter of the time that a row takes the thread, and all of it with the interpreter's lock.
        body = bytearray(data + _pack_crc(_crc32(data)))
        if not self.last_seq:
            self.first_us = time_us
        self.values += (seq, time_us, int(change.kind), param.address, body)
        self.last_seq = seq
        self.size_bytes += ENTRY_BYTES + len(body)
        if erasures:
            self.erasing.append(Erasing(len(self.kept) // KEPT_COLUMNS, seq, erasures))
        if key is not None:
            self.kept += (key, seq, param.subject)


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


Row: TypeAlias = tuple[int, int, str]
"""What a row is about: its seq, kind and address."""


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
        self._wal = beside(path, "-wal")
        self._wal_descriptor = -1
        self._is_unsynced = False
        self.history = HistoryTable(connection, lambda: self.trimmed_seq, decode_body, encode_body)
        """What history keeps."""
        self._last_time_us = self._one("SELECT max(time_us) FROM times") or 0
        self.trimmed_seq: int = self._one("SELECT seq FROM trimmed") or 0
        """Up to this one rows were trimmed."""
        self.last_seq: int = max(self._one("SELECT max(seq) FROM entries") or 0, self.trimmed_seq)
        """The last row that is or was in the file."""

    def begin_after(self, seq: int, *, needs_state: bool) -> int:
        """Notes of a new file that the rows up to a seq, which are all there are, are history of another relay.

        Args:
            seq: the last of them; 0 where there is none.
            needs_state: whether the params of that relay are in a state file alone.

        Returns:
            how many rows history keeps; the others go.
        """
        with self.transaction():
            self._db.execute("CREATE TABLE taken_over (seq INTEGER NOT NULL, needs_state INTEGER NOT NULL)")
            self._db.execute("INSERT INTO taken_over VALUES (?, ?)", (seq, int(needs_state)))
            self._db.execute("UPDATE trimmed SET seq = ?", (seq,))
            self._db.execute("DELETE FROM entries WHERE seq NOT IN (SELECT seq FROM history)")
        self.trimmed_seq = seq
        self.last_seq = max(self.last_seq, seq)
        return self._one("SELECT count(*) FROM history") or 0

    def first_seq(self, *, has_state: bool) -> int:
        """Returns up to which row a start applies nothing, since they are history of another relay.

        Args:
            has_state: whether there is a state file.
        """
        if self._one("SELECT count(*) FROM sqlite_master WHERE name = 'taken_over'") == 0:
            return 0
        return self._one(f"SELECT seq FROM taken_over WHERE needs_state <= {int(has_state)}") or 0  # noqa: S608 - a digit

    def write(self, entries: Sequence[Entry]) -> None:
        """Commits changes, all or none.

        Raises:
            sqlite3.Error: they are not recorded, and nobody may rely on the file any more.
            OSError: likewise.
        """
        self.commit(Batch.of(entries))

    def commit(self, batch: Batch) -> None:
        """Commits a batch that has a change at least; see ``write``."""
        is_new_minute = batch.first_us - self._last_time_us >= TIME_STEP_US
        if len(batch) <= ROWS_AT_ONCE and not (batch.kept or batch.erasing or is_new_minute):
            # One statement is a transaction of its own.
            self._insert(batch.values)
        else:
            with self.transaction():
                self._insert(batch.values)
                if batch.kept or batch.erasing:
                    self.history.keep(batch.kept, batch.erasing)
                if is_new_minute:
                    self._last_time_us = batch.first_us
                    row = (batch.values[0], batch.first_us)
                    self._db.execute("INSERT INTO times (seq, time_us) VALUES (?, ?)", row)
        self.last_seq = batch.last_seq
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

    def read(self, after_seq: int, *, history_only: bool = False) -> Iterator[Recorded]:
        """Yields the changes behind a seq, in order; those that history keeps, or all.

        It reads page by page: whoever takes its time holds up neither checkpoints nor deletions.

        Raises:
            DamagedRowError: a row cannot be read.
        """
        kept = " AND EXISTS (SELECT 1 FROM history WHERE history.seq = entries.seq)" if history_only else ""
        query = f"SELECT seq, body FROM entries WHERE seq > ?{kept} ORDER BY seq LIMIT {READ_AT_ONCE}"  # noqa: S608 - constants
        while page := self._db.execute(query, (after_seq,)).fetchall():
            for seq, body in page:
                yield Recorded(seq, decode_body(seq, body))
            after_seq = page[-1][0]

    def rows(self, after_seq: int) -> Iterator[Row]:
        """Yields what the rows behind a seq are about, in order, each with its checksum checked.

        Raises:
            DamagedRowError: a row is not what ``write`` wrote.
        """
        query = "SELECT seq, kind, address, body FROM entries WHERE seq > ? ORDER BY seq"
        for seq, kind, address, body in self._db.execute(query, (after_seq,)):
            # As in ``_checked``; written out, because a start may read a million rows.
            if not (isinstance(body, bytes) and body.endswith(_CRC.pack(zlib.crc32(body[: -_CRC.size])))):
                _checked(seq, body)
            if not (isinstance(address, str) and is_about(body, kind, address)):
                raise DamagedRowError(f"row {seq} is damaged (its columns are not those of its record)")
            yield seq, kind, address

    def read_some(self, seqs: Sequence[int]) -> Iterator[Change]:
        """Yields the changes that have certain seqs, which are in the file and given in order.

        Raises:
            DamagedRowError: a row cannot be read.
        """
        for begin in range(0, len(seqs), READ_AT_ONCE):
            some = seqs[begin : begin + READ_AT_ONCE]
            query = f"SELECT seq, body FROM entries WHERE seq IN ({', '.join('?' * len(some))}) ORDER BY seq"  # noqa: S608 - question marks
            for seq, body in self._db.execute(query, some):
                yield decode_body(seq, body)

    def last_position(self) -> Recorded | None:
        """Returns the last row that says how far a cluster's log is in the file; None where there is none.

        Raises:
            DamagedRowError: it cannot be read.
        """
        query = "SELECT seq, body FROM entries WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        for seq, body in self._db.execute(query, (int(ChangeKind.POSITION),)):
            return Recorded(seq, decode_body(seq, body))
        return None

    def position_at(self, number: int) -> Recorded | None:
        """Returns the last row that names a batch of a cluster's log by its number; None where there is none.

        Raises:
            DamagedRowError: one cannot be read.
        """
        query = "SELECT seq, body FROM entries WHERE kind = ? ORDER BY seq DESC"
        for seq, body in self._db.execute(query, (int(ChangeKind.POSITION),)):
            change = decode_body(seq, body)
            if change.number == number:
                return Recorded(seq, change)
        return None

    def accounts_behind(self, number: int) -> list[Change]:
        """Returns the changes of accounts behind one of that number, as far as they are in the file, in order.

        Raises:
            DamagedRowError: one cannot be read.
        """
        found: list[Change] = []
        query = "SELECT seq, body FROM entries WHERE kind = ? ORDER BY seq DESC"
        for seq, body in self._db.execute(query, (int(ChangeKind.ACCOUNTS),)):
            change = decode_body(seq, body)
            if change.number <= number:
                break
            found.append(change)
        return found[::-1]

    def tail(self, seq: int, last_seq: int) -> list[Change] | None:
        """Returns the changes from a row on, that one included, up to another; None where some are gone.

        Raises:
            DamagedRowError: one cannot be read.
        """
        found = list(takewhile(lambda each: each.seq <= last_seq, self.read(seq - 1)))
        if [each.seq for each in found] != list(range(seq, last_seq + 1)):
            return None
        return [each.change for each in found]

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
            self.give_back(FREED_AT_ONCE)
            return True
        return False

    def give_back(self, at_most_pages: int) -> None:
        """Gives free pages of the file back to the file system; 0 for all."""
        # Not ``execute``: that takes only the first step of such a statement, which frees one page.
        self._db.executescript(f"PRAGMA incremental_vacuum({at_most_pages:d})")

    def ask(self, query: str, values: Sequence[int | str | None] = ()) -> list[Any]:
        """Returns the rows of a query about something that this class has no method for."""
        return self._db.execute(query, values).fetchall()

    def check_structure(self, check: str = "integrity_check") -> None:
        """Has SQLite check the file, or a table of it.

        Args:
            check: its pragma that does so.

        Raises:
            sqlite3.Error: something is wrong.
        """
        for (verdict,) in self.ask(f"PRAGMA {check}"):
            if verdict != "ok":
                raise sqlite3.DatabaseError(" ".join(verdict.split()))

    def sizes(self) -> Sizes:
        """Measures the file and its WAL."""
        # In one statement, since it is asked once a second.
        page_bytes, free, pages, oldest_us = self._db.execute(_SIZES).fetchone()
        try:
            wal_bytes = self._wal.stat().st_size
        except FileNotFoundError:
            wal_bytes = 0
        return Sizes((pages - free) * page_bytes + wal_bytes, free * page_bytes, oldest_us or 0)

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
            self.history.forget()
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    def _trim_history(self) -> bool:
        """Deletes the oldest rows that history keeps; returns whether there were any."""
        with self.transaction():
            return self.history.remove_oldest(TRIMMED_AT_ONCE)

    def _insert(self, values: Sequence[int | str | bytearray]) -> None:
        begin = 0
        for size in rows_at_once(len(values) // _COLUMNS):
            end = begin + size * _COLUMNS
            self._db.execute(_INSERT[size], values[begin:end])
            begin = end

    def _one(self, query: str) -> int | None:
        row = self._db.execute(query).fetchone()
        return None if row is None else row[0]


def encode_body(change: Change) -> bytes:
    """Returns what a row's ``body`` holds."""
    data = encode_change(change)
    return data + _pack_crc(zlib.crc32(data))


def decode_body(seq: int, body: object) -> Change:
    """Reads a row's ``body``.

    Raises:
        DamagedRowError: it is not what ``encode_body`` made.
    """
    try:
        return decode_change(_checked(seq, body))
    except DecodeError as error:
        raise DamagedRowError(f"row {seq} is damaged ({error.message})") from None


def _checked(seq: int, body: object) -> bytes:
    """Returns the change in a row's ``body``, still encoded.

    Raises:
        DamagedRowError: its checksum is wrong.
    """
    if not isinstance(body, bytes) or len(body) < _CRC.size:
        raise DamagedRowError(f"row {seq} is damaged (it has no body)")
    data = body[: -_CRC.size]
    if _CRC.pack(zlib.crc32(data)) != body[-_CRC.size :]:
        raise DamagedRowError(f"row {seq} is damaged (its checksum is wrong)")
    return data


RECORDED_KINDS = frozenset(
    {
        ChangeKind.WRITE,
        ChangeKind.RENEWAL,
        ChangeKind.SCHEDULED,
        ChangeKind.DUE,
        ChangeKind.EVENT,
        ChangeKind.POSITION,
        ChangeKind.ACCOUNTS,
    }
)
"""What is recorded. Locks end with their session, and no session outlives the process."""

Judge = Callable[[Change], Judgement]
"""Returns what history does with a change. Asked on the event loop, when the change has been applied."""
