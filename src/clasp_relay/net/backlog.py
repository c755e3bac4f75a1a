"""The queue of a session whose socket is slower than its traffic (``docs/protocol.md``, Slow consumers).

Below its bound a backlog is a plain queue whose pieces are shared with other sessions. Once it exceeds the bound, it is
divided into frames with an index by address; from then on, until it has drained, each frame takes constant time,
however long the queue is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, cast

from clasp_relay.core.ports import NOT_YET, Frame, Kind
from clasp_relay.errors import CloseCode
from clasp_relay.logs import events
from clasp_relay.net.observer import Counters

NOT_YET_BYTES = 16 * 1024
"""The bytes that a ``NOT_YET`` of a snapshot counts for: about half a millisecond of work."""


MIN_FRAME_BYTES = 128
"""The bytes that a waiting frame counts for at least.

A frame takes up to 400 bytes beside its own: the objects, its entries in the queue and in the index. Frames of 13 bytes
that fill a bound took 16 times as much memory; counted like this they take less than 5 times as much.
"""


def _cost(frame: Frame) -> int:
    return max(len(frame.wire), MIN_FRAME_BYTES)


class Batch:
    """Frames that go to several sessions as one piece of bytes, shared by all of them.

    Args:
        frames: the frames, in order; needed one by one only for a session that is too slow.
        wire: their bytes, joined.
    """

    __slots__ = ("_cost_bytes", "frames", "wire")

    def __init__(self, frames: Sequence[Frame], wire: bytes) -> None:
        self.frames = frames
        self.wire = wire
        self._cost_bytes = 0

    @property
    def cost_bytes(self) -> int:
        """The bytes that it counts for in a backlog; computed once for all sessions, and only if one is slow."""
        if not self._cost_bytes:
            self._cost_bytes = sum(map(_cost, self.frames))
        return self._cost_bytes


def give_up(frames: Iterator[bytes]) -> None:
    """Closes an iterator of frames that are dropped, if it can be closed."""
    close: Callable[[], None] | None = getattr(frames, "close", None)
    if close is not None:
        close()


class Snapshot:
    """The frames of a SNAPSHOT, encoded while the socket drains; see ``core.ports.Outbox.send_snapshot``."""

    __slots__ = ("frames", "key")

    def __init__(self, key: object, frames: Iterator[bytes]) -> None:
        self.key = key
        self.frames = frames

    def give_up(self) -> None:
        """Drops the remaining frames, and closes their iterator, which may count the memory that it keeps."""
        frames, self.frames = self.frames, iter(())
        try:
            give_up(frames)
        except Exception:
            events.CONNECTION_FAULT.failure(action="gave up a snapshot")


class Close:
    """The close of a session, after all frames before it."""

    __slots__ = ("code", "reason")

    def __init__(self, code: CloseCode, reason: str) -> None:
        self.code = code
        self.reason = reason


Item: TypeAlias = Frame | Batch
"""An item of a session's queue."""


class _Index:
    """The index of waiting frames that may be dropped, by their numbers in the queue."""

    __slots__ = ("droppable", "latest", "superseded")

    def __init__(self) -> None:
        self.latest: dict[str, int] = {}
        self.superseded: set[int] = set()
        self.droppable: deque[int] = deque()

    def add(self, number: int, frame: Frame) -> None:
        """Adds the frame at the tail."""
        if frame.kind == Kind.PARAM:
            older = self.latest.get(frame.address)
            if older is not None:
                self.superseded.add(older)
            self.latest[frame.address] = number
        elif frame.kind == Kind.DROP:
            self.droppable.append(number)

    def sent(self, number: int, frame: Frame) -> None:
        """Removes the frame at the head."""
        if frame.kind == Kind.PARAM:
            if self.latest.get(frame.address) == number:
                del self.latest[frame.address]
            self.superseded.discard(number)
        elif frame.kind == Kind.DROP:
            self.droppable.popleft()


class Backlog:
    """A session's waiting frames, snapshots and its Close, in order.

    Args:
        counters: where coalesced and dropped frames are counted.
    """

    __slots__ = ("_counters", "_free_bytes", "_index", "_items", "_next", "_snapshots", "size_bytes")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # An OrderedDict, since removing the first key of a plain dict gets slower with each removal.
        self._items: OrderedDict[int, Item | Snapshot | Close] = OrderedDict()
        self._snapshots: dict[object, int] = {}
        self._index: _Index | None = None
        self._next = 0
        self.size_bytes = 0
        """The bytes that wait, a frame as ``MIN_FRAME_BYTES`` at least; snapshots are not counted."""
        self._free_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def first(self) -> Item | Snapshot | Close | None:
        """The item at the head, or None."""
        return next(iter(self._items.values()), None)

    def push(self, item: Item | Snapshot | Close) -> None:
        """Adds an item at the tail. A snapshot replaces a waiting one with an equal key."""
        if isinstance(item, Frame):
            self._push_frame(item)
        elif isinstance(item, Batch):
            self._push_batch(item)
        else:
            if isinstance(item, Snapshot):
                older = self._snapshots.pop(item.key, None)
                if older is not None:
                    cast("Snapshot", self._items.pop(older)).give_up()
                self._snapshots[item.key] = self._next
            self._append(item)

    def push_free(self, item: Item) -> None:
        """Adds an item at the tail that does not count against the bound: it waits for the relay, not for the peer."""
        before = self.size_bytes
        self.push(item)
        self._free_bytes += self.size_bytes - before

    @property
    def counted_bytes(self) -> int:
        """The bytes that count against the bound."""
        return self.size_bytes - self._free_bytes

    def shrink(self, limit_bytes: int) -> bool:
        """Drops frames until the rest fits: replaced values of params, then streams and gesture moves, oldest first.

        Args:
            limit_bytes: the bound; called only when more than that is counted.

        Returns:
            Whether the frames that must not be dropped fit.
        """
        limit_bytes += self._free_bytes
        index = self._index or self._take_apart()
        for number in index.superseded:
            self._remove(number)
        self._counters.coalesced += len(index.superseded)
        index.superseded.clear()
        droppable = index.droppable
        while self.size_bytes > limit_bytes and droppable:
            self._remove(droppable.popleft())
            self._counters.dropped += 1
        self._free_bytes = min(self._free_bytes, self.size_bytes)
        return self.size_bytes <= limit_bytes

    def take(self, limit_bytes: int, snapshot_bytes: int, is_over: Callable[[], bool]) -> tuple[list[bytes], int]:
        """Takes about ``limit_bytes`` from the head, up to a Close, which stays.

        Args:
            limit_bytes: stops after this many bytes.
            snapshot_bytes: stops after this many encoded bytes of snapshots.
            is_over: tells whether the time for snapshots is over; called before each piece of one.

        Returns:
            The bytes in pieces, and the encoded bytes of snapshots among them; each ``NOT_YET`` counts as
            ``NOT_YET_BYTES``.
        """
        parts: list[bytes] = []
        size = encoded = 0
        items = self._items
        while items and size < limit_bytes:
            number, item = next(iter(items.items()))
            if isinstance(item, Snapshot):
                if encoded >= snapshot_bytes or is_over():
                    break
                piece = self._encode_next(item, parts)
                size += piece
                encoded += piece
            elif isinstance(item, Close):
                break
            else:
                del items[number]
                parts.append(item.wire)
                size += len(item.wire)
                cost = item.cost_bytes if isinstance(item, Batch) else _cost(item)
                self.size_bytes -= cost
                self._free_bytes = max(self._free_bytes - cost, 0)
                if self._index is not None:
                    self._index.sent(number, item)  # type: ignore[arg-type]  # an index means: frames only
        if not items:
            self._index = None
        return parts, encoded

    @property
    def snapshots(self) -> int:
        """Number of waiting snapshots."""
        return len(self._snapshots)

    def clear(self) -> None:
        """Drops everything."""
        for number in self._snapshots.values():
            cast("Snapshot", self._items[number]).give_up()
        self._reset()

    def _reset(self) -> None:
        self._items.clear()
        self._snapshots.clear()
        self._index = None
        self.size_bytes = self._free_bytes = 0

    def _append(self, item: Item | Snapshot | Close) -> None:
        self._items[self._next] = item
        self._next += 1

    def _push_frame(self, frame: Frame) -> None:
        self.size_bytes += _cost(frame)
        if self._index is not None:
            self._index.add(self._next, frame)
        self._append(frame)

    def _push_batch(self, batch: Batch) -> None:
        if self._index is None:
            self.size_bytes += batch.cost_bytes
            self._append(batch)
        else:
            for frame in batch.frames:
                self._push_frame(frame)

    def _remove(self, number: int) -> None:
        frame = self._items.pop(number)
        self.size_bytes -= _cost(frame)  # type: ignore[arg-type]  # only frames are in the index

    def _encode_next(self, snapshot: Snapshot, parts: list[bytes]) -> int:
        try:
            wire = next(snapshot.frames, None)
        except Exception:
            events.CONNECTION_FAULT.failure(action="encoded a snapshot, whose rest is left out")
            snapshot.give_up()
            wire = None
        if wire is None:
            del self._items[self._snapshots.pop(snapshot.key)]
            return 0
        if wire == NOT_YET:
            return NOT_YET_BYTES
        parts.append(wire)
        return len(wire)

    def _take_apart(self) -> _Index:
        items, free_bytes = list(self._items.values()), self._free_bytes
        self._reset()
        self._free_bytes = free_bytes
        index = self._index = _Index()
        for item in items:
            self.push(item)
        return index
