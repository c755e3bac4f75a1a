"""Catch-ups: SNAPSHOTs of what a change lets a session newly see, for its existing subscriptions.

Before a change is applied, it is decided, up to a bound, which sessions already see the addresses that it may open.
After it, the sessions that did not see them get SNAPSHOTs, in pieces (``core.work``). A session beyond the bound gets
them, too: a current value that arrives twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TypeAlias

from clasp_relay.core.fanout.snapshots import Snapshots
from clasp_relay.core.fanout.subscriptions import Node, Route, SubscriptionTable
from clasp_relay.core.fanout.throttles import Throttles
from clasp_relay.core.observer import Counts
from clasp_relay.core.records import Param
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import CatchUp, VisibilityRule
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session, SessionTable, Subscription
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import Pieces, Work
from clasp_relay.wire.address import Pattern, intersects
from clasp_relay.wire.constants import MessageCode, Signal

SEARCH_COST = 1_024
"""The part of the search for addresses that may open that is done in the step of the change (``AddressTree.search``):
0.5 ms."""

NARROWED_AT_MOST = 8
"""Patterns of subscriptions with which a catch-up is compared, some µs each, so that only what they match is searched
for."""

BEFORE_COST = 256
"""Decisions in the step of a change, in addresses whose rule, route and reader are known: at most 1 ms."""

FIND_COST = 16
"""The cost, in these units, of finding a rule or a route, or of deciding for a reader."""

UNIT_US = 2
"""The estimated time of one unit, in µs."""

PIECE_COST = 256
"""Units in one piece of work."""

TOLD_AT_ONCE = 256
"""Addresses in one SNAPSHOT."""

_Seen: TypeAlias = "tuple[VisibilityRule, Session, Pattern | None, str | None]"
"""The rule, the reader, the reader's pattern if it matters, and the address if the rule reads it."""

_Readers: TypeAlias = "dict[tuple[Session, Pattern | None], Subscription]"


class Opening:
    """What a change may open, from before the change until all sessions are told.

    Args:
        catch_ups: what may open.
    """

    __slots__ = ("catch_ups", "found", "is_outdated", "seen")

    def __init__(self, catch_ups: tuple[CatchUp, ...]) -> None:
        self.catch_ups = catch_ups
        self.found: list[list[str] | None] = []
        """The addresses of each catch-up; None if the search for them takes too long."""
        self.seen: set[_Seen] = set()
        """What was seen before the change; everything else counts as hidden."""
        self.is_outdated = False
        """Whether another change may have opened the same addresses since the first one."""


class CatchUpSender:
    """Compares what sessions see before and after a change that may open something.

    Args:
        visibility: decides who sees what.
        params: the state.
        table: the subscriptions.
        sessions: the live sessions.
        snapshots: makes the SNAPSHOTs.
        throttles: holds older values that must not follow a SNAPSHOT.
        counts: the counters.
        work: runs long work in pieces.
    """

    def __init__(
        self,
        visibility: Visibility,
        params: Params,
        table: SubscriptionTable,
        sessions: SessionTable,
        snapshots: Snapshots,
        throttles: Throttles,
        counts: Counts,
        work: Work,
    ) -> None:
        self._visibility = visibility
        self._params = params
        self._table = table
        self._sessions = sessions
        self._snapshots = snapshots
        self._throttles = throttles
        self._counts = counts
        self._work = work
        self._openings: dict[tuple[CatchUp, ...], Opening] = {}

    def before(self, catch_ups: Sequence[CatchUp], address: str, *, exists: bool) -> Opening | None:
        """Notes who already sees what a change may open; called before the change is applied.

        Args:
            catch_ups: what the change may open.
            address: where the change is.
            exists: whether a param will be set there.
        """
        stays = exists and self._params.get(address) is not None
        may_open = {each: self._where(each) for each in catch_ups if not (each.existence_only and stays)}
        opening = Opening(tuple(each for each, patterns in may_open.items() if patterns))
        if not opening.catch_ups:
            return None
        left = BEFORE_COST
        for catch_up in opening.catch_ups:
            addresses, is_all = self._search(may_open[catch_up])
            opening.found.append(addresses if is_all else None)
            left = self._judge(opening, catch_up, addresses, left)
        return opening

    def after(self, opening: Opening, owner: str) -> None:
        """Tells each session what it sees now and did not see before; called after the change.

        Args:
            opening: what ``before`` returned.
            owner: the subject that made the change.
        """
        waiting = self._openings.get(opening.catch_ups)
        if waiting is None:
            self._openings[opening.catch_ups] = opening
            self._work.add((CatchUpSender, owner), self._tell(opening))
        else:
            # A session that saw an address before either change is not told; the others are told once for all the
            # changes.
            waiting.seen &= opening.seen
            waiting.found = opening.found
            waiting.is_outdated = True

    def _where(self, catch_up: CatchUp) -> list[Pattern]:
        """Returns patterns for what a catch-up may open and a subscription asks for; none if no session subscribed.

        So when a session that subscribed to a few addresses of a room enters it, the room's other addresses are not
        compared: in a room of a thousand people that took 2 ms, and 40 kB of memory until it was done.
        """
        if catch_up.subject is None:
            return [catch_up.pattern]
        wanted: dict[Pattern, None] = {}
        for session in self._sessions.of_subject(catch_up.subject):
            for subscription in session.subscriptions.values():
                wanted[subscription.pattern] = None
                if len(wanted) > NARROWED_AT_MOST:
                    return [catch_up.pattern]
        narrower = []
        for pattern in wanted:
            if catch_up.pattern.covers(pattern):
                narrower.append(pattern)
            elif intersects(catch_up.pattern, pattern):
                return [catch_up.pattern]
        return narrower

    def _search(self, patterns: Sequence[Pattern]) -> tuple[list[str], bool]:
        """Returns addresses that match any of some patterns, up to the search's bound, and whether these are all."""
        found: dict[str, None] = {}
        is_all = True
        for pattern in patterns:
            addresses, is_whole = self._params.search(pattern, SEARCH_COST // len(patterns))
            found.update(dict.fromkeys(addresses))
            is_all = is_all and is_whole
        return list(found), is_all

    def _judge(self, opening: Opening, catch_up: CatchUp, addresses: Iterable[str], left: int) -> int:
        """Decides, up to a bound, what sessions see now; returns what is left of the bound.

        Addresses with the same rule and the same route are decided once for each reader, however many subscriptions it
        has there: the cost is the sum of addresses and readers, not their product.
        """
        seen, view = opening.seen, self._visibility.view
        subscriptions_at = self._subscriptions_at(catch_up.subject)
        alike: dict[tuple[VisibilityRule, Route], _Readers] = {}
        each_alone: set[VisibilityRule] = set()
        for address in addresses:
            found = self._visibility.found + self._table.found
            rule = self._visibility.place(address).shown
            left -= 1
            if rule is not None and rule.catch_up:
                route = self._table.route(address)
                readers = alike.get((rule, route))
                is_first = readers is None
                if readers is None:
                    readers = alike[rule, route] = _readers(rule, route, subscriptions_at)
                if is_first or rule in each_alone:
                    for (session, pattern), subscription in readers.items():
                        if left <= 0:
                            return left
                        left -= FIND_COST
                        reads = Reads()
                        is_seen = view(rule, session, address, subscription.pattern, reads) is not None
                        if reads.reads_address:
                            each_alone.add(rule)
                        if is_seen:
                            seen.add((rule, session, pattern, address if reads.reads_address else None))
            left -= FIND_COST * (self._visibility.found + self._table.found - found)
            if left <= 0:
                break
        return left

    def _tell(self, opening: Opening) -> Pieces:
        """Tells sessions what they newly see, in pieces."""
        try:
            while True:
                opening.is_outdated = False
                for catch_up, addresses in zip(opening.catch_ups, opening.found, strict=True):
                    yield from self._tell_one(opening, catch_up, addresses)
                if not opening.is_outdated:
                    break
        finally:
            del self._openings[opening.catch_ups]

    def _tell_one(self, opening: Opening, catch_up: CatchUp, addresses: list[str] | None) -> Pieces:
        found = self._all(catch_up.pattern) if addresses is None else iter(addresses)
        alike: dict[tuple[VisibilityRule, Route], list[str]] = {}
        cost = count = 0
        for address in found:
            cost += 1
            if address is not None and self._params.get(address) is not None:
                before = self._visibility.found + self._table.found
                rule = self._visibility.place(address).shown
                if rule is not None and rule.catch_up:
                    alike.setdefault((rule, self._table.route(address)), []).append(address)
                    count += 1
                cost += FIND_COST * (self._visibility.found + self._table.found - before)
            if count >= TOLD_AT_ONCE:
                yield from self._tell_some(opening, catch_up, alike)
                alike, count = {}, 0
            if cost >= PIECE_COST:
                yield cost * UNIT_US
                cost = 0
        yield from self._tell_some(opening, catch_up, alike)

    def _all(self, pattern: Pattern) -> Iterator[str | None]:
        """Yields, for each address, the address if a pattern matches it, else None."""
        for param in self._params.all():
            yield param.address if pattern.matches(param.address) else None

    def _tell_some(
        self, opening: Opening, catch_up: CatchUp, alike: dict[tuple[VisibilityRule, Route], list[str]]
    ) -> Pieces:
        """Tells each session which of some addresses it newly sees."""
        seen, cost = opening.seen, 0
        hidden: dict[Session, dict[Pattern, list[str]]] = {}
        subscriptions_at = self._subscriptions_at(catch_up.subject)
        for (rule, route), addresses in alike.items():
            for (session, pattern), subscription in _readers(rule, route, subscriptions_at).items():
                cost += 1
                if (rule, session, pattern, None) not in seen:
                    new = [each for each in addresses if (rule, session, pattern, each) not in seen]
                    cost += len(new) // 8
                    hidden.setdefault(session, {}).setdefault(subscription.pattern, []).extend(new)
                if cost >= PIECE_COST:
                    yield cost * UNIT_US
                    cost = 0
        for session, by_pattern in hidden.items():
            self._tell_session(session, by_pattern)
            cost += FIND_COST + sum(map(len, by_pattern.values()))
            if cost >= PIECE_COST:
                yield cost * UNIT_US
                cost = 0
        yield 1 + cost * UNIT_US

    def _tell_session(self, session: Session, hidden: dict[Pattern, list[str]]) -> None:
        """Sends a session the params that it newly sees, each address once."""
        get = self._params.get
        told: dict[str, Param] = {}
        for pattern, addresses in hidden.items():
            params = [param for param in map(get, addresses) if param is not None]
            for param in self._visibility.show(params, session, pattern):
                # Of several patterns, the one that shows the whole value counts.
                shown = told.get(param.address)
                told[param.address] = param if shown is None or shown is not get(param.address) else shown
        if not told:
            return
        for address in told:
            # An older value that is held back must not follow.
            self._throttles.forget_param(session, address)
        # A key of its own: it is only a part of what matches, so no other SNAPSHOT may replace it.
        self._counts.sent[MessageCode.SNAPSHOT] += 1
        session.outbox.send_snapshot(object(), self._snapshots.encode(session, list(told.values())))

    def _subscriptions_at(self, subject: str | None) -> Callable[[Node], Iterable[Subscription]]:
        """Returns a function that lists the subscriptions at a pattern: of one user, or of everybody (None)."""
        if subject is None:
            return attrgetter("subscriptions")
        found: dict[object, list[Subscription]] = {}
        for session in self._sessions.of_subject(subject):
            for subscription in session.subscriptions.values():
                found.setdefault(subscription.node, []).append(subscription)
        return lambda node: found.get(node, ())


def _readers(
    rule: VisibilityRule, route: Route, subscriptions_at: Callable[[Node], Iterable[Subscription]]
) -> _Readers:
    """Returns one subscription of each session that asks for params on a route, or each whose pattern counts."""
    readers: _Readers = {}
    for node in route.nodes:
        for subscription in subscriptions_at(node):
            if subscription.wants(Signal.PARAM):
                pattern = subscription.pattern if rule.depends_on_pattern else None
                readers.setdefault((subscription.session, pattern), subscription)
    return readers
