"""Twisted's epoll reactor with a shorter way from a socket that can be read to its protocol, and with short turns.

Twisted enters a log context for each event, which takes as long as all that the relay does with a SET. The
relay's log has no use for it. What can only be read goes straight to ``doRead``; everything else goes Twisted's way.

A turn is what happens between two waits: first the sockets that are ready, for ``READY_S``, then the calls that are
due. Those that can go on in a later turn ask how much of this one is theirs (``net.reading.share_end_s``).

Sockets are handled in the order in which they became ready, as long as there is time for all. Once there is not, client
addresses take turns (``core.lanes``): one with a single socket waits for one of each other address, and for
``LOOK_INTERVAL_S`` at most until it is found.
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

READY_AT_ONCE = 64
"""How many sockets epoll is asked for at a time. The system tells those first that it has told least recently. To be
told of a thousand in each of the turns that they take costs a tenth of what is done for their messages."""

LOOKED_AT_BEHIND = 256
"""Of how many sockets the system is asked in a turn that begins with what the last one had no time for. All that are
busy at one client address are no more (``NetLimits``), so that another address is found behind them at once."""

LOOK_INTERVAL_S = 0.02
"""Shortest interval between two such looks. One takes 0.15 ms, in a turn that has 3 ms for messages."""

ENDS_AT_ONCE = 16
"""How many connections end in one turn, at about 0.15 ms each; all of a client's can be torn off in one moment. What
else is ready then is handled in the next turn."""

READY_S = 0.003
"""How long sockets that are ready are handled in one turn. Hundreds of sessions may send something at the same moment;
those whose turn does not come are first in the next one. It is time of this thread: what the journal's thread takes
of the interpreter's lock would leave a turn of a message or two, and each turn asks for what is ready."""


class RelayReactor(EPollReactor):
    """An epoll reactor without a log context for what is read. Made once for a process, by :func:`install`."""

    _poller: Any
    _reads: set[int]
    _writes: set[int]
    _selectables: dict[int, Any]
    seconds: Any = monotonic
    """The time in s by which calls are made; the machine's clock may be set."""
    turn_end_s = 0.0
    """When this turn should end, by ``seconds``."""
    is_behind = False
    """Whether something was ready in this turn that is handled in the next one."""
    _late: Sequence[tuple[int, int, object]] = ()
    """What was ready in the last turn and was not handled: descriptors, events, and whose they were."""
    _next_look_s = 0.0
    """From when on it is looked for other sockets beside those, by ``seconds``."""

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events and handles them.

        Args:
            timeout: seconds; None for as long as it takes.
        """
        selectables, seconds, poll = self._selectables, self.seconds, self._poller.poll
        is_behind = self.is_behind
        ready = self._still_ready() if is_behind else poll(-1 if timeout is None else timeout, READY_AT_ONCE)
        may_be_more = is_behind or len(ready) == READY_AT_ONCE
        now_s = seconds()
        if is_behind and now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_INTERVAL_S
            ready = self._with_others(ready, poll(0, LOOKED_AT_BEHIND))
        self.turn_end_s, end_s = now_s + TURN_S, now_s + READY_S
        # A system call, and many turns have one socket.
        thread_end_s = thread_time() + READY_S if len(ready) > 1 else 0.0
        handled = ends = 0
        told: set[int] = set()
        while True:
            for number, (descriptor, event) in enumerate(ready):
                # The cheaper clock first: the thread's own time is not behind it.
                if handled and (ends == ENDS_AT_ONCE or (seconds() >= end_s and thread_time() >= thread_end_s)):
                    self._leave(ready[number:])
                    return
                handled += 1
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
            if not may_be_more:
                return
            # Nobody is read twice in a turn; who is told again comes behind those who were not told yet.
            told.update(dict(ready))
            ready = [each for each in poll(0, READY_AT_ONCE) if each[0] not in told]
            may_be_more = len(ready) == READY_AT_ONCE

    doIteration = doPoll  # noqa: N815  Twisted's name

    def _leave(self, ready: list[tuple[int, int]]) -> None:
        """Leaves what is ready to the next turn."""
        self.is_behind = True
        self._late = [(descriptor, event, self._selectables.get(descriptor)) for descriptor, event in ready]

    def _still_ready(self) -> list[tuple[int, int]]:
        """Returns what was left to this turn, without what nobody wants to read or write any more.

        Nobody reads from a descriptor but whose it is, so what was ready still is; at worst there is nothing to read.
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
        """Returns what was left to this turn and what other lanes have ready, the lanes in turn."""
        lane_of, descriptors = self._lane_of, {each[0] for each in late}
        behind = [each for each in told if each[0] not in descriptors]
        lanes = {lane_of(each) for each in late}
        others = [each for each in behind if lane_of(each) not in lanes]
        return in_turn([*late, *others], lane_of) if others or len(lanes) > 1 else late

    def _lane_of(self, ready: tuple[int, int]) -> object:
        """Returns the lane of a socket that is ready; one that is no client's is alone."""
        protocol = getattr(self._selectables.get(ready[0]), "protocol", None)
        lane: object = getattr(protocol, "lane", None)
        if lane is None:
            # Under TLS the connection is behind another protocol.
            lane = getattr(getattr(protocol, "wrappedProtocol", None), "lane", ready[0])
        return lane


def install() -> None:
    """Makes it the process's reactor, unless there is one."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(RelayReactor())  # type: ignore[no-untyped-call]
