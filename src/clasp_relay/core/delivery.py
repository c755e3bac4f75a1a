"""Who gets what: from an address to the sessions, each once (``docs/protocol.md``, Subscriptions and fan-out)."""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.core.ports import Audience, FanOut, Frame, Outbox
from clasp_relay.core.sessions import Session
from clasp_relay.core.subscriptions import Route, Subscription, SubscriptionTable
from clasp_relay.core.throttle import Throttles
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Value

THROTTLED_SIGNALS = frozenset({Signal.PARAM, Signal.STREAM})
"""What maxRate and epsilon apply to; nothing else is ever dropped by a filter."""


class Delivery(NamedTuple):
    """The sessions that a signal goes to along one route."""

    audience: Audience | None
    """Those that get everything."""
    throttled: tuple[tuple[Session, tuple[Subscription, ...]], ...]
    """Those that asked for less, each with all its subscriptions that match."""


class Deliveries:
    """Sends each accepted message to the sessions with a matching subscription.

    Args:
        table: the subscriptions.
        fan_out: the way out to many sessions.
        throttles: what maxRate and epsilon hold back.
    """

    def __init__(self, table: SubscriptionTable, fan_out: FanOut, throttles: Throttles) -> None:
        self._table = table
        self._fan_out = fan_out
        self._throttles = throttles

    def send(
        self, address: str, signal: Signal, frame: Frame, value: Value | None, exclude: Outbox | None = None
    ) -> None:
        """Sends a frame to everybody who subscribed to an address.

        Args:
            address: where it belongs.
            signal: what kind of signal it is.
            frame: the frame, encoded.
            value: the value in it, for epsilon.
            exclude: the sender of a PUBLISH, who does not get it.
        """
        route = self._table.route(address)
        delivery = route.deliveries[signal] or _work_out(route, signal)
        if delivery.audience is not None:
            self._fan_out.fan_out(delivery.audience, frame, exclude)
        for session, subscriptions in delivery.throttled:
            if session.outbox is not exclude:
                self._throttles.offer(session, signal, address, subscriptions, frame, value)


def _work_out(route: Route, signal: Signal) -> Delivery:
    everything: dict[Session, None] = {}
    less: dict[Session, list[Subscription]] = {}
    for node in route.nodes:
        for subscription in node.subscriptions:
            if not subscription.wants(signal):
                continue
            if subscription.is_throttled and signal in THROTTLED_SIGNALS:
                less.setdefault(subscription.session, []).append(subscription)
            else:
                everything[subscription.session] = None
    delivery = Delivery(
        Audience(tuple(session.outbox for session in everything)) if everything else None,
        tuple((session, tuple(found)) for session, found in less.items() if session not in everything),
    )
    route.deliveries[signal] = delivery
    return delivery
