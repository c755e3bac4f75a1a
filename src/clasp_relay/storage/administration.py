"""Users, guests and administrators' decisions in ``users.db``, for the console and its commands.

Each change is one transaction together with its entry in the audit log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from clasp_relay.storage.audit import AuditEntry, AuditStore
from clasp_relay.storage.users import (
    GUEST_PROOF_S,
    NameConfusable,
    NameKeys,
    NameTaken,
    PersonGone,
    ResetGone,
)
from clasp_relay.storage.users_file import transaction

__all__ = ["AdminStore", "Decided", "Deletion", "Person", "PersonFacts"]

_USERS = (
    "SELECT id, username, 0, created_at, EXISTS (SELECT 1 FROM administrators WHERE user_id = id),"
    " EXISTS (SELECT 1 FROM disabled_subjects WHERE subject = id), COALESCE(folded_name, username)"
    " FROM users LEFT JOIN user_facts ON user_facts.user_id = id"
)
_GUESTS = (
    "SELECT subject, username, 1, MIN(signed_in_at), 0,"
    " EXISTS (SELECT 1 FROM disabled_subjects WHERE disabled_subjects.subject = tokens.subject), subject FROM tokens"
    " WHERE guest AND (first_expires_at > ? AND revoked_at IS NULL"
    " OR EXISTS (SELECT 1 FROM disabled_subjects WHERE disabled_subjects.subject = tokens.subject))"
    " AND NOT EXISTS (SELECT 1 FROM users WHERE id = subject)"
)


class Person(NamedTuple):
    """A user or guest."""

    user_id: str
    username: str
    is_guest: bool
    created_s: int
    """Unix seconds; for a guest, the first known sign-in."""
    is_admin: bool
    is_disabled: bool
    order: str
    """The sort key before the id; for a guest the id."""


class PersonFacts(NamedTuple):
    """A summary of a person's tokens."""

    sign_ins: int
    """Number of valid tokens."""
    last_issued_s: int
    """When the last stored token was issued, in Unix seconds."""


class Decided(NamedTuple):
    """The decisions of administrators that a running relay has to know."""

    administrators: frozenset[str]
    disabled: frozenset[str]
    choices: Mapping[str, str]


class Deletion(NamedTuple):
    """A deleted person, of whom something may be left outside of ``users.db``."""

    subject: str
    erases_messages: bool
    """Whether their messages are erased from history."""


class AdminStore:
    """The administrators' side of a ``users.db``. Its methods block.

    Args:
        db: the connection, in autocommit mode.
        audit: the log in the same file.
    """

    def __init__(self, db: sqlite3.Connection, audit: AuditStore) -> None:
        self._db = db
        self._audit = audit

    def decided(self) -> Decided:
        """Returns the decisions."""
        administrators = self._db.execute("SELECT user_id FROM administrators").fetchall()
        disabled = self._db.execute("SELECT subject FROM disabled_subjects").fetchall()
        choices = self._db.execute("SELECT name, value FROM choices").fetchall()
        return Decided(
            frozenset(row[0] for row in administrators), frozenset(row[0] for row in disabled), dict(choices)
        )

    def users(self, after: tuple[str, str], limit: int) -> list[Person]:
        """Returns users by name.

        Args:
            after: only people after this one: ``order`` and id; two empty texts for the beginning.
            limit: how many at most.
        """
        query = f"{_USERS} WHERE (COALESCE(folded_name, username), id) > (?, ?) ORDER BY 7, 1 LIMIT ?"
        return [_person(row) for row in self._db.execute(query, (*after, limit))]

    def guests(self, after: str, limit: int, now_s: int) -> list[Person]:
        """Returns guests with a valid token, by id.

        Args:
            after: only ids after this one.
            limit: how many at most.
            now_s: Unix seconds.
        """
        query = f"{_GUESTS} AND subject > ? GROUP BY subject ORDER BY subject LIMIT ?"
        return [_person(row) for row in self._db.execute(query, (now_s - GUEST_PROOF_S, after, limit))]

    def person(self, user_id: str, now_s: int) -> Person:
        """Returns one user or guest.

        Raises:
            PersonGone: there is none.
        """
        row = self._db.execute(f"{_USERS} WHERE id = ?", (user_id,)).fetchone()
        if row is None:
            query = f"{_GUESTS} AND subject = ? GROUP BY subject"
            row = self._db.execute(query, (now_s - GUEST_PROOF_S, user_id)).fetchone()
        if row is None:
            raise PersonGone
        return _person(row)

    def find(self, name: str, folded: str) -> Person:
        """Returns the user with a name, exactly or irrespective of case, or with an id.

        Raises:
            PersonGone: there is none.
        """
        for condition, value in (("username = ?", name), ("folded_name = ?", folded), ("id = ?", name)):
            row = self._db.execute(f"{_USERS} WHERE {condition} ORDER BY created_at, id LIMIT 1", (value,)).fetchone()
            if row is not None:
                return _person(row)
        raise PersonGone

    def administrators(self) -> list[Person]:
        """Returns the users who may sign in to the console, by name."""
        rows = self._db.execute(f"{_USERS} WHERE id IN (SELECT user_id FROM administrators) ORDER BY 7, 1")  # noqa: S608
        return [_person(row) for row in rows]

    def facts(self, subjects: Sequence[str], now_s: int) -> dict[str, PersonFacts]:
        """Returns summaries of the tokens of some people; none for those without tokens."""
        rows = self._db.execute(
            "SELECT subject, COUNT(DISTINCT CASE WHEN revoked_at IS NULL AND (expires_at > ? OR (first_expires_at"  # noqa: S608
            " + guest * ? > ? AND guest)) THEN sign_in END), MAX(created_at) FROM tokens"
            f" WHERE subject IN ({', '.join('?' * len(subjects))}) GROUP BY subject",
            (now_s, GUEST_PROOF_S, now_s, *subjects),
        )
        return {subject: PersonFacts(sign_ins, last_s) for subject, sign_ins, last_s in rows}

    def counts(self) -> tuple[int, int]:
        """Returns how many users there are, and how many people are disabled."""
        (users,) = self._db.execute("SELECT COUNT(*) FROM users").fetchone()
        (disabled,) = self._db.execute("SELECT COUNT(*) FROM disabled_subjects").fetchone()
        return users, disabled

    def grant(self, user_id: str, entry: AuditEntry) -> None:
        """Lets a user sign in to the console."""
        with self._changing(entry):
            self._db.execute("INSERT OR IGNORE INTO administrators VALUES (?, ?)", (user_id, entry.at_s))

    def withdraw(self, user_id: str, entry: AuditEntry) -> None:
        """Lets a user no longer sign in to the console.

        Raises:
            PersonGone: the user might not.
        """
        with self._changing(entry):
            if not self._db.execute("DELETE FROM administrators WHERE user_id = ?", (user_id,)).rowcount:
                raise PersonGone

    def disable(self, user_id: str, entry: AuditEntry) -> None:
        """Revokes the tokens and the one-time link of a user or guest, who cannot sign in from now on.

        Raises:
            PersonGone: there is no such person.
        """
        with self._changing(entry):
            self.person(user_id, entry.at_s)
            self._db.execute("INSERT OR IGNORE INTO disabled_subjects VALUES (?, ?)", (user_id, entry.at_s))
            self._db.execute("DELETE FROM password_resets WHERE user_id = ?", (user_id,))
            self._revoke(user_id, entry.at_s)

    def enable(self, user_id: str, entry: AuditEntry) -> None:
        """Lets a disabled person sign in again. A guest comes as a new one, since no token proves the old id.

        Raises:
            PersonGone: no such person is disabled.
        """
        with self._changing(entry):
            if not self._db.execute("DELETE FROM disabled_subjects WHERE subject = ?", (user_id,)).rowcount:
                raise PersonGone

    def rename(self, user_id: str, username: str, keys: NameKeys, entry: AuditEntry) -> None:
        """Gives a user another name.

        Raises:
            PersonGone: there is no such user.
            NameTaken: another user has it.
            NameConfusable: it looks like another user's.
        """
        with self._changing(entry):
            others = "SELECT 1 FROM user_facts WHERE user_id <> ? AND"
            if self._any(f"{others} folded_name = ?", user_id, keys.folded):
                raise NameTaken
            if self._any(f"{others} (skeleton = ? OR folded_skeleton = ?)", user_id, keys[1], keys[2]):
                raise NameConfusable
            if not self._db.execute("UPDATE users SET username = ? WHERE id = ?", (username, user_id)).rowcount:
                raise PersonGone
            self._db.execute(
                "UPDATE user_facts SET folded_name = ?, skeleton = ?, folded_skeleton = ? WHERE user_id = ?",
                (*keys, user_id),
            )
            self._db.execute("UPDATE tokens SET username = ? WHERE subject = ?", (username, user_id))

    def delete(self, user_id: str, entry: AuditEntry, *, erases_messages: bool) -> None:
        """Deletes a user or guest with tokens, addresses and rights. The id is given to nobody else.

        What is elsewhere is left to the relay, see ``deletions``.

        Args:
            user_id: who.
            entry: for the audit log.
            erases_messages: whether history is to keep nothing of what they said.

        Raises:
            PersonGone: there is no such person.
        """
        with self._changing(entry):
            self.person(user_id, entry.at_s)
            self._db.execute("DELETE FROM users WHERE id = ?", (user_id,))
            self._db.execute("DELETE FROM tokens WHERE subject = ?", (user_id,))
            self._db.execute("DELETE FROM disabled_subjects WHERE subject = ?", (user_id,))
            self._db.execute(
                "UPDATE device_tokens SET revoked_at = ? WHERE subject = ? AND revoked_at IS NULL",
                (entry.at_s, user_id),
            )
            self._db.execute("DELETE FROM push_subscriptions WHERE subject = ?", (user_id,))
            self._db.execute("INSERT OR IGNORE INTO retired_ids VALUES (?, ?)", (user_id, entry.at_s))
            self._db.execute(
                "INSERT OR REPLACE INTO deletions VALUES (?, ?, ?)", (user_id, erases_messages, entry.at_s)
            )

    def deletions(self) -> list[Deletion]:
        """Returns deleted people whose params, files and messages are not removed yet, the oldest first."""
        rows = self._db.execute("SELECT subject, erases_messages FROM deletions ORDER BY asked_at, subject")
        return [Deletion(subject, bool(erases)) for subject, erases in rows]

    def deleted(self, user_id: str, entry: AuditEntry) -> None:
        """Notes that everything of a deleted person is removed."""
        with self._changing(entry):
            self._db.execute("DELETE FROM deletions WHERE subject = ?", (user_id,))

    def erasures(self) -> list[str]:
        """Returns deleted people whose messages are still to be erased from this relay's own history."""
        return [row[0] for row in self._db.execute("SELECT subject FROM own_erasures ORDER BY subject")]

    def erased(self, user_id: str) -> None:
        """Notes that a person's messages are erased from this relay's own history."""
        self._db.execute("DELETE FROM own_erasures WHERE subject = ?", (user_id,))

    def add_reset(self, user_id: str, digest: bytes, expires_s: int, entry: AuditEntry) -> None:
        """Adds a one-time link for a new password; replaces an earlier one.

        Args:
            user_id: the user.
            digest: SHA-256 of its secret.
            expires_s: Unix seconds.
            entry: for the audit log.

        Raises:
            PersonGone: there is no such user.
        """
        with self._changing(entry):
            if not self._any("SELECT 1 FROM users WHERE id = ?", user_id):
                raise PersonGone
            self._db.execute("INSERT OR REPLACE INTO password_resets VALUES (?, ?, ?)", (user_id, digest, expires_s))

    def reset_of(self, digest: bytes, now_s: int) -> Person:
        """Returns the user that a one-time link is for.

        Raises:
            ResetGone: it is unknown, used, or too old.
        """
        query = f"{_USERS} WHERE id = (SELECT user_id FROM password_resets WHERE digest = ? AND expires_at > ?)"  # noqa: S608
        row = self._db.execute(query, (digest, now_s)).fetchone()
        if row is None:
            raise ResetGone
        return _person(row)

    def use_reset(self, digest: bytes, password_hash: str, now_s: int) -> str:
        """Gives the user of a one-time link another password, ends the link, and revokes all tokens.

        Returns:
            the user's id.

        Raises:
            ResetGone: it is unknown, used, or too old.
        """
        with transaction(self._db):
            user_id = self.reset_of(digest, now_s).user_id
            self._db.execute("DELETE FROM password_resets WHERE digest = ?", (digest,))
            self._db.execute("UPDATE users SET password_hash = ? WHERE id = ?", (password_hash, user_id))
            self._db.execute(
                "UPDATE user_facts SET password_changes = password_changes + 1 WHERE user_id = ?", (user_id,)
            )
            self._revoke(user_id, now_s)
            return user_id

    def choose(self, choices: Mapping[str, str | None], entry: AuditEntry) -> None:
        """Stores choices that replace options; None returns to the option."""
        with self._changing(entry):
            for name, value in choices.items():
                if value is None:
                    self._db.execute("DELETE FROM choices WHERE name = ?", (name,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO choices VALUES (?, ?)", (name, value))

    def _revoke(self, subject: str, now_s: int) -> None:
        self._db.execute("UPDATE tokens SET revoked_at = ? WHERE subject = ? AND revoked_at IS NULL", (now_s, subject))

    @contextmanager
    def _changing(self, entry: AuditEntry) -> Iterator[None]:
        with transaction(self._db):
            yield
            self._audit.add([entry])

    def _any(self, query: str, *values: object) -> bool:
        return self._db.execute(query, values).fetchone() is not None


def _person(row: Sequence[object]) -> Person:
    user_id, username, is_guest, created_s, is_admin, is_disabled, order = row
    assert isinstance(created_s, int), "a time that is no number"
    return Person(str(user_id), str(username), bool(is_guest), created_s, bool(is_admin), bool(is_disabled), str(order))
