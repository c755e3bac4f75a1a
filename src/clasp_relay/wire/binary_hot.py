"""The binary forms of SET, PUBLISH and ACK: the messages of which there are thousands a second.

Written for speed: one precompiled read per message, sizes from a table, no reader object, and
``tuple.__new__`` in place of the generated constructors, which take as long as all the rest. Reading beyond the
end raises ``struct.error`` or ``IndexError``; ``binary_decode.decode_binary`` turns both into DecodeError.
"""

from __future__ import annotations

import struct

from clasp_relay.errors import DecodeError, RequestError
from clasp_relay.wire.constants import MAGIC, MAX_PAYLOAD_BYTES, MessageCode, Phase, Qos, Signal, ValueType
from clasp_relay.wire.frame import BINARY_FLAG
from clasp_relay.wire.messages import Publish, Set
from clasp_relay.wire.values import FIXED_SIZES, TYPE_BYTES, check_keys, has_suspect_key, skip_value

_HEAD = struct.Struct(">BBH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_FRAMED_HEAD = struct.Struct(">BBHBBH")
_FRAMED_HEAD_BYTES = _FRAMED_HEAD.size
_unpack_head, _pack_head = _HEAD.unpack_from, _HEAD.pack
_unpack_framed_head, _pack_framed_head = _FRAMED_HEAD.unpack_from, _FRAMED_HEAD.pack
_unpack_u16, _unpack_u32, _unpack_u64 = _U16.unpack_from, _U32.unpack_from, _U64.unpack_from
_pack_u16, _pack_u32, _pack_u64 = _U16.pack, _U32.pack, _U64.pack
_new = tuple.__new__

_SET_REVISION, _SET_LOCK, _SET_UNLOCK, _SET_TTL = 0x80, 0x40, 0x20, 0x10
_PUBLISH_TIMESTAMP, _PUBLISH_ID = 0x10, 0x08
_NOTHING, _VALUE, _SAMPLES = 0, 1, 2
_ARRAY = int(ValueType.ARRAY)
_SIGNALS: tuple[Signal, ...] = tuple(Signal)
_PHASES: tuple[Phase, ...] = tuple(Phase)

SET_QOS = Qos.CONFIRM
"""The QoS of a SET that the relay sends; the router that the clients come with sends the same."""

PUBLISH_QOS = (Qos.CONFIRM, Qos.CONFIRM, Qos.FIRE, Qos.FIRE, Qos.COMMIT)
"""The QoS of a PUBLISH that the relay sends, by signal."""

_SET_FRAME_FLAGS = SET_QOS << 6 | BINARY_FLAG
_PUBLISH_FRAME_FLAGS = tuple(qos << 6 | BINARY_FLAG for qos in PUBLISH_QOS)


def decode_usual(data: bytes) -> Set | Publish | None:
    """Decodes the most frequent messages, a SET without options or a PUBLISH, from their frame in one step.

    Args:
        data: one whole binary WebSocket message.

    Returns:
        The message; None for any other frame, valid or not: decode that with ``decode_frame`` and ``decode``.
    """
    size = len(data)
    if size < _FRAMED_HEAD_BYTES:
        return None
    magic, frame_flags, length, code, flags, address_bytes = _unpack_framed_head(data)
    if magic != MAGIC or length + 4 != size or frame_flags & 0x38 or frame_flags >= 0xC0:
        return None
    try:
        if code == 0x21 and flags < _SET_TTL:
            start = 8 + address_bytes
            fixed_bytes = FIXED_SIZES[flags]
            end = start + fixed_bytes if fixed_bytes >= 0 else skip_value(data, start, flags)
            if end == size:
                if flags >= _ARRAY and (b"\xef" in data or b"_" in data) and has_suspect_key(data):
                    check_keys(data, start, flags)
                return _new(Set, (data[8:start].decode(), TYPE_BYTES[flags] + data[start:], None, False, False, None))
        elif code == 0x20:
            return decode_publish(data[4:])
    except (RequestError, UnicodeDecodeError, IndexError, struct.error):
        # Decoding it step by step raises the error that says what is wrong.
        return None
    return None


def decode_set(payload: bytes) -> Set:
    """Decodes a SET; ``payload`` starts with its message code."""
    _, flags, size = _unpack_head(payload)
    start = 4 + size
    value_type = flags & 0x0F
    if flags < _SET_TTL and start + FIXED_SIZES[value_type] == len(payload) and FIXED_SIZES[value_type] >= 0:
        value = TYPE_BYTES[value_type] + payload[start:]
        return _new(Set, (payload[4:start].decode(), value, None, False, False, None))
    address = payload[4:start].decode()
    at = skip_value(payload, start, value_type)
    if value_type >= _ARRAY and (b"\xef" in payload or b"_" in payload) and has_suspect_key(payload):
        check_keys(payload, start, value_type, address)
    value = TYPE_BYTES[value_type] + payload[start:at]
    revision = ttl = None
    if flags & _SET_REVISION:
        (revision,) = _unpack_u64(payload, at)
        at += 8
    if flags & _SET_TTL:
        (ttl,) = _unpack_u32(payload, at)
        at += 4
    if at != len(payload):
        raise DecodeError("bytes follow the SET")
    return _new(Set, (address, value, revision, flags & _SET_LOCK != 0, flags & _SET_UNLOCK != 0, ttl))


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
        end = at + 2 + fixed if fixed >= 0 else skip_value(payload, at + 2, value_type)
        if value_type >= _ARRAY and (b"\xef" in payload or b"_" in payload) and has_suspect_key(payload):
            check_keys(payload, at + 2, value_type, address)
        value = payload[at + 1 : end]
    elif indicator == _NOTHING:
        end = at + 1
    elif indicator == _SAMPLES:
        end = at + 3 + 8 * _unpack_u16(payload, at + 1)[0]
        samples = payload[at + 3 : end]
    else:
        raise DecodeError(f"unknown value indicator {indicator} in a PUBLISH")
    if flags & _PUBLISH_TIMESTAMP:
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
    return _new(Publish, (address, _SIGNALS[signal], _PHASES[phase], value, samples, timestamp_us, identity, rate))


def _decode_rate(payload: bytes, end: int) -> int:
    """Decodes the rate, which no flag announces: it is there when exactly four bytes are left."""
    if end > len(payload):
        raise DecodeError("the message ends too early")
    if end + 4 != len(payload):
        raise DecodeError("bytes follow the PUBLISH")
    return int(_unpack_u32(payload, end)[0])


def _set_parts(
    address: str, value: bytes, revision: int | None, locks: int, ttl: int | None
) -> tuple[int, bytes, bytes]:
    """Returns flags, address and everything after the address; ``locks`` are the flags for lock and unlock."""
    flags = value[0] | locks
    tail = value[1:]
    if revision is not None:
        flags |= _SET_REVISION
        tail += _pack_u64(revision)
    if ttl is not None:
        flags |= _SET_TTL
        tail += _pack_u32(ttl)
    return flags, address.encode(), tail


def encode_set(message: Set) -> bytes:
    """Encodes the payload of a SET."""
    address, value, revision, lock, unlock, ttl = message
    flags, raw, tail = _set_parts(address, value, revision, lock << 6 | unlock << 5, ttl)
    return _pack_head(MessageCode.SET, flags, len(raw)) + raw + tail


def set_frame(
    address: str,
    value: bytes,
    revision: int | None = None,
    lock: bool = False,
    unlock: bool = False,
    ttl: int | None = None,
) -> bytes:
    """Encodes a SET as a frame that is ready to send (QoS 1), from the fields of ``messages.Set``.

    Raises:
        ValueError: it does not fit into a frame.
    """
    if revision is not None and ttl is None and not lock and not unlock:
        raw = address.encode()
        size = 11 + len(raw) + len(value)
        if size <= MAX_PAYLOAD_BYTES:
            head = _pack_framed_head(MAGIC, _SET_FRAME_FLAGS, size, 0x21, value[0] | _SET_REVISION, len(raw))
            return head + raw + value[1:] + _pack_u64(revision)
    flags, raw, tail = _set_parts(address, value, revision, lock << 6 | unlock << 5, ttl)
    return _framed(_SET_FRAME_FLAGS, 0x21, flags, raw, tail)


def _framed(frame_flags: int, code: int, flags: int, raw: bytes, tail: bytes) -> bytes:
    size = 4 + len(raw) + len(tail)
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a message of {size} bytes does not fit into a frame")
    return _pack_framed_head(MAGIC, frame_flags, size, code, flags, len(raw)) + raw + tail


def _publish_parts(message: Publish) -> tuple[int, bytes, bytes]:
    """Returns flags, address and everything after the address; a value wins over samples."""
    address, signal, phase, value, samples, timestamp_us, identity, rate = message
    flags = signal << 5 | phase
    if value is not None:
        tail = b"\x01" + value
    elif samples is not None:
        tail = b"\x02" + _pack_u16(len(samples) // 8) + samples
    else:
        tail = b"\x00"
    if timestamp_us is not None:
        flags |= _PUBLISH_TIMESTAMP
        tail += _pack_u64(timestamp_us)
    if identity is not None:
        flags |= _PUBLISH_ID
        tail += _pack_u32(identity)
    if rate is not None:
        tail += _pack_u32(rate)
    return flags, address.encode(), tail


def encode_publish(message: Publish) -> bytes:
    """Encodes the payload of a PUBLISH."""
    flags, raw, tail = _publish_parts(message)
    return _pack_head(MessageCode.PUBLISH, flags, len(raw)) + raw + tail


def publish_frame(message: Publish) -> bytes:
    """Encodes a PUBLISH as a frame that is ready to send, with the QoS of its signal.

    Raises:
        ValueError: it does not fit into a frame.
    """
    flags, raw, tail = _publish_parts(message)
    return _framed(_PUBLISH_FRAME_FLAGS[message.signal], 0x20, flags, raw, tail)


def ack_parts(
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


def ack_frame(
    address: str | None = None,
    revision: int | None = None,
    locked: bool | None = None,
    holder: str | None = None,
    correlation_id: int | None = None,
) -> bytes:
    """Encodes an ACK as a frame that is ready to send, from the fields of ``messages.Ack``.

    Raises:
        ValueError: it does not fit into a frame.
    """
    if address is not None and revision is not None and locked is None and holder is None and correlation_id is None:
        raw = address.encode()
        size = 12 + len(raw)
        if size <= MAX_PAYLOAD_BYTES:
            return _pack_framed_head(MAGIC, BINARY_FLAG, size, 0x50, 3, len(raw)) + raw + _pack_u64(revision)
    payload = ack_parts(address, revision, locked, holder, correlation_id)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"an ACK of {len(payload)} bytes does not fit into a frame")
    return _pack_head(MAGIC, BINARY_FLAG, len(payload)) + payload
