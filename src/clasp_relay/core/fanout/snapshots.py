"""SNAPSHOTs: the params that a session may see, judged and encoded in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from clasp_relay.core.fanout.waiting import Capture, Entry, WaitingTable
from clasp_relay.core.ports import NOT_YET, Clock
from clasp_relay.core.records import Param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.core.state.params import Params
from clasp_relay.core.state.tree import search_cost
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_SNAPSHOT_PARAMS
from clasp_relay.wire.messages import SnapshotParam
from clasp_relay.wire.tuples import new_tuple

JUDGED_AT_ONCE, FEW = 64, 8
"""Params that are judged before the time of the turn is checked: few where a decision is not remembered."""

PIECE_COST = 512
"""Params that are judged in one piece where their rules are known: half a millisecond of work."""

SEARCHED_AT_ONCE = 256
"""Cost of the search for matching params, in the same units, before those found are judged."""

FIND_COST, JUDGE_COST = 32, 96
"""The cost of finding the rule of a param, and of a decision that is not remembered, in the same units."""

SOME_BYTES = 48 * 1024
"""Bytes of values that are handled together: a begun piece is kept in memory until it was sent."""

_Some: TypeAlias = "tuple[Sequence[Entry], int]"
"""Some params, and what it cost to find them."""


class Snapshots:
    """Makes SNAPSHOTs in a session's codec.

    Args:
        permissions: whether there are any, and the scopes.
        visibility: who sees what.
        params: the state.
        clock: the timers.
    """

    def __init__(self, permissions: Permissions, visibility: Visibility, params: Params, clock: Clock) -> None:
        self._permissions = permissions
        self._visibility = visibility
        self._params = params
        self.waiting = WaitingTable(params, clock)
        """All SNAPSHOTs and RESULTs that are not sent yet."""

    def after_hello(self, session: Session) -> Iterator[bytes]:
        """Yields all that a new session may see, if the permissions say so; else one empty SNAPSHOT.

        Raises:
            RequestError: LIMIT when too much is kept for the session's user or client address.
        """
        permissions = self._permissions
        tells_all = permissions.is_open or permissions.hello_snapshot
        capture = self.waiting.capture_all() if tells_all else Capture([], 0)
        self.waiting.check(session, capture)
        frames = self._judged(session, _some(capture), None, is_owed=True, pauses=not permissions.is_open)
        return self.waiting.add(session, capture, frames)

    def of(self, session: Session, subscription: Subscription) -> Iterator[bytes] | None:
        """Yields the params that a subscription matches, as far as its session may see them.

        Returns:
            None if nothing matches: then there is no SNAPSHOT. If the search takes long, it is done while the frames
            are taken, and there may be no SNAPSHOT in the end.

        Raises:
            RequestError: LIMIT when too much is kept for the session.
        """
        pattern = subscription.pattern
        params = self._params.find(pattern)
        if params is not None and not params:
            return None
        if params is None:
            capture, pauses = self.waiting.capture_all(), True
            some = _matching(capture, pattern)
        else:
            capture, pauses = Capture(params, self._params.changes), not self._permissions.is_open
            some = _some(capture)
        self.waiting.check(session, capture, pattern.text)
        return self.waiting.add(session, capture, self._judged(session, some, pattern, is_owed=False, pauses=pauses))

    def answer(self, session: Session, param: Param) -> Iterator[bytes]:
        """Yields the SNAPSHOT that answers a GET.

        Raises:
            RequestError: LIMIT when too much is kept for the session.
        """
        capture = Capture([param], self._params.changes, must_answer=True)
        self.waiting.check(session, capture, param.address)
        return self.waiting.add(session, capture, self._encode(session, [param]))

    def encode(self, session: Session, params: list[Param]) -> Iterator[bytes]:
        """Yields SNAPSHOTs of params as the session sees them, without those that are overwritten meanwhile."""
        capture = Capture(params, self._params.changes)
        return self.waiting.add(session, capture, self._captured(session, capture))

    def _captured(self, session: Session, capture: Capture) -> Iterator[bytes]:
        waiting: list[Param] = []
        for some, _ in _some(capture):
            waiting += [entry for entry in some if not isinstance(entry, str)]
            if _is_full(waiting):
                yield from self._encode(session, waiting)
                waiting = []
        if waiting:
            yield from self._encode(session, waiting)

    def _encode(self, session: Session, params: Iterable[Param]) -> Iterator[bytes]:
        return session.codec.snapshot(map(_entry, params))

    def _judged(
        self, session: Session, params: Iterable[_Some], pattern: Pattern | None, *, is_owed: bool, pauses: bool
    ) -> Iterator[bytes]:
        """Yields SNAPSHOTs of params that are judged on the way, and ``NOT_YET`` where it should pause.

        Args:
            session: the recipient.
            params: the params to judge.
            pattern: the subscription's; None for the HELLO snapshot.
            is_owed: whether an empty SNAPSHOT is sent if the session sees none of the params.
            pauses: whether the search takes long and has to pause; encoding is paced in any case.
        """
        waiting: list[Param] = []
        for piece in self._in_pieces(session, params, pattern):
            if piece is None:
                if pauses:
                    yield NOT_YET
                continue
            waiting += piece
            full = len(waiting) - len(waiting) % MAX_SNAPSHOT_PARAMS
            if not full and _is_full(waiting):
                full = len(waiting)
            if full:
                yield from self._encode(session, waiting[:full])
                waiting, is_owed = waiting[full:], False
        if waiting or is_owed:
            yield from self._encode(session, waiting)

    def _in_pieces(
        self, session: Session, params: Iterable[_Some], pattern: Pattern | None
    ) -> Iterator[list[Param] | None]:
        """Yields, some at a time, params as a session sees them, and None where it should pause.

        They are judged when they are taken, so that a hundred thousand of them delay nobody.
        """
        visibility = self._visibility
        piece: list[Param] = []
        size_bytes, cost, found = 0, 0, visibility.cost(FIND_COST, JUDGE_COST)
        at_once = FEW
        for some, looked_at_cost in params:
            cost += looked_at_cost
            start, is_over = 0, False
            # The search has a cost even where nothing matches.
            while not is_over:
                few = some[start : start + at_once]
                start += at_once
                is_over = start >= len(some)
                shown = visibility.show(self._current(session, few, pattern), session, pattern)
                piece += shown
                size_bytes += _bytes_of(shown)
                before, found = found, visibility.cost(FIND_COST, JUDGE_COST)
                cost += found - before
                at_once = FEW if found != before else JUDGED_AT_ONCE
                if cost >= PIECE_COST or size_bytes >= SOME_BYTES:
                    yield piece
                    yield None
                    # Time has passed since the last piece.
                    piece, size_bytes, cost, found = [], 0, 0, visibility.cost(FIND_COST, JUDGE_COST)
        yield piece

    def _current(self, session: Session, some: Sequence[Entry], pattern: Pattern | None) -> list[Param]:
        """Returns those of some captured params that are still current.

        A subscriber was told of a later change when it happened, as far as it may see it. A session that has sent only
        HELLO was not told: it gets the current value.
        """
        get = self._params.get
        current = [each for each in some if not isinstance(each, str) and get(each.address) is each]
        if pattern is not None:
            return current
        if len(current) != len(some):
            current = []
            for captured in some:
                address = captured if isinstance(captured, str) else captured.address
                param = get(address)
                if param is not None and (param is captured or not _is_told(session, address)):
                    current.append(param)
        if self._permissions.is_open:
            return current
        who, can_read = session.identity, self._permissions.can_read
        return [param for param in current if can_read(who, param.address)]


def _bytes_of(params: Sequence[Entry]) -> int:
    return sum([len(each.value) for each in params if not isinstance(each, str)])


def _is_full(params: Sequence[Entry]) -> bool:
    return _bytes_of(params) >= SOME_BYTES


def _some(capture: Capture) -> Iterator[_Some]:
    """Yields captured params some at a time, fewer if they are large."""
    start = 0
    while start < len(capture.entries):
        some = capture.entries[start : start + JUDGED_AT_ONCE]
        while len(some) > 1 and _is_full(some):
            some = some[: len(some) // 2]
        start += len(some)
        yield some, JUDGED_AT_ONCE


def _matching(capture: Capture, pattern: Pattern) -> Iterator[_Some]:
    """Yields, some at a time, the params that a pattern matches, and what it cost to find them among all."""
    matches, each = pattern.matches, search_cost(pattern)
    found: list[Entry] = []
    cost = 0
    for number in range(len(capture.entries)):
        entry = capture.entries[number]
        address = entry if isinstance(entry, str) else entry.address
        cost += each * (1 + address.count("/") // 4)
        if matches(address):
            found.append(entry)
            cost += 1 + (0 if isinstance(entry, str) else len(entry.value) * SEARCHED_AT_ONCE // SOME_BYTES)
        if cost >= SEARCHED_AT_ONCE:
            yield found, cost
            found, cost = [], 0
    yield found, cost


def _is_told(session: Session, address: str) -> bool:
    """Tells whether a session has a subscription that matches an address."""
    return any(one.pattern.matches(address) for one in session.subscriptions.values())


def _entry(param: Param) -> SnapshotParam:
    address, value, revision, writer, timestamp_us, _, _, _, _ = param
    return new_tuple(SnapshotParam, (address, value, revision, writer or None, timestamp_us))
