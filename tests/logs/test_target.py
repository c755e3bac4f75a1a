"""The log keeps to its levels and goes where twistd was told."""

import os
import sys
from collections.abc import Mapping
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.levels import LOG_LEVELS, LogLevels
from clasp_relay.logs.target import SharedLogFile, log_observer, log_target

FOREGROUND: Mapping[str, object] = {"nodaemon": True}


class LevelTests(SynchronousTestCase):
    """Which events pass."""

    def events(self, levels: str, namespace: str = "clasp_relay.net") -> list[str]:
        """Returns the levels of the events that pass."""
        out = StringIO()
        self.patch(sys, "stdout", out)
        target = log_target(FOREGROUND)
        assert target is not None
        log = Logger(namespace=namespace, observer=log_observer(LogLevels.parse(levels), "text", target))
        log.emit(LogLevel.debug, "it is {name}", name="trace", is_trace=True)
        for each in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical):
            log.emit(each, "it is {name}", name=each.name)
        return [line.rpartition(" ")[2] for line in out.getvalue().splitlines()]

    def test_log_has_its_level_and_what_is_worse(self) -> None:
        """Each level lets through itself and all above it."""
        every = ["trace", "debug", "info", "warn", "error", "critical"]
        first = {"error": 4, "warn": 3, "info": 2, "debug": 1, "trace": 0}
        self.assertEqual(set(first), set(LOG_LEVELS))
        for level, index in first.items():
            with self.subTest(level):
                self.assertEqual(self.events(level), every[index:])

    def test_log_has_more_of_one_part(self) -> None:
        """A part with a level of its own keeps to that, all others to the first one."""
        self.assertEqual(self.events("error,net=warn"), ["warn", "error", "critical"])
        self.assertEqual(self.events("error,net=warn", "clasp_relay.core"), ["error", "critical"])


class TargetTests(SynchronousTestCase):
    """Where they go."""

    def test_log_goes_to_twistds_file(self) -> None:
        """--logfile is respected, in the foreground or not."""
        path = Path(self.mktemp())
        target = log_target({"logfile": str(path)})
        assert target is not None
        Logger(namespace="clasp_relay", observer=log_observer(LogLevels.parse("info"), "text", target)).info("written")
        self.assertIn("written", path.read_text(encoding="utf-8"))

    def test_log_of_a_daemon_goes_to_twistd_log(self) -> None:
        """Without --logfile a daemon writes twistd.log, as twistd does."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        here = Path.cwd()
        self.addCleanup(os.chdir, here)
        os.chdir(folder)
        self.assertIsInstance(log_target({}), SharedLogFile)
        self.assertTrue((folder / "twistd.log").exists())

    def test_log_is_left_to_twistd_when_it_goes_elsewhere(self) -> None:
        """--syslog and --logger bring observers of their own."""
        for elsewhere in ({"syslog": 1}, {"logger": print}):
            with self.subTest(elsewhere):
                self.assertIsNone(log_target(elsewhere))

    def test_log_on_an_ascii_terminal_loses_no_line(self) -> None:
        """What the terminal cannot show is escaped."""
        buffer = BytesIO()
        self.patch(sys, "stdout", TextIOWrapper(buffer, encoding="ascii"))
        target = log_target(FOREGROUND)
        assert target is not None
        log_observer(LogLevels.parse("info"), "text", target)({"log_format": "Zoë", "log_namespace": "clasp_relay"})
        self.assertTrue(buffer.getvalue().endswith(b"Zo\\xeb\n"), buffer.getvalue())


class SharedLogFileTests(SynchronousTestCase):
    """A log file that logrotate works on."""

    def setUp(self) -> None:
        """Opens one with a line in it."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "relay.log"
        target = log_target({"logfile": str(self.path)})
        assert isinstance(target, SharedLogFile)
        self.log = target
        self.addCleanup(self.log.close)
        self.write("old\n")

    def write(self, text: str) -> None:
        """Writes a line."""
        self.log.write(text)
        self.log.flush()

    def contents(self) -> dict[str, str]:
        """Returns all files by their names."""
        return {path.name: path.read_text("utf-8") for path in self.folder.iterdir()}

    def test_file_is_rotated_where_nobody_else_does_it(self) -> None:
        """As twistd does."""
        self.log.start_new()
        self.write("new\n")
        self.assertEqual(self.contents(), {"relay.log": "new\n", "relay.log.1": "old\n"})

    def test_file_is_opened_again_when_logrotate_has_moved_it(self) -> None:
        """With nocreate, with create, and a second time."""
        for number, creates in ((1, False), (2, True), (3, False)):
            with self.subTest(creates=creates):
                self.path.rename(self.folder / f"moved.{number}")
                if creates:
                    self.path.touch()
                self.log.start_new()
                self.write("new\n")
        expected = {"moved.1": "old\n", "moved.2": "new\n", "moved.3": "new\n", "relay.log": "new\n"}
        self.assertEqual(self.contents(), expected)

    def test_file_goes_on_at_the_beginning_when_logrotate_has_truncated_it(self) -> None:
        """With copytruncate; not behind a hole of zero bytes."""
        os.truncate(self.path, 0)
        self.write("new\n")
        self.assertEqual(self.contents(), {"relay.log": "new\n"})
