"""The codec of CLASP sessions: bytes to messages, messages to bytes.

The most frequent messages, of which there are thousands a second, are decoded from their frame, and encoded, in one
step: a SET without options, a PUBLISH, an ACK of a SET. All others go step by step (``wire.frame``, ``wire.codec``),
and tests check that both paths have the same result. Long answers (SNAPSHOT, RESULT) are cut by the size of their
entries, so that every frame fits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from clasp_relay.errors import RequestError
from clasp_relay.wire.binary_hot import PUBLISH_TIMESTAMP, SET_REVISION, SET_TTL, decode_publish
from clasp_relay.wire.codec import (
    COUNTED_BYTES,
    PUBLISH_QOS,
    SET_QOS,
    decode,
    encode_to_frame,
    result_entry,
    result_frame,
    snapshot_entry,
    snapshot_frame,
)
from clasp_relay.wire.constants import (
    MAGIC,
    MAX_PAYLOAD_BYTES,
    MAX_SNAPSHOT_PARAMS,
    MAX_VALUE_PARTS,
    MessageCode,
    ValueType,
)
from clasp_relay.wire.cost import frame_cost
from clasp_relay.wire.frame import BINARY_FLAG, TIMESTAMP_FLAG, TRANSFORMED_FLAGS, decode_frame
from clasp_relay.wire.messages import Ack, Message, ParamFields, Publish, Set, SignalDefinition, Value
from clasp_relay.wire.tuples import new_tuple
from clasp_relay.wire.values import FIXED_SIZES, TYPE_BYTES, check_keys, has_suspect_key, skip_value

# Frame and beginning of the message: magic, frame flags, payload length, message code, message flags, address length.
_HEAD = struct.Struct(">BBHBBH")
_HEAD_BYTES = _HEAD.size
_unpack_head, _pack_head = _HEAD.unpack_from, _HEAD.pack
_pack_u64 = struct.Struct(">Q").pack

_ARRAY = int(ValueType.ARRAY)
_SET, _PUBLISH, _ACK = int(MessageCode.SET), int(MessageCode.PUBLISH), int(MessageCode.ACK)
_SET_FRAME_FLAGS = SET_QOS << 6 | BINARY_FLAG
_PUBLISH_FRAME_FLAGS = tuple(qos << 6 | BINARY_FLAG for qos in PUBLISH_QOS)
_USUAL_QOS = tuple(
    flags >> 6 if flags < 0xC0 and not flags & (TIMESTAMP_FLAG | TRANSFORMED_FLAGS) else -1 for flags in range(256)
)
"""The QoS in a frame's flags; -1 if the flags are not usual: invalid, or with a timestamp."""

_ACK_OF_SET = 3
"""The flags of an ACK that has an address and a revision, and nothing else."""

ROOM_BYTES = MAX_PAYLOAD_BYTES - COUNTED_BYTES
"""Bytes of the entries of one SNAPSHOT or RESULT together, at most."""

CUT_AT_ONCE = 40
"""Entries that are added to a frame in one step if they fit: 100,000 of 100 bytes are cut in 8 ms instead of 12."""


class ClaspCodec:
    """Implements ``core.ports.Codec`` for CLASP.

    Args:
        wrap: puts an encoded CLASP frame into its transport's message, for example a WebSocket message.
    """

    __slots__ = ("_wrap",)

    def __init__(self, wrap: Callable[[bytes], bytes] = bytes) -> None:
        self._wrap = wrap

    def decode(self, data: bytes) -> tuple[Message, int]:
        """Decodes one CLASP frame.

        Args:
            data: the frame, without its transport's framing.

        Returns:
            The message, and its QoS: above 0 the sender waits for an ACK.

        Raises:
            DecodeError: it is not exactly one valid message.
        """
        size = len(data)
        if size >= _HEAD_BYTES:
            magic, frame_flags, length, code, flags, address_bytes = _unpack_head(data)
            qos = _USUAL_QOS[frame_flags]
            if magic == MAGIC and length + 4 == size and qos >= 0:
                try:
                    if code == _PUBLISH:
                        return decode_publish(data[4:]), qos
                    if code == _SET and flags < SET_TTL:
                        start = _HEAD_BYTES + address_bytes
                        fixed_bytes = FIXED_SIZES[flags]
                        end = (
                            start + fixed_bytes if fixed_bytes >= 0 else skip_value(data, start, flags, MAX_VALUE_PARTS)
                        )
                        if end == size:
                            if flags >= _ARRAY and has_suspect_key(data):
                                check_keys(data, start, flags)
                            address, value = data[_HEAD_BYTES:start].decode(), TYPE_BYTES[flags] + data[start:]
                            return new_tuple(Set, (address, value, None, False, False, None)), qos
                except (RequestError, UnicodeDecodeError, IndexError, struct.error):
                    # Decoding step by step raises the error with its text.
                    return _decode_step_by_step(data)
        return _decode_step_by_step(data)

    def cost(self, data: bytes) -> int:
        """Estimates the cost of a frame before it is decoded; see ``wire.cost``."""
        return frame_cost(data)

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None) -> bytes:
        """Encodes a SET from the fields of ``messages.Set``."""
        if ttl is None and not lock and not unlock:
            raw = address.encode()
            size = 11 + len(raw) + len(value)
            if size <= MAX_PAYLOAD_BYTES:
                head = _pack_head(MAGIC, _SET_FRAME_FLAGS, size, _SET, value[0] | SET_REVISION, len(raw))
                return self._wrap(head + raw + value[1:] + _pack_u64(revision))
        return self._wrap(encode_to_frame(Set(address, value, revision, lock, unlock, ttl)))

    def publish(self, message: Publish) -> bytes:
        """Encodes a PUBLISH."""
        address, signal, phase, value, _, timestamp_us, identity, rate = message
        if value is not None and identity is None and rate is None:
            raw = address.encode()
            flags = signal << 5 | phase
            if timestamp_us is not None:  # of a signal that history keeps
                flags |= PUBLISH_TIMESTAMP
                value += _pack_u64(timestamp_us)
            size = 5 + len(raw) + len(value)
            if size <= MAX_PAYLOAD_BYTES:
                head = _pack_head(MAGIC, _PUBLISH_FRAME_FLAGS[signal], size, _PUBLISH, flags, len(raw))
                return self._wrap(head + raw + b"\x01" + value)
        return self._wrap(encode_to_frame(message))

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        locked: bool | None = None,
        holder: str | None = None,
    ) -> bytes:
        """Encodes an ACK from the fields of ``messages.Ack``."""
        if address is not None and revision is not None and locked is None and holder is None:
            raw = address.encode()
            size = 12 + len(raw)
            if size <= MAX_PAYLOAD_BYTES:
                head = _pack_head(MAGIC, BINARY_FLAG, size, _ACK, _ACK_OF_SET, len(raw))
                return self._wrap(head + raw + _pack_u64(revision))
        return self._wrap(encode_to_frame(Ack(address, revision, locked, holder)))

    def encode(self, message: Message) -> bytes:
        """Encodes any message."""
        return self._wrap(encode_to_frame(message))

    def snapshot(self, params: Iterable[ParamFields]) -> Iterator[bytes]:
        """Yields the SNAPSHOTs of some params; an empty one if there are none."""
        return self._cut(map(snapshot_entry, params), snapshot_frame)

    def result(self, definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
        """Yields the RESULTs of some signals; an empty one if there are none."""
        return self._cut(map(result_entry, definitions), result_frame)

    def _cut(self, entries: Iterator[bytes], frame: Callable[[Sequence[bytes]], bytes]) -> Iterator[bytes]:
        """Yields frames with as many entries as the limits of number and bytes allow; one at least."""
        piece: list[bytes] = []
        size = 0
        while some := list(islice(entries, CUT_AT_ONCE)):
            some_bytes = sum(map(len, some))
            if size + some_bytes <= ROOM_BYTES and len(piece) + len(some) <= MAX_SNAPSHOT_PARAMS:
                piece += some
                size += some_bytes
                continue
            for entry in some:
                if piece and (size + len(entry) > ROOM_BYTES or len(piece) == MAX_SNAPSHOT_PARAMS):
                    yield self._wrap(frame(piece))
                    piece, size = [], 0
                piece.append(entry)
                size += len(entry)
        yield self._wrap(frame(piece))


def _decode_step_by_step(data: bytes) -> tuple[Message, int]:
    frame = decode_frame(data)
    # A client that announces in binary waits for an ACK whatever its QoS.
    return decode(frame.payload), frame.qos or frame.payload[0] == MessageCode.ANNOUNCE
