"""Decodes payloads to messages and encodes messages: the interface of both encodings for the rest of the relay.

``decode`` accepts binary and MessagePack; the relay sends binary only.
"""

from __future__ import annotations

from clasp_relay.wire.binary_decode import decode_binary
from clasp_relay.wire.binary_encode import (
    COUNTED_BYTES,
    PUBLISH_QOS,
    SET_QOS,
    encode,
    encode_to_frame,
    result_entry,
    result_frame,
    snapshot_entry,
    snapshot_frame,
)
from clasp_relay.wire.legacy import decode_legacy, is_legacy
from clasp_relay.wire.messages import Message

__all__ = [
    "COUNTED_BYTES",
    "PUBLISH_QOS",
    "SET_QOS",
    "decode",
    "encode",
    "encode_to_frame",
    "result_entry",
    "result_frame",
    "snapshot_entry",
    "snapshot_frame",
]


def decode(payload: bytes) -> Message:
    """Decodes a payload.

    Args:
        payload: the payload of a frame.

    Returns:
        The message, its values checked.

    Raises:
        DecodeError: code 101; it is not exactly one valid message.
        RequestError: code 402, a map in a value has a key that ``values.check_keys`` refuses; code 101, it is
            FEDERATION_SYNC, a BUNDLE holds something else than SET and PUBLISH, or a count is above its limit.
            Nothing else is raised for any bytes.
    """
    # No binary message code has the high bit, so one comparison decides for nearly all payloads.
    if payload and payload[0] >= 0x80 and is_legacy(payload[0]):
        return decode_legacy(payload)
    return decode_binary(payload)
