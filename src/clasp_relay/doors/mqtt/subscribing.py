"""Handles SUBSCRIBE and UNSUBSCRIBE, and shared subscriptions."""

from __future__ import annotations

from collections import deque

from clasp_relay.core.relay import Relay
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import FULL, HiddenKeys
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.mqtt.link import MqttLink
from clasp_relay.doors.mqtt.publishing import Publisher
from clasp_relay.doors.mqtt.reasons import Reason, refusal_reason
from clasp_relay.doors.mqtt.session import MqttSession, Subscribed
from clasp_relay.errors import DecodeError
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

    def subscribe(self, core: Session, session: MqttSession, packet: SubscribePacket, link: MqttLink) -> None:
        """Subscribes a client, and sends it the SUBACK and the retained messages.

        Args:
            core: its session in the core.
            session: its session here.
            packet: the SUBSCRIBE.
            link: the outgoing side of its connection.

        Raises:
            DecodeError: a filter is not valid.
        """
        if self._writer.runs:
            # Earlier messages must not follow the retained ones.
            self._writer.flush_runs()
        session.holding = []
        reasons, wanted = [], []
        for options in packet.filters:
            is_new = options.text not in session.subscriptions
            reason, subscribed = self._add(core, session, options, packet.subscription_id)
            reasons.append(reason if link.version == V5 else min(reason, Reason.UNSPECIFIED))
            if subscribed is not None and subscribed.group is None:
                handling = options.retain_handling
                if handling == 0 or (handling == 1 and is_new):
                    wanted.append(("subscription", subscribed.id))
        held, session.holding = session.holding, None
        link.write(encode_suback(link.version, packet.id, reasons))
        for key, frames in held:
            if key in wanted:
                session.send_snapshot(key, frames)
            else:
                give_up(frames)

    def _add(
        self, core: Session, session: MqttSession, options: Filter, subscription_id: int
    ) -> tuple[int, Subscribed | None]:
        """Adds one subscription; returns its reason code, and the subscription if it was granted."""
        group, text = _group_of(options)
        if not is_filter(text):
            raise DecodeError(f"{options.text[:200]!r} is no MQTT topic filter")
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

    def unsubscribe(self, core: Session, session: MqttSession, packet: UnsubscribePacket, link: MqttLink) -> None:
        """Ends subscriptions of a client, and sends it the UNSUBACK.

        Args:
            core: its session in the core.
            session: its session here.
            packet: the UNSUBSCRIBE.
            link: the outgoing side of its connection.
        """
        reasons = []
        for text in packet.filters:
            removed = session.remove(text)
            reasons.append(Reason.NO_SUBSCRIPTION_EXISTED if removed is None else Reason.SUCCESS)
            if removed is not None:
                self._leave_group(session, removed)
                # Never refused: the client would go on getting messages.
                self._relay.unsubscribe(core, removed.id)
        link.write(encode_unsuback(link.version, packet.id, reasons))

    def subscribe_again(self, core: Session, session: MqttSession) -> None:
        """Adds a kept session's subscriptions to a new session of the core, without sending retained messages."""
        limiter, core.limiter = core.limiter, None
        session.holding = []
        for subscribed in session.subscriptions.values():
            if subscribed.pattern is not None:
                self._relay.accept(core, Subscribe(subscribed.id, subscribed.pattern.text), 0)
        held, session.holding = session.holding, None
        for _, frames in held:
            give_up(frames)
        core.limiter = limiter

    def view_of(self, core: Session, address: str) -> HiddenKeys:
        """Returns how a session sees an address now; a waiting message may have been hidden meanwhile."""
        relay = self._relay
        if relay.permissions.is_open:
            return FULL
        if not relay.permissions.is_current(core.identity) or not relay.permissions.can_read(core.identity, address):
            return None
        rule = relay.visibility.place(address).live
        if rule is None:
            return FULL
        patterns = [each.pattern for each in core.subscriptions.values() if each.pattern.matches(address)]
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
