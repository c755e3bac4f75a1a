"""The codec of MQTT sessions: encodes a message once for all of them, as the same bytes that an MQTT client sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from clasp_relay.core.records import Change, Param
from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.net.backlog import Batch
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Error, Message, ParamFields, Publish, SignalDefinition, Value
from clasp_relay.wire.mqtt.mapping import address_topic, value_payload
from clasp_relay.wire.mqtt.packets import V5, Properties, PublishPacket, decode_packet, encode_publish

MAX_KEPT = 100_000
"""Retained messages whose original bytes or QoS are kept; beyond it the oldest one is encoded from its value."""

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Limit of these bytes."""

WIRE_QOS = 1
"""The QoS of CLASP clients' messages, and of retained messages whose QoS is not known."""


class Delivery(bytes):
    """One message to MQTT sessions; each session makes its own packet of it, and those with QoS 0 share one.

    It passes through the core as the (empty) bytes of a frame.
    """

    topic: str
    address: str
    payload: bytes
    qos: int
    is_retained: bool
    """Whether it is a param, not an event."""
    sender: object
    properties: Properties
    takers: dict[object, object]
    """The session that gets it, for each shared subscription."""
    shared: dict[object, bytes]
    """The packets with QoS 0, by version and transport."""

    def packet(self, key: object, version: int, retain: bool, wrap: Callable[[bytes], bytes]) -> bytes:
        """Returns the packet with QoS 0 and without anything of a single session, made once."""
        found = self.shared.get(key)
        if found is None:
            packet = PublishPacket(self.topic, self.payload, 0, retain, properties=self.properties)
            found = self.shared[key] = wrap(encode_publish(version, packet))
        return found


class SharedBatches:
    """The packets of the last batch of messages, made once for all sessions that get them unchanged."""

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._made: dict[object, Batch] = {}
        self._senders: frozenset[object] = frozenset()

    def has_sender(self, batch: Batch, session: object) -> bool:
        """Tells whether a session sent one of the messages."""
        self._begin(batch)
        return session in self._senders

    def find(self, batch: Batch, key: object, version: int, wrap: Callable[[bytes], bytes]) -> Batch:
        """Returns the packets of the messages for a kind of connection.

        Args:
            batch: the messages, the same object for all sessions that get them.
            key: the kind of connection.
            version: the protocol level.
            wrap: puts bytes into the transport's message.
        """
        self._begin(batch)
        made = self._made.get(key)
        if made is None:
            frames = [
                frame._replace(wire=frame.wire.packet(key, version, False, wrap))
                for frame in batch.frames
                if isinstance(frame.wire, Delivery)
            ]
            made = self._made[key] = Batch(frames, b"".join([frame.wire for frame in frames]))
        return made

    def _begin(self, batch: Batch) -> None:
        if batch is not self._batch:
            self._batch, self._made = batch, {}
            frames = batch.frames
            self._senders = frozenset(each.wire.sender for each in frames if isinstance(each.wire, Delivery))


class Acked(bytes):
    """The answer to a SET that is recorded."""


class Sending(NamedTuple):
    """The PUBLISH of a client that is being handled."""

    address: str
    value: Value | None
    payload: bytes
    qos: int
    sender: object
    properties: Properties
    own: bytes = b""
    """``own_bytes`` of a SET."""
    mark: bytes = b""
    """``encode_mark``, in a cluster."""


def own_bytes(value: Value | None, payload: bytes) -> bytes:
    """Returns the payload that a value was sent as, if the value encodes to other bytes; else empty."""
    return b"" if value_payload(value) == payload else payload


def encode_mark(sending: Sending, *, is_set: bool) -> bytes:
    """Returns what the doors of other relays need of a message beyond its CLASP form; usually empty.

    It is a PUBLISH of version 5 with the message's QoS and properties; for an event also with its payload, if the value
    encodes to other bytes. A SET's payload is kept with its param.
    """
    own = b"" if is_set else own_bytes(sending.value, sending.payload)
    if sending.qos == WIRE_QOS and not own and not sending.properties:
        return b""
    return encode_publish(V5, PublishPacket("-", own, sending.qos, id=1, properties=sending.properties))


def marked(change: Change, mark: bytes, sender: object) -> Sending:
    """Returns the message of another relay's client.

    Args:
        change: the change that it caused.
        mark: its ``encode_mark``.
        sender: its session, if that is at this relay.
    """
    message = change.message
    value = message.value if isinstance(message, Publish) else change.param.value
    payload = change.param.sent_as or value_payload(value)
    try:
        packet = decode_packet(mark, V5) if mark else None
    except DecodeError:
        packet = None  # from a newer relay, in a form that this one does not know; the message is complete without it
    if not isinstance(packet, PublishPacket):
        return Sending(change.param.address, value, payload, WIRE_QOS, sender, {})
    return Sending(change.param.address, value, packet.payload or payload, packet.qos, sender, packet.properties)


def _nothing_set(_address: str) -> Param | None:
    """Returns None: no param is known."""
    return None


class _Kept(NamedTuple):
    """The original form of a retained message."""

    revision: int
    value: Value
    payload: bytes | None
    qos: int


class MqttCodec:
    """Implements ``core.ports.Codec`` for all MQTT sessions.

    Args:
        prefix: the address prefix of topics.
        param_of: returns the param at an address.
    """

    def __init__(self, prefix: str, param_of: Callable[[str], Param | None] = _nothing_set) -> None:
        self._prefix = prefix
        self._param_of = param_of
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self.sending: Sending | None = None
        """The message that is being handled; set by the door meanwhile."""
        self.followed: Callable[[str], Sending | None] | None = None
        """Returns the MQTT message, decided by another relay, that is being sent at an address; None if it is not of an
        MQTT client. Set in a cluster."""
        self.refusal: Error | None = None
        """The ERROR that the last message caused; cleared by the door before each message."""

    def load(self, params: Iterable[Param]) -> None:
        """Restores the payloads that clients sent before this start; their QoS is not known."""
        for param in params:
            if param.sent_as and address_topic(self._prefix, param.address) is not None:
                self._put(param.address, _Kept(param.revision, param.value, param.sent_as, WIRE_QOS))

    def decode(self, _data: bytes) -> tuple[Message, int]:
        """Refuses: the door decodes packets.

        Raises:
            DecodeError: always.
        """
        raise DecodeError("an MQTT packet is no CLASP message")

    def cost(self, _data: bytes) -> int:
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, _revision: int, _lock: bool, _unlock: bool, _ttl: int | None) -> bytes:
        """Encodes a change; empty if its address has no topic."""
        sending = self._sending(address)
        if sending is not None:
            payload = sending.payload if sending.value == value else value_payload(value)
            return self._delivery(address, payload, sending.qos, True, sending.properties, sending.sender)
        return self._delivery(address, value_payload(value), WIRE_QOS, True, {})

    def publish(self, message: Publish) -> bytes:
        """Encodes a signal; empty if its address has no topic. Streams and gestures have QoS 0."""
        sending = self._sending(message.address)
        if sending is not None:
            payload = sending.payload if sending.value == message.value else value_payload(message.value)
            return self._delivery(message.address, payload, sending.qos, False, sending.properties, sending.sender)
        qos = 0 if message.signal in (Signal.STREAM, Signal.GESTURE) else WIRE_QOS
        return self._delivery(message.address, value_payload(message.value), qos, False, {})

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        _locked: bool | None = None,
        _holder: str | None = None,
    ) -> bytes:
        """Notes the payload of a SET, so that subscribers get the same bytes."""
        sending = self.sending
        if sending is not None and address is not None and revision is not None:
            self.keep(address, revision, sending)
        return Acked()

    def encode(self, message: Message) -> bytes:
        """Notes an ERROR, for the door. One of the rate limit may be about an earlier message."""
        if isinstance(message, Error) and (message.error != ErrorCode.LIMIT or message.address is not None):
            self.refusal = message
        return b""

    def snapshot(self, params: Iterable[ParamFields]) -> Iterator[bytes]:
        """Yields the retained messages one by one; empty for an address without a topic."""
        for param in params:
            if param.value == NULL:
                continue
            kept = self._kept.get(param.address)
            if kept is not None and kept.revision == param.revision and kept.value == param.value:
                payload = value_payload(param.value) if kept.payload is None else kept.payload
                yield self._delivery(param.address, payload, kept.qos, True, {})
            else:
                yield self._delivery(param.address, self._own_of(param), WIRE_QOS, True, {})

    def result(self, _definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
        """Yields nothing."""
        return iter(())

    def _sending(self, address: str) -> Sending | None:
        """Returns the MQTT message that causes what is encoded; None if it was not an MQTT client."""
        sending = self.sending
        if sending is not None and sending.address == address:
            # Other clients' waiting messages may be handled while this one is.
            return sending
        return None if self.followed is None else self.followed(address)

    def _own_of(self, shown: ParamFields) -> bytes:
        """Returns the original payload of a retained message, if the value that is shown is the one that was sent."""
        param = self._param_of(shown.address)
        if param is not None and param.sent_as and param.revision == shown.revision and param.value == shown.value:
            return param.sent_as
        return value_payload(shown.value)

    def _delivery(
        self,
        address: str,
        payload: bytes,
        qos: int,
        is_retained: bool,
        properties: Properties,
        sender: object = None,
    ) -> bytes:
        topic = address_topic(self._prefix, address)
        if topic is None:
            return b""
        made = Delivery()
        made.topic, made.address, made.payload, made.qos = topic, address, payload, qos
        made.is_retained, made.properties = is_retained, properties
        made.sender = sender
        made.takers, made.shared = {}, {}
        return made

    def keep(self, address: str, revision: int, sending: Sending) -> None:
        """Notes the original form of a retained message."""
        before = self._kept.pop(address, None)
        if before is not None:
            self._kept_bytes -= len(before.payload or b"")
        payload = sending.own or None
        if sending.value is not None and sending.value != NULL and (payload is not None or sending.qos != WIRE_QOS):
            self._put(address, _Kept(revision, sending.value, payload, sending.qos))

    def _put(self, address: str, kept: _Kept) -> None:
        self._kept[address] = kept
        self._kept_bytes += len(kept.payload or b"")
        while len(self._kept) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.payload or b"")
