"""What a session is told when it newly comes to see something: SNAPSHOTs for the subscriptions that it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from clasp_relay.core.fanout.subscriptions import Subscription, SubscriptionTable
from clasp_relay.core.observer import Counts
from clasp_relay.core.pieces import snapshot_frames
from clasp_relay.core.records import Param
from clasp_relay.core.rights.port import CatchUp, Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.table import SessionTable
from clasp_relay.core.state.params import Params
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MessageCode, Signal


class Hidden(NamedTuple):
    """Something that a subscription asks for and its session does not see."""

    subscription: Subscription
    address: str


class Opening:
    """Compares what sessions see before and after a change that may open something.

    Args:
        permissions: knows what may open what.
        visibility: who sees what.
        params: what there is to see.
        table: who asked for it.
        sessions: who is there.
        counts: what is counted.
    """

    def __init__(
        self,
        permissions: Permissions,
        visibility: Visibility,
        params: Params,
        table: SubscriptionTable,
        sessions: SessionTable,
        counts: Counts,
    ) -> None:
        self._permissions = permissions
        self._visibility = visibility
        self._params = params
        self._table = table
        self._sessions = sessions
        self._counts = counts

    def hidden_before(self, address: str, *, exists: bool) -> Sequence[Hidden]:
        """Returns what a change may open; to be called before it is applied.

        Args:
            address: where the change is.
            exists: whether something will be set there.
        """
        catch_ups = self._permissions.catch_ups(address)
        if not catch_ups:
            return ()
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
                # A key of its own: it holds a part of what matches, so nothing may take its place.
                self._counts.sent[MessageCode.SNAPSHOT] += 1
                subscription.session.outbox.send_snapshot(object(), snapshot_frames(params))

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
        viewed = self._visibility.of(address, is_live=False)
        return (
            viewed is not None
            and viewed.viewing.catch_up
            and subscription.wants(Signal.PARAM)
            and self._visibility.view(viewed, subscription.session, address, subscription.pattern) is None
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
