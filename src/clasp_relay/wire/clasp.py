"""CLASP as one of the protocols that sessions may speak: bytes to messages, messages to bytes.

Long answers (SNAPSHOT, RESULT) are cut by what their entries take, so that every frame fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from clasp_relay.wire.codec import (
    COUNTED_BYTES,
    ack_frame,
    decode,
    decode_usual,
    encode_to_frame,
    publish_frame,
    result_entry,
    result_frame,
    set_frame,
    snapshot_entry,
    snapshot_frame,
)
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, MAX_SNAPSHOT_PARAMS, MessageCode
from clasp_relay.wire.cost import frame_cost
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import Message, Publish, SignalDefinition, SnapshotParam, Value

ROOM_BYTES = MAX_PAYLOAD_BYTES - COUNTED_BYTES
"""How much the entries of one SNAPSHOT or RESULT may take together."""


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
        message = decode_usual(data)
        if message is not None:
            return message, data[1] >> 6
        frame = decode_frame(data)
        # A client that announces in binary waits for an ACK whatever its QoS.
        return decode(frame.payload), frame.qos or frame.payload[0] == MessageCode.ANNOUNCE

    def cost(self, data: bytes) -> int:
        """Estimates what a frame costs before it is decoded; see ``wire.cost``."""
        return frame_cost(data)

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None) -> bytes:
        """Encodes a SET from the fields of ``messages.Set``."""
        return self._wrap(set_frame(address, value, revision, lock, unlock, ttl))

    def publish(self, message: Publish) -> bytes:
        """Encodes a PUBLISH."""
        return self._wrap(publish_frame(message))

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        locked: bool | None = None,
        holder: str | None = None,
    ) -> bytes:
        """Encodes an ACK from the fields of ``messages.Ack``."""
        return self._wrap(ack_frame(address, revision, locked, holder))

    def encode(self, message: Message) -> bytes:
        """Encodes any message."""
        return self._wrap(encode_to_frame(message))

    def snapshot(self, params: Iterable[SnapshotParam]) -> Iterator[bytes]:
        """Yields the SNAPSHOTs of some params; an empty one when there are none."""
        return self._cut(map(snapshot_entry, params), snapshot_frame)

    def result(self, definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
        """Yields the RESULTs of some signals; an empty one when there are none."""
        return self._cut(map(result_entry, definitions), result_frame)

    def _cut(self, entries: Iterator[bytes], frame: Callable[[Sequence[bytes]], bytes]) -> Iterator[bytes]:
        piece: list[bytes] = []
        size = 0
        for entry in entries:
            if piece and (size + len(entry) > ROOM_BYTES or len(piece) == MAX_SNAPSHOT_PARAMS):
                yield self._wrap(frame(piece))
                piece, size = [], 0
            piece.append(entry)
            size += len(entry)
        yield self._wrap(frame(piece))
