"""The relay's files on mounts and under users with which saving would fail: found out at the start."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy import tools
from tests.deploy.image import Container
from tests.deploy.processes import (
    PATIENCE_S,
    RELAY,
    Background,
    get,
    plain_environment,
    start_relay,
    wait_until,
)
from tests.ports import free_port

STATE = '{"params":[{"address":"/a","value":1,"revision":7,"writer":"u-1","timestamp":1700000000000000}]}'
USER = 65_534
"""``nobody``: twistd wants a user that the system knows."""

PROBE = ("python", "-c", "import socket; socket.create_connection(('127.0.0.1', 7330), 5)")
"""Succeeds in a container once the relay listens."""

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")


class FilesTestCase(SynchronousTestCase):
    """Has a folder for a relay's files."""

    def setUp(self) -> None:
        """Makes it, with a state in it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.data = self.folder / "data"
        self.data.mkdir()

    def refused(self, *command: str | Path) -> str:
        """Returns what a relay says that does not start: one line on stderr, status 1."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=plain_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stderr + result.stdout)
        self.assertNotIn("Traceback", result.stdout)
        return result.stderr

    def options(self, port: int) -> tuple[str, ...]:
        """Returns what every relay here is told."""
        return ("--host=127.0.0.1", f"--port={port}", "--auth-port=0", f"--data-dir={self.data}")


class SecondRelayTests(FilesTestCase):
    """Two relays on one folder would lose what the first one accepted."""

    def start(self) -> Background:
        """Starts a relay and waits for it."""
        port = free_port()
        relay = start_relay(self.folder, *self.options(port))
        self.addCleanup(relay.stop)
        relay.wait_for_port(port)
        return relay

    def test_second_relay_does_not_start_and_writes_nothing(self) -> None:
        """It names the folder and the process; the first one goes on."""
        (self.data / "state.json").write_text(STATE)
        first = self.start()
        before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in self.data.iterdir()}
        said = self.refused(*RELAY, *self.options(free_port()))
        self.assertIn(f"--data-dir: {self.data} is in use by another relay (process {first.process.pid} on ", said)
        after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in self.data.iterdir()}
        self.assertEqual(after, before)
        self.assertEqual(first.stop(), 0, first.said)

    def test_relay_starts_after_another_one_was_killed(self) -> None:
        """Nobody has to remove anything."""
        first = self.start()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        self.assertEqual(self.start().stop(), 0)

    def container(self) -> Container:
        """Starts a container on the folder."""
        variables = {"CLASP_HEALTH_PORT": "", "CLASP_WEB_ROOT": ""}
        container = Container(self.data, self.folder, ("--port=7330", "--auth-port=0"), variables)
        self.addCleanup(container.stop)
        return container

    def test_second_container_on_a_volume_does_not_start(self) -> None:
        """Process 1 of each is another one; once the first is killed, the next may start."""
        tools.required(tools.unshare)
        os.chown(self.data, 999, 999)
        first = self.container()
        wait_until(lambda: first.execute(*PROBE).returncode == 0, f"a relay: {first.said}")
        second = self.container()
        wait_until(lambda: "is in use by another relay (process 1 on " in second.said, second.said)
        self.assertNotEqual(first.kill(signal.SIGKILL), 0)
        third = self.container()
        wait_until(lambda: third.execute(*PROBE).returncode == 0, f"a relay: {third.said}")
        self.assertEqual(third.kill(signal.SIGTERM), 0, third.said)


class MountTests(FilesTestCase):
    """Mounts of the kinds that people have."""

    def refused_behind(self, mounts: str) -> str:
        """Returns what a relay says that does not start behind mounts of its own."""
        unshare = tools.required(tools.unshare)
        relay = shlex.join([*RELAY, *self.options(free_port())])
        return self.refused(unshare, "--mount", "sh", "-ec", f"{mounts}\nexec {relay}")

    def test_state_file_that_is_a_mount_of_its_own_is_refused(self) -> None:
        """No new file can be put in its place; the operator reads to mount the folder."""
        outer = self.folder / "state.json"
        for content in (STATE, '{"params":[]}'):
            with self.subTest(content):
                outer.write_text(content)
                (self.data / "state.json").touch()
                said = self.refused_behind(f"mount --bind {outer} {self.data}/state.json")
                self.assertIn(f"--data-dir: cannot write to {self.data}/state.json (", said)
                self.assertIn("mount the folder that it is in, not the file alone", said)
                self.assertEqual(outer.read_text(), content)
                self.assertEqual(
                    {path.name for path in self.data.iterdir()}, {"state.json", "state.json.lock", "journal.db.lock"}
                )

    def test_read_only_folder_is_refused(self) -> None:
        """As a volume mounted with :ro is."""
        said = self.refused_behind(f"mount --bind {self.data} {self.data}; mount -o remount,ro,bind {self.data}")
        self.assertIn(f"--data-dir: cannot write to {self.data} (Read-only file system); mount its file system", said)

    def test_disk_that_is_full_is_refused(self) -> None:
        """Also one with room for the lock alone; the state that is there stays."""
        fill = f"mount -t tmpfs -o size=64k tmpfs {self.data}; echo '{STATE}' >{self.data}/state.json"
        said = self.refused_behind(f"{fill}; cat /dev/zero >{self.data}/other 2>/dev/null || rm -f {self.data}/none")
        self.assertIn("(No space left on device); make room on its disk", said)

    def test_disk_without_room_for_a_second_state_is_refused(self) -> None:
        """A save needs the old one and the new one at once."""
        pad = "head -c 40000 /dev/zero | tr '\\0' ' '"
        fill = f"mount -t tmpfs -o size=64k tmpfs {self.data}; {{ echo '{STATE}'; {pad}; }} >{self.data}/state.json"
        said = self.refused_behind(fill)
        self.assertIn(f"cannot write to {self.data}/state.json (No space left on device); make room on its disk", said)


class UserTests(FilesTestCase):
    """twistd's --uid: root opens, and somebody else saves."""

    def setUp(self) -> None:
        """Lets that user into the folder above."""
        super().setUp()
        tools.required(tools.setpriv)
        self.folder.chmod(0o755)

    def command(self, port: int, mode: str = "--auth-port=0") -> tuple[str, ...]:
        """Returns a command line of twistd."""
        options = (f"--uid={USER}", "clasp-relay", "--host=127.0.0.1", f"--port={port}", mode)
        return (*TWISTD, *options, f"--data-dir={self.data}")

    def test_folder_that_only_root_may_write_to_is_refused(self) -> None:
        """Whether it is there, or root has just made it."""
        for mode in ("--auth-port=0", f"--auth-port={free_port()}"):
            for missing in (False, True):
                with self.subTest(mode=mode, missing=missing):
                    if missing:
                        shutil.rmtree(self.data)
                    said = self.refused(*self.command(free_port(), mode))
                    self.assertIn(f"--data-dir: cannot write to {self.data} (Permission denied)", said)
                    self.assertIn(f"name a folder that user {USER} may write to", said)

    def test_relay_saves_as_the_user_who_owns_the_folder(self) -> None:
        """And the same user may start it without root the next time."""
        os.chown(self.data, USER, USER)
        port = free_port()
        relay = Background(self.command(port), self.folder, plain_environment())
        self.addCleanup(relay.stop)
        relay.wait_for_port(port)
        # root has opened the port; an answer shows that the other user runs.
        self.assertEqual(get(port, "/healthz")[0], 200)
        self.assertEqual(relay.stop(), 0, relay.said)
        self.assertEqual({path.stat().st_uid for path in self.data.iterdir()}, {USER})
