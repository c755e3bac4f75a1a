"""Takes over a journal of the Rust relay, once: its entries become history, its last SETs params.

The old file stays beside the new one, under another name. Nothing is replaced before the new file is complete and
synced to the disk; a start that was interrupted begins again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.errors import RequestError, StartError
from clasp_relay.storage.journal.journal_file import Entry, JournalFile, Judge
from clasp_relay.storage.journal.opening import (
    APPLICATION_ID,
    BUSY_TIMEOUT_S,
    RUST_TABLE,
    cannot_use,
    open_journal,
)
from clasp_relay.storage.journal.parts import check_length
from clasp_relay.storage.state_reading import LeftOut, check_fits, value_of_json
from clasp_relay.wire.address import check_address
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish

WRITTEN_AT_ONCE = 500
"""How many entries one transaction writes."""

_QUERY = (
    "SELECT seq, timestamp, author, address, signal_type, value_json, revision FROM journal_entries"
    " ORDER BY timestamp, seq"
)
_SIGNALS = {signal.name.lower(): signal for signal in Signal}
_MAGIC = b"SQLite format 3\0"
_HEAD = struct.Struct(">16s52xI")
"""The header of an SQLite file: its magic and its application id."""

_LEFT_OUT = "entries that this relay would refuse"


class TakenOver(NamedTuple):
    """The result of taking over a journal of the Rust relay."""

    entries: int
    kept: int
    """How many of its entries are history now."""
    params: int
    """How many params its SETs have set; 0 if there is a state file, which has them."""
    old_path: Path
    """Where the old file is now."""
    left_out: str
    """The entries that this relay would refuse, in one line; empty if there are none."""


def is_rust_journal(path: Path) -> bool:
    """Tells whether a file is a journal of the Rust relay; no, if it cannot be read."""
    if not path.is_file():  # opening a pipe would block until somebody opens its other end
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or _HEAD.unpack(head) == (_MAGIC, APPLICATION_ID) or head[: len(_MAGIC)] != _MAGIC:
            return False
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_S, uri=True)
        ) as connection:
            query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
            return connection.execute(query, (RUST_TABLE,)).fetchone() is not None
    except (OSError, sqlite3.Error):
        return False


def read_params(path: Path, now_us: int, restore: Callable[[Change], None]) -> str:
    """Restores the last SET of each address from a journal of the Rust relay, which is not changed.

    Args:
        path: its path.
        now_us: Unix µs; later entries count as of now.
        restore: applies one change.

    Returns:
        the entries that were left out, in one line; empty if none were.

    Raises:
        StartError: it cannot be read.
    """
    check_length(path)
    left_out, sets = LeftOut(), _LastSets()
    with _opened(path) as connection:
        for change in _changes(connection, now_us, left_out):
            sets.add(change)
    for change in sets.all():
        restore(change)
    return left_out.line(_LEFT_OUT)


def take_over(path: Path, now_us: int, judge: Judge, *, has_state: bool) -> TakenOver:
    """Makes a journal of this relay from one of the Rust relay, which is kept beside it.

    The rows that history keeps come first, with the times of their entries, each later than the one before; a start
    does not apply them. If there is no state file, the last SET of each address follows, which the start applies.

    Args:
        path: the path of the old journal, and then of the new one; no other process uses it.
        now_us: Unix µs; later entries count as of now.
        judge: returns what history does with a change.
        has_state: whether there is a state file.

    Raises:
        StartError: it cannot be read, another process uses it, or the new one cannot be written; it stays in place.
    """
    check_length(path)
    new_path = path.with_name(path.name + ".new")
    _remove(new_path)
    try:
        with _opened(path) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")
            filler = _Filler(new_path, judge, has_state=has_state)
            filler.fill(connection, now_us)
            connection.execute("COMMIT")
            # So that nothing is left in a WAL.
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        old_path = _put_in_place(new_path, path)
    finally:
        _remove(new_path)
    return TakenOver(filler.entries, filler.kept, filler.params, old_path, filler.left_out.line(_LEFT_OUT))


class _Filler:
    """Makes the new journal."""

    def __init__(self, path: Path, judge: Judge, *, has_state: bool) -> None:
        self._path = path
        self._judge = judge
        self._has_state = has_state
        self._sets = _LastSets()
        self._last_us = self._last_seq = 0
        self.left_out = LeftOut()
        self.entries = self.kept = self.params = 0

    def fill(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Writes the entries of the old journal, and syncs the new file to the disk."""
        file = open_journal(self._path, syncs_each_commit=False)
        try:
            _write(file, self._history(_changes(connection, now_us, self.left_out)))
            self.kept = file.begin_after(self._last_seq, needs_state=self._has_state)
            if not self._has_state:
                sets = self._sets.all()
                self.params = len(sets)
                _write(file, (Entry(seq, change) for seq, change in enumerate(sets, self._last_seq + 1)))
        finally:
            file.close()
        self.entries += self.left_out.count
        _sync(self._path)

    def _history(self, changes: Iterator[Change]) -> Iterator[Entry]:
        for change in changes:
            self.entries += 1
            self._sets.add(change)
            key, erasures = self._judge(change)
            if key is not None or erasures:
                self._last_seq += 1
                self._last_us = max(self._last_us + 1, change.param.timestamp_us)
                yield Entry(self._last_seq, _at(change, self._last_us), key, erasures)


class _LastSets:
    """The last SET of each address, with the highest revision there: that relay may have begun to count again."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}

    def add(self, change: Change) -> None:
        """Takes the next entry; ignores it if it is no SET."""
        if change.kind is ChangeKind.WRITE:
            param = change.param
            before = self._changes.pop(param.address, None)
            if before is not None and before.param.revision > param.revision:
                change = change._replace(param=param._replace(revision=before.param.revision))
            self._changes[param.address] = change

    def all(self) -> list[Change]:
        """Returns the SETs in the order of their entries."""
        return list(self._changes.values())


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a journal of the Rust relay; an error of SQLite becomes a ``StartError``."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        yield connection
    except sqlite3.Error as error:
        raise cannot_use(path, error) from error
    finally:
        connection.close()


def _changes(connection: sqlite3.Connection, now_us: int, left_out: LeftOut) -> Iterator[Change]:
    """Yields the entries as changes, the oldest first; counts those that this relay would refuse."""
    for seq, timestamp, *rest in connection.execute(_QUERY):
        try:
            yield _change(min(_whole(timestamp, "timestamp", 0), now_us), *rest)
        except (ValueError, RecursionError, RequestError) as error:
            why = error.message if isinstance(error, RequestError) else str(error)
            left_out.add(f"entry {seq}: {why}")


def _change(time_us: int, author: Any, address: Any, signal_type: Any, value_json: Any, revision: Any) -> Change:
    """Converts an entry to a change.

    Raises:
        ValueError: a column is invalid.
        RequestError: its address is invalid.
    """
    if not (isinstance(author, str) and isinstance(address, str) and isinstance(value_json, str)):
        raise ValueError("a column is not a text")
    check_address(address)
    value = value_of_json(json.loads(value_json))
    check_fits(address, value, author)
    # The Rust relay, too, reads an unknown type as an event.
    signal = _SIGNALS.get(signal_type, Signal.EVENT)
    if signal is Signal.PARAM:
        return Change(Param(address, value, _whole(revision, "revision", 1), author, time_us))
    message = Publish(address, signal, value=None if value == NULL else value, timestamp_us=time_us)
    return Change(no_param(address, author, "", time_us), ChangeKind.EVENT, message=message)


def _whole(number: Any, name: str, low: int) -> int:
    if type(number) is not int or number < low:
        raise ValueError(f"its {name} is not a whole number from {low} on")
    return number


def _at(change: Change, time_us: int) -> Change:
    """Returns a change with another time."""
    message = change.message
    if isinstance(message, Publish):
        message = message._replace(timestamp_us=time_us)
    return change._replace(param=change.param._replace(timestamp_us=time_us), message=message)


def _write(file: JournalFile, entries: Iterator[Entry]) -> None:
    try:
        while batch := list(islice(entries, WRITTEN_AT_ONCE)):
            file.write(batch)
    except sqlite3.Error as error:
        raise cannot_use(file.path, error) from error


def _put_in_place(new_path: Path, path: Path) -> Path:
    """Replaces the old journal by the new one, atomically; returns the new path of the old one."""
    old_path = _free_name(path)
    try:
        try:
            os.link(path, old_path)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            # Some file systems have no hard links.
            shutil.copy2(path, old_path)
            _sync(old_path)
        os.replace(new_path, path)
        _sync(path.parent)
    except OSError as error:
        raise StartError(
            f"{path}: the journal of the Rust relay cannot be kept as {old_path.name} ({error.strerror}); let user "
            f"{os.geteuid()} write to its folder, and make room on its disk"
        ) from error
    return old_path


def _free_name(path: Path) -> Path:
    """Returns an unused path beside the journal."""
    names = (path.with_name(f"{path.name}.rust{f'.{number}' if number else ''}") for number in count())
    return next(name for name in names if not os.path.lexists(name))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Removes the files that an earlier attempt has left."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
