"""The binary forms of SET, PUBLISH and ACK: the messages of which there are thousands a second.

Written for speed: one precompiled read per message, sizes from a table, no reader object, and ``new_tuple`` in place of
the generated constructors, which take as long as all the rest. Reading beyond the end raises ``struct.error`` or
``IndexError``; ``binary_decode.decode_binary`` turns both into DecodeError. The usual ones of these messages have an
even shorter path, in one step with their frame: ``wire.clasp``.
"""

from __future__ import annotations

import struct

from clasp_relay.errors import DecodeError
from clasp_relay.wire.constants import MAX_VALUE_PARTS, MessageCode, Phase, Signal, ValueType
from clasp_relay.wire.messages import Publish, Set
from clasp_relay.wire.tuples import new_tuple
from clasp_relay.wire.values import FIXED_SIZES, TYPE_BYTES, check_keys, has_suspect_key, skip_value

_HEAD = struct.Struct(">BBH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_unpack_head, _pack_head = _HEAD.unpack_from, _HEAD.pack
_unpack_u16, _unpack_u32, _unpack_u64 = _U16.unpack_from, _U32.unpack_from, _U64.unpack_from
_pack_u16, _pack_u32, _pack_u64 = _U16.pack, _U32.pack, _U64.pack

SET_REVISION, _SET_LOCK, _SET_UNLOCK, SET_TTL = 0x80, 0x40, 0x20, 0x10
PUBLISH_TIMESTAMP, _PUBLISH_ID = 0x10, 0x08
_NOTHING, _VALUE, _SAMPLES = 0, 1, 2
_ARRAY = int(ValueType.ARRAY)
_SIGNALS: tuple[Signal, ...] = tuple(Signal)
_PHASES: tuple[Phase, ...] = tuple(Phase)


def decode_set(payload: bytes) -> Set:
    """Decodes a SET; ``payload`` starts with its message code."""
    _, flags, size = _unpack_head(payload)
    start = 4 + size
    value_type = flags & 0x0F
    address = payload[4:start].decode()
    at = skip_value(payload, start, value_type, MAX_VALUE_PARTS)
    if value_type >= _ARRAY and has_suspect_key(payload):
        check_keys(payload, start, value_type, address)
    value = TYPE_BYTES[value_type] + payload[start:at]
    revision = ttl = None
    if flags & SET_REVISION:
        (revision,) = _unpack_u64(payload, at)
        at += 8
    if flags & SET_TTL:
        (ttl,) = _unpack_u32(payload, at)
        at += 4
    if at != len(payload):
        raise DecodeError("bytes follow the SET")
    return new_tuple(Set, (address, value, revision, flags & _SET_LOCK != 0, flags & _SET_UNLOCK != 0, ttl))


def decode_publish(payload: bytes) -> Publish:
    """Decodes a PUBLISH; ``payload`` starts with its message code."""
    _, flags, size = _unpack_head(payload)
    at = 4 + size
    indicator = payload[at]
    address = payload[4:at].decode()
    value = samples = timestamp_us = identity = rate = None
    if indicator == _VALUE:
        value_type = payload[at + 1]
        fixed = FIXED_SIZES[value_type]
        end = at + 2 + fixed if fixed >= 0 else skip_value(payload, at + 2, value_type, MAX_VALUE_PARTS)
        if value_type >= _ARRAY and has_suspect_key(payload):
            check_keys(payload, at + 2, value_type, address)
        value = payload[at + 1 : end]
    elif indicator == _NOTHING:
        end = at + 1
    elif indicator == _SAMPLES:
        end = at + 3 + 8 * _unpack_u16(payload, at + 1)[0]
        samples = payload[at + 3 : end]
    else:
        raise DecodeError(f"unknown value indicator {indicator} in a PUBLISH")
    if flags & PUBLISH_TIMESTAMP:
        (timestamp_us,) = _unpack_u64(payload, end)
        end += 8
    if flags & _PUBLISH_ID:
        (identity,) = _unpack_u32(payload, end)
        end += 4
    if end != len(payload):
        rate = _decode_rate(payload, end)
    signal, phase = flags >> 5, flags & 7
    if signal >= len(_SIGNALS) or phase >= len(_PHASES):
        raise DecodeError(f"unknown signal {signal} or phase {phase} in a PUBLISH")
    return new_tuple(Publish, (address, _SIGNALS[signal], _PHASES[phase], value, samples, timestamp_us, identity, rate))


def _decode_rate(payload: bytes, end: int) -> int:
    """Decodes the rate, which no flag announces: it is there when exactly four bytes are left."""
    if end > len(payload):
        raise DecodeError("the message ends too early")
    if end + 4 != len(payload):
        raise DecodeError("bytes follow the PUBLISH")
    return int(_unpack_u32(payload, end)[0])


def encode_set(message: Set) -> bytes:
    """Encodes the payload of a SET."""
    address, value, revision, lock, unlock, ttl = message
    flags = value[0] | lock << 6 | unlock << 5
    tail = value[1:]
    if revision is not None:
        flags |= SET_REVISION
        tail += _pack_u64(revision)
    if ttl is not None:
        flags |= SET_TTL
        tail += _pack_u32(ttl)
    raw = address.encode()
    return _pack_head(MessageCode.SET, flags, len(raw)) + raw + tail


def encode_publish(message: Publish) -> bytes:
    """Encodes the payload of a PUBLISH; a value wins over samples."""
    address, signal, phase, value, samples, timestamp_us, identity, rate = message
    flags = signal << 5 | phase
    if value is not None:
        tail = b"\x01" + value
    elif samples is not None:
        tail = b"\x02" + _pack_u16(len(samples) // 8) + samples
    else:
        tail = b"\x00"
    if timestamp_us is not None:
        flags |= PUBLISH_TIMESTAMP
        tail += _pack_u64(timestamp_us)
    if identity is not None:
        flags |= _PUBLISH_ID
        tail += _pack_u32(identity)
    if rate is not None:
        tail += _pack_u32(rate)
    raw = address.encode()
    return _pack_head(MessageCode.PUBLISH, flags, len(raw)) + raw + tail


def encode_ack(
    address: str | None,
    revision: int | None,
    locked: bool | None,
    holder: str | None,
    correlation_id: int | None,
) -> bytes:
    """Encodes the payload of an ACK from the fields of ``messages.Ack``."""
    flags = 0
    parts = [b""]
    if address is not None:
        flags |= 1
        raw = address.encode()
        parts += (_pack_u16(len(raw)), raw)
    if revision is not None:
        flags |= 2
        parts.append(_pack_u64(revision))
    if locked is not None:
        flags |= 4
        parts.append(b"\x01" if locked else b"\x00")
    if holder is not None:
        flags |= 8
        raw = holder.encode()
        parts += (_pack_u16(len(raw)), raw)
    if correlation_id is not None:
        flags |= 16
        parts.append(_pack_u32(correlation_id))
    parts[0] = bytes((MessageCode.ACK, flags))
    return b"".join(parts)
