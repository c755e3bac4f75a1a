"""Opens ``journal.db``, or stops the start with one line that names the file and the cure. Nothing is overwritten."""

from __future__ import annotations

import os
import sqlite3
import struct
from importlib.resources import files
from pathlib import Path

from clasp_relay.errors import StartError
from clasp_relay.storage.folder import FILE_MODE
from clasp_relay.storage.journal.journal_file import JournalFile
from clasp_relay.storage.journal.statements import CACHED_STATEMENTS

APPLICATION_ID = 0x434C4A4C
"""«CLJL», in the header of every journal of ours."""

SCHEMA_VERSION = 4
"""The number of the last ``schema/journal-N.sql``."""

BUSY_TIMEOUT_S = 2.0
"""How long the start waits for another process that holds the file."""

RUST_TABLE = "journal_entries"
"""The table of a journal that the Rust relay made."""

_AWAY = "move it away, and the relay starts from state.json alone"
_RESTORE = f"put back a backup of it and of state.json, or {_AWAY}"
_HEADER = struct.Struct(">16s2s10xI")


def open_journal(path: Path, *, syncs_each_commit: bool) -> JournalFile:
    """Opens the journal, or makes it where there is none.

    Args:
        path: where it is; its folder exists.
        syncs_each_commit: whether each commit is to be synced (``--durability power``).

    Raises:
        StartError: it cannot be read or written, or it is no journal that this relay can use; it stays as it is.
    """
    is_new = _is_new(path)
    if not is_new:
        _check_companions(path)
        check_length(path)
    try:
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
    except sqlite3.Error as error:
        raise cannot_use(path, error) from error
    try:
        if not is_new:
            _check_kind(connection, path)
        prepare(connection, syncs_each_commit=syncs_each_commit)
        return JournalFile(path, connection, syncs_each_commit=syncs_each_commit)
    except sqlite3.Error as error:
        connection.close()
        raise cannot_use(path, error) from error
    except BaseException:
        connection.close()
        raise


def open_to_read(path: Path) -> JournalFile:
    """Opens a journal for reading only, also one that a relay writes to.

    Raises:
        StartError: there is none, it cannot be read, or it is no journal that this relay can use.
    """
    try:
        is_empty = path.stat().st_size == 0
        path.open("rb").close()
    except OSError as error:
        raise StartError(
            f"{path}: the journal cannot be read ({error.strerror}); name the relay's --data-dir or --journal, and run "
            "this as the relay's user"
        ) from error
    if not is_empty:
        check_length(path)
    connection = connect_to_read(path)
    try:
        _check_kind(connection, path)
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            raise StartError(f"{path}: this journal is empty; a relay that starts on it makes its tables")
        return JournalFile(path, connection, syncs_each_commit=True)
    except sqlite3.Error as error:
        connection.close()
        raise cannot_use(path, error) from error
    except BaseException:
        connection.close()
        raise


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Returns a connection that can only read, and never checkpoints."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True)


def cannot_use(path: Path, error: sqlite3.Error | ValueError) -> StartError:
    """Returns the error for an operator whose journal cannot be read or written."""
    # The extended codes have the kind in their lowest byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StartError(
            f"{path}: another process holds the journal; end it (another relay, a backup, an sqlite3 shell)"
        )
    if code == sqlite3.SQLITE_FULL:
        return StartError(f"{path}: the journal cannot be written ({error}); make room on its disk")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return StartError(
            f"{path}: the journal cannot be written ({error}); let user {os.geteuid()} write to it and its folder"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StartError(f"{path}: not a journal ({error}); {_AWAY}; it was not changed")
    return StartError(f"{path}: the journal is damaged ({error}); {_RESTORE}")


def _is_new(path: Path) -> bool:
    """Makes an empty file where there is none; tells whether there is nothing in it yet."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    except OSError as error:
        raise StartError(
            f"{path}: the journal cannot be opened ({error.strerror}); let user {os.geteuid()} write to it"
        ) from error
    try:
        if os.geteuid() == 0:
            # Who starts as root and gives that up must still be able to open it the next time.
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def _check_companions(path: Path) -> None:
    """Checks that the files beside the journal can be written; SQLite's own error does not name them."""
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        try:
            os.close(os.open(companion, os.O_RDWR))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StartError(
                f"{companion}: this part of the journal cannot be written ({error.strerror}); let user {os.geteuid()}"
                " write to it, and do not move it away: it holds the latest changes"
            ) from error


def check_length(path: Path) -> None:
    """Checks that a file was not cut off; a checkpoint that was interrupted leaves one, too, but a WAL beside it.

    Raises:
        StartError: it was, or it is no SQLite file.
    """
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        return
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise StartError(f"{path}: the journal is cut off; {_RESTORE}")
    magic, page, pages = _HEADER.unpack(head)
    if magic != b"SQLite format 3\0":
        raise StartError(f"{path}: not a journal (it is no SQLite file); {_AWAY}; it was not changed")
    page_bytes = int.from_bytes(page, "big")
    expected = (65_536 if page_bytes == 1 else page_bytes) * pages
    if path.stat().st_size < expected:
        raise StartError(
            f"{path}: the journal is cut off ({path.stat().st_size} of {expected} bytes are there); {_RESTORE}"
        )


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:  # the relay ended while it made the file
        return
    made_by = connection.execute("PRAGMA application_id").fetchone()[0]
    if made_by != APPLICATION_ID:
        if RUST_TABLE in tables:
            raise StartError(
                f"{path}: a journal of the Rust relay; a relay that starts on it takes it over, but for one with "
                "--durability snapshot"
            )
        raise StartError(
            f"{path}: a database of another program, which this relay does not read; {_AWAY}; it was not changed"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StartError(
            f"{path}: made by a newer relay (version {version}; this one knows up to {SCHEMA_VERSION}); "
            f"run that one, or {_AWAY}"
        )


def prepare(connection: sqlite3.Connection, *, syncs_each_commit: bool) -> None:
    """Sets the connection up, makes the tables where there are none, and finds out now whether a commit works."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts before the first table only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if syncs_each_commit else 'NORMAL'}")
    # What a deleted room had is not to be read from the file afterwards.
    connection.execute("PRAGMA secure_delete = ON")
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version + 1, SCHEMA_VERSION + 1):
        script = (files("clasp_relay.storage") / "schema" / f"journal-{number}.sql").read_text(encoding="utf-8")
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {number};\nCOMMIT;"
        )
    if version == SCHEMA_VERSION:
        connection.execute("UPDATE trimmed SET seq = seq")
