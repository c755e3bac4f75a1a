"""What the log is given, kept by a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.levels import level_of


def collect(case: SynchronousTestCase) -> list[Mapping[str, Any]]:
    """Returns a list that gets every event until the test ends."""
    events: list[LogEvent] = []
    observer = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)
    return cast("list[Mapping[str, Any]]", events)


def said(events: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns level and text of each event of ours, and forgets them."""
    ours = [event for event in events if str(event["log_namespace"]).startswith("clasp_relay.")]
    lines = [(level_of(event), formatEvent(dict(event))) for event in ours]
    events.clear()
    return lines
