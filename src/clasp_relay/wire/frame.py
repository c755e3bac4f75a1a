"""The frame around every message (``docs/protocol.md``, Frames).

One binary WebSocket message is exactly one frame: magic, flags, payload length, an optional timestamp, payload.
Decoding refuses every error that would be passed on to other clients. It ignores the encoding bits, because no client
sets them correctly: the first byte of the payload determines the encoding.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, NoReturn

from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.wire.constants import MAGIC, MAX_PAYLOAD_BYTES
from clasp_relay.wire.tuples import new_tuple

TIMESTAMP_FLAG = 0x20
"""The flag of a timestamp between header and payload."""

TRANSFORMED_FLAGS = 0x18
"""The flags of encrypted and compressed payloads. No client sends these, so such a frame is refused."""

BINARY_FLAG = 0x01
"""The encoding bits that every encoder writes."""

_HEADER = struct.Struct(">BBH")
_TIMESTAMPED_HEADER = struct.Struct(">BBHQ")
_unpack_header = _HEADER.unpack_from
_pack_header = _HEADER.pack


class ClaspFrame(NamedTuple):
    """A decoded frame. ``timestamp_us`` is the sender's, or None; the relay does not use it."""

    qos: int
    timestamp_us: int | None
    payload: bytes


def decode_frame(data: bytes) -> ClaspFrame:
    """Decodes one frame.

    Args:
        data: one whole binary WebSocket message.

    Returns:
        Its QoS (0 to 2), timestamp in µs and payload (at least one byte).

    Raises:
        DecodeError: code 100; ``data`` is not exactly one valid frame.
    """
    size = len(data)
    if size < 5:
        raise DecodeError("the frame is too short for a header and a payload", ErrorCode.FRAME)
    magic, flags, length = _unpack_header(data)
    if flags & 0x38 or flags >= 0xC0 or magic != MAGIC or size != length + 4:
        return _decode_unusual(data, magic, flags, length)
    return new_tuple(ClaspFrame, (flags >> 6, None, data[4:]))


def _decode_unusual(data: bytes, magic: int, flags: int, length: int) -> ClaspFrame:
    """Decodes a frame with a timestamp; refuses any other one with the reason."""
    if magic != MAGIC:
        _refuse(f"the frame starts with 0x{magic:02X} instead of 0x{MAGIC:02X}")
    if flags & TRANSFORMED_FLAGS:
        _refuse("encrypted or compressed frames are not supported")
    if flags >= 0xC0:
        _refuse("QoS 3 is reserved")
    start = 12 if flags & TIMESTAMP_FLAG else 4
    follow = max(0, len(data) - start)
    if len(data) != start + length:
        _refuse(f"the frame's length field says {length} payload bytes, {follow} follow")
    if not length:
        _refuse("the frame's payload is empty")
    timestamp_us = int.from_bytes(data[4:12], "big")
    return ClaspFrame(flags >> 6, timestamp_us, data[12:])


def _refuse(reason: str) -> NoReturn:
    raise DecodeError(reason, ErrorCode.FRAME)


def encode_frame(payload: bytes, qos: int = 0, timestamp_us: int | None = None) -> bytes:
    """Puts a payload into a frame.

    Args:
        payload: an encoded message, 1 to ``MAX_PAYLOAD_BYTES`` bytes.
        qos: 0 fire, 1 confirm, 2 commit.
        timestamp_us: Unix time in µs to stamp the frame with; usually None.

    Returns:
        The frame: one binary WebSocket message.

    Raises:
        ValueError: the payload is empty, or too long for the length field.
    """
    size = len(payload)
    if not 0 < size <= MAX_PAYLOAD_BYTES:
        raise ValueError(f"a frame carries 1 to {MAX_PAYLOAD_BYTES} payload bytes, not {size}")
    flags = qos << 6 | BINARY_FLAG
    if timestamp_us is None:
        return _pack_header(MAGIC, flags, size) + payload
    return _TIMESTAMPED_HEADER.pack(MAGIC, flags | TIMESTAMP_FLAG, size, timestamp_us) + payload
