"""The relay as a process: how it starts, saves and ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import Ack, Hello, Set, Snapshot, Subscribe
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.process import PATIENCE_S, TWISTD, RelayProcess, RelayTestCase, environment, wait_until
from tests.integration.raw import Closed, RawClient

CLASP_RELAY = ("-c", "from clasp_relay.cli import main; main()")

SLOW_TWISTED = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "twisted":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""
"""Python that takes a minute to import Twisted."""

NOBODY = 65534
"""A user and a group without rights, on every system."""

SIGNALLED_START = """
import os
from clasp_relay.assembly.lifecycle import RelayService
start = RelayService.startService
def start_when_signalled(self):
    os.kill(os.getpid(), {number})
    start(self)
RelayService.startService = start_when_signalled
from twisted.scripts.twistd import run
run()
"""
"""twistd, with a signal that comes when the ports are open and privileges given up, before the reactor runs."""

STOP_LIMIT_S = 10
"""What containers are given between SIGTERM and SIGKILL."""


class Writer(threading.Thread):
    """Sets its own addresses as fast as the relay acknowledges, until the session ends.

    Args:
        port: where the relay listens.
        number: of the writer.
    """

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._client = RawClient.live(port)
        self._number = number
        self.acked: dict[str, int] = {}
        """The last acknowledged value by address."""
        self.closed: Closed | None = None

    def run(self) -> None:
        """Writes."""
        try:
            for value in range(1_000_000):
                address = f"/load/{self._number}/{value % 20}"
                self._client.send(Set(address, encode_value(value)), qos=1)
                self._client.receive(Ack)
                self.acked[address] = value
        except Closed as closed:
            self.closed = closed
        except OSError:  # the Close may be there, but writing comes first
            self.closed = self._client.end()[1]
        finally:
            self._client.close()


def saved_values(relay: RelayProcess) -> dict[str, object]:
    """Returns what is in a relay's state file."""
    document = json.loads(relay.state_file.read_text("utf-8"))
    return {param["address"]: param["value"] for param in document["params"]}


def saved_tombstones(relay: RelayProcess) -> dict[str, int]:
    """Returns the revisions of deleted addresses in a relay's state file."""
    document = json.loads(relay.state_file.read_text("utf-8"))
    return {tombstone["address"]: tombstone["revision"] for tombstone in document["tombstones"]}


class StopTests(RelayTestCase):
    def test_zero_is_no_limit_and_v_logs_more(self) -> None:
        """The relay starts with them and lets people in."""
        relay = self.start("--max-sessions", "0", "--token-ttl", "0", "--max-session-memory", "0", "-v")
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        client.settle()
        wait_until(lambda: " debug core: session " in relay.log, "operations are logged")

    def test_relay_stops_in_order_under_load(self) -> None:
        """Every session reads 1001, everything acknowledged is in the file, status 0, well within 10 s."""
        relay = self.start()
        writers = [Writer(relay.port, number) for number in range(20)]
        listener = RawClient.live(relay.port)
        listener.send(Subscribe(1, "/nothing/**"))
        listener.settle()
        for writer in writers:
            writer.start()
        wait_until(lambda: all(len(writer.acked) == 20 for writer in writers), "everybody writes")
        began_s = time.monotonic()
        self.assertEqual(relay.stop(), 0, relay.log)
        self.assertLess(time.monotonic() - began_s, STOP_LIMIT_S)
        closed = listener.end()[1]
        self.assertEqual((closed.code, closed.reason), (CloseCode.GOING_AWAY, "going away"))
        acked: dict[str, int] = {}
        for writer in writers:
            writer.join(PATIENCE_S)
            assert writer.closed is not None
            self.assertEqual(writer.closed.code, CloseCode.GOING_AWAY)
            acked |= writer.acked
        saved = saved_values(relay)
        self.assertEqual({address for address, value in acked.items() if _number(saved.get(address)) < value}, set())
        self.assertFalse(relay.state_file.with_name("state.json.tmp").exists())

    def test_relay_waits_for_a_slow_session_no_longer_than_it_is_told(self) -> None:
        """A peer that reads nothing holds up the stop for the drain time, not for ever."""
        relay = self.start("--drain-timeout", "1")
        slow = RawClient.live(relay.port, receive_buffer=4096)
        writer = RawClient.live(relay.port)
        slow.send(Subscribe(1, "/big/**"))
        slow.settle()
        for number in range(200):
            writer.send(Set(f"/big/{number}", encode_value("x" * 30_000)), qos=1)
            writer.receive(Ack)
        began_s = time.monotonic()
        self.assertEqual(relay.stop(), 0, relay.log)
        self.assertLess(time.monotonic() - began_s, STOP_LIMIT_S)
        self.assertEqual(len(saved_values(relay)), 200)
        for client in (slow, writer):
            client.close()

    def test_second_signal_ends_the_relay_at_once(self) -> None:
        """While a stop waits for its sessions; the state was saved when the stop began."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                relay = self.start("--drain-timeout", "600")
                slow, writer = newcomer(relay, receive_buffer=4096)[0], newcomer(relay)[0]
                slow.send(Subscribe(1, "/big/**"))
                slow.settle()
                for index in range(400):
                    writer.send(Set(f"/big/{index}", encode_value("x" * 30_000)), qos=1)
                    writer.receive(Ack)
                relay.signal(signal.SIGTERM)
                self.assertEqual(writer.end()[1].code, CloseCode.GOING_AWAY)
                self.assertTrue(relay.is_running)
                relay.signal(number)
                self.assertEqual(relay.wait(), 128 + number, relay.log)
                self.assertEqual(len(saved_values(relay)), 400)
                for client in (slow, writer):
                    client.close()


class SignalTests(RelayTestCase):
    """Signals, from the first moment on."""

    def test_sighup_stops_the_relay_in_order(self) -> None:
        """Every session reads 1001, all changes are saved, status 0."""
        relay = self.start(command=CLASP_RELAY)
        client = RawClient.live(relay.port)
        client.send(Set("/a", encode_value(1)), qos=1)
        client.receive(Ack)
        relay.signal(signal.SIGHUP)
        self.assertEqual(client.end()[1].code, CloseCode.GOING_AWAY)
        self.assertEqual(relay.wait(), 0, relay.log)
        self.assertEqual(saved_values(relay), {"/a": 1})
        client.close()

    def test_sighup_is_ignored_under_nohup(self) -> None:
        """The relay goes on when the terminal is closed."""
        ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); " + CLASP_RELAY[1]
        relay = self.start(command=("-c", ignoring))
        relay.signal(signal.SIGHUP)
        RawClient.live(relay.port).close()
        self.assertEqual(relay.stop(), 0, relay.log)

    def test_closing_the_terminal_stops_the_relay_in_order(self) -> None:
        """Although nothing can be written to it any more."""
        ours, theirs = os.openpty()
        # Whoever runs the tests may ignore the signal, which the relay would go on to do.
        words = (
            "import fcntl, signal, termios; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + CLASP_RELAY[1]
        )
        process = subprocess.Popen(
            [sys.executable, "-c", words, "--host", "127.0.0.1", "--port", "0", "--auth-port", "0"],
            cwd=self.folder,
            env=environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self.addCleanup(process.kill)
        os.close(theirs)
        shown = b""
        while not (found := re.search(rb"listens on [0-9.]+:(\d+) for", shown)):
            shown += os.read(ours, 4096)
        client = RawClient.live(int(found[1]))
        client.send(Set("/a", encode_value(1)), qos=1)
        client.receive(Ack)
        os.close(ours)
        self.assertEqual(client.end()[1].code, CloseCode.GOING_AWAY)
        self.assertEqual(process.wait(PATIENCE_S), 0)
        self.assertIn("/a", (self.folder / "data" / "state.json").read_text("utf-8"))
        client.close()

    def test_signal_before_anything_is_imported_ends_the_relay(self) -> None:
        """Process 1 of a container would lose it, and be killed after 10 s."""
        hooks = self.folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(SLOW_TWISTED, encoding="utf-8")
        variables = environment()
        variables["PYTHONPATH"] = os.pathsep.join((str(hooks), variables["PYTHONPATH"]))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                process = subprocess.Popen(
                    [sys.executable, *CLASP_RELAY], env=variables, cwd=self.folder, stdout=subprocess.PIPE
                )
                assert process.stdout is not None
                with process.stdout as stdout:
                    self.assertEqual(stdout.readline(), b"importing\n")
                process.send_signal(number)
                self.assertEqual(process.wait(PATIENCE_S / 2), 0)

    def test_signal_while_twistd_starts_the_relay_ends_it(self) -> None:
        """Status 0 and no pid file, also when the files were opened by root and ``--uid`` has given that up."""
        # Not below the folder of the tests, which another user need not be able to reach.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "data").mkdir()
        privileges: tuple[str, ...] = ()
        if os.getuid() == 0:
            for path in (self.folder, self.folder / "data"):
                os.chown(path, NOBODY, NOBODY)
            privileges = ("--uid", str(NOBODY), "--gid", str(NOBODY))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                words = ("clasp-relay", "--host", "127.0.0.1", "--port", "0", "--auth-port", "0")
                twistd = (*privileges, "--nodaemon", "--pidfile", "relay.pid", *words)
                ended = subprocess.run(
                    [sys.executable, "-c", SIGNALLED_START.format(number=number.value), *twistd],
                    cwd=self.folder,
                    env=environment(),
                    capture_output=True,
                    timeout=PATIENCE_S,
                    check=False,
                )
                self.assertEqual((ended.returncode, ended.stderr), (0, b""))
                self.assertFalse((self.folder / "relay.pid").exists())
        # What the interrupted starts left is no obstacle for the next one.
        relay = self.start()
        self.assertEqual(relay.stop(), 0, relay.log)

    def test_relay_that_cannot_save_at_its_end_says_so(self) -> None:
        """Exit status 1, for both commands, and in the log."""
        for command in (CLASP_RELAY, TWISTD):
            with self.subTest(command):
                relay = self.start(command=command)
                client = RawClient.live(relay.port)
                client.send(Set("/a", encode_value(command[1])), qos=1)
                client.receive(Ack)
                obstacle = self.folder / "data" / "state.json.tmp"
                obstacle.mkdir()
                self.assertEqual(relay.stop(), 1, relay.log)
                self.assertIn("the last changes are NOT saved", relay.log)
                obstacle.rmdir()
                client.close()


class CrashTests(RelayTestCase):
    def test_relay_loads_the_last_whole_file_after_a_kill_during_a_snapshot(self) -> None:
        """Whenever it is killed: the file is there, whole, and never older than the one that was loaded before."""
        relay = self.start("--durability", "snapshot", "--persist-interval", "0.05")
        torn_file = relay.state_file.with_name("state.json.tmp")
        writer = RawClient.live(relay.port)
        writer.send(*(Set(f"/kept/{number}", encode_value("x" * 500)) for number in range(4_000)))
        writer.settle()
        wait_until(lambda: relay.state_file.exists() and len(saved_values(relay)) == 4_000, "all is saved once")
        torn, loaded = 0, 0
        for generation in range(1, 6):
            writer.send(Set("/generation", encode_value(generation)), qos=1)
            writer.receive(Ack)
            wait_until(torn_file.exists, "a snapshot is being written")
            relay.kill()
            writer.close()
            torn += torn_file.exists()
            before = saved_values(relay)
            self.assertIn(before.get("/generation", 0), (loaded, generation))
            relay = self.start("--durability", "snapshot", "--persist-interval", "0.05")
            writer, params = newcomer(relay)
            self.assertEqual(params, before)
            self.assertEqual(sum(address.startswith("/kept/") for address in params), 4_000)
            loaded = int(str(params.get("/generation", 0)))
        self.assertGreater(torn, 0)
        writer.close()

    def test_params_come_back_with_their_revisions(self) -> None:
        """After a stop in order as after a crash; a revision never goes back, not even behind a delete."""
        relay = self.start("--persist-interval", "0.05")
        writer = RawClient.live(relay.port)
        for value in (1, 2, 3):
            writer.send(Set("/a", encode_value(value)), Set("/deleted", encode_value(value)))
        writer.send(Set("/deleted", b"\x00"))
        writer.settle()
        self.assertEqual(relay.stop(), 0)
        for revision, ended, end in ((3, 4, RelayProcess.stop), (4, 6, RelayProcess.kill)):
            relay = self.start("--persist-interval", "0.05")
            client, params = newcomer(relay)
            self.assertEqual(params, {"/a": 3})
            client.send(Set("/a", encode_value(3), revision=revision), qos=1)
            self.assertEqual(client.receive(Ack).revision, revision + 1)
            client.send(Set("/deleted", encode_value(3), revision=0), qos=1)
            self.assertEqual(client.receive(Ack).revision, ended + 1)
            client.send(Set("/deleted", b"\x00"))
            client.settle()
            wait_until(lambda: saved_tombstones(relay) == {"/deleted": ended + 2}, "it is saved")  # noqa: B023
            end(relay)
            client.close()
        relay = self.start()
        self.assertEqual(newcomer(relay)[1], {"/a": 3})

    def test_stop_saves_nothing_when_nothing_changed(self) -> None:
        """The file is left alone, its last generation too."""
        relay = self.start()
        writer = RawClient.live(relay.port)
        writer.send(Set("/a", encode_value(1)))
        writer.settle()
        self.assertEqual(relay.stop(), 0)
        before = relay.state_file.stat()
        relay = self.start()
        self.assertEqual(relay.stop(), 0)
        after = relay.state_file.stat()
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))
        self.assertFalse(relay.state_file.with_name("state.json.1").exists())


class BadStartTests(RelayTestCase):
    """What the relay cannot start with: one line that names the thing and the cure, status 1, nothing half-started."""

    def refused(self, *options: str, **variables: str) -> str:
        """Returns what a relay says that does not start."""
        result = subprocess.run(
            [sys.executable, *TWISTD, "--host", "127.0.0.1", "--port", "0", "--auth-port", "0", *options],
            cwd=self.folder,
            env=environment() | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stderr + result.stdout)
        self.assertNotIn("listens on", result.stdout)
        self.assertNotIn("Traceback", result.stdout)
        return result.stderr

    def test_relay_names_a_port_that_is_in_use(self) -> None:
        """And has not written a state."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = str(listener.getsockname()[1])
            said = self.refused("--port", port)
        self.assertIn(f"127.0.0.1:{port}", said)
        self.assertIn("give another --port or --host", said)
        self.assertFalse((self.folder / "data" / "state.json").exists())

    def test_relay_names_a_host_that_is_not_this_machine(self) -> None:
        """As it names a port."""
        self.assertIn("--host", self.refused("--host", "192.0.2.1"))

    def test_relay_names_a_folder_that_it_cannot_write_to(self) -> None:
        """Below a file, and where nobody may write."""
        below = self.folder / "file"
        below.write_text("")
        for path in (below, below / "data", Path("/proc/nothing")):
            for option in ("--data-dir", "--persist"):
                with self.subTest(path=path, option=option):
                    given = path if option == "--data-dir" else path / "state.json"
                    said = self.refused(option, str(given))
                    self.assertIn(f"{option}: cannot write to {path}", said)
                    self.assertIn("name a folder that user", said)

    def test_relay_names_a_state_file_that_is_broken_and_leaves_it(self) -> None:
        """Empty, torn, other JSON: the file, what is wrong, and what to do."""
        folder = self.folder / "data"
        folder.mkdir()
        path = folder / "state.json"
        for content in (b"", b'{"version":1,"params":[\n{"address":"/a","val', b"[]", b"\xff\xfe", b'{"params":[{}]}'):
            with self.subTest(content):
                path.write_bytes(content)
                said = self.refused("--data-dir", "data")
                self.assertIn(str(path), said)
                self.assertIn("move it away to start empty", said)
                self.assertEqual(path.read_bytes(), content)
                self.assertEqual(
                    {each.name for each in folder.iterdir()} - {"journal.db.lock"}, {"state.json", "state.json.lock"}
                )

    def test_relay_names_an_option_or_a_variable_that_is_bad(self) -> None:
        """Nothing is made before everything was understood."""
        self.assertIn("--prot", self.refused("--prot", "1"))
        self.assertIn("CLASP_MAX_PARAMS: got 'many', expected", self.refused(CLASP_MAX_PARAMS="many"))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_relay_starts_once_the_cure_is_taken(self) -> None:
        """The broken file moved away: an empty start."""
        folder = self.folder / "data"
        folder.mkdir()
        (folder / "state.json").write_bytes(b"{")
        self.refused("--data-dir", "data")
        (folder / "state.json").rename(folder / "broken")
        self.assertEqual(self.start().stop(), 0)


def newcomer(relay: RelayProcess, receive_buffer: int = 0) -> tuple[RawClient, dict[str, object]]:
    """Returns a live client and the params that it was shown."""
    client = RawClient(relay.port, receive_buffer=receive_buffer)
    client.send(Hello(1, 0xF8, "newcomer"))
    shown = [message for message in client.settle() if isinstance(message, Snapshot)]
    return client, {param.address: decode_value(param.value) for each in shown for param in each.params}


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1
