"""Decodes the packets that MQTT clients send and encodes those that servers send (3.1.1 and 5), without I/O.

The sections are those of the standards: [3.1.1] OASIS mqtt-v3.1.1-os, [5] OASIS mqtt-v5.0-os.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from clasp_relay.errors import DecodeError

MAX_PACKET_BYTES = 65_536
"""The longest packet in bytes, like a CLASP frame: nothing longer could become a value."""

MAX_PROPERTIES = 256
"""User properties and subscription identifiers of one packet; the others occur once."""

V4, V5 = 4, 5
"""The protocol levels of 3.1.1 and 5."""


class PacketType(IntEnum):
    """The control packets ([5] 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Prop(IntEnum):
    """The properties of version 5 ([5] 2.2.2.2)."""

    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_ID = 11
    SESSION_EXPIRY = 17
    ASSIGNED_CLIENT_ID = 18
    SERVER_KEEP_ALIVE = 19
    AUTH_METHOD = 21
    AUTH_DATA = 22
    REQUEST_PROBLEM = 23
    WILL_DELAY = 24
    REQUEST_RESPONSE = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON = 31
    RECEIVE_MAXIMUM = 33
    TOPIC_ALIAS_MAXIMUM = 34
    TOPIC_ALIAS = 35
    MAXIMUM_QOS = 36
    RETAIN_AVAILABLE = 37
    USER = 38
    MAXIMUM_PACKET_SIZE = 39
    WILDCARDS_AVAILABLE = 40
    SUBSCRIPTION_IDS_AVAILABLE = 41
    SHARED_AVAILABLE = 42


Properties: TypeAlias = "dict[int, object]"
"""Values by ``Prop``; USER is a list of pairs, SUBSCRIPTION_ID a list of numbers."""

_U8 = (1, 23, 25, 36, 37, 40, 41, 42)
_U16 = (19, 33, 34, 35)
_U32 = (2, 17, 24, 39)
_TEXT = (3, 8, 18, 21, 26, 28, 31)
_BINARY = (9, 22)
FORWARDED = (Prop.PAYLOAD_FORMAT, Prop.CONTENT_TYPE, Prop.RESPONSE_TOPIC, Prop.CORRELATION_DATA, Prop.USER)
"""The properties of a PUBLISH that are passed to subscribers unchanged ([5] 3.3.2.3)."""

_U16_OF, _U32_OF = struct.Struct(">H"), struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Will:
    """The message that is published when the client is lost."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connect:
    """The first packet of a client."""

    version: int
    client_id: str
    clean: bool = True
    keep_alive_s: int = 0
    will: Will | None = None
    user: str | None = None
    password: bytes | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishPacket:
    """A message, in either direction."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    id: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    type: PacketType
    id: int
    reason: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a SUBSCRIBE, with its options."""

    text: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class SubscribePacket:
    """A SUBSCRIBE."""

    id: int
    filters: tuple[Filter, ...]
    subscription_id: int = 0


@dataclass(frozen=True, slots=True)
class UnsubscribePacket:
    """An UNSUBSCRIBE."""

    id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PingRequest:
    """A PINGREQ, which asks for a PINGRESP."""


@dataclass(frozen=True, slots=True)
class DisconnectPacket:
    """The DISCONNECT of a client."""

    reason: int = 0
    properties: Properties = field(default_factory=dict)


Packet: TypeAlias = (
    Connect | PublishPacket | Acknowledge | SubscribePacket | UnsubscribePacket | PingRequest | DisconnectPacket
)


class PacketTooLong(DecodeError):
    """A packet is longer than ``MAX_PACKET_BYTES``."""


class PacketReader:
    """Divides a client's stream into packets."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes received bytes, and returns the complete packets.

        Raises:
            PacketTooLong: a packet is longer than ``MAX_PACKET_BYTES``; nothing more can be read.
            DecodeError: the length of a packet is not valid; nothing more can be read.
        """
        data, at = self._data + data, 0
        found = []
        while True:
            end = _end(data, at)
            if end is None or end > len(data):
                break
            found.append(data[at:end])
            at = end
        self._data = data[at:]
        return found


def _end(data: bytes, at: int) -> int | None:
    """Returns the end of a packet; None while its length is not complete."""
    length = 0
    for place in range(4):
        if at + 1 + place >= len(data):
            return None
        byte = data[at + 1 + place]
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            end = at + 2 + place + length
            if end - at > MAX_PACKET_BYTES:
                raise PacketTooLong(f"an MQTT packet of {end - at} bytes; the longest has {MAX_PACKET_BYTES}")
            return end
    raise DecodeError("the length of an MQTT packet takes more than 4 bytes")


def decode_packet(data: bytes, version: int) -> Packet:
    """Decodes one packet of a client.

    Args:
        data: the packet, as ``PacketReader`` returns it.
        version: the protocol level of the CONNECT; any for the CONNECT itself.

    Raises:
        DecodeError: it is not exactly one valid packet that a client may send.
    """
    try:
        kind, flags = data[0] >> 4, data[0] & 0x0F
        start = 1
        while data[start] >= 0x80:
            start += 1
        body = _Body(data, start + 1)
        decode = _DECODERS.get(kind)
        if decode is None:
            raise DecodeError(f"a client sends no MQTT packet of type {kind}")
        if kind != PacketType.PUBLISH and flags != (2 if kind in _FLAGGED else 0):
            raise DecodeError("the flags of an MQTT packet are not those of its type")
        packet = decode(body, flags, version)
        body.check_end()
    except (IndexError, struct.error, UnicodeDecodeError):
        raise DecodeError("an MQTT packet is damaged") from None
    return packet


class _Body:
    """Reads the fields of a packet."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def u8(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def u16(self) -> int:
        self._at += 2
        return int(_U16_OF.unpack_from(self._data, self._at - 2)[0])

    def u32(self) -> int:
        self._at += 4
        return int(_U32_OF.unpack_from(self._data, self._at - 4)[0])

    def packet_id(self) -> int:
        number = self.u16()
        if not number:
            raise DecodeError("the id of an MQTT packet is 0")
        return number

    def varint(self) -> int:
        number = 0
        for place in range(4):
            byte = self.u8()
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return number
        raise DecodeError("a number of an MQTT packet takes more than 4 bytes")

    def binary(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        text = self.binary().decode()
        if "\0" in text:
            raise DecodeError("a text of an MQTT packet holds NUL")
        return text

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise DecodeError("a field of an MQTT packet is longer than the packet")
        self._at += size
        return self._data[self._at - size : self._at]

    def check_end(self) -> None:
        if self.left:
            raise DecodeError("bytes follow the fields of an MQTT packet")

    def properties(self, version: int) -> Properties:
        """Reads the properties of version 5; there are none in 3.1.1."""
        found: Properties = {}
        if version < V5:
            return found
        size = self.varint()
        if size > self.left:
            raise DecodeError("the properties of an MQTT packet are longer than the packet")
        stop, count = self._at + size, 0
        while self._at < stop:
            number = self.varint()
            value = self._property(number)
            count += 1
            if count > MAX_PROPERTIES:
                raise DecodeError(f"an MQTT packet has more than {MAX_PROPERTIES} properties")
            if number in (Prop.USER, Prop.SUBSCRIPTION_ID):
                several = found.setdefault(number, [])
                assert isinstance(several, list), "a property that may be repeated is kept as a list"
                several.append(value)
            elif number in found:
                raise DecodeError(f"the MQTT property {number} is there twice")
            else:
                found[number] = value
        if self._at != stop:
            raise DecodeError("an MQTT property ends beyond the properties")
        return found

    def _property(self, number: int) -> object:
        if number in _U8:
            flag = self.u8()
            if flag > 1:
                raise DecodeError(f"the MQTT property {number} is neither 0 nor 1")
            return flag
        for numbers, read in ((_U16, self.u16), (_U32, self.u32), (_TEXT, self.text), (_BINARY, self.binary)):
            if number in numbers:
                return read()
        if number == Prop.SUBSCRIPTION_ID:
            return self.varint()
        if number == Prop.USER:
            return self.text(), self.text()
        raise DecodeError(f"the MQTT property {number} is not known")


def _connect(body: _Body, _flags: int, _version: int) -> Connect:
    if body.text() != "MQTT":
        raise DecodeError("the protocol is not MQTT 3.1.1 or 5")
    version, flags, keep_alive_s = body.u8(), body.u8(), body.u16()
    if version not in (V4, V5):
        # The rest depends on the version; the door refuses a client with another one.
        body.take(body.left)
        return Connect(version, "")
    has_will, will_qos = bool(flags & 4), flags >> 3 & 3
    if flags & 1 or will_qos > 2 or (not has_will and flags & 0x38):
        raise DecodeError("the flags of an MQTT CONNECT are not valid")
    if version == V4 and flags & 0x40 and not flags & 0x80:
        raise DecodeError("an MQTT CONNECT has a password and no user name")
    properties = body.properties(version)
    client_id, will = body.text(), None
    if has_will:
        will_properties = body.properties(version)
        will = Will(body.text(), body.binary(), will_qos, bool(flags & 0x20), will_properties)
    user = body.text() if flags & 0x80 else None
    password = body.binary() if flags & 0x40 else None
    return Connect(version, client_id, bool(flags & 2), keep_alive_s, will, user, password, properties)


def _publish(body: _Body, flags: int, version: int) -> PublishPacket:
    qos = flags >> 1 & 3
    if qos > 2 or (not qos and flags & 8):
        raise DecodeError("the flags of an MQTT PUBLISH are not valid")
    topic = body.text()
    packet_id = body.packet_id() if qos else 0
    properties = body.properties(version)
    payload = body.take(body.left)
    return PublishPacket(topic, payload, qos, bool(flags & 1), bool(flags & 8), packet_id, properties)


def _acknowledge(kind: PacketType) -> Callable[[_Body, int, int], Acknowledge]:
    def decode(body: _Body, _flags: int, version: int) -> Acknowledge:
        packet_id = body.packet_id()
        reason = body.u8() if version == V5 and body.left else 0
        if version == V5 and body.left:
            body.properties(version)
        return Acknowledge(kind, packet_id, reason)

    return decode


def _subscribe(body: _Body, _flags: int, version: int) -> SubscribePacket:
    packet_id = body.packet_id()
    ids = body.properties(version).get(Prop.SUBSCRIPTION_ID)
    subscription_id = ids[0] if isinstance(ids, list) else 0
    if ids and ids != [subscription_id]:
        raise DecodeError("an MQTT SUBSCRIBE has one subscription identifier at most")
    if subscription_id == 0 and ids:
        raise DecodeError("the subscription identifier of an MQTT SUBSCRIBE is 0")
    filters: list[Filter] = []
    while body.left or not filters:
        text, options = body.text(), body.u8()
        handling = options >> 4 & 3
        if options & 3 > 2 or options & (0xC0 if version == V5 else 0xFC) or handling > 2:
            raise DecodeError("the options of an MQTT SUBSCRIBE are not valid")
        filters.append(Filter(text, options & 3, bool(options & 4), bool(options & 8), handling))
    return SubscribePacket(packet_id, tuple(filters), subscription_id)


def _unsubscribe(body: _Body, _flags: int, version: int) -> UnsubscribePacket:
    packet_id = body.packet_id()
    body.properties(version)
    filters = [body.text()]
    while body.left:
        filters.append(body.text())
    return UnsubscribePacket(packet_id, tuple(filters))


def _ping(_body: _Body, _flags: int, _version: int) -> PingRequest:
    return PingRequest()


def _disconnect(body: _Body, _flags: int, version: int) -> DisconnectPacket:
    if version < V5 or not body.left:
        return DisconnectPacket()
    reason = body.u8()
    return DisconnectPacket(reason, body.properties(version) if body.left else {})


_FLAGGED = (PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE)
_DECODERS: dict[int, Callable[[_Body, int, int], Packet]] = {
    PacketType.CONNECT: _connect,
    PacketType.PUBLISH: _publish,
    PacketType.SUBSCRIBE: _subscribe,
    PacketType.UNSUBSCRIBE: _unsubscribe,
    PacketType.PINGREQ: _ping,
    PacketType.DISCONNECT: _disconnect,
    **{
        kind: _acknowledge(kind)
        for kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)
    },
}


# Packets of a server


def encode_varint(number: int) -> bytes:
    """Returns a number in 1 to 4 bytes of 7 bits ([5] 1.5.5)."""
    parts = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        parts.append(low | 0x80 if number else low)
        if not number:
            return bytes(parts)


def encode_text(text: str | bytes) -> bytes:
    """Returns a text or binary data behind its length."""
    data = text.encode() if isinstance(text, str) else text
    return _U16_OF.pack(len(data)) + data


def _packet(kind: PacketType, flags: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((kind << 4 | flags,)) + encode_varint(len(body)) + body


def encode_properties(properties: Properties) -> bytes:
    """Returns properties behind their length."""
    parts = []
    for number, value in properties.items():
        for one in value if isinstance(value, list) else (value,):
            parts.append(bytes((number,)))
            if isinstance(one, int):
                parts.append(_number(number, one))
            elif isinstance(one, tuple):
                parts += map(encode_text, one)
            else:
                assert isinstance(one, str | bytes), "a property is a number, a text, data or a pair"
                parts.append(encode_text(one))
    data = b"".join(parts)
    return encode_varint(len(data)) + data


def _number(prop: int, number: int) -> bytes:
    if prop in _U8:
        return bytes((number,))
    if prop in _U16:
        return _U16_OF.pack(number)
    return _U32_OF.pack(number) if prop in _U32 else encode_varint(number)


def encode_connack(version: int, reason: int, session_present: bool, properties: Properties | None = None) -> bytes:
    """Encodes a CONNACK; ``reason`` is the version's own code."""
    tail = encode_properties(properties or {}) if version == V5 else b""
    return _packet(PacketType.CONNACK, 0, bytes((session_present, reason)), tail)


def encode_publish(version: int, packet: PublishPacket) -> bytes:
    """Encodes a PUBLISH."""
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    packet_id = _U16_OF.pack(packet.id) if packet.qos else b""
    properties = encode_properties(packet.properties) if version == V5 else b""
    return _packet(PacketType.PUBLISH, flags, encode_text(packet.topic), packet_id, properties, packet.payload)


def encode_acknowledge(version: int, packet: Acknowledge) -> bytes:
    """Encodes a PUBACK, PUBREC, PUBREL or PUBCOMP; 3.1.1 has no reason."""
    reason = bytes((packet.reason,)) if version == V5 and packet.reason else b""
    flags = 2 if packet.type is PacketType.PUBREL else 0
    return _packet(packet.type, flags, _U16_OF.pack(packet.id), reason)


def encode_suback(version: int, packet_id: int, reasons: Sequence[int]) -> bytes:
    """Encodes a SUBACK."""
    return _packet(PacketType.SUBACK, 0, _U16_OF.pack(packet_id), b"\0" if version == V5 else b"", bytes(reasons))


def encode_unsuback(version: int, packet_id: int, reasons: Sequence[int]) -> bytes:
    """Encodes an UNSUBACK; 3.1.1 has no reasons."""
    tail = b"\0" + bytes(reasons) if version == V5 else b""
    return _packet(PacketType.UNSUBACK, 0, _U16_OF.pack(packet_id), tail)


def encode_disconnect(reason: int, text: str = "") -> bytes:
    """Encodes the DISCONNECT of a server, which only version 5 has."""
    properties: Properties = {Prop.REASON: text} if text else {}
    return _packet(PacketType.DISCONNECT, 0, bytes((reason,)), encode_properties(properties))


PINGRESP = _packet(PacketType.PINGRESP, 0)
"""The answer to a PINGREQ."""
