"""Payloads ↔ messages: what the rest of the relay uses of the wire's encodings.

``decode`` takes a payload of either encoding; what the relay sends is always binary. For what is sent
often there are functions that make the whole frame at once.
"""

from __future__ import annotations

from clasp_relay.wire.binary_decode import decode_binary
from clasp_relay.wire.binary_encode import (
    COUNTED_BYTES,
    encode,
    encode_to_frame,
    result_entry,
    result_frame,
    snapshot_entry,
    snapshot_frame,
)
from clasp_relay.wire.binary_hot import ack_frame, decode_usual, publish_frame, set_frame
from clasp_relay.wire.legacy import decode_legacy, is_legacy
from clasp_relay.wire.messages import Message

__all__ = [
    "COUNTED_BYTES",
    "ack_frame",
    "decode",
    "decode_usual",
    "encode",
    "encode_to_frame",
    "publish_frame",
    "result_entry",
    "result_frame",
    "set_frame",
    "snapshot_entry",
    "snapshot_frame",
]


def decode(payload: bytes) -> Message:
    """Decodes a payload.

    Args:
        payload: what was in the frame.

    Returns:
        The message, its values checked.

    Raises:
        DecodeError: code 101; it is not exactly one valid message.
        RequestError: code 402; a map in a value has a key that ``values.check_keys`` refuses. Nothing else is
            raised for any bytes.
    """
    # No binary message code has the high bit: this alone sends nearly all of them the short way.
    if payload and payload[0] >= 0x80 and is_legacy(payload[0]):
        return decode_legacy(payload)
    return decode_binary(payload)
