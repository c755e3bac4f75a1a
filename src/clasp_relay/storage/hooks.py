"""Incoming webhooks in ``users.db``: made and revoked by the operator, also while a relay runs on the same file."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from clasp_relay.errors import ClaspError

__all__ = ["Hook", "HookGone", "HookStore"]


class HookGone(ClaspError):
    """There is no such webhook."""


class Hook(NamedTuple):
    """A webhook."""

    digest: bytes
    """SHA-256 of the id in its URL, which itself is not stored."""
    address: str
    """The address of its messages."""
    template: str
    """The template of its messages."""
    name: str
    """The name that it shows if a request has none."""
    created_s: int
    """Unix seconds."""

    @property
    def id(self) -> str:
        """Its id for the operator, and the end of its subject: the first digits of its digest."""
        return self.digest.hex()[:8]

    def __repr__(self) -> str:
        return f"Hook({self.id!r})"


class HookStore:
    """The webhooks of a ``users.db``. Its methods block.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, hook: Hook) -> None:
        """Adds a webhook."""
        self._db.execute("INSERT INTO hooks (digest, address, template, name, created_at) VALUES (?, ?, ?, ?, ?)", hook)

    def revoke(self, hook_id: str) -> None:
        """Deletes a webhook.

        Raises:
            HookGone: there is none with that id.
        """
        query = "DELETE FROM hooks WHERE lower(substr(hex(digest), 1, 8)) = ?"
        if self._db.execute(query, (hook_id,)).rowcount == 0:
            raise HookGone

    def all(self) -> list[Hook]:
        """Returns all, the oldest first."""
        query = "SELECT digest, address, template, name, created_at FROM hooks ORDER BY created_at, digest"
        return [Hook(*row) for row in self._db.execute(query)]

    def find(self, digest: bytes) -> Hook | None:
        """Returns the webhook whose id has a digest; None for none."""
        query = "SELECT digest, address, template, name, created_at FROM hooks WHERE digest = ?"
        row = self._db.execute(query, (digest,)).fetchone()
        return None if row is None else Hook(*row)
