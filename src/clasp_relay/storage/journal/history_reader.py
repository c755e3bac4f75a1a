"""Reads history from ``journal.db``: in a thread of its own, with a connection that only reads, a page at a time."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias

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

MAX_MATCHES = 16
"""Of how many patterns it is remembered which keys they may match."""

MAX_MATCHED_KEYS = 100_000
"""Of a pattern for which more keys were looked at that begins anew."""


class _Row(NamedTuple):
    """A row that may be an entry that is asked for."""

    key: str
    time_us: int
    address: str
    bytes: int
    body: object


_Rows: TypeAlias = Generator[tuple[int, _Row | None], None, None]


class HistoryReader:
    """Implements ``core.history.reading.HistoryReader``.

    Args:
        reactor: the event loop.
        log: the journal.
        rules: what is kept, and for how long.
        now_us: Unix µs.
    """

    page_us = 50
    """See ``HistoryReader``: the thread reads."""

    def __init__(self, reactor: Any, log: JournalLog, rules: HistoryRules, now_us: Callable[[], int]) -> None:
        self._reactor = reactor
        self._log = log
        self._rules = rules
        self._now_us = now_us
        self._pool: ThreadPool | None = None
        self._db: sqlite3.Connection | None = None
        self._matches: OrderedDict[str, dict[str, bool]] = OrderedDict()

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
        matches = self._matches_of(asked.pattern.text)
        page = deferToThreadPool(self._reactor, pool, read_page, db, asked, self._rules, self._now_us(), matches)
        page.addCallbacks(done, lambda failure: self._failed(failure, done))

    def _matches_of(self, pattern: str) -> dict[str, bool]:
        """Returns what is known of the keys that a pattern may match; the thread adds to it."""
        matches = self._matches.pop(pattern, None)
        if matches is None or len(matches) > MAX_MATCHED_KEYS:
            matches = {}
        self._matches[pattern] = matches
        if len(self._matches) > MAX_MATCHES:
            self._matches.popitem(last=False)
        return matches

    def _failed(self, failure: Failure, done: Callable[[Page | None], None]) -> None:
        if failure.check(sqlite3.Error, DamagedRowError) is None:
            events.JOURNAL_FAULT.failure(failure)
        else:
            events.HISTORY_UNREADABLE.log(path=str(self._log.path), cause=str(failure.value))
        done(None)


def read_page(
    db: sqlite3.Connection, asked: Asked, rules: HistoryRules, now_us: int, matches: dict[str, bool] | None = None
) -> Page:
    """Reads one page; for any thread.

    Args:
        db: the journal.
        asked: what is read.
        rules: what is kept, and for how long.
        now_us: Unix µs.
        matches: which keys the pattern may match, as far as that is known; more is added.

    Raises:
        DamagedRowError: a row cannot be read.
        sqlite3.Error: the file cannot be read.
    """
    bounds = _bounds(db, asked)
    key = rules.key_of(asked.pattern)
    rows = (
        _scan(db, asked, rules, bounds, {} if matches is None else matches)
        if key is None
        else _rows(db, asked, key, bounds)
    )
    # Closed with the page: a statement that is not at its end would hold up checkpoints.
    with closing(rows):
        return _page(rows, asked, rules, now_us)


def _page(rows: Iterable[tuple[int, _Row | None]], asked: Asked, rules: HistoryRules, now_us: int) -> Page:
    entries: list[Kept] = []
    size = 0
    end_seq = asked.after_seq if asked.is_backwards else asked.before_seq - 1
    for count, (seq, row) in enumerate(rows, 1):
        change = None
        if row is not None:
            # Times rise with the seqs.
            if row.time_us < asked.from_us if asked.is_backwards else row.time_us > asked.to_us:
                end_seq = seq if asked.is_backwards else seq - 1
                break
            if asked.pattern.matches(row.address) and not is_too_old(rules.limits, row.key, row.time_us, now_us):
                change = decode_body(seq, row.body)
        if row is None or change is None or is_emptied(change) or not asked.wants(change):
            size += EXAMINED_BYTES
        else:
            entries.append(Kept(seq, row.address, row.bytes, None if asked.is_backwards else change))
            size += row.bytes
        if len(entries) >= PAGE_ROWS or size >= PAGE_BYTES or count >= EXAMINED_ROWS:
            return Page(entries, seq, size, False)
    return Page(entries, end_seq, size, True)


def _rows(db: sqlite3.Connection, asked: Asked, key: str, bounds: tuple[int, int]) -> _Rows:
    """Yields the rows of one key."""
    query = (
        "SELECT h.seq, h.key, e.time_us, e.address, length(e.body), e.body FROM history h"  # noqa: S608 - constants
        " JOIN entries e ON e.seq = h.seq WHERE h.key = ? AND h.seq > ? AND h.seq < ?"
        f" ORDER BY h.seq {_order(asked)}"
    )
    with closing(db.cursor()) as cursor:
        cursor.execute(query, (key, *bounds))
        while some := cursor.fetchmany(FETCHED_AT_ONCE):
            for seq, *row in some:
                yield seq, _Row(*row)


def _scan(
    db: sqlite3.Connection, asked: Asked, rules: HistoryRules, bounds: tuple[int, int], matches: dict[str, bool]
) -> _Rows:
    """Yields the rows of all keys in order; None for those whose key tells that the pattern does not match."""
    pattern = asked.pattern
    with closing(db.cursor()) as cursor:
        query = f"SELECT seq, key FROM history WHERE seq > ? AND seq < ? ORDER BY seq {_order(asked)}"  # noqa: S608 - constants
        cursor.execute(query, bounds)
        while some := cursor.fetchmany(FETCHED_AT_ONCE):
            for _, key in some:
                if key not in matches:
                    matches[key] = rules.key_may_match(key, pattern)
            found = _look_up(db, [seq for seq, key in some if matches[key]])
            for seq, key in some:
                yield seq, _Row(key, *found[seq]) if seq in found else None


def _look_up(db: sqlite3.Connection, seqs: list[int]) -> dict[int, tuple[Any, ...]]:
    """Returns time, address, size and body of some rows."""
    if not seqs:
        return {}
    marks = ", ".join("?" * len(seqs))
    rows = db.execute(f"SELECT seq, time_us, address, length(body), body FROM entries WHERE seq IN ({marks})", seqs)  # noqa: S608 - question marks
    return {seq: tuple(row) for seq, *row in rows}


def _order(asked: Asked) -> str:
    return "DESC" if asked.is_backwards else "ASC"


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
