"""Bounds the time for which one connection's messages are handled in a turn, so that they do not delay all others.

One read may have brought thousands of messages, or some costly ones. The first message of a read is handled at once;
those behind it have a *slice* of the turn, and all such slices together have a bounded part of it. What is left waits
for a later turn, and meanwhile nothing more is read from that connection. Each turn has another bounded time for
connections that wait, client addresses in turn (``core.lanes``); those that wait for their first slice alternate with
those that have had one.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.core.lanes import Lanes
from clasp_relay.logs import events

TURN_S = 0.006
"""Length of a turn in s, as far as its work can wait; after that each kind of work still has ``LEAST_S``."""

LEAST_S = 0.0005
"""Shortest share of a turn in s: a piece of work or two, so that no work waits for ever."""

SLICE_S = 0.002
"""Time in s for which one connection's messages are handled before it is the others' turn: a hundred usual ones."""

FRESH_S = 0.002
"""Time of a turn in s for messages behind the first one of a read, for all connections together."""

REST_S = 0.002
"""Time of a turn in s for connections that wait. All such shares together end where the turn should end
(:func:`share_end_s`)."""


BUSY_STEP_S, MAX_BUSY_STEP_S = 0.0005, 0.01
"""First and longest interval in s between two checks whether a connection's message is still being handled: in a
cluster without a decider this takes seconds."""


def share_end_s(reactor: Any, share_s: float) -> float:
    """Returns the time until which work that can go on in a later turn may go on in this one.

    Args:
        reactor: the reactor. If it does not tell when its turns should end, the work has its whole share.
        share_s: the share of a turn that the work may have at most, in s.

    Returns:
        a time by ``reactor.seconds``, ``LEAST_S`` ahead at least.
    """
    now_s: float = reactor.seconds()
    turn_end_s: float = getattr(reactor, "turn_end_s", now_s + share_s)
    return min(now_s + share_s, max(turn_end_s, now_s + LEAST_S))


class Reader(Protocol):
    """A connection that has received more than it may handle in this turn."""

    @property
    def lane(self) -> str:
        """Its lane (``core.lanes``)."""

    @property
    def is_busy(self) -> bool:
        """Whether its messages wait behind one that is being handled, not for a slice."""

    def go_on(self) -> None:
        """Handles the bytes that wait, in a new slice."""


class Reading:
    """Gives connections their slices.

    Args:
        reactor: for its clock, and for the next turn.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.now_s = reactor.seconds
        """Returns the current time in s, by which slices are measured."""
        self._new: Lanes[Reader] = Lanes()
        """Connections that wait for their first slice."""
        self._waiting: Lanes[Reader] = Lanes()
        """Connections that have had a slice and have more messages."""
        self._is_owed = False
        """Whether connections in ``_waiting`` got no slice in the last turn."""
        self._current: Reader | None = None
        """The connection that waited and has its slice now."""
        self._end_s = 0.0
        """When the slices of the turn end; 0 before the first one."""
        self._turn_end_s: float | None = None
        """When that turn should end, which identifies the turn; None if the reactor does not tell."""
        self._busy: dict[Reader, None] = {}
        """Connections whose messages wait behind one that is being handled."""
        self._look_s = 0.0
        """The interval in s until they are checked again."""
        self._timer: IDelayedCall | None = None
        self._is_delayed = False
        """Whether the timer is only for the next check of ``_busy``."""

    def __len__(self) -> int:
        return len(self._new) + len(self._waiting)

    def slice_end_s(self) -> float:
        """Returns the time, by ``now_s``, until which a connection may handle the messages behind its first one."""
        if not self._end_s or self._turn_end_s != getattr(self._reactor, "turn_end_s", None):
            self._begin(FRESH_S)
            if self._turn_end_s is None:
                # Such a reactor needs a call to begin the next turn; the call takes as long as a message.
                self._schedule()
        return min(self.now_s() + SLICE_S, self._end_s)

    def wait(self, reader: Reader) -> None:
        """Lets a connection go on in a later turn, behind those of its lane that already wait."""
        queue = self._waiting if reader is self._current else self._new
        queue.add(reader, reader.lane)
        self._schedule()

    def forget(self, reader: Reader) -> None:
        """Forgets a connection that has ended."""
        self._new.discard(reader)
        self._waiting.discard(reader)
        self._busy.pop(reader, None)

    def _begin(self, share_s: float) -> None:
        """Begins the slices of this turn, which have a share of it."""
        self._turn_end_s = getattr(self._reactor, "turn_end_s", None)
        self._end_s = share_end_s(self._reactor, share_s)

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(0, self._next_turn)
        elif self._is_delayed:
            self._timer.reset(0)
        self._is_delayed = False

    def _look_at_busy(self) -> None:
        """Lets connections go on that are no longer busy; checks less and less often while there are none."""
        free = [reader for reader in self._busy if not reader.is_busy]
        for reader in free:
            del self._busy[reader]
            self._new.add(reader, reader.lane)
        self._look_s = 0.0 if free else min(max(2 * self._look_s, BUSY_STEP_S), MAX_BUSY_STEP_S)

    def _next_turn(self) -> None:
        self._timer = None
        self._look_at_busy()
        self._begin(REST_S)
        end_s = self._end_s
        # The two queues alternate, so that no connection waits for ever in either.
        is_turn_of_new, is_owed = not self._is_owed, bool(self._waiting)
        for _ in range(len(self)):
            first, second = (self._new, self._waiting) if is_turn_of_new else (self._waiting, self._new)
            queue = first or second
            if not queue or self.now_s() >= end_s:
                break
            is_turn_of_new = not is_turn_of_new
            is_owed = is_owed and queue is self._new
            reader = queue.pop()
            if reader.is_busy:
                self._busy[reader] = None
                self._look_s = 0.0
                continue
            self._current = reader
            try:
                reader.go_on()
            except Exception:
                # An exception of one connection must not delay the others.
                events.CONNECTION_FAULT.failure(action="went on with what it had read")
        self._current, self._end_s, self._is_owed = None, 0.0, is_owed
        if len(self):
            self._schedule()
        elif self._busy and self._timer is None:
            self._is_delayed = True
            self._timer = self._reactor.callLater(self._look_s, self._next_turn)
