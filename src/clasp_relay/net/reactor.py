"""Twisted's epoll reactor with a shorter way from a socket that can be read to its protocol, and a bound on a turn.

Twisted enters a log context for each event, which takes as long as all that the relay does with a SET. The
relay's log has no use for it. What can only be read goes straight to ``doRead``; everything else goes Twisted's way.

Twisted handles all that is ready before it writes and looks at the time again. When many ask for something slow at
once, such as a sign-in, everybody else waits for all of them. Here a turn has a length; what does not fit into it has
half of the next one, so that neither the many nor the others wait for long.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from time import monotonic
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.main import installReactor
from twisted.internet.tcp import Port
from twisted.logger import Logger

_log = Logger(namespace="clasp_relay.net")

_READABLE = select.EPOLLIN

TURN_S = 0.003
"""How long sockets are looked at before what is due is done and what is pending is written."""

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
    _passed_over: Sequence[int] = ()
    """The descriptors that were ready when the last turn was over, those that wait longest first."""

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events and handles them, for as long as a turn may take.

        Args:
            timeout: seconds; None for as long as it takes.
        """
        # Whatever was passed over is still ready, or its other end is gone: it is reported again.
        ready = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        began_s = monotonic()
        left: Iterator[tuple[int, int]]
        if self._passed_over:
            reported = dict(ready)
            old = iter(
                [(descriptor, reported.pop(descriptor)) for descriptor in self._passed_over if descriptor in reported]
            )
            new = iter(reported.items())
            self._handle(old, began_s + TURN_S / 2)
            self._handle(new, began_s + TURN_S)
            self._handle(old, began_s + TURN_S)
            left = chain(old, new)
        else:
            left = iter(ready)
            self._handle(left, began_s + TURN_S)
        self._passed_over = [descriptor for descriptor, _ in left]

    doIteration = doPoll  # noqa: N815  Twisted's name

    def _handle(self, events: Iterator[tuple[int, int]], until_s: float) -> None:
        """Handles events up to a moment, at least one of them."""
        selectables = self._selectables
        for descriptor, event in events:
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
            if monotonic() > until_s:
                return

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
