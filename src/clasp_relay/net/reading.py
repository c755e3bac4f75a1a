"""Who is read from, and for how long in a turn, so that nobody's messages hold up those of all others.

What one read has brought may be thousands of messages, or some of the costly kind. A connection handles them for a
slice of the turn. What is left waits for a later turn, and meanwhile nothing more is read from it. Each turn has a
bounded time for those that wait, one after the other; what others send is handled as it comes.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

SLICE_S = 0.002
"""How long one connection's messages are handled before it is the others' turn: a hundred usual ones."""

REST_S = 0.004
"""How much of a turn goes to connections that have used up a slice before."""


class Reader(Protocol):
    """A connection that has read more than it may handle in this turn."""

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
        self._waiting: dict[Reader, None] = {}
        self._is_scheduled = False

    def wait(self, reader: Reader) -> None:
        """Has a connection go on in a later turn, behind those that wait already."""
        self._waiting[reader] = None
        self._schedule()

    def forget(self, reader: Reader) -> None:
        """Lets a connection wait no longer, since it has ended."""
        self._waiting.pop(reader, None)

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        end_s = self.now_s() + REST_S
        for _ in range(len(self._waiting)):
            if not self._waiting or self.now_s() >= end_s:
                break
            reader = next(iter(self._waiting))
            del self._waiting[reader]
            reader.go_on()
        self._schedule()
