"""Opens ``journal.db``, or stops the start with one line that names the file and the remedy; overwrites nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from importlib.resources import files
from pathlib import Path

from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile, decode_body
from clasp_relay.storage.journal.parts import AWAY, RESTORE, beside, check_length, check_parts, check_plain, make_empty
from clasp_relay.storage.journal.statements import CACHED_STATEMENTS

APPLICATION_ID = 0x434C4A4C
"""«CLJL», the application id in the header of this relay's journals."""

SCHEMA_VERSION = 4
"""The number of the last ``schema/journal-N.sql``."""

BUSY_TIMEOUT_S = 2.0
"""How long the start waits for another process that holds the file."""

COMPARED_ROWS = 20
"""How many of the last rows of a journal are compared with and without the WAL beside it."""

RUST_TABLE = "journal_entries"
"""The table of a journal that the Rust relay made."""


def open_journal(path: Path, *, syncs_each_commit: bool) -> JournalFile:
    """Opens the journal; creates it if there is none.

    Args:
        path: its path; its folder exists.
        syncs_each_commit: whether each commit is to be synced (``--durability power``).

    Raises:
        StartError: it cannot be read or written, or it is no journal that this relay can use; it is not changed.
    """
    is_new = not _check_files(path)
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


def open_to_check(path: Path) -> JournalFile | None:
    """Opens the journal read-only for the checks of a start, so that one that cannot be used is not changed.

    Returns:
        None if it has no tables yet.

    Raises:
        StartError: it cannot be read, or it is no journal that this relay can use.
    """
    if not _check_files(path):
        return None
    file = _open_read_only(path)
    if file is not None:
        try:
            _check_tables(file)
        except BaseException:
            file.close()
            raise
    return file


def open_to_read(path: Path) -> JournalFile:
    """Opens a journal read-only, even while a relay writes to it.

    Raises:
        StartError: there is none, it cannot be read, or it is no journal that this relay can use.
    """
    check_plain(path)
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
    file = _open_read_only(path)
    if file is None:
        raise StartError(f"{path}: this journal is empty; a relay that starts on it makes its tables")
    return file


def _roll_back(path: Path) -> None:
    """Has SQLite roll back what was unfinished when a relay was killed while it made the file, without a WAL."""
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        raise cannot_use(path, error) from error


def _open_read_only(path: Path) -> JournalFile | None:
    """Opens a file read-only; None if it has no tables."""
    connection = connect_to_read(path)
    try:
        _check_kind(connection, path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.close()
            return None
        for table in ("trimmed", "history_rules")[:version]:  # the second one is there since version 2
            if connection.execute(f"SELECT count(*) FROM {table}").fetchone() != (1,):  # noqa: S608 - one of two names
                raise cannot_use(path, ValueError(f"its table {table} has not one row"))
        _check_wal_fits(connection, path)
        return JournalFile(path, connection, syncs_each_commit=True)
    except sqlite3.Error as error:
        connection.close()
        raise cannot_use(path, error) from error
    except BaseException:
        connection.close()
        raise


def _check_tables(file: JournalFile) -> None:
    """Checks the tables that a start does not read completely; 0.1 s for a million entries of history.

    Damage in them would stop the relay later, at a commit, and so after each restart.

    Raises:
        StartError: a table is damaged.
    """
    try:
        tables = file.ask("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'entries'")
        for (table,) in tables:
            file.check_structure(f'quick_check("{table}")')
    except sqlite3.Error as error:
        raise cannot_use(file.path, error) from error


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Returns a connection that can only read, and never checkpoints.

    Raises:
        StartError: SQLite cannot open the file.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True)
    except sqlite3.Error as error:
        raise cannot_use(path, error) from error


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
    if code == sqlite3.SQLITE_IOERR:  # also where there is no room for the -shm
        return StartError(
            f"{path}: the journal cannot be read or written ({error}); make room on its disk, and where there is some, "
            "look for errors of the disk in the system's log"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StartError(
            f"{path}: the journal cannot be written ({error}); let user {os.geteuid()} write to it and its folder"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StartError(f"{path}: not a journal ({error}); {AWAY}; it was not changed")
    return StartError(f"{path}: the journal is damaged ({error}); {RESTORE}")


def _check_files(path: Path) -> bool:
    """Checks the files without SQLite, and creates the journal if it is missing; returns whether it has contents.

    Raises:
        StartError: the relay cannot start on these files.
    """
    check_parts(path)
    if path.exists() and beside(path, "-journal").exists():
        _roll_back(path)
    if make_empty(path):
        return False
    check_length(path)
    return True


def _check_wal_fits(connection: sqlite3.Connection, path: Path) -> None:
    """Checks that the WAL belongs to the journal: pages of another journal's WAL would replace this one's.

    The last rows of the file without the WAL must be there with the WAL, too, unless they were trimmed. Rows on a page
    that was being written when the power failed may differ, so the check fails only if none of the rows is there, and
    if there are a few of them.

    Raises:
        StartError: it belongs to another one.
    """
    wal = beside(path, "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return
    query = "SELECT seq, body FROM entries WHERE seq > ? ORDER BY seq DESC LIMIT ?"
    trimmed = connection.execute("SELECT seq FROM trimmed").fetchone()
    try:
        # ``immutable``: without the WAL.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as alone:
            rows = _times(alone.execute(query, (*trimmed, COMPARED_ROWS)))
    except sqlite3.DatabaseError:
        # All tables are in the WAL, or a checkpoint was interrupted.
        return
    query = f"SELECT seq, body FROM entries WHERE seq IN ({', '.join('?' * len(rows))})"  # noqa: S608 - question marks
    if len(rows) > COMPARED_ROWS // 4 and rows.items().isdisjoint(
        _times(connection.execute(query, list(rows))).items()
    ):
        raise StartError(
            f"{wal}: this part of the journal belongs to another one; put back the one that belongs to {path.name}, or "
            "a backup of the journal and of state.json; it was not changed"
        )


def _times(rows: Iterable[tuple[int, object]]) -> dict[int, int]:
    """Returns the times of rows, in Unix µs, by their seqs; leaves out damaged rows."""
    found = {}
    for seq, body in rows:
        with suppress(DamagedRowError):
            found[seq] = decode_body(seq, body).param.timestamp_us
    return found


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:  # the relay was killed while it made the file
        return
    made_by = connection.execute("PRAGMA application_id").fetchone()[0]
    if made_by != APPLICATION_ID:
        if RUST_TABLE in tables:
            raise StartError(
                f"{path}: a journal of the Rust relay; a relay that starts on it takes it over, but for one with "
                "--durability snapshot"
            )
        raise StartError(
            f"{path}: a database of another program, which this relay does not read; {AWAY}; it was not changed"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StartError(
            f"{path}: made by a newer relay (version {version}; this one knows up to {SCHEMA_VERSION}); "
            f"run that one, or {AWAY}"
        )


def prepare(connection: sqlite3.Connection, *, syncs_each_commit: bool) -> None:
    """Sets the connection up, makes missing tables, and tests a commit."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes effect only before the first table
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if syncs_each_commit else 'NORMAL'}")
    # So that the messages of a deleted room cannot be read from the file afterwards.
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
