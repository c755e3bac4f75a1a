"""The subscriptions: a trie of patterns that is searched by address.

The subscriptions with one pattern share a :class:`Node`. The nodes whose patterns match an address make its
:class:`Route`; addresses with the same nodes share one route, and everything that was computed for it. So a new member
of a room costs the room one list, whatever the number of its addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import compress
from typing import NamedTuple, TypeAlias

from clasp_relay.core.ports import Audience
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.wire.address import Pattern, match_pieces
from clasp_relay.wire.constants import Signal

MAX_ROUTES = 32_768
"""Routes that are remembered, by address and by nodes; beyond it all are forgotten."""

MAX_REMEMBERED_ADDRESS = 512
"""Longer addresses are not remembered: 32,768 of the longest would be 2 GiB."""


class Delivery(NamedTuple):
    """The recipients of a signal on one route."""

    audiences: tuple[Audience, ...]
    """The sessions that get every message, one audience for each codec."""
    throttled: tuple[tuple[Session, tuple[Subscription, ...]], ...]
    """The sessions with maxRate or epsilon, each with all its matching subscriptions."""


_Partial: TypeAlias = "tuple[tuple[str, ...], Node]"
"""The pieces between the wildcards of a partial segment, and its node."""

_NO_NODES: dict[str, Node] = {}
_NO_SUBSCRIPTIONS: dict[Subscription, None] = {}
"""An empty table that is never altered, for all nodes: an empty dict takes 64 bytes, and a long pattern has a hundred
nodes."""


class Node:
    """The end of one pattern in the trie."""

    __slots__ = (
        "globstar",
        "is_globstar",
        "literals",
        "parent",
        "partials",
        "partials_by_piece",
        "routes",
        "segment",
        "star",
        "subscriptions",
    )

    def __init__(self, parent: Node | None, segment: str) -> None:
        self.parent = parent
        self.segment = segment
        self.is_globstar = segment == "**"
        # Most nodes have one child and no subscription, so empty tables are shared.
        self.literals: dict[str, Node] = _NO_NODES
        self.partials: dict[str, Node] = _NO_NODES
        self.partials_by_piece: dict[str, list[_Partial]] | None = None
        self.star: Node | None = None
        self.globstar: Node | None = None
        self.subscriptions: dict[Subscription, None] = _NO_SUBSCRIPTIONS
        self.routes: dict[Route, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether this node has neither children nor subscriptions."""
        return not (self.subscriptions or self.literals or self.partials or self.star or self.globstar)

    def child(self, segment: str) -> Node | None:
        """Returns the child for one segment of a pattern, if there is one."""
        if segment == "**":
            return self.globstar
        if segment == "*":
            return self.star
        if "*" in segment:
            return self.partials.get(segment)
        return self.literals.get(segment)

    def adopt(self, segment: str) -> Node:
        """Adds the child for one segment of a pattern."""
        child = Node(self, segment)
        if segment == "**":
            self.globstar = child
        elif segment == "*":
            self.star = child
        elif "*" in segment:
            if self.partials is _NO_NODES:
                self.partials = {}
            self.partials[segment] = child
            self.partials_by_piece = None
        else:
            if self.literals is _NO_NODES:
                self.literals = {}
            self.literals[segment] = child
        return child

    def matching(self, segment: str) -> Iterable[Node]:
        """Yields the nodes of the partial segments that match a segment of an address.

        Of a thousand, nearly all are ruled out by their longest piece, without a step in Python for each.
        """
        by_piece = self.partials_by_piece
        if by_piece is None:
            by_piece = self.partials_by_piece = {}
            for text, node in self.partials.items():
                pieces = tuple(text.split("*"))
                by_piece.setdefault(max(pieces, key=len), []).append((pieces, node))
        for partials in compress(by_piece.values(), map(segment.__contains__, by_piece)):
            for pieces, node in partials:
                if match_pieces(pieces, segment):
                    yield node

    def abandon(self, segment: str) -> None:
        """Removes the child for one segment of a pattern."""
        if segment == "**":
            self.globstar = None
        elif segment == "*":
            self.star = None
        elif "*" in segment:
            del self.partials[segment]
            self.partials_by_piece = None
        else:
            del self.literals[segment]


class Route:
    """The nodes that match some addresses, and the recipients of each signal there, computed when first needed.

    Args:
        nodes: the ends of the matching patterns, each with at least one subscription.
    """

    __slots__ = ("deliveries", "nodes")

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.nodes = nodes
        self.deliveries: list[Delivery | None] = [None] * len(Signal)


class SubscriptionTable:
    """All subscriptions of all sessions."""

    def __init__(self) -> None:
        self._root = Node(None, "")
        self._literals: dict[str, Node] = {}
        self._by_address: dict[str, Route] = {}
        self._by_nodes: dict[tuple[Node, ...], Route] = {}
        self._count = 0
        self.found = 0
        """Number of searches of the trie."""
        self.outdated: Callable[[Route], None] = lambda _route: None
        """Called with every route whose deliveries have to be computed again, or that has ended."""

    def __len__(self) -> int:
        return self._count

    def add(self, subscription: Subscription) -> None:
        """Adds a subscription."""
        node = self._place(subscription.pattern)
        if not node.subscriptions:
            self._by_address = {}
        if node.subscriptions is _NO_SUBSCRIPTIONS:
            node.subscriptions = {}
        node.subscriptions[subscription] = None
        subscription.node = node
        self._count += 1
        self._outdate(node)

    def remove(self, subscription: Subscription) -> None:
        """Removes a subscription that was added."""
        node = subscription.node
        assert isinstance(node, Node), "removed a subscription that was not added"
        subscription.node = None
        del node.subscriptions[subscription]
        self._count -= 1
        self._outdate(node)
        if not node.subscriptions:
            self._by_address = {}
            for route in node.routes:
                for other in route.nodes:
                    if other is not node:
                        other.routes.pop(route, None)
                del self._by_nodes[route.nodes]
            node.routes.clear()
            if subscription.pattern.is_literal:
                del self._literals[subscription.pattern.text]
            else:
                _prune(node)

    def route(self, address: str) -> Route:
        """Returns the route of an address."""
        route = self._by_address.get(address)
        if route is None:
            route = self._find(address)
        return route

    def _place(self, pattern: Pattern) -> Node:
        """Returns the node at the end of a pattern; one without wildcards is not in the trie."""
        if pattern.is_literal:
            return self._literals.setdefault(pattern.text, Node(None, pattern.text))
        node = self._root
        for segment in pattern.segments:
            node = node.child(segment) or node.adopt(segment)
        return node

    def _find(self, address: str) -> Route:
        self.found += 1
        nodes = self._reach(address)
        route = self._by_nodes.get(nodes)
        if route is None:
            if len(self._by_nodes) >= MAX_ROUTES:
                self._forget_routes()
            route = self._by_nodes[nodes] = Route(nodes)
            for node in nodes:
                node.routes[route] = None
        if len(address) <= MAX_REMEMBERED_ADDRESS:
            if len(self._by_address) >= MAX_ROUTES:
                self._by_address = {}
            self._by_address[address] = route
        return route

    def _reach(self, address: str) -> tuple[Node, ...]:
        """Walks the trie, at each segment with the set of all nodes that the segments so far match."""
        literal = self._literals.get(address)
        found = () if literal is None else (literal,)
        here: dict[Node, None] = {}
        _enter(self._root, here)
        for segment in address.split("/")[1:]:
            after: dict[Node, None] = {}
            for node in here:
                if node.is_globstar:
                    _enter(node, after)
                child = node.literals.get(segment)
                if child is not None:
                    _enter(child, after)
                if node.star is not None:
                    _enter(node.star, after)
                if node.partials:
                    for partial in node.matching(segment):
                        _enter(partial, after)
            if not after:
                return found
            here = after
        return (*found, *(node for node in here if node.subscriptions))

    def _outdate(self, node: Node) -> None:
        for route in node.routes:
            route.deliveries = [None] * len(Signal)
            self.outdated(route)

    def _forget_routes(self) -> None:
        for nodes, route in self._by_nodes.items():
            self.outdated(route)
            for node in nodes:
                node.routes.clear()
        self._by_nodes = {}
        self._by_address = {}


def _enter(node: Node, into: dict[Node, None]) -> None:
    """Adds a node, and its child for a ``**`` that matches no segment."""
    into[node] = None
    while node.globstar is not None:
        node = node.globstar
        into[node] = None


def _prune(node: Node) -> None:
    while node.parent is not None and node.is_empty:
        node.parent.abandon(node.segment)
        node = node.parent
