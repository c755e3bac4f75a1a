"""Who gets what: from an address to the sessions, each once (``docs/protocol.md``, Subscriptions and fan-out)."""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.core.fanout.audiences import Audiences
from clasp_relay.core.fanout.subscriptions import Route, Subscription, SubscriptionTable
from clasp_relay.core.fanout.throttles import Throttles
from clasp_relay.core.ports import Audience, FanOut, Frame, Kind, Outbox
from clasp_relay.core.records import Param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Viewed, Visibility
from clasp_relay.core.session.sessions import Session
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.codec import publish_frame, set_frame
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import Publish, Value

_PARAM = Signal.PARAM
_PARAM_AT = int(_PARAM)
_PARAM_KIND = Kind.PARAM

# Skips the argument handling of the generated constructor: a frame is made for every message.
_new = tuple.__new__

THROTTLED_SIGNALS = frozenset({Signal.PARAM, Signal.STREAM})
"""What maxRate and epsilon apply to; nothing else is ever dropped by a filter."""

MAX_SPLITS = 64
"""How many routes a decision's splits are kept for: as many as there are ways to subscribe to a room, and more."""


class Delivery(NamedTuple):
    """The sessions that a signal goes to."""

    audience: Audience | None
    """Those that get everything."""
    throttled: tuple[tuple[Session, tuple[Subscription, ...]], ...]
    """Those that asked for less, each with all its subscriptions that match."""


NOBODY = Delivery(None, ())
"""The delivery where nobody subscribed; nothing is encoded for it."""


class Split(NamedTuple):
    """A delivery taken apart by what its sessions may see, and what it was made from."""

    whole: Delivery
    generation: int
    parts: tuple[tuple[frozenset[str], Delivery], ...]
    """Keys to leave out, and who gets the value without them."""


class Deliveries:
    """Sends each accepted message to the sessions with a matching subscription.

    Args:
        table: the subscriptions.
        fan_out: the way out to many sessions.
        throttles: what maxRate and epsilon hold back.
        visibility: who sees what.
        permissions: what leaves out the keys that somebody may not see.
    """

    def __init__(
        self,
        table: SubscriptionTable,
        fan_out: FanOut,
        throttles: Throttles,
        visibility: Visibility,
        permissions: Permissions,
    ) -> None:
        self._table = table
        self._fan_out = fan_out
        self._throttles = throttles
        self._visibility = visibility
        self._permissions = permissions
        self._is_open = permissions.is_open
        self._audiences = Audiences()
        self.sent = [0] * len(Signal)
        """Messages that were sent on, by their signal, each counted once however many got it."""
        self.delivered = 0
        """How many they were, each counted for every session that got it; without those that maxRate or epsilon
        apply to, which ``Throttles`` counts."""

    def send_set(self, change: Param, lock: bool, unlock: bool, ttl: int | None) -> None:
        """Sends an accepted change to everybody who subscribed and may see it.

        Args:
            change: the change.
            lock: as its SET said.
            unlock: as its SET said.
            ttl: as its SET said.
        """
        address, value, revision = change.address, change.value, change.revision
        self.sent[_PARAM_AT] += 1
        viewed = None if self._is_open else self._visibility.of(address, True)
        if viewed is None:
            route = self._table.route(address)
            delivery = route.deliveries[_PARAM_AT] or self._work_out(route, _PARAM)
            if delivery is not NOBODY:
                data = set_frame(address, value, revision, lock, unlock, ttl)
                self._send(delivery, _PARAM, _new(Frame, (data, _PARAM_KIND, address)), value, None)
            return
        for fields, delivery in self._split(viewed, address, _PARAM).parts:
            seen = self._permissions.redact(value, fields) if fields else value
            data = set_frame(address, seen, revision, lock, unlock, ttl)
            self._send(delivery, _PARAM, _new(Frame, (data, _PARAM_KIND, address)), seen, None)

    def send_publish(self, message: Publish, exclude: Outbox) -> None:
        """Sends a signal to everybody who subscribed and may see it, but not to its sender."""
        address, signal = message.address, message.signal
        self.sent[signal] += 1
        viewed = None if self._is_open else self._visibility.of(address, True)
        if viewed is None:
            delivery = self._whole(address, signal)
            if delivery is not NOBODY:
                self._send(delivery, signal, _frame(message), message.value, exclude)
            return
        for fields, delivery in self._split(viewed, address, signal).parts:
            seen = self._redacted(message, fields)
            self._send(delivery, signal, _frame(seen), seen.value, exclude)

    def send_to(self, target: Session, message: Publish) -> None:
        """Sends a signal to one session, if it may see it."""
        viewed = self._visibility.of(message.address, is_live=True)
        if viewed is not None:
            view = self._visibility.view(viewed, target, message.address, Pattern.parse(message.address))
            if view is None:
                return
            message = self._redacted(message, view)
        self.sent[message.signal] += 1
        self.delivered += 1
        target.outbox.send(_frame(message))

    def _redacted(self, message: Publish, fields: frozenset[str]) -> Publish:
        if not fields or message.value is None:
            return message
        return message._replace(value=self._permissions.redact(message.value, fields))

    def _send(
        self, delivery: Delivery, signal: Signal, frame: Frame, value: Value | None, exclude: Outbox | None
    ) -> None:
        audience = delivery.audience
        if audience is not None:
            self.delivered += len(audience.outboxes)
            if exclude is not None and exclude in audience.members:
                self.delivered -= 1
            self._fan_out.fan_out(audience, frame, exclude)
        for session, subscriptions in delivery.throttled:
            if session.outbox is not exclude:
                self._throttles.offer(session, signal, frame.address, subscriptions, frame, value)

    def _whole(self, address: str, signal: Signal) -> Delivery:
        route = self._table.route(address)
        return route.deliveries[signal] or self._work_out(route, signal)

    def _split(self, viewed: Viewed, address: str, signal: Signal) -> Split:
        """Returns the delivery by what each session may see, worked out again only when something has changed."""
        route = self._table.route(address)
        whole = route.deliveries[signal] or self._work_out(route, signal)
        if viewed.doubtful or viewed.until_us is not None:
            self._visibility.refresh(viewed)
        splits = viewed.splits
        split = splits.get((route, signal))
        if split is None or split.whole is not whole or split.generation != viewed.generation:
            if len(splits) >= MAX_SPLITS:
                splits.clear()
            split = splits[route, signal] = Split(whole, viewed.generation, self._parts(viewed, address, route, signal))
        return split

    def _parts(
        self, viewed: Viewed, address: str, route: Route, signal: Signal
    ) -> tuple[tuple[frozenset[str], Delivery], ...]:
        views: dict[Session, frozenset[str]] = {}
        subscriptions: list[Subscription] = []
        for node in route.nodes:
            for subscription in node.subscriptions:
                if not subscription.wants(signal):
                    continue
                session = subscription.session
                view = self._visibility.view(viewed, session, address, subscription.pattern)
                if view is None:
                    continue
                subscriptions.append(subscription)
                # Of several patterns, the one that shows most counts.
                views[session] = view & views.get(session, view)
        groups = dict.fromkeys(views.values())
        return tuple(
            (fields, self._deliver([each for each in subscriptions if views[each.session] == fields], signal))
            for fields in groups
        )

    def _work_out(self, route: Route, signal: Signal) -> Delivery:
        wanting = [one for node in route.nodes for one in node.subscriptions if one.wants(signal)]
        delivery = route.deliveries[signal] = self._deliver(wanting, signal)
        return delivery

    def _deliver(self, subscriptions: list[Subscription], signal: Signal) -> Delivery:
        if not subscriptions:
            return NOBODY
        everything: dict[Session, None] = {}
        less: dict[Session, list[Subscription]] = {}
        for subscription in subscriptions:
            if subscription.is_throttled and signal in THROTTLED_SIGNALS:
                less.setdefault(subscription.session, []).append(subscription)
            else:
                everything[subscription.session] = None
        return Delivery(
            self._audiences.of(session.outbox for session in everything) if everything else None,
            tuple((session, tuple(found)) for session, found in less.items() if session not in everything),
        )


def _frame(message: Publish) -> Frame:
    """Encodes a signal; what a slow session may do without are streams and gesture moves."""
    signal = message.signal
    may_drop = signal is Signal.STREAM or (signal is Signal.GESTURE and message.phase is Phase.MOVE)
    return _new(Frame, (publish_frame(message), Kind.DROP if may_drop else Kind.KEEP, message.address))
