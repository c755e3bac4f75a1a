"""What history keeps as pages, newest first, for another relay of a cluster whose journal begins later.

A page is of one moment: it says up to which row the journal was read. What the relay that takes it has erased behind
that row is erased again of what the page brings, in the same transaction; so nothing comes back that is gone.
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
"""About how much one page holds; NATS carries 1 MiB at most."""

ROW_BYTES = 60
"""What a row takes beside its texts and its body."""

READ_AT_ONCE = 64


class HistoryRow(NamedTuple):
    """An entry as the tables have it."""

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
    """Names the rules by which the keys were made."""
    position_seq: int
    """The last row of the journal that it was read from."""
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
        DecodeError: it is something else.
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
    """Returns the first entry that history keeps in a journal; None for none. For the journal's thread."""
    (row,) = file.ask("SELECT min(seq) FROM history")
    oldest: int | None = row[0]
    return oldest


def insert_page(file: JournalFile, page: HistoryPage) -> bool:
    """Adds what a page has to a journal, but for what was erased since; for the journal's thread.

    Returns:
        whether it could: not where the page was made by other rules.

    Raises:
        DamagedRowError: a row is not what a journal wrote.
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
    """What reads a journal in a thread of its own (``history_reader``)."""

    def read_older(self, before_seq: int, done: Callable[[HistoryPage | None], None]) -> None:
        """Reads the newest entries before a row; None where they cannot be read."""

    def forget(self) -> None:
        """Forgets what is known of the keys, since older ones have come."""


class JournalPast:
    """What history keeps in a relay's journal, to be given to others and taken from them. Implements ``past.Store``.

    Args:
        log: the journal.
        reader: reads it.
        note_time: is told the Unix time in µs of the newest entry of a page that was added.
    """

    def __init__(self, log: JournalLog, reader: PageReader, note_time: Callable[[int], None]) -> None:
        self._log = log
        self._reader = reader
        self._note_time = note_time

    @property
    def is_safe(self) -> bool:
        """Whether a state file was written since the relay began: a start reads no rows before that one's."""
        return self._log.saved_seq > 0

    def oldest(self, call: Callable[[int], None]) -> None:
        """Calls with the first entry; with the row behind the last one where there is none.

        It is 1 where the journal has had every row itself: then nobody has anything older. It is 1, too, where the
        journal cannot be read: nothing can be added to it then.
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
        """Calls with the encoded page of the newest entries before a row; with nothing where it cannot be read."""
        self._reader.read_older(before_seq, lambda page: call(b"" if page is None else encode_page(page)))

    def insert(self, data: bytes, call: Callable[[Taken | None], None]) -> None:
        """Adds an encoded page, and calls with what it was; with None where it cannot be added."""
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
        """Is told that nothing more comes for now."""
        self._log.run(lambda file: file.history.end_refill()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(sqlite3.Error, DamagedRowError) is None:
            events.JOURNAL_FAULT.failure(failure)
        else:
            events.HISTORY_UNREADABLE.log(path=str(self._log.path), cause=cause_text(failure.value))


class Taken(NamedTuple):
    """A page that was added."""

    oldest_seq: int
    """Its first entry; 0 where it had none."""
    is_last: bool
    """Whether there is nothing older."""


def _begin(file: JournalFile) -> int | None:
    file.history.begin_refill()
    return oldest_seq(file)
