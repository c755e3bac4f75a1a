"""The tables of history in ``journal.db``: the entries of each key, their limits, and erasing.

For the thread of the journal; every method but ``trim_old``, ``erase_of`` and ``begin`` is called within a transaction.

The interpreter's lock is released and taken again for each row that a query yields, which takes up to 5 ms each time
while the event loop is busy. So a commit needs few queries, which return many values in one row (as JSON), and the seqs
of a key are cached.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from clasp_relay.core.history.rules import Erasure, Limits, is_too_old, rule_of
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.storage.journal.statements import inserts, rows_at_once

MAX_KNOWN_BYTES = 16 * 1024 * 1024
"""Approximate memory limit of the cached seqs. Those of other keys are read each time."""

SUBJECT_BYTES = 400
"""Memory that a subject under a key takes besides its seqs."""

STALE_AT_MOST = 16
"""How many outdated items the heap of ``KeyEntries`` may have before it is made again, besides one for each subject."""

AGED_AT_ONCE = 500
"""How many entries that are too old are removed in one piece."""

KEYS_AT_ONCE = 64
"""How many keys are examined for entries that are too old, in one piece."""

ENDED_AT_ONCE = 64
"""How many keys one statement examines for those without entries."""

ERASED_AT_ONCE = 500
"""How many entries are examined for those of one subject in one piece, which takes a few ms between two commits."""

MAX_BEGUN_KEYS = 20_000
"""How many keys are remembered to be in ``history_keys``; beyond it all are forgotten."""

KEPT_COLUMNS = 3
"""How many values an entry has in ``KeptColumns``."""

_INSERT = inserts("INSERT OR ROLLBACK INTO history (key, seq, subject) VALUES", KEPT_COLUMNS)

_SEQS = (
    "SELECT json_group_array(json_array(subject, seq)) FROM"
    " (SELECT subject, seq FROM history WHERE key = ? ORDER BY seq)"
)
_BEGIN_KEYS = inserts("INSERT OR IGNORE INTO history_keys (key, seq) VALUES", 2)
_END_KEYS = (
    f"DELETE FROM history_keys WHERE key IN ({', '.join('?' * ENDED_AT_ONCE)})"  # noqa: S608 - question marks
    " AND NOT EXISTS (SELECT 1 FROM history WHERE history.key = history_keys.key)"
)
_TIMES = (
    "SELECT json_group_array(json_array(seq, time_us)) FROM (SELECT h.seq AS seq, e.time_us AS time_us"
    " FROM history h JOIN entries e ON e.seq = h.seq WHERE h.key = ? ORDER BY h.seq LIMIT ?)"
)
_FIRST_TIMES = (
    "SELECT json_group_array(json_array(key, (SELECT e.time_us FROM history h JOIN entries e ON e.seq = h.seq"
    " WHERE h.key = keys.key ORDER BY h.seq LIMIT 1))) FROM"
    " (SELECT key FROM history_keys WHERE key > ? ORDER BY key LIMIT ?) keys"
)
_OLDEST = (
    "SELECT json_group_array(json_array(key, seq)) FROM"
    " (SELECT key, seq FROM history WHERE seq <= ? ORDER BY seq LIMIT ?)"
)
_SUBJECTS = (
    "SELECT json_group_array(json_array(key, seq, subject)) FROM"
    # In two parts, since for «(key, seq) > (?, ?)» SQLite does not use the second column of the index.
    " (SELECT * FROM (SELECT key, seq, subject FROM history WHERE key = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3)"
    " UNION ALL SELECT * FROM (SELECT key, seq, subject FROM history WHERE key > ?1 ORDER BY key, seq LIMIT ?3)"
    " LIMIT ?3)"
)

KeyOf = Callable[[Change], "str | None"]

KeptColumns: TypeAlias = "list[str | int]"
"""The key, the seq and the subject of each entry, one after the other."""


class Erasing(NamedTuple):
    """The erasures of one change."""

    place: int
    """How many entries of the same commit are kept before the change."""
    seq: int
    """The seq of the change."""
    erasures: tuple[Erasure, ...]


class KeyEntries:
    """The entries under one key, as far as their limit needs them: the seqs of each subject, in order."""

    __slots__ = ("_of_subject", "_order", "count")

    def __init__(self) -> None:
        self._of_subject: dict[str, array[int]] = {}
        self._order: list[tuple[int, int, str]] | None = None
        """A heap of the subjects: the one with most entries, and of several the one with the oldest entry, loses the
        next one. It is made when the limit is exceeded for the first time. Outdated items are skipped."""
        self.count = 0
        """Number of entries."""

    @property
    def bytes(self) -> int:
        """Approximate memory of this object."""
        return SUBJECT_BYTES * len(self._of_subject) + 8 * self.count

    def add(self, subject: str, seq: int) -> int:
        """Adds an entry behind all others; returns how many more bytes they take."""
        self.count += 1
        more_bytes = 8
        seqs = self._of_subject.get(subject)
        if seqs is None:
            seqs = self._of_subject[subject] = array("Q")
            more_bytes += SUBJECT_BYTES
        seqs.append(seq)
        if self._order is not None:
            heappush(self._order, (-len(seqs), seqs[0], subject))
        return more_bytes

    def take(self) -> int:
        """Removes the entry that is evicted next under a ``max_count``; returns its seq."""
        of_subject, order = self._of_subject, self._order
        if order is None or len(order) > 2 * len(of_subject) + STALE_AT_MOST:
            order = self._order = [(-len(seqs), seqs[0], subject) for subject, seqs in of_subject.items()]
            heapify(order)
        while True:
            size, first_seq, subject = order[0]
            seqs = of_subject.get(subject)
            if seqs is not None and len(seqs) == -size and seqs[0] == first_seq:
                break
            heappop(order)
        self.count -= 1
        del seqs[0]
        if seqs:
            heapreplace(order, (-len(seqs), seqs[0], subject))
        else:
            heappop(order)
            del of_subject[subject]
        return first_seq


class HistoryTable:
    """The tables of history.

    Args:
        connection: the journal's.
        trimmed_seq: returns the last row that a recovery does not need any more.
        decode: decodes the body of a row, given the row's seq and the body.
        encode: encodes the body of a row.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        trimmed_seq: Callable[[], int],
        decode: Callable[[int, object], Change],
        encode: Callable[[Change], bytes],
    ) -> None:
        self._db = connection
        self._trimmed_seq = trimmed_seq
        self._decode = decode
        self._encode = encode
        self._limits: Sequence[Limits] = ()
        self._known: OrderedDict[str, KeyEntries] = OrderedDict()
        self._known_bytes = 0
        self._begun: set[str] = set()
        """Keys that are known to be in ``history_keys``."""
        self._aged_key = ""
        self._erased: list[tuple[Erasure, int]] | None = None
        """Erasures, each with the seq of its change, since a refill began; None while there is no refill."""
        self.erased_subjects: set[str] = set()
        """Subjects whose entries were all erased since then."""

    @property
    def last_us(self) -> int:
        """Unix µs of the last entry or of the last row, whichever is later; 0 if there is none.

        The last entry may have been erased, but no later one may get its time, which readers may use as a position.
        """
        row = self._db.execute(
            "SELECT max(time_us) FROM entries"
            " WHERE seq IN ((SELECT max(seq) FROM history), (SELECT max(seq) FROM entries))"
        ).fetchone()
        return int(row[0] or 0)

    def begin(self, limits: Sequence[Limits], fingerprint: str, key_of: KeyOf) -> int:
        """Sets the rules that are in force; if they have changed, gives each entry its new key.

        Args:
            limits: the limits of each rule.
            fingerprint: a text that changes when keys or limits do.
            key_of: returns the key of an entry; None if it is not kept any more.

        Returns:
            how many entries were removed.

        Raises:
            DamagedRowError: an entry cannot be read.
        """
        self._limits = limits
        if self._db.execute("SELECT fingerprint FROM history_rules").fetchone() == (fingerprint,):
            return 0
        before = self._db.execute("SELECT count(*) FROM history").fetchone()[0]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._make_keys(key_of)
            self._db.execute("UPDATE history_rules SET fingerprint = ?", (fingerprint,))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return int(before) - int(self._db.execute("SELECT count(*) FROM history").fetchone()[0])

    def _make_keys(self, key_of: KeyOf) -> None:
        rows = self._db.execute(
            "SELECT h.key, h.seq, e.body FROM history h JOIN entries e ON e.seq = h.seq ORDER BY h.seq"
        )
        moved: list[tuple[str, str, int]] = []
        gone: list[tuple[str, int]] = []
        for key, seq, body in rows:
            new = key_of(self._decode(seq, body))
            if new is None:
                gone.append((key, seq))
            elif new != key:
                moved.append((new, key, seq))
        self._db.executemany("UPDATE history SET key = ? WHERE key = ? AND seq = ?", moved)
        self.remove(gone, empties=True)
        self.forget()
        self._db.execute("DELETE FROM history_keys")
        self._db.execute("INSERT INTO history_keys (seq, key) SELECT min(seq), key FROM history GROUP BY key")
        self._limit([row[0] for row in self._db.execute("SELECT key FROM history_keys")])

    def keep(self, kept: KeptColumns, erasing: Sequence[Erasing]) -> None:
        """Adds the entries of a batch that was just inserted; removes those that it erases or that exceed a limit."""
        begin = 0
        for place, seq, erasures in erasing:
            self._insert(kept[begin : place * KEPT_COLUMNS])
            begin = place * KEPT_COLUMNS
            for erasure in erasures:
                self._erase(erasure, seq)
                if self._erased is not None:
                    self._erased.append((erasure, seq))
        self._insert(kept[begin:] if begin else kept)
        self._limit(set(kept[::KEPT_COLUMNS]))  # type: ignore[arg-type]  # each third is a text

    def _insert(self, values: KeptColumns) -> None:
        """Adds entries, many with one statement."""
        begin = 0
        for size in rows_at_once(len(values) // KEPT_COLUMNS):
            end = begin + size * KEPT_COLUMNS
            self._db.execute(_INSERT[size], values[begin:end])
            begin = end
        begun, known_of = self._begun, self._known.get
        new: dict[str, int] = {}
        columns: Iterator[Any] = iter(values)
        for key, seq, subject in zip(columns, columns, columns, strict=True):
            if key not in begun:
                new.setdefault(key, seq)
            known = known_of(key)
            if known is not None:
                self._known_bytes += known.add(subject, seq)
        if new:
            self._begin_keys(new)

    def _begin_keys(self, keys: Mapping[str, int]) -> None:
        """Adds keys to ``history_keys``, each with the seq of an entry that was just added, unless they are there."""
        # Not as JSON, since SQLite reads a text in it only up to the first U+0000.
        rows = list(keys.items())
        for size in rows_at_once(len(rows)):
            some, rows = rows[:size], rows[size:]
            self._db.execute(_BEGIN_KEYS[size], list(chain.from_iterable(some)))
        if len(self._begun) + len(keys) > MAX_BEGUN_KEYS:
            self._begun.clear()
        self._begun.update(keys)

    def _end_keys(self, keys: Iterable[str]) -> None:
        """Removes those of some keys that have no entry left from ``history_keys``."""
        ended = list(set(keys))
        self._begun.difference_update(ended)
        for begin in range(0, len(ended), ENDED_AT_ONCE):
            some = ended[begin : begin + ENDED_AT_ONCE]
            self._db.execute(_END_KEYS, some + some[-1:] * (ENDED_AT_ONCE - len(some)))

    def begin_refill(self) -> None:
        """Begins a refill: older entries of other relays will be added (``history_pages``)."""
        self._erased = self._erased or []

    def refilled(self, keys: Mapping[str, int], position_seq: int) -> None:
        """Applies later erasures and limits to entries of another relay that were just added; within a transaction.

        Args:
            keys: their keys, each with the seq of an entry that was added.
            position_seq: the last row that the journal of the other relay had.
        """
        self._begin_keys(keys)
        for key in keys:
            self._forget_key(key)
        for erasure, seq in self._erased or ():
            if seq > position_seq:  # remembered nevertheless: the next relay may be further behind
                self._erase(erasure, seq)
        self._limit(keys)

    def end_refill(self) -> None:
        """Ends a refill."""
        self._erased = None
        self.erased_subjects.clear()

    def forget(self) -> None:
        """Clears the caches, after a rollback or when entries of many keys were removed."""
        self._known.clear()
        self._known_bytes = 0
        self._begun.clear()

    def trim_old(self, now_us: int) -> bool:
        """Deletes one piece of the entries that are older than their rule allows, key after key, then from the start.

        Returns:
            whether it deleted as many entries as one piece may have.
        """
        if not any(limits.max_age_us is not None for limits in self._limits):
            return False
        keys = self._ask(_FIRST_TIMES, self._aged_key, KEYS_AT_ONCE)
        for key, first_us in keys:
            # Times rise with the seqs: if the first entry is not too old, none is.
            is_old = first_us is not None and is_too_old(self._limits, key, first_us, now_us)
            if is_old and self._trim_key(key, now_us):
                return True
            self._aged_key = key
        if len(keys) < KEYS_AT_ONCE:
            self._aged_key = ""
        return False

    def _trim_key(self, key: str, now_us: int) -> bool:
        """Deletes a key's entries that are too old; returns whether there may be more."""
        rows = self._ask(_TIMES, key, AGED_AT_ONCE)
        old = [(key, seq) for seq, time_us in rows if is_too_old(self._limits, key, time_us, now_us)]
        self._commit_removal(old, empties=False)
        return len(old) == AGED_AT_ONCE

    def erase_of(self, subject: str, after: tuple[str, int]) -> tuple[int, tuple[str, int] | None]:
        """Removes one piece of a subject's entries.

        Args:
            subject: the subject.
            after: key and seq of the last entry that was examined; ``("", 0)`` for the beginning.

        Returns:
            how many entries were removed, and ``after`` for the next piece; None at the end.
        """
        if self._erased is not None:
            self.erased_subjects.add(subject)
        rows = json.loads(self._db.execute(_SUBJECTS, (*after, ERASED_AT_ONCE)).fetchone()[0])
        gone = [(key, seq) for key, seq, whose in rows if whose == subject]
        if gone:
            self._commit_removal(gone, empties=True)
        return len(gone), None if len(rows) < ERASED_AT_ONCE else (rows[-1][0], rows[-1][1])

    def _limits_of(self, key: str) -> Limits | None:
        return self._limits[rule_of(key)] if self._limits else None

    def _limit(self, keys: Iterable[str]) -> None:
        """Removes the entries of some keys that exceed their rules' ``max_count``."""
        gone: list[int] = []
        for key in keys:
            limits = self._limits_of(key)
            if limits is not None and limits.max_count is not None:
                gone += self._take_over(self._entries(key), limits.max_count)
        if gone:
            self._delete(gone, self._trimmed_seq())
        while self._known_bytes > MAX_KNOWN_BYTES:
            self._forget_key(next(iter(self._known)))

    def _entries(self, key: str) -> KeyEntries:
        """Returns all entries of a key."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = KeyEntries()
            for subject, seq in self._ask(_SEQS, key):
                self._known_bytes += known.add(subject, seq)
        return known

    def _take_over(self, entries: KeyEntries, max_count: int) -> list[int]:
        """Removes the entries that exceed a limit from the cache; returns their seqs."""
        before_bytes = entries.bytes
        gone = [entries.take() for _ in range(entries.count - max_count)]
        self._known_bytes += entries.bytes - before_bytes
        return gone

    def _forget_key(self, key: str) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._known_bytes -= known.bytes

    def _ask(self, query: str, *values: str | int) -> list[tuple[Any, Any]]:
        """Returns the pairs of a query that has all of them in one row, as JSON."""
        return [(first, second) for first, second in json.loads(self._db.execute(query, values).fetchone()[0])]

    def _erase(self, erasure: Erasure, before_seq: int) -> None:
        key = erasure.key
        if erasure.applies is None:
            rows = self._db.execute("SELECT seq FROM history WHERE key = ? AND seq < ?", (key, before_seq))
            self.remove([(key, seq) for (seq,) in rows.fetchall()], empties=True)
            return
        found = self._db.execute(
            "SELECT h.seq, e.body FROM history h JOIN entries e ON e.seq = h.seq"
            " WHERE h.key = ? AND h.seq < ? AND instr(e.body, ?) > 0",
            (key, before_seq, erasure.word),
        ).fetchall()
        self.remove([(key, seq) for seq, body in found if erasure.applies(self._decode(seq, body))], empties=True)

    def remove(self, entries: Sequence[tuple[str, int]], *, empties: bool) -> None:
        """Removes entries; rows that a recovery may still read stay until they are trimmed.

        Args:
            entries: key and seq of each.
            empties: whether the rows of signals that stay lose their contents.
        """
        for key, _ in entries:
            self._forget_key(key)
        trimmed_seq = self._trimmed_seq()
        self._delete([seq for _, seq in entries], trimmed_seq)
        self._end_keys(key for key, _ in entries)
        if empties:
            self._empty([seq for _, seq in entries if seq > trimmed_seq])

    def remove_oldest(self, at_most: int) -> bool:
        """Removes the oldest entries whose rows no recovery reads any more; returns whether there were any."""
        trimmed_seq = self._trimmed_seq()
        oldest = self._ask(_OLDEST, trimmed_seq, at_most)
        self.forget()
        self._delete([seq for _, seq in oldest], trimmed_seq)
        self._end_keys(key for key, _ in oldest)
        return bool(oldest)

    def _delete(self, seqs: Sequence[int], trimmed_seq: int) -> None:
        """Deletes entries, and their rows where no recovery reads them any more."""
        in_list = "(SELECT value FROM json_each(?))"
        self._db.execute(f"DELETE FROM history WHERE seq IN {in_list}", (json.dumps(seqs),))  # noqa: S608 - a constant
        rows = [seq for seq in seqs if seq <= trimmed_seq]
        if rows:
            self._db.execute(f"DELETE FROM entries WHERE seq IN {in_list}", (json.dumps(rows),))  # noqa: S608 - a constant

    def _commit_removal(self, entries: Sequence[tuple[str, int]], *, empties: bool) -> None:
        """Removes entries in a transaction of its own; see ``remove``."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self.remove(entries, empties=empties)
            self._db.execute("COMMIT")
        except BaseException:
            self.forget()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _empty(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            row = self._db.execute(
                "SELECT time_us, address FROM entries WHERE seq = ? AND kind = ?", (seq, int(ChangeKind.EVENT))
            ).fetchone()
            if row is not None:
                body = self._encode(Change(no_param(row[1], "", "", row[0]), ChangeKind.EVENT))
                self._db.execute("UPDATE entries SET body = ? WHERE seq = ?", (body, seq))
