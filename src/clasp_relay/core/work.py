"""All work that takes longer than a moment, done in pieces: a bounded amount in each turn, its owners served in turn.

Whoever has such work makes it an iterator: each step does one piece and yields what it cost. Work begins at once, as
far as there is room in the turn, so that little work is done in the same step; the rest waits for the next turns behind
one piece of everybody else's. The work of one owner is done in the order in which it was added.

SNAPSHOTs and RESULTs are not here: how fast they go depends on their sockets, so ``net.turn`` paces them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

from clasp_relay.core.ports import Clock

TURN_US = 2_000
"""How much is done in one turn: by estimate, and by the clock where a piece takes longer, as on a slow or busy machine.
With the pieces of SNAPSHOTs that a turn encodes that is about 4 ms."""

WAIT_US = 1
"""About what it costs to look whether a wait for other work is over."""

Pieces: TypeAlias = Iterator[int]
"""Work: each step does one piece, of 1 ms at most, and yields what it cost by estimate, in µs; at least 1."""


class Work:
    """The pieces that wait, by their owners.

    Args:
        clock: calls in the next turn, and measures what the pieces take.
        report_fault: told of every exception of a piece, with a sentence about what was being done. The rest of that
            work is left out.
    """

    def __init__(self, clock: Clock, report_fault: Callable[[str, Exception], None]) -> None:
        self._clock = clock
        self._report_fault = report_fault
        self._queues: OrderedDict[object, deque[Pieces]] = OrderedDict()
        self._left_us = TURN_US
        self._has_turn = False
        self._is_working = False
        self.turns = 0
        """How many turns had work in them."""

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, owner: object, pieces: Pieces) -> None:
        """Adds work behind all other work of its owner.

        Args:
            owner: who causes it: a session, mostly.
            pieces: the work.
        """
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = deque()
        queue.append(pieces)
        if not self._is_working:
            self._work()
            if self._left_us < TURN_US and not self._has_turn:
                self._end_turn()

    def _end_turn(self) -> None:
        """Has the next turn begin, after one that did some work."""
        self._has_turn = True
        self.turns += 1
        self._clock.call_later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._has_turn = False
        self._left_us = TURN_US
        if self._queues:
            self._work()
            self._end_turn()

    def _work(self) -> None:
        self._is_working = True
        queues = self._queues
        while queues and self._left_us > 0:
            owner, queue = next(iter(queues.items()))
            self._left_us -= self._do_piece(queue)
            if queue:
                queues.move_to_end(owner)
            else:
                del queues[owner]
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
