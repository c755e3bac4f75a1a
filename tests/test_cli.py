"""The two commands as processes: what they say and how they end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import __version__
from tests.integration.process import wait_until

ROOT = Path(__file__).parent.parent
CLASP_RELAY = ("-c", "from clasp_relay.cli import main; main()")
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")
QUIC = "--quic-port: not supported: QUIC is not offered; clients connect with WebSocket (--port)"
LEVELS = (
    "CLASP_LOG_LEVEL: got 'all', expected one of error, warn, info, debug, trace, "
    "optionally followed by levels for parts (info,net=debug)"
)
PATIENCE_S = 60
"""How long a command may take before a test gives it up."""


class CommandTestCase(SynchronousTestCase):
    """Runs commands in a folder of their own."""

    def setUp(self) -> None:
        """Makes the folder, and an environment without the caller's options."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CLASP_") and name != "RUST_LOG"
        }
        self.environment["PYTHONPATH"] = os.pathsep.join((str(ROOT / "src"), str(ROOT)))

    def command(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs Python with arguments until it ends."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def used_port(self) -> int:
        """Returns a port on which somebody listens."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        return port


class BadInputTests(CommandTestCase):
    """What cannot be started ends with one line."""

    def test_commands_say_what_is_wrong_in_one_line(self) -> None:
        """Exit status 1, one line on stderr, nothing on stdout, and not a file made."""
        cases: list[tuple[tuple[str, ...], dict[str, str], str]] = [
            ((*CLASP_RELAY, "--port", "x"), {}, "--port: got 'x', expected a whole number from 0 to 65535"),
            ((*TWISTD, "clasp-relay", "--port", "x"), {}, "--port: got 'x', expected a whole number from 0 to 65535"),
            ((*TWISTD, "-n", "clasp-relay", "--foo"), {}, "unknown option --foo; see --help"),
            ((*CLASP_RELAY, "--quic-port", "7331"), {}, QUIC),
            (CLASP_RELAY, {"CLASP_LOG_LEVEL": "all"}, LEVELS),
        ]
        for arguments, variables, line in cases:
            with self.subTest(line):
                result = self.command(*arguments, **variables)
                self.assertEqual((result.returncode, result.stderr, result.stdout), (1, f"clasp-relay: {line}\n", ""))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_commands_name_the_port_when_it_is_in_use(self) -> None:
        """One line without a traceback, exit status 1, and no pid file left behind."""
        port = str(self.used_port())
        for command in (CLASP_RELAY, (*TWISTD, "-n", "clasp-relay")):
            with self.subTest(command=command):
                result = self.command(*command, "--host", "127.0.0.1", "--auth-port", "0", "--port", port)
                self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stderr)
                self.assertIn(port, result.stderr)
                self.assertNotIn("Traceback", result.stdout)
                self.assertFalse((self.folder / "twistd.pid").exists())

    def test_daemon_names_the_port_when_it_is_in_use(self) -> None:
        """The terminal that started a daemon hears of it too."""
        port = str(self.used_port())
        result = self.command(*TWISTD, "clasp-relay", "--host", "127.0.0.1", "--auth-port", "0", "--port", port)
        self.assertEqual(result.returncode, 1)
        self.assertIn(port, result.stderr)
        self.assertIn(port, (self.folder / "twistd.log").read_text(encoding="utf-8"))
        # Twisted tells the terminal first, and then removes the file.
        wait_until(lambda: not (self.folder / "twistd.pid").exists(), "the daemon removes its pid file")


class GoodInputTests(CommandTestCase):
    """What is asked for is done."""

    def test_commands_tell_version_and_help(self) -> None:
        """Exit status 0, the text on stdout, nothing on stderr."""
        for command, usage in (
            (CLASP_RELAY, "Usage: clasp-relay [options]\n"),
            (("-m", "clasp_relay"), "Usage: clasp-relay [options]\n"),
            ((*TWISTD, "clasp-relay"), "Usage: twistd [options] clasp-relay [options]\n"),
        ):
            with self.subTest(command=command):
                version = self.command(*command, "--version")
                self.assertEqual(
                    (version.returncode, version.stdout, version.stderr), (0, f"clasp-relay {__version__}\n", "")
                )
                told = self.command(*command, "--help")
                self.assertEqual((told.returncode, told.stderr), (0, ""))
                self.assertTrue(told.stdout.startswith(usage), told.stdout)

    def test_command_checks_policies_and_settings(self) -> None:
        """``check-config`` starts no relay and makes no file; its exit status says whether all is sound."""
        for arguments, status, line in (
            (("chat",), 0, "chat: valid policy"),
            (("nothing",), 1, "clasp-relay: nothing: the policy cannot be read"),
            (("--name", "Mine"), 0, "--name: Mine (--name)"),
        ):
            with self.subTest(arguments):
                result = self.command(*CLASP_RELAY, "check-config", *arguments)
                self.assertEqual(result.returncode, status, result.stderr)
                self.assertIn(line, result.stdout + result.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_command_reads_the_journal(self) -> None:
        """``journal`` starts no relay and makes no file; what is wrong is one line."""
        result = self.command(*CLASP_RELAY, "journal", "inspect")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(
            result.stderr, r"^clasp-relay: data/journal\.db: the journal cannot be read \(No such file[^\n]+\n$"
        )
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_check_config_is_shown_on_an_ascii_terminal(self) -> None:
        """Other characters are escaped."""
        result = self.command(*CLASP_RELAY, "check-config", "--name", "Zoë", PYTHONIOENCODING="ascii")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("--name: Zo\\xeb (--name)", result.stdout)

    def test_reader_of_check_config_may_stop_reading(self) -> None:
        """As ``| head`` does: no complaint, and no traceback."""
        reading, writing = os.pipe()
        os.close(reading)
        result = subprocess.run(
            [sys.executable, *CLASP_RELAY, "check-config"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.folder,
            check=False,
        )
        os.close(writing)
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_relay_runs_until_it_is_told_to_stop(self) -> None:
        """In the foreground, in spite of an old pid file, until SIGTERM."""
        (self.folder / "twistd.pid").write_text(str(os.getpid()))
        process = subprocess.Popen(
            [sys.executable, *CLASP_RELAY, "--host", "127.0.0.1", "--port", "0", "--auth-port", "0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait, PATIENCE_S)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        for line in process.stdout:
            if "listens on" in line:
                break
        process.send_signal(signal.SIGTERM)
        self.assertNotIn("Traceback", process.stdout.read())
        self.assertIn(process.wait(PATIENCE_S), (0, -signal.SIGTERM))
