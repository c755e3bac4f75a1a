"""What systemd hears of the relay."""

import os
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.sd_notify import SystemdNotifier, watchdog_interval_s

PID = 4_711


class ListeningTestCase(SynchronousTestCase):
    """Has a socket where systemd would listen."""

    def setUp(self) -> None:
        """Listens."""
        self.clock = Clock()
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.setblocking(False)
        self.addCleanup(self.systemd.close)

    def listen(self) -> str:
        """Binds the socket; its path must be short, so it is not one of trial's."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = str(Path(folder.name) / "notify")
        self.systemd.bind(path)
        return path

    def heard(self) -> list[str]:
        """Returns what has come since the last time."""
        words: list[str] = []
        while True:
            try:
                words.append(self.systemd.recv(4_096).decode())
            except BlockingIOError:
                return words

    def notifier(self, **variables: str) -> SystemdNotifier:
        """Makes a notifier whose process has these variables."""
        return SystemdNotifier(self.clock, variables, PID)


class SystemdNotifierTests(ListeningTestCase):
    """With somebody who listens."""

    def test_notifier_says_ready_and_stopping_once_when_told(self) -> None:
        """It says nothing by itself."""
        notifier = self.notifier(NOTIFY_SOCKET=self.listen())
        notifier.startService()
        self.assertEqual(self.heard(), [])
        notifier.ready()
        self.assertEqual(self.heard(), ["READY=1"])
        notifier.stopping()
        self.assertEqual(self.heard(), ["STOPPING=1"])
        self.successResultOf(notifier.stopService())
        self.assertEqual(self.heard(), [])

    def test_notifier_finds_a_socket_that_is_no_file(self) -> None:
        """A leading @ stands for the zero byte of an abstract socket's name."""
        name = f"clasp-relay-test-{os.getpid()}-{id(self)}"
        self.systemd.bind("\0" + name)
        self.notifier(NOTIFY_SOCKET="@" + name).ready()
        self.assertEqual(self.heard(), ["READY=1"])

    def test_notifier_says_alive_twice_in_the_time_of_the_watchdog_while_it_runs(self) -> None:
        """A single lost datagram does not get the relay killed; none is sent before the start or after the stop."""
        notifier = self.notifier(NOTIFY_SOCKET=self.listen(), WATCHDOG_USEC="30000000", WATCHDOG_PID=str(PID))
        self.clock.advance(30)
        self.assertEqual(self.heard(), [])
        notifier.startService()
        for _ in range(4):
            self.clock.advance(15)
        self.assertEqual(self.heard(), ["WATCHDOG=1"] * 4)
        notifier.stopping()
        self.clock.advance(15)
        self.assertEqual(self.heard(), ["STOPPING=1", "WATCHDOG=1"])
        self.successResultOf(notifier.stopService())
        self.clock.advance(60)
        self.assertEqual(self.heard(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notifier_goes_on_when_nobody_listens_any_more(self) -> None:
        """It is logged as a warning, and the relay serves on."""
        path = self.listen()
        Path(path).unlink()
        with capturedLogs() as events:
            self.notifier(NOTIFY_SOCKET=path).ready()
        (event,) = [event for event in events if event.get("state") == "READY=1"]
        self.assertEqual(event["log_level"], LogLevel.warn)

    def test_notifier_does_not_wait_for_a_systemd_that_does_not_read(self) -> None:
        """A full socket costs a warning and no time."""
        notifier = self.notifier(NOTIFY_SOCKET=self.listen())
        for _ in range(2_000):
            notifier.ready()
        self.assertLess(len(self.heard()), 2_000)

    def test_notifier_says_nothing_where_no_systemd_is(self) -> None:
        """Without NOTIFY_SOCKET there is neither a message nor a timer, whatever the watchdog's variables say."""
        notifier = self.notifier(WATCHDOG_USEC="1000000")
        notifier.startService()
        notifier.ready()
        notifier.stopping()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(notifier.stopService())

    def test_notifier_reads_the_environment_of_its_process(self) -> None:
        """That is where systemd writes."""
        self.patch(os, "environ", {"NOTIFY_SOCKET": self.listen()})
        SystemdNotifier(self.clock).ready()
        self.assertEqual(self.heard(), ["READY=1"])


class WatchdogIntervalTests(SynchronousTestCase):
    """How the watchdog's variables are read."""

    def test_interval_is_half_of_what_systemd_waits_for(self) -> None:
        """Only where the watchdog is for this process, and says a time."""
        cases: list[tuple[dict[str, str], float | None]] = [
            ({}, None),
            ({"WATCHDOG_USEC": "30000000"}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "-5"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
            ({"WATCHDOG_USEC": ""}, None),
        ]
        for variables, interval_s in cases:
            with self.subTest(variables=variables):
                self.assertEqual(watchdog_interval_s(variables, PID), interval_s)
