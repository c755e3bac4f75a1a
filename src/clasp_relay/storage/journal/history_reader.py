"""Reads history from ``journal.db``: in a thread of its own, with a connection that only reads, a page at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from clasp_relay.core.history.reading import (
    EXAMINED_BYTES,
    EXAMINED_ROWS,
    MAX_SEQ,
    PAGE_BYTES,
    PAGE_ROWS,
    Asked,
    Kept,
    Page,
    is_emptied,
)
from clasp_relay.core.history.rules import HistoryRules, is_too_old
from clasp_relay.logs import events
from clasp_relay.storage.journal.journal_file import DamagedRowError, decode_body
from clasp_relay.storage.journal.journal_log import JournalLog

FETCHED_AT_ONCE = 64
"""How many rows are fetched at once; bodies may have 64 KiB."""

SLACK_US = 1_000_000
"""How far the times of other changes may be apart from those of entries around them."""

_ROWS = (
    "SELECT h.seq, h.key, e.time_us, e.address, length(e.body), {body} FROM history h JOIN entries e ON e.seq = h.seq"
    " WHERE {key}h.seq > ? AND h.seq < ? ORDER BY h.seq{order}"
)


class HistoryReader:
    """Implements ``core.history.reading.HistoryReader``.

    Args:
        reactor: the event loop.
        log: the journal.
        rules: what is kept, and for how long.
        now_us: Unix µs.
    """

    def __init__(self, reactor: Any, log: JournalLog, rules: HistoryRules, now_us: Callable[[], int]) -> None:
        self._reactor = reactor
        self._log = log
        self._rules = rules
        self._now_us = now_us
        self._pool: ThreadPool | None = None
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Begins to read the log's journal, which is open."""
        self._db = sqlite3.connect(
            f"{self._log.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._pool = ThreadPool(minthreads=1, maxthreads=1, name="history")
        self._pool.start()

    def close(self) -> None:
        """Ends the thread, once its page is read. Does nothing when it is not open."""
        pool, self._pool = self._pool, None
        db, self._db = self._db, None
        if pool is not None and db is not None:
            pool.stop()
            db.close()

    def settle(self, done: Callable[[int | None], None]) -> None:
        """See ``HistoryReader``."""
        seq = self._log.appended_seq
        recorded = self._log.recorded()
        recorded.addCallbacks(lambda _: done(seq), lambda _: done(None))

    def read(self, asked: Asked, done: Callable[[Page | None], None]) -> None:
        """See ``HistoryReader``."""
        pool, db = self._pool, self._db
        if pool is None or db is None:
            done(None)
            return
        page = deferToThreadPool(self._reactor, pool, read_page, db, asked, self._rules, self._now_us())
        page.addCallbacks(done, lambda failure: self._failed(failure, done))

    def _failed(self, failure: Failure, done: Callable[[Page | None], None]) -> None:
        if failure.check(sqlite3.Error, DamagedRowError) is None:
            events.JOURNAL_FAULT.failure(failure)
        else:
            events.HISTORY_UNREADABLE.log(path=str(self._log.path), cause=str(failure.value))
        done(None)


def read_page(db: sqlite3.Connection, asked: Asked, rules: HistoryRules, now_us: int) -> Page:
    """Reads one page; for any thread.

    Raises:
        DamagedRowError: a row cannot be read.
        sqlite3.Error: the file cannot be read.
    """
    after_seq, before_seq = _bounds(db, asked)
    # Closed with the page: a statement that is not at its end would hold up checkpoints.
    with closing(_rows(db, asked, rules, after_seq, before_seq)) as rows:
        return _page(rows, asked, rules, now_us)


def _page(rows: Iterable[Sequence[Any]], asked: Asked, rules: HistoryRules, now_us: int) -> Page:
    entries: list[Kept] = []
    size = 0
    end_seq = asked.after_seq if asked.is_backwards else asked.before_seq - 1
    for count, (seq, key, time_us, address, body_bytes, body) in enumerate(rows, 1):
        # Times rise with the seqs.
        if time_us < asked.from_us if asked.is_backwards else time_us > asked.to_us:
            end_seq = seq if asked.is_backwards else seq - 1
            break
        change = None
        if asked.pattern.matches(address) and not is_too_old(rules.limits, key, time_us, now_us):
            change = decode_body(seq, body)
        if change is None or is_emptied(change) or not asked.wants(change):
            size += EXAMINED_BYTES
        else:
            entries.append(Kept(seq, address, body_bytes, None if asked.is_backwards else change))
            size += body_bytes
        if len(entries) >= PAGE_ROWS or size >= PAGE_BYTES or count >= EXAMINED_ROWS:
            return Page(entries, seq, size, False)
    return Page(entries, end_seq, size, True)


def _rows(
    db: sqlite3.Connection, asked: Asked, rules: HistoryRules, after_seq: int, before_seq: int
) -> Generator[Sequence[Any], None, None]:
    key = rules.key_of(asked.pattern)
    query = _ROWS.format(
        body="e.body", key="" if key is None else "h.key = ? AND ", order=" DESC" if asked.is_backwards else ""
    )
    with closing(db.cursor()) as cursor:
        cursor.execute(query, (*(() if key is None else (key,)), after_seq, before_seq))
        while some := cursor.fetchmany(FETCHED_AT_ONCE):
            yield from some


def _bounds(db: sqlite3.Connection, asked: Asked) -> tuple[int, int]:
    """Narrows the range of seqs by the times, so that few rows are looked at."""
    after_seq, before_seq = asked.after_seq, asked.before_seq
    if asked.from_us:
        row = db.execute("SELECT max(seq) FROM times WHERE time_us <= ?", (asked.from_us - SLACK_US,)).fetchone()
        after_seq = max(after_seq, (row[0] or 1) - 1)
    if asked.to_us < MAX_SEQ - SLACK_US:
        row = db.execute("SELECT min(seq) FROM times WHERE time_us > ?", (asked.to_us + SLACK_US,)).fetchone()
        before_seq = min(before_seq, row[0] or before_seq)
    return after_seq, before_seq
