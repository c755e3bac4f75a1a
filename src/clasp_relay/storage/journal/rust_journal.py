"""The journal of the Rust relay, which is taken over once: its entries become history, its last SETs params.

The old file stays beside the new one, under another name. Until the new one is whole and on the disk nothing is
replaced; a start that was cut off begins again.
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
"""The beginning of an SQLite file: the magic and, as far as it concerns us, the application's id."""

_LEFT_OUT = "entries that this relay would refuse"


class TakenOver(NamedTuple):
    """What became of a journal of the Rust relay."""

    entries: int
    kept: int
    """How many of its entries are history now."""
    params: int
    """How many addresses its SETs are about; 0 where there is a state file, which has them."""
    old_path: Path
    """Where the old file is."""
    left_out: str
    """What this relay would refuse, in one line; empty where nothing was left out."""


def is_rust_journal(path: Path) -> bool:
    """Tells whether a file is a journal of the Rust relay; what cannot be read is none."""
    if not path.is_file():  # who opens a pipe waits for somebody at its other end
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
    """Restores the last SET of each address from a journal of the Rust relay, which stays as it is.

    Args:
        path: where it is.
        now_us: Unix µs; what lies later counts as of now.
        restore: applies one change.

    Returns:
        what was left out, in one line; empty where nothing was.

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
    does not apply them. Where there is no state file the last SET of each address follows, for the start.

    Args:
        path: where it is, and where the new one will be; nobody else uses it.
        now_us: Unix µs; what lies later counts as of now.
        judge: tells what history does with a change.
        has_state: whether there is a state file.

    Raises:
        StartError: it cannot be read, somebody else uses it, or the new one cannot be written; it stays where it is.
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
            # So that one file has everything.
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
        """Writes what the old one has, and puts it on the disk."""
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
    """The last SET of each address. Its revision is the highest there, since that relay may have begun anew."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}

    def add(self, change: Change) -> None:
        """Takes the next entry, whatever it is."""
        if change.kind is ChangeKind.WRITE:
            param = change.param
            before = self._changes.pop(param.address, None)
            if before is not None and before.param.revision > param.revision:
                change = change._replace(param=param._replace(revision=before.param.revision))
            self._changes[param.address] = change

    def all(self) -> list[Change]:
        """Returns them, in their order."""
        return list(self._changes.values())


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a journal of the Rust relay; what SQLite says about it is said to the operator."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        yield connection
    except sqlite3.Error as error:
        raise cannot_use(path, error) from error
    finally:
        connection.close()


def _changes(connection: sqlite3.Connection, now_us: int, left_out: LeftOut) -> Iterator[Change]:
    """Yields the entries as changes, the oldest first; those that this relay would refuse are counted."""
    for seq, timestamp, *rest in connection.execute(_QUERY):
        try:
            yield _change(min(_whole(timestamp, "timestamp", 0), now_us), *rest)
        except (ValueError, RecursionError, RequestError) as error:
            why = error.message if isinstance(error, RequestError) else str(error)
            left_out.add(f"entry {seq}: {why}")


def _change(time_us: int, author: Any, address: Any, signal_type: Any, value_json: Any, revision: Any) -> Change:
    """Returns the change that an entry is.

    Raises:
        ValueError: it is none.
        RequestError: its address is none.
    """
    if not (isinstance(author, str) and isinstance(address, str) and isinstance(value_json, str)):
        raise ValueError("a column is not a text")
    check_address(address)
    value = value_of_json(json.loads(value_json))
    check_fits(address, value, author)
    # As that relay reads them.
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
    """Puts the new journal into the place of the old one, in one step; returns where the old one is now."""
    old_path = _free_name(path)
    try:
        try:
            os.link(path, old_path)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            # Some file systems have no links.
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
    """Returns a name beside the journal that nothing has."""
    names = (path.with_name(f"{path.name}.rust{f'.{number}' if number else ''}") for number in count())
    return next(name for name in names if not os.path.lexists(name))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Removes what an attempt before has left."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
