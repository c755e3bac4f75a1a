"""What a session is told when it newly comes to see something: SNAPSHOTs for the subscriptions that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clasp_relay.core.params import Params
from clasp_relay.core.permissions import CatchUp, Permissions
from clasp_relay.core.pieces import snapshot_frames
from clasp_relay.core.records import Param
from clasp_relay.core.subscriptions import Subscription, SubscriptionTable
from clasp_relay.core.visibility import Visibility
from clasp_relay.wire.constants import Signal


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
    """

    def __init__(
        self, permissions: Permissions, visibility: Visibility, params: Params, table: SubscriptionTable
    ) -> None:
        self._permissions = permissions
        self._visibility = visibility
        self._params = params
        self._table = table

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
                for param in self._params.match(catch_up.pattern):
                    for hidden in self._hidden(catch_up, param):
                        found[hidden] = None
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
                subscription.session.outbox.send_snapshot(object(), snapshot_frames(params))

    def _hidden(self, catch_up: CatchUp, param: Param) -> list[Hidden]:
        address = param.address
        viewed = self._visibility.of(address, is_live=False)
        if viewed is None or not viewed.viewing.catch_up:
            return []
        return [
            Hidden(subscription, address)
            for node in self._table.route(address).nodes
            for subscription in node.subscriptions
            if subscription.wants(Signal.PARAM)
            and catch_up.subject in (None, subscription.session.identity.subject)
            and self._visibility.view(viewed, subscription.session, address, subscription.pattern) is None
        ]
