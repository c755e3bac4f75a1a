"""The folder of the relay's files is made and locked, or the operator reads why not."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.storage.folder import FileLock, cannot_write, prepare_folder
from tests.storage.values import make_folder

SEARCH_PATH = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
"""Found before the tests change to a folder of their own."""

HOLD = """
import sys
from pathlib import Path
from clasp_relay.storage.folder import FileLock
lock = FileLock("--data-dir", Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


class PrepareFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a place for folders."""
        self.place = Path(self.mktemp())
        self.place.mkdir()

    def test_folder_is_made_with_those_above_it(self) -> None:
        """And is empty: trying to write leaves nothing."""
        folder = self.place / "a" / "b"
        prepare_folder("--data-dir", folder)
        self.assertEqual(list(folder.iterdir()), [])

    def test_folder_that_is_there_is_left_as_it_is(self) -> None:
        """What is in it stays."""
        (self.place / "state.json").write_text("x")
        prepare_folder("--data-dir", self.place)
        self.assertEqual([path.read_text() for path in self.place.iterdir()], ["x"])

    def test_operator_reads_which_folder_cannot_be_used_and_why(self) -> None:
        """One line with the option, the path, the cause and the cure."""
        file = self.place / "file"
        file.write_text("")
        for folder, cause in ((file, "File exists"), (file / "below", "Not a directory")):
            with self.subTest(folder=folder):
                with self.assertRaises(StartError) as caught:
                    prepare_folder("--persist", folder)
                cure = f"name a folder that user {os.geteuid()} may write to"
                self.assertEqual(str(caught.exception), f"--persist: cannot write to {folder} ({cause}); {cure}")


class CannotWriteTests(SynchronousTestCase):
    def test_operator_reads_what_to_do_about_the_cause(self) -> None:
        """Each cause has its own cure; where none is known, it is about the rights."""
        cases = (
            (errno.EXDEV, "mount the folder"),
            (errno.EBUSY, "mount the folder"),
            (errno.EROFS, "for writing"),
            (errno.ENOSPC, "make room"),
            (errno.EMFILE, "ulimit -n"),
            (errno.EACCES, f"that user {os.geteuid()} may write to"),
        )
        for number, cure in cases:
            with self.subTest(number=number):
                text = str(cannot_write("--persist", Path("/x"), OSError(number, os.strerror(number))))
                self.assertTrue(text.startswith(f"--persist: cannot write to /x ({os.strerror(number)}); "), text)
                self.assertIn(cure, text)


class FileLockTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a folder for a file that is to be locked."""
        self.folder = make_folder(self)
        self.path = self.folder / "state.json"

    def lock(self) -> FileLock:
        """Locks the file until the end of the test."""
        lock = FileLock("--data-dir", self.path)
        self.addCleanup(lock.release)
        return lock

    def hold(self) -> subprocess.Popen[str]:
        """Starts a process that holds the lock."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, self.path],
            env=os.environ | {"PYTHONPATH": SEARCH_PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "locked\n")
        return process

    def test_second_process_reads_which_folder_and_which_process(self) -> None:
        """And leaves the lock file as it is."""
        process = self.hold()
        holder = f"process {process.pid} on {socket.gethostname()}"
        error = self.assertRaises(StartError, FileLock, "--data-dir", self.path)
        self.assertIn(f"--data-dir: {self.folder} is in use by another relay ({holder})", str(error))
        self.assertNotIn("\n", str(error))
        self.assertEqual((self.folder / "state.json.lock").read_text(), holder + "\n")

    def test_lock_ends_with_its_process(self) -> None:
        """After kill -9 the file that is left behind locks nothing, not even with the number of a living process."""
        process = self.hold()
        process.send_signal(signal.SIGKILL)
        process.wait()
        (self.folder / "state.json.lock").write_text("process 1 on somewhere\n")
        self.lock()
        self.assertEqual(
            (self.folder / "state.json.lock").read_text(), f"process {os.getpid()} on {socket.gethostname()}\n"
        )

    def test_lock_that_was_released_can_be_had_again(self) -> None:
        """Also in the same process, in which two relays are two as well."""
        lock = self.lock()
        self.assertRaises(StartError, self.lock)
        lock.release()
        lock.release()
        self.lock()

    def test_lock_is_about_the_file_that_a_link_leads_to(self) -> None:
        """Two names of one file are one file."""
        other = self.folder / "elsewhere"
        other.mkdir()
        (other / "link.json").symlink_to(self.path)
        self.lock()
        self.assertRaises(StartError, FileLock, "--persist", other / "link.json")

    def test_files_in_one_folder_are_locked_one_by_one(self) -> None:
        """Two relays with files of their own may share a folder."""
        self.lock()
        FileLock("--persist", self.folder / "other.json").release()

    def test_lock_file_is_for_its_owner_only(self) -> None:
        """Whoever owns the folder owns it, also when root starts the relay."""
        if os.geteuid() == 0:
            os.chown(self.folder, 999, 999)
        found = self.lock().path.stat()
        self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (self.folder.stat().st_uid, 0o600))

    def test_operator_reads_why_the_lock_file_cannot_be_made(self) -> None:
        """A folder or a link in its place is not followed."""
        for make in (Path.mkdir, lambda path: path.symlink_to("nowhere")):
            with self.subTest(make=make):
                place = self.folder / "state.json.lock"
                make(place)
                error = self.assertRaises(StartError, FileLock, "--data-dir", self.path)
                self.assertIn(f"--data-dir: cannot write to {place} (", str(error))
                place.unlink() if place.is_symlink() else place.rmdir()

    def test_what_a_lock_file_says_is_not_repeated_unless_it_is_ours(self) -> None:
        """A line of somebody else could be anything."""
        self.lock().path.write_text("forged\nline")
        error = self.assertRaises(StartError, FileLock, "--data-dir", self.path)
        self.assertIn("(it has not said which process)", str(error))

    def test_file_system_without_locks_is_a_warning(self) -> None:
        """The relay starts there, too."""

        def refuse(_descriptor: int, _operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        self.patch(fcntl, "flock", refuse)
        self.assertIn("has no locks (No locks available)", str(self.lock().warning))
