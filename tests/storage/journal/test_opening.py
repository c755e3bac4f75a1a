"""Tests of clasp_relay.storage.journal.opening: every file that is no usable journal is recognised and left alone."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.opening import SCHEMA_VERSION, open_journal
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import make_folder


class OpenJournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a folder."""
        self.path = make_folder(self) / "journal.db"

    def make(self, count: int = 3) -> None:
        """Makes a journal of some rows."""
        file = open_journal(self.path, syncs_each_commit=True)
        file.write([Entry(seq, write_of(seq)) for seq in range(1, count + 1)])
        file.close()

    def execute(self, script: str) -> None:
        """Changes the file behind the relay's back."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    def refused(self) -> str:
        """Returns why the file is not opened; it is the same afterwards."""
        before = self.path.read_bytes()
        with self.assertRaises(StartError) as caught:
            open_journal(self.path, syncs_each_commit=True)
        self.assertEqual(self.path.read_bytes(), before)
        said = str(caught.exception)
        self.assertTrue(said.startswith(str(self.path)), said)
        self.assertNotIn("\n", said)
        return said

    def test_file_is_made_for_its_owner_alone(self) -> None:
        """What users write to each other is in it."""
        self.make()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_empty_file_becomes_a_journal(self) -> None:
        """A relay that ended while it made the file left one."""
        self.path.touch()
        self.make()
        file = open_journal(self.path, syncs_each_commit=True)
        self.assertEqual(file.last_seq, 3)
        file.close()

    def test_file_that_is_no_journal_is_named(self) -> None:
        """With what to do."""
        for content in (b"x", b"{" * 5_000, b"\0" * 5_000):
            with self.subTest(size=len(content)):
                self.path.write_bytes(content)
                self.assertIn("move it away, and the relay starts from state.json alone", self.refused())

    def test_journal_that_is_cut_off_is_named(self) -> None:
        """Wherever it was cut."""
        self.make(2_000)
        whole = self.path.read_bytes()
        for size in (20, 100, 4_096, len(whole) // 2, len(whole) - 1):
            with self.subTest(size=size):
                self.path.write_bytes(whole[:size])
                self.assertIn("the journal is cut off", self.refused())

    def test_database_of_somebody_else_is_named(self) -> None:
        """Another program's, and the Rust relay's journal."""
        for table, words in (("notes", "another program"), ("journal_entries", "the Rust relay")):
            with self.subTest(table):
                self.path.unlink(missing_ok=True)
                self.execute(f"CREATE TABLE {table} (seq INTEGER)")
                self.assertIn(words, self.refused())

    def test_newer_journal_is_named(self) -> None:
        """Nothing of it is touched."""
        self.make()
        self.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assertIn("made by a newer relay", self.refused())

    def test_journal_that_somebody_holds_is_named(self) -> None:
        """After a while."""
        self.make()
        self.patch(open_journal.__globals__["sqlite3"], "connect", _impatient(sqlite3.connect))
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            self.assertIn("another process holds the journal", self.refused())

    def test_damaged_journal_is_named(self) -> None:
        """A page that is overwritten with nonsense, where the tables are told."""
        self.make()
        whole = bytearray(self.path.read_bytes())
        whole[100:4_096] = b"\xff" * 3_996
        self.path.write_bytes(bytes(whole))
        self.assertIn("the journal is damaged", self.refused())

    def test_path_that_is_no_file_is_named(self) -> None:
        """A folder, and a missing one above."""
        self.path.mkdir()
        for path in (self.path, self.path / "none" / "journal.db"):
            with self.subTest(path), self.assertRaisesRegex(StartError, "the journal cannot be opened"):
                open_journal(Path(path), syncs_each_commit=True)

    def test_part_that_cannot_be_written_is_named(self) -> None:
        """The WAL is a part of it."""
        self.make()
        wal = self.path.with_name("journal.db-wal")
        wal.mkdir()
        with self.assertRaisesRegex(StartError, r"journal\.db-wal: this part of the journal cannot be written"):
            open_journal(self.path, syncs_each_commit=True)

    def test_read_only_journal_is_named(self) -> None:
        """Where the user may not write to it."""
        self.make()
        if os.geteuid() == 0:  # who may write to everything
            self.patch(open_journal.__globals__["os"], "open", _read_only)
        else:
            self.path.chmod(0o400)
        with self.assertRaisesRegex(StartError, r"the journal cannot be opened \(Permission denied\); let user"):
            open_journal(self.path, syncs_each_commit=True)


def _impatient(connect: object) -> object:
    def connected(*arguments: object, **options: object) -> object:
        return connect(*arguments, **{**options, "timeout": 0.01})  # type: ignore[operator]

    return connected


def _read_only(*_: object) -> int:
    raise PermissionError(13, "Permission denied")
