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
from collections.abc import Sequence
from time import monotonic, thread_time
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from clasp_relay.core.lanes import in_turn
from clasp_relay.logs import events
from clasp_relay.net.reading import TURN_S

_READABLE, _WRITABLE = select.EPOLLIN, select.EPOLLOUT
_LOST = select.EPOLLHUP | select.EPOLLERR

READY_AT_ONCE = 512
"""Sockets that one call of epoll returns at most. It returns those first that it has returned least recently. With 500
sessions that send at once, 64 took 4 % more of the processor's time per message."""

LOOKED_AT_BEHIND = 256
"""Other sockets that epoll returns at most in a turn that begins with those for which the last one had no time. One
client address has no more of them (``NetLimits``), so that another address is found behind them at once."""

LOOK_INTERVAL_S = 0.02
"""Shortest interval in s between two such calls. One takes up to 0.5 ms, in a turn that has 3 ms for messages."""

ENDS_AT_ONCE = 16
"""Connections that end in one turn at most, at about 0.15 ms each: all connections of a client can be lost at the same
moment. Other sockets that are ready then are handled in the next turn."""

READY_S = 0.003
"""Time in s for handling ready sockets in one turn. Hundreds of sessions may send at the same moment; those that are
left come first in the next turn. It is CPU time of this thread: by the clock, the journal's thread, which holds the
interpreter's lock meanwhile, would leave time for a message or two, and each turn costs a call of epoll."""


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
    _late: Sequence[tuple[int, int, object]] = ()
    """The sockets that were ready in the last turn and not handled: descriptor, events, and the object that had the
    descriptor then."""
    _next_look_s = 0.0
    """When epoll is next asked for other sockets beside those, by ``seconds``."""

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events and handles them.

        Args:
            timeout: longest wait in seconds; None for no limit.
        """
        selectables, seconds, poll = self._selectables, self.seconds, self._poller.poll
        is_behind = self.is_behind
        ready = self._still_ready() if is_behind else poll(-1 if timeout is None else timeout, READY_AT_ONCE)
        may_be_more = is_behind or len(ready) == READY_AT_ONCE
        now_s = seconds()
        if is_behind and now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_INTERVAL_S
            ready = self._with_others(ready, poll(0, len(ready) + LOOKED_AT_BEHIND))
        self.turn_end_s, end_s = now_s + TURN_S, now_s + READY_S
        # ``thread_time`` is a system call, and many turns have only one socket.
        thread_end_s = thread_time() + READY_S if len(ready) > 1 else 0.0
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
            # No socket is read twice in a turn; epoll returns those that it returned before behind all others.
            told.update(dict(ready))
            ready = [each for each in poll(0, READY_AT_ONCE) if each[0] not in told]
            may_be_more = len(ready) == READY_AT_ONCE

    doIteration = doPoll  # noqa: N815  Twisted's name

    def _leave(self, ready: list[tuple[int, int]]) -> None:
        """Leaves ready sockets to the next turn."""
        self.is_behind = True
        self._late = [(descriptor, event, self._selectables.get(descriptor)) for descriptor, event in ready]

    def _still_ready(self) -> list[tuple[int, int]]:
        """Returns the sockets that were left to this turn, without events that are no longer wanted.

        Only its own object reads from a descriptor, so it is still ready; at worst there is nothing to read.
        """
        late, self._late, self.is_behind = self._late, (), False
        ready = []
        for descriptor, event, selectable in late:
            if selectable is not None and self._selectables.get(descriptor) is selectable:
                if descriptor not in self._reads:
                    event &= ~_READABLE  # noqa: PLW2901
                if descriptor not in self._writes:
                    event &= ~_WRITABLE  # noqa: PLW2901
                ready.append((descriptor, event))
        return ready

    def _with_others(self, late: list[tuple[int, int]], told: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Returns the sockets that were left to this turn and ready ones of other lanes, the lanes in turn."""
        lane_of, descriptors = self._lane_of, {each[0] for each in late}
        behind = [each for each in told if each[0] not in descriptors]
        lanes = {lane_of(each) for each in late}
        others = [each for each in behind if lane_of(each) not in lanes]
        return in_turn([*late, *others], lane_of) if others or len(lanes) > 1 else late

    def _lane_of(self, ready: tuple[int, int]) -> object:
        """Returns the lane of a ready socket; a socket that is not a client's has a lane of its own."""
        protocol = getattr(self._selectables.get(ready[0]), "protocol", None)
        lane: object = getattr(protocol, "lane", None)
        if lane is None:
            # With TLS, the connection is wrapped in another protocol.
            lane = getattr(getattr(protocol, "wrappedProtocol", None), "lane", ready[0])
        return lane


def install() -> None:
    """Installs it as the reactor of the process, unless there is one already."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(RelayReactor())  # type: ignore[no-untyped-call]
