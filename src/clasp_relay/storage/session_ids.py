"""The session ids that subjects were given, in ``users.db``."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["GivenId", "SessionIdStore"]


class GivenId(NamedTuple):
    """A session id, its subject, and when (Unix seconds) its session was last known to be connected."""

    session_id: str
    subject: str
    seen_s: int


class SessionIdStore:
    """The session ids of a ``users.db``. Its methods block.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def note(self, given: Sequence[GivenId], forgotten: Sequence[str], before_s: int) -> None:
        """Stores ids, or when they were seen last, and deletes others.

        Args:
            given: the ids to store.
            forgotten: the ids to delete.
            before_s: ids that were last seen before (Unix seconds) are deleted, too.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO session_ids (session_id, subject, seen_at) VALUES (?, ?, ?)"
                " ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at",
                given,
            )
            self._db.executemany("DELETE FROM session_ids WHERE session_id = ?", ((each,) for each in forgotten))
            self._db.execute("DELETE FROM session_ids WHERE seen_at < ?", (before_s,))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def all(self, since_s: int, limit: int) -> list[GivenId]:
        """Returns the ids that were seen since a time (Unix seconds), the latest ``limit`` ones, the oldest first."""
        query = "SELECT session_id, subject, seen_at FROM session_ids WHERE seen_at >= ? ORDER BY seen_at DESC LIMIT ?"
        return [GivenId(*row) for row in self._db.execute(query, (since_s, limit))][::-1]
