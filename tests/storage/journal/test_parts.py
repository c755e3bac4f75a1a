"""Tests of clasp_relay.storage.journal.parts: the files beside a journal, and files that are damaged or none of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from clasp_relay.core.records import Change
from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.opening import open_journal, open_to_check, open_to_read
from clasp_relay.storage.journal.recovery import recover
from clasp_relay.storage.journal.rust_journal import is_rust_journal
from clasp_relay.storage.journal.upkeep import Facts, inspect
from tests.storage.journal.test_journal_file import write_of
from tests.storage.journal.test_opening import JournalCase
from tests.storage.values import make_folder

PAGE_BYTES = 4_096
"""The size of SQLite's pages."""


class PartsTests(JournalCase):
    """The files beside the journal, and what else may be in their places."""

    def refused(self) -> str:
        """Returns why a relay does not start; all ``contents`` are the same afterwards."""
        before = self.contents()
        with self.assertRaises(StartError) as caught:
            file = open_to_check(self.path)
            if file is not None:
                with closing(file):
                    recover(file, 0, lambda _: None, has_state=False)
        self.assertEqual(self.contents(), before)
        return str(caught.exception)

    def contents(self) -> dict[str, bytes]:
        """Returns what is in the files, but for SQLite's index of the WAL, and a WAL that is empty."""
        found = {path.name: path.read_bytes() for path in self.path.parent.iterdir() if path.is_file()}
        found.pop("journal.db-shm", None)
        if not found.get(self.wal.name):
            found.pop(self.wal.name, None)
        return found

    def checked(self) -> int:
        """Returns the last row of the journal on which a relay starts."""
        file = open_to_check(self.path)
        assert file is not None, "it has no tables"
        file.close()
        return file.last_seq

    def inspected(self) -> Facts:
        """Returns what is in the journal."""
        with closing(open_to_read(self.path)) as file:
            return inspect(file)

    def make_killed(self, name: str, count: int, *more: int) -> Path:
        """Makes a journal in a folder of its own, and leaves it as a relay does that is killed.

        Args:
            name: of the folder.
            count: how many rows are in the file; 0 for none, so that even the tables are in the WAL.
            more: how many rows are in the WAL, one commit after the other.
        """
        folder, begun = self.path.parent / name, self.path.parent / f"{name}-begun"
        begun.mkdir()
        times_us = {"one": 0, "other": 1_000_000}
        seq = 0
        for each in filter(None, (count, *more)):
            file = open_journal(begun / "journal.db", syncs_each_commit=True)
            changes = [write_of(number) for number in range(seq + 1, seq + each + 1)]
            shift_us = times_us.get(name, 0)
            file.write([Entry(seq + n, _later(change, shift_us)) for n, change in enumerate(changes, 1)])
            seq += each
            if each != more[-1]:
                file.close()
        folder.mkdir()
        for path in begun.glob("journal.db*"):
            shutil.copy(path, folder)
        file.close()
        return folder

    def put(self, journal: Path, wal: Path) -> None:
        """Puts a journal and a WAL in place."""
        shutil.copy(journal / "journal.db", self.path)
        shutil.copy(wal / "journal.db-wal", self.wal)

    @property
    def wal(self) -> Path:
        """The journal's WAL."""
        return self.path.with_name("journal.db-wal")

    def test_what_is_no_plain_file_is_named(self) -> None:
        """A pipe, above all: who opens one waits for somebody at its other end."""
        for name in ("journal.db", "journal.db-wal", "journal.db-shm", "journal.db-journal"):
            path = self.path.with_name(name)
            for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")):
                with self.subTest(name):
                    make(path)
                    self.assertRegex(self.refused(), rf"^{path}: .*\(it is no plain file\); move it away")
                    if name == "journal.db":
                        self.assertRaises(StartError, open_to_read, path)
                        self.assertFalse(is_rust_journal(path))
                    if path.is_dir():
                        path.rmdir()
                    else:
                        path.unlink()
        self.assertEqual(list(self.path.parent.iterdir()), [])

    def test_wal_of_a_killed_relay_is_taken(self) -> None:
        """Whatever of it is in the file already."""
        for name, count, more in (("a", 0, (3,)), ("b", 300, (5,)), ("c", 7, (2, 300))):
            with self.subTest(name):
                killed = self.make_killed(name, count, *more)
                self.put(killed, killed)
                self.assertEqual(self.checked(), count + sum(more))

    def test_journal_behind_a_link_has_its_parts_beside_the_file(self) -> None:
        """There they are synced and checked, as SQLite keeps them there."""
        real = make_folder(self) / "kept.db"
        self.path.symlink_to(real)
        file = open_journal(self.path, syncs_each_commit=False)
        file.write([Entry(seq, write_of(seq)) for seq in range(1, 4)])
        file.sync()
        wal = real.with_name("kept.db-wal")
        pages = file.ask("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")[0][0]
        sizes = file.sizes()
        self.assertEqual(sizes.used_bytes + sizes.free_bytes, pages + wal.stat().st_size)
        file.close()
        wal.write_bytes(b"x" * 100)
        self.assertIn(f"{wal}: this part of the journal is damaged (it is no WAL)", self.refused())

    def test_wal_of_another_journal_is_named(self) -> None:
        """SQLite would put its pages among those of the file, and find nothing wrong with that."""
        for number, (count, more) in enumerate(((3_000, 100), (300, 100), (0, 100))):
            with self.subTest(count):
                one = self.make_killed(f"one-{number}", 3_000, 100)
                other = self.make_killed("other", count, more)
                self.put(one, other)
                self.assertRegex(self.refused(), r"journal\.db-wal: this part of the journal belongs to another one")
                self.put(one, one)
                self.assertEqual(self.checked(), 3_100)
                for folder in (other, other.with_name("other-begun")):
                    shutil.rmtree(folder)

    def test_wal_of_before_is_named(self) -> None:
        """That of an older copy."""
        before = self.make_killed("before", 300, 100)
        now = self.make_killed("now", 900, 100)
        self.put(now, before)
        self.assertIn("belongs to another one", self.refused())

    def test_wal_without_its_journal_is_named(self) -> None:
        """SQLite would delete it, and all that was acknowledged last with it."""
        killed = self.make_killed("killed", 300, 5)
        shutil.copy(killed / "journal.db-wal", self.wal)
        for make in (lambda: None, self.path.touch):
            make()
            self.assertIn("the journal is missing, and journal.db-wal beside it has changes of it", self.refused())
        self.wal.write_bytes(b"")
        self.assertIsNone(open_to_check(self.path))

    def test_wal_that_is_none_is_named(self) -> None:
        """SQLite would take it for an empty one. Zeros are what a loss of power may leave."""
        killed = self.make_killed("killed", 300, 5)
        self.put(killed, killed)
        whole = self.wal.read_bytes()
        for head in (b"\xff" * 32, b"\0" * 31 + b"x", whole[:20] + b"\xff\xff" + whole[22:32]):
            with self.subTest(head=head):
                self.wal.write_bytes(head + whole[32:])
                self.assertIn("journal.db-wal: this part of the journal is damaged (it is no WAL)", self.refused())
        for damaged in (bytes(32) + whole[32:], whole[:31], b""):
            self.wal.write_bytes(damaged)
            self.assertEqual(self.checked(), 300)

    def test_damaged_journal_stays_as_it_is(self) -> None:
        """With its WAL, which a connection that may write puts into the file when it ends."""
        killed = self.make_killed("killed", 3_000, 5)
        self.put(killed, killed)
        self.path.write_bytes(self.path.read_bytes()[:20_000])
        self.assertIn("the journal is damaged", self.refused())

    def test_each_page_that_is_damaged_is_named(self) -> None:
        """Whatever is in it: else a commit would end the relay later, after each start again."""
        file = open_journal(self.path, syncs_each_commit=True)
        file.write([Entry(seq, write_of(60 * seq), f"0:/{seq % 30}") for seq in range(1, 601)])
        file.close()
        whole = self.path.read_bytes()
        self.assertGreater(len(whole), 20 * PAGE_BYTES)
        for begin in range(PAGE_BYTES, len(whole), PAGE_BYTES):
            for damage in (b"\xff" * PAGE_BYTES, bytes(PAGE_BYTES), whole[:PAGE_BYTES]):
                with self.subTest(page=begin // PAGE_BYTES + 1):
                    self.path.write_bytes(whole[:begin] + damage + whole[begin + PAGE_BYTES :])
                    self.assertIn("the journal is damaged", self.refused())
                    self.assertRaises((StartError, sqlite3.DatabaseError), self.inspected)

    def test_what_was_at_work_when_the_file_was_made_is_undone(self) -> None:
        """Before there is a WAL, SQLite undoes it with another file."""
        made = self.path.with_name("made.db")
        with closing(sqlite3.connect(made, isolation_level=None)) as connection:
            connection.executescript("PRAGMA cache_size = 1; BEGIN; CREATE TABLE x (y)")
            for _ in range(50):
                connection.execute("INSERT INTO x VALUES (zeroblob(2000))")
            for suffix in ("", "-journal"):
                shutil.copy(made.with_name(made.name + suffix), self.path.with_name(self.path.name + suffix))
        self.assertGreater(self.path.stat().st_size, 0)
        self.assertIsNone(open_to_check(self.path))
        self.assertEqual(self.path.stat().st_size, 0)
        self.make()
        whole = self.path.read_bytes()
        self.path.write_bytes(whole[:100] + b"\xff" * 3_996 + whole[4_096:])
        self.path.with_name("journal.db-journal").write_bytes(b"x")
        with self.assertRaisesRegex(StartError, "the journal is damaged"):
            open_to_check(self.path)


def _later(change: Change, by_us: int) -> Change:
    return change._replace(param=change.param._replace(timestamp_us=change.param.timestamp_us + by_us))
