"""WebSocket frames as a server writes them, and several of them as one piece.

A CLASP frame becomes one unfragmented, unmasked binary WebSocket message (RFC 6455 §5.2).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

from clasp_relay.core.ports import Frame

_FIN_BINARY = 0x82
SHORT_BYTES = 126
"""Messages that are shorter have their length in one byte."""

SHORT_HEADERS = tuple(bytes((_FIN_BINARY, length)) for length in range(SHORT_BYTES))
"""Their headers, by their length."""

_PACK_16 = struct.Struct(">BBH").pack
_PACK_64 = struct.Struct(">BBQ").pack


def header(length: int) -> bytes:
    """Returns the WebSocket header of a binary message of ``length`` bytes."""
    if length < SHORT_BYTES:
        return SHORT_HEADERS[length]
    if length <= 0xFFFF:
        return _PACK_16(_FIN_BINARY, 126, length)
    return _PACK_64(_FIN_BINARY, 127, length)


def wire_bytes(data: bytes) -> bytes:
    """Returns a CLASP frame as the bytes of its WebSocket message."""
    length = len(data)
    return (SHORT_HEADERS[length] if length < SHORT_BYTES else header(length)) + data


class Batch:
    """Frames that go to several sessions as one piece of bytes, shared by all of them.

    Args:
        frames: the frames, in order; needed one by one only for a session that is too slow.
        wire: their WebSocket messages, joined.
    """

    __slots__ = ("frames", "wire")

    def __init__(self, frames: Sequence[Frame], wire: bytes) -> None:
        self.frames = frames
        self.wire = wire


Item: TypeAlias = Frame | Batch
"""What goes to a session in one piece."""


def append_wire(parts: list[bytes], item: Item) -> int:
    """Appends the bytes of an item to ``parts`` and returns how many they are."""
    if type(item) is Batch:
        wire = item.wire
        parts.append(wire)
        return len(wire)
    data: bytes = item[0]  # type: ignore[index]  # type() does not narrow the other branch
    length = len(data)
    head = SHORT_HEADERS[length] if length < SHORT_BYTES else header(length)
    parts.append(head)
    parts.append(data)
    return len(head) + length
