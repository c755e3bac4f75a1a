"""The log keeps to its levels and goes where twistd was told."""

import os
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from twisted.logger import Logger, LogLevel
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.levels import LOG_LEVELS, LogLevels
from clasp_relay.logs.target import log_observer, log_target

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
        self.assertIsInstance(log_target({}), LogFile)
        self.assertTrue((folder / "twistd.log").exists())

    def test_log_is_left_to_twistd_when_it_goes_elsewhere(self) -> None:
        """--syslog and --logger bring observers of their own."""
        for elsewhere in ({"syslog": 1}, {"logger": print}):
            with self.subTest(elsewhere):
                self.assertIsNone(log_target(elsewhere))
