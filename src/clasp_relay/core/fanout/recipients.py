"""Finds the recipients of a message and sends it to each once (``docs/protocol.md``, Subscriptions and fan-out)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias
from weakref import WeakValueDictionary

from clasp_relay.core.fanout.subscriptions import Delivery, Route, SubscriptionTable
from clasp_relay.core.fanout.throttles import Throttles
from clasp_relay.core.ports import Audience, Clock, Codec, FanOut, Frame, Kind, Outbox
from clasp_relay.core.records import Change
from clasp_relay.core.rights.memory import Answer, Reads
from clasp_relay.core.rights.port import FULL, HiddenKeys, Permissions, VisibilityRule
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.core.work import Work
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import Publish, Set
from clasp_relay.wire.tuples import new_tuple

_PARAM = Signal.PARAM
_PARAM_AT = int(_PARAM)
_PARAM_KIND = Kind.PARAM
_KEPT = Kind.KEEP
_SOMETIMES_DROPPED = frozenset({Signal.STREAM, Signal.GESTURE})


THROTTLED_SIGNALS = frozenset({Signal.PARAM, Signal.STREAM})
"""The messages that maxRate and epsilon apply to; no other message is ever held back or dropped."""

NOBODY = Delivery((), ())
"""The delivery of an address without subscribers; nothing is encoded for it."""

View: TypeAlias = tuple[frozenset[str], Delivery]
"""Hidden keys, and the recipients of the value without them. A delivery is divided into views by what its sessions may
see."""


class Recipients:
    """Sends each accepted message to the sessions with a matching subscription that may see it.

    Args:
        table: the subscriptions.
        fan_out: sends one frame to many sessions.
        visibility: decides who sees what.
        permissions: removes hidden keys from a value.
        clock: the current time.
        work: runs long work in pieces.
    """

    def __init__(
        self,
        table: SubscriptionTable,
        fan_out: FanOut,
        visibility: Visibility,
        permissions: Permissions,
        clock: Clock,
        work: Work,
    ) -> None:
        self._table = table
        self._fan_out = fan_out
        self._visibility = visibility
        self._permissions = permissions
        self._memory = permissions.memory
        table.outdated = self._memory.outdated
        self._is_open = permissions.is_open
        self._clock = clock
        self._audiences: WeakValueDictionary[frozenset[Outbox], Audience] = WeakValueDictionary()
        self.throttles = Throttles(clock, work, self._view_now)
        """Applies maxRate and epsilon."""
        self.sent = [0] * len(Signal)
        """Messages that were sent to subscribers, by signal, each counted once."""
        self.delivered = 0
        """The same, each counted once for every recipient; without the sessions with maxRate or epsilon, which
        ``Throttles`` counts."""

    def tell_change(self, change: Change, rule: VisibilityRule | None) -> None:
        """Sends an accepted write to all subscribers that may see it.

        Args:
            change: the write.
            rule: decides which subscribers may see it; None if all may.
        """
        self.sent[_PARAM_AT] += 1
        route = self._table.route(change.param.address)
        whole = route.deliveries[_PARAM_AT] or self._work_out(route, _PARAM)
        if whole is NOBODY:
            return
        param, _, lock, unlock, ttl, _, _, _, _, _ = change
        address, value, revision, _, _, _, _, _, _ = param
        views = ((FULL, whole),) if rule is None else self._views(rule, address, route, _PARAM)
        for fields, delivery in views:
            seen = self._permissions.redact(value, fields) if fields else value
            for audience in delivery.audiences:
                self.delivered += len(audience.outboxes)
                wire = audience.codec.set(address, seen, revision, lock, unlock, ttl)
                self._fan_out.fan_out(audience, new_tuple(Frame, (wire, _PARAM_KIND, address)))
            if delivery.throttled:
                message = Set(address, value, revision, lock, unlock, ttl)
                self._offer(delivery, _PARAM, message, fields, None)

    def tell_signal(self, message: Publish, exclude: Outbox | None) -> None:
        """Sends a signal to all subscribers that may see it, except an excluded outbox (its sender's)."""
        address, signal = message.address, message.signal
        self.sent[signal] += 1
        route = self._table.route(address)
        whole = route.deliveries[signal] or self._work_out(route, signal)
        if whole is NOBODY:
            return
        rule = None if self._is_open else self._visibility.place(address).live
        views = ((FULL, whole),) if rule is None else self._views(rule, address, route, signal)
        kind = _kind(message) if signal in _SOMETIMES_DROPPED else _KEPT
        for fields, delivery in views:
            seen = self._redacted(message, fields) if fields else message
            for audience in delivery.audiences:
                self.delivered += len(audience.outboxes) - (exclude in audience.members)
                frame = new_tuple(Frame, (audience.codec.publish(seen), kind, address))
                self._fan_out.fan_out(audience, frame, exclude)
            if delivery.throttled:
                self._offer(delivery, signal, message, fields, exclude)

    def tell_one(self, target: Session, message: Publish) -> None:
        """Sends a signal to one session, if it may see it."""
        address = message.address
        rule = None if self._is_open else self._visibility.place(address).live
        if rule is not None:
            hidden = self._visibility.view(rule, target, address, Pattern.parse(address), Reads())
            if hidden is None:
                return
            message = self._redacted(message, hidden)
        self.sent[message.signal] += 1
        self.delivered += 1
        target.outbox.send(Frame(target.codec.publish(message), _kind(message), address))

    def _redacted(self, message: Publish, fields: frozenset[str]) -> Publish:
        if not fields or message.value is None:
            return message
        return message._replace(value=self._permissions.redact(message.value, fields))

    def _offer(
        self,
        delivery: Delivery,
        signal: Signal,
        message: Set | Publish,
        fields: frozenset[str],
        exclude: Outbox | None,
    ) -> None:
        """Offers a message to the subscribers with maxRate or epsilon."""
        frames: dict[Codec, Frame] = {}
        for session, subscriptions in delivery.throttled:
            if session.outbox is not exclude:
                codec = session.codec
                if codec not in frames:
                    frames[codec] = self._frame(codec, message, fields)
                self.throttles.offer(session, signal, subscriptions, message, frames[codec])

    def _frame(self, codec: Codec, message: Set | Publish, fields: frozenset[str]) -> Frame:
        if isinstance(message, Publish):
            return Frame(codec.publish(self._redacted(message, fields)), _kind(message), message.address)
        address, value, revision, lock, unlock, ttl = message
        assert revision is not None, "a change without a revision"
        seen = self._permissions.redact(value, fields) if fields else value
        return Frame(codec.set(address, seen, revision, lock, unlock, ttl), _PARAM_KIND, address)

    def _view_now(
        self, session: Session, subscriptions: tuple[Subscription, ...], message: Set | Publish
    ) -> Frame | None:
        """Encodes a held message as its session may see it now; None if it may not."""
        address = message.address
        rule = None if self._is_open else self._visibility.place(address).live
        hidden: HiddenKeys = FULL
        if rule is not None:
            hidden = _widest(
                self._visibility.view(rule, session, address, one.pattern, Reads()) for one in subscriptions
            )
        return None if hidden is None else self._frame(session.codec, message, hidden)

    def _views(self, rule: VisibilityRule, address: str, route: Route, signal: Signal) -> tuple[View, ...]:
        """Returns a delivery divided by what each session may see; computed again only after a change."""
        memory = self._memory
        question = (rule, route, signal)
        known: Answer[tuple[View, ...]] | None = memory.find(memory.shared, question, address, self._clock.now_us)
        if known is not None:
            return known.value
        reads = Reads()
        reads.things = (route,)
        views = self._work_out_views(rule, address, route, signal, reads)
        memory.keep(memory.shared, question, address, views, reads)
        return views

    def _work_out_views(
        self, rule: VisibilityRule, address: str, route: Route, signal: Signal, reads: Reads
    ) -> tuple[View, ...]:
        view = self._visibility.view
        seen: dict[Session, frozenset[str]] = {}
        subscriptions: list[Subscription] = []
        for node in route.nodes:
            for subscription in node.subscriptions:
                if subscription.wants(signal):
                    session = subscription.session
                    hidden = view(rule, session, address, subscription.pattern, reads)
                    if hidden is not None:
                        subscriptions.append(subscription)
                        # Of several patterns, the one that shows most counts.
                        seen[session] = hidden & seen.get(session, hidden)
        return tuple(
            (fields, self._deliver([each for each in subscriptions if seen[each.session] == fields], signal))
            for fields in dict.fromkeys(seen.values())
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
            self._audiences_of(everything),
            tuple((session, tuple(found)) for session, found in less.items() if session not in everything),
        )

    def _audiences_of(self, sessions: Iterable[Session]) -> tuple[Audience, ...]:
        """Returns one audience for each codec: the same object for the same sessions, whatever their order.

        The members of a room usually subscribe to several addresses there (messages, typing, presence). Messages at all
        of these go to the same sessions, so they can share one write.
        """
        outboxes: dict[Codec, list[Outbox]] = {}
        for session in sessions:
            outboxes.setdefault(session.codec, []).append(session.outbox)
        made = (Audience(codec, tuple(found)) for codec, found in outboxes.items())
        return tuple(self._audiences.setdefault(audience.members, audience) for audience in made)


def _widest(views: Iterable[HiddenKeys]) -> HiddenKeys:
    """Returns how a session sees an address that several of its patterns match: the pattern that shows most counts."""
    widest: HiddenKeys = None
    for hidden in views:
        if hidden is not None:
            widest = hidden if widest is None else widest & hidden
    return widest


def _kind(message: Publish) -> Kind:
    """Tells whether a message may be dropped for a slow session: a stream or a gesture move."""
    signal = message.signal
    may_drop = signal is Signal.STREAM or (signal is Signal.GESTURE and message.phase is Phase.MOVE)
    return Kind.DROP if may_drop else Kind.KEEP
