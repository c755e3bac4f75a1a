"""How long the next commit of the journal waits for more changes."""

from __future__ import annotations

from collections.abc import Callable

MANY_CHANGES = 64
"""A commit of fewer changes waits while each turn brings more of them: waking the thread and waiting for the disk take
about as much processor time as this many changes."""

MAX_GROWTH_S = 0.002
"""How long a commit waits at most for more changes, in CPU time of the event loop's thread."""

MAX_DELAY_S = 0.03
"""How long a commit waits at most while sockets have more to read than fits into a turn of the event loop, also in CPU
time of its thread. Writes to sockets wait as long (``net.turn``)."""


class CommitDelay:
    """Decides in each turn whether the next commit waits.

    Messages that fifty sessions send at the same time are read in two or three turns, those of a thousand in many. A
    commit for each turn's share of them would write the same pages of the file again and again, wait for the disk each
    time, and take the interpreter's lock while the other messages are read.

    Args:
        worked_s: returns the CPU time of the event loop's thread in seconds.
    """

    def __init__(self, worked_s: Callable[[], float]) -> None:
        self._worked_s = worked_s
        self._since_s: float | None = None
        """When the next commit began to wait; None while none waits."""
        self._seen_seq = 0

    def saw(self, seq: int) -> None:
        """Notes the last change; while no other one follows, a commit does not wait for more of them."""
        self._seen_seq = seq

    def goes_on(self, seq: int, changes: int, *, is_behind: bool) -> bool:
        """Tells whether the commit waits for the next turn; called once in each turn until it does not.

        Args:
            seq: the last change of the batch.
            changes: how many it has.
            is_behind: whether this turn has left messages unread.
        """
        is_growing = self._seen_seq != seq and changes < MANY_CHANGES
        self._seen_seq = seq
        if is_behind or is_growing:
            now_s = self._worked_s()
            if self._since_s is None:
                self._since_s = now_s
            if now_s - self._since_s < (MAX_DELAY_S if is_behind else MAX_GROWTH_S):
                return True
        self._since_s = None
        return False
