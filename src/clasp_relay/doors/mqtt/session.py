"""The session of an MQTT client: its subscriptions, and its messages in flight and waiting.

It is kept after the connection's end if the client asks for that (clean session 0, Session Expiry), for the next one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol

from clasp_relay.core.ports import NOT_YET, Frame, Kind
from clasp_relay.core.rights.port import FULL, HiddenKeys
from clasp_relay.core.session.account import Account, MemoryKind
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.doors.mqtt.messages import Acked, Delivery, SharedBatches
from clasp_relay.errors import CloseCode
from clasp_relay.net.backlog import Batch, give_up
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.mqtt.packets import (
    V4,
    Acknowledge,
    Filter,
    PacketType,
    Prop,
    Properties,
    PublishPacket,
    encode_acknowledge,
    encode_publish,
)

MAX_IN_FLIGHT = 20
"""Messages with QoS 1 and 2 that a client has not acknowledged; mosquitto's number. Receive Maximum may lower it."""

MAX_QUEUED_BYTES = 1024 * 1024
"""Limit of the messages that wait, as for any outbox; beyond it the oldest are dropped."""

MESSAGE_BYTES = 128
"""Bytes that a message counts for, without its topic, its payload and its properties."""

PROPERTY_BYTES = 160
"""Bytes that a user property counts for, without its texts."""

PIECE_BYTES = 16_384
"""Bytes of retained messages that are written in one piece."""


class Link(Protocol):
    """The part of a connection that its session uses."""

    version: int
    key: object
    """The kind of connection, by which its packets' bytes differ: version and transport."""
    wrap: Callable[[bytes], bytes]
    receive_maximum: int
    max_packet_bytes: int

    def send(self, frame: Frame) -> None:
        """Sends bytes after all before them."""

    def send_batch(self, batch: Batch) -> None:
        """Sends the bytes of several messages, shared with other sessions, after all before them."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Sends bytes as the socket drains."""

    def recorded(self) -> None:
        """Completes the answer of the oldest SET that waits for its record."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes the connection after all that was sent before."""

    def discard(self) -> None:
        """Drops all that was not handed to the socket yet."""


class Subscribed(NamedTuple):
    """A subscription of an MQTT client."""

    id: int
    """The subscription in the core."""
    options: Filter
    pattern: Pattern | None
    """None for a filter that no address can match."""
    subscription_id: int
    group: tuple[str, str] | None
    """Name and filter of a shared subscription; else None."""

    @property
    def is_plain(self) -> bool:
        """Whether its messages are the same for all sessions, apart from No Local, which matters only to a sender."""
        options = self.options
        is_usual = not (options.retain_as_published or self.subscription_id)
        return is_usual and self.group is None and not options.qos


class KeptTotal:
    """The count of messages that wait in all kept sessions together.

    Args:
        most: the limit.
        share: how many one client may have beyond the limit.
    """

    def __init__(self, most: int, share: int) -> None:
        self._most = most
        self._share = share
        self.messages = 0
        """The count."""

    def has_too_many(self, messages: int) -> bool:
        """Tells whether a client with so many messages has to drop some."""
        return self.messages > self._most and messages > self._share

    def add(self, messages: int) -> None:
        """Adds to the count, or subtracts."""
        self.messages += messages


class _Waiting(NamedTuple):
    """A message with QoS 1 or 2, waiting or in flight."""

    packet: PublishPacket
    address: str
    until_s: float | None
    """When it expires; None for never."""
    hidden: HiddenKeys
    """The keys that were hidden from the client when it was encoded."""


class MqttSession(HandedOutbox):
    """A client's subscriptions and messages. Implements ``core.ports.Outbox``.

    Args:
        subject: its subject.
        client_id: the client's id.
        choose: returns the session that gets the next message of a shared subscription.
        now_s: returns the time in s, for messages that expire.
        batches: the packets that the sessions of a door share.
    """

    def __init__(
        self,
        subject: str,
        client_id: str,
        choose: Callable[[tuple[str, str]], object],
        now_s: Callable[[], float],
        batches: SharedBatches | None = None,
    ) -> None:
        self.subject = subject
        self.client_id = client_id
        self._choose = choose
        self._now_s = now_s
        self._batches = batches or SharedBatches()
        self.link: Link | None = None
        """Its connection; None for a kept session."""
        self.claimed_us = 0
        """When its client last connected, in a cluster."""
        self.ended: str | None = None
        """Why the core ended it; None if it did not."""
        self.subscriptions: dict[str, Subscribed] = {}
        """Its subscriptions, by the filter as the client wrote it."""
        self._by_id: dict[int, Subscribed] = {}
        """The same by their ids in the core."""
        self._is_plain = True
        self._is_deaf_to_itself = False
        """Whether a subscription has No Local."""
        self._last_id = 0
        # None once the client has acknowledged its receipt (QoS 2).
        self._in_flight: OrderedDict[int, _Waiting | None] = OrderedDict()
        self._queue: deque[_Waiting] = deque()
        self.queued_bytes = 0
        self.received: set[int] = set()
        """Ids of QoS 2 in use by the client."""
        self.holding: list[tuple[object, Iterator[bytes]]] | None = None
        """Snapshots that wait for a SUBACK; None while no SUBACK is due."""
        self.kept_total: KeptTotal | None = None
        """The count of messages in all kept sessions; None while it has a connection."""
        self._account: Account | None = None
        self._last_subscription = 0
        self.view_of: Callable[[str], HiddenKeys] = _everything
        """Returns how its client sees an address now; called for a waiting message when it begins to wait and when it
        is sent."""
        self.ids_at: Callable[[str], Iterable[int]] = _none
        """Returns the ids of the core's subscriptions of its client that match an address."""
        self.ids_by_node: dict[object, list[int]] | None = None
        """Where the core keeps these subscriptions, for ``ids_at``; None once they have changed."""

    @property
    def key(self) -> tuple[str, str]:
        """Its subject and its client id; a door has one session of each."""
        return self.subject, self.client_id

    def end(self) -> None:
        """Drops the references to the core's session, which refers to this one."""
        self.view_of, self.ids_at, self.ids_by_node = _everything, _none, None

    @property
    def kept_messages(self) -> int:
        """Number of messages that wait or are in flight."""
        return len(self._queue) + len(self._in_flight)

    def charge(self, account: Account) -> None:
        """Counts its messages in an account, as long as it has no connection."""
        self._account = account
        in_flight = sum(_size(each.packet) for each in self._in_flight.values() if each is not None)
        account.add(MemoryKind.MESSAGES, self.queued_bytes + in_flight)
        self._keep_within()

    def uncharge(self) -> None:
        """Stops counting them."""
        account, self._account = self._account, None
        if account is not None:
            in_flight = sum(_size(each.packet) for each in self._in_flight.values() if each is not None)
            account.add(MemoryKind.MESSAGES, -self.queued_bytes - in_flight)

    def new_subscription_id(self) -> int:
        """Returns an id for a subscription in the core."""
        self._last_subscription += 1
        return self._last_subscription

    def add(self, subscribed: Subscribed) -> None:
        """Adds a subscription; replaces one with the same filter."""
        before = self.subscriptions.get(subscribed.options.text)
        self.subscriptions[subscribed.options.text] = self._by_id[subscribed.id] = subscribed
        if before is not None:
            self.look_at_options()
        else:
            self._is_plain = self._is_plain and subscribed.is_plain
            self._is_deaf_to_itself = self._is_deaf_to_itself or subscribed.options.no_local

    def remove(self, text: str) -> Subscribed | None:
        """Removes a subscription; ``look_at_options`` has to be called after the last removal."""
        removed = self.subscriptions.pop(text, None)
        if removed is not None:
            del self._by_id[removed.id]
        return removed

    def look_at_options(self) -> None:
        """Computes again what depends on the options of all subscriptions."""
        subscriptions = self.subscriptions.values()
        self._is_plain = all(each.is_plain for each in subscriptions)
        self._is_deaf_to_itself = any(each.options.no_local for each in subscriptions)

    # core.ports.Outbox

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``."""
        self.deliver(frame)

    def deliver_batch(self, batch: Batch) -> None:
        """Sends the messages of one turn: together, if they are the same for all sessions."""
        if not self._is_plain or (self._is_deaf_to_itself and self._batches.has_sender(batch, self)):
            super().deliver_batch(batch)
        elif self.link is not None:
            link = self.link
            link.send_batch(self._batches.find(batch, link.key, link.version, link.wrap))

    def deliver(self, frame: Frame) -> None:
        """Sends a message, or keeps it according to its QoS."""
        delivery = frame.wire
        if not isinstance(delivery, Delivery):
            if isinstance(delivery, Acked) and self.link is not None:
                self.link.recorded()
            return
        link = self.link
        if self._is_plain and not (self._is_deaf_to_itself and delivery.sender is self):
            if link is not None:
                wire = delivery.packet(link.key, link.version, False, link.wrap)
                link.send(Frame(wire, frame.kind, frame.address))
            return
        found = self._found(delivery)
        if not found:
            return
        qos = min(delivery.qos, max(each.options.qos for each in found))
        retain = delivery.is_retained and any(each.options.retain_as_published for each in found)
        self._send(delivery, qos, retain, [each.subscription_id for each in found], frame)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``; sends retained messages, after the SUBACK that is due."""
        if self.holding is not None:
            self.holding.append((key, frames))
        elif self.link is None:
            give_up(frames)
        else:
            self.link.send_snapshot(key, self._retained(key, frames))

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox``."""
        self.ended = self.ended or reason
        if self.link is not None:
            self.link.close(close_code, reason)

    def discard(self) -> None:
        """See ``core.ports.Outbox``."""
        while self._queue:
            self.drop_oldest()
        if self.link is not None:
            self.link.discard()

    def abort(self) -> None:
        """Ends the session after an internal error."""
        self.close(CloseCode.INTERNAL, "internal error")

    # Messages

    def _found(self, delivery: Delivery) -> list[Subscribed]:
        """Returns the subscriptions that a message is for."""
        found = []
        for number in sorted(self.ids_at(delivery.address)):
            each = self._by_id.get(number)
            if each is None:  # the core has it already, and its answer is not sent
                continue
            if each.options.no_local and delivery.sender is self:
                continue
            if each.group is not None:
                taker = delivery.takers.get(each.group)
                if taker is None:
                    taker = delivery.takers[each.group] = self._choose(each.group)
                if taker is not self:
                    continue
            found.append(each)
        return found

    def _send(self, delivery: Delivery, qos: int, retain: bool, ids: list[int], frame: Frame) -> None:
        link = self.link
        ids = [number for number in ids if number]
        if not qos:
            if link is None:
                return
            if ids:
                packet = _packet(delivery, 0, retain, ids)
                link.send(Frame(link.wrap(encode_publish(link.version, packet)), frame.kind, frame.address))
            else:
                key = (link.key, retain)
                link.send(Frame(delivery.packet(key, link.version, retain, link.wrap), frame.kind, frame.address))
            return
        self.enqueue(_packet(delivery, qos, retain, ids), delivery.address)

    def enqueue(self, packet: PublishPacket, address: str) -> None:
        """Sends a message with QoS 1 or 2, or queues it."""
        expiry = packet.properties.get(Prop.MESSAGE_EXPIRY)
        until_s = self._now_s() + expiry if isinstance(expiry, int) else None
        hidden = self.view_of(address)
        self._queue.append(_Waiting(packet, address, until_s, hidden))
        self.queued_bytes += _size(packet)
        if self.kept_total is not None:
            self.kept_total.add(1)
        if self._account is not None:
            self._account.add(MemoryKind.MESSAGES, _size(packet))
        self.send_queued((address, hidden))
        self._keep_within()

    def _keep_within(self) -> None:
        """Drops messages over a limit: of the session, of all kept sessions, or of its account."""
        total, account = self.kept_total, self._account
        while self._queue and (
            self.queued_bytes > MAX_QUEUED_BYTES
            or (total is not None and total.has_too_many(self.kept_messages))
            or (account is not None and account.is_over)
        ):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Drops the oldest waiting message."""
        size = _size(self._queue.popleft().packet)
        self.queued_bytes -= size
        if self.kept_total is not None:
            self.kept_total.add(-1)
        if self._account is not None:
            self._account.add(MemoryKind.MESSAGES, -size)

    def send_queued(self, judged: tuple[str, HiddenKeys] | None = None) -> None:
        """Sends waiting messages, as far as the client's Receive Maximum allows.

        Args:
            judged: an address, and how the client sees it now, if that is known.
        """
        link = self.link
        while link is not None and self._queue and len(self._in_flight) < min(MAX_IN_FLIGHT, link.receive_maximum):
            waiting = self._queue.popleft()
            packet, address, until_s, hidden = waiting
            self.queued_bytes -= _size(packet)
            left_s = None if until_s is None else until_s - self._now_s()
            now_hidden = judged[1] if judged is not None and judged[0] == address else self.view_of(address)
            if (left_s is not None and left_s <= 0) or not _hides_no_more(now_hidden, hidden):
                continue
            if left_s is not None:
                packet = replace(packet, properties=packet.properties | {Prop.MESSAGE_EXPIRY: int(left_s) + 1})
            packet = replace(packet, id=self._next_id())
            self._in_flight[packet.id] = waiting._replace(packet=packet)
            self._write(link, packet)

    def resume(self, link: Link) -> None:
        """Takes a new connection: sends again what was in flight ([5] 4.4), then what waits."""
        self.link = link
        for packet_id, sent in list(self._in_flight.items()):
            if sent is None:
                link.send(Frame(link.wrap(encode_acknowledge(link.version, Acknowledge(PacketType.PUBREL, packet_id)))))
            elif _hides_no_more(self.view_of(sent.address), sent.hidden):
                self._write(link, replace(sent.packet, dup=True))
            else:
                del self._in_flight[packet_id]
        self.send_queued()

    def acknowledged(self, packet: Acknowledge) -> None:
        """Handles a PUBACK, PUBREC or PUBCOMP."""
        link = self.link
        if link is None or packet.id not in self._in_flight:
            return
        if packet.type is PacketType.PUBREC and packet.reason < 0x80:
            self._in_flight[packet.id] = None
            link.send(Frame(link.wrap(encode_acknowledge(link.version, Acknowledge(PacketType.PUBREL, packet.id)))))
            return
        del self._in_flight[packet.id]
        self.send_queued()

    def _write(self, link: Link, packet: PublishPacket) -> None:
        if link.version == V4 and packet.properties:
            packet = replace(packet, properties={})
        wire = encode_publish(link.version, packet)
        if len(wire) <= link.max_packet_bytes:
            link.send(Frame(link.wrap(wire), Kind.KEEP))
        else:
            self._in_flight.pop(packet.id, None)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._in_flight:
                return self._last_id

    def _retained(self, key: object, frames: Iterator[bytes]) -> Iterator[bytes]:
        """Yields retained messages as packets of this session."""
        subscribed = self._by_id.get(key[1]) if isinstance(key, tuple) else None
        parts: list[bytes] = []
        size = 0
        try:
            for delivery in frames:
                link = self.link
                if link is None:
                    return
                if isinstance(delivery, Delivery):
                    found = [subscribed] if subscribed is not None else self._found(delivery)
                    qos = min(delivery.qos, max((each.options.qos for each in found), default=0))
                    ids = [each.subscription_id for each in found if each.subscription_id]
                    packet = _packet(delivery, qos, True, ids)
                    if qos:
                        self.enqueue(packet, delivery.address)
                    else:
                        parts.append(link.wrap(encode_publish(link.version, packet)))
                        size += len(parts[-1])
                if size >= PIECE_BYTES or (not isinstance(delivery, Delivery) and delivery == NOT_YET):
                    yield b"".join(parts)
                    parts, size = [], 0
            if parts:
                yield b"".join(parts)
        finally:
            give_up(frames)


def _packet(delivery: Delivery, qos: int, retain: bool, ids: list[int]) -> PublishPacket:
    properties: Properties = dict(delivery.properties)
    if ids:
        properties[Prop.SUBSCRIPTION_ID] = ids
    return PublishPacket(delivery.topic, delivery.payload, qos, retain, properties=properties)


def _size(packet: PublishPacket) -> int:
    return MESSAGE_BYTES + len(packet.topic) + len(packet.payload) + properties_bytes(packet.properties)


def properties_bytes(properties: Properties) -> int:
    """Returns about how much memory the properties of a message take."""
    return sum(map(_property_size, properties.values())) if properties else 0


def _property_size(value: object) -> int:
    """Returns what a property counts for: a text, data, or user properties; numbers nothing."""
    if isinstance(value, list):
        return sum(PROPERTY_BYTES + sum(map(len, each)) for each in value if isinstance(each, tuple))
    return len(value) if isinstance(value, str | bytes) else 0


def _everything(_address: str) -> HiddenKeys:
    return FULL


def _none(_address: str) -> Iterable[int]:
    return ()


def _hides_no_more(now: HiddenKeys, then: HiddenKeys) -> bool:
    """Tells whether a client that saw an address with some keys hidden may see all of that now."""
    return now is not None and then is not None and now <= then
