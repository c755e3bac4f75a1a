"""Twisted's epoll reactor with a shorter way from a socket that can be read to its protocol, and with short turns.

Twisted enters a log context for each event, which takes as long as all that the relay does with a SET. The
relay's log has no use for it. What can only be read goes straight to ``doRead``; everything else goes Twisted's way.

A turn is what happens between two waits: first the sockets that are ready, for ``READY_S``, then the calls that are
due. Those that can go on in a later turn ask how much of this one is theirs (``net.reading.share_end_s``).
"""

from __future__ import annotations

import select
import sys
from time import monotonic, thread_time
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from clasp_relay.logs import events
from clasp_relay.net.reading import TURN_S

_READABLE = select.EPOLLIN
_LOST = select.EPOLLHUP | select.EPOLLERR

ENDS_AT_ONCE = 16
"""How many connections end in one turn, at about 0.15 ms each; all of a client's can be torn off in one moment. What
else is ready then is handled in the next turn: epoll tells it again."""

READY_S = 0.003
"""How long sockets that are ready are handled in one turn. Hundreds of sessions may send something at the same moment;
those whose turn does not come are first in the next one. It is time of this thread: what the journal's thread takes
of the interpreter's lock would leave a turn of a message or two, and each turn asks for all that is ready."""


class RelayReactor(EPollReactor):
    """An epoll reactor without a log context for what is read. Made once for a process, by :func:`install`."""

    _poller: Any
    _selectables: dict[int, Any]
    seconds: Any
    turn_end_s = 0.0
    """When this turn should end, by ``seconds``."""
    _late: tuple[int, ...] = ()
    """Descriptors that were ready in the last turn and were not handled."""

    @property
    def is_behind(self) -> bool:
        """Whether something was ready in this turn that is handled in the next one."""
        return bool(self._late)

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events and handles them.

        Args:
            timeout: seconds; None for as long as it takes.
        """
        selectables = self._selectables
        ready = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        if self._late:
            ready = _first(self._late, ready)
            self._late = ()
        self.turn_end_s = self.seconds() + TURN_S
        end_s, thread_end_s = monotonic() + READY_S, thread_time() + READY_S
        ends = 0
        for number, (descriptor, event) in enumerate(ready):
            # The cheaper clock first: the thread's own time is not behind it.
            if number and (ends == ENDS_AT_ONCE or (monotonic() >= end_s and thread_time() >= thread_end_s)):
                self._late = tuple(late for late, _ in ready[number:])
                return
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

    doIteration = doPoll  # noqa: N815  Twisted's name


def _first(late: tuple[int, ...], ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns what is ready, some descriptors first. Those that are ready no longer are left out."""
    events_of = dict(ready)
    first = [(descriptor, events_of.pop(descriptor)) for descriptor in late if descriptor in events_of]
    return [*first, *events_of.items()]


def install() -> None:
    """Makes it the process's reactor, unless there is one."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(RelayReactor())  # type: ignore[no-untyped-call]
