"""Tests of clasp_relay.logs.events."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs import events
from clasp_relay.logs.events import CATALOGUE, Event, auth_reason, log_auth_call
from clasp_relay.logs.levels import LOG_LEVELS, PARTS, level_of, part_of
from tests.logs.events import collect, said

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "clasp_relay"
OWN = PACKAGE / "logs" / "events.py"
_CALLS = ("REGISTER", "LOGIN", "GUEST", "LOGOUT", "REFRESH", "PASSWORD", "END_SESSION", "CONSOLE", "RESET", "OTHER")
BY_CALL = {f"AUTH_{call}" for call in _CALLS}
"""Events that the catalogue itself chooses, by a call's name."""
LOG_METHODS = {"critical", "debug", "emit", "err", "error", "exception", "failure", "info", "msg", "warn", "warning"}
BY_CONSTANT = {name: value for name, value in vars(events).items() if isinstance(value, Event)}
_ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \| (\w+) \| (\w+) \| (.+) \|$", re.MULTILINE)


TAKEN = {"event", "format", "isError", "level", "message", "part", "system", "time", "traceback", "warning"}
"""Names that have a meaning of their own, in JSON lines or for Twisted."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yields the calls in all modules but the catalogue, each with where it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and path != OWN:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def fields_of(event: Event) -> set[str]:
    """Returns the names of the values in an event's sentence."""
    return {name for _, name, _, _ in Formatter().parse(event.sentence) if name is not None}


def is_log_call(call: ast.Call) -> bool:
    """Tells whether a call logs without the catalogue: through a logger of its own."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in {"Logger", "getLogger"}
    if not isinstance(function, ast.Attribute) or function.attr not in LOG_METHODS:
        return False
    return ast.unparse(function.value).rpartition(".")[2].lstrip("_") in {"log", "logger", "logging"}


class CatalogueTests(SynchronousTestCase):
    """What the relay can log."""

    def test_every_log_call_has_an_event(self) -> None:
        """No module has a logger of its own."""
        self.assertEqual([place for place, call in calls() if is_log_call(call)], [])

    def test_every_log_call_passes_the_values_of_its_sentence(self) -> None:
        """A line never shows that a value is missing."""
        used = set()
        for place, call in calls():
            function = call.func
            if not (isinstance(function, ast.Attribute) and function.attr in {"log", "failure"}):
                continue
            owner = ast.unparse(function.value)
            if owner.startswith("events."):
                name = owner.removeprefix("events.")
                used.add(name)
                with self.subTest(place):
                    passed = {keyword.arg for keyword in call.keywords}
                    self.assertEqual(fields_of(BY_CONSTANT[name]) - passed, set())
        self.assertEqual(set(BY_CONSTANT) - used - BY_CALL, set())

    def test_every_event_is_well_formed(self) -> None:
        """Its own name, a level and a part that exist, and no Python notation in its sentence."""
        self.assertEqual(len(CATALOGUE), len(BY_CONSTANT))
        for event in CATALOGUE.values():
            with self.subTest(event.name):
                self.assertRegex(event.name, r"^[a-z_]+\.[a-z_]+$")
                self.assertIn(event.level, LOG_LEVELS)
                self.assertIn(event.part, PARTS)
                self.assertEqual(fields_of(event) & TAKEN, set())
                self.assertEqual([c for _, _, _, c in Formatter().parse(event.sentence) if c is not None], [])

    def test_documentation_lists_every_event(self) -> None:
        """docs/operations.md: name, level, part and sentence, in the order of the catalogue."""
        rows = _ROW.findall((ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
        self.assertEqual(rows, [(e.name, e.level, e.part, e.sentence) for e in CATALOGUE.values()])


class EventTests(SynchronousTestCase):
    """What is given to the log."""

    def test_event_has_its_name_level_and_part(self) -> None:
        """For programs that read the log."""
        seen = collect(self)
        for event in CATALOGUE.values():
            if event.level != "error":  # an error would fail the test
                event.log(**dict.fromkeys(fields_of(event), "x"))
                with self.subTest(event.name):
                    last = seen[-1]
                    self.assertEqual(
                        (last["event"], level_of(last), part_of(last)), (event.name, event.level, event.part)
                    )

    def test_failure_has_a_traceback(self) -> None:
        """Of the exception that is handled, or of the one that is given."""
        seen = collect(self)
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            events.AUTH_FAULT.failure()
        events.JOB_FAILED.failure(Failure(KeyError()), job="purge")
        self.assertEqual([event["event"] for event in seen], ["auth.fault", "job.failed"])
        self.assertEqual({event["log_level"] for event in seen}, {LogLevel.error})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 2)

    def test_calls_of_the_auth_api_are_told_in_words(self) -> None:
        """With the user where that is known; a call or an outcome without words of its own is told by its name."""
        seen = collect(self)
        log_auth_call("login", "192.0.2.1", "ok", "u-1")
        log_auth_call("register", "192.0.2.1", "Taken", "")
        log_auth_call("knock", "192.0.2.1", "ok", "")
        self.assertEqual([event["event"] for event in seen], ["auth.login", "auth.register", "auth.other"])
        self.assertEqual(
            said(seen),
            [
                ("info", "sign-in from 192.0.2.1 succeeded, user u-1"),
                ("info", "registration from 192.0.2.1 failed: the name or id is taken"),
                ("info", "call of knock from 192.0.2.1 succeeded"),
            ],
        )
        self.assertEqual(auth_reason("Gone"), "Gone")
