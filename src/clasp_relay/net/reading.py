"""Who is read from, and for how long in a turn, so that nobody's messages hold up those of all others.

What one read has brought may be thousands of messages, or some of the costly kind. A connection handles them for a
slice of the turn. What is left waits until the others had theirs, and meanwhile nothing more is read from it.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from clasp_relay.net.turn import TurnWriter

SLICE_S = 0.0015
"""How long one connection's messages are handled before it is the others' turn: some dozens of usual ones."""

TURN_S = 0.03
"""How long messages are handled in one turn of the event loop. Many clients with a message each share a turn, since
what they all cause is written together at its end: with 3 ms the benchmark `rooms` delivers less than half."""

REST_S = 0.003
"""How much of a turn goes to connections that have used up a slice before."""


class Reader(Protocol):
    """A connection that has read more than it may handle in this turn."""

    def go_on(self) -> None:
        """Handles what it has read, in a new slice."""


class Reading:
    """Gives connections their time.

    Args:
        reactor: for its clock, and for the next turn.
        writer: knows whether something has happened in this turn.
    """

    def __init__(self, reactor: IReactorTime, writer: TurnWriter) -> None:
        self._reactor = reactor
        self._writer = writer
        self.now_s = reactor.seconds
        """Returns the time in s that ``slice_end_s`` counts in."""
        self.slice_end_s = 0.0
        """Until when the connection that is read from may handle messages; the past where the turn is used up."""
        self._turn_end_s = 0.0
        self._flushes = 0
        """Those of the writer when the turn began."""
        self._waiting: dict[Reader, None] = {}
        self._is_scheduled = False

    def begin_slice(self) -> None:
        """Gives a connection its time; connections have theirs one after the other."""
        now_s, writer = self.now_s(), self._writer
        # What was handled in this turn nearly always has something written at its end.
        if writer.flushes != self._flushes or not (writer.is_scheduled or self._waiting):
            self._flushes = writer.flushes
            self._turn_end_s = now_s + TURN_S
        self.slice_end_s = min(now_s + SLICE_S, self._turn_end_s)

    def wait(self, reader: Reader) -> None:
        """Has a connection go on in a later turn, behind those that wait already."""
        self._waiting[reader] = None
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.callLater(0, self._next_turn)

    def forget(self, reader: Reader) -> None:
        """Lets a connection wait no longer, since it has ended."""
        self._waiting.pop(reader, None)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        now_s, self._flushes = self.now_s(), self._writer.flushes
        self._turn_end_s, rest_end_s = now_s + TURN_S, now_s + REST_S
        for _ in range(len(self._waiting)):
            if not self._waiting or self.now_s() >= rest_end_s:
                break
            reader = next(iter(self._waiting))
            del self._waiting[reader]
            reader.go_on()
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.callLater(0, self._next_turn)
