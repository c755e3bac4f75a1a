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
from clasp_relay.wire.tuples import new_tuple

TIME_STEP_US = 60_000_000
"""One minute: how far apart the rows of ``times`` are, the index from times to seqs."""

TRIMMED_AT_ONCE = 500
"""How many rows one piece of trimming deletes; it takes a few milliseconds between two commits."""

FREED_AT_ONCE = 64
"""How many free pages one piece of trimming gives back to the file system."""

ENTRY_BYTES = 250
"""Memory that a queued change takes besides the bytes of its record."""

READ_AT_ONCE = 256
"""How many rows one statement reads, if they are read in pieces."""

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
    """The key under which history keeps it; None if no history rule does."""
    erasures: tuple[Erasure, ...] = ()
    """What it erases of the history before it."""
    data: bytes = b""
    """The encoded change; empty if it is not encoded yet."""


ENCODED_AT_ONCE = 64
"""How many changes are encoded at a time."""


class Batch:
    """The changes of one commit, as the values of SQL statements.

    Changes are encoded on the event loop, so that the journal's thread does nothing for single changes. Encoding there
    would hold the interpreter's lock for as long, but a few ms at a time, in the middle of a turn. They are encoded
    ``ENCODED_AT_ONCE`` at a time: one by one between the messages, the same work took twice as long (47 instead of 43
    µs for a message of ``bench.durability_cost --only rooms``), since it was in no cache of the processor.
    """

    __slots__ = ("_added", "erasing", "first_us", "kept", "last_seq", "size_bytes", "values")

    def __init__(self) -> None:
        self._added: list[Entry] = []
        """The last changes, which are not encoded yet."""
        self.values: list[int | str | bytearray] = []
        """The columns of all rows, one after the other."""
        self.kept: KeptColumns = []
        """The entries that history keeps, in order."""
        self.erasing: list[Erasing] = []
        """What the changes erase from history, in order."""
        self.first_us = 0
        """Unix µs of the first change."""
        self.last_seq = 0
        """The seq of the last change; 0 if there is none yet."""
        self.size_bytes = 0
        """How much memory the changes take, approximately."""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Batch:
        """Returns a batch of changes that are given in order."""
        batch = cls()
        for seq, change, key, erasures, data in entries:
            batch.add(seq, change, key, erasures, data)
        batch.encode()
        return batch

    def __len__(self) -> int:
        return len(self.values) // _COLUMNS + len(self._added)

    def add(self, seq: int, change: Change, key: str | None, erasures: tuple[Erasure, ...], data: bytes = b"") -> None:
        """Adds a change; the arguments are those of ``Entry``.

        Raises:
            ValueError: a change cannot be encoded.
        """
        if not self.last_seq:
            self.first_us = change.param.timestamp_us
        self.last_seq = seq
        self._added.append(new_tuple(Entry, (seq, change, key, erasures, data)))
        if len(self._added) >= ENCODED_AT_ONCE:
            self.encode()

    def encode(self) -> None:
        """Encodes all changes; called before the batch is committed.

        Raises:
            ValueError: one of them cannot be encoded.
        """
        added, self._added = self._added, []
        values, kept, size_bytes = self.values, self.kept, 0
        for seq, change, key, erasures, encoded in added:
            param = change.param
            data = encoded or encode_change(change)
            # Python's sqlite3 looks for an adapter for each bytes value, but not for a bytearray. The lookup would be a
            # quarter of the thread's time for a row, all of it with the interpreter's lock.
            body = bytearray(data + _pack_crc(_crc32(data)))
            values += (seq, param.timestamp_us, int(change.kind), param.address, body)
            size_bytes += ENTRY_BYTES + len(body)
            if erasures:
                self.erasing.append(Erasing(len(kept) // KEPT_COLUMNS, seq, erasures))
            if key is not None:
                kept += (key, seq, param.subject)
        self.size_bytes += size_bytes


class Recorded(NamedTuple):
    """One change as it was read from the journal."""

    seq: int
    change: Change


class Sizes(NamedTuple):
    """The sizes of the journal's files."""

    used_bytes: int
    """The used pages of the file, and its WAL."""
    free_bytes: int
    """The free pages of the file, which new rows will use."""
    oldest_us: int
    """Unix µs of the oldest row; 0 if there is none."""


Row: TypeAlias = tuple[int, int, str]
"""The seq, kind and address of a row."""


class DamagedRowError(ValueError):
    """A row cannot be read; the text names the row and the reason."""


class JournalFile:
    """The open file. Made by ``opening.open_journal``.

    Args:
        path: its path.
        connection: the one that writes and checkpoints, in autocommit mode.
        syncs_each_commit: whether a commit is on the disk when it returns; if not, ``sync`` puts it there.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, syncs_each_commit: bool) -> None:
        self.path = path
        self._db = connection
        self._syncs_each_commit = syncs_each_commit
        self._wal = beside(path, "-wal")
        self._wal_descriptor = -1
        self._is_unsynced = False
        self.history = HistoryTable(connection, lambda: self.trimmed_seq, decode_body, encode_body)
        """The tables of history."""
        self._last_time_us = self._one("SELECT max(time_us) FROM times") or 0
        self.trimmed_seq: int = self._one("SELECT seq FROM trimmed") or 0
        """The seq up to which rows were trimmed."""
        self.last_seq: int = max(self._one("SELECT max(seq) FROM entries") or 0, self.trimmed_seq)
        """The seq of the last row that is or was in the file."""

    def begin_after(self, seq: int, *, needs_state: bool) -> int:
        """Marks all rows of a new file as history of another relay, which a start does not apply.

        Args:
            seq: the last row; 0 if there is none.
            needs_state: whether the params of that relay are only in a state file.

        Returns:
            how many rows history keeps; the others are deleted.
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
        """Returns the last row that is history of another relay, so that a start does not apply it; 0 if there is none.

        Args:
            has_state: whether there is a state file.
        """
        if self._one("SELECT count(*) FROM sqlite_master WHERE name = 'taken_over'") == 0:
            return 0
        return self._one(f"SELECT seq FROM taken_over WHERE needs_state <= {int(has_state)}") or 0  # noqa: S608 - a digit

    def write(self, entries: Sequence[Entry]) -> None:
        """Commits changes, all or none.

        Raises:
            sqlite3.Error: they are not recorded, and the file must not be relied on any more.
            OSError: likewise.
        """
        self.commit(Batch.of(entries))

    def commit(self, batch: Batch) -> None:
        """Commits a batch with at least one change; see ``write``."""
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
        """Syncs the commits since the last call to the disk, unless each commit does so itself.

        Raises:
            OSError: the sync failed. It must not be repeated: the system may have dropped what it could not write.
        """
        if self._syncs_each_commit or not self._is_unsynced:
            return
        if self._wal_descriptor < 0:
            # The locks of SQLite are on other files, so closing this descriptor releases none.
            self._wal_descriptor = os.open(self._wal, os.O_RDONLY)
        os.fsync(self._wal_descriptor)
        self._is_unsynced = False

    def read(self, after_seq: int, *, history_only: bool = False) -> Iterator[Recorded]:
        """Yields the changes after a seq, in order: all, or only those that history keeps.

        It reads ``READ_AT_ONCE`` rows at a time, so that a slow caller delays neither checkpoints nor deletions.

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
        """Yields seq, kind and address of the rows after a seq, in order, and checks each row's checksum.

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
        """Yields the changes of some seqs, which are given in order and are all in the file.

        Raises:
            DamagedRowError: a row cannot be read.
        """
        for begin in range(0, len(seqs), READ_AT_ONCE):
            some = seqs[begin : begin + READ_AT_ONCE]
            query = f"SELECT seq, body FROM entries WHERE seq IN ({', '.join('?' * len(some))}) ORDER BY seq"  # noqa: S608 - question marks
            for seq, body in self._db.execute(query, some):
                yield decode_body(seq, body)

    def last_position(self) -> Recorded | None:
        """Returns the last POSITION, which says how far a cluster's log is in the file; None if there is none.

        Raises:
            DamagedRowError: it cannot be read.
        """
        query = "SELECT seq, body FROM entries WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        for seq, body in self._db.execute(query, (int(ChangeKind.POSITION),)):
            return Recorded(seq, decode_body(seq, body))
        return None

    def position_at(self, number: int) -> Recorded | None:
        """Returns the last POSITION that names a batch of a cluster's log by its number; None if there is none.

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
        """Returns the ACCOUNTS changes with higher numbers than this one, as far as they are in the file, in order.

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
        """Returns the changes from row ``seq`` to row ``last_seq``, both included; None if some were deleted.

        Raises:
            DamagedRowError: one cannot be read.
        """
        found = list(takewhile(lambda each: each.seq <= last_seq, self.read(seq - 1)))
        if [each.seq for each in found] != list(range(seq, last_seq + 1)):
            return None
        return [each.change for each in found]

    def trim(self, floor_seq: int, at_most_bytes: int) -> bool:
        """Deletes one piece of the rows that are not needed any more.

        Rows up to ``floor_seq`` are deleted, the oldest first, except those that history keeps. If the journal is still
        larger than ``at_most_bytes``, the oldest of these are deleted, too.

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
        """Returns the rows of a query that this class has no method for."""
        return self._db.execute(query, values).fetchall()

    def check_structure(self, check: str = "integrity_check") -> None:
        """Has SQLite check the file, or a table of it.

        Args:
            check: SQLite's pragma for it.

        Raises:
            sqlite3.Error: there is damage.
        """
        for (verdict,) in self.ask(f"PRAGMA {check}"):
            if verdict != "ok":
                raise sqlite3.DatabaseError(" ".join(verdict.split()))

    def sizes(self) -> Sizes:
        """Measures the file and its WAL."""
        # One statement, since this is called once a second.
        page_bytes, free, pages, oldest_us = self._db.execute(_SIZES).fetchone()
        try:
            wal_bytes = self._wal.stat().st_size
        except FileNotFoundError:
            wal_bytes = 0
        return Sizes((pages - free) * page_bytes + wal_bytes, free * page_bytes, oldest_us or 0)

    def close(self) -> None:
        """Closes the file after a checkpoint, so that one file has everything."""
        if self._wal_descriptor >= 0:
            os.close(self._wal_descriptor)
            self._wal_descriptor = -1
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commits the statements in its context, all or none."""
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
        DamagedRowError: ``encode_body`` did not make it.
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
"""The kinds that are recorded. Locks are not: they end with their session, and no session outlives the process."""

Judge = Callable[[Change], Judgement]
"""Returns what history does with a change. Called on the event loop, when the change has been applied."""
