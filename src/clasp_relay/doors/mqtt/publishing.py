"""Handles PUBLISH: passes clients' messages to the core, and answers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts, WhileHandled
from clasp_relay.doors.mqtt.claims import Claims
from clasp_relay.doors.mqtt.link import Answer, MqttLink
from clasp_relay.doors.mqtt.messages import MqttCodec, Sending, encode_mark, marked, own_bytes
from clasp_relay.doors.mqtt.reasons import Reason, refusal_reason
from clasp_relay.doors.mqtt.session import MqttSession
from clasp_relay.doors.packet_queue import PacketQueue
from clasp_relay.errors import CloseCode, DecodeError, ErrorCode, RequestError
from clasp_relay.wire.constants import TTL_ABSOLUTE, Signal
from clasp_relay.wire.messages import Message, Publish, Set
from clasp_relay.wire.mqtt.mapping import payload_cost, payload_value, topic_address
from clasp_relay.wire.mqtt.packets import (
    FORWARDED,
    V5,
    Acknowledge,
    PacketType,
    Prop,
    Properties,
    PublishPacket,
    Will,
)

MAX_RECEIVED = 1_000
"""Ids of QoS 2 that one client may have in use."""

MAX_TOPIC_ALIAS = 16
"""Topics for which a client may send a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """The options of the door.

    Attributes:
        namespace: the address prefix of topics in CLASP; ``/`` for the whole tree.
        publish_sets: whether every PUBLISH is a SET, as in the Rust relay.
    """

    namespace: str = "/mqtt"
    publish_sets: bool = False


class Publisher:
    """Passes MQTT clients' messages to the core; one for all clients.

    Args:
        relay: the core.
        options: the options of the door.
        counts: the counts of the door.
        claims: passes on changes of clients of other relays; None without a cluster.
    """

    def __init__(self, relay: Relay, options: MqttOptions, counts: DoorCounts, claims: Claims | None) -> None:
        self._relay = relay
        self._publish_sets = options.publish_sets
        self.counts = counts
        self.prefix = "" if options.namespace == "/" else options.namespace
        """The address prefix of topics."""
        self.codec = MqttCodec(self.prefix, relay.params.get)
        """The codec of all MQTT sessions."""
        if claims is not None:
            claims.when_marked = self._marked
            self.codec.followed = self._sent_elsewhere

    @property
    def follows(self) -> bool:
        """Whether another core decides clients' messages, so that each has an outcome of its own."""
        return self._relay.committer.is_following

    def message(self, packet: PublishPacket | Will, topic: str, sender: object) -> tuple[Sending, Message]:
        """Returns the core's message for a PUBLISH or a will.

        Args:
            packet: the PUBLISH or the will.
            topic: its topic.
            sender: its client's session.

        Raises:
            RequestError: its topic has no address, or its payload no value.
        """
        address = topic_address(self.prefix, topic)
        if address is None:
            raise RequestError(ErrorCode.ADDRESS, f"the topic {topic[:200]!r} has no address in CLASP")
        payload, properties = packet.payload, packet.properties
        is_set = packet.retain or self._publish_sets
        value = payload_value(payload, is_retained=is_set)
        forwarded: Properties = {number: properties[number] for number in FORWARDED if number in properties}
        expiry = properties.get(Prop.MESSAGE_EXPIRY)
        if isinstance(expiry, int):
            forwarded[Prop.MESSAGE_EXPIRY] = expiry
        own = own_bytes(value, payload) if is_set else b""
        sending = Sending(address, value, payload, packet.qos, sender, forwarded, own)
        if self.follows:
            sending = sending._replace(mark=encode_mark(sending, is_set=is_set))
        if not is_set:
            return sending, Publish(address, Signal.EVENT, value=value)
        ttl = expiry if isinstance(expiry, int) and 0 < expiry < TTL_ABSOLUTE else None
        return sending, Set(address, value, ttl=None if ttl is None else ttl | TTL_ABSOLUTE)

    def pays(self, core: Session, packet: PublishPacket) -> bool:
        """Takes the cost of reading a PUBLISH's payload from the message limit; returns whether it may be read."""
        if self._relay.pay(core, payload_cost(packet.payload)):
            return True
        self.counts.refused += 1
        return False

    def publish(self, core: Session, sending: Sending, message: Message) -> tuple[Reason, bool]:
        """Passes a message to the core; counts a refusal.

        Returns:
            The reason code, and whether the core's answer will tell that it is recorded.
        """
        codec, relay = self.codec, self._relay
        codec.refusal = None
        limited = relay.counts.limited
        relay.accept(core, message, 1, _WhileSent(codec, core, sending))
        if relay.counts.limited > limited:
            reason = Reason.QUOTA_EXCEEDED
        elif codec.refusal is not None:
            reason = refusal_reason(codec.refusal.error)
        else:
            return Reason.SUCCESS, isinstance(message, Set) or self.follows
        self.counts.refused += 1
        return reason, False

    # In a cluster

    def _marked(self, change: Change, mark: bytes) -> None:
        """Notes the QoS of a retained message that was sent at any relay."""
        param = change.param
        if change.kind is ChangeKind.WRITE:
            self.codec.keep(param.address, param.revision, marked(change, mark, None)._replace(own=param.sent_as))

    def _sent_elsewhere(self, address: str) -> Sending | None:
        """Returns the MQTT message of any relay that is being sent now; None if it is not of an MQTT client."""
        committer = self._relay.committer
        change = committer.followed
        if change is None or change.param.address != address:
            return None
        session = self._relay.sessions.get(change.param.writer)
        sender = session.outbox if session is not None and isinstance(session.outbox, MqttSession) else None
        if sender is None and not committer.followed_with and not change.param.sent_as:
            return None
        return marked(change, committer.followed_with, sender)


class _WhileSent(WhileHandled):
    """Sets a client's message in codec and core while it is handled."""

    __slots__ = ("_core", "_sending")

    def __init__(self, codec: MqttCodec, core: Session, sending: Sending) -> None:
        super().__init__(codec, "sending", sending)
        self._core = core
        self._sending = sending

    def __enter__(self) -> None:
        super().__enter__()
        self._core.sent_as, self._core.sent_with = self._sending.own, self._sending.mark

    def __exit__(self, *how: object) -> None:
        self._core.sent_as = self._core.sent_with = b""
        super().__exit__(*how)


class Publishing:
    """The PUBLISHes of one client, and their answers.

    Args:
        publisher: passes them to the core.
        link: the outgoing side of its connection.
        waiting: the queue of its packets while a PUBLISH is being handled.
        core: its session in the core.
        session: its session here.
        go_on: handles the waiting packets.
    """

    def __init__(
        self,
        publisher: Publisher,
        link: MqttLink,
        waiting: PacketQueue,
        core: Session,
        session: MqttSession,
        go_on: Callable[[Callable[[], None]], None],
    ) -> None:
        self._publisher = publisher
        self._link = link
        self._waiting = waiting
        self._core = core
        self._session = session
        self._go_on = go_on
        self._aliases: dict[int, str] = {}

    def take(self, packet: PublishPacket) -> None:
        """Handles a PUBLISH.

        Raises:
            DecodeError: its topic alias is not known, or too many ids of QoS 2 are in use.
        """
        topic = self._topic_of(packet)
        link, core, publisher = self._link, self._core, self._publisher
        if packet.qos == 2 and packet.id in self._session.received:
            link.answer(Acknowledge(PacketType.PUBREC, packet.id))
            return
        answer, errors = link.expect(packet), core.errors
        if not publisher.pays(core, packet):
            self._published(packet, answer, Reason.QUOTA_EXCEEDED, is_awaited=False)
            return
        try:
            sending, message = publisher.message(packet, topic, self._session)
            reason, is_awaited = publisher.publish(core, sending, message)
            refusal = publisher.codec.refusal
            if refusal is not None and self._cannot_say(packet, refusal.error, refusal.message):
                return
        except RequestError as error:
            link.refuse(error.message)
            reason, is_awaited = refusal_reason(error.code), False
        if core.is_busy:
            # It waits for a long bundle; later packets wait, too.
            self._await_decision(packet, answer, errors)
        else:
            self._published(packet, answer, reason, is_awaited=is_awaited)

    def _await_decision(self, packet: PublishPacket, answer: Answer, errors: int) -> None:
        """Answers a PUBLISH once it has been decided."""
        core = self._core
        if core.is_busy:
            again = partial(self._await_decision, packet, answer, errors)
            self._waiting.begin(partial(self._go_on, again), 0)
            return
        is_refused = core.errors > errors
        self._publisher.counts.refused += is_refused
        reason = Reason.UNSPECIFIED if is_refused else Reason.SUCCESS
        self._published(packet, answer, reason, is_awaited=not is_refused)

    def _published(self, packet: PublishPacket, answer: Answer, reason: Reason, *, is_awaited: bool) -> None:
        """Answers a PUBLISH once its changes are recorded."""
        answer.is_recorded = answer.is_recorded or not is_awaited
        received = self._session.received
        if packet.qos == 2 and reason < Reason.UNSPECIFIED:
            received.add(packet.id)
            if len(received) > MAX_RECEIVED:
                raise DecodeError(f"more than {MAX_RECEIVED} MQTT messages with QoS 2 at once")
        self._link.complete(answer, _acknowledge(packet, reason))

    def decided(self, refusal: RequestError | None) -> None:
        """Answers the oldest PUBLISH that another core decides, with its outcome.

        Args:
            refusal: why it was refused; None if it was accepted.
        """
        answer = self._link.oldest_awaited()
        if refusal is None or answer is None or answer.packet is None:
            self._link.recorded()
            return
        packet = answer.packet
        answer.is_recorded = True
        self._publisher.counts.refused += 1
        if not self._cannot_say(packet, refusal.code, refusal.message):
            self._session.received.discard(packet.id)
            self._link.complete(answer, _acknowledge(packet, refusal_reason(refusal.code)))

    def released(self, packet: Acknowledge) -> None:
        """Handles a PUBREL: the client will not send that PUBLISH again."""
        self._session.received.discard(packet.id)
        self._link.answer(Acknowledge(PacketType.PUBCOMP, packet.id))

    def _cannot_say(self, packet: PublishPacket, code: int, reason: str) -> bool:
        """Ends the connection if a message was refused and version 3.1.1 has no code for it.

        There an acknowledgement always means success; a client that reconnects sends the message again.

        Returns:
            whether it ended the connection.
        """
        link = self._link
        if code != ErrorCode.OVERLOADED or link.version == V5 or not packet.qos or not self._publisher.follows:
            return False
        link.end(Reason.SERVER_BUSY, CloseCode.TRY_AGAIN_LATER, reason)
        return True

    def _topic_of(self, packet: PublishPacket) -> str:
        """Returns the topic of a PUBLISH, which may be an alias ([5] 3.3.2.3.4)."""
        alias = packet.properties.get(Prop.TOPIC_ALIAS)
        if not isinstance(alias, int):
            return packet.topic
        if not 1 <= alias <= MAX_TOPIC_ALIAS:
            raise DecodeError(f"the topic alias of an MQTT PUBLISH is not one of 1 to {MAX_TOPIC_ALIAS}")
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise DecodeError("the topic alias of an MQTT PUBLISH is not known")
        return self._aliases[alias]


def _acknowledge(packet: PublishPacket, reason: Reason) -> Acknowledge | None:
    """Returns the answer to a PUBLISH; None for QoS 0."""
    if not packet.qos:
        return None
    return Acknowledge(PacketType.PUBREC if packet.qos == 2 else PacketType.PUBACK, packet.id, reason)
