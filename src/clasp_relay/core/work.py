"""Runs long work in pieces: a bounded amount in each turn of the event loop, round robin over its owners.

Work is an iterator: each step does one piece and yields its cost. It begins at once if the turn has room, so that short
work is done in the same step; the rest waits for later turns, behind one piece of every other owner's work. The work of
one owner is done in the order in which it was added. All owners of one client address share one place in the turn, so
many sessions do not get more of it than one.

SNAPSHOTs and RESULTs are not here: how fast they go depends on their sockets, so ``net.turn`` paces them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

from clasp_relay.core.ports import Clock

TURN_US = 2_000
"""Time of the work in one turn in µs: of each piece its estimate, or the measured time if that is longer, as on a slow
or busy machine. Together with the SNAPSHOTs that a turn encodes it is about 4 ms."""

WAIT_US = 1
"""Estimated cost in µs to check whether a wait for other work is over."""

Pieces: TypeAlias = Iterator[int]
"""Work: each step does one piece, of at most 1 ms, and yields its estimated cost in µs, at least 1."""


class Work:
    """The pieces that wait, by their owners.

    Args:
        clock: calls back in the next turn, and measures the pieces.
        report_fault: called with every exception of a piece and a description of the action. The rest of that work is
            dropped.
    """

    def __init__(self, clock: Clock, report_fault: Callable[[str, Exception], None]) -> None:
        self._clock = clock
        self._report_fault = report_fault
        self._lanes: OrderedDict[object, OrderedDict[object, deque[Pieces]]] = OrderedDict()
        """By lane and owner; the next ones to be served come first."""
        self._left_us = TURN_US
        self._has_turn = False
        self._is_working = False
        self.turns = 0
        """Number of turns that did some work."""

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, owner: object, pieces: Pieces) -> None:
        """Adds work behind all other work of its owner.

        Args:
            owner: what causes the work: usually a session, or a tuple that ends with one. Its ``lane`` stands for its
                client address (``core.lanes``).
            pieces: the work.
        """
        lane = _lane_of(owner)
        owners = self._lanes.get(lane)
        if owners is None:
            owners = self._lanes[lane] = OrderedDict()
        queue = owners.get(owner)
        if queue is None:
            queue = owners[owner] = deque()
        queue.append(pieces)
        if not self._is_working:
            self._work()
            if self._left_us < TURN_US and not self._has_turn:
                self._end_turn()

    def _end_turn(self) -> None:
        """Begins the next turn."""
        self._has_turn = True
        self.turns += 1
        self._clock.call_later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._has_turn = False
        self._left_us = TURN_US
        if self._lanes:
            self._work()
            self._end_turn()

    def _work(self) -> None:
        self._is_working = True
        lanes = self._lanes
        while lanes and self._left_us > 0:
            lane, owners = next(iter(lanes.items()))
            owner, queue = next(iter(owners.items()))
            self._left_us -= self._do_piece(queue)
            if queue:
                owners.move_to_end(owner)
            else:
                del owners[owner]
            if owners:
                lanes.move_to_end(lane)
            else:
                del lanes[lane]
        self._is_working = False

    def _do_piece(self, queue: deque[Pieces]) -> int:
        """Does the next piece of an owner's first work, and returns what it cost."""
        began_us = self._clock.now_us()
        try:
            cost_us = next(queue[0], None)
        except Exception as fault:
            self._report_fault("work that was done in pieces", fault)
            cost_us = None
        if cost_us is None:
            queue.popleft()
            cost_us = 0
        return max(cost_us, self._clock.now_us() - began_us)


def _lane_of(owner: object) -> object:
    """Returns the lane of an owner; an owner without a client address has its own."""
    who = owner[-1] if isinstance(owner, tuple) else owner
    return getattr(who, "lane", "") or owner
