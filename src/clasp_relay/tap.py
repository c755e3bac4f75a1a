"""The twistd plugin: options, service, signals, and the error line when the relay cannot start."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from twisted.application.service import IService, IServiceCollection, MultiService, ServiceMaker
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from clasp_relay.command_line.options import Options, fail
from clasp_relay.errors import StartError
from clasp_relay.event_loop import choose_reactor
from clasp_relay.logs import events
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.target import SharedLogFile, log_observer, log_target
from clasp_relay.net.open_files import raise_limit, room_for_sessions
from clasp_relay.sd_notify import SystemdNotifier

__all__ = ["Options", "RelayApplication", "makeService", "relay"]

relay = ServiceMaker(
    "clasp-relay", "clasp_relay.tap", "A relay for CLASP, shared live state over WebSocket", "clasp-relay"
)
"""The plugin in ``twisted/plugins``; twistd imports the relay itself when it is started."""


class RelayApplication(MultiService):
    """The relay as twistd runs it: when the start fails, the process ends with one line and not with a traceback.

    Args:
        child: the relay.
        options: the parsed options.
        systemd: notified when the relay is ready, alive and stopping.
        is_saved: whether all changes are on disk, once the relay has stopped.
    """

    def __init__(
        self,
        child: IService,
        options: Options,
        systemd: SystemdNotifier,
        is_saved: Callable[[], bool] = lambda: True,
    ) -> None:
        MultiService.__init__(self)
        self._is_saved = is_saved
        self._options = options
        self._twistd_options: Mapping[str, object] = options.parent or {}
        self._log_target: TextIO | SharedLogFile | None = None
        child.setServiceParent(self)
        # Not a child: it has to notify systemd that the relay is alive until the others have stopped.
        self._systemd = systemd

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Joins twistd's application and sets its log observer, since twistd has no option for the log level."""
        MultiService.setServiceParent(self, parent)
        self._log_target = log_target(self._twistd_options)
        if self._log_target is not None and isinstance(parent, Componentized):
            settings = self._options.settings
            observer = log_observer(LogLevels.parse(settings.log_level), settings.log_format, self._log_target)
            Componentized.setComponent(parent, ILogObserver, observer)

    def rotate_log(self) -> None:
        """Starts a new log file, where there is one; see ``SharedLogFile``."""
        if isinstance(self._log_target, SharedLogFile):
            self._log_target.start_new()

    def privilegedStartService(self) -> None:
        """Opens the ports, before twistd gives up privileges."""
        try:
            MultiService.privilegedStartService(self)
        except StartError as error:
            self._end(error)

    def startService(self) -> None:
        """Starts everything else."""
        try:
            MultiService.startService(self)
        except StartError as error:
            self._end(error)
        self._systemd.startService()
        self._systemd.ready()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stops everything; the process then ends with status 1 when the last changes could not be saved.

        Returns:
            A Deferred that fires when all is done.
        """
        self._systemd.stopping()
        yield maybeDeferred(MultiService.stopService, self)
        yield self._systemd.stopService()
        if not self._is_saved():
            atexit.register(_end_as_failed)

    def _end(self, error: StartError) -> NoReturn:
        """Ends the process; of a daemon twistd prints the error on the terminal that started it."""
        if not self._twistd_options.get("nodaemon"):
            events.RELAY_NOT_STARTED.log(error=str(error))
            raise error
        _remove_pid_file(_pid_file(self._options))  # twistd does so for an Exception, and SystemExit is none
        fail(str(error))


def begin_stop(reactor: Any) -> None:
    """Makes an orderly stop exit with status 0, and the next SIGTERM or SIGINT end the process at once.

    Another SIGHUP is ignored: shell and kernel both send one when a terminal is closed.

    twistd would exit by the signal that stopped it, which looks like a failure, and the reactor would ignore a second
    signal. The default action of the signals is not enough: the kernel does not apply it to process 1 of a container.

    Args:
        reactor: the one that stops.
    """
    reactor._exitSignal = None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def stop_on(number: signal.Signals, reactor: Any, pid_file: str | None = None) -> None:
    """Has a signal stop the relay in order; one that is ignored, as nohup does with SIGHUP, stays ignored.

    Before the reactor runs, nothing can have changed: then the process ends at once, with status 0.

    Args:
        number: the signal.
        reactor: the one that is stopped.
        pid_file: removed when the process ends at once; twistd has written it for this process, or not yet.
    """

    def stop() -> None:
        if reactor.running:  # a second signal may have come before the first one was handled
            reactor.stop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not reactor.running:
            _remove_pid_file(pid_file)
            os._exit(0)
        reactor.callFromThread(stop)

    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handle)


def _pid_file(options: Options) -> str | None:
    """Returns the path of the pid file that twistd writes; None for none."""
    twistd_options: Mapping[str, object] = options.parent or {}
    path = twistd_options.get("pidfile")
    return str(path) if path else None


def _remove_pid_file(path: str | None) -> None:
    """Removes twistd's pid file; where ``--uid`` took the right to do so, it stays, as twistd itself leaves it then."""
    if path:
        with suppress(PermissionError):
            Path(path).unlink(missing_ok=True)


def _end_as_failed() -> NoReturn:
    """Ends the process with status 1, which twistd has no way to do; called at the end of Python's shutdown."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def _end_at_once(number: int, _: object) -> NoReturn:
    """Ends the process with the exit status that shells report for a signal."""
    os._exit(128 + number)


def call_on(number: signal.Signals, reactor: Any, call: Callable[[], object]) -> None:
    """Replaces a signal's handler by a call in the reactor's thread.

    Args:
        number: the signal.
        reactor: makes the call.
        call: the call.
    """
    signal.signal(number, lambda _number, _frame: reactor.callFromThread(call))


def _check_machine(options: Options) -> None:
    """Raises the limit of open files, and warns of what does not fit on this machine."""
    for notice in options.notices:
        events.OPTION_IGNORED.log(notice=notice)
    limit, max_sessions = raise_limit(), options.settings.max_sessions
    if room_for_sessions(limit) < max_sessions:
        events.FILES_LIMITED.log(limit=limit, room=room_for_sessions(limit), max_sessions=max_sessions)


def _arguments() -> list[str]:
    """Returns the relay's own part of the command line."""
    return sys.argv[sys.argv.index(relay.tapname) + 1 :]


def makeService(options: Options) -> RelayApplication:
    """Builds the relay for twistd.

    Args:
        options: the parsed command line.

    Returns:
        The service, not started.

    Raises:
        SystemExit: the relay cannot be built; one line on stderr has said why.
    """
    # Not at the top: twistd loads this module to show its help, and its ``--reactor`` may come after that.
    choose_reactor()
    from twisted.internet import reactor  # noqa: PLC0415

    # First, and SIGTERM, too: Twisted handles it only once the reactor runs, and before that the kernel does not end
    # process 1 of a container by it. Twisted leaves SIGINT alone where there is a handler already, as ``cli`` sets it.
    for number in (signal.SIGTERM, signal.SIGINT):
        stop_on(number, reactor, _pid_file(options))

    from clasp_relay.assembly.lifecycle import RelayService  # noqa: PLC0415
    from clasp_relay.clock import steady_timers  # noqa: PLC0415
    from clasp_relay.service import make_service  # noqa: PLC0415
    from clasp_relay.workers import WorkerSet  # noqa: PLC0415

    # Here and not in the service: a program that embeds the relay has timers and limits of its own.
    steady_timers(reactor)
    _check_machine(options)
    service: RelayService | WorkerSet
    try:
        if options.settings.workers > 1:
            service = WorkerSet(options.settings, _arguments(), reactor)
        else:
            service = make_service(options.settings, reactor)
    except StartError as error:
        fail(str(error))
    application = RelayApplication(service, options, SystemdNotifier(reactor), lambda: service.is_saved)
    # Not in the service either: a program that embeds the relay has signal handlers of its own.
    reactor.addSystemEventTrigger("before", "shutdown", begin_stop, reactor)
    service.on_lost = reactor.stop
    # As twistd does for its own log observer, which the relay's replaces.
    call_on(signal.SIGUSR1, reactor, application.rotate_log)
    if options.settings.cluster and isinstance(service, RelayService):
        call_on(signal.SIGUSR2, reactor, service.hand_over)
    if options.settings.tls_cert is None and options.settings.rules is None:
        stop_on(signal.SIGHUP, reactor, _pid_file(options))
    else:
        call_on(signal.SIGHUP, reactor, service.reload)
    return application
