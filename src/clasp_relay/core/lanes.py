"""Fair scheduling by client address: many connections do not get more of the event loop than one.

A *lane* is a queue for all connections of one client address (of IPv6 its /64, see ``access.addresses.address_group``),
or of a proxy until it has told the client's address. Lanes are served round robin.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """A queue served round robin over its lanes; within a lane, first in first out."""

    __slots__ = ("_lane_of", "_lanes")

    def __init__(self) -> None:
        self._lanes: OrderedDict[object, OrderedDict[T, None]] = OrderedDict()
        """The lanes, the next one to be served first; none is empty."""
        self._lane_of: dict[T, object] = {}

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, item: object) -> bool:
        return item in self._lane_of

    def add(self, item: T, lane: object) -> None:
        """Adds an item at the end of its lane; an item that is queued already keeps its place."""
        if item in self._lane_of:
            return
        self._lane_of[item] = lane
        items = self._lanes.get(lane)
        if items is None:
            items = self._lanes[lane] = OrderedDict()
        items[item] = None

    def pop(self) -> T:
        """Removes and returns the first item of the next lane.

        Raises:
            KeyError: the queue is empty.
        """
        lane, items = self._lanes.popitem(last=False)
        item, _ = items.popitem(last=False)
        del self._lane_of[item]
        if items:
            self._lanes[lane] = items
        return item

    def discard(self, item: T) -> None:
        """Removes an item; does nothing if it is not queued."""
        if item in self._lane_of:
            lane = self._lane_of.pop(item)
            items = self._lanes[lane]
            del items[item]
            if not items:
                del self._lanes[lane]


def in_turn(items: Iterable[Any], lane_of: Callable[[Any], object]) -> list[Any]:
    """Returns the first item of each lane, then the second of each, and so on; within a lane in the given order.

    A caller that takes some items from the front, and puts the rest in this order before later ones, serves the lanes
    round robin, however few it takes each time. This takes about 0.5 µs for each item, so it is not called where a turn
    has time for all.

    Args:
        items: the items.
        lane_of: returns the lane of an item.
    """
    counts: dict[object, int] = {}

    def place(item: Any) -> int:
        lane = lane_of(item)
        counts[lane] = found = counts.get(lane, -1) + 1
        return found

    # ``sorted`` calls the key once for each item, in order, and keeps the order of items with equal keys.
    return sorted(items, key=place)
