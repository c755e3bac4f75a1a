"""The push subscriptions of browsers, in ``users.db``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["PushStore", "Subscription"]


class Subscription(NamedTuple):
    """One browser's push subscription (RFC 8030, RFC 8291)."""

    endpoint: str
    """The URL of its push service; whoever knows it can send there."""
    subject: str
    p256dh: bytes
    """The browser's public key, P-256 as an uncompressed point."""
    auth: bytes
    """Its secret (RFC 8291 §3.2)."""
    sign_in: bytes
    """The digest of the first token of the sign-in that it was made in."""
    created_s: int
    """Unix seconds."""

    def __repr__(self) -> str:
        return f"Subscription({self.subject!r})"


class PushStore:
    """The subscriptions of a ``users.db``. Its methods block.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def key(self, make: Callable[[], bytes]) -> bytes:
        """Returns the private key by which push services identify this relay; makes one if there is none."""
        query = "SELECT private_key FROM push_key"
        row = self._db.execute(query).fetchone()
        if row is None:
            self._db.execute("INSERT OR IGNORE INTO push_key (id, private_key) VALUES (0, ?)", (make(),))
            row = self._db.execute(query).fetchone()
        key: bytes = row[0]
        return key

    def add(self, subscription: Subscription) -> None:
        """Adds a subscription; an endpoint that is there already passes to its subject."""
        self._db.execute(
            "INSERT OR REPLACE INTO push_subscriptions (endpoint, subject, p256dh, auth, sign_in, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            subscription,
        )

    def remove(self, endpoints: Sequence[str]) -> None:
        """Removes subscriptions."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("DELETE FROM push_subscriptions WHERE endpoint = ?", ((each,) for each in endpoints))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def all(self) -> list[Subscription]:
        """Returns all, the oldest first."""
        query = (
            "SELECT endpoint, subject, p256dh, auth, sign_in, created_at FROM push_subscriptions"
            " ORDER BY created_at, endpoint"
        )
        return [Subscription(*row) for row in self._db.execute(query)]

    def guests(self) -> dict[str, bytes]:
        """Returns the subjects that are not accounts, each with a keyed hash of its client address."""
        query = (
            "SELECT DISTINCT subject, made_for FROM tokens WHERE subject IN (SELECT subject FROM push_subscriptions)"
            " AND subject NOT IN (SELECT id FROM users)"
        )
        return dict(self._db.execute(query).fetchall())

    def forgotten(self) -> list[str]:
        """Returns the endpoints of subjects that have neither an account nor a stored token any more."""
        query = (
            "SELECT endpoint FROM push_subscriptions WHERE subject NOT IN (SELECT subject FROM tokens)"
            " AND subject NOT IN (SELECT id FROM users)"
        )
        return [endpoint for (endpoint,) in self._db.execute(query)]
