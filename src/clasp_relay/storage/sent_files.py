"""The records of sent files in a cluster: rows of ``users.db``, which all its relays share.

A record is added before any byte of the file is in the object store, and marked as stored when all of them are. So an
object without a record is never needed again, and a record that was never marked as stored belongs to a relay that has
ended meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from clasp_relay.storage.files import READ_STEP_S, FileUse, StoredFile

__all__ = ["GONE", "MAX_GUEST_FILES", "Bounds", "SentFileStore", "Totals"]

GONE = "gone"
"""What ``SentFileStore.add`` returns if the owner was deleted or disabled."""

MAX_GUEST_FILES = 1_000
"""How many files of one guest there may be: when the guest registers, their rows change with the account, in one record
of the cluster's log."""

_FILE = "SELECT id, subject, origin, size, charged, created_at, read_at FROM sent_files"
_DELETED = "SELECT 1 FROM retired_ids WHERE id = ?1"
_BARRED = f"{_DELETED} UNION ALL SELECT 1 FROM disabled_subjects WHERE subject = ?1"  # noqa: S608 - constants
_INSERT = "INSERT INTO sent_files VALUES (?, ?, ?, ?, ?, ?, ?, 0)"


class Bounds(NamedTuple):
    """The size limits of files, in bytes."""

    subject: int
    """The limit of one user; 0 for none."""
    guest: int
    """The limit of one guest."""
    guest_address: int
    """The limit of all guests of one client address together."""
    whole: int
    """The limit of all files."""
    guests: int
    """The limit of all guests together."""


class Totals(NamedTuple):
    """Number and size of all files, including those that are not stored yet."""

    files: int
    charged: int
    guests_charged: int


class SentFileStore:
    """The records of sent files in a ``users.db``. Its methods block.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # Changes, which a relay asks of the decider

    def add(self, file: StoredFile, bounds: Bounds) -> str:
        """Adds a file of which no byte is in the object store yet, if it exceeds no limit.

        Args:
            file: its record.
            bounds: the size limits.

        Returns:
            the name of the field of ``bounds`` that it would exceed, ``guest_files`` or ``GONE``; an empty text if it
            was added.
        """
        if self._any(_BARRED, file.subject):
            return GONE
        file = self._of_account(file)
        lacking = self.lacks(file, bounds)
        if not lacking:
            self._db.execute(_INSERT, file)
        return lacking

    def adopt(self, file: StoredFile) -> bool:
        """Adds a file that was sent before its relay was in the cluster, whether it exceeds a limit or not.

        Returns:
            whether there is a record now; False if its owner was deleted.
        """
        if self._any(_DELETED, file.subject):
            return False
        if self.missing([file.id]):
            file = self._of_account(file)
            if self._has_many(file):
                file = file._replace(origin=b"")  # as an account's, so that nothing changes if the guest registers
            self._db.execute(_INSERT, file)
        return True

    def store(self, file_id: str, *, is_of_before: bool = False) -> bool:
        """Notes that all bytes of a file are in the object store.

        Args:
            file_id: its id.
            is_of_before: whether it was adopted: then its owner may be disabled.

        Returns:
            False if it was removed meanwhile, or if its owner was deleted or disabled.
        """
        row = self._db.execute("SELECT subject FROM sent_files WHERE id = ?", (file_id,)).fetchone()
        if row is None or self._any(_DELETED if is_of_before else _BARRED, row[0]):
            return False
        self._db.execute("UPDATE sent_files SET is_stored = 1 WHERE id = ?", (file_id,))
        return True

    def note_read(self, file_id: str, now_s: int) -> None:
        """Notes that a file was read, if that was not noted within the hour."""
        self._db.execute(
            "UPDATE sent_files SET read_at = ?1 WHERE id = ?2 AND read_at <= ?1 - ?3", (now_s, file_id, READ_STEP_S)
        )

    def remove(self, file_id: str) -> bool:
        """Removes the record of a file; returns whether there was one."""
        return self._db.execute("DELETE FROM sent_files WHERE id = ?", (file_id,)).rowcount == 1

    def remove_unstored(self, file_id: str) -> bool:
        """Removes the record of a file if it is not stored; returns whether there was one."""
        return self._db.execute("DELETE FROM sent_files WHERE id = ? AND NOT is_stored", (file_id,)).rowcount == 1

    def confirm_missing(self, file_ids: Sequence[str]) -> list[str]:
        """As ``missing``, asked of the decider, whose answer never changes."""
        return self.missing(file_ids)

    # Queries, which each relay makes on its own file

    def lacks(self, file: StoredFile, bounds: Bounds) -> str:
        """Returns the name of the field of ``bounds`` that one more file would exceed; an empty text for none.

        It is ``guest_files`` if a guest has too many.
        """
        subject, origin, charged = file.subject, file.origin, file.charged
        totals = self.totals()
        used = self._sum("SELECT SUM(charged) FROM sent_files_use WHERE subject = ?", subject)
        share = "guest" if origin else "subject"
        most = bounds.guest if origin else bounds.subject
        if most and used + charged > most:
            return share
        if self._has_many(file):
            return "guest_files"
        if origin:
            used = self._sum("SELECT SUM(charged) FROM sent_files_use WHERE origin = ?", origin)
            if used + charged > bounds.guest_address:
                return "guest_address"
        if totals.charged + charged > bounds.whole:
            return "whole"
        return "guests" if origin and totals.guests_charged + charged > bounds.guests else ""

    def find(self, file_id: str) -> StoredFile | None:
        """Returns the record of a file that is stored; None if there is none."""
        row = self._db.execute(f"{_FILE} WHERE id = ? AND is_stored", (file_id,)).fetchone()
        return None if row is None else StoredFile(*row)

    def found(self, file_ids: Sequence[str]) -> list[StoredFile]:
        """Returns the records of those of some files that are stored."""
        return [file for file in map(self.find, file_ids) if file is not None]

    def missing(self, file_ids: Sequence[str]) -> list[str]:
        """Returns which of some files have no record, stored or not."""
        return [each for each in file_ids if not self._any("SELECT 1 FROM sent_files WHERE id = ?", each)]

    def usage(self, subjects: Sequence[str]) -> list[FileUse]:
        """Returns number and size of the files of some users."""
        places = ", ".join("?" * len(subjects))
        query = f"SELECT subject, origin, files, charged FROM sent_files_use WHERE subject IN ({places})"  # noqa: S608 - question marks
        return [FileUse(*row) for row in self._db.execute(query, subjects)]

    def totals(self) -> Totals:
        """Returns number and size of all files."""
        (own, guests) = self._db.execute("SELECT files, charged FROM sent_files_totals ORDER BY is_guests").fetchall()
        return Totals(own[0] + guests[0], own[1] + guests[1], guests[1])

    def unread_since(self, before_s: int, limit: int) -> list[StoredFile]:
        """Returns files that were last read before a time, the least recently read first."""
        query = f"{_FILE} WHERE read_at < ? ORDER BY read_at, id LIMIT ?"
        return [StoredFile(*row) for row in self._db.execute(query, (before_s, limit))]

    def of_subject(self, subject: str, limit: int) -> list[StoredFile]:
        """Returns files of one user, stored or not, the oldest first."""
        query = f"{_FILE} WHERE subject = ? ORDER BY created_at, id LIMIT ?"
        return [StoredFile(*row) for row in self._db.execute(query, (subject, limit))]

    def arriving(self) -> list[str]:
        """Returns the files that are not stored yet."""
        return [row[0] for row in self._db.execute("SELECT id FROM sent_files WHERE NOT is_stored ORDER BY id")]

    def _has_many(self, file: StoredFile) -> bool:
        """Tells whether a file is from a guest who has as many as a guest may have."""
        query = "SELECT SUM(files) FROM sent_files_use WHERE subject = ? AND origin <> x''"
        return bool(file.origin) and self._sum(query, file.subject) >= MAX_GUEST_FILES

    def _of_account(self, file: StoredFile) -> StoredFile:
        """Returns the record as an account's if the guest who sent it has registered."""
        is_account = file.origin and self._any("SELECT 1 FROM users WHERE id = ?", file.subject)
        return file._replace(origin=b"") if is_account else file

    def _sum(self, query: str, value: object) -> int:
        (found,) = self._db.execute(query, (value,)).fetchone()
        return found or 0

    def _any(self, query: str, value: object) -> bool:
        return self._db.execute(query, (value,)).fetchone() is not None
