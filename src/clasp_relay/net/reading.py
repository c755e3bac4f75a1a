"""Who is read from, and for how long in a turn, so that nobody's messages hold up those of all others.

What one read has brought may be thousands of messages, or some of the costly kind. The first message of a read is
handled as it comes; those behind it have a slice of the turn, and all such slices together a bounded part of it. What
is left waits for a later turn, and meanwhile nothing more is read from that connection. Each turn has another bounded
time for connections that wait, client addresses in turn (``core.lanes``); who begins to wait comes between those that
had a slice already.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.core.lanes import Lanes
from clasp_relay.logs import events

TURN_S = 0.006
"""How long a turn is, as far as what it does can wait: behind that everybody has the least share."""

LEAST_S = 0.0005
"""The least share of a turn: a piece of work or two. Nobody waits for ever, whatever else there is to do."""

SLICE_S = 0.002
"""How long one connection's messages are handled before it is the others' turn: a hundred usual ones."""

FRESH_S = 0.002
"""How much of a turn goes to what comes behind the first message of a read, for all connections together."""

REST_S = 0.002
"""How much of a turn goes to connections that wait. All such shares together end where the turn should end
(:func:`share_end_s`)."""


BUSY_STEP_S, MAX_BUSY_STEP_S = 0.0005, 0.01
"""First and longest interval between two looks whether a connection's message is still at work: in a cluster without a
decider it is for seconds."""


def share_end_s(reactor: Any, share_s: float) -> float:
    """Returns until when work that can go on in a later turn may go on in this one.

    Args:
        reactor: the reactor. One that does not tell when its turns began gives the whole share.
        share_s: how much of a turn the work may have at most.

    Returns:
        a time by ``reactor.seconds``, ``LEAST_S`` ahead at least.
    """
    now_s: float = reactor.seconds()
    turn_end_s: float = getattr(reactor, "turn_end_s", now_s + share_s)
    return min(now_s + share_s, max(turn_end_s, now_s + LEAST_S))


class Reader(Protocol):
    """A connection that has read more than it may handle in this turn."""

    @property
    def lane(self) -> str:
        """What has one place in a turn; see ``core.lanes``."""

    @property
    def is_busy(self) -> bool:
        """Whether what it has read waits for a message that is at work, not for time."""

    def go_on(self) -> None:
        """Handles what it has read, in a new slice."""


class Reading:
    """Gives connections their time.

    Args:
        reactor: for its clock, and for the next turn.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.now_s = reactor.seconds
        """Returns the time in s by which slices are measured."""
        self._new: Lanes[Reader] = Lanes()
        """Those that wait for their first slice."""
        self._waiting: Lanes[Reader] = Lanes()
        """Those that had a slice and have more."""
        self._is_owed = False
        """Whether the last turn had no slice for these, though they waited."""
        self._current: Reader | None = None
        """The one whose time it is of those that waited."""
        self._end_s = 0.0
        """Until when slices of a turn go; 0 before the first one."""
        self._turn_end_s: float | None = None
        """When that turn should end, which tells it from the others; None where the reactor does not say that."""
        self._busy: dict[Reader, None] = {}
        """Those that wait for a message that is at work."""
        self._look_s = 0.0
        """How long it takes until it is looked again whether they still do."""
        self._timer: IDelayedCall | None = None
        self._is_delayed = False
        """Whether the timer is only for those that are busy."""

    def __len__(self) -> int:
        return len(self._new) + len(self._waiting)

    def slice_end_s(self) -> float:
        """Returns until when, by ``now_s``, a connection may handle what came behind its first message."""
        if not self._end_s or self._turn_end_s != getattr(self._reactor, "turn_end_s", None):
            self._begin(FRESH_S)
            if self._turn_end_s is None:
                # The next turn has to begin with a call, which takes as long as a message.
                self._schedule()
        return min(self.now_s() + SLICE_S, self._end_s)

    def wait(self, reader: Reader) -> None:
        """Has a connection go on in a later turn, behind those of its lane that wait already."""
        queue = self._waiting if reader is self._current else self._new
        queue.add(reader, reader.lane)
        self._schedule()

    def forget(self, reader: Reader) -> None:
        """Lets a connection wait no longer, since it has ended."""
        self._new.discard(reader)
        self._waiting.discard(reader)
        self._busy.pop(reader, None)

    def _begin(self, share_s: float) -> None:
        """Begins the slices of this turn, which have so much of it."""
        self._turn_end_s = getattr(self._reactor, "turn_end_s", None)
        self._end_s = share_end_s(self._reactor, share_s)

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(0, self._next_turn)
        elif self._is_delayed:
            self._timer.reset(0)
        self._is_delayed = False

    def _look_at_busy(self) -> None:
        """Has those go on that are busy no longer; looks more and more rarely while there are none."""
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
        # They take turns, so that neither newcomers nor those with much to say wait for ever.
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
                # The fault of one connection keeps none of the others waiting.
                events.CONNECTION_FAULT.failure(action="went on with what it had read")
        self._current, self._end_s, self._is_owed = None, 0.0, is_owed
        if len(self):
            self._schedule()
        elif self._busy and self._timer is None:
            self._is_delayed = True
            self._timer = self._reactor.callLater(self._look_s, self._next_turn)
