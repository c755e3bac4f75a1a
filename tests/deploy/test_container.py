"""The image, running as a container does: process 1, its user, no rights, a file system that is read only."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.dockerfile import read_dockerfile
from tests.deploy.image import Container
from tests.deploy.processes import wait_until
from tests.deploy.tools import DEPLOY

PROBE = ("python", "-c", "import socket; socket.create_connection(('127.0.0.1', 7330), 5)")
"""Succeeds once the relay listens."""

OPEN_MODE = ("--port=7330", "--auth-port=0")

STATE = (
    '{"params":[{"address":"/chat/registry/rooms/r1","value":{"name":"Lobby","tags":["a",1,2.5,null,true]},'
    '"revision":7,"writer":"u-1","timestamp":1700000000000000}]}'
)
"""As the Rust relay writes it."""

USERS = """
CREATE TABLE users (id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL, password_hash TEXT NOT NULL,
                    created_at INTEGER NOT NULL);
"""
"""As the Rust relay makes them."""

RUST_HASH = "$argon2id$v=19$m=19456,t=2,p=1$"

LOGIN = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 7350, timeout=30)
connection.request("POST", "/auth/login", '{"username": "Alice", "password": "correct horse"}')
sys.exit(connection.getresponse().status != 200)
"""

GET_PAGE = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 7350, timeout=30)
connection.request("GET", "/room/abc")
print(connection.getresponse().read().decode(), end="")
"""

PLACEHOLDER = DEPLOY / "placeholder" / "index.html"

STALE_PID_FILES = ("twistd.pid", "clasp-relay.pid")


class ContainerTestCase(SynchronousTestCase):
    """Has a volume."""

    def setUp(self) -> None:
        """Makes it; its user owns it, as a new volume takes over from the image."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.volume = self.folder / "volume"
        self.volume.mkdir(mode=0o700)

    def start(self, *command: str, **variables: str) -> Container:
        """Starts a container with the image's command or another one, and more variables."""
        for path in (self.volume, *self.volume.iterdir()):
            if os.getuid() == 0:
                os.chown(path, 999, 999)
        container = Container(self.volume, self.folder, command or None, variables)
        self.addCleanup(container.stop)
        return container


class ProcessTests(ContainerTestCase):
    """The life of process 1."""

    def start_open(self) -> Container:
        """Starts a relay without accounts, health and page."""
        container = self.start(*OPEN_MODE, CLASP_HEALTH_PORT="", CLASP_WEB_ROOT="")
        wait_until(lambda: container.execute(*PROBE).returncode == 0, f"a relay: {container.said}")
        return container

    def test_relay_is_process_1_and_ends_when_it_is_told_to(self) -> None:
        """It is the relay that gets SIGTERM, with nothing before it, and it ends in order."""
        container = self.start_open()
        command = Path(f"/proc/{container.process_one}/cmdline").read_text().split("\0")
        self.assertEqual(command[1], "/opt/clasp/bin/clasp-relay")
        status = Path(f"/proc/{container.process_one}/status").read_text()
        self.assertIn("CapBnd:\t0000000000000000", status)
        self.assertIn("Uid:\t999\t999\t999\t999", status)
        self.assertEqual(container.kill(signal.SIGTERM), 0, container.said)
        self.assertIn("stopped", container.said)

    def test_container_that_was_killed_starts_again(self) -> None:
        """Its own number, 1, in an old pid file is nobody's business."""
        first = self.start_open()
        self.assertNotEqual(first.kill(signal.SIGKILL), 0)
        for name in STALE_PID_FILES:
            (self.volume / name).write_text("1")
        second = self.start_open()
        self.assertEqual(second.kill(signal.SIGTERM), 0, second.said)


class DefaultCommandTests(ContainerTestCase):
    """The command of the image."""

    def test_default_command_becomes_healthy(self) -> None:
        """The health check says no while nothing runs there, and yes once all ports listen."""
        health = read_dockerfile()[-1].health_command
        container = self.start()
        wait_until(lambda: container.execute(*health).returncode == 0, "health")
        self.assertNotEqual(container.execute("env", "CLASP_HEALTH_PORT=1", *health).returncode, 0)
        self.assertEqual(container.execute("python", "-c", GET_PAGE).stdout, PLACEHOLDER.read_text())
        self.assertEqual(container.kill(signal.SIGTERM), 0, container.said)
        self.assertEqual({path.name for path in self.volume.iterdir()} & {"users.db", "state.json"}, {"users.db"})


class RustCommandTests(ContainerTestCase):
    """The Compose file of a Rust relay, with our image in it."""

    COMMAND = (
        *("--ws-port", "7330", "--auth-port", "7350", "--health-port", "7360", "--persist", "/data/state.json"),
        *("--app-config", "/etc/clasp/chat.json", "--auth-db", "/data/chat-auth.db"),
    )

    def test_files_of_the_rust_relay_are_taken_over(self) -> None:
        """Its users sign in with their passwords, and its params are there with their revisions."""
        (self.volume / "state.json").write_text(STATE)
        with closing(sqlite3.connect(self.volume / "chat-auth.db")) as users, users:
            users.executescript(USERS)
            users.execute("INSERT INTO users VALUES ('u-1', 'Alice', ?, 1700000000)", (rust_hash("correct horse"),))
        container = self.start(*self.COMMAND)
        wait_until(lambda: container.execute(*read_dockerfile()[-1].health_command).returncode == 0, "health")
        self.assertIn("1 params loaded from /data/state.json", container.said)
        self.assertEqual(container.execute("python", "-c", LOGIN).returncode, 0, container.said)
        self.assertEqual(container.kill(signal.SIGTERM), 0, container.said)
        self.assertEqual((self.volume / "state.json").read_text(), STATE, "nothing had changed")


def rust_hash(password: str) -> str:
    """Hashes a password as the Rust relay does."""
    from argon2 import PasswordHasher  # noqa: PLC0415  where there are no accounts yet, it is not needed

    hashed = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1).hash(password)
    if not hashed.startswith(RUST_HASH):
        raise AssertionError(hashed)
    return hashed
