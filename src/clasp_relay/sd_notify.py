"""Tells systemd how the relay is: started, alive, stopping (sd_notify(3); ``Type=notify`` and ``WatchdogSec=``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from clasp_relay.errors import cause_text
from clasp_relay.logs import events
from clasp_relay.periodic import PeriodicService

__all__ = ["SystemdNotifier", "watchdog_interval_s"]

_ABSTRACT = "@"
"""Begins the name of a socket that is no file; the system itself wants a zero byte there."""


def watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Returns how often to say «alive»: half of what systemd waits for, as sd_watchdog_enabled(3) advises.

    Args:
        environment: with ``WATCHDOG_USEC`` and ``WATCHDOG_PID``, where there is a watchdog.
        pid: of this process; a watchdog that is for another one is none.

    Returns:
        Seconds, or None when nobody waits.
    """
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        return None
    return int(text) / 1_000_000 / 2


class SystemdNotifier(Service):
    """Says to systemd what it wants to know; says nothing where no systemd listens.

    While it runs, it says «alive» from the event loop: a loop that hangs is restarted by systemd. Stop it after
    all that a stop waits for, so that a long drain is not taken for one that hangs.

    Args:
        clock: tells the time; the reactor.
        environment: with ``NOTIFY_SOCKET``, where systemd listens; the process's own by default.
        pid: of this process.
    """

    def __init__(
        self, clock: IReactorTime, environment: Mapping[str, str] | None = None, pid: int | None = None
    ) -> None:
        variables = os.environ if environment is None else environment
        self._address = variables.get("NOTIFY_SOCKET", "")
        interval_s = watchdog_interval_s(variables, os.getpid() if pid is None else pid)
        self._watchdog: PeriodicService | None = None
        if self._address and interval_s is not None:
            self._watchdog = PeriodicService(interval_s, clock, self._alive, "watchdog")

    def startService(self) -> None:
        """Begins to say «alive»."""
        Service.startService(self)
        if self._watchdog is not None:
            self._watchdog.startService()

    def stopService(self) -> Deferred[None]:
        """Says «alive» no more.

        Returns:
            A Deferred that has fired.
        """
        Service.stopService(self)
        return succeed(None) if self._watchdog is None else self._watchdog.stopService()

    def ready(self) -> None:
        """Says that all ports listen and the state is loaded: what waits for the relay may start."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Says that the stop has begun."""
        self._send("STOPPING=1")

    def _alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, words: str) -> None:
        """Sends one datagram; never waits, since systemd that is too busy to read must not hold up the relay."""
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith(_ABSTRACT) else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(words.encode(), name)
        except OSError as error:
            events.SYSTEMD_NOT_TOLD.log(state=words, cause=cause_text(error))
