"""WebSocket frames as a server writes them, and several frames as one piece.

A CLASP frame becomes one unfragmented, unmasked binary WebSocket message (RFC 6455 §5.2).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

from clasp_relay.core.ports import Frame
from clasp_relay.wire.clasp import ClaspCodec

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


CODEC = ClaspCodec(wire_bytes)
"""What every WebSocket session speaks: one object, so that a message to many of them is encoded once."""


class Batch:
    """Frames that go to several sessions as one piece of bytes, shared by all of them.

    Args:
        frames: the frames, in order; needed one by one only for a session that is too slow.
        wire: their bytes, joined.
    """

    __slots__ = ("frames", "wire")

    def __init__(self, frames: Sequence[Frame], wire: bytes) -> None:
        self.frames = frames
        self.wire = wire


Item: TypeAlias = Frame | Batch
"""What goes to a session in one piece."""
