"""SNAPSHOTs: what a session may see of some params, in pieces that hold nobody up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clasp_relay.core.ports import NOT_YET
from clasp_relay.core.records import Param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.core.state.params import Params
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_SNAPSHOT_PARAMS
from clasp_relay.wire.messages import SnapshotParam

JUDGED_AT_ONCE = 64
"""How many params are judged before it is asked whether that was enough for a turn."""

PIECE_COST = 1024
"""How many params are judged in one turn where it is known what decides about them: 1 ms of work."""

FIND_COST = 2
"""The cost of a param whose rule has to be found first, in the same units."""

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
        return self._judged(session, params, None, is_owed=True)

    def of(self, session: Session, subscription: Subscription) -> Iterator[bytes] | None:
        """Yields the params that a subscription matches, as far as its session may see them.

        Returns:
            None where nothing matches: then there is no SNAPSHOT.
        """
        params = list(self._params.match(subscription.pattern))
        if not params:
            return None
        if self._permissions.is_open:
            return self.encode(session, params)
        return self._judged(session, params, subscription.pattern, is_owed=False)

    def encode(self, session: Session, params: Iterable[Param]) -> Iterator[bytes]:
        """Yields the SNAPSHOTs of params that the session may see."""
        return session.codec.snapshot(map(_entry, params))

    def _judged(
        self, session: Session, params: list[Param], pattern: Pattern | None, *, is_owed: bool
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
        self, session: Session, params: list[Param], pattern: Pattern | None
    ) -> Iterator[list[Param] | None]:
        """Yields, some at a time, params as a session sees them, and None where others should have their turn.

        They are judged when they are asked for, so that nobody waits until a hundred thousand are.
        """
        visibility = self._visibility
        piece: list[Param] = []
        cost, found = 0, visibility.found
        for start in range(0, len(params), JUDGED_AT_ONCE):
            current = self._current(session, params[start : start + JUDGED_AT_ONCE], pattern)
            piece += visibility.show(current, session, pattern)
            cost += JUDGED_AT_ONCE
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


def _is_told(session: Session, address: str) -> bool:
    """Tells whether a session has subscribed to an address."""
    return any(one.pattern.matches(address) for one in session.subscriptions.values())


def _entry(param: Param) -> SnapshotParam:
    address, value, revision, writer, timestamp_us, _, _, _ = param
    return _new(SnapshotParam, (address, value, revision, writer or None, timestamp_us))
