"""Opening ``users.db``: whoever made it, it comes out with today's schema, or the relay does not start.

A file that is changed is copied first, beside itself. Nothing is ever created over a file that cannot be
read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from clasp_relay.errors import StartError
from clasp_relay.storage.users import NameKeys

__all__ = ["SCHEMA_VERSION", "open_users_file", "open_users_in_memory"]

SCHEMA_VERSION = 2
"""The number of the last ``schema/users-N.sql``."""

_PRIVATE = 0o600
"""The file holds password hashes."""

_BUSY_TIMEOUT_S = 5.0


def open_users_file(path: Path, keys_of: Callable[[str], NameKeys]) -> sqlite3.Connection:
    """Opens or makes the file, and brings it up to date.

    Args:
        path: where it is; its folder exists.
        keys_of: returns what a name is compared by.

    Returns:
        a connection in autocommit mode, for one thread at a time.

    Raises:
        StartError: it cannot be read or written, is no such file, or a newer relay made it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE))
    except OSError as error:
        raise StartError(f"{path}: the users' database cannot be opened: {error.strerror}") from error
    # The relay opens it before its threads run, and one of them uses it afterwards.
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path, keys_of)
    except StartError:
        connection.close()
        raise
    except sqlite3.Error as error:
        connection.close()
        raise StartError(
            f"{path}: not a users' database that this relay can use ({error}); "
            "put back a copy of it, or move it away to start without users"
        ) from error
    return connection


def open_users_in_memory(keys_of: Callable[[str], NameKeys]) -> sqlite3.Connection:
    """Makes a database that is gone with its connection.

    Args:
        keys_of: returns what a name is compared by.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _prepare(connection, Path(":memory:"), keys_of)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, keys_of: Callable[[str], NameKeys]) -> None:
    version = _version_of(connection, path)
    if version < SCHEMA_VERSION and _has_tables(connection):
        _check_users_table(connection, path)
        _back_up(connection, path, version)
    connection.execute("PRAGMA journal_mode = WAL")
    # An answer promises that what it says is on the disk.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    for step in range(version + 1, SCHEMA_VERSION + 1):
        _upgrade(connection, step)
    _add_missing_facts(connection, keys_of)


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StartError(
            f"{path}: made by a newer relay (version {version}; this one knows up to {SCHEMA_VERSION}); "
            "run that one, or put back the copy it made before it changed the file"
        )
    return version


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _check_users_table(connection: sqlite3.Connection, path: Path) -> None:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(users)")}
    missing = {"id", "username", "password_hash", "created_at"} - columns
    if missing:
        raise StartError(
            f"{path}: not a users' database: its table «users» lacks {', '.join(sorted(missing))}; "
            "move it away to start without users"
        )


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copies the file; an earlier copy is kept, since an upgrade that failed may have made it."""
    taken = {entry.name for entry in path.parent.iterdir()}
    stem = f"{path.name}.v{version}"
    names = [f"{stem}.bak", *(f"{stem}.{count}.bak" for count in range(2, len(taken) + 3))]
    copy = path.with_name(next(name for name in names if name not in taken))
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))
    with closing(sqlite3.connect(copy)) as target:
        connection.backup(target)


def _upgrade(connection: sqlite3.Connection, step: int) -> None:
    script = (files("clasp_relay.storage") / "schema" / f"users-{step}.sql").read_text(encoding="utf-8")
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {step};\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _add_missing_facts(connection: sqlite3.Connection, keys_of: Callable[[str], NameKeys]) -> None:
    """Adds what this relay knows about users besides, where the Rust relay or an earlier version left it out."""
    missing = connection.execute(
        "SELECT id, username FROM users LEFT JOIN user_facts ON user_id = id"
        " WHERE id IS NOT NULL AND (user_id IS NULL OR skeleton IS NULL)"
    ).fetchall()
    if not missing:
        return
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT INTO user_facts (user_id, folded_name, skeleton, folded_skeleton) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET folded_name = excluded.folded_name, skeleton = excluded.skeleton,"
        " folded_skeleton = excluded.folded_skeleton",
        ((user_id, *keys_of(str(username))) for user_id, username in missing),
    )
    connection.execute("COMMIT")
