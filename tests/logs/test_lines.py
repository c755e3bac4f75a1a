"""Tests of clasp_relay.logs.lines."""

import json
from collections.abc import Mapping
from math import inf, nan
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.levels import LOG_FORMATS
from clasp_relay.logs.lines import LINES, json_line, text_line


def event(text: str, **values: object) -> Mapping[str, Any]:
    """Returns a log event of 2026-01-31, noon."""
    return {
        "log_time": 1769860800.1234,
        "log_level": LogLevel.info,
        "log_namespace": "clasp_relay.net",
        "log_format": text,
        **values,
    }


def failure(words: str) -> Failure:
    """Returns a failure with a traceback."""
    try:
        raise ZeroDivisionError(words)
    except ZeroDivisionError:
        return Failure()


class TextTests(SynchronousTestCase):
    def test_line_has_time_level_part_and_words(self) -> None:
        """In UTC, with milliseconds."""
        self.assertEqual(text_line(event("{n} sent", n=3)), "2026-01-31T12:00:00.123Z info  net: 3 sent\n")

    def test_line_is_one_line_whatever_is_in_it(self) -> None:
        """What breaks lines, steers terminals or turns the direction of writing is escaped; other text is not."""
        line = text_line(event("{name}", name="a\r\n\x1b[2J\x9b\u2028\u202e\udc80 é中"))
        self.assertTrue(line.endswith(" net: a\\x0d\\x0a\\x1b[2J\\x9b\\u2028\\u202e\\udc80 é中\n"), line)

    def test_traceback_follows_indented(self) -> None:
        """No line of it can be taken for one of the log."""
        first, *rest = text_line(event("it failed", log_failure=failure("bad\nnews"))).splitlines()
        self.assertTrue(first.endswith(" net: it failed"))
        self.assertIn("ZeroDivisionError", rest[-2] + rest[-1])
        self.assertTrue(all(line.startswith("    ") for line in rest), rest)

    def test_token_is_made_unreadable(self) -> None:
        """Even where nobody should have put one: in an exception's words."""
        token = "cpsk_0123456789abcdef0123456789abcdef"
        for line_of in LINES.values():
            line = line_of(event("{what}", what=token, log_failure=failure(token)))
            self.assertNotIn(token[5:], line)
            self.assertIn("cpsk_***", line)

    @given(st.text(st.characters(exclude_categories=[])))
    def test_any_text_stays_one_line_that_can_be_written(self, text: str) -> None:
        """In both forms."""
        for line_of in LINES.values():
            line = line_of(event("{name}", name=text))
            self.assertEqual(len(line.splitlines()), 1)
            line.encode()


class JsonTests(SynchronousTestCase):
    def test_line_is_an_object_with_what_the_words_are_made_of(self) -> None:
        """Values that JSON has are there by name; objects, and what is Twisted's own, are not."""
        line = json_line(event("{n} of {where}", n=3, where=object, ratio=0.5, ok=True, is_trace=True, level="mine"))
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-01-31T12:00:00.123Z",
                "level": "info",
                "part": "net",
                "event": "twisted.message",
                "message": f"3 of {object}",
                "n": 3,
                "ratio": 0.5,
                "ok": True,
            },
        )

    def test_line_says_in_words_what_json_has_no_number_for(self) -> None:
        """NaN and infinity."""
        found = json.loads(json_line(event("", a=nan, b=inf)), parse_constant=self.fail)
        self.assertEqual((found["a"], found["b"]), ("nan", "inf"))

    def test_traceback_is_a_field(self) -> None:
        """With its line breaks."""
        self.assertIn("ZeroDivisionError", json.loads(json_line(event("", log_failure=failure("x"))))["traceback"])

    def test_every_format_has_its_lines(self) -> None:
        """The option offers what there is."""
        self.assertEqual(set(LINES), set(LOG_FORMATS))
