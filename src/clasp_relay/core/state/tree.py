"""A tree of addresses by their segments: the cost of a search depends on what matches, not on all addresses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TypeAlias

from clasp_relay.wire.address import Pattern

MAX_DEPTH = 32
"""Segments of an address that have a node each; the rest is one key. An address may have 128 segments, and as many
nodes would take a hundred times its own memory."""

_Node: TypeAlias = "dict[str, _Node | str]"

FIND_COST = 3_072
"""The cost of a search in one step, in entries that a wildcard passes: at most 1.5 ms."""

_NODE_COST = 4
"""The cost of a node, beside its entries."""

_HERE = ""
"""The key of the address that ends at a node; no segment is empty."""


class TooMuchError(Exception):
    """A search exceeds its limit."""


class _Budget:
    """The remaining cost of a search.

    Args:
        pattern: the pattern; its wildcards and segments determine the cost of a step.
        limit: in entries; None for no limit.
        takes_part: whether the first entries of a node with too many are searched.
    """

    __slots__ = ("_is_limited", "_left", "_node_cost", "_step_cost", "_takes_part")

    def __init__(self, pattern: Pattern, limit: int | None, *, takes_part: bool = False) -> None:
        self._takes_part = takes_part
        self._is_limited = limit is not None
        self._left = limit or 0
        self._node_cost = _NODE_COST + pattern.text.count("/") // 4
        self._step_cost = search_cost(pattern)

    def pay(self, entries: int, *, is_stepped: bool, is_whole: bool = False) -> int:
        """Takes the cost of a node.

        Args:
            entries: the number of its entries.
            is_stepped: whether the pattern is compared with each of them.
            is_whole: whether it is compared with the whole address.

        Returns:
            how many of its entries may be searched; fewer than all only with ``takes_part``, in the last node.

        Raises:
            TooMuchError: the cost exceeds the limit.
        """
        if not self._is_limited:
            return entries
        each = (self._step_cost * 2 if is_stepped else 1) * (MAX_DEPTH if is_whole else 1)
        left = self._left - self._node_cost - entries * each
        if left >= 0:
            self._left = left
            return entries
        some = (self._left - self._node_cost) // each if self._takes_part else 0
        self._left = 0
        if some <= 0:
            raise TooMuchError
        return some


def search_cost(pattern: Pattern) -> int:
    """Returns the factor by which a pattern's wildcards make comparing slower: 1 for up to three."""
    return 1 + pattern.text.count("*") // 4


class AddressTree:
    """A set of addresses that can be asked for those that match a pattern.

    A node is a dict from segment to node; an address without others below it is an entry of its parent's dict, which
    saves a dict for nearly every address.
    """

    def __init__(self) -> None:
        self._root: _Node = {}

    def add(self, address: str) -> None:
        """Adds an address; it must not be in the tree."""
        node = self._root
        *segments, last = address[1:].split("/", MAX_DEPTH)
        for segment in segments:
            child = node.get(segment)
            if child is None:
                child = node[segment] = {}
            elif isinstance(child, str):
                child = node[segment] = {_HERE: child}
            node = child
        child = node.get(last)
        if child is None:
            node[last] = address
        else:
            assert isinstance(child, dict), "an address was added twice"
            child[_HERE] = address

    def discard(self, address: str) -> None:
        """Removes an address that is in the tree, and the nodes that only led to it."""
        path: list[tuple[_Node, str]] = []
        node = self._root
        for segment in address[1:].split("/", MAX_DEPTH):
            path.append((node, segment))
            child = node[segment]
            if isinstance(child, str):
                break
            node = child
        else:
            path.append((node, _HERE))
        for parent, segment in reversed(path):
            del parent[segment]
            if parent:
                break

    def match(self, pattern: Pattern) -> Iterator[str]:
        """Yields the addresses that a pattern with wildcards matches, each once."""
        budget = _Budget(pattern, None)
        return chain.from_iterable(self._walk(self._root, pattern, pattern.start, 0, budget))

    def find(self, pattern: Pattern, max_cost: int | None = None) -> list[str] | None:
        """Returns the addresses that a pattern with wildcards matches, or None if the search would take too long.

        Args:
            pattern: the pattern.
            max_cost: limit of the cost, in entries that a wildcard passes; nodes, and entries that are compared, count
                for more. ``FIND_COST`` if not given.
        """
        found, is_all = self.search(pattern, FIND_COST if max_cost is None else max_cost)
        return found if is_all else None

    def search(self, pattern: Pattern, max_cost: int) -> tuple[list[str], bool]:
        """Returns addresses that a pattern with wildcards matches, and whether these are all; see ``find``."""
        found: list[str] = []
        try:
            for some in self._walk(self._root, pattern, pattern.start, 0, _Budget(pattern, max_cost)):
                found += some
        except TooMuchError:
            return found, False
        return found, True

    def first(self, pattern: Pattern, max_cost: int) -> list[str]:
        """Returns addresses that a pattern with wildcards matches, as far as a search of bounded cost finds them.

        Of a node with too many entries, the oldest ones are searched.

        Args:
            pattern: the pattern.
            max_cost: see ``find``. If nothing is found within it, the search goes on to ``FIND_COST`` to find one.

        Raises:
            TooMuchError: it is not known whether anything matches.
        """
        found: list[str] = []
        for cost in (max_cost, FIND_COST):
            try:
                for some in self._walk(self._root, pattern, pattern.start, 0, _Budget(pattern, cost, takes_part=True)):
                    found += some
            except TooMuchError:
                if found:
                    return found if cost == max_cost else found[:1]
            else:
                return found
        raise TooMuchError

    def _walk(self, node: _Node, pattern: Pattern, places: int, depth: int, budget: _Budget) -> Iterator[list[str]]:
        """Yields matching addresses below a node, in lists: single ones would pass through every generator above."""
        if depth == MAX_DEPTH:
            count = budget.pay(len(node), is_stepped=True, is_whole=True)
            children = list(islice(node.values(), count))
            yield [child for child in children if isinstance(child, str) and pattern.matches(child)]
            if count < len(node):
                raise TooMuchError
            return
        found: list[str] = []
        same = pattern.step_any(places)
        after, is_end = (0, False) if same is None else (same, pattern.accepts(same))
        literals = pattern.literals(places)
        entries = len(node) if literals is None else len(literals)
        count = budget.pay(entries, is_stepped=same is None)
        for segment, child in _candidates(node, literals, count):
            if same is None:
                after = pattern.step(places, segment)
                is_end = pattern.accepts(after)
            if isinstance(child, str):
                if is_end:
                    found.append(child)
            elif after:
                here = child.get(_HERE)
                if is_end and isinstance(here, str) and depth + 1 < MAX_DEPTH:
                    found.append(here)
                if found:
                    yield found
                    found = []
                yield from self._walk(child, pattern, after, depth + 1, budget)
        if found:
            yield found
        if count < entries:
            raise TooMuchError


def _candidates(node: _Node, literals: list[str] | None, count: int) -> list[tuple[str, _Node | str]]:
    """Returns those of the first ``count`` entries of a node that may match."""
    if literals is None:
        return [item for item in islice(node.items(), count) if item[0]]
    return [(segment, node[segment]) for segment in literals[:count] if segment in node]
