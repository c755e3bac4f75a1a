"""The audit log in ``users.db``: who did what to whom. Rows are only added, and removed when they are too old."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["MAX_ROWS", "AuditEntry", "AuditRow", "AuditStore"]

MAX_ROWS = 1_000_000
"""Rows that are kept at most, about 200 MB."""

MAX_DETAIL_CHARACTERS = 4_096
"""Longer details are left out."""

EXAMINED_AT_ONCE = 2_000
"""Rows that one call looks at; a sign-in that comes meanwhile waits for milliseconds."""

_UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal, break lines or change the writing direction, beyond those that JSON escapes."""

_COLUMNS = "seq, at, action, outcome, actor, actor_name, target, address, detail"


class AuditEntry(NamedTuple):
    """An entry to add to the log."""

    at_s: int
    """Unix seconds."""
    action: str
    """The action: ``login``, ``admin.disable`` …"""
    outcome: str = "ok"
    """``ok``, or the name of a refusal."""
    actor: str = ""
    """The user id of the actor; empty if it is not known."""
    actor_name: str = ""
    """The name of the actor at that time."""
    target: str = ""
    """The person or thing that it was done to."""
    address: str = ""
    """A keyed hash of the client address; empty for the command line."""
    detail: Mapping[str, Any] = {}
    """More about it, as JSON."""


class AuditRow(NamedTuple):
    """A row of the log."""

    seq: int
    entry: AuditEntry

    def as_json(self) -> dict[str, Any]:
        """Returns it as the API and the export have it."""
        at_s, action, outcome, actor, actor_name, target, address, detail = self.entry
        return {
            "seq": self.seq,
            "at": at_s,
            "action": action,
            "outcome": outcome,
            "actor": actor,
            "actor_name": actor_name,
            "target": target,
            "address": address,
            "detail": dict(detail),
        }

    def as_line(self) -> str:
        """Returns it as a line of JSON that is safe to show in a terminal, whatever somebody called their room."""
        text = json.dumps(self.as_json(), ensure_ascii=False)
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class AuditStore:
    """The audit log of a ``users.db``. Its methods block.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, entries: Sequence[AuditEntry]) -> None:
        """Adds entries in one transaction, or in the one that is open."""
        rows = [(*entry[:7], _detail(entry.detail)) for entry in entries]
        insert = (
            "INSERT INTO audit (at, action, outcome, actor, actor_name, target, address, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        if self._db.in_transaction:
            self._db.executemany(insert, rows)
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(insert, rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def before(self, seq: int | None, limit: int, action: str = "", search: str = "") -> tuple[list[AuditRow], int]:
        """Returns rows before one, the latest first; it looks at ``EXAMINED_AT_ONCE`` rows at most.

        Args:
            seq: of the row; None for the end.
            limit: how many at most.
            action: only rows of this action; empty for any.
            search: only rows that have this text in them, irrespective of case (of ASCII letters); empty for any.

        Returns:
            the rows, and where the next call goes on; 0 when there are no more.
        """
        end = self._bound("MAX") + 1 if seq is None else seq
        start = max(end - EXAMINED_AT_ONCE, 0)
        query = f"SELECT {_COLUMNS} FROM audit WHERE seq < ? AND seq >= ?"  # noqa: S608 - a constant
        values: list[object] = [end, start]
        if action:
            query += " AND action = ?"
            values.append(action)
        if search:
            query += (
                " AND instr(lower(action || ' ' || outcome || ' ' || actor || ' ' || actor_name || ' ' || target"
                " || ' ' || address), lower(?)) > 0"
            )
            values.append(search)
        rows = [_row(row) for row in self._db.execute(f"{query} ORDER BY seq DESC LIMIT ?", (*values, limit))]
        reached = rows[-1].seq if len(rows) == limit else start
        return rows, reached if reached > self._bound("MIN") else 0

    def after(self, seq: int, limit: int) -> list[AuditRow]:
        """Returns the rows behind one, the oldest first."""
        query = f"SELECT {_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - a constant
        return [_row(row) for row in self._db.execute(query, (seq, limit))]

    def trim(self, before_s: int, max_rows: int = MAX_ROWS) -> int:
        """Deletes the oldest rows, ``EXAMINED_AT_ONCE`` at most.

        Args:
            before_s: Unix seconds; older rows are deleted, up to the first that is newer.
            max_rows: rows that are kept at most.

        Returns:
            how many were deleted.
        """
        last = self._bound("MAX")
        first_kept = 0
        for seq, at_s in self._db.execute("SELECT seq, at FROM audit ORDER BY seq LIMIT ?", (EXAMINED_AT_ONCE,)):
            if at_s >= before_s and seq > last - max_rows:
                break
            first_kept = seq + 1
        if not first_kept:
            return 0
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("UPDATE audit_bounds SET first_seq = MAX(first_seq, ?)", (first_kept,))
            count = self._db.execute("DELETE FROM audit WHERE seq < ?", (first_kept,)).rowcount
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return count

    def _bound(self, which: str) -> int:
        (seq,) = self._db.execute(f"SELECT {which}(seq) FROM audit").fetchone()  # noqa: S608 - MIN or MAX
        return seq or 0


def _detail(detail: Mapping[str, Any]) -> str:
    text = json.dumps(dict(detail), ensure_ascii=False)
    return text if len(text) <= MAX_DETAIL_CHARACTERS else '{"left_out": true}'


def _row(row: Sequence[Any]) -> AuditRow:
    return AuditRow(row[0], AuditEntry._make((*row[1:8], json.loads(row[8]))))
