"""Notifies systemd that the relay is ready, alive or stopping (sd_notify(3); ``Type=notify``, ``WatchdogSec=``)."""

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
"""First character of an abstract socket's name in ``NOTIFY_SOCKET``; the kernel wants a zero byte there."""


def watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Returns the watchdog interval: half of systemd's timeout, as sd_watchdog_enabled(3) advises.

    Args:
        environment: has ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` where there is a watchdog.
        pid: of this process; a watchdog for another process is ignored.

    Returns:
        Seconds, or None without a watchdog.
    """
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        return None
    return int(text) / 1_000_000 / 2


class SystemdNotifier(Service):
    """Notifies systemd; does nothing where ``NOTIFY_SOCKET`` is not set.

    While it runs, it sends ``WATCHDOG=1`` from the event loop, so systemd restarts a relay whose loop hangs. It must be
    stopped last, so that a long drain does not look like a loop that hangs.

    Args:
        clock: tells the time; the reactor.
        environment: has ``NOTIFY_SOCKET``, systemd's socket; by default the process's environment.
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
        """Starts the watchdog messages."""
        Service.startService(self)
        if self._watchdog is not None:
            self._watchdog.startService()

    def stopService(self) -> Deferred[None]:
        """Ends the watchdog messages.

        Returns:
            A Deferred that has fired.
        """
        Service.stopService(self)
        return succeed(None) if self._watchdog is None else self._watchdog.stopService()

    def ready(self) -> None:
        """Tells that all ports listen and the state is loaded, so that units that wait for the relay start."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Tells that the stop has begun."""
        self._send("STOPPING=1")

    def _alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, words: str) -> None:
        """Sends one datagram without waiting: a systemd that does not read must not block the relay."""
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith(_ABSTRACT) else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(words.encode(), name)
        except OSError as error:
            events.SYSTEMD_NOT_TOLD.log(state=words, cause=cause_text(error))
