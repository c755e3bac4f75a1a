"""Reads history from ``journal.db``, page by page: in a thread of its own, with a read-only connection."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.core.history.reading import (
    COUNTED_BYTES,
    COUNTED_ROWS,
    EXAMINED_BYTES,
    EXAMINED_ROWS,
    MAX_SEQ,
    PAGE_BYTES,
    PAGE_ROWS,
    Asked,
    HistoryEntry,
    Page,
    is_emptied,
)
from clasp_relay.core.history.rules import HistoryRules, is_too_old
from clasp_relay.core.records import HEAD_BYTES, is_emptied_event
from clasp_relay.errors import JournalLost, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.journal.history_pages import HistoryPage, read_older
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile, decode_body
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.journal.journal_thread import JournalThread
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES

FETCHED_AT_ONCE = 64
"""How many rows are fetched at once; bodies may have 64 KiB."""

SLACK_US = 1_000_000
"""How far the times of other changes may differ from those of entries around them."""

MAX_MATCHES = 16
"""For how many patterns the keys that they may match are remembered."""

FEW_KEYS = 32
"""Up to this many matching keys, SQLite merges their entries in one statement."""

MAX_MERGED_KEYS = 2_000
"""Up to this many matching keys that have only few of all entries, each key's entries are read separately and merged;
finding where each key begins takes about 2 µs. With more keys all entries are scanned."""

DENSE, SAMPLE_ROWS = 8, 512
"""If at least one entry in ``DENSE`` belongs to a matching key, all entries are scanned in their order; that is judged
by at least ``SAMPLE_ROWS`` entries."""

MAX_MATCHED_KEYS = 100_000
"""If more keys than this were judged for a pattern, they are forgotten and judged again."""

FIRST_FETCHED = 4
"""How many rows of a key are fetched first when keys are merged; then twice as many each time."""


class KnownKeys:
    """The keys that one pattern may match, as far as they are known; the reader's thread adds to them."""

    def __init__(self) -> None:
        self.seq = 0
        """The seq in ``history_keys`` up to which the keys were judged."""
        self.matching: dict[str, None] = {}
        """The keys up to ``seq`` that may match; some may have no entry any more."""
        self.is_many = False
        """Whether there are more of them than are merged (``MAX_MERGED_KEYS``)."""
        self.is_dense = True
        """Whether many of the scanned entries belong to them (``DENSE``)."""
        self.judged: dict[str, bool] = {}
        """Whether a key may match, if all entries are scanned."""


class _Row(NamedTuple):
    """A row that may be one of the wanted entries."""

    key: str
    time_us: int
    address: str
    bytes: int
    body: object
    """The body, or only its beginning if the entries are counted (``_counts``)."""


# Skips the argument handling of the generated constructor: it is called for every row that is read.
_new = tuple.__new__

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
        self._thread: JournalThread | None = None
        self._db: sqlite3.Connection | None = None
        self._matches: OrderedDict[str, KnownKeys] = OrderedDict()

    def open(self) -> None:
        """Opens the journal of the log, which is open already, and starts the thread."""
        self._db = sqlite3.connect(
            f"{self._log.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._thread = JournalThread(self._reactor, "history")

    def close(self) -> None:
        """Ends the thread once its page is read. Does nothing if it is not open."""
        thread, self._thread = self._thread, None
        db, self._db = self._db, None
        if thread is not None and db is not None:
            thread.stop()
            db.close()

    def settle(self, done: Callable[[int | None], None]) -> None:
        """See ``HistoryReader``."""
        seq = self._log.appended_seq
        recorded = self._log.recorded()
        recorded.addCallbacks(lambda _: done(seq), lambda _: done(None))

    def read(self, asked: Asked, done: Callable[[Page | None], None]) -> None:
        """See ``HistoryReader``."""
        thread, db = self._thread, self._db
        if thread is None or db is None:
            done(None)
            return
        known = self._matches_of(asked.pattern.text)
        page = thread.run(partial(read_page, db, asked, self._rules, self._now_us(), known))
        page.addCallbacks(done, lambda failure: self._failed(failure, done))

    def read_older(self, before_seq: int, done: Callable[[HistoryPage | None], None]) -> None:
        """Reads the newest entries before a row, for another relay; None if they cannot be read."""
        thread, db = self._thread, self._db
        if thread is None or db is None:
            done(None)
            return

        def failed(failure: Failure) -> None:
            self._failed(failure, lambda _: done(None))

        thread.run(partial(read_older, db, before_seq)).addCallbacks(done, failed)

    def forget(self) -> None:
        """Discards the memory of keys, since older ones were added."""
        self._matches.clear()

    def erase_of(self, subject: str, done: Callable[[int | None], None]) -> None:
        """See ``HistoryReader``; the journal's thread erases, in pieces between its commits."""
        erased = Deferred.fromCoroutine(self._erase_of(subject))
        erased.addCallbacks(done, lambda failure: self._not_erased(failure, done))

    async def _erase_of(self, subject: str) -> int | None:
        after: tuple[str, int] | None = ("", 0)
        count = 0
        try:
            await self._log.recorded()
        except JournalLost:
            return None
        while after is not None:
            if self._thread is None:
                return None
            gone, after = await self._log.run(partial(_erase_some, subject, after))
            count += gone
        return count

    def _matches_of(self, pattern: str) -> KnownKeys:
        known = self._matches.pop(pattern, None)
        if known is None or len(known.judged) > MAX_MATCHED_KEYS:
            known = KnownKeys()
        self._matches[pattern] = known
        if len(self._matches) > MAX_MATCHES:
            self._matches.popitem(last=False)
        return known

    def _not_erased(self, failure: Failure, done: Callable[[None], None]) -> None:
        if failure.check(sqlite3.Error, OSError) is None:
            events.JOURNAL_FAULT.failure(failure)
        else:
            events.HISTORY_NOT_ERASED.log(path=str(self._log.path), cause=cause_text(failure.value))
        done(None)

    def _failed(self, failure: Failure, done: Callable[[Page | None], None]) -> None:
        if failure.check(sqlite3.Error, DamagedRowError) is None:
            events.JOURNAL_FAULT.failure(failure)
        else:
            events.HISTORY_UNREADABLE.log(path=str(self._log.path), cause=str(failure.value))
        done(None)


def _erase_some(subject: str, after: tuple[str, int], file: JournalFile) -> tuple[int, tuple[str, int] | None]:
    return file.history.erase_of(subject, after)


def read_page(db: sqlite3.Connection, asked: Asked, rules: HistoryRules, now_us: int, known: KnownKeys) -> Page:
    """Reads one page; for any thread.

    Args:
        db: the journal.
        asked: the request.
        rules: what is kept, and for how long.
        now_us: Unix µs.
        known: the known keys of the pattern, to which this adds. If there are many new ones, the page has no entries.

    Raises:
        DamagedRowError: a row cannot be read.
        sqlite3.Error: the file cannot be read.
    """
    bounds = _bounds(db, asked)
    key = rules.key_of(asked.pattern)
    if key is not None:
        rows = _few(db, asked, (key,), bounds)
    else:
        if not _learn(db, asked.pattern, rules, known):
            at_seq = asked.before_seq if asked.is_backwards else asked.after_seq
            return Page([], at_seq, EXAMINED_BYTES * EXAMINED_ROWS, False)
        if known.is_many or (len(known.matching) > FEW_KEYS and known.is_dense):
            rows = _scan(db, asked, rules, bounds, known)
        elif len(known.matching) > FEW_KEYS:
            rows = _merge(db, asked, bounds, known)
        else:
            rows = _few(db, asked, tuple(known.matching), bounds)
    # Closed with the page: an unfinished statement would block checkpoints.
    with closing(rows):
        # Nothing outside the bounds was examined, so no next page begins there.
        return _page(rows, asked._replace(after_seq=bounds[0], before_seq=bounds[1]), rules, now_us)


def _learn(db: sqlite3.Connection, pattern: Pattern, rules: HistoryRules, known: KnownKeys) -> bool:
    """Judges keys that were not judged yet; returns whether all are known now. If not, the next call continues."""
    if known.is_many:
        return True
    shapes = [shape.replace("[", "[[]").replace("?", "[?]") for shape in rules.key_shapes(pattern)]
    (newest_seq,) = db.execute("SELECT max(seq) FROM history_keys").fetchone()
    if not shapes or newest_seq is None or newest_seq <= known.seq:
        return True
    fits = " OR ".join(["key GLOB ?"] * len(shapes))
    query = f"SELECT seq, key FROM history_keys WHERE seq > ? AND seq <= ? AND ({fits}) ORDER BY seq LIMIT ?"  # noqa: S608 - constants
    found = db.execute(query, (known.seq, newest_seq, *shapes, EXAMINED_ROWS)).fetchall()
    known.matching.update((key, None) for _, key in found if rules.key_may_match(key, pattern))
    if len(known.matching) > MAX_MERGED_KEYS:
        known.matching = dict.fromkeys(_living(db, known.matching))
        known.is_many = len(known.matching) > MAX_MERGED_KEYS
    is_all = len(found) < EXAMINED_ROWS
    known.seq = newest_seq if is_all else found[-1][0]
    return is_all or known.is_many


def _page(rows: Iterable[tuple[int, _Row | None]], asked: Asked, rules: HistoryRules, now_us: int) -> Page:
    entries: list[HistoryEntry] = []
    size = 0
    max_rows, max_bytes = (COUNTED_ROWS, COUNTED_BYTES) if asked.is_backwards else (PAGE_ROWS, PAGE_BYTES)
    max_rows = min(asked.page_rows, max_rows)
    end_seq = asked.after_seq if asked.is_backwards else asked.before_seq - 1
    limits, matches = rules.limits, asked.pattern.matches
    ends = any(each.max_age_us is not None for each in limits)
    take = partial(_counted, asked) if _counts(asked) else partial(_kept, asked)
    for count, (seq, row) in enumerate(rows, 1):
        kept = None
        if row is not None:
            # Times rise with the seqs.
            if row.time_us < asked.from_us if asked.is_backwards else row.time_us > asked.to_us:
                end_seq = seq if asked.is_backwards else seq - 1
                break
            if matches(row.address) and not (ends and is_too_old(limits, row.key, row.time_us, now_us)):
                kept = take(seq, row)
        if kept is None:
            size += EXAMINED_BYTES
        else:
            entries.append(kept)
            size += kept.bytes
        if len(entries) >= max_rows or size >= max_bytes or count >= EXAMINED_ROWS:
            return Page(entries, seq, size, False)
    return Page(entries, end_seq, size, True)


def _kept(asked: Asked, seq: int, row: _Row) -> HistoryEntry | None:
    """Returns an entry; None if it is not asked for or was emptied by an erasure."""
    change = decode_body(seq, row.body)
    if is_emptied(change) or not asked.wants(change):
        return None
    return HistoryEntry(seq, row.address, row.bytes, None if asked.is_backwards else change)


def _counted(asked: Asked, seq: int, row: _Row) -> HistoryEntry | None:
    """Returns the position of an entry without decoding it (``_counts``); None in the cases of ``_kept``."""
    _, time_us, address, size_bytes, body = row
    if not isinstance(body, bytes) or len(body) < HEAD_BYTES:
        raise DamagedRowError(f"row {seq} is damaged (it has no body)")
    if not asked.from_us <= time_us <= asked.to_us or is_emptied_event(body):
        return None
    return _new(HistoryEntry, (seq, address, size_bytes, None))


def _counts(asked: Asked) -> bool:
    """Tells whether only the positions of the entries are needed."""
    return asked.is_backwards and asked.types == ALL_TYPES


def _columns(asked: Asked) -> str:
    """Returns the columns that are read of each row, after its key."""
    body = f"substr(e.body, 1, {HEAD_BYTES})" if _counts(asked) else "e.body"
    return f"e.time_us, e.address, length(e.body), {body}"


def _few(db: sqlite3.Connection, asked: Asked, keys: Sequence[str], bounds: tuple[int, int]) -> _Rows:
    """Yields the rows of some keys in the order of their seqs; SQLite merges them."""
    if not keys:
        return
    one = (
        f"SELECT h.seq, h.key, {_columns(asked)} FROM history h CROSS JOIN entries e ON e.seq = h.seq"  # noqa: S608 - constants
        " WHERE h.key = ? AND h.seq > ? AND h.seq < ?"
    )
    query = f"{' UNION ALL '.join([one] * len(keys))} ORDER BY 1 {_order(asked)}"
    with closing(db.cursor()) as cursor:
        cursor.execute(query, [value for key in keys for value in (key, *bounds)])
        while some := cursor.fetchmany(FETCHED_AT_ONCE):
            for row in some:
                yield row[0], _new(_Row, row[1:])


def _living(db: sqlite3.Connection, keys: Iterable[str]) -> list[str]:
    """Returns those keys that still have entries."""
    query = "SELECT value FROM json_each(?) WHERE value IN (SELECT key FROM history_keys)"
    return [key for (key,) in db.execute(query, (json.dumps(list(keys)),))]


def _merge(db: sqlite3.Connection, asked: Asked, bounds: tuple[int, int], known: KnownKeys) -> _Rows:
    """Yields the rows of the keys that the pattern may match, in the order of their seqs."""
    # One statement finds where each key begins, without the interpreter's lock.
    first = (
        "SELECT value, (SELECT seq FROM history WHERE key = value AND seq > ? AND seq < ?"  # noqa: S608 - constants
        f" ORDER BY seq {_order(asked)} LIMIT 1) FROM json_each(?)"
    )
    begins = db.execute(first, (*bounds, json.dumps(list(known.matching)))).fetchall()
    each = [_seqs(db, asked, key, seq, bounds) for key, seq in begins if seq is not None]
    merged = heapq.merge(*each, reverse=asked.is_backwards)
    size = FIRST_FETCHED
    while some := list(islice(merged, size)):
        found = _look_up(db, asked, [seq for seq, _ in some])
        for seq, key in some:
            # An entry may have been removed since its seq was read.
            yield seq, _row(key, found.get(seq))
        size = min(2 * size, FETCHED_AT_ONCE)


def _seqs(
    db: sqlite3.Connection, asked: Asked, key: str, first_seq: int, bounds: tuple[int, int]
) -> Iterator[tuple[int, str]]:
    """Yields the seqs of a key from ``first_seq`` on; each fetch has twice as many as the one before."""
    yield first_seq, key
    query = f"SELECT seq FROM history WHERE key = ? AND seq > ? AND seq < ? ORDER BY seq {_order(asked)} LIMIT ?"  # noqa: S608 - constants
    (after_seq, before_seq), last_seq, size = bounds, first_seq, FIRST_FETCHED
    while True:
        between = (after_seq, last_seq) if asked.is_backwards else (last_seq, before_seq)
        some = db.execute(query, (key, *between, size)).fetchall()
        for (last_seq,) in some:
            yield last_seq, key
        if len(some) < size:
            return
        size = min(2 * size, FETCHED_AT_ONCE)


def _scan(
    db: sqlite3.Connection, asked: Asked, rules: HistoryRules, bounds: tuple[int, int], known: KnownKeys
) -> _Rows:
    """Yields the rows of all keys in order, with None for a row whose key cannot match the pattern."""
    looked_at = found_of_them = 0
    with closing(db.cursor()) as cursor:
        query = f"SELECT seq, key FROM history WHERE seq > ? AND seq < ? ORDER BY seq {_order(asked)}"  # noqa: S608 - constants
        cursor.execute(query, bounds)
        while some := cursor.fetchmany(FETCHED_AT_ONCE):
            if known.is_many:
                for _, key in some:
                    if key not in known.judged:
                        known.judged[key] = rules.key_may_match(key, asked.pattern)
                wanted = [seq for seq, key in some if known.judged[key]]
            else:
                wanted = [seq for seq, key in some if key in known.matching]
            looked_at += len(some)
            found_of_them += len(wanted)
            known.is_dense = looked_at < SAMPLE_ROWS or found_of_them * DENSE >= looked_at
            found = _look_up(db, asked, wanted)
            for seq, key in some:
                yield seq, _row(key, found.get(seq))


def _look_up(db: sqlite3.Connection, asked: Asked, seqs: list[int]) -> dict[int, tuple[Any, ...]]:
    """Returns time, address, size and body of some rows, by their seqs."""
    if not seqs:
        return {}
    marks = ", ".join("?" * len(seqs))
    rows = db.execute(f"SELECT e.seq, {_columns(asked)} FROM entries e WHERE e.seq IN ({marks})", seqs)  # noqa: S608 - constants
    return {row[0]: row[1:] for row in rows}


def _row(key: str, columns: tuple[Any, ...] | None) -> _Row | None:
    """Returns a row that ``_look_up`` has found; None if it has not."""
    return None if columns is None else _new(_Row, (key, *columns))


def _order(asked: Asked) -> str:
    return "DESC" if asked.is_backwards else "ASC"


def _bounds(db: sqlite3.Connection, asked: Asked) -> tuple[int, int]:
    """Narrows the range of seqs by the times, so that few rows are read."""
    after_seq, before_seq = asked.after_seq, asked.before_seq
    if asked.from_us:
        row = db.execute("SELECT max(seq) FROM times WHERE time_us <= ?", (asked.from_us - SLACK_US,)).fetchone()
        after_seq = max(after_seq, (row[0] or 1) - 1)
    if asked.to_us < MAX_SEQ - SLACK_US:
        row = db.execute("SELECT min(seq) FROM times WHERE time_us > ?", (asked.to_us + SLACK_US,)).fetchone()
        before_seq = min(before_seq, row[0] or before_seq)
    # If the time range ends before the requested seqs, the page is empty, and the next one begins at the same seq.
    return after_seq, max(before_seq, after_seq + 1)
