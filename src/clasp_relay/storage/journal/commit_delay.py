"""How long the next commit of the journal waits for more changes."""

from __future__ import annotations

from collections.abc import Callable

MANY_CHANGES = 64
"""A commit of fewer waits while each turn brings more of them: to wake the thread and to wait for the disk takes a
processor about as long as so many changes do."""

MAX_GROWTH_S = 0.002
"""How long it does so at most, in time that the event loop's thread works."""

MAX_DELAY_S = 0.03
"""How long a commit waits at most while there is more to read than a turn of the event loop has time for: time of the
event loop's thread, too, as for what is written meanwhile (``net.turn``)."""


class CommitDelay:
    """Says, turn by turn, whether the next commit waits.

    What fifty sessions say at once is read in two or three turns, what a thousand say in many. A commit for each turn's
    share of it writes the same pages of the file again and again, waits for the disk each time, and takes the
    interpreter's lock while the rest is read.

    Args:
        worked_s: seconds that the event loop's thread has worked.
    """

    def __init__(self, worked_s: Callable[[], float]) -> None:
        self._worked_s = worked_s
        self._since_s: float | None = None
        """Since when the next commit waits; None while it does not."""
        self._seen_seq = 0

    def saw(self, seq: int) -> None:
        """Is told that a commit waits for nothing more where this is still the last change."""
        self._seen_seq = seq

    def goes_on(self, seq: int, changes: int, *, is_behind: bool) -> bool:
        """Tells whether the commit waits for the next turn; to be asked once in each turn until it does not.

        Args:
            seq: the last change of the batch.
            changes: how many it has.
            is_behind: whether this turn has left something to be read.
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
