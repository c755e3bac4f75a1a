"""The client's side of MQTT packets: built for tests, and those of the server taken apart into words."""

from __future__ import annotations

import struct

from clasp_relay.wire.mqtt.packets import (
    V4,
    V5,
    Properties,
    PublishPacket,
    decode_packet,
    encode_properties,
    encode_publish,
    encode_text,
    encode_varint,
)


def packet(first: int, *parts: bytes) -> bytes:
    """Returns a packet with its length."""
    body = b"".join(parts)
    return bytes((first,)) + encode_varint(len(body)) + body


def connect(
    client_id: str = "",
    version: int = V4,
    *,
    clean: bool = True,
    keep_alive: int = 0,
    password: str | None = None,
    user: str = "user",
    will: tuple[str, bytes, int, bool] | None = None,
    properties: Properties | None = None,
    will_properties: Properties | None = None,
) -> bytes:
    """Returns a CONNECT."""
    flags = clean << 1
    tail = [encode_text(client_id)]
    if will is not None:
        topic, payload, qos, retain = will
        flags |= 4 | qos << 3 | retain << 5
        tail += [encode_properties(will_properties or {})] if version == V5 else []
        tail += [encode_text(topic), encode_text(payload)]
    if password is not None:
        flags |= 0xC0
        tail += [encode_text(user), encode_text(password)]
    head = encode_text("MQTT") + bytes((version, flags)) + struct.pack(">H", keep_alive)
    return packet(0x10, head, encode_properties(properties or {}) if version == V5 else b"", *tail)


def subscribe(
    packet_id: int, *filters: tuple[str, int], version: int = V4, properties: Properties | None = None
) -> bytes:
    """Returns a SUBSCRIBE; a filter's number is its options."""
    head = encode_properties(properties or {}) if version == V5 else b""
    body = b"".join(encode_text(text) + bytes((options,)) for text, options in filters)
    return packet(0x82, struct.pack(">H", packet_id), head, body)


def unsubscribe(packet_id: int, *filters: str, version: int = V4) -> bytes:
    """Returns an UNSUBSCRIBE."""
    head = b"\0" if version == V5 else b""
    return packet(0xA2, struct.pack(">H", packet_id), head, *map(encode_text, filters))


def publish(topic: str, payload: bytes | str = b"", version: int = V4, **options: object) -> bytes:
    """Returns a PUBLISH; the options are the fields of ``PublishPacket``."""
    data = payload.encode() if isinstance(payload, str) else payload
    return encode_publish(version, PublishPacket(topic, data, **options))  # type: ignore[arg-type]  # as they are


def acknowledge(first: int, packet_id: int) -> bytes:
    """Returns a PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70)."""
    return packet(first, struct.pack(">H", packet_id))


PINGREQ, DISCONNECT = b"\xc0\0", b"\xe0\0"
_NAMES = {2: "connack", 4: "puback", 5: "pubrec", 6: "pubrel", 7: "pubcomp", 9: "suback", 11: "unsuback"}


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Returns the packets that are complete, and the rest."""
    found = []
    while len(data) >= 2:
        length, place = 0, 1
        while place < len(data) and data[place] & 0x80:
            length |= (data[place] & 0x7F) << (7 * (place - 1))
            place += 1
        if place == len(data):
            break
        end = place + 1 + (length | data[place] << (7 * (place - 1)))
        if end > len(data):
            break
        found.append(data[:end])
        data = data[end:]
    return found, data


def said(one: bytes, version: int = V4) -> str:
    """Returns a packet of a server in words, without what differs between servers by right (properties)."""
    kind, start = one[0] >> 4, 2
    while one[start - 1] & 0x80:
        start += 1
    body = one[start:]
    if kind == 3:
        message = decode_packet(one, version)
        assert isinstance(message, PublishPacket)
        flags = (" retain" if message.retain else "") + (" dup" if message.dup else "")
        return f"publish {message.topic} {message.payload.decode('latin-1')} qos {message.qos}{flags}"
    if kind == 2:
        return f"connack {body[0]} {body[1]:#x}"
    if kind == 13:
        return "pingresp"
    if kind == 14:
        return f"disconnect {body[0]:#x}"
    number = int.from_bytes(body[:2], "big")
    rest = body[2:]
    if kind in (9, 11):
        rest = rest[1:] if version == V5 else rest
    elif kind == 6:
        rest = b""
        number = 0  # the server's own choice
    return f"{_NAMES[kind]} {number} {rest.hex()}".rstrip()


def packet_ids(data: bytes, version: int = V4) -> list[int]:
    """Returns the ids of the PUBLISHes with QoS 1 and 2 in what a server sent."""
    messages = [decode_packet(each, version) for each in split(data)[0] if each[0] >> 4 == 3]
    return [each.id for each in messages if isinstance(each, PublishPacket) and each.id]
