"""Device tokens in ``users.db``: made and revoked by the operator, in force in a relay that runs on the same file."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from clasp_relay.storage.users import GUEST_PROOF_S, IdentityTaken, TokenGone

__all__ = ["DeviceStore", "DeviceToken"]


class DeviceToken(NamedTuple):
    """A token that the operator made. Times are in Unix seconds; None for never."""

    id: str
    """Its id, for the operator."""
    digest: bytes
    """SHA-256 of the token, which itself is not stored."""
    subject: str
    name: str
    """A name for people; may be empty."""
    scopes: tuple[str, ...]
    """Exactly what it may do, as ``action:pattern``."""
    created_s: int
    expires_s: int | None

    def __repr__(self) -> str:
        return f"DeviceToken({self.id!r})"


class DeviceStore:
    """The device tokens of a ``users.db``. Its methods block; each is one transaction.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._version: int | None = None

    def add(self, token: DeviceToken, *, is_own_subject: bool) -> None:
        """Adds a token.

        Args:
            token: a new one.
            is_own_subject: whether the subject was made for this token, so that it cannot be anybody else's.

        Raises:
            IdentityTaken: the subject is a guest's.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if not is_own_subject and not self._may_have(token):
                raise IdentityTaken
            self._db.execute(
                "INSERT INTO device_tokens (id, digest, subject, name, scopes, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*token[:4], "\n".join(token.scopes), *token[5:]),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def revoke(self, token_id: str, now_s: int) -> None:
        """Revokes a token.

        Raises:
            TokenGone: there is none with that id, or it is revoked already.
        """
        query = "UPDATE device_tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
        if self._db.execute(query, (now_s, token_id)).rowcount == 0:
            raise TokenGone

    def all(self) -> list[DeviceToken]:
        """Returns the tokens that are not revoked and whose subject is not disabled, the oldest first.

        Some may have expired.
        """
        rows = self._db.execute(
            "SELECT id, digest, subject, name, scopes, created_at, expires_at FROM device_tokens"
            " WHERE revoked_at IS NULL AND subject NOT IN (SELECT subject FROM disabled_subjects)"
            " ORDER BY created_at, id"
        )
        return [DeviceToken(*row)._replace(scopes=tuple(row[4].splitlines())) for row in rows]

    def changed(self) -> list[DeviceToken] | None:
        """Returns ``all()`` if another process has changed the file since the last call; None if not.

        If nothing was changed no table is read (SQLite's ``PRAGMA data_version``).
        """
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return None
        self._version = version
        return self.all()

    def _may_have(self, token: DeviceToken) -> bool:
        """Tells whether a device token may have its subject: any but a guest's."""
        for query, values in (
            ("SELECT 1 FROM users WHERE id = ?", (token.subject,)),
            ("SELECT 1 FROM device_tokens WHERE subject = ?", (token.subject,)),
        ):
            if self._db.execute(query, values).fetchone() is not None:
                return True
        guest = "SELECT 1 FROM tokens WHERE subject = ? AND guest AND first_expires_at > ?"
        return self._db.execute(guest, (token.subject, token.created_s - GUEST_PROOF_S)).fetchone() is None
