"""A start that fails is one line for a terminal, and twistd's own business for a daemon."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

from twisted.application.service import Application, IService, Service
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, capturedLogs
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import tap
from clasp_relay.command_line.options import Options
from clasp_relay.errors import StartError
from clasp_relay.net.open_files import RESERVED
from clasp_relay.sd_notify import SystemdNotifier
from clasp_relay.tap import RelayApplication, call_on, relay, stop_on


class Broken(Service):
    """A service that cannot start."""

    def __init__(self, when: str) -> None:
        self._when = when

    def privilegedStartService(self) -> None:
        """Fails as ports do."""
        if self._when == "privileged":
            raise StartError("port 7330\nis taken")

    def startService(self) -> None:
        """Fails as the rest may."""
        if self._when == "start":
            raise StartError("port 7330\nis taken")


class RelayApplicationTests(SynchronousTestCase):
    """The relay as twistd runs it."""

    def application(self, child: IService, **twistd_options: object) -> RelayApplication:
        """Returns a relay around ``child`` as it is after parsing."""
        options = Options({})
        options.parseOptions([])
        options.parent = usage.Options()
        options.parent.update(twistd_options)
        return RelayApplication(child, options, SystemdNotifier(Clock(), {}))

    def test_relay_ends_with_one_line_when_it_cannot_start(self) -> None:
        """In the foreground: exit status 1, one line on stderr, and no pid file left."""
        for when, method in (("privileged", "privilegedStartService"), ("start", "startService")):
            with self.subTest(when):
                stderr = StringIO()
                self.patch(sys, "__stderr__", stderr)
                pid_file = Path(self.mktemp())
                pid_file.write_text("1")
                application = self.application(Broken(when), nodaemon=True, pidfile=str(pid_file))
                with self.assertRaises(SystemExit) as caught:
                    getattr(application, method)()
                self.assertEqual(caught.exception.code, 1)
                self.assertEqual(stderr.getvalue(), "clasp-relay: port 7330 is taken\n")
                self.assertFalse(pid_file.exists())

    def test_relay_ends_without_a_pid_file(self) -> None:
        """``--pidfile=`` leaves nothing to remove."""
        self.patch(sys, "__stderr__", StringIO())
        with self.assertRaises(SystemExit):
            self.application(Broken("start"), nodaemon=True, pidfile="").startService()

    def test_relay_hands_its_error_to_twistd_when_it_is_a_daemon(self) -> None:
        """A daemon has no stderr; twistd passes the error to the process that the terminal waits for."""
        for when, method in (("privileged", "privilegedStartService"), ("start", "startService")):
            with self.subTest(when), self.assertRaises(StartError):
                getattr(self.application(Broken(when)), method)()

    def test_relay_starts_and_stops_its_child(self) -> None:
        """The relay itself is a child."""
        child = Service()
        application = self.application(child, nodaemon=True)
        application.privilegedStartService()
        application.startService()
        self.assertTrue(child.running)
        application.stopService()
        self.assertFalse(child.running)

    def test_relay_gives_its_log_level_to_the_application(self) -> None:
        """The observer is where twistd looks for one, unless the log goes elsewhere."""
        for twistd_options, given in (({"nodaemon": True}, True), ({"syslog": True}, False)):
            with self.subTest(twistd_options):
                application = Application("relay")
                self.application(Service(), **twistd_options).setServiceParent(application)
                self.assertEqual(application.getComponent(ILogObserver) is not None, given)

    def test_relay_starts_a_new_log_file_when_it_is_told_to(self) -> None:
        """The old one is kept; without a file, or with a log that is twistd's own, nothing happens."""
        path = Path(self.mktemp())
        path.write_text("old", encoding="utf-8")
        for twistd_options in ({"logfile": str(path)}, {"nodaemon": True}, {"syslog": True}):
            application = self.application(Service(), **twistd_options)
            application.setServiceParent(Application("relay"))
            application.rotate_log()
        self.assertEqual(path.read_text(encoding="utf-8"), "")
        self.assertEqual(path.with_name(path.name + ".1").read_text(encoding="utf-8"), "old")


class MachineTests(SynchronousTestCase):
    """What is said of the machine."""

    def test_relay_warns_of_what_it_ignored(self) -> None:
        """Each notice of the options is a line."""
        options = Options({"CLASP_PORT": "tcp://10.0.0.1:7330"})
        options.parseOptions(["--max-sessions", "1"])
        with capturedLogs() as events:
            tap._check_machine(options)
        self.assertEqual([event["notice"] for event in events], options.notices)
        self.assertEqual(len(events), 1)

    def test_relay_warns_where_open_files_are_too_few(self) -> None:
        """For the sessions that it may have, beside what it keeps for itself."""
        self.patch(tap, "raise_limit", lambda: 1_000)
        for sessions, room in ((1_000 - RESERVED, None), (1_001 - RESERVED, 1_000 - RESERVED)):
            options = Options({})
            options.parseOptions(["--max-sessions", str(sessions)])
            with self.subTest(sessions), capturedLogs() as events:
                tap._check_machine(options)
            self.assertEqual([event["room"] for event in events], [] if room is None else [room])


class Waiting:
    """A reactor that runs, and keeps what other threads ask for."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.running = True
        self.stops = 0

    def stop(self) -> None:
        """Stops."""
        self.running = False
        self.stops += 1

    def callFromThread(self, call: Callable[[], object]) -> None:  # noqa: N802  Twisted's name
        """Keeps a call."""
        self.calls.append(call)


class SignalTests(SynchronousTestCase):
    """What a signal makes."""

    def setUp(self) -> None:
        """Has the signal do at the end what it did before."""
        self.addCleanup(signal.signal, signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))

    def test_signal_makes_a_call_in_the_reactors_thread(self) -> None:
        """In the place of the default action, to end the process."""
        calls: list[str] = []
        reactor = Waiting()
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        call_on(signal.SIGUSR2, reactor, partial(calls.append, "one"))
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual(calls, [])
        for call in reactor.calls:
            call()
        self.assertEqual(calls, ["one"])

    def test_signal_stops_a_reactor_once(self) -> None:
        """However often it comes before the reactor sees it."""
        reactor = Waiting()
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        stop_on(signal.SIGUSR2, reactor)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR2)
        for call in reactor.calls:
            call()
        self.assertEqual((len(reactor.calls), reactor.stops), (2, 1))

    def test_signal_that_is_ignored_stays_ignored(self) -> None:
        """As under nohup."""
        reactor = Waiting()
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        stop_on(signal.SIGUSR2, reactor)
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual(reactor.calls, [])


class ServiceMakerTests(SynchronousTestCase):
    """What twistd sees."""

    def test_service_maker_names_options_and_maker(self) -> None:
        """The names in it lead to the real things."""
        self.assertEqual(relay.tapname, "clasp-relay")
        self.assertIs(relay.options, Options)
        self.assertTrue(callable(relay.makeService))
