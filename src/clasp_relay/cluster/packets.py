"""The packets between relays beside the log: requests to the decider, and messages to all, in MessagePack.

A packet holds what the sessions of one relay asked in one turn. Packets of a relay are numbered; one that is missing is
noticed, and then the relay sends all again that is not done, of which the decider leaves out what it has.
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
    """What an entry is about."""

    BEGIN = 0
    """A session was admitted: its ``text`` is the subject, ``data`` what its token is known by, ``more`` its origin and
    what its relay vouches for (``origin_and_vouched``)."""

    MESSAGE = 1
    """A message of a session: ``data``, with its QoS; ``more`` is what a client of another protocol sent for it, and
    ``mark`` what its door says about it to those of other relays."""

    END = 2
    """A session has ended: ``text`` says why. With QoS 1 it is lost, and leaves its will."""

    READ = 3
    """A GET has shown the param at the address ``text``. It has no number and is never sent again."""

    CLEAR = 4
    """The relay itself ends what is set at some addresses: ``data`` has them (``encode_addresses``)."""
    NAME = 8
    """A session has taken the name ``text``, which one session has at a time; with QoS 1 it begins anew under it.
    ``data`` is the time in Unix µs, in 8 bytes, big-endian."""

    WILL = 9
    """What a session leaves when it is lost: the message ``data``, with ``more`` and ``mark``; without it nothing."""


class Entry(NamedTuple):
    """One thing that is asked of the decider."""

    number: int
    """Rises within a session, without holes only where nothing was given up."""
    session_id: str
    kind: int
    qos: int = 0
    text: str = ""
    data: bytes = b""
    more: bytes = b""
    mark: bytes = b""
    message: Message | None = None
    """The message, where it does not leave the process; then ``data`` is empty."""


class Packet(NamedTuple):
    """What the sessions of one relay asked in one turn."""

    link: str
    relay: str
    epoch: int
    """Of the decider that it is meant for; another one leaves it out."""
    number: int
    is_first: bool
    """Whether all that is not done begins here anew."""
    is_new: bool
    """Whether the relay has not read of itself in the log yet."""
    entries: tuple[Entry, ...]


class Beat(NamedTuple):
    """A sign of life of a relay."""

    link: str
    relay: str
    epoch: int
    """The last one that it knows of."""
    seq: int
    """The last batch that it has applied."""
    is_joined: bool
    """Whether it follows the log; else ``seq`` is what its files have."""
    is_decider: bool
    clock_us: int
    """The decider's clock, in Unix µs; 0 for others."""
    is_standby: bool = False
    """Whether it takes no clients as long as another one can."""


def encode_origin(origin: str, vouched: str) -> bytes:
    """Encodes what the entry of a session's beginning says beside subject and token."""
    data: bytes = msgpack.packb((origin, vouched))
    return data


def origin_and_vouched(data: bytes) -> tuple[str, str]:
    """Decodes what ``encode_origin`` made; nothing says nothing.

    Raises:
        DecodeError: it is something else.
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
    """Decodes what ``encode_addresses`` made.

    Raises:
        DecodeError: it is something else.
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
        DecodeError: it is none, or of another version.
    """
    packet = Packet(*decode_fields(data, _PACKET))
    entries = []
    for entry in packet.entries:
        check_fields(entry, _ENTRY)
        entries.append(Entry(*entry))
    return packet._replace(entries=tuple(entries))


def encode_beat(beat: Beat) -> bytes:
    """Encodes a sign of life."""
    return encode_fields(*beat)


def decode_beat(data: bytes) -> Beat:
    """Decodes a sign of life.

    Raises:
        DecodeError: it is none, or of another version.
    """
    return Beat(*decode_fields(data, _BEAT))


def encode_fields(*fields: object) -> bytes:
    """Encodes a message that is nothing but some fields."""
    data: bytes = msgpack.packb((VERSION, *fields))
    return data


def decode_fields(data: bytes, kinds: tuple[type[Any], ...]) -> tuple[Any, ...]:
    """Decodes what ``encode_fields`` made.

    Raises:
        DecodeError: it is something else, of another version, or a field is of another kind.
    """
    version, *fields = _unpacked(data) or (None,)
    if version != VERSION:
        raise DecodeError(f"a message of version {version!r}, this relay reads version {VERSION}")
    check_fields(tuple(fields), kinds)
    return tuple(fields)


def check_fields(values: object, kinds: tuple[type[Any], ...]) -> None:
    """Checks that fields are of their kinds.

    Raises:
        DecodeError: they are not, or not as many.
    """
    if not isinstance(values, tuple) or len(values) != len(kinds) or not all(map(isinstance, values, kinds)):
        raise DecodeError("not a message of a cluster: a field is not what it has to be")


def _unpacked(data: bytes, kinds: tuple[type[Any], ...] | None = None) -> tuple[Any, ...]:
    """Unpacks a sequence, and checks its items where they are given."""
    try:
        fields = tuple(msgpack.unpackb(data, use_list=False))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DecodeError(f"not a message of a cluster: {error}") from None
    if kinds is not None:
        check_fields(fields, kinds)
    return fields
