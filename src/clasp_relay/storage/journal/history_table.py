"""The tables of history in ``journal.db``: what is kept under each key, its limits, and what is erased.

For the thread of the journal; every method but ``trim_old`` and ``begin`` is called within a transaction.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import chain
from typing import NamedTuple

from clasp_relay.core.history.rules import Erasure, Limits, rule_of
from clasp_relay.core.records import Change, ChangeKind, no_param

MAX_COUNTED_KEYS = 1_024
"""Of how many keys it is known how many entries each subject has; of the others that is counted again."""

MAX_COUNTED_SUBJECTS = 1_000
"""Of a key with more subjects it is counted every time."""

AGED_AT_ONCE = 500
"""How many entries that are too old go in one piece."""

KEYS_AT_ONCE = 64
"""How many keys are looked at for entries that are too old, in one piece."""

ROWS_AT_ONCE = 32
"""How many entries one statement adds at most."""

_INSERT = [
    f"INSERT INTO history (key, seq, subject) VALUES {', '.join(['(?, ?, ?)'] * size)}"  # noqa: S608 - constants
    for size in range(ROWS_AT_ONCE + 1)
]

KeyOf = Callable[[Change], "str | None"]


class Keep(NamedTuple):
    """What history has to do with one change."""

    seq: int
    key: str | None
    subject: str
    erasures: tuple[Erasure, ...]


class HistoryTable:
    """The tables of history.

    Args:
        connection: the journal's.
        trimmed_seq: returns up to which row the recovery needs nothing any more.
        decode: reads the body of a row, given its seq, too.
        encode: makes the body of a row.
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
        self._counts: OrderedDict[str, Counter[str]] = OrderedDict()
        self._aged_key = ""

    @property
    def last_us(self) -> int:
        """Unix µs of the last entry, or of the last row where that is later; 0 where there is none.

        The last entry may have been erased, and no later one may have its time: readers may know it as their position.
        """
        row = self._db.execute(
            "SELECT max(time_us) FROM entries"
            " WHERE seq IN ((SELECT max(seq) FROM history), (SELECT max(seq) FROM entries))"
        ).fetchone()
        return int(row[0] or 0)

    def begin(self, limits: Sequence[Limits], fingerprint: str, key_of: KeyOf) -> int:
        """Takes the rules that are in force; where they are others than before, everything is put under its new key.

        Args:
            limits: the limits of each rule.
            fingerprint: a text that changes when keys or limits do.
            key_of: returns the key of an entry; None where it is not kept any more.

        Returns:
            how many entries went.

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
        self._counts.clear()
        # The triggers of ``schema/journal-3.sql`` follow entries that come and go, not those that get another key.
        self._db.execute("DELETE FROM history_keys")
        self._db.execute("INSERT INTO history_keys (seq, key) SELECT min(seq), key FROM history GROUP BY key")
        for key in [row[0] for row in self._db.execute("SELECT key FROM history_keys")]:
            self._limit(key)

    def keep(self, changes: Iterable[Keep]) -> None:
        """Notes changes that were just inserted, in order, and removes what goes with them."""
        touched: dict[str, None] = {}
        rows: list[tuple[str, int, str]] = []
        for seq, key, subject, erasures in changes:
            if erasures:
                self._insert(rows)
                rows = []
            for erasure in erasures:
                self._erase(erasure, seq)
            if key is not None:
                rows.append((key, seq, subject))
                touched[key] = None
        self._insert(rows)
        for key in touched:
            self._limit(key)

    def _insert(self, rows: Sequence[tuple[str, int, str]]) -> None:
        """Adds entries, many in one statement."""
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[begin : begin + ROWS_AT_ONCE]
            self._db.execute(_INSERT[len(some)], list(chain.from_iterable(some)))
        for key, _, subject in rows:
            if key in self._counts:
                self._counts[key][subject] += 1

    def forget_counts(self) -> None:
        """Forgets what was counted, since a transaction was undone."""
        self._counts.clear()

    def trim_old(self, now_us: int) -> bool:
        """Deletes one piece of what is older than its rule allows, key after key, and begins again at the end.

        Returns:
            whether it deleted as much as goes in one piece.
        """
        if not any(limits.max_age_us is not None for limits in self._limits):
            return False
        for _ in range(KEYS_AT_ONCE):
            row = self._db.execute(
                "SELECT key FROM history WHERE key > ? ORDER BY key LIMIT 1", (self._aged_key,)
            ).fetchone()
            if row is None:
                self._aged_key = ""
                return False
            if self._trim_key(row[0], now_us):
                return True
            self._aged_key = row[0]
        return False

    def _trim_key(self, key: str, now_us: int) -> bool:
        """Deletes what is too old of one key; returns whether there may be more of it."""
        limits = self._limits_of(key)
        if limits is None or limits.max_age_us is None:
            return False
        rows = self._db.execute(
            "SELECT h.seq, e.time_us FROM history h JOIN entries e ON e.seq = h.seq WHERE h.key = ?"
            " ORDER BY h.seq LIMIT ?",
            (key, AGED_AT_ONCE),
        ).fetchall()
        old = [(key, seq) for seq, time_us in rows if time_us < now_us - limits.max_age_us]
        if old:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self.remove(old, empties=False)
                self._db.execute("COMMIT")
            except BaseException:
                self.forget_counts()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return len(old) == AGED_AT_ONCE

    def _limits_of(self, key: str) -> Limits | None:
        return self._limits[rule_of(key)] if self._limits else None

    def _limit(self, key: str) -> None:
        """Removes what a key has beyond its rule's ``max_count``."""
        limits = self._limits_of(key)
        if limits is None or limits.max_count is None:
            return
        counts = self._count(key)
        over = counts.total() - limits.max_count
        if over <= 0:
            return
        rows = self._db.execute("SELECT seq, subject FROM history WHERE key = ? ORDER BY seq", (key,))
        if over == 1:
            most = max(counts.values())
            with closing(rows):
                seq, subject = next(row for row in rows if counts[row[1]] == most)
            gone = [(key, seq)]
            counts[subject] -= 1
            if not counts[subject]:
                del counts[subject]
        else:
            gone = [(key, seq) for seq in victims(rows.fetchall(), over)]
            counts = Counter()
        self.remove(gone, empties=False)
        if counts and len(counts) <= MAX_COUNTED_SUBJECTS:
            self._counts[key] = counts

    def _count(self, key: str) -> Counter[str]:
        """Returns how many entries each subject has under a key."""
        counts = self._counts.get(key)
        if counts is None:
            query = "SELECT subject, count(*) FROM history WHERE key = ? GROUP BY subject"
            counts = Counter(dict(self._db.execute(query, (key,)).fetchall()))
            if len(self._counts) >= MAX_COUNTED_KEYS:
                self._counts.popitem(last=False)
            if len(counts) <= MAX_COUNTED_SUBJECTS:
                self._counts[key] = counts
        return counts

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
            empties: whether nothing is to be left of a signal in a row that stays.
        """
        self._db.executemany("DELETE FROM history WHERE key = ? AND seq = ?", entries)
        for key, _ in entries:
            self._counts.pop(key, None)
        trimmed_seq = self._trimmed_seq()
        self._db.executemany("DELETE FROM entries WHERE seq = ?", [(seq,) for _, seq in entries if seq <= trimmed_seq])
        if empties:
            self._empty([seq for _, seq in entries if seq > trimmed_seq])

    def _empty(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            row = self._db.execute(
                "SELECT time_us, address FROM entries WHERE seq = ? AND kind = ?", (seq, int(ChangeKind.EVENT))
            ).fetchone()
            if row is not None:
                body = self._encode(Change(no_param(row[1], "", "", row[0]), ChangeKind.EVENT))
                self._db.execute("UPDATE entries SET body = ? WHERE seq = ?", (body, seq))


def victims(entries: Sequence[tuple[int, str]], count: int) -> list[int]:
    """Returns which of a key's entries go when there are too many, one after the other as ``victim`` says.

    Args:
        entries: the seq and the subject of each, in order.
        count: how many go.
    """
    left = Counter(subject for _, subject in entries)
    gone: list[int] = []
    rest = list(entries)
    while len(gone) < count:
        most = max(left.values())
        place = next(n for n, (_, subject) in enumerate(rest) if left[subject] == most)
        seq, subject = rest.pop(place)
        left[subject] -= 1
        gone.append(seq)
    return gone
