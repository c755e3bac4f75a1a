"""Copies of files, of which there are only so many."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage import file_cache as module
from clasp_relay.storage.file_cache import FileCache
from clasp_relay.storage.files import FileFolder, FileReader, FileWriter


def id_of(number: int) -> str:
    """Returns an id."""
    return f"{number:032x}"


class FileCacheTests(SynchronousTestCase):
    """A folder with room for three blocks."""

    def setUp(self) -> None:
        """Makes it."""
        self.folder = Path(self.mktemp()) / "files-cache"
        self.folder.parent.mkdir()
        self.cache = self.open()

    def open(self) -> FileCache:
        """Opens the folder anew."""
        return FileCache(self.folder, 3 * 4096)

    def keep(self, number: int, size_bytes: int = 5) -> None:
        """Adds a copy."""
        writer = self.cache.writer(id_of(number), size_bytes)
        writer.write(b"x" * size_bytes)
        self.cache.keep(writer, id_of(number), size_bytes)

    def has(self, number: int) -> bool:
        """Tells whether a copy can be read, which is then the last to go."""
        reader = self.cache.reader(id_of(number))
        return reader is not None and reader.close()

    def on_disk(self) -> list[int]:
        """Returns what is in the folder."""
        return sorted(int(name, 16) for name in os.listdir(self.folder))

    def test_what_was_not_read_for_longest_goes(self) -> None:
        """And is readable to whoever reads it already."""
        for number in (1, 2, 3):
            self.keep(number)
        self.assertTrue(self.has(1))
        reader = self.cache.reader(id_of(2))
        assert reader is not None
        self.addCleanup(reader.close)
        self.assertTrue(self.has(1) and self.has(3))
        self.keep(4, 4097)
        self.assertEqual((self.on_disk(), self.cache.count, self.cache.bytes), ([3, 4], 2, 3 * 4096))
        self.assertEqual(reader.read(0, 9), b"xxxxx")
        self.assertFalse(self.has(2))

    def test_one_copy_always_may_be_there(self) -> None:
        """Whatever its size: it is about to be read."""
        self.keep(1)
        self.keep(2, 9 * 4096)
        self.assertEqual((self.on_disk(), self.cache.bytes), ([2], 9 * 4096))

    def test_there_are_not_too_many(self) -> None:
        """Small ones take memory, too."""
        self.patch(module, "MAX_COPIES", 2)
        for number in (1, 2, 3):
            self.keep(number)
        self.assertEqual(self.on_disk(), [2, 3])

    def test_restart_goes_on(self) -> None:
        """In the order of reading, without what was half written, within a bound that is smaller now."""
        for number in (1, 2, 3):
            self.keep(number)
            os.utime(self.folder / id_of(number), (number, number))
        self.assertTrue(self.has(1))
        self.cache.writer(id_of(4), 5).write(b"hel")
        self.cache = FileCache(self.folder, 2 * 4096)
        self.assertEqual(self.cache.load(), [id_of(3), id_of(1)])
        self.assertEqual((self.on_disk(), self.cache.kept()), ([1, 3], [id_of(3), id_of(1)]))

    def test_copy_that_comes_while_it_is_looked_for_counts(self) -> None:
        """Another thread keeps it between the look into the folder and the count."""
        threads: list[Thread] = []
        reader = FileFolder.reader

        def look(folder: FileFolder, file_id: str) -> FileReader | None:
            found = reader(folder, file_id)
            threads.append(Thread(target=self.keep, args=(1,)))
            threads[0].start()
            threads[0].join(0.2)
            return found

        with mock.patch.object(FileFolder, "reader", look):
            self.assertIsNone(self.cache.reader(id_of(1)))
        threads[0].join()
        self.assertEqual((self.on_disk(), self.cache.count, self.cache.bytes), ([1], 1, 4096))

    def test_copies_are_forgotten(self) -> None:
        """What is not there neither hurts nor counts."""
        for number in (1, 2):
            self.keep(number)
        os.unlink(self.folder / id_of(2))
        self.assertFalse(self.has(2))
        self.assertEqual((self.cache.count, self.cache.bytes), (1, 4096))
        self.cache.forget([id_of(1), id_of(2), id_of(3)])
        self.assertEqual((self.on_disk(), self.cache.count, self.cache.bytes), ([], 0, 0))

    def test_what_cannot_be_kept_leaves_nothing(self) -> None:
        """Its half-written part goes, too."""
        with mock.patch.object(FileWriter, "sync", side_effect=OSError("broken")):
            self.assertRaises(OSError, self.keep, 1)
        self.assertEqual((os.listdir(self.folder), self.cache.count), ([], 0))
