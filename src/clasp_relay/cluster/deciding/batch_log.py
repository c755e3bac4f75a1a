"""What a decider has gathered for the next batch: committed changes, and items about sessions, in their order.

Its size is estimated as it grows: every relay applies a batch in one turn, so a large one is closed, and writes are
refused while too much waits for the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from clasp_relay.cluster.exchange.batches import Group, Item, Marked
from clasp_relay.core.history.rules import Erasure
from clasp_relay.core.records import Change, ChangeKind, encode_change
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.storage.journal.journal_file import RECORDED_KINDS
from clasp_relay.wire.tuples import new_tuple

__all__ = ["MAX_BATCH_BYTES", "BatchLog", "Judged", "Row", "Sealed"]

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Memory limit of the changes that wait for the log. Beyond it writes are refused, so that they do not fill the memory
while the engine hangs."""

CHANGE_BYTES = 300
"""Memory that a change takes besides its bytes."""

MAX_BATCH_BYTES = 64 * 1024
"""A batch with more bytes than this is closed, since every relay applies it in one turn; a bundle is never split."""

Judged: TypeAlias = tuple[Change, "str | None", tuple[Erasure, ...]]
"""A change, the key under which history keeps it, and what it erases."""

Row: TypeAlias = tuple[Change, "str | None", tuple[Erasure, ...], bytes]
"""The same, and the encoded change."""


class Sealed(NamedTuple):
    """The items of one batch."""

    items: tuple[Item, ...]
    rows: tuple[Row, ...]
    """The changes among them, for the journal."""
    size_bytes: int


class BatchLog:
    """Implements ``core.ports.Log``: gathers committed changes; their answers follow in the same batch.

    Args:
        renewal: returns a renewed life time as it is recorded; None if it need not be.
    """

    is_immediate = False

    def __init__(self, renewal: Callable[[Change], Change | None]) -> None:
        self._renewal = renewal
        self.judge: Callable[[Change], Judged] | None = None
        """Returns what history does with a change; set if there are history rules."""
        self.waiting_bytes = 0
        """The size of closed batches that wait for the log; set by ``Appending``."""
        self.items: list[Item] = []
        self.rows: list[Row] = []
        self.size_bytes = 0
        self.mark = b""
        """The door's data about the changes that are committed now (``Marked``)."""
        self.when_filled: Callable[[], None] = _nothing
        """Called when something was gathered."""
        self.when_full: Callable[[], None] = _nothing
        """Called between two messages when the gathered batch is large enough to be closed."""

    def append(self, changes: Sequence[Change]) -> int:
        """See ``Log.append``."""
        if len(changes) == 1 and changes[0].kind is ChangeKind.WRITE and not self.mark:  # the usual SET
            change = changes[0]
            data = encode_change(change)
            self.items.append(new_tuple(Group, ((change,), (data,))))
            self.rows.append(self._row(change, data))
            self.size_bytes += CHANGE_BYTES + len(data)
            if len(self.items) == 1 or self.size_bytes > MAX_BATCH_BYTES:
                # After the first item the append is scheduled; a full batch is sealed even while one is on its way.
                self.when_filled()
        else:
            found = (self._renewal(each) if each.kind is ChangeKind.RENEWAL else each for each in changes)
            self._gather([each for each in found if each is not None])
        return 0

    def watch(self, recorded: Callable[[int], None]) -> None:
        """See ``Log.watch``; does nothing, since answers are in the batch."""

    def _gather(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        group = Group.of(changes)
        if self.mark:
            self.items.append(Marked(self.mark))
            self.size_bytes += len(self.mark)
        self.items.append(group)
        for change, data in zip(changes, group.encoded, strict=True):
            if change.kind in RECORDED_KINDS:
                self.rows.append(self._row(change, data))
            self.size_bytes += CHANGE_BYTES + len(data)
        self.when_filled()

    def _row(self, change: Change, data: bytes) -> Row:
        return (change, None, (), data) if self.judge is None else (*self.judge(change), data)

    def add(self, item: Item, size_bytes: int = CHANGE_BYTES) -> None:
        """Gathers an item that is no change."""
        self.items.append(item)
        self.size_bytes += size_bytes
        self.when_filled()

    def check(self) -> None:
        """See ``Log.check``."""
        if self.waiting_bytes + self.size_bytes > MAX_WAITING_BYTES:
            raise RequestError(ErrorCode.OVERLOADED, "too many changes wait to be recorded; try again in a moment")

    def close_if_full(self) -> None:
        """Closes the batch between two requests if it is large enough."""
        if self.size_bytes > MAX_BATCH_BYTES:
            self.when_full()

    def seal(self) -> list[Sealed]:
        """Closes the gathered batch.

        Returns:
            one batch, or none.
        """
        if not self.items:
            return []
        sealed = Sealed(tuple(self.items), tuple(self.rows), self.size_bytes)
        self.items, self.rows, self.size_bytes = [], [], 0
        return [sealed]


def _nothing() -> None:
    """Does nothing."""
