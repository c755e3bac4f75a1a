"""Tests of ``clasp_relay.net.side_log``."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, capturedLogs, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.side_log import SideLog
from tests.net.helpers import Site, client_frame


class SideLogTests(SynchronousTestCase):
    def test_side_log_makes_debug_lines_of_what_peers_do_wrong(self) -> None:
        """Nothing that a client repeats fills the operator's log."""
        log = SideLog()
        with capturedLogs() as events:
            for write in (log.debug, log.info, log.warn, log.error):
                write("{what} from {{a peer}}", what="nonsense")
        self.assertEqual([event["log_level"] for event in events], [LogLevel.debug] * 3)
        self.assertEqual(events[0]["detail"], "nonsense from {a peer}")

    def test_sessions_log_nothing_per_message(self) -> None:
        """Messages, pings and pongs leave no line at any level."""
        client = Site().open()
        events: Any = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        client.send(client_frame(b"a"), client_frame(b"", 9), client_frame(b"", 10))
        client.turn()
        self.assertEqual(events, [])
