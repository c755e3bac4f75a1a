"""All known addresses by their segments, so that the cost of a pattern follows what matches it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

from clasp_relay.wire.address import Pattern

MAX_DEPTH = 32
"""How many segments lead to a node each; what follows them is one key. An address of the greatest length has
32,767 segments, and as many nodes would take a hundred times its own memory."""

_Node: TypeAlias = "dict[str, _Node | str]"

_HERE = ""
"""The key of the address that ends at a node; no segment is empty."""


class AddressTree:
    """A set of addresses that can be asked for those that match a pattern.

    A node is a dict from segment to node; an address below which nothing else lies stands in its parent's dict
    itself, which saves a dict for nearly every address.
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
        return chain.from_iterable(self._walk(self._root, pattern, pattern.start, 0))

    def _walk(self, node: _Node, pattern: Pattern, places: int, depth: int) -> Iterator[list[str]]:
        """Yields what matches below a node, some at a time: one by one they would pass all the nodes above."""
        if depth == MAX_DEPTH:
            yield [child for child in node.values() if isinstance(child, str) and pattern.matches(child)]
            return
        found: list[str] = []
        same = pattern.step_any(places)
        after, is_end = (0, False) if same is None else (same, pattern.accepts(same))
        for segment, child in _candidates(node, pattern, places):
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
                yield from self._walk(child, pattern, after, depth + 1)
        if found:
            yield found


def _candidates(node: _Node, pattern: Pattern, places: int) -> list[tuple[str, _Node | str]]:
    literals = pattern.literals(places)
    if literals is None:
        return [item for item in node.items() if item[0]]
    return [(segment, node[segment]) for segment in literals if segment in node]
