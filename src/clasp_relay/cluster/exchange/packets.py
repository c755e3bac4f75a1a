"""The packets between relays beside the log: requests to the decider, and messages to all, in MessagePack.

A packet has the requests of a relay's sessions in one turn. The packets of a relay are numbered, so that the decider
notices a missing one; then the relay sends all requests that are not done again, and the decider ignores those that it
has.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

from clasp_relay.errors import DecodeError
from clasp_relay.wire.messages import Message

__all__ = [
    "Asked",
    "Beat",
    "Entry",
    "Packet",
    "check_fields",
    "decode_addresses",
    "decode_beat",
    "decode_fields",
    "decode_packet",
    "encode_addresses",
    "encode_beat",
    "encode_fields",
    "encode_origin",
    "encode_packet",
    "origin_and_vouched",
]

VERSION = 1


class Asked(IntEnum):
    """The kind of a request."""

    BEGIN = 0
    """A session was admitted: ``text`` is its subject, ``data`` the identifier of its token, ``more`` its origin and
    the rights that its relay vouches for (``origin_and_vouched``)."""

    MESSAGE = 1
    """A message of a session: ``data``, with its QoS; ``more`` has the bytes of a client of another protocol, and
    ``mark`` data of its door for that door at other relays."""

    END = 2
    """A session has ended: ``text`` is the reason. With QoS 1 it is lost, and its will is carried out."""

    READ = 3
    """A GET has shown the param at the address ``text``. It has no number and is never sent again."""

    CLEAR = 4
    """The relay itself deletes the params at the addresses in ``data`` (``encode_addresses``)."""
    NAME = 8
    """A session has taken the name ``text``, which one session has at a time; with QoS 1 nothing of the sessions that
    had it before is kept. ``data`` is the time in Unix µs, in 8 bytes, big-endian."""

    WILL = 9
    """A session has set its will: the message ``data``, with ``more`` and ``mark``; without ``data`` it has none."""


class Entry(NamedTuple):
    """A request to the decider."""

    number: int
    """Rises within a session; numbers are missing only of requests that were given up."""
    session_id: str
    kind: int
    qos: int = 0
    text: str = ""
    data: bytes = b""
    more: bytes = b""
    mark: bytes = b""
    message: Message | None = None
    """The message, if it does not leave the process; then ``data`` is empty."""


class Packet(NamedTuple):
    """The requests of a relay's sessions in one turn."""

    link: str
    relay: str
    epoch: int
    """The epoch of the decider that it is for; any other one ignores it."""
    number: int
    is_first: bool
    """Whether all requests that are not done are sent again, from the first one in this packet on."""
    is_new: bool
    """Whether the relay has not read the beginning of its link in the log yet."""
    entries: tuple[Entry, ...]


class Beat(NamedTuple):
    """The heartbeat of a relay."""

    link: str
    relay: str
    epoch: int
    """The last epoch that it knows."""
    seq: int
    """The last batch that it has applied."""
    is_joined: bool
    """Whether it follows the log; if not, ``seq`` is the last batch in its files."""
    is_decider: bool
    clock_us: int
    """The decider's clock, in Unix µs; 0 for others."""
    is_standby: bool = False
    """Whether it takes clients only when no other relay can."""


def encode_origin(origin: str, vouched: str) -> bytes:
    """Encodes origin and vouched rights for the BEGIN of a session."""
    data: bytes = msgpack.packb((origin, vouched))
    return data


def origin_and_vouched(data: bytes) -> tuple[str, str]:
    """Decodes the bytes of ``encode_origin``; no bytes are two empty texts.

    Raises:
        DecodeError: they are something else.
    """
    if not data:
        return "", ""
    origin, vouched = _unpacked(data, (str, str))
    return origin, vouched


def encode_addresses(addresses: Sequence[str]) -> bytes:
    """Encodes addresses."""
    data: bytes = msgpack.packb(list(addresses))
    return data


def decode_addresses(data: bytes) -> tuple[str, ...]:
    """Decodes the bytes of ``encode_addresses``.

    Raises:
        DecodeError: they are something else.
    """
    addresses = _unpacked(data)
    check_fields(addresses, (str,) * len(addresses))
    return addresses


_PACKET = (str, str, int, int, bool, bool, tuple)
_ENTRY = (int, str, int, int, str, bytes, bytes, bytes)
_BEAT = (str, str, int, int, bool, bool, int, bool)


def encode_packet(packet: Packet) -> bytes:
    """Encodes a packet."""
    return encode_fields(*packet[:-1], [entry[:-1] for entry in packet.entries])


def decode_packet(data: bytes) -> Packet:
    """Decodes a packet.

    Raises:
        DecodeError: it is no packet, or of another version.
    """
    packet = Packet(*decode_fields(data, _PACKET))
    entries = []
    for entry in packet.entries:
        check_fields(entry, _ENTRY)
        entries.append(Entry(*entry))
    return packet._replace(entries=tuple(entries))


def encode_beat(beat: Beat) -> bytes:
    """Encodes a heartbeat."""
    return encode_fields(*beat)


def decode_beat(data: bytes) -> Beat:
    """Decodes a heartbeat.

    Raises:
        DecodeError: it is no heartbeat, or of another version.
    """
    return Beat(*decode_fields(data, _BEAT))


def encode_fields(*fields: object) -> bytes:
    """Encodes a message that consists of some fields."""
    data: bytes = msgpack.packb((VERSION, *fields))
    return data


def decode_fields(data: bytes, kinds: tuple[type[Any], ...]) -> tuple[Any, ...]:
    """Decodes a message of ``encode_fields``.

    Raises:
        DecodeError: it is something else, of another version, or a field has another type.
    """
    version, *fields = _unpacked(data) or (None,)
    if version != VERSION:
        raise DecodeError(f"a message of version {version!r}, this relay reads version {VERSION}")
    check_fields(tuple(fields), kinds)
    return tuple(fields)


def check_fields(values: object, kinds: tuple[type[Any], ...]) -> None:
    """Checks the types of fields.

    Raises:
        DecodeError: a field has another type, or there are more or fewer fields.
    """
    if not isinstance(values, tuple) or len(values) != len(kinds) or not all(map(isinstance, values, kinds)):
        raise DecodeError("not a message of a cluster: a field is not what it has to be")


def _unpacked(data: bytes, kinds: tuple[type[Any], ...] | None = None) -> tuple[Any, ...]:
    """Unpacks a sequence, and checks the types of its items if they are given."""
    try:
        fields = tuple(msgpack.unpackb(data, use_list=False))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DecodeError(f"not a message of a cluster: {error}") from None
    if kinds is not None:
        check_fields(fields, kinds)
    return fields
