"""``users.db`` as rows that all relays of a cluster share: the rows that a call would change, and those of the log.

Triggers note which rows a statement changes. So a call of any store can be *attempted*: it is made in a transaction
that is rolled back after the changed rows were read. These go into the log of the cluster, from which every relay
writes them. The same triggers note changes that a command on the command line makes in a relay's file; these notes stay
until the log has the changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from clasp_relay.storage.users import StoreRefusal
from clasp_relay.storage.users_file import UsersConnection, transaction

__all__ = [
    "AUDIT",
    "TABLES",
    "Attempt",
    "OtherAccounts",
    "Outside",
    "Position",
    "Row",
    "RowStore",
    "Snapshot",
    "Table",
    "Told",
]

Value: TypeAlias = str | int | bytes | None


class Table(NamedTuple):
    """The columns of a table."""

    key: tuple[str, ...]
    rest: tuple[str, ...]


class Row(NamedTuple):
    """The new state of a row."""

    table: str
    key: tuple[Value, ...]
    values: tuple[Value, ...] | None
    """The columns outside the key; None if the row was deleted."""

    def __repr__(self) -> str:
        return f"Row({self.table!r})"


AUDIT = "audit"
"""The table of the audit log, which is append-only; its rows are numbered when they are written."""

BOUNDS = "audit_bounds"
"""The table with the first entry of the audit log that is kept."""

TABLES = {
    "users": Table(("id",), ("username", "password_hash", "created_at")),
    "user_facts": Table(("user_id",), ("folded_name", "password_changes", "skeleton", "folded_skeleton")),
    "tokens": Table(
        ("digest",),
        (
            "subject",
            "username",
            "guest",
            "scopes_name",
            "created_at",
            "expires_at",
            "revoked_at",
            "first_expires_at",
            "sign_in",
            "replaces",
            "made_for",
            "device",
            "signed_in_at",
        ),
    ),
    "sign_in_addresses": Table(("user_id", "address"), ("last_used_at",)),
    "device_tokens": Table(("id",), ("digest", "subject", "name", "scopes", "created_at", "expires_at", "revoked_at")),
    "invites": Table(("digest",), ("created_at", "expires_at", "uses_left")),
    "hooks": Table(("digest",), ("address", "template", "name", "created_at")),
    "session_ids": Table(("session_id",), ("subject", "seen_at")),
    "push_subscriptions": Table(("endpoint",), ("subject", "p256dh", "auth", "created_at", "sign_in")),
    "push_key": Table(("id",), ("private_key",)),
    "administrators": Table(("user_id",), ("granted_at",)),
    "disabled_subjects": Table(("subject",), ("disabled_at",)),
    "retired_ids": Table(("id",), ("retired_at",)),
    "password_resets": Table(("user_id",), ("digest", "expires_at")),
    "choices": Table(("name",), ("value",)),
    "deletions": Table(("subject",), ("erases_messages", "asked_at")),
    "sent_files": Table(("id",), ("subject", "origin", "size", "charged", "created_at", "read_at", "is_stored")),
    BOUNDS: Table(("id",), ("first_seq",)),
    AUDIT: Table(("seq",), ("at", "action", "outcome", "actor", "actor_name", "target", "address", "detail")),
}
"""The tables that relays share. A table comes before those that refer to it."""

EMPTY_WITHOUT = tuple(name for name in TABLES if name not in (BOUNDS, "session_ids", "push_key"))
"""The tables that are empty before anybody has used the relay."""

MAX_LINKS = 1_000
"""For how many links the number of the last call that is done is remembered."""

READ_AT_ONCE = 1_000
"""Rows in one piece of an image."""

MAX_AUDIT_ROWS = 50_000
"""How many entries of the audit log an image has: the latest."""

_IS_NOTED = "(SELECT is_following FROM log_position) IS 0"


class Position(NamedTuple):
    """The last record of the log that is in the file."""

    number: int
    digest: bytes
    origin: bytes = b""
    """The digest of the first record, which identifies the log."""
    has_base: bool = False
    """Whether the file had accounts before its relay was in a cluster."""


class OtherAccounts(StoreRefusal):
    """The cluster has accounts already, which are not those of this file."""


class Told(NamedTuple):
    """Which of the changes that were made in a file outside of the log are in a record."""

    file: bytes
    """Identifies the file."""
    last_id: int
    """The last note whose change is in the record."""


class Attempt(NamedTuple):
    """The outcome of a call that was attempted."""

    result: object
    """Its result, or the exception with which it refused."""
    is_refused: bool
    rows: tuple[Row, ...]
    told: Told | None = None


class Outside(NamedTuple):
    """Changes that were made in the file outside of the log."""

    told: Told
    rows: tuple[Row, ...]


class RowStore:
    """The rows of a ``users.db``. Its methods block, and are called on the thread of ``SqliteUsers``.

    Args:
        db: the connection, in autocommit mode.
    """

    def __init__(self, db: UsersConnection) -> None:
        self._db = db
        self._next_seq = 0
        """The number of the next entry of the audit log, in an attempt."""

    # Begin and end

    def begin(self) -> Position:
        """Begins to note changes that are made outside of the log; returns the file's position in the log.

        The first call for a file notes all its rows as changed.
        """
        with transaction(self._db):
            position = self.position()
            if position is None:
                has_base = any(self._any(f"SELECT 1 FROM {name}") for name in EMPTY_WITHOUT)  # noqa: S608 - constants
                self._db.execute("INSERT INTO log_position VALUES (1, 0, x'', x'', 0, ?, x'')", (has_base,))
                self._note_all()
                position = Position(0, b"", b"", has_base)
            # If no notes are pending under the earlier name of the file, which a copy of it has, too.
            self._db.execute(
                "UPDATE log_position SET file = randomblob(16)"
                " WHERE file = x'' OR NOT EXISTS (SELECT 1 FROM changed_rows)"
            )
            for statement in _triggers():
                self._db.execute(statement)
        return position

    def leave(self) -> None:
        """Ends the noting of changes: the relay is alone, and its changes are in no log."""
        if self.position() is None:
            return
        with transaction(self._db):
            for name in _trigger_names():
                self._db.execute(f"DROP TRIGGER IF EXISTS {name}")
            for name in ("log_position", "log_calls", "changed_rows"):
                self._db.execute(f"DELETE FROM {name}")  # noqa: S608 - constants

    def position(self) -> Position | None:
        """Returns the file's position in the log; None if its relay was never in a cluster."""
        row = self._db.execute("SELECT number, digest, origin, has_base FROM log_position").fetchone()
        return None if row is None else Position(row[0], row[1], row[2], bool(row[3]))

    def calls(self) -> dict[str, int]:
        """Returns the number of the last call that is done, by link."""
        return dict(self._db.execute("SELECT link, number FROM log_calls").fetchall())

    # Attempts

    def attempt(self, calls: Iterable[Callable[[], object]], refusals: tuple[type[Exception], ...]) -> list[Attempt]:
        """Makes calls of the stores one after the other, and rolls all of them back.

        Args:
            calls: the calls; each may change the file, and sees the changes of those before it.
            refusals: the exceptions with which a call refuses; then only its own changes are rolled back at once.

        Raises:
            StoreBusy: another process holds the file.
            sqlite3.Error: the file cannot be used.
        """
        attempts: list[Attempt] = []
        self._db.execute("BEGIN IMMEDIATE")
        self._db.is_attempting = True
        try:
            found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (AUDIT,)).fetchone()
            self._next_seq = 1 if found is None else found[0] + 1
            for call in calls:
                self._db.execute("SAVEPOINT attempt")
                attempts.append(self._attempt(call, refusals))
                self._db.execute("RELEASE attempt")
        finally:
            self._db.is_attempting = False
            if self._db.in_transaction:  # a full disk may have ended it
                self._db.execute("ROLLBACK")
        return attempts

    def _attempt(self, call: Callable[[], object], refusals: tuple[type[Exception], ...]) -> Attempt:
        before = self._last_note()
        try:
            result = call()
        except refusals as refusal:
            self._db.execute("ROLLBACK TO attempt")
            return Attempt(refusal, True, ())
        if isinstance(result, _Put):
            return Attempt(None, False, result.rows, result.told)
        return Attempt(result, False, tuple(self._noted(before)))

    def put(self, rows: Sequence[Row], told: Told) -> object:
        """Writes rows that were changed outside of the log of another relay; only called in an attempt.

        A row that contradicts the rows here, such as a second user with one name, is left out: then the row here is the
        result. People who were disabled or deleted meanwhile lose their tokens from another relay, too.

        Args:
            rows: the changed rows.
            told: the file in which they were changed, and the last note.

        Returns:
            an object from which ``attempt`` takes the rows that all relays are to write.
        """
        before = self._last_note()
        put = [self._put(row) for row in rows]
        keys = {(row.table, row.key) for row in put}
        more = (row for row in self._noted(before) if row.table != AUDIT and (row.table, row.key) not in keys)
        return _Put((*put, *more), told)

    def put_base(self, rows: Sequence[Row], told: Told) -> object:
        """As ``put``, for the rows of a file from before its relay was in a cluster."""
        return self.put(rows, told)

    def _put(self, row: Row) -> Row:
        if row.table == AUDIT:
            return self._numbered(row)
        there = self._read(row.table, row.key)
        is_taken = row.table == "push_key" and there.values is not None
        if is_taken or not self._fits(row):
            return there
        if row.table == "disabled_subjects" and row.values is not None:
            (at,) = row.values
            self._db.execute(
                "UPDATE tokens SET revoked_at = ? WHERE subject = ? AND revoked_at IS NULL", (at, *row.key)
            )
        elif row.table == "retired_ids" and row.values is not None:
            self._db.execute("DELETE FROM tokens WHERE subject = ?", row.key)
        return row

    def _fits(self, row: Row) -> bool:
        self._db.execute("SAVEPOINT fits")
        try:
            self._write((row,))
        except sqlite3.IntegrityError:
            self._db.execute("ROLLBACK TO fits")
            return False
        finally:
            self._db.execute("RELEASE fits")
        return True

    # The log

    def follow(
        self,
        number: int,
        digest: bytes,
        rows: Sequence[Row],
        calls: Iterable[tuple[str, int]],
        told: Iterable[Told] = (),
    ) -> None:
        """Writes the rows of one record of the log; does nothing if the file has them.

        The rows fit, since the decider has attempted the calls on the same rows, with one exception: a command may have
        changed the file here, which the log does not have yet. For example, it has given a user a name that somebody
        takes at another relay at the same moment.

        Args:
            number: the record's number, one more than that of the record before.
            digest: the record's digest.
            rows: the changed rows.
            calls: the calls that are done with it, by link.
            told: the notes of ``outside`` whose changes it has, of whichever file.

        Raises:
            StoreBusy: another process holds the file.
            sqlite3.IntegrityError: it conflicts with the change of a command. Nothing is written.
        """
        with self._without_references(), transaction(self._db):
            position = self.position()
            assert position is not None, "followed before it began"
            if number <= position.number:
                return
            assert number == position.number + 1, f"record {number} came behind record {position.number}"
            self._db.execute("UPDATE log_position SET is_following = 1")
            for each in told:
                self._db.execute(
                    "DELETE FROM changed_rows WHERE id <= ? AND (SELECT file FROM log_position) = ?",
                    (each.last_id, each.file),
                )
            self._write(self._not_changed_meanwhile(rows))
            for link, call in calls:
                self._db.execute("INSERT OR REPLACE INTO log_calls VALUES (?, ?, ?)", (link, call, number))
            self._db.execute(
                "DELETE FROM log_calls WHERE link IN (SELECT link FROM log_calls ORDER BY record DESC, link"
                " LIMIT -1 OFFSET ?)",
                (MAX_LINKS,),
            )
            self._db.execute(
                "UPDATE log_position SET number = ?1, digest = ?2, is_following = 0,"
                " origin = CASE ?1 WHEN 1 THEN ?2 ELSE origin END",
                (number, digest),
            )

    def _not_changed_meanwhile(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Leaves out the rows that a command has changed here, which the log will have later."""
        if not self._any("SELECT 1 FROM changed_rows"):
            return rows
        noted = "SELECT 1 FROM changed_rows WHERE name = ? AND k0 IS ? AND k1 IS ?"
        return [row for row in rows if row.table == AUDIT or not self._any(noted, row.table, *(*row.key, None)[:2])]

    # What commands have changed

    def outside(self, limit: int) -> Outside | None:
        """Returns the changes that were made here outside of the log; None if there are none.

        Args:
            limit: how many notes are read.
        """
        notes = self._db.execute(f"SELECT {_NOTE} FROM changed_rows ORDER BY id LIMIT ?", (limit,)).fetchall()  # noqa: S608
        if not notes:
            return None
        (file,) = self._db.execute("SELECT file FROM log_position").fetchone()
        return Outside(Told(file, notes[-1][0]), tuple(self._rows_of(notes)))

    # An image

    def snapshot(self) -> Snapshot:
        """Begins to read all rows as they are now, whatever is written meanwhile."""
        if not self._db.name:  # a database in memory has only one connection
            return Snapshot(self, None)
        db = sqlite3.connect(
            f"file:{quote(self._db.name)}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            factory=UsersConnection,
        )
        try:
            db.execute("BEGIN")
            return Snapshot(RowStore(db), db)
        except BaseException:
            db.close()
            raise

    def dump(self) -> Iterator[list[Row]]:
        """Yields all rows in pieces; the caller ensures that nothing changes meanwhile."""
        for name, table in TABLES.items():
            columns = ", ".join((*table.key, *table.rest))
            where = ""
            if name == AUDIT:
                where = f" WHERE seq > (SELECT COALESCE(MAX(seq), 0) - {MAX_AUDIT_ROWS} FROM audit)"  # noqa: S608
            cursor = self._db.execute(f"SELECT {columns} FROM {name}{where}")  # noqa: S608 - constants
            size = len(table.key)
            while found := cursor.fetchmany(READ_AT_ONCE):
                yield [Row(name, row[:size], row[size:]) for row in found]

    def install(self, position: Position, calls: Iterable[tuple[str, int]], pieces: Iterable[Sequence[Row]]) -> None:
        """Replaces all rows by those of another relay.

        Changes that a command has made since the first start stay noted, and are written again.

        Args:
            position: the last record of the log that is in them.
            calls: the last call that is done, by link.
            pieces: the rows.
        """
        with self._without_references(), transaction(self._db):
            notes = self._db.execute(
                f"SELECT {_NOTE} FROM changed_rows WHERE name <> 'push_key' ORDER BY id"  # noqa: S608 - constants
            ).fetchall()
            outside = [row for row in self._rows_of(notes) if row.values is not None]
            self._db.execute("UPDATE log_position SET is_following = 1")
            self._db.execute("DELETE FROM changed_rows")
            self._db.execute("DELETE FROM log_calls")
            for name in reversed(TABLES):
                if name not in (AUDIT, BOUNDS):
                    self._db.execute(f"DELETE FROM {name}")  # noqa: S608 - constants
            for rows in pieces:
                self._write(rows)
            self._db.executemany("INSERT INTO log_calls VALUES (?, ?, ?)", ((*call, position.number) for call in calls))
            self._db.execute(
                "UPDATE log_position SET number = ?, digest = ?, origin = ?, is_following = 0, has_base = 0",
                position[:3],
            )
            for row in outside:
                self._note(row)
                if row.table != AUDIT:
                    self._fits(row)

    def _note(self, row: Row) -> None:
        kept = row.values if row.table == AUDIT else row.key
        assert kept is not None, "an entry of the audit log without fields"
        marks = ", ".join("?" * len(kept))
        names = ", ".join(f"k{place}" for place in range(len(kept)))
        self._db.execute(f"INSERT INTO changed_rows (name, {names}) VALUES (?, {marks})", (row.table, *kept))  # noqa: S608

    # Rows

    def _write(self, rows: Iterable[Row]) -> None:
        for name, key, values in rows:
            if name == AUDIT:
                self._add_to_audit(key, values)
                continue
            sql = _SQL[name]
            if values is None:
                self._db.execute(sql.delete, key)
            elif self._db.execute(sql.update, (*values, *key)).rowcount == 0:
                self._db.execute(sql.insert, (*key, *values))
            if name == BOUNDS and values is not None:
                self._db.execute("DELETE FROM audit WHERE seq < ?", values)

    def _add_to_audit(self, key: tuple[Value, ...], values: tuple[Value, ...] | None) -> None:
        assert values is not None, "the audit log is append-only"
        if not self._any("SELECT 1 FROM audit WHERE seq = ?", *key):
            self._db.execute(_SQL[AUDIT].insert, (*key, *values))

    def _read(self, name: str, key: tuple[Value, ...]) -> Row:
        found = self._db.execute(_SQL[name].select, key).fetchone()
        return Row(name, key, None if found is None else tuple(found))

    def _noted(self, after_id: int) -> Iterator[Row]:
        """Yields the present rows of the notes after one."""
        notes = self._db.execute(f"SELECT {_NOTE} FROM changed_rows WHERE id > ? ORDER BY id", (after_id,)).fetchall()  # noqa: S608
        for row in self._rows_of(notes):
            yield self._numbered(row) if row.table == AUDIT else row

    def _numbered(self, row: Row) -> Row:
        """Gives an entry of the audit log its number, which is the same at all relays."""
        self._next_seq += 1
        return row._replace(key=(self._next_seq - 1,))

    def _rows_of(self, notes: Sequence[tuple[Value, ...]]) -> Iterator[Row]:
        seen: set[tuple[object, ...]] = set()
        for _, name, *keys in notes:
            table = TABLES[str(name)]
            if name == AUDIT:
                yield Row(AUDIT, (0,), tuple(keys[: len(table.rest)]))
                continue
            key = tuple(keys[: len(table.key)])
            if (name, key) not in seen:
                seen.add((name, key))
                yield self._read(str(name), key)

    def _last_note(self) -> int:
        (last,) = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM changed_rows").fetchone()
        return int(last)

    def _note_all(self) -> None:
        for name, table in TABLES.items():
            if name in (AUDIT, BOUNDS):
                continue
            names = ", ".join(f"k{place}" for place in range(len(table.key)))
            keys = ", ".join(table.key)
            self._db.execute(f"INSERT INTO changed_rows (name, {names}) SELECT '{name}', {keys} FROM {name}")  # noqa: S608

    def _any(self, query: str, *values: Value) -> bool:
        return self._db.execute(f"{query} LIMIT 1", values).fetchone() is not None

    @contextmanager
    def _without_references(self) -> Iterator[None]:
        """Turns foreign keys off, for rows that refer to rows that a command has deleted here.

        The log will have all changes of that deletion.
        """
        self._db.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self._db.execute("PRAGMA foreign_keys = ON")


class Snapshot:
    """All rows of a file at one moment. Its methods block.

    Args:
        rows: the rows of the file.
        db: its own connection, which it closes; None for none.
    """

    def __init__(self, rows: RowStore, db: sqlite3.Connection | None) -> None:
        self._db = db
        position = rows.position()
        assert position is not None, "an image of a relay that is alone"
        self.position = position
        """The last record of the log that is in it."""
        self.calls = rows.calls()
        """The last call that is done, by link."""
        self._pieces = rows.dump()

    def next_rows(self) -> list[Row]:
        """Returns the next rows; none at the end, where it closes itself."""
        rows = next(self._pieces, [])
        if not rows:
            self.close()
        return rows

    def close(self) -> None:
        """Closes the connection."""
        if self._db is not None:
            self._db.close()


class _Put(NamedTuple):
    """Rows that all relays are to write as they are."""

    rows: tuple[Row, ...]
    told: Told


class _Sql(NamedTuple):
    """The statements for one row of a table."""

    select: str
    update: str
    insert: str
    delete: str


def _sql_of(name: str, table: Table) -> _Sql:
    where = " AND ".join(f"{column} = ?" for column in table.key)
    columns = (*table.key, *table.rest)
    return _Sql(
        f"SELECT {', '.join(table.rest)} FROM {name} WHERE {where}",  # noqa: S608 - constants
        f"UPDATE {name} SET {', '.join(f'{column} = ?' for column in table.rest)} WHERE {where}",  # noqa: S608
        f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
        f"DELETE FROM {name} WHERE {where}",  # noqa: S608
    )


_SQL = {name: _sql_of(name, table) for name, table in TABLES.items()}

_NOTE = "id, name, k0, k1, k2, k3, k4, k5, k6, k7"

_EVENTS = (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD"))


def _trigger_names() -> list[str]:
    return [f"noted_{name}_{event}" for name in TABLES for event, _ in _EVENTS]


def _triggers() -> Iterator[str]:
    """Yields the statements that make the triggers, which note changes."""
    for name, table in TABLES.items():
        if name == AUDIT:
            yield _audit_trigger(table)
            continue
        names = ", ".join(f"k{place}" for place in range(len(table.key)))
        for event, row in _EVENTS:
            keys = ", ".join(f"{row}.{column}" for column in table.key)
            yield (
                f"CREATE TRIGGER IF NOT EXISTS noted_{name}_{event} AFTER {event} ON {name} WHEN {_IS_NOTED}"  # noqa: S608
                f" BEGIN INSERT INTO changed_rows (name, {names}) VALUES ('{name}', {keys}); END"
            )


def _audit_trigger(table: Table) -> str:
    """Returns the trigger that notes an entry of the audit log instead of numbering it here: the log numbers all."""
    names = ", ".join(f"k{place}" for place in range(len(table.rest)))
    values = ", ".join(f"NEW.{column}" for column in table.rest)
    return (
        f"CREATE TRIGGER IF NOT EXISTS noted_{AUDIT}_insert BEFORE INSERT ON {AUDIT} WHEN {_IS_NOTED}"  # noqa: S608
        f" BEGIN INSERT INTO changed_rows (name, {names}) VALUES ('{AUDIT}', {values}); SELECT RAISE(IGNORE); END"
    )
