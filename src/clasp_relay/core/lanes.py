"""Turns by client address: who has many connections does not have more of the event loop for that.

A *lane* is what connections share that have one place in a turn together: their client's address (of IPv6 its /64, see
``access.addresses.address_group``), or that of a proxy until it has said whose a connection is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """A queue of which one of each lane comes out in turn, and those of one lane in the order in which they came."""

    __slots__ = ("_lane_of", "_lanes")

    def __init__(self) -> None:
        self._lanes: OrderedDict[object, OrderedDict[T, None]] = OrderedDict()
        """The lane whose turn it is comes first; none is empty."""
        self._lane_of: dict[T, object] = {}

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, item: object) -> bool:
        return item in self._lane_of

    def add(self, item: T, lane: object) -> None:
        """Adds something behind all of its lane; what is there already keeps its place."""
        if item in self._lane_of:
            return
        self._lane_of[item] = lane
        items = self._lanes.get(lane)
        if items is None:
            items = self._lanes[lane] = OrderedDict()
        items[item] = None

    def pop(self) -> T:
        """Takes out the first of the lane whose turn it is.

        Raises:
            KeyError: there is nothing.
        """
        lane, items = self._lanes.popitem(last=False)
        item, _ = items.popitem(last=False)
        del self._lane_of[item]
        if items:
            self._lanes[lane] = items
        return item

    def discard(self, item: T) -> None:
        """Takes something out; harmless where it is not there."""
        if item in self._lane_of:
            lane = self._lane_of.pop(item)
            items = self._lanes[lane]
            del items[item]
            if not items:
                del self._lanes[lane]


def in_turn(items: Iterable[Any], lane_of: Callable[[Any], object]) -> list[Any]:
    """Returns the first of each lane, then the second of each, and so on; of one lane in the order that they had.

    Whoever takes some from the front and puts the rest, in this order, before what comes next, serves the lanes in
    turn, however little is taken each time. It takes about half a microsecond for each, so it is not called where a
    turn has time for all.

    Args:
        items: what is to be ordered.
        lane_of: returns the lane of one.
    """
    counts: dict[object, int] = {}

    def place(item: Any) -> int:
        lane = lane_of(item)
        counts[lane] = found = counts.get(lane, -1) + 1
        return found

    # It is asked once for each, in their order, and those of one place keep theirs.
    return sorted(items, key=place)
