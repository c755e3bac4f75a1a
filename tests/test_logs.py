"""The log keeps to its level and goes where twistd was told."""

import os
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from twisted.logger import Logger, LogLevel
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs import level_observer, log_target
from clasp_relay.settings import LOG_LEVELS

FOREGROUND: Mapping[str, object] = {"nodaemon": True}


class LevelTests(SynchronousTestCase):
    """Which events pass."""

    def events(self, level: str) -> list[str]:
        """Returns the levels of the events that pass."""
        out = StringIO()
        self.patch(sys, "stdout", out)
        target = log_target(FOREGROUND)
        assert target is not None
        observer = level_observer(level, target)
        log = Logger(namespace="relay", observer=observer)
        for each in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical):
            log.emit(each, "it is {name}", name=each.name)
        return [line.rpartition(" ")[2] for line in out.getvalue().splitlines()]

    def test_log_has_its_level_and_what_is_worse(self) -> None:
        """Each level lets through itself and all above it."""
        every = ["debug", "info", "warn", "error", "critical"]
        first = {"error": 3, "warn": 2, "info": 1, "debug": 0, "trace": 0}
        self.assertEqual(set(first), set(LOG_LEVELS))
        for level, index in first.items():
            with self.subTest(level):
                self.assertEqual(self.events(level), every[index:])


class TargetTests(SynchronousTestCase):
    """Where they go."""

    def test_log_goes_to_twistds_file(self) -> None:
        """--logfile is respected, in the foreground or not."""
        path = Path(self.mktemp())
        target = log_target({"logfile": str(path)})
        assert target is not None
        Logger(namespace="relay", observer=level_observer("info", target)).info("written")
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
