"""Tests of clasp_relay.storage.journal.opening: every file that is no usable journal is recognised and left alone."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.rules import Erasure
from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import Entry, JournalFile, encode_body
from clasp_relay.storage.journal.opening import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    open_journal,
    open_to_check,
    open_to_read,
)
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import make_folder


class JournalCase(SynchronousTestCase):
    """A folder, and a journal in it."""

    def setUp(self) -> None:
        """Makes a folder."""
        self.path = make_folder(self) / "journal.db"

    def make(self, count: int = 3) -> None:
        """Makes a journal of some rows."""
        file = open_journal(self.path, syncs_each_commit=True)
        if count:
            file.write([Entry(seq, write_of(seq)) for seq in range(1, count + 1)])
        file.close()


class OpenJournalTests(JournalCase):
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
                self.assertIn(
                    "move it away with its -wal and -shm, and the relay starts from state.json alone", self.refused()
                )

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
        for table, words in (
            ("notes", "another program"),
            ("journal_entries", "a journal of the Rust relay; a relay that starts on it takes it over"),
        ):
            with self.subTest(table):
                self.path.unlink(missing_ok=True)
                self.execute(f"CREATE TABLE {table} (seq INTEGER)")
                self.assertIn(words, self.refused())

    def test_newer_journal_is_named(self) -> None:
        """Nothing of it is touched."""
        self.make()
        self.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assertIn("made by a newer relay", self.refused())

    def make_before(self, version: int, keys: Sequence[str]) -> None:
        """Makes a journal of a version before, with an entry of history for each of some keys."""
        self.path.unlink(missing_ok=True)
        for number in range(1, version + 1):
            schema = files("clasp_relay.storage") / "schema" / f"journal-{number}.sql"
            self.execute(schema.read_text(encoding="utf-8"))
        self.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};")
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for seq, key in enumerate(keys, 1):
                change = write_of(seq)
                row = (seq, change.param.timestamp_us, int(change.kind), change.param.address, encode_body(change))
                connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
                connection.execute("INSERT INTO history (key, seq) VALUES (?, ?)", (key, seq))
                if version > 1:
                    connection.execute("UPDATE history SET subject = ? WHERE seq = ?", (f"user-{seq}", seq))

    def test_older_journal_gets_what_is_new(self) -> None:
        """No entry of its history is lost, and the keys are followed from then on, as in a new journal."""
        for version in range(1, SCHEMA_VERSION):
            with self.subTest(version):
                self.make_before(version, ["0:/b", "0:/a", "0:/b", "0:/c"])
                checked = open_to_check(self.path)
                assert checked is not None, "it has no tables"
                self.assertEqual([seq for seq, _ in checked.read(0)], [1, 2, 3, 4])
                checked.close()
                file = open_journal(self.path, syncs_each_commit=True)
                self.assertEqual(file.ask("PRAGMA user_version"), [(SCHEMA_VERSION,)])
                self.assertEqual((file.last_seq, len(list(file.read(0, history_only=True)))), (4, 4))
                by = ["user-1", "user-2", "user-3", "user-4"] if version > 1 else [""] * 4
                rows = list(zip((1, 2, 3, 4), ("0:/b", "0:/a", "0:/b", "0:/c"), by, strict=True))
                self.assertEqual(file.ask("SELECT seq, key, subject FROM history ORDER BY seq"), rows)
                file.write([Entry(5, write_of(5), "0:/a"), Entry(6, write_of(6), "0:/d", (Erasure("0:/b"),))])
                keys = [(2, "0:/a"), (4, "0:/c"), (6, "0:/d")]
                self.assertEqual(file.ask("SELECT seq, key FROM history_keys ORDER BY seq"), keys)
                found = file.ask("SELECT type, name, sql FROM sqlite_master ORDER BY name")
                file.close()
                self.path.unlink()
                self.make(0)
                with closing(sqlite3.connect(self.path)) as connection:
                    new = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
                self.assertEqual(found, new)

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

    def test_journal_without_its_single_rows_is_damaged(self) -> None:
        """Each start makes them; with a WAL the row of ``trimmed`` is asked for before anything else."""
        for table in ("trimmed", "history_rules"):
            with self.subTest(table=table):
                self.path.unlink(missing_ok=True)
                self.make()
                with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
                    other.execute(f"DELETE FROM {table}")  # noqa: S608 - one of two names
                    with self.assertRaisesRegex(StartError, rf"damaged \(its table {table} has not one row\)"):
                        open_to_read(self.path)

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

    def test_disk_without_room_for_all_parts_is_named(self) -> None:
        """SQLite says «disk I/O error» where there is none for the index of the WAL, and the cure is no other user."""
        self.make()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        self.assertRegex(self.refused(), r"cannot be read or written \(disk I/O error\); make room on its disk")

    def test_read_only_journal_is_named(self) -> None:
        """Where the user may not write to it."""
        self.make()
        if os.geteuid() == 0:  # who may write to everything
            self.patch(open_journal.__globals__["os"], "open", _read_only)
        else:
            self.path.chmod(0o400)
        with self.assertRaisesRegex(StartError, r"the journal cannot be opened \(Permission denied\); let user"):
            open_journal(self.path, syncs_each_commit=True)


class OpenToReadTests(JournalCase):
    """Reading needs no more than a journal, and changes nothing in it."""

    def opened(self) -> JournalFile:
        """Opens it for reading; closed with the test."""
        file = open_to_read(self.path)
        self.addCleanup(file.close)
        return file

    def test_journal_is_read_while_a_relay_writes(self) -> None:
        """What it commits meanwhile is seen, and the reader can change nothing."""
        self.make()
        writer = open_journal(self.path, syncs_each_commit=True)
        self.addCleanup(writer.close)
        reader = self.opened()
        writer.write([Entry(4, write_of(4))])
        self.assertEqual([seq for seq, _ in reader.read(0)], [1, 2, 3, 4])
        with self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
            reader.write([Entry(5, write_of(5))])
        writer.write([Entry(5, write_of(5))])

    def test_relay_starts_after_a_reader(self) -> None:
        """What a reader leaves beside the journal is in nobody's way."""
        self.make()
        self.opened().close()
        self.make(0)
        self.assertEqual(self.opened().last_seq, 3)

    def test_what_cannot_be_read_is_named(self) -> None:
        """Nothing is made, and nothing changed."""
        with self.assertRaisesRegex(StartError, r"journal\.db: the journal cannot be read \(No such file"):
            self.opened()
        self.assertFalse(self.path.exists())
        self.path.touch()
        with self.assertRaisesRegex(StartError, r"journal\.db: this journal is empty"):
            self.opened()
        self.make(2_000)
        whole = self.path.read_bytes()
        damages = {
            "cut off": whole[:-1],
            "not a journal": b"{" * 5_000,
            "is damaged": whole[:100] + b"\xff" * 3_996 + whole[4_096:],
            "made by a newer relay": whole[:60] + (99).to_bytes(4, "big") + whole[64:],
            "another program": whole[:68] + bytes(4) + whole[72:],
        }
        for words, content in damages.items():
            with self.subTest(words):
                self.path.write_bytes(content)
                with self.assertRaisesRegex(StartError, words):
                    self.opened()
                self.assertEqual(self.path.read_bytes(), content)


def _impatient(connect: object) -> object:
    def connected(*arguments: object, **options: object) -> object:
        return connect(*arguments, **{**options, "timeout": 0.01})  # type: ignore[operator]

    return connected


def _read_only(*_: object) -> int:
    raise PermissionError(13, "Permission denied")
