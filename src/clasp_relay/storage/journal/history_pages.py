"""Pages of history, newest first, for another relay of a cluster whose journal begins later.

A page is read in one transaction and names the last row that the journal had then. The relay that inserts the page
repeats the erasures of its rows after that one, in the same transaction, so that no erased entry comes back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgpack
from twisted.python.failure import Failure

from clasp_relay.errors import DecodeError, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile, decode_body
from clasp_relay.storage.journal.journal_log import JournalLog

__all__ = [
    "HistoryPage",
    "HistoryRow",
    "JournalPast",
    "Taken",
    "decode_page",
    "encode_page",
    "insert_page",
    "oldest_seq",
    "read_older",
]

PAGE_BYTES = 256 * 1024
"""Approximate size limit of a page; a message of NATS may have 1 MiB."""

ROW_BYTES = 60
"""How much a row takes besides its texts and its body."""

READ_AT_ONCE = 64


class HistoryRow(NamedTuple):
    """An entry with the columns of its two tables."""

    seq: int
    time_us: int
    kind: int
    address: str
    key: str
    subject: str
    body: bytes


class HistoryPage(NamedTuple):
    """See the module."""

    fingerprint: str
    """The fingerprint of the history rules that the keys come from."""
    position_seq: int
    """The last row that the journal had when the page was read."""
    rows: tuple[HistoryRow, ...]
    """Newest first."""
    is_last: bool
    """Whether there is nothing older."""


_ROW = (int, int, int, str, str, str, bytes)


def encode_page(page: HistoryPage) -> bytes:
    """Encodes a page."""
    data: bytes = msgpack.packb(page)
    return data


def decode_page(data: bytes) -> HistoryPage:
    """Decodes what ``encode_page`` made.

    Raises:
        DecodeError: the data is not a page.
    """
    try:
        fields = msgpack.unpackb(data, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DecodeError(f"not a page of history: {error}") from None
    _check(fields, (str, int, tuple, bool))
    fingerprint, position_seq, rows, is_last = fields
    for row in rows:
        _check(row, _ROW)
    return HistoryPage(fingerprint, position_seq, tuple(HistoryRow(*row) for row in rows), is_last)


def _check(fields: Any, kinds: tuple[type[Any], ...]) -> None:
    if not isinstance(fields, tuple) or len(fields) != len(kinds) or not all(map(isinstance, fields, kinds)):
        raise DecodeError("not a page of history: a field is not what it has to be")


def read_older(db: sqlite3.Connection, before_seq: int) -> HistoryPage:
    """Reads the newest entries before a row; for any thread.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    rows: list[HistoryRow] = []
    size_bytes, is_last = 0, True
    db.execute("BEGIN")
    try:
        ((fingerprint,),) = db.execute("SELECT fingerprint FROM history_rules").fetchall()
        ((position_seq,),) = db.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchall()
        found = db.execute(
            "SELECT h.seq, e.time_us, e.kind, e.address, h.key, h.subject, e.body FROM history h"
            " JOIN entries e ON e.seq = h.seq WHERE h.seq < ? ORDER BY h.seq DESC",
            (before_seq,),
        )
        while is_last and (some := found.fetchmany(READ_AT_ONCE)):
            for each in some:
                if size_bytes > PAGE_BYTES:
                    is_last = False
                    break
                row = HistoryRow(*each)
                size_bytes += ROW_BYTES + len(row.address) + len(row.key) + len(row.body)
                rows.append(row)
        found.close()
    finally:
        db.execute("COMMIT")
    return HistoryPage(fingerprint, position_seq, tuple(rows), is_last)


def oldest_seq(file: JournalFile) -> int | None:
    """Returns the seq of the oldest entry of history; None if there is none. For the journal's thread."""
    (row,) = file.ask("SELECT min(seq) FROM history")
    oldest: int | None = row[0]
    return oldest


def insert_page(file: JournalFile, page: HistoryPage) -> bool:
    """Adds the entries of a page to a journal, except those erased since; for the journal's thread.

    Returns:
        False if the page was made with other history rules, so that nothing was added.

    Raises:
        DamagedRowError: no journal wrote such a row.
        sqlite3.Error: nothing was added.
    """
    if file.ask("SELECT fingerprint FROM history_rules") != [(page.fingerprint,)]:
        return False
    for row in page.rows:
        change = decode_body(row.seq, row.body)
        if (int(change.kind), change.param.address) != (row.kind, row.address):
            raise DamagedRowError(f"row {row.seq} is damaged (its columns are not those of its record)")
    rows = [row for row in page.rows if row.subject not in file.history.erased_subjects]
    with file.transaction() as db:
        db.executemany(
            "INSERT OR IGNORE INTO entries (seq, time_us, kind, address, body) VALUES (?, ?, ?, ?, ?)",
            [(row.seq, row.time_us, row.kind, row.address, row.body) for row in rows],
        )
        db.executemany(
            "INSERT OR IGNORE INTO history (key, seq, subject) VALUES (?, ?, ?)",
            [(row.key, row.seq, row.subject) for row in rows],
        )
        file.history.refilled({row.key: row.seq for row in rows}, page.position_seq)
    return True


class PageReader(Protocol):
    """Reads a journal in a thread of its own (``history_reader``)."""

    def read_older(self, before_seq: int, done: Callable[[HistoryPage | None], None]) -> None:
        """Reads the newest entries before a row; None if they cannot be read."""

    def forget(self) -> None:
        """Discards the memory of keys, since older ones were added."""


class JournalPast:
    """Gives the history of a relay's journal to other relays and adds theirs. Implements ``past.Store``.

    Args:
        log: the journal.
        reader: reads it.
        note_time: called with the Unix time in µs of the newest entry of each page that was added.
    """

    def __init__(self, log: JournalLog, reader: PageReader, note_time: Callable[[int], None]) -> None:
        self._log = log
        self._reader = reader
        self._note_time = note_time

    @property
    def is_safe(self) -> bool:
        """Whether a state file was written: a start reads only the rows after its last change."""
        return self._log.saved_seq > 0

    def oldest(self, call: Callable[[int], None]) -> None:
        """Calls with the seq of the oldest entry, or that of the next row if there is no entry.

        It is 1 if this relay has appended every row itself, since no other relay has anything older then. It is 1,
        too, if the journal cannot be read, since nothing can be added to it then.
        """
        behind = self._log.appended_seq + 1
        if self._log.has_all:
            call(1)
            return

        def failed(failure: Failure) -> None:
            self._failed(failure)
            call(1)

        self._log.run(_begin).addCallbacks(lambda seq: call(behind if seq is None else seq), failed)

    def read_older(self, before_seq: int, call: Callable[[bytes], None]) -> None:
        """Calls with the encoded page of the newest entries before a row; with no bytes if it cannot be read."""
        self._reader.read_older(before_seq, lambda page: call(b"" if page is None else encode_page(page)))

    def insert(self, data: bytes, call: Callable[[Taken | None], None]) -> None:
        """Adds an encoded page, and calls with a summary of it; with None if it cannot be added."""
        try:
            page = decode_page(data)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            call(None)
            return

        def inserted(is_added: bool) -> None:
            self._reader.forget()
            if is_added and page.rows:
                self._note_time(page.rows[0].time_us)
            call(Taken(page.rows[-1].seq if page.rows else 0, page.is_last) if is_added else None)

        def failed(failure: Failure) -> None:
            self._failed(failure)
            call(None)

        self._log.run(partial(insert_page, page=page)).addCallbacks(inserted, failed)

    def end(self) -> None:
        """Notes that no more pages come for now."""
        self._log.run(lambda file: file.history.end_refill()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(sqlite3.Error, DamagedRowError) is None:
            events.JOURNAL_FAULT.failure(failure)
        else:
            events.HISTORY_UNREADABLE.log(path=str(self._log.path), cause=cause_text(failure.value))


class Taken(NamedTuple):
    """The summary of a page that was added."""

    oldest_seq: int
    """The seq of its oldest entry; 0 if it had none."""
    is_last: bool
    """Whether there is nothing older."""


def _begin(file: JournalFile) -> int | None:
    file.history.begin_refill()
    return oldest_seq(file)
