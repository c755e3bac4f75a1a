"""Files on the disk, and their records."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.storage.files import READ_STEP_S, DiskFull, FileStore, FileUse, StoredFile, Swept

NOW_S = 1_700_000_000


def file_of(number: int, subject: str = "alice", read_s: int = NOW_S) -> StoredFile:
    """Returns a record."""
    return StoredFile(f"{number:032x}", subject, b"", 5, 4096, NOW_S, read_s)


class FileStoreTests(SynchronousTestCase):
    """A folder, and what is in it."""

    def setUp(self) -> None:
        """Makes the folder."""
        self.data = Path(self.mktemp())
        self.folder = self.data / "files"
        self.data.mkdir()
        self.store = self.open()

    def open(self) -> FileStore:
        """Opens the store."""
        store = FileStore(self.folder, self.data / "files.db")
        self.addCleanup(store.close)
        return store

    def put(self, file: StoredFile, data: bytes = b"hello") -> StoredFile:
        """Stores a file as it is done for an upload."""
        writer = self.store.writer(file.id, len(data))
        writer.write(data[:2])
        writer.write(bytearray(data[2:]))
        writer.sync()
        self.store.add(file)
        writer.publish()
        return file

    def test_file_comes_back_as_it_was(self) -> None:
        """Nobody but the relay's user may read it."""
        file = self.put(file_of(1))
        self.assertEqual(self.store.find(file.id), file)
        reader = self.store.reader(file.id)
        assert reader is not None
        self.assertEqual(self.store.remove(file.id), file)
        self.assertEqual((reader.read(0, 99), reader.read(1, 3), reader.read(9, 3)), (b"hello", b"ell", b""))
        self.assertEqual([reader.close(), reader.close()], [True, False])
        self.assertEqual((self.store.find(file.id), self.store.reader(file.id)), (None, None))
        self.assertIsNone(self.store.remove(file.id))
        self.put(file)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (self.folder, self.folder / file.id)]
        self.assertEqual(modes, [0o700, 0o600])

    def test_name_of_the_file_is_its_id(self) -> None:
        """Nothing else is written to the disk about it."""
        self.put(file_of(1))
        self.assertEqual(os.listdir(self.folder), [f"{1:032x}"])

    def test_sweep_removes_what_a_kill_left(self) -> None:
        """At each moment of an upload; whole files without a record stay, as do files of others."""
        for number in range(1, 4):
            writer = self.store.writer(f"{number:032x}", 5)
            writer.write(b"he")
            if number > 1:
                writer.write(b"llo")
                writer.sync()
            if number > 2:
                self.store.add(file_of(number))
        kept = self.put(file_of(4))
        for name in ("notes.txt", "ab.part", f"{9:032x}"):
            (self.folder / name).write_bytes(b"")
        self.store.close()
        self.store = self.open()
        self.assertEqual(self.store.sweep(), Swept(parts=3, records=1, strangers=1))
        self.assertEqual(sorted(os.listdir(self.folder)), [kept.id, f"{9:032x}", "ab.part", "notes.txt"])
        self.assertEqual(self.store.usage(), [FileUse("alice", b"", 1, 4096)])
        self.assertEqual(self.store.sweep(), Swept(0, 0, 1))

    def test_upload_that_ends_early_leaves_nothing(self) -> None:
        """Before its first byte, too."""
        for data in (b"", b"he"):
            with self.subTest(data=data):
                writer = self.store.writer(f"{1:032x}", 5)
                if data:
                    writer.write(data)
                writer.discard()
                self.assertEqual(os.listdir(self.folder), [])

    def test_full_disk_is_told(self) -> None:
        """Room is kept for the rest of the relay; what the disk says counts as well, in each step."""
        with self.assertRaises(DiskFull):
            FileStore(self.folder, self.data / "other.db", 1 << 60).writer(f"{1:032x}", 5).write(b"x")
        for code, kind in ((errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, OSError)):
            for name in ("write", "fsync"):
                with self.subTest(code=code, name=name):
                    writer = self.store.writer(f"{2:032x}", 5)
                    if name == "fsync":
                        writer.write(b"x")

                    def fail(*_: object, number: int = code) -> None:
                        raise OSError(number, os.strerror(number))

                    patch = self.patch(os, name, fail)
                    with self.assertRaises(kind):
                        writer.sync() if name == "fsync" else writer.write(b"x")
                    patch.restore()
                    writer.discard()
        self.assertEqual(os.listdir(self.folder), [])

    def test_last_read_is_kept_to_the_hour(self) -> None:
        """So that reading seldom writes; those unread for long are found."""
        old, new = self.put(file_of(1)), self.put(file_of(2))
        self.store.note_read(new, NOW_S + READ_STEP_S - 1)
        self.assertEqual(self.store.find(new.id), new)
        self.store.note_read(new, NOW_S + READ_STEP_S)
        self.assertEqual(self.store.unread_since(NOW_S + 1, 9), [old])
        self.assertEqual(len(self.store.unread_since(NOW_S + READ_STEP_S + 1, 1)), 1)

    def test_use_is_told_by_user(self) -> None:
        """And the files of one."""
        first, second = self.put(file_of(1)), self.put(file_of(2))
        self.put(StoredFile(f"{3:032x}", "guest", b"home", 1, 4096, NOW_S, NOW_S))
        self.assertEqual(
            sorted(self.store.usage()), [FileUse("alice", b"", 2, 8192), FileUse("guest", b"home", 1, 4096)]
        )
        self.assertEqual(self.store.of_subject("alice", 9), [first, second])
        self.assertEqual(self.store.of_subject("alice", 1), [first])

    def test_database_that_cannot_be_used_stops_the_start(self) -> None:
        """With a line for the operator; the file is left as it is."""
        for name, data in (("nonsense.db", b"x" * 4096), ("folder.db", None)):
            with self.subTest(name=name):
                path = self.data / name
                path.mkdir() if data is None else path.write_bytes(data)
                with self.assertRaises(StartError) as caught:
                    FileStore(self.folder, path)
                self.assertIn(str(path), str(caught.exception))
                if data is not None:
                    self.assertEqual(path.read_bytes(), data)
        newer = self.data / "newer.db"
        with closing(sqlite3.connect(newer)) as database:
            database.execute("PRAGMA user_version = 99")
        with self.assertRaises(StartError) as caught:
            FileStore(self.folder, newer)
        self.assertIn("a newer relay", str(caught.exception))
