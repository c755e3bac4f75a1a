"""Opens ``users.db`` and upgrades it to the current schema, or stops the start.

Before an upgrade the file is copied, beside itself. A file that cannot be read is never overwritten.
"""

from __future__ import annotations

import os
import pwd
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from clasp_relay.errors import StartError
from clasp_relay.storage.users import NameKeys, StoreBusy

__all__ = [
    "SCHEMA_VERSION",
    "UsersConnection",
    "damage_told",
    "damaged",
    "held",
    "open_users_file",
    "open_users_in_memory",
    "transaction",
]

SCHEMA_VERSION = 12
"""The number of the last ``schema/users-N.sql``."""

_PRIVATE = 0o600
"""The file holds password hashes."""

BUSY_TIMEOUT_S = 2.0
"""How long a call waits for another process that holds the file; the calls after it do not wait."""

_TYPES = {
    "INTEGER": "'integer', 'real', 'null'",
    "TEXT": "'text', 'null'",
    "BLOB": "'blob', 'null'",
}
"""The types that a value may have in a column, by the type that the schema gives the column."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_OF_TRANSACTIONS = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")


class UsersConnection(sqlite3.Connection):
    """A connection that raises ``StoreBusy`` when another process holds the file."""

    name = ""
    """The path of the file."""
    is_attempting = False
    """Whether calls are being attempted, to be rolled back; their own transactions have no effect then."""
    _is_held = False

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """As ``sqlite3.Connection.execute``.

        Raises:
            StoreBusy: another process holds the file.
        """
        if self.is_attempting and args[0] in _OF_TRANSACTIONS:
            return super().execute("SELECT 0")
        try:
            cursor = super().execute(*args)
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            self._wait_for_others(False)
            raise StoreBusy(self.name) from None
        if self._is_held and self.in_transaction:
            self._wait_for_others(True)
        return cursor

    def _wait_for_others(self, waits: bool) -> None:
        self._is_held = not waits
        super().execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000 if waits else 0:.0f}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commits the statements in its context; rolls all of them back if there is an exception."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have ended the transaction already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def open_users_file(path: Path, keys_of: Callable[[str], NameKeys]) -> UsersConnection:
    """Opens or makes the file, and upgrades its schema.

    Args:
        path: its path; its folder exists.
        keys_of: returns the keys by which a name is compared.

    Returns:
        a connection in autocommit mode, for one thread at a time.

    Raises:
        StartError: it cannot be read or written, is no users' database, or a newer relay made it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE))
    except OSError as error:
        raise StartError(f"{path}: the users' database cannot be opened: {error.strerror}") from error
    _check_companions(path)
    # The relay opens the file before its threads run; then one of them uses the connection.
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=UsersConnection
    )
    connection.name = str(path)
    try:
        _prepare(connection, path, keys_of)
    except StoreBusy:
        connection.close()
        raise held(path) from None
    except StartError:
        connection.close()
        raise
    except sqlite3.Error as error:
        connection.close()
        if _is_busy(error):
            raise held(path) from error
        raise StartError(
            f"{path}: not a users' database that this relay can use ({error}); "
            "put back a copy of it, or move it away to start without users"
        ) from error
    return connection


def _is_busy(error: sqlite3.Error) -> bool:
    # Extended result codes have more about the cause in their higher bytes.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def held(path: Path) -> StartError:
    """Returns the error of a start while another process holds the file."""
    return StartError(
        f"{path}: another process holds the users' database; end it (another relay, a backup, an sqlite3 shell)"
    )


def damaged(path: Path, error: Exception) -> StartError:
    """Returns the error of a start that found something in the file that it cannot read."""
    return StartError(
        f"{path}: the users' database cannot be used ({error}); if it is damaged, put back a copy of it,"
        " or save its table «users» with SQLite's .recover"
    )


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turns what SQLite reports in its context into one line.

    Raises:
        StartError: the file is damaged, or cannot be read or written.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error


def _check_companions(path: Path) -> None:
    """Checks that the files beside the database can be written; SQLite's own error does not name them.

    Raises:
        StartError: one of them cannot.
    """
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        try:
            os.close(os.open(companion, os.O_RDWR))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StartError(
                f"{companion}: the relay (user {_user(os.geteuid())}) cannot write this part of the users' database,"
                f" which belongs to user {_user(companion.stat().st_uid)}: {error.strerror};"
                f" give it to the relay's user as {path.name} is, and do not move it away: it holds the latest changes"
            ) from error


def _user(uid: int) -> str:
    """Returns the name of a user of the machine, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_users_in_memory(keys_of: Callable[[str], NameKeys]) -> UsersConnection:
    """Makes a database in memory.

    Args:
        keys_of: returns the keys by which a name is compared.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=UsersConnection)
    _prepare(connection, Path(":memory:"), keys_of)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, keys_of: Callable[[str], NameKeys]) -> None:
    version = _version_of(connection, path)
    if version < SCHEMA_VERSION and _has_tables(connection):
        _check_users_table(connection, path)
        _back_up(connection, path, version)
    connection.execute("PRAGMA journal_mode = WAL")
    # A call returns only when its changes are on the disk.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    for step in range(version + 1, SCHEMA_VERSION + 1):
        _upgrade(connection, step)
    with damage_told(path):
        _check_values(connection, path)
    _add_missing_facts(connection, keys_of)


def _check_values(connection: sqlite3.Connection, path: Path) -> None:
    """Checks that each value is of its column's type, since SQLite takes any; otherwise it would be found much later.

    Two tables are left out: users, which another relay may have written, and audit, which has up to a million rows and
    is only shown.

    Raises:
        StartError: one is not.
    """
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('users', 'audit')"
    ).fetchall()
    for (table,) in tables:
        columns = [(row[1], row[2]) for row in connection.execute(f'PRAGMA table_info("{table}")') if row[2] in _TYPES]
        wrong = " OR ".join(f'typeof("{column}") NOT IN ({_TYPES[kind]})' for column, kind in columns)
        if wrong and connection.execute(f'SELECT 1 FROM "{table}" WHERE {wrong} LIMIT 1').fetchone():  # noqa: S608
            raise damaged(path, ValueError(f"a value in its table «{table}» is of another type than its column"))


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
    """Copies the file under an unused name; an earlier copy, perhaps from an upgrade that failed, is kept."""
    taken = {entry.name for entry in path.parent.iterdir()}
    stem = f"{path.name}.v{version}"
    names = [f"{stem}.bak", *(f"{stem}.{count}.bak" for count in range(2, len(taken) + 3))]
    copy = path.with_name(next(name for name in names if name not in taken))
    try:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))
        with closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
    except (OSError, sqlite3.Error) as error:
        copy.unlink(missing_ok=True)
        raise StartError(
            f"{copy}: the users' database has to be copied before it is changed, and cannot be: {error}"
        ) from error


def _upgrade(connection: sqlite3.Connection, step: int) -> None:
    script = (files("clasp_relay.storage") / "schema" / f"users-{step}.sql").read_text(encoding="utf-8")
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {step};\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _add_missing_facts(connection: sqlite3.Connection, keys_of: Callable[[str], NameKeys]) -> None:
    """Adds the facts about users that the Rust relay or an earlier version did not write."""
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
