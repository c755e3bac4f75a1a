"""Files that users send: their bytes in a folder, and who sent them in a SQLite file beside it.

A file is written as ``ID.part``. Once it is complete and synced, its record is committed, and only then it gets its
name. So a kill at any moment leaves at most an incomplete file, or a record without a file; :meth:`FileStore.sweep`
removes both. A file is never changed, so a backup of the folder may be made while the relay runs.

All functions here block, and are called on other threads than the event loop's.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from clasp_relay.errors import ClaspError, StartError
from clasp_relay.storage.folder import FILE_MODE, prepare_folder

__all__ = [
    "BLOCK_BYTES",
    "READ_STEP_S",
    "DiskFull",
    "FileFolder",
    "FileReader",
    "FileStore",
    "FileUse",
    "FileWriter",
    "StoredFile",
    "Swept",
    "record_damage_told",
]

SCHEMA_VERSION = 1

READ_STEP_S = 3600
"""The resolution in s of the time of the last read, so that reads rarely write."""

BLOCK_BYTES = 4096
"""A file counts in whole blocks of the disk, at least one: otherwise millions of tiny files would be accepted."""

_ID = re.compile(r"[0-9a-f]{32}")
_PART = ".part"
_FOLDER_MODE = 0o700
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FILE = "SELECT id, subject, origin, size, charged, created_at, read_at FROM files"


class DiskFull(ClaspError):
    """The disk is full."""


class StoredFile(NamedTuple):
    """The record of a file. Times are in Unix seconds, sizes in bytes."""

    id: str
    subject: str
    origin: bytes
    """A keyed hash of the client address where a guest sent it; empty for an account's."""
    size: int
    charged: int
    """The bytes that it counts for."""
    created_s: int
    read_s: int


def charge(size_bytes: int) -> int:
    """Returns the bytes that a file counts for."""
    return max(1, -(-size_bytes // BLOCK_BYTES)) * BLOCK_BYTES


class FileUse(NamedTuple):
    """The size of one user's files."""

    subject: str
    origin: bytes
    files: int
    """Number of files."""
    charged: int


class Swept(NamedTuple):
    """The result of :meth:`FileStore.sweep`."""

    parts: int
    """Incomplete files that were removed."""
    records: int
    """Records without a file that were removed."""
    strangers: int
    """Files without a record, which stay."""


class FileWriter:
    """A file that is being written. One thread at a time calls it.

    Args:
        folder: its folder.
        file_id: its id.
        free_bytes: free disk space that is required at the beginning.
    """

    def __init__(self, folder: Path, file_id: str, free_bytes: int) -> None:
        self._path = folder / file_id
        self._part = folder / (file_id + _PART)
        self._free_bytes = free_bytes
        self._descriptor = -1

    def write(self, data: bytes | bytearray) -> None:
        """Appends bytes; creates the file at the first call.

        Raises:
            DiskFull: the disk is full.
            OSError: the disk fails.
        """
        try:
            if self._descriptor < 0:
                self._make()
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _told(error) from error

    def sync(self) -> None:
        """Syncs the bytes to the disk; nothing is appended after it.

        Raises:
            DiskFull: the disk is full.
            OSError: the disk fails.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _told(error) from error
        finally:
            self._close()

    def reader(self) -> FileReader:
        """Opens the written bytes to read.

        Raises:
            OSError: it cannot be opened.
        """
        return FileReader(self._part)

    def publish(self) -> None:
        """Gives the file its name."""
        os.rename(self._part, self._path)
        _sync_folder(self._path.parent)

    def discard(self) -> None:
        """Removes the written bytes."""
        self._close()
        self._part.unlink(missing_ok=True)

    def _make(self) -> None:
        if shutil.disk_usage(self._path.parent).free < self._free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._part, flags, FILE_MODE)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileReader:
    """A file that is being read; it stays readable if it is removed meanwhile.

    Args:
        path: where it is.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def read(self, start: int, count: int) -> bytes:
        """Returns bytes from a position on; fewer at the end."""
        return os.pread(self._descriptor, count, start)

    def touch(self) -> None:
        """Sets the file's time of modification to now."""
        os.utime(self._descriptor)

    def close(self) -> bool:
        """Closes it; it must not be read again. Returns whether it was open: its descriptor may be reused by now."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor >= 0


class FileFolder:
    """A folder of files, each named by its id. Its methods block, and any thread may call them.

    Args:
        folder: its path; it is made if it is missing.
        min_free_bytes: free disk space that is left for the rest of the relay.

    Raises:
        StartError: it cannot be used.
    """

    def __init__(self, folder: Path, min_free_bytes: int = 0) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        prepare_folder("--data-dir", folder)
        folder.chmod(_FOLDER_MODE)
        _give_to_owner(folder)

    def writer(self, file_id: str, size_bytes: int) -> FileWriter:
        """Returns a writer for a new file of some length."""
        return FileWriter(self._folder, file_id, self._min_free_bytes + size_bytes)

    def reader(self, file_id: str) -> FileReader | None:
        """Opens a file to read; None if it does not exist."""
        try:
            return FileReader(self._folder / file_id)
        except FileNotFoundError:
            return None

    def unlink(self, file_id: str) -> None:
        """Removes a file; does nothing if it does not exist."""
        (self._folder / file_id).unlink(missing_ok=True)

    def remove_parts(self) -> int:
        """Removes the incomplete files that a kill has left; returns how many there were."""
        parts = [name for name in _names(self._folder) if name.endswith(_PART) and _ID.fullmatch(name[: -len(_PART)])]
        for name in parts:
            (self._folder / name).unlink()
        return len(parts)

    def ids(self) -> set[str]:
        """Returns the ids of all complete files."""
        return {name for name in _names(self._folder) if _ID.fullmatch(name)}


class FileStore(FileFolder):
    """The files of a relay. Records are read and written by one thread at a time; bytes by any threads.

    Args:
        folder: the folder of the bytes; it is made if it is missing.
        database: the file with the records.
        min_free_bytes: free disk space that is left for the rest of the relay.

    Raises:
        StartError: a file or folder cannot be used.
    """

    def __init__(self, folder: Path, database: Path, min_free_bytes: int = 0) -> None:
        super().__init__(folder, min_free_bytes)
        self._db = _open(database)

    def close(self) -> None:
        """Closes the records."""
        self._db.close()

    def sweep(self) -> Swept:
        """Removes what a kill has left; called before any file is written."""
        parts, found = self.remove_parts(), self.ids()
        recorded = {row[0] for row in self._db.execute("SELECT id FROM files")}
        lost = [(file_id,) for file_id in recorded - found]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM files WHERE id = ?", lost)
        self._db.execute("COMMIT")
        return Swept(parts, len(lost), len(found - recorded))

    def usage(self, subjects: Sequence[str] | None = None) -> list[FileUse]:
        """Returns the size of users' files.

        Args:
            subjects: the users; None for all.
        """
        wanted = "" if subjects is None else f" WHERE subject IN ({', '.join('?' * len(subjects))})"
        query = f"SELECT subject, origin, COUNT(*), SUM(charged) FROM files{wanted} GROUP BY subject, origin"  # noqa: S608 - question marks
        return [FileUse(*row) for row in self._db.execute(query, subjects or ())]

    def add(self, file: StoredFile) -> None:
        """Commits the record of a file.

        Raises:
            DiskFull: the disk is full.
        """
        try:
            self._db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", file)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise DiskFull(str(error)) from error
            raise

    def find(self, file_id: str) -> StoredFile | None:
        """Returns the record of a file; None where there is none."""
        row = self._db.execute(f"{_FILE} WHERE id = ?", (file_id,)).fetchone()
        return None if row is None else StoredFile(*row)

    def note_read(self, file: StoredFile, now_s: int) -> None:
        """Notes that a file was read, if that was not noted within the hour."""
        if now_s - file.read_s >= READ_STEP_S:
            self._db.execute("UPDATE files SET read_at = ? WHERE id = ?", (now_s, file.id))

    def remove(self, file_id: str) -> StoredFile | None:
        """Removes a file and its record; returns the record, None where there was none."""
        self.unlink(file_id)
        file = self.find(file_id)
        self._db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        return file

    def give_to_account(self, subject: str) -> list[FileUse]:
        """Makes the files of a guest those of an account; returns their size while they were the guest's."""
        guests = "subject = ? AND origin <> x''"
        query = f"SELECT subject, origin, COUNT(*), SUM(charged) FROM files WHERE {guests} GROUP BY origin"  # noqa: S608
        used = [FileUse(*row) for row in self._db.execute(query, (subject,))]
        if used:
            self._db.execute(f"UPDATE files SET origin = x'' WHERE {guests}", (subject,))  # noqa: S608
        return used

    def unread_since(self, before_s: int, limit: int) -> list[StoredFile]:
        """Returns files that were last read before a time, the least recently read first."""
        query = f"{_FILE} WHERE read_at < ? ORDER BY read_at, id LIMIT ?"
        return [StoredFile(*row) for row in self._db.execute(query, (before_s, limit))]

    def of_subject(self, subject: str, limit: int) -> list[StoredFile]:
        """Returns files of one user, the oldest first."""
        query = f"{_FILE} WHERE subject = ? ORDER BY created_at, id LIMIT ?"
        return [StoredFile(*row) for row in self._db.execute(query, (subject, limit))]


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(error: OSError) -> Exception:
    return DiskFull(str(error.strerror)) if error.errno in _NO_ROOM else error


def _give_to_owner(path: Path) -> None:
    """Gives files that root has made to the owner of the folder, as which the relay goes on (twistd's --uid)."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _open(path: Path) -> sqlite3.Connection:
    """Opens or makes the file with the records, and brings it up to date."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE))
        _give_to_owner(path)
    except OSError as error:
        raise StartError(f"{path}: the record of files cannot be opened: {error.strerror}") from error
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        with record_damage_told(path):
            _prepare(connection, path)
    except StartError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StartError(f"{path}: made by a newer relay (version {version}); start that one, or put back a backup")
    for step in range(version + 1, SCHEMA_VERSION + 1):
        _upgrade(connection, step)


@contextmanager
def record_damage_told(path: Path) -> Iterator[None]:
    """Turns what SQLite reports in its context about the record of files into one line.

    Raises:
        StartError: the file is damaged, or cannot be read or written.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StartError(
            f"{path}: not a record of files that this relay can use ({error}); "
            "put back a copy of it, or move it and the folder of files away to start without them"
        ) from error


def _upgrade(connection: sqlite3.Connection, step: int) -> None:
    script = (files("clasp_relay.storage") / "schema" / f"files-{step}.sql").read_text(encoding="utf-8")
    with closing(connection.cursor()) as cursor:
        cursor.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {step};\nCOMMIT;")
