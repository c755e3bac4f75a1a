"""Twisted's epoll reactor with a shorter way from a socket that can be read to its protocol.

Twisted enters a log context for each event, which takes as long as all that the relay does with a SET. The
relay's log has no use for it. What can only be read goes straight to ``doRead``; everything else goes Twisted's way.
"""

from __future__ import annotations

import select
import sys
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from clasp_relay.logs import events

_READABLE = select.EPOLLIN
_LOST = select.EPOLLHUP | select.EPOLLERR

ENDS_AT_ONCE = 32
"""How many connections end in one turn, at about 0.15 ms each; all of a client's can be torn off in one moment. What
else is ready then is handled in the next turn: epoll tells it again."""


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
        ends = 0
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
                events.CONNECTION_FAULT.failure(action="read from a socket")
                why = error
            if why or event & _LOST:
                ends += 1
            if why:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]
            if ends == ENDS_AT_ONCE:
                break

    doIteration = doPoll  # noqa: N815  Twisted's name


def install() -> None:
    """Makes it the process's reactor, unless there is one."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(RelayReactor())  # type: ignore[no-untyped-call]
