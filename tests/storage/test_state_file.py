"""The file that the state is kept in."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Ended, StateImage
from clasp_relay.errors import StartError
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_writing import encode
from tests.storage.saver import PARAMS, generation
from tests.storage.values import image, make_folder, param

ROOT = Path(__file__).resolve().parents[2]
SEARCH_PATH = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
"""Found before the tests change to a folder of their own."""

EMPTY = StateImage([], [], {})
ONE, TWO, THREE = (image(param("/a", revision=number), ended=[("/b", Ended(number, 1))]) for number in (1, 2, 3))


def save(state_file: StateFile, state: StateImage) -> int:
    """Saves a state."""
    return state_file.save(encode(state))


def child(what: str, path: Path) -> subprocess.Popen[str]:
    """Starts a process that saves."""
    environment = os.environ | {"PYTHONPATH": SEARCH_PATH}
    arguments = [sys.executable, "-m", "tests.storage.saver", what, str(path)]
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


class StateFileTestCase(SynchronousTestCase):
    """Has a folder of its own."""

    def setUp(self) -> None:
        """Makes the folder."""
        self.folder = make_folder(self)
        self.path = self.folder / "state.json"

    def opened(self) -> StateFile:
        """Makes a state file and reads it."""
        state_file = StateFile(self.path)
        state_file.load()
        return state_file

    def names(self) -> list[str]:
        """Returns what is in the folder."""
        return sorted(os.listdir(self.folder))

    def image_of(self, name: str) -> StateImage:
        """Reads one of the files in the folder."""
        return StateFile(self.folder / name).load().image


class LoadTests(StateFileTestCase):
    def test_missing_file_is_a_fresh_start(self) -> None:
        """Without a file the state is empty and there is nothing to tell."""
        self.assertEqual(StateFile(self.path).load(), (EMPTY, [], False))
        self.assertEqual(self.names(), [])

    def test_missing_file_beside_a_generation_is_told(self) -> None:
        """A missing file starts empty too, but the operator hears that there is an older one."""
        save(self.opened(), ONE)
        self.path.rename(self.folder / "state.json.1")
        loaded = StateFile(self.path).load()
        self.assertEqual((loaded.image, loaded.found), (EMPTY, False))
        (warning,) = loaded.warnings
        self.assertIn("although state.json.1 is there", warning)

    def test_saved_state_loads(self) -> None:
        """What was saved comes back."""
        save(self.opened(), ONE)
        self.assertEqual(StateFile(self.path).load(), (ONE, [], True))

    def test_stale_temporary_file_is_ignored(self) -> None:
        """A .tmp that an interrupted write left is not read, and gone after the next write."""
        save(self.opened(), ONE)
        (self.folder / "state.json.tmp").write_bytes(b"half a fi")
        state_file = StateFile(self.path)
        self.assertEqual(state_file.load().image, ONE)
        save(state_file, TWO)
        self.assertEqual(self.names(), ["state.json", "state.json.1"])

    def test_what_is_left_out_stays_in_a_file_of_its_own(self) -> None:
        """The warning names both files; reading changes nothing, and no later save takes the file that is kept."""
        content = '{"params":[{"address":"x","value":1,"revision":1,"writer":"","timestamp":0}]}'
        self.path.write_text(content)
        for name in ("state.json.before-limits", "state.json.before-limits.2"):
            with self.subTest(name):
                state_file = StateFile(self.path)
                (warning,) = state_file.load().warnings
                self.assertIn(f"{os.path.realpath(self.path)}: left out 1 entries that this relay would ", warning)
                self.assertTrue(warning.endswith(f"it is kept as {name}"), warning)
                self.assertFalse((self.folder / name).exists())
                for state in (ONE, TWO, THREE):
                    save(state_file, state)
                self.assertEqual((self.folder / name).read_text(), content)
                self.assertEqual(self.image_of("state.json.1"), TWO)
                self.path.write_text(content)

    def test_what_lies_in_the_future_is_told(self) -> None:
        """With the file's name."""
        save(self.opened(), ONE)
        loaded = StateFile(self.path).load(0)
        self.assertEqual(loaded.image.ended, [("/b", Ended(1, 0))])
        (warning,) = loaded.warnings
        self.assertTrue(warning.startswith(f"{os.path.realpath(self.path)}: has 1 deletions that lie in "), warning)

    def test_broken_file_stops_the_start_and_stays_as_it_is(self) -> None:
        """The message is one line with the file, the fault and the cure; nothing is written, then or later."""
        whole = b"".join(encode(ONE))
        for data in (b"", b"\x00" * 50, whole[:-5], whole[: len(whole) // 2], b"[]", b"\xff\xfe", b"[" * 100_000):
            with self.subTest(data=data[:20]):
                self.path.write_bytes(data)
                state_file = StateFile(self.path)
                error = self.assertRaises(StartError, state_file.load)
                self.assertIn(f"{os.path.realpath(self.path)}: not a state file (", str(error))
                self.assertIn("move it away to start empty", str(error))
                self.assertTrue(str(error).endswith("; it was not changed"))
                self.assertNotIn("\n", str(error))
                self.assertRaises(AssertionError, save, state_file, TWO)
                self.assertEqual(self.path.read_bytes(), data)
                self.assertEqual(self.names(), ["state.json"])

    def test_broken_file_beside_a_generation_names_it_as_the_cure(self) -> None:
        """The message proposes to restore state.json.1 where there is one."""
        state_file = self.opened()
        save(state_file, ONE)
        save(state_file, TWO)
        self.path.write_bytes(b"{")
        error = self.assertRaises(StartError, StateFile(self.path).load)
        self.assertIn("or restore state.json.1 in its place", str(error))
        self.assertEqual(self.image_of("state.json.1"), ONE)

    def test_unreadable_file_stops_the_start(self) -> None:
        """A link that leads to itself is told with its cause."""
        self.path.symlink_to(self.path)
        error = self.assertRaises(StartError, StateFile(self.path).load)
        self.assertIn("state.json: cannot be read (Too many levels of symbolic links): ", str(error))

    def test_what_is_no_plain_file_stops_the_start(self) -> None:
        """A pipe, above all: who opens one waits for somebody at its other end."""
        for name, make, remove in (
            ("state.json", os.mkfifo, Path.unlink),
            ("state.json", Path.mkdir, Path.rmdir),
            ("state.json.1", os.mkfifo, Path.unlink),
            ("state.json.1", Path.mkdir, Path.rmdir),
        ):
            with self.subTest(name):
                path = self.folder / name
                make(path)
                with self.assertRaisesRegex(StartError, rf"^{path}: cannot be read \(it is no plain file\): move it"):
                    StateFile(self.path).load()
                self.assertEqual(self.names(), [name])
                remove(path)


class MemoryTests(StateFileTestCase):
    def test_restart_needs_hardly_more_memory_than_running(self) -> None:
        """At its worst, with a state of 40 MB: where the relay has room to run it has room to start again."""
        took = {}
        for what in ("write", "run", "load"):
            arguments = [sys.executable, "-m", "tests.storage.loader", what, str(self.path)]
            environment = os.environ | {"PYTHONPATH": SEARCH_PATH}
            took[what] = int(
                subprocess.run(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True).stdout
            )
        self.assertGreater(took["write"], 30_000_000)
        self.assertLess(took["load"], 1.5 * took["run"], took)


class SaveTests(StateFileTestCase):
    def test_generation_before_is_kept(self) -> None:
        """state.json is the last state, state.json.1 the one before; nothing else is left."""
        state_file = self.opened()
        save(state_file, ONE)
        self.assertEqual(self.names(), ["state.json"])
        save(state_file, TWO)
        save(state_file, THREE)
        self.assertEqual(self.names(), ["state.json", "state.json.1"])
        self.assertEqual(self.image_of("state.json"), THREE)
        self.assertEqual(self.image_of("state.json.1"), TWO)

    def test_save_tells_how_many_bytes_it_wrote(self) -> None:
        """The result is the size of the file."""
        size_bytes = save(self.opened(), ONE)
        self.assertEqual(size_bytes, self.path.stat().st_size)

    def test_file_is_for_its_owner_only(self) -> None:
        """Nobody else may read the files, whatever the umask and a stale .tmp allowed."""
        (self.folder / "state.json.tmp").write_bytes(b"")
        (self.folder / "state.json.tmp").chmod(0o666)
        self.addCleanup(os.umask, os.umask(0))
        save(self.opened(), ONE)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_symbolic_link_is_followed(self) -> None:
        """The link stays, and the file that it leads to is replaced."""
        target = self.folder / "elsewhere.json"
        self.path.symlink_to(target.name)
        save(self.opened(), ONE)
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(self.image_of("elsewhere.json"), ONE)

    def test_file_and_folder_are_synced_around_the_rename(self) -> None:
        """The new file is on disk before it gets its name, and the name before the save is done."""
        state_file = self.opened()
        save(state_file, ONE)
        steps: list[str] = []
        fsync, replace = os.fsync, os.replace

        def record_fsync(descriptor: int) -> None:
            steps.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        def record_replace(source: Path, target: Path) -> None:
            steps.append(f"{source.name} -> {target.name}")
            replace(source, target)

        self.patch(os, "fsync", record_fsync)
        self.patch(os, "replace", record_replace)
        save(state_file, TWO)
        self.assertEqual(
            steps,
            [
                "sync state.json.tmp",
                "state.json.1.tmp -> state.json.1",
                "state.json.tmp -> state.json",
                f"sync {self.folder.name}",
            ],
        )

    def test_generation_is_copied_where_there_are_no_hard_links(self) -> None:
        """A file system that refuses links gets a synced copy."""

        def refuse(_source: Path, _target: Path) -> NoReturn:
            raise OSError(errno.EPERM, "Operation not permitted")

        state_file = self.opened()
        save(state_file, ONE)
        self.patch(os, "link", refuse)
        save(state_file, TWO)
        self.assertEqual(self.image_of("state.json"), TWO)
        self.assertEqual(self.image_of("state.json.1"), ONE)
        self.assertEqual(self.names(), ["state.json", "state.json.1"])


class TryWriteTests(StateFileTestCase):
    """What is found out before anything is served."""

    def test_trial_leaves_no_trace(self) -> None:
        """With a file and without one, where there are hard links and where there are none."""

        def refuse(_source: Path, _target: Path) -> NoReturn:
            raise OSError(errno.EPERM, "Operation not permitted")

        StateFile(self.path).try_write("--persist")
        self.assertEqual(self.names(), [])
        state_file = self.opened()
        save(state_file, ONE)
        save(state_file, TWO)
        for has_links in (True, False):
            with self.subTest(has_links=has_links):
                state_file.try_write("--persist")
                self.assertEqual(self.names(), ["state.json", "state.json.1"])
                self.assertEqual((self.image_of("state.json"), self.image_of("state.json.1")), (TWO, ONE))
            self.patch(os, "link", refuse)

    def test_trial_removes_what_an_interrupted_save_left(self) -> None:
        """As the next save would."""
        (self.folder / "state.json.tmp").write_bytes(b"half a fi")
        StateFile(self.path).try_write("--persist")
        self.assertEqual(self.names(), [])

    def test_trial_names_the_file_the_cause_and_the_cure(self) -> None:
        """A folder in the way of the temporary file, for instance; it stays."""
        (self.folder / "state.json.tmp").mkdir()
        error = self.assertRaises(StartError, StateFile(self.path).try_write, "--persist")
        self.assertIn(f"--persist: cannot write to {os.path.realpath(self.path)} (Is a directory); ", str(error))
        self.assertEqual(self.names(), ["state.json.tmp"])

    def test_trial_finds_a_disk_without_room_for_another_snapshot(self) -> None:
        """Room for one as big as the present one is needed."""
        process = child("try", self.path)
        output, _ = process.communicate(timeout=120)
        told, *rest = output.splitlines()
        self.assertIn("File too large", told)
        self.assertEqual(rest, ["alive"])
        self.assertEqual(self.names(), ["state.json"])
        self.assertEqual(self.image_of("state.json"), generation(1))


class FailedSaveTests(StateFileTestCase):
    def test_failed_save_leaves_the_old_files(self) -> None:
        """An error while the pieces are made leaves no trace, and the next save works."""

        def pieces() -> Iterator[bytes]:
            yield b"{"
            raise OSError(errno.ENOSPC, "No space left on device")

        state_file = self.opened()
        save(state_file, ONE)
        save(state_file, TWO)
        self.assertRaises(OSError, state_file.save, pieces())
        self.assertEqual(self.names(), ["state.json", "state.json.1"])
        self.assertEqual(self.image_of("state.json"), TWO)
        self.assertEqual(self.image_of("state.json.1"), ONE)
        save(state_file, THREE)
        self.assertEqual(self.image_of("state.json"), THREE)

    def test_link_that_fails_leaves_the_old_file(self) -> None:
        """When the old generation cannot be kept, nothing is replaced."""

        def refuse(_source: Path, _target: Path) -> NoReturn:
            raise OSError(errno.EIO, "Input/output error")

        state_file = self.opened()
        save(state_file, ONE)
        self.patch(os, "link", refuse)
        self.assertRaises(OSError, save, state_file, TWO)
        self.assertEqual(self.names(), ["state.json"])
        self.assertEqual(self.image_of("state.json"), ONE)

    def test_folder_in_the_way_is_an_error(self) -> None:
        """A folder named like the temporary file is not removed, and the old file stays."""
        state_file = self.opened()
        save(state_file, ONE)
        (self.folder / "state.json.tmp").mkdir()
        self.assertRaises(OSError, save, state_file, TWO)
        self.assertEqual(self.image_of("state.json"), ONE)

    def test_full_disk_leaves_the_old_file(self) -> None:
        """A process that runs out of room gets an error, keeps the old file whole, and lives."""
        process = child("full", self.path)
        output, _ = process.communicate(timeout=120)
        size, *rest = output.split()
        self.assertEqual(rest, ["OSError", "alive"])
        self.assertEqual(self.path.stat().st_size, int(size))
        self.assertEqual(self.image_of("state.json"), image(param("/a")))
        self.assertEqual(self.names(), ["state.json"])


class KillTests(StateFileTestCase):
    def test_killed_process_leaves_a_whole_file(self) -> None:
        """After kill -9 at any point the file loads, is of one generation, and not older than what was confirmed."""
        choose = random.Random(7)
        confirmed = 0
        for _ in range(10):
            process = child("for-ever", self.path)
            assert process.stdout is not None
            for _ in range(choose.randint(1, 4)):
                confirmed = int(process.stdout.readline())
            time.sleep(choose.uniform(0, 0.03))
            process.kill()
            for line in process.stdout:
                if line.endswith("\n"):
                    confirmed = int(line)
            process.stdout.close()
            process.wait()
            loaded = self.image_of("state.json")
            revision = loaded.params[0].revision
            self.assertIn(revision, (confirmed, confirmed + 1))
            self.assertEqual(loaded, generation(revision))
            before = self.image_of("state.json.1")
            self.assertEqual(len(before.params), PARAMS)
            self.assertIn(revision - before.params[0].revision, (0, 1))
