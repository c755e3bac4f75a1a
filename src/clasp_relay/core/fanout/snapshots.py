"""SNAPSHOTs: the params that a session may see, judged and encoded in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TypeAlias, cast

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
from clasp_relay.wire.messages import ParamFields, SnapshotParam

JUDGED_AT_ONCE, FEW = 64, 8
"""Params that are judged before the cost is checked: few if a decision was not cached."""

PIECE_COST = 512
"""Params that are judged in one piece where their rules are known: half a millisecond of work."""

SEARCHED_AT_ONCE = 256
"""Cost of the search for matching params, in the same units, before those found are judged."""

FIND_COST, JUDGE_COST = 32, 96
"""The cost of finding the rule of a param, and of a decision that is not cached, in the same units."""

SOME_BYTES = 48 * 1024
"""Bytes of values that are handled together: a piece stays in memory until all of it was sent."""

_writer_of: Callable[[Param], str] = attrgetter("writer")

_Some: TypeAlias = "tuple[list[Entry], int, int]"
"""Some params, the cost of finding them, and the bytes of their values."""


class Snapshots:
    """Makes SNAPSHOTs in a session's codec.

    Args:
        permissions: the scopes, and whether the relay is in open mode.
        visibility: decides who sees what.
        params: the state.
        clock: the timers.
    """

    def __init__(self, permissions: Permissions, visibility: Visibility, params: Params, clock: Clock) -> None:
        self._permissions = permissions
        self._visibility = visibility
        self._params = params
        self.waiting = WaitingTable(params, clock)
        """All SNAPSHOTs and RESULTs that are not sent yet."""

    def after_hello(self, session: Session) -> Iterator[bytes] | None:
        """Yields the SNAPSHOTs of all that a new session may see, if ``Permissions.hello_snapshot`` says so.

        Returns:
            None if there is nothing to judge: then the caller sends one empty SNAPSHOT.

        Raises:
            RequestError: LIMIT if too much is kept for the session's user or client address.
        """
        permissions = self._permissions
        if not len(self._params) or not (permissions.is_open or permissions.hello_snapshot):
            return None
        capture = self.waiting.capture_all()
        self.waiting.check(session, capture)
        some = _some(capture)
        frames = self._judged(session, capture, some, None, is_owed=True, pauses=not permissions.is_open)
        return self.waiting.add(session, capture, frames)

    def of(self, session: Session, subscription: Subscription) -> Iterator[bytes] | None:
        """Yields the SNAPSHOTs of the params that a subscription matches and that its session may see.

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
        frames = self._judged(session, capture, some, pattern, is_owed=False, pauses=pauses)
        return self.waiting.add(session, capture, frames)

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
        waiting_bytes = 0
        for some, _, size_bytes in _some(capture):
            waiting += [entry for entry in some if not isinstance(entry, str)]
            waiting_bytes += size_bytes
            if waiting_bytes >= SOME_BYTES:
                yield from self._encode(session, waiting)
                waiting, waiting_bytes = [], 0
        if waiting:
            yield from self._encode(session, waiting)

    def _encode(self, session: Session, params: list[Param]) -> Iterator[bytes]:
        return session.codec.snapshot(as_sent(params))

    def _judged(
        self,
        session: Session,
        capture: Capture,
        params: Iterable[_Some],
        pattern: Pattern | None,
        *,
        is_owed: bool,
        pauses: bool,
    ) -> Iterator[bytes]:
        """Yields SNAPSHOTs of params, which are judged meanwhile, and ``NOT_YET`` where it should pause.

        Args:
            session: the recipient.
            capture: where the params come from.
            params: the params to judge.
            pattern: the subscription's pattern; None for the HELLO snapshot.
            is_owed: whether an empty SNAPSHOT is sent if the session sees none of the params.
            pauses: whether the search takes long and has to pause; encoding is paced in any case.
        """
        waiting: list[Param] = []
        waiting_bytes = 0
        for piece, piece_bytes in self._in_pieces(session, capture, params, pattern):
            if piece is None:
                if pauses:
                    yield NOT_YET
                continue
            waiting += piece
            waiting_bytes += piece_bytes
            full = len(waiting) - len(waiting) % MAX_SNAPSHOT_PARAMS
            if not full and waiting_bytes >= SOME_BYTES:
                full = len(waiting)
            if full:
                yield from self._encode(session, waiting[:full])
                waiting, is_owed = waiting[full:], False
                waiting_bytes = _bytes_of(waiting)
        if waiting or is_owed:
            yield from self._encode(session, waiting)

    def _in_pieces(
        self, session: Session, capture: Capture, params: Iterable[_Some], pattern: Pattern | None
    ) -> Iterator[tuple[list[Param] | None, int]]:
        """Yields params as a session sees them, some at a time, with the bytes of their values; None where to pause.

        The bytes are those before hidden params and keys are left out. Params are judged when they are taken, so that a
        hundred thousand of them do not delay other sessions.
        """
        visibility = self._visibility
        piece: list[Param] = []
        size_bytes, cost, found = 0, 0, visibility.cost(FIND_COST, JUDGE_COST)
        at_once = FEW
        for some, looked_at_cost, some_bytes in params:
            cost += looked_at_cost
            size_bytes += some_bytes
            start, is_over = 0, False
            # The search has a cost even where nothing matches.
            while not is_over:
                few = some[start : start + at_once]
                start += at_once
                is_over = start >= len(some)
                piece += visibility.show(self._current(session, capture, few, pattern), session, pattern)
                before, found = found, visibility.cost(FIND_COST, JUDGE_COST)
                cost += found - before
                at_once = FEW if found != before else JUDGED_AT_ONCE
                if cost >= PIECE_COST or size_bytes >= SOME_BYTES:
                    yield piece, size_bytes
                    yield None, 0
                    # Time has passed since the last piece.
                    piece, size_bytes, cost, found = [], 0, 0, visibility.cost(FIND_COST, JUDGE_COST)
        yield piece, size_bytes

    def _current(self, session: Session, capture: Capture, some: list[Entry], pattern: Pattern | None) -> list[Param]:
        """Returns those of some captured params that are still current.

        A subscriber was told of a later change when it happened, as far as it may see it. A session that has sent only
        HELLO was not told: it gets the current value.
        """
        get = self._params.get
        if self._params.changes == capture.changes:
            current = cast("list[Param]", some)
        else:
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


def as_sent(params: list[Param]) -> Iterable[ParamFields]:
    """Returns params for ``Codec.snapshot``: the list itself, unless one has no writer, which it expects to be None."""
    if all(map(_writer_of, params)):
        return params
    return [SnapshotParam(*each[:3], each.writer or None, each.timestamp_us) for each in params]


def _bytes_of(params: Sequence[Entry]) -> int:
    return sum([len(each[1]) for each in params if type(each) is not str])


def _some(capture: Capture) -> Iterator[_Some]:
    """Yields captured params some at a time, fewer if they are large."""
    start = 0
    while start < len(capture.entries):
        some = capture.entries[start : start + JUDGED_AT_ONCE]
        size_bytes = _bytes_of(some)
        while len(some) > 1 and size_bytes >= SOME_BYTES:
            some = some[: len(some) // 2]
            size_bytes = _bytes_of(some)
        start += len(some)
        yield some, JUDGED_AT_ONCE, size_bytes


def _matching(capture: Capture, pattern: Pattern) -> Iterator[_Some]:
    """Yields the captured params that a pattern matches, some at a time, with the cost of finding them."""
    matches, each = pattern.matches, search_cost(pattern)
    found: list[Entry] = []
    cost = size_bytes = 0
    for number in range(len(capture.entries)):
        entry = capture.entries[number]
        address = entry if isinstance(entry, str) else entry.address
        cost += each * (1 + address.count("/") // 4)
        if matches(address):
            found.append(entry)
            value_bytes = 0 if isinstance(entry, str) else len(entry.value)
            size_bytes += value_bytes
            cost += 1 + value_bytes * SEARCHED_AT_ONCE // SOME_BYTES
        if cost >= SEARCHED_AT_ONCE:
            yield found, cost, size_bytes
            found, cost, size_bytes = [], 0, 0
    yield found, cost, size_bytes


def _is_told(session: Session, address: str) -> bool:
    """Tells whether a session has a subscription that matches an address."""
    return any(one.pattern.matches(address) for one in session.subscriptions.values())
