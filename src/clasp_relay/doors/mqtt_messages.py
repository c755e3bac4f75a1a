"""What MQTT sessions are told: one encoding for all of them, with the bytes that a client sent while they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from clasp_relay.core.records import Param
from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Error, Message, Publish, SignalDefinition, SnapshotParam, Value
from clasp_relay.wire.mqtt.mapping import address_topic, value_payload
from clasp_relay.wire.mqtt.packets import Properties, PublishPacket, encode_publish

MAX_KEPT = 100_000
"""Retained messages whose own bytes or QoS are kept; of one more the oldest is told in CLASP's words from then on."""

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""What their bytes may take."""

WIRE_QOS = 1
"""What CLASP clients send counts as, and a retained message of which no other is known."""


class Delivery(bytes):
    """One message to MQTT sessions; each makes its own packet of it, those with QoS 0 share theirs.

    It passes through the core as the (empty) bytes of a frame.
    """

    topic: str
    address: str
    payload: bytes
    qos: int
    is_retained: bool
    """Whether it is what is set, and not only an event."""
    sender: object
    properties: Properties
    takers: dict[object, object]
    """Who takes it of each group that shares a subscription."""
    shared: dict[object, bytes]
    """The packet with QoS 0, by whatever makes its bytes different."""

    def packet(self, key: object, version: int, retain: bool, wrap: Callable[[bytes], bytes]) -> bytes:
        """Returns the packet with QoS 0 and nothing of a session's own, made once."""
        found = self.shared.get(key)
        if found is None:
            packet = PublishPacket(self.topic, self.payload, 0, retain, properties=self.properties)
            found = self.shared[key] = wrap(encode_publish(version, packet))
        return found


class Acked(bytes):
    """The answer to a SET: it is recorded."""


class Sending(NamedTuple):
    """The PUBLISH of a client that is being handled."""

    address: str
    value: Value
    payload: bytes
    qos: int
    sender: object
    properties: Properties
    own: bytes = b""
    """``own_bytes`` of a SET."""


def own_bytes(value: Value, payload: bytes) -> bytes:
    """Returns the bytes that a value was sent as, where it alone would not give them; else nothing."""
    return b"" if value_payload(value) == payload else payload


class _Kept(NamedTuple):
    """What a retained message was sent as."""

    revision: int
    value: Value
    payload: bytes | None
    qos: int


class MqttCodec:
    """Implements ``core.ports.Codec`` for all MQTT sessions.

    Args:
        prefix: what stands before a topic in CLASP.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self.sending: Sending | None = None
        """The message that is being handled; to be set by the door around it."""
        self.refusal: Error | None = None
        """The ERROR that the last message has led to; to be emptied by the door before it."""

    def load(self, params: Iterable[Param]) -> None:
        """Takes what clients sent in the relay's life before, with the QoS that nothing else is known of."""
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
        """Encodes a change; empty where it has no topic."""
        sending = self.sending
        if sending is not None and sending.address == address:
            qos = sending.qos
            payload = sending.payload if sending.value == value else value_payload(value)
            return self._delivery(address, payload, qos, True, sending.properties)
        return self._delivery(address, value_payload(value), WIRE_QOS, True, {})

    def publish(self, message: Publish) -> bytes:
        """Encodes a signal; empty where it has no topic. Streams and gestures go out with QoS 0."""
        sending = self.sending
        if sending is not None and sending.address == message.address:
            payload = sending.payload if sending.value == message.value else value_payload(message.value)
            return self._delivery(message.address, payload, sending.qos, False, sending.properties)
        qos = 0 if message.signal in (Signal.STREAM, Signal.GESTURE) else WIRE_QOS
        return self._delivery(message.address, value_payload(message.value), qos, False, {})

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        _locked: bool | None = None,
        _holder: str | None = None,
    ) -> bytes:
        """Notes what was set, so that its bytes come out as they came."""
        sending = self.sending
        if sending is not None and address is not None and revision is not None:
            self._keep(address, revision, sending)
        return Acked()

    def encode(self, message: Message) -> bytes:
        """Notes an ERROR; the door tells its client. That of the rate limit may be about an earlier message."""
        if isinstance(message, Error) and (message.error != ErrorCode.LIMIT or message.address is not None):
            self.refusal = message
        return b""

    def snapshot(self, params: Iterable[SnapshotParam]) -> Iterator[bytes]:
        """Yields the retained messages, one each; an empty one for what has no topic."""
        for param in params:
            if param.value == NULL:
                continue
            kept = self._kept.get(param.address)
            if kept is not None and kept.revision == param.revision and kept.value == param.value:
                payload = value_payload(param.value) if kept.payload is None else kept.payload
                yield self._delivery(param.address, payload, kept.qos, True, {})
            else:
                yield self._delivery(param.address, value_payload(param.value), WIRE_QOS, True, {})

    def result(self, _definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
        """Yields nothing."""
        return iter(())

    def _delivery(self, address: str, payload: bytes, qos: int, is_retained: bool, properties: Properties) -> bytes:
        topic = address_topic(self._prefix, address)
        if topic is None:
            return b""
        made = Delivery()
        made.topic, made.address, made.payload, made.qos = topic, address, payload, qos
        made.is_retained, made.properties = is_retained, properties
        # Others' messages that had to wait may go on while this one is handled.
        sending = self.sending
        made.sender = sending.sender if sending is not None and sending.address == address else None
        made.takers, made.shared = {}, {}
        return made

    def _keep(self, address: str, revision: int, sending: Sending) -> None:
        before = self._kept.pop(address, None)
        if before is not None:
            self._kept_bytes -= len(before.payload or b"")
        payload = sending.own or None
        if sending.value != NULL and (payload is not None or sending.qos != WIRE_QOS):
            self._put(address, _Kept(revision, sending.value, payload, sending.qos))

    def _put(self, address: str, kept: _Kept) -> None:
        self._kept[address] = kept
        self._kept_bytes += len(kept.payload or b"")
        while len(self._kept) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.payload or b"")
