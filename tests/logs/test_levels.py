"""Tests of clasp_relay.logs.levels."""

import re
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.levels import LOG_LEVELS, PARTS, LogLevels, level_of, part_of

ROOT = Path(__file__).parent.parent.parent


class LogLevelsTests(SynchronousTestCase):
    def test_levels_are_read(self) -> None:
        """A level for all, others by part; the last one counts, whatever its case."""
        for text, default, parts in (
            ("warn", "warn", {}),
            ("INFO, net=Debug", "info", {"net": "debug"}),
            ("net=trace", "info", {"net": "trace"}),
            ("core=error,debug,core=warn", "debug", {"core": "warn"}),
        ):
            with self.subTest(text):
                self.assertEqual(LogLevels.parse(text), LogLevels(default, parts))

    def test_words_that_are_no_levels_are_refused(self) -> None:
        """So are parts that there are not: a typing error would leave the level as it was."""
        for text in ("", "loud", "info,", "info,nett=debug", "net=", "net=loud", "=debug"):
            with self.subTest(text):
                self.assertRaises(ValueError, LogLevels.parse, text)

    def test_levels_let_through_what_is_as_bad_or_worse(self) -> None:
        """Of each part by its own level."""
        levels = LogLevels.parse("warn,core=trace")
        passed = [(part, level) for part in PARTS for level in LOG_LEVELS if levels.passes(part, level)]
        others = [(part, level) for part in PARTS if part != "core" for level in ("error", "warn")]
        self.assertEqual(sorted(passed), sorted(others + [("core", level) for level in LOG_LEVELS]))


class EventTests(SynchronousTestCase):
    def test_part_is_told_by_the_namespace(self) -> None:
        """What is ours and in no part is the relay as a whole."""
        for namespace, part in (
            ("clasp_relay.net", "net"),
            ("clasp_relay.net.protocol", "net"),
            ("clasp_relay", "relay"),
            ("clasp_relay.periodic.PeriodicService", "relay"),
            ("clasp_relayed", "twisted"),
            ("twisted.web", "twisted"),
            (None, "twisted"),
        ):
            with self.subTest(namespace):
                self.assertEqual(part_of({"log_namespace": namespace}), part)

    def test_level_is_told_by_the_event(self) -> None:
        """Twisted's levels are ours, but for critical and for what Twisted says at info; trace is a mark on debug."""
        for event, level in (
            ({"log_level": LogLevel.critical}, "error"),
            ({"log_level": LogLevel.warn, "is_trace": True}, "warn"),
            ({"log_level": LogLevel.debug}, "debug"),
            ({"log_level": LogLevel.debug, "is_trace": True}, "trace"),
            ({}, "debug"),
            ({"log_namespace": "clasp_relay.net"}, "info"),
            ({"log_level": LogLevel.info, "log_namespace": "twisted.internet"}, "debug"),
            ({"log_level": LogLevel.warn, "log_namespace": "twisted.internet"}, "warn"),
        ):
            with self.subTest(level):
                self.assertEqual(level_of(event), level)

    def test_documentation_lists_every_part(self) -> None:
        """docs/operations.md, Log."""
        text = (ROOT / "docs" / "operations.md").read_text("utf-8")
        sentence = text.partition("The parts are ")[2].partition(" (lines of libraries")[0]
        self.assertEqual(re.findall(r"`(\w+)`", sentence), list(PARTS))
