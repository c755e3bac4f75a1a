"""SNAPSHOTs: what a session may see of some params, in pieces that hold nobody up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from clasp_relay.core.ports import NOT_YET
from clasp_relay.core.records import Param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.core.state.params import Params
from clasp_relay.core.state.tree import search_cost
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_SNAPSHOT_PARAMS
from clasp_relay.wire.messages import SnapshotParam

JUDGED_AT_ONCE = 64
"""How many params are judged before it is asked whether that was enough for a turn."""

PIECE_COST = 1024
"""How many params are judged in one turn where it is known what decides about them: 1 ms of work."""

SEARCHED_AT_ONCE = 256
"""How much is looked for what matches, in the same units, before that is judged."""

FIND_COST = 2
"""The cost of a param whose rule has to be found first, in the same units."""

_Some: TypeAlias = "tuple[list[Param], int]"
"""Some params, and what it cost to come to them."""

# Skips the argument handling of the generated constructor: a newcomer gets thousands of params at once.
_new = tuple.__new__


class Snapshots:
    """Makes SNAPSHOTs in a session's codec.

    Args:
        permissions: whether anybody has to be asked, and the scopes.
        visibility: who sees what.
        params: what is set.
    """

    def __init__(self, permissions: Permissions, visibility: Visibility, params: Params) -> None:
        self._permissions = permissions
        self._visibility = visibility
        self._params = params

    def after_hello(self, session: Session) -> Iterator[bytes]:
        """Yields all that a new session may see, if the permissions want it told; else one empty SNAPSHOT."""
        permissions = self._permissions
        if permissions.is_open:
            return self.encode(session, self._params.all())
        params = self._params.all() if permissions.hello_snapshot else []
        return self._judged(session, _some(params), None, is_owed=True)

    def of(self, session: Session, subscription: Subscription) -> Iterator[bytes] | None:
        """Yields the params that a subscription matches, as far as its session may see them.

        Returns:
            None where nothing matches: then there is no SNAPSHOT. Where it takes long to find what matches, that is
            found on the way, and there may be no SNAPSHOT either.
        """
        pattern = subscription.pattern
        params = self._params.find(pattern)
        if params is None:
            every = self._params.all()
            return self._judged(session, _matching(every, pattern), pattern, is_owed=False)
        if not params:
            return None
        if self._permissions.is_open:
            return self.encode(session, params)
        return self._judged(session, _some(params), pattern, is_owed=False)

    def encode(self, session: Session, params: Iterable[Param]) -> Iterator[bytes]:
        """Yields the SNAPSHOTs of params that the session may see."""
        return session.codec.snapshot(map(_entry, params))

    def _judged(
        self, session: Session, params: Iterable[_Some], pattern: Pattern | None, *, is_owed: bool
    ) -> Iterator[bytes]:
        """Yields SNAPSHOTs of params that are judged on the way, and ``NOT_YET`` where others have their turn."""
        waiting: list[Param] = []
        for piece in self._in_pieces(session, params, pattern):
            if piece is None:
                yield NOT_YET
                continue
            waiting += piece
            full = len(waiting) - len(waiting) % MAX_SNAPSHOT_PARAMS
            if full:
                yield from self.encode(session, waiting[:full])
                waiting, is_owed = waiting[full:], False
        if waiting or is_owed:
            yield from self.encode(session, waiting)

    def _in_pieces(
        self, session: Session, params: Iterable[_Some], pattern: Pattern | None
    ) -> Iterator[list[Param] | None]:
        """Yields, some at a time, params as a session sees them, and None where others should have their turn.

        They are judged when they are asked for, so that nobody waits until a hundred thousand are.
        """
        visibility = self._visibility
        piece: list[Param] = []
        cost, found = 0, visibility.found
        for some, looked_at_cost in params:
            piece += visibility.show(self._current(session, some, pattern), session, pattern)
            cost += looked_at_cost
            if cost + FIND_COST * (visibility.found - found) >= PIECE_COST:
                yield piece
                yield None
                piece, cost, found = [], 0, visibility.found
        yield piece

    def _current(self, session: Session, params: list[Param], pattern: Pattern | None) -> list[Param]:
        """Returns what may be judged of captured params: those that are still what is set.

        What has changed since then its subscriber was told when it changed, as far as it may see it. A session that has
        said nothing but HELLO was told nothing: it gets what is set now.
        """
        get = self._params.get
        if pattern is not None:
            return [param for param in params if get(param.address) is param]
        who, can_read = session.identity, self._permissions.can_read
        current = []
        for captured in params:
            param = get(captured.address)
            is_news = param is captured or not _is_told(session, captured.address)
            if param is not None and is_news and can_read(who, param.address):
                current.append(param)
        return current


def _some(params: list[Param]) -> Iterator[_Some]:
    """Yields params some at a time."""
    for start in range(0, len(params), JUDGED_AT_ONCE):
        yield params[start : start + JUDGED_AT_ONCE], JUDGED_AT_ONCE


def _matching(params: list[Param], pattern: Pattern) -> Iterator[_Some]:
    """Yields some at a time, of all params, those that a pattern matches, and what it cost to look at the others."""
    matches, each = pattern.matches, search_cost(pattern)
    found: list[Param] = []
    cost = 0
    for param in params:
        address = param.address
        cost += each * (1 + address.count("/") // 4)
        if matches(address):
            found.append(param)
            cost += 1
        if cost >= SEARCHED_AT_ONCE:
            yield found, cost
            found, cost = [], 0
    yield found, cost


def _is_told(session: Session, address: str) -> bool:
    """Tells whether a session has subscribed to an address."""
    return any(one.pattern.matches(address) for one in session.subscriptions.values())


def _entry(param: Param) -> SnapshotParam:
    address, value, revision, writer, timestamp_us, _, _, _ = param
    return _new(SnapshotParam, (address, value, revision, writer or None, timestamp_us))
