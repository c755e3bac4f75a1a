"""Twisted's epoll reactor with a shorter way from a socket that can be read to its protocol.

Twisted enters a log context for each event, which takes as long as all that the relay does with a SET. The
relay's log has no use for it. What can only be read goes straight to ``doRead``; everything else goes Twisted's way.
"""

from __future__ import annotations

import select
import sys
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.main import installReactor
from twisted.internet.tcp import Port
from twisted.logger import Logger

_log = Logger(namespace="clasp_relay.net")

_READABLE = select.EPOLLIN

MAX_ACCEPTS = 20
"""How many connections a port accepts in one turn: 2 ms of work. Twisted raises its own number without a bound."""


class RelayPort(Port):
    """A listening socket that leaves something of a storm of connections for the next turn."""

    _number_accepts = MAX_ACCEPTS

    @property
    def numberAccepts(self) -> int:  # noqa: N802
        """How many to accept next time; Twisted adapts it to how many there were."""
        return self._number_accepts

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:  # noqa: N802
        self._number_accepts = min(number, MAX_ACCEPTS)


class RelayReactor(EPollReactor):
    """An epoll reactor without a log context for what is read. Made once for a process, by :func:`install`."""

    _poller: Any
    _selectables: dict[int, Any]

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events and handles them.

        Args:
            timeout: seconds; None for as long as it takes.
        """
        selectables = self._selectables
        for descriptor, event in self._poller.poll(-1 if timeout is None else timeout, len(selectables)):
            selectable = selectables.get(descriptor)
            if selectable is None:
                # Another one that was ready ended it.
                continue
            why = None
            try:
                if event == _READABLE:
                    why = selectable.doRead()
                else:
                    self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]
            except BaseException as error:
                # As Twisted does it: what fails, whatever it is, ends its own connection only.
                _log.failure("What came from a socket could not be handled")
                why = error
            if why:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

    doIteration = doPoll  # noqa: N815  Twisted's name

    def listenTCP(  # noqa: N802
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> RelayPort:
        """Listens; see ``twisted.internet.interfaces.IReactorTCP``."""
        listening = RelayPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening


def install() -> None:
    """Makes it the process's reactor, unless there is one."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(RelayReactor())  # type: ignore[no-untyped-call]
