"""Twisted's epoll reactor with a shorter path from a readable socket to its protocol, and with short turns.

Twisted enters a log context for each event, which takes as long as the relay's whole handling of a SET. The
relay's log has no use for it. A socket that is only readable goes straight to ``doRead``; all other events are handled
by Twisted's code.

A turn is what happens between two calls of epoll that may wait: first the sockets that are ready, for ``READY_S``, then
the calls that are due. Work that can go on in a later turn asks how much time of this one it has
(``net.reading.share_end_s``).

Sockets are handled in the order in which they became ready, as long as there is time for all. Once there is not, client
addresses take turns (``core.lanes``): an address with a single socket waits for one socket of each other address, and
at most ``LOOK_INTERVAL_S`` until its socket is found.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from time import monotonic, thread_time
from typing import Any, TypeAlias

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from clasp_relay.core.lanes import in_turn
from clasp_relay.logs import events
from clasp_relay.net.reading import TURN_S

_READABLE, _WRITABLE = select.EPOLLIN, select.EPOLLOUT
_LOST = select.EPOLLHUP | select.EPOLLERR

READY_AT_ONCE = 256
"""Sockets that one call of epoll returns at most. It returns those first that it has returned least recently. With 500
sessions that send at once, 64 took up to 4 % more of the processor's time per message than 512; the more there are, the
longer the search for others takes (``LOOKED_AT_BEHIND``)."""

LOOKED_AT_BEHIND = 256
"""Other sockets that epoll returns at most in a turn that begins with those for which the last one had no time. One
client address has no more of them (``NetLimits``), so that another address is found behind them at once."""

LOOK_INTERVAL_S = 0.02
"""Shortest interval in s between two such calls. One takes 0.15 ms for 256 sockets, in a turn that has
3 ms for messages."""

LATE_AT_ONCE = 16
"""Sockets of the last turn that are handled before the next ones of them are looked at."""

ENDS_AT_ONCE = 16
"""Connections that end in one turn at most, at about 0.15 ms each: all connections of a client can be lost at the same
moment. Other sockets that are ready then are handled in the next turn."""

READY_S = 0.003
"""Time in s for handling ready sockets in one turn. Hundreds of sessions may send at the same moment; those that are
left come first in the next turn. It is CPU time of this thread: by the clock, the journal's thread, which holds the
interpreter's lock meanwhile, would leave time for a message or two, and each turn costs a call of epoll."""

_Late: TypeAlias = tuple[int, int, object]
"""A socket that was ready and not handled: its descriptor, its events, and the object that had the descriptor then."""


class RelayReactor(EPollReactor):
    """An epoll reactor without a log context for reads. Made once for a process, by :func:`install`."""

    _poller: Any
    _reads: set[int]
    _writes: set[int]
    _selectables: dict[int, Any]
    seconds: Any = monotonic
    """The clock of delayed calls, in s: monotonic, since the machine's clock may be set."""
    turn_end_s = 0.0
    """When this turn should end, by ``seconds``."""
    is_behind = False
    """Whether sockets were ready in this turn that are handled in the next one."""
    _next_look_s = 0.0
    """When epoll is next asked for other sockets beside those, by ``seconds``."""

    def __init__(self) -> None:
        self._late: deque[_Late] = deque()
        """The sockets that were ready in the last turn and not handled."""
        super().__init__()  # type: ignore[no-untyped-call]

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events and handles them.

        Args:
            timeout: longest wait in seconds; None for no limit.
        """
        selectables, seconds = self._selectables, self.seconds
        if self.is_behind:
            now_s, may_be_more = seconds(), True
            ready = self._left(now_s)
        else:
            self._late.clear()  # an exception that ended the last turn may have left some; epoll returns them again
            ready = self._poller.poll(-1 if timeout is None else timeout, READY_AT_ONCE)
            now_s, may_be_more = seconds(), len(ready) == READY_AT_ONCE
        self.turn_end_s, end_s = now_s + TURN_S, now_s + READY_S
        # ``thread_time`` is a system call, and many turns have only one socket.
        thread_end_s = thread_time() + READY_S if may_be_more or len(ready) > 1 else 0.0
        handled = ends = 0
        told: set[int] = set()
        while True:
            for number, (descriptor, event) in enumerate(ready):
                # The cheaper clock first: the CPU time of the thread is never ahead of it.
                if handled and (ends == ENDS_AT_ONCE or (seconds() >= end_s and thread_time() >= thread_end_s)):
                    self._leave(ready[number:])
                    return
                handled += 1
                selectable = selectables.get(descriptor)
                if selectable is None:
                    # The handling of another socket has ended it.
                    continue
                why = None
                try:
                    if event == _READABLE:
                        why = selectable.doRead()
                    else:
                        self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]
                except BaseException as error:
                    # As in Twisted: an exception of any kind ends only its own connection.
                    events.CONNECTION_FAULT.failure(action="read from a socket")
                    why = error
                if why or event & _LOST:
                    ends += 1
                if why:
                    self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]
            if not may_be_more:
                return
            told.update(dict(ready))
            ready, may_be_more = self._more(told)

    doIteration = doPoll  # noqa: N815  Twisted's name

    def _left(self, now_s: float) -> list[tuple[int, int]]:
        """Returns sockets that were left to this turn, and sometimes others between them."""
        self.is_behind = False
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_INTERVAL_S
            self._add_others(self._poller.poll(0, len(self._late) + LOOKED_AT_BEHIND))
        return self._still_ready()

    def _more(self, told: set[int]) -> tuple[list[tuple[int, int]], bool]:
        """Returns more sockets for this turn, and whether there may be others still.

        Args:
            told: the descriptors that were handled in this turn. No socket is read twice in a turn; epoll returns those
                that it returned before behind all others.
        """
        if self._late:
            return self._still_ready(), True
        ready = [each for each in self._poller.poll(0, READY_AT_ONCE) if each[0] not in told]
        return ready, len(ready) == READY_AT_ONCE

    def _leave(self, ready: list[tuple[int, int]]) -> None:
        """Leaves ready sockets to the next turn, where they come first."""
        self.is_behind = True
        self._late.extendleft(reversed(self._as_late(ready)))

    def _as_late(self, ready: list[tuple[int, int]]) -> list[_Late]:
        selectables = self._selectables
        return [(descriptor, event, selectables.get(descriptor)) for descriptor, event in ready]

    def _still_ready(self) -> list[tuple[int, int]]:
        """Returns the next sockets that were left to this turn, without events that are no longer wanted.

        Only its own object reads from a descriptor, so it is still ready; at worst there is nothing to read.
        """
        late, ready = self._late, []
        for _ in range(min(len(late), LATE_AT_ONCE)):
            descriptor, event, selectable = late.popleft()
            if selectable is not None and self._selectables.get(descriptor) is selectable:
                if descriptor not in self._reads:
                    event &= ~_READABLE
                if descriptor not in self._writes:
                    event &= ~_WRITABLE
                ready.append((descriptor, event))
        return ready

    def _add_others(self, ready: list[tuple[int, int]]) -> None:
        """Adds ready sockets of other lanes to those that were left to this turn, the lanes in turn."""
        selectables = self._selectables
        late = self._late = deque([each for each in self._late if selectables.get(each[0]) is each[2]])
        descriptors, lanes = {each[0] for each in late}, set(map(_lane_of, late))
        behind = self._as_late([each for each in ready if each[0] not in descriptors])
        others = [each for each in behind if _lane_of(each) not in lanes]
        if others or len(lanes) > 1:
            self._late = deque(in_turn([*late, *others], _lane_of))


def _lane_of(late: _Late) -> object:
    """Returns the lane of a ready socket; a socket that is not a client's has a lane of its own."""
    protocol: Any = getattr(late[2], "protocol", None)
    try:
        lane: object = protocol.lane  # faster than getattr with a default
    except AttributeError:
        # With TLS, the connection is wrapped in another protocol.
        lane = getattr(getattr(protocol, "wrappedProtocol", None), "lane", late[0])
    return lane


def install() -> None:
    """Installs it as the reactor of the process, unless there is one already."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(RelayReactor())
