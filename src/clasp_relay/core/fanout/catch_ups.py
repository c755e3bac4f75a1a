"""What a session is told when it newly comes to see something: SNAPSHOTs for the subscriptions that it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from clasp_relay.core.fanout.snapshots import Snapshots
from clasp_relay.core.fanout.subscriptions import SubscriptionTable
from clasp_relay.core.fanout.throttles import Throttles
from clasp_relay.core.observer import Counts
from clasp_relay.core.records import Param
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import CatchUp
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import SessionTable, Subscription
from clasp_relay.core.state.params import Params
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MessageCode, Signal


class Hidden(NamedTuple):
    """Something that a subscription asks for and its session does not see."""

    subscription: Subscription
    address: str


class CatchUpSender:
    """Compares what sessions see before and after a change that may open something.

    Args:
        visibility: who sees what.
        params: what there is to see.
        table: who asked for it.
        sessions: who is there.
        snapshots: makes what they are told.
        throttles: what is held back of what they are told now.
        counts: what is counted.
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
    ) -> None:
        self._visibility = visibility
        self._params = params
        self._table = table
        self._sessions = sessions
        self._snapshots = snapshots
        self._throttles = throttles
        self._counts = counts

    def hidden_before(self, catch_ups: Sequence[CatchUp], address: str, *, exists: bool) -> Sequence[Hidden]:
        """Returns what a change may open; to be called before it is applied.

        Args:
            catch_ups: what a change at that address may open.
            address: where the change is.
            exists: whether something will be set there.
        """
        found: dict[Hidden, None] = {}
        stays = exists and self._params.get(address) is not None
        for catch_up in catch_ups:
            if not (catch_up.existence_only and stays):
                found.update(dict.fromkeys(self._hidden(catch_up)))
        return list(found)

    def send_opened(self, hidden: Sequence[Hidden]) -> None:
        """Sends each session, once, what it sees now and did not before."""
        opened: dict[Subscription, list[Param]] = {}
        for subscription, address in hidden:
            param = self._params.get(address)
            if param is not None:
                shown = self._visibility.show([param], subscription.session, subscription.pattern)
                opened.setdefault(subscription, []).extend(shown)
        for subscription, params in opened.items():
            if params:
                session = subscription.session
                for param in params:
                    # An older value that is held back must not follow.
                    self._throttles.forget_param(session, param.address)
                # A key of its own: it holds a part of what matches, so nothing may take its place.
                self._counts.sent[MessageCode.SNAPSHOT] += 1
                session.outbox.send_snapshot(object(), self._snapshots.encode(session, params))

    def _hidden(self, catch_up: CatchUp) -> Iterator[Hidden]:
        if catch_up.subject is None:
            for param in self._params.match(catch_up.pattern):
                for node in self._table.route(param.address).nodes:
                    for subscription in node.subscriptions:
                        if self._hides(param.address, subscription):
                            yield Hidden(subscription, param.address)
            return
        for session in self._sessions.of_subject(catch_up.subject):
            for subscription in session.subscriptions.values():
                for param in self._in_both(catch_up.pattern, subscription.pattern):
                    if self._hides(param.address, subscription):
                        yield Hidden(subscription, param.address)

    def _hides(self, address: str, subscription: Subscription) -> bool:
        rule = self._visibility.place(address).shown
        return (
            rule is not None
            and rule.catch_up
            and subscription.wants(Signal.PARAM)
            and self._visibility.view(rule, subscription.session, address, subscription.pattern, Reads()) is None
        )

    def _in_both(self, one: Pattern, other: Pattern) -> Iterator[Param]:
        """Yields the params that two patterns match; the cost follows the narrower one."""
        if one.covers(other):
            return self._params.match(other)
        if other.covers(one):
            return self._params.match(one)
        if _are_apart(one, other):
            return iter(())
        return (param for param in self._params.match(one) if other.matches(param.address))


def _are_apart(one: Pattern, other: Pattern) -> bool:
    """Tells whether two patterns differ before their first wildcard, so that nothing matches both."""
    pairs = zip(one.segments, other.segments, strict=False)
    return any(first != second for first, second in takewhile(lambda pair: "*" not in "".join(pair), pairs))
