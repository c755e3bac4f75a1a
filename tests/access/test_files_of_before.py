"""Files of a relay that was alone come into its cluster."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.files_of_before import FilesOfBefore
from clasp_relay.access.refusals import Missing
from clasp_relay.storage.files import FileStore, StoredFile
from tests.access.stack import InlineWorkers
from tests.access.test_shared_files import World, now

SUBJECTS = ("alice", "ben", "gone")


class FilesOfBeforeTests(SynchronousTestCase):
    """Three files of one relay of two."""

    def setUp(self) -> None:
        """They were sent while it was alone."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.world = World(folder)
        self.folder = folder / "files"
        self.store = FileStore(self.folder, folder / "files.db")
        self.addCleanup(self.store.close)
        self.files = [self.put(number, subject) for number, subject in enumerate(SUBJECTS)]
        self.before = self.opened()

    def opened(self) -> FilesOfBefore:
        """Returns what moves them, as after a start."""
        workers = InlineWorkers()
        before = FilesOfBefore(self.store, self.world.one, workers, workers, "files.db")
        before.load()
        return before

    def put(self, number: int, subject: str) -> StoredFile:
        """Stores a file."""
        file = StoredFile(f"{number:032x}", subject, b"", 5, 4096, 1, 1)
        writer = self.store.writer(file.id, 5)
        writer.write(b"file%d" % number)
        writer.sync()
        self.store.add(file)
        writer.publish()
        return file

    def test_all_are_moved(self) -> None:
        """Any relay has them then, and the folder is empty; the next start finds nothing to do."""
        self.assertFalse(self.before.is_over)
        now(self.before.move())
        for number, file in enumerate(self.files):
            self.assertEqual(self.world.read(self.world.two, file.id), b"file%d" % number)
        self.assertEqual((os.listdir(self.folder), self.before.is_over), ([], True))
        self.assertTrue(self.opened().is_over)
        now(self.before.move())

    def test_file_that_cannot_be_read_holds_up_no_other(self) -> None:
        """It stays where it is, and the log names it once."""
        bad = self.files[0]
        (self.folder / bad.id).unlink()
        (self.folder / bad.id).mkdir()
        with capturedLogs() as logs:
            now(self.before.move())
            now(self.before.move())
        told = [event["file"] for event in logs if event.get("event") == "file.not_moved"]
        self.assertEqual((told, os.listdir(self.folder), self.before.is_over), ([bad.id], [bad.id], True))

    def test_move_goes_on_where_it_was_cut_off(self) -> None:
        """Whatever does not answer, and however often; nothing is lost, and nothing is there twice."""
        world = self.world
        for failing in ("adopt", "store"):
            world.calls.before.add(failing)
            now(self.before.move())
            world.calls.before.clear()
            world.calls.after.add(failing)
            now(self.before.move())
            world.calls.after.clear()
        world.objects.failing = {"put"}
        now(self.before.move())
        world.objects.failing, world.objects.is_full = set(), True
        now(self.before.move())
        world.objects.is_full, world.ready["one"] = False, False
        now(self.before.move())
        self.assertFalse(self.before.is_over)
        self.assertTrue(os.listdir(self.folder))
        world.ready["one"] = True
        again = self.opened()
        now(again.move())
        self.assertEqual(sorted(world.objects.objects.values()), [b"file0", b"file1", b"file2"])
        self.assertEqual((world.records.totals().files, os.listdir(self.folder), again.is_over), (3, [], True))

    def test_file_whose_bytes_or_sender_are_gone_is_not_moved(self) -> None:
        """It is removed here, too."""
        os.unlink(self.folder / self.files[0].id)
        store = self.world.stack.store
        store._db.execute("INSERT INTO retired_ids VALUES (?, ?)", ("gone", 1))
        now(self.before.move())
        self.assertEqual(set(self.world.objects.objects), {self.files[1].id})
        for file in (self.files[0], self.files[2]):
            self.assertRaises(Missing, now, self.world.one.find(self.world.alice, file.id))
        self.assertEqual((os.listdir(self.folder), self.store.usage(), self.before.is_over), ([], [], True))

    def test_record_that_a_sweep_removes_meanwhile_is_made_again(self) -> None:
        """Its sender is there."""
        file = self.files[0]
        self.world.calls.before.add("store")
        now(self.before.move())
        self.world.records.remove(file.id)
        self.world.calls.before.clear()
        now(self.before.move())
        self.assertEqual(self.world.read(self.world.two, file.id), b"file0")
