"""Tests of clasp_relay.storage.journal.rust_journal: the Rust relay's journal becomes one of ours, once."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.rules import UNKEPT, Erasure, Judgement
from clasp_relay.core.records import Change, ChangeKind, Param
from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import Entry, JournalFile
from clasp_relay.storage.journal.opening import open_journal, open_to_read
from clasp_relay.storage.journal.recovery import recover
from clasp_relay.storage.journal.rust_journal import WRITTEN_AT_ONCE, TakenOver, is_rust_journal, read_params, take_over
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish
from clasp_relay.wire.values import encode_value
from tests.storage.values import TIME_US, make_folder

NOW_US = TIME_US + 1_000_000_000

RUST_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS journal_entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp INTEGER NOT NULL,
    author TEXT NOT NULL,
    address TEXT NOT NULL,
    signal_type TEXT NOT NULL,
    value_json TEXT NOT NULL,
    revision INTEGER,
    msg_type INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_entries_address ON journal_entries(address);
CREATE INDEX IF NOT EXISTS idx_entries_timestamp ON journal_entries(timestamp);
CREATE INDEX IF NOT EXISTS idx_entries_signal_type ON journal_entries(signal_type);
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    seq_at INTEGER NOT NULL,
    data_json TEXT NOT NULL
);
"""
"""What the Rust relay makes its tables with."""


def make_rust_journal(path: Path, *entries: tuple[Any, ...]) -> sqlite3.Connection:
    """Makes a journal as the Rust relay does.

    Args:
        path: where.
        entries: seconds after ``TIME_US``, address, kind of signal, JSON, and the revision of a SET.

    Returns:
        the connection; as long as it is open the entries are in the WAL.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(RUST_SCHEMA)
    for seconds, address, signal_type, text, *revision in entries:
        values = (TIME_US + seconds * 1_000_000, "author", address, signal_type, text, *(revision or [None]))
        connection.execute(
            "INSERT INTO journal_entries (timestamp, author, address, signal_type, value_json, revision, msg_type)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*values, 0x21 if signal_type == "param" else 0x20),
        )
    return connection


ENTRIES: tuple[tuple[Any, ...], ...] = (
    (1, "/a", "param", "1", 1),
    (2, "/a", "param", '{"x":[1.5,null,true]}', 2),
    (3, "/kept/e", "event", '"hello"'),
    (3, "/kept/s", "stream", "null"),
    (5, "/b", "param", "1", 7),
    (4, "/gone", "param", "1", 1),
    (6, "/gone", "param", "null", 2),
    (7, "/b", "param", '"after that relay began anew"', 1),
    (8, "/kept/e", "event", "18446744073709551615"),
    (9, "/e", "event", "1"),
)


def judge(change: Change) -> Judgement:
    """Keeps what is below /kept, and the SETs of /a; erases what is kept of /kept/e with whatever comes at /erase."""
    address = change.param.address
    key = f"0:{address}" if address.startswith("/kept/") or address == "/a" else None
    return key, (Erasure("0:/kept/e"),) if address == "/erase" else ()


class RustCase(SynchronousTestCase):
    """A folder for a journal."""

    def setUp(self) -> None:
        """Makes it."""
        self.folder = make_folder(self)
        self.path = self.folder / "journal.db"

    def make(self, *entries: tuple[Any, ...]) -> None:
        """Makes a journal of the Rust relay, which has ended."""
        make_rust_journal(self.path, *entries).close()

    def take_over(self, *, has_state: bool = False, entries: tuple[tuple[Any, ...], ...] = ENTRIES) -> TakenOver:
        """Makes a journal and takes it over."""
        self.make(*entries)
        return take_over(self.path, NOW_US, judge, has_state=has_state)

    def open(self) -> JournalFile:
        """Opens what is there now; closed with the test."""
        file = open_journal(self.path, syncs_each_commit=True)
        self.addCleanup(file.close)
        return file

    def recovered(self, file: JournalFile, *, has_state: bool) -> list[Change]:
        """Returns what a start applies."""
        applied: list[Change] = []
        recover(file, 0, applied.append, has_state=has_state)
        return applied

    def names(self) -> set[str]:
        """Returns what is there, but for what SQLite leaves."""
        return {path.name for path in self.folder.iterdir()} - {"journal.db-wal", "journal.db-shm"}

    def refused(self, **options: Any) -> str:
        """Returns why it is not taken over; it is where it was, and alone."""
        before = self.names()
        with self.assertRaises(StartError) as caught:
            take_over(self.path, NOW_US, judge, has_state=False, **options)
        self.assertTrue(is_rust_journal(self.path) or "cut off" in str(caught.exception))
        self.assertEqual(self.names(), before)
        said = str(caught.exception)
        self.assertTrue(said.startswith(str(self.path)), said)
        return said


LAST_SETS = [
    Change(Param("/a", encode_value({"x": [1.5, None, True]}), 2, "author", TIME_US + 2_000_000)),
    Change(Param("/gone", NULL, 2, "author", TIME_US + 6_000_000)),
    Change(Param("/b", encode_value("after that relay began anew"), 7, "author", TIME_US + 7_000_000)),
]
"""What becomes of the SETs of ``ENTRIES``: of /b the highest revision."""


class IsRustJournalTests(RustCase):
    def test_only_the_rust_relays_is_one(self) -> None:
        """Nothing else is touched, nor made."""
        self.assertFalse(is_rust_journal(self.path))
        self.assertFalse(self.path.exists())
        for content in (b"", b"{" * 200, b"SQLite format 3\0" + b"\xff" * 200):
            self.path.write_bytes(content)
            self.assertFalse(is_rust_journal(self.path))
        self.path.unlink()
        self.open().close()
        self.assertFalse(is_rust_journal(self.path))
        self.path.unlink()
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("CREATE TABLE notes (seq INTEGER)")
        self.assertFalse(is_rust_journal(self.path))
        self.path.unlink()
        self.make()
        self.assertTrue(is_rust_journal(self.path))


class TakeOverTests(RustCase):
    def test_entries_become_history(self) -> None:
        """In the order of their times, no two at the same one; a start applies none of them."""
        for has_state in (True, False):
            with self.subTest(has_state=has_state):
                self.setUp()
                taken = self.take_over(has_state=has_state)
                self.assertEqual((taken.entries, taken.kept, taken.left_out), (10, 5, ""))
                file = self.open()
                kept = [change for _, change in file.read(0, history_only=True)]
                times_us = [change.param.timestamp_us for change in kept]
                self.assertEqual([(time_us - TIME_US) / 1e6 for time_us in times_us], [1, 2, 3, 3.000001, 8])
                self.assertEqual(
                    [change.message for change in kept[2:]],
                    [
                        Publish("/kept/e", Signal.EVENT, value=encode_value("hello"), timestamp_us=times_us[2]),
                        Publish("/kept/s", Signal.STREAM, timestamp_us=times_us[3]),
                        Publish("/kept/e", Signal.EVENT, value=encode_value(2.0**64), timestamp_us=times_us[4]),
                    ],
                )
                self.assertEqual(kept[0], Change(Param("/a", encode_value(1), 1, "author", TIME_US + 1_000_000)))
                self.assertEqual({change.kind for change in kept[2:]}, {ChangeKind.EVENT})
                keys = file.ask("SELECT key, count(*) FROM history GROUP BY key ORDER BY key")
                self.assertEqual(keys, [("0:/a", 2), ("0:/kept/e", 2), ("0:/kept/s", 1)])

    def test_what_was_erased_is_not_kept(self) -> None:
        """By whatever came behind it, whether that itself is kept or not."""
        taken = self.take_over(entries=(*ENTRIES, (10, "/erase", "event", "1"), (11, "/kept/e", "event", "2")))
        self.assertEqual((taken.entries, taken.kept), (12, 4))
        file = self.open()
        kept = [change.param.address for _, change in file.read(0, history_only=True)]
        self.assertEqual(kept, ["/a", "/a", "/kept/s", "/kept/e"])
        self.assertEqual((file.trimmed_seq, file.ask("SELECT count(*) FROM entries")), (7, [(7,)]))
        self.assertEqual(self.recovered(file, has_state=False), LAST_SETS)

    def test_last_set_of_each_address_becomes_a_param(self) -> None:
        """Where there is no state file; at every start until there is one that has them."""
        self.assertEqual(self.take_over().params, 3)
        file = self.open()
        self.assertEqual(self.recovered(file, has_state=False), LAST_SETS)
        self.assertEqual((file.trimmed_seq, file.last_seq), (5, 8))
        file.write([Entry(9, Change(Param("/a", encode_value(3), 3, "w", NOW_US)))])
        self.assertEqual([change.param.revision for change in self.recovered(file, has_state=False)], [2, 7, 3])

    def test_state_file_has_the_params(self) -> None:
        """Then the SETs are history at most; when it is gone they are missed."""
        self.assertEqual(self.take_over(has_state=True).params, 0)
        file = self.open()
        self.assertEqual(self.recovered(file, has_state=True), [])
        with self.assertRaisesRegex(StartError, r"rows 1 to 5 are missing \(there is no state file\)"):
            self.recovered(file, has_state=False)
        file.write([Entry(6, LAST_SETS[0])])
        self.assertEqual(self.recovered(file, has_state=True), LAST_SETS[:1])

    def test_old_file_stays_under_another_name(self) -> None:
        """One that is free, with all that it had, also what was in the WAL."""
        self.path.with_name("journal.db.rust").touch()
        running = make_rust_journal(self.path, *ENTRIES)
        with closing(sqlite3.connect(self.folder / "copy.db")) as copy:
            running.backup(copy)
        crashed = {suffix: self.path.with_name(f"journal.db{suffix}").read_bytes() for suffix in ("", "-wal")}
        running.close()
        for suffix, content in crashed.items():
            self.path.with_name(f"journal.db{suffix}").write_bytes(content)
        taken = take_over(self.path, NOW_US, lambda _: UNKEPT, has_state=False)
        self.assertEqual((taken.entries, taken.kept, taken.old_path.name), (10, 0, "journal.db.rust.1"))
        rows = []
        for path in (taken.old_path, self.folder / "copy.db"):
            with closing(sqlite3.connect(path)) as old:
                rows.append(old.execute("SELECT * FROM journal_entries").fetchall())
        self.assertEqual(rows[0], rows[1])
        self.assertEqual(len(rows[0]), 10)
        self.assertEqual(self.names(), {"journal.db", "journal.db.rust", "journal.db.rust.1", "copy.db"})
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_old_file_is_copied_where_there_are_no_links(self) -> None:
        """And a start that was cut off before leaves nothing in the way."""

        def no_link(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        self.patch(os, "link", no_link)
        self.path.with_name("journal.db.new").write_bytes(b"half")
        taken = self.take_over()
        self.assertTrue(is_rust_journal(taken.old_path))
        self.assertEqual(self.open().last_seq, 8)

    def test_what_this_relay_would_refuse_is_left_out(self) -> None:
        """It is counted, and the first is named; times that lie in the future are now."""
        taken = self.take_over(
            entries=(
                (1, "no-address", "event", "1"),
                (1, "/a", "param", "{", 1),
                (1, "/a", "param", '"\\ud800"', 1),
                (1, "/a", "param", '{"__proto__":1}', 1),
                (1, "/a", "param", json.dumps("x" * 65_520), 1),
                (1, "/a", "param", "1"),
                (1, "/a", "param", "1", 0),
                (-(10**10), "/a", "param", "1", 1),
                (1, "/a", "param", "[" * 2_000 + "]" * 2_000, 1),
                (10**6, "/a", "param", "1", 1),
                (10**6, "/kept/e", "of another kind", "1"),
            )
        )
        self.assertEqual((taken.entries, taken.kept, taken.params), (11, 2, 1))
        self.assertRegex(taken.left_out, "^9 entries that this relay would refuse; the first: entry 8: its timestamp")
        file = self.open()
        times_us = [change.param.timestamp_us for _, change in file.read(0)]
        self.assertEqual(times_us, [NOW_US, NOW_US + 1, NOW_US])

    def test_many_entries_are_written_in_batches(self) -> None:
        """Of a journal of any length."""
        count = 2 * WRITTEN_AT_ONCE + 1
        self.assertEqual(
            self.take_over(entries=tuple((n, f"/kept/{n}", "event", "1") for n in range(count))).kept, count
        )
        file = open_to_read(self.path)
        self.addCleanup(file.close)
        self.assertEqual(file.ask("SELECT count(*) FROM history"), [(count,)])

    def test_empty_journal_is_taken_over(self) -> None:
        """New rows begin with 1."""
        self.assertEqual(self.take_over(entries=()).entries, 0)
        file = self.open()
        file.write([Entry(1, LAST_SETS[0])])
        self.assertEqual(self.recovered(file, has_state=False), LAST_SETS[:1])

    def test_journal_that_is_in_use_is_left_alone(self) -> None:
        """The Rust relay must have ended."""
        self.patch(take_over.__globals__["sqlite3"], "connect", _impatient(sqlite3.connect))
        other = make_rust_journal(self.path, *ENTRIES)
        self.addCleanup(other.close)
        self.assertIn("another process holds the journal; end it", self.refused())

    def test_damaged_journal_is_left_alone(self) -> None:
        """A file that was cut off, one with nonsense in it, and one of another layout."""
        self.make(*((n, "/kept/a", "event", json.dumps("x" * 500)) for n in range(200)))
        whole = self.path.read_bytes()
        self.path.write_bytes(whole[:-1])
        self.assertIn("the journal is cut off", self.refused())
        self.path.write_bytes(whole[: len(whole) // 2] + b"\xff" * (len(whole) - len(whole) // 2))
        self.assertIn("the journal is damaged", self.refused())
        self.path.write_bytes(whole)
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("ALTER TABLE journal_entries RENAME COLUMN author TO who")
        self.assertIn("the journal is damaged (no such column: author)", self.refused())

    def test_failure_to_write_leaves_everything_as_it_was(self) -> None:
        """A full disk, while the new one is made or while it is put in place."""
        self.make(*ENTRIES)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with self.subTest("in place"):
            patch = self.patch(os, "link", full)
            self.assertIn("cannot be kept as journal.db.rust (No space left on device)", self.refused())
            patch.restore()
        with self.subTest("made"):
            self.patch(JournalFile, "write", broken)
            self.assertIn("journal.db.new: the journal is damaged (database or disk is full)", self.refused())


class ReadParamsTests(RustCase):
    def test_params_are_read_and_the_file_stays(self) -> None:
        """For a relay that writes no journal."""
        self.make(*ENTRIES, (10, "bad", "event", "1"))
        applied: list[Change] = []
        left_out = read_params(self.path, NOW_US, applied.append)
        self.assertEqual(applied, LAST_SETS)
        self.assertRegex(left_out, "^1 entries that this relay would refuse; the first: entry 11: ")
        self.assertTrue(is_rust_journal(self.path))
        self.assertEqual(self.names(), {"journal.db"})


def _impatient(connect: Any) -> Any:
    def connected(*arguments: Any, **options: Any) -> Any:
        return connect(*arguments, **{**options, "timeout": 0.01})

    return connected
