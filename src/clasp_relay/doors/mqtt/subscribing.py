"""Handles SUBSCRIBE and UNSUBSCRIBE, and shared subscriptions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from clasp_relay.core.handlers.reads import listen
from clasp_relay.core.relay import Relay
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import FULL, HiddenKeys
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import Pieces
from clasp_relay.doors.mqtt.link import MqttLink
from clasp_relay.doors.mqtt.publishing import Publisher
from clasp_relay.doors.mqtt.reasons import Reason, refusal_reason
from clasp_relay.doors.mqtt.session import MqttSession, Subscribed
from clasp_relay.errors import DecodeError, RequestError
from clasp_relay.net.backlog import give_up
from clasp_relay.net.turn import TurnWriter
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Subscribe
from clasp_relay.wire.mqtt.mapping import filter_pattern, is_filter
from clasp_relay.wire.mqtt.packets import (
    V5,
    Filter,
    SubscribePacket,
    UnsubscribePacket,
    encode_suback,
    encode_unsuback,
)

MAX_SUBSCRIPTION_FILTERS = 1_000
"""Filters of one client, those that no address matches included."""

FEW_FILTERS = 4
"""A packet with at most so many filters is handled in one step."""

FILTER_US, END_US = 150, 15
"""Estimated cost in µs of subscribing to a filter, without its retained messages, and of ending a subscription."""

_SHARE = "$share/"


class Subscribing:
    """Subscribes MQTT clients in the core; one for all of them.

    Args:
        relay: the core.
        publisher: for the codec, the prefix of topics, and the counts.
        writer: the turn writer.
    """

    def __init__(self, relay: Relay, publisher: Publisher, writer: TurnWriter) -> None:
        self._relay = relay
        self._codec = publisher.codec
        self._prefix = publisher.prefix
        self._counts = publisher.counts
        self._writer = writer
        self._groups: dict[tuple[str, str], deque[MqttSession]] = {}

    def attach(self, session: MqttSession, core: Session) -> None:
        """Gives a client's session the look-ups in its session in the core."""
        session.view_of = lambda address: self._view_of(session, core, address)
        session.ids_at = lambda address: self._ids_at(session, core, address)
        session.ids_by_node = None

    def subscribe(self, core: Session, session: MqttSession, packet: SubscribePacket, link: MqttLink) -> Pieces:
        """Subscribes a client, a filter in each piece, and sends it the SUBACK and the retained messages.

        Args:
            core: its session in the core.
            session: its session here.
            packet: the SUBSCRIBE, which ``check_filters`` has accepted.
            link: the outgoing side of its connection.
        """
        self._flush()
        reasons: list[int] = []
        wanted: set[object] = set()
        held: list[tuple[object, Iterator[bytes]]] = []
        for options in packet.filters:
            is_new = options.text not in session.subscriptions
            session.holding = []
            reason, subscribed = self._add(core, session, options, packet.subscription_id)
            held += session.holding
            session.holding = None
            reasons.append(reason if link.version == V5 else min(reason, Reason.UNSPECIFIED))
            if subscribed is not None and subscribed.group is None:
                handling = options.retain_handling
                if handling == 0 or (handling == 1 and is_new):
                    wanted.add(("subscription", subscribed.id))
            yield FILTER_US
            if not core.is_live:
                wanted.clear()
                break
        else:
            self._flush()
            link.write(encode_suback(link.version, packet.id, reasons))
        for key, frames in held:
            if key in wanted:
                session.send_snapshot(key, frames)
            else:
                give_up(frames)

    def _flush(self) -> None:
        """Writes earlier messages, which must not follow the retained ones."""
        if self._writer.runs:
            self._writer.flush_runs()

    def _add(
        self, core: Session, session: MqttSession, options: Filter, subscription_id: int
    ) -> tuple[int, Subscribed | None]:
        """Adds one subscription; returns its reason code, and the subscription if it was granted."""
        group, text = _group_of(options)
        before = session.subscriptions.get(options.text)
        if before is None and len(session.subscriptions) >= MAX_SUBSCRIPTION_FILTERS:
            return Reason.QUOTA_EXCEEDED, None
        pattern_text = filter_pattern(self._prefix, text)
        pattern = None if pattern_text is None else Pattern.parse(pattern_text)
        number = session.new_subscription_id() if before is None else before.id
        if pattern is not None:
            codec, relay = self._codec, self._relay
            limited = relay.counts.limited
            codec.refusal = None
            relay.accept(core, Subscribe(number, pattern.text), 0)
            session.ids_by_node = None
            if relay.counts.limited > limited:
                return Reason.QUOTA_EXCEEDED, None
            if codec.refusal is not None:
                self._counts.refused += 1
                return refusal_reason(codec.refusal.error), None
        subscribed = Subscribed(number, options, pattern, subscription_id, group)
        session.add(subscribed)
        if group is not None:
            members = self._groups.setdefault(group, deque())
            if session not in members:
                members.append(session)
        return options.qos, subscribed

    def unsubscribe(self, core: Session, session: MqttSession, packet: UnsubscribePacket, link: MqttLink) -> Pieces:
        """Ends subscriptions of a client, one in each piece, and sends it the UNSUBACK.

        Args:
            core: its session in the core.
            session: its session here.
            packet: the UNSUBSCRIBE.
            link: the outgoing side of its connection.
        """
        reasons = []
        for text in packet.filters:
            removed = self._forget(session, text)
            reasons.append(Reason.NO_SUBSCRIPTION_EXISTED if removed is None else Reason.SUCCESS)
            if removed is not None:
                # It costs nothing and must not be refused: the client would go on getting messages.
                self._relay.unsubscribe(core, removed.id)
                session.ids_by_node = None
            yield END_US
            if not core.is_live:
                # A client that is back with this session has subscribed to the rest again.
                return
        session.look_at_options()
        link.write(encode_unsuback(link.version, packet.id, reasons))

    def subscribe_again(self, core: Session, session: MqttSession) -> None:
        """Subscribes a new session of the core to all that a kept session has subscribed to, without retained ones.

        In one step, so that nothing is missed in between. Subscriptions that the client may no longer have are dropped.
        """
        for text, subscribed in list(session.subscriptions.items()):
            if subscribed.pattern is None:
                continue
            message = Subscribe(subscribed.id, subscribed.pattern.text)
            try:
                listen(self._relay, core, message, subscribed.pattern)
            except RequestError:
                self._counts.refused += 1
                self._forget(session, text)
        session.look_at_options()
        session.ids_by_node = None

    def _forget(self, session: MqttSession, text: str) -> Subscribed | None:
        """Removes a subscription from a client's session."""
        removed = session.remove(text)
        if removed is not None:
            self._leave_group(session, removed)
        return removed

    def _ids_at(self, session: MqttSession, core: Session, address: str) -> list[int]:
        """Returns the ids of a session's subscriptions that match an address.

        The core has found the patterns that match, for the fan-out: a client with a thousand filters costs each message
        no more than these.
        """
        ids = session.ids_by_node
        if ids is None:
            ids = session.ids_by_node = {}
            for number, subscription in core.subscriptions.items():
                ids.setdefault(subscription.node, []).append(number)
        return [number for node in self._relay.subscriptions.route(address).nodes for number in ids.get(node, ())]

    def _view_of(self, session: MqttSession, core: Session, address: str) -> HiddenKeys:
        """Returns how a client sees an address now: keys of a waiting message may have been hidden since."""
        relay = self._relay
        if relay.permissions.is_open:
            return FULL
        if not relay.permissions.is_current(core.identity) or not relay.permissions.can_read(core.identity, address):
            return None
        rule = relay.visibility.place(address).live
        if rule is None:
            return FULL
        # A message of this turn may be delivered after the core's session has ended, and with it its subscriptions.
        own = map(core.subscriptions.get, self._ids_at(session, core, address))
        patterns = [each.pattern for each in own if each is not None]
        views = [relay.visibility.view(rule, core, address, pattern, Reads()) for pattern in patterns]
        return min((hidden for hidden in views if hidden is not None), key=len, default=None)

    # Shared subscriptions

    def choose(self, group: tuple[str, str]) -> object:
        """Returns the session that gets the next message of a group: round robin, connected ones first.

        Args:
            group: a shared subscription: its name and filter.
        """
        members = self._groups.get(group)
        if not members:
            return None
        for _ in range(len(members)):
            members.rotate(-1)
            if members[-1].link is not None:
                break
        return members[-1]

    def forget(self, session: MqttSession) -> None:
        """Removes a session that has ended from its groups."""
        for subscribed in session.subscriptions.values():
            self._leave_group(session, subscribed)

    def _leave_group(self, session: MqttSession, subscribed: Subscribed) -> None:
        group = subscribed.group
        members = None if group is None else self._groups.get(group)
        if group is not None and members is not None and session in members:
            members.remove(session)
            if not members:
                del self._groups[group]


def check_filters(packet: SubscribePacket) -> None:
    """Checks the filters of a SUBSCRIBE.

    Raises:
        DecodeError: one of them is not valid.
    """
    for options in packet.filters:
        _, text = _group_of(options)
        if not is_filter(text):
            raise DecodeError(f"{options.text[:200]!r} is no MQTT topic filter")


def _group_of(options: Filter) -> tuple[tuple[str, str] | None, str]:
    """Returns the group of a shared subscription ([5] 4.8.2), or None, and the filter of its topics.

    Raises:
        DecodeError: it is not valid.
    """
    if not options.text.startswith(_SHARE):
        return None, options.text
    name, _, text = options.text.removeprefix(_SHARE).partition("/")
    if not name or not text or "+" in name or "#" in name or options.no_local:
        raise DecodeError("a shared subscription of MQTT is not valid")
    return (name, text), text
