"""What a session is told when it newly comes to see something: SNAPSHOTs for the subscriptions that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

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
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MessageCode, Signal


class Hidden(NamedTuple):
    """What a subscription asks for and its session does not see."""

    subscription: Subscription
    addresses: Sequence[str]


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
        stays = exists and self._params.get(address) is not None
        found: list[Hidden] = []
        for catch_up in catch_ups:
            if not (catch_up.existence_only and stays):
                found += self._hidden(catch_up)
        return found

    def send_opened(self, hidden: Sequence[Hidden]) -> None:
        """Sends each session, once, what it sees now and did not before."""
        opened: dict[Session, dict[str, Param]] = {}
        get = self._params.get
        for (session, pattern), addresses in _by_reader(hidden).items():
            params = [param for param in map(get, addresses) if param is not None]
            told = opened.setdefault(session, {})
            for param in self._visibility.show(params, session, pattern):
                # Of several patterns, one that shows the value as it is counts.
                if param.address not in told or param is get(param.address):
                    told[param.address] = param
        for session, told in opened.items():
            if told:
                for address in told:
                    # An older value that is held back must not follow.
                    self._throttles.forget_param(session, address)
                # A key of its own: it holds a part of what matches, so nothing may take its place.
                self._counts.sent[MessageCode.SNAPSHOT] += 1
                session.outbox.send_snapshot(object(), self._snapshots.encode(session, list(told.values())))

    def _hidden(self, catch_up: CatchUp) -> Iterator[Hidden]:
        """Yields what a catch-up may open and who does not see it.

        Addresses that are decided alike and reach the same subscriptions are judged once for each reader, and a reader
        with many subscriptions there once: so the cost is the addresses plus the readers, not their product.
        """
        alike: dict[tuple[VisibilityRule, Route], list[str]] = {}
        for param in self._params.match(catch_up.pattern):
            rule = self._visibility.place(param.address).shown
            if rule is not None and rule.catch_up:
                alike.setdefault((rule, self._table.route(param.address)), []).append(param.address)
        subscriptions_at = self._subscriptions_at(catch_up.subject)
        for (rule, route), addresses in alike.items():
            readers: dict[tuple[Session, Pattern | None], Subscription] = {}
            for node in route.nodes:
                for subscription in subscriptions_at(node):
                    if subscription.wants(Signal.PARAM):
                        pattern = subscription.pattern if rule.depends_on_pattern else None
                        readers.setdefault((subscription.session, pattern), subscription)
            for subscription in readers.values():
                hidden = self._hidden_from(subscription, rule, addresses)
                if hidden:
                    yield Hidden(subscription, hidden)

    def _subscriptions_at(self, subject: str | None) -> Callable[[Node], Iterable[Subscription]]:
        """Returns what tells the subscriptions at a pattern: those of one user, or of everybody (None)."""
        if subject is None:
            return attrgetter("subscriptions")
        found: dict[object, list[Subscription]] = {}
        for session in self._sessions.of_subject(subject):
            for subscription in session.subscriptions.values():
                found.setdefault(subscription.node, []).append(subscription)
        return lambda node: found.get(node, ())

    def _hidden_from(self, subscription: Subscription, rule: VisibilityRule, addresses: Sequence[str]) -> Sequence[str]:
        """Returns those of some addresses, which one rule decides, that a subscription's session does not see."""
        session, pattern = subscription.session, subscription.pattern
        reads = Reads()
        first = self._visibility.view(rule, session, addresses[0], pattern, reads)
        if not reads.reads_address:
            return addresses if first is None else ()
        view = self._visibility.view
        return [address for address in addresses if view(rule, session, address, pattern, Reads()) is None]


def _by_reader(hidden: Sequence[Hidden]) -> dict[tuple[Session, Pattern], dict[str, None]]:
    """Returns the addresses, each once, by session and pattern."""
    found: dict[tuple[Session, Pattern], dict[str, None]] = {}
    for subscription, addresses in hidden:
        reader = subscription.session, subscription.pattern
        found.setdefault(reader, {}).update(dict.fromkeys(addresses))
    return found
