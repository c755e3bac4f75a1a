"""Long answers in pieces: SNAPSHOT and RESULT are cut by what their entries take, so that every frame fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from clasp_relay.core.ports import NOT_YET
from clasp_relay.core.records import Param
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.codec import (
    COUNTED_BYTES,
    publish_frame,
    result_entry,
    result_frame,
    snapshot_entry,
    snapshot_frame,
)
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, MAX_SNAPSHOT_PARAMS
from clasp_relay.wire.messages import Publish, SignalDefinition, SnapshotParam

ROOM_BYTES = MAX_PAYLOAD_BYTES - COUNTED_BYTES
"""What the entries of one message may take together."""


# Skips the argument handling of the generated constructor: a newcomer gets thousands of params at once.
_new = tuple.__new__

SURELY_FITS_BYTES = ROOM_BYTES - 256
"""A param fits whose address, at four bytes a character, and value take no more than this."""


def snapshot_frames(params: Iterable[Param]) -> Iterator[bytes]:
    """Yields the SNAPSHOT frames of some params; one without any when there are none."""
    return _cut(map(_entry, params), snapshot_frame)


def judged_frames(pieces: Iterator[list[Param] | None], *, even_if_empty: bool) -> Iterator[bytes]:
    """Yields the SNAPSHOT frames of params that are judged on the way, and ``NOT_YET`` where others have their turn.

    Args:
        pieces: judges some params each time that it is asked, see ``Visibility.show_in_pieces``.
        even_if_empty: whether there is a SNAPSHOT, without any, where nothing is to be seen.
    """
    waiting: list[Param] = []
    is_owed = even_if_empty
    for piece in pieces:
        if piece is None:
            yield NOT_YET
            continue
        waiting += piece
        full = len(waiting) - len(waiting) % MAX_SNAPSHOT_PARAMS
        if full:
            yield from snapshot_frames(waiting[:full])
            waiting, is_owed = waiting[full:], False
    if waiting or is_owed:
        yield from snapshot_frames(waiting)


def result_frames(definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
    """Yields the RESULT frames of some signals; one without any when there are none."""
    return _cut(map(result_entry, definitions), result_frame)


def check_param_fits(param: Param) -> None:
    """Refuses a param that no SNAPSHOT could carry, so that it is not lost later.

    Raises:
        RequestError: VALUE.
    """
    size = len(_entry(param))
    if size > ROOM_BYTES:
        text = f"the param takes {size} bytes, a message carries {ROOM_BYTES}"
        raise RequestError(ErrorCode.VALUE, text, param.address)


def check_publish_fits(message: Publish) -> None:
    """Refuses a PUBLISH that fits its MessagePack frame and would not fit the binary one.

    Raises:
        RequestError: VALUE.
    """
    about = 4 * len(message.address) + len(message.value or b"") + len(message.samples or b"") + 64
    if about > MAX_PAYLOAD_BYTES:
        try:
            publish_frame(message)
        except ValueError:
            text = f"the message takes more than the {MAX_PAYLOAD_BYTES} bytes of a frame"
            raise RequestError(ErrorCode.VALUE, text, message.address) from None


def check_signal_fits(definition: SignalDefinition) -> None:
    """Refuses a signal that no RESULT could carry.

    Raises:
        RequestError: VALUE.
    """
    if len(result_entry(definition)) > ROOM_BYTES:
        text = f"the definition takes more than the {ROOM_BYTES} bytes that a message carries"
        raise RequestError(ErrorCode.VALUE, text, definition.address)


def _entry(param: Param) -> bytes:
    address, value, revision, writer, timestamp_us, _, _ = param
    return snapshot_entry(_new(SnapshotParam, (address, value, revision, writer or None, timestamp_us)))


def _cut(entries: Iterator[bytes], frame: Callable[[Sequence[bytes]], bytes]) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for entry in entries:
        if piece and (size + len(entry) > ROOM_BYTES or len(piece) == MAX_SNAPSHOT_PARAMS):
            yield frame(piece)
            piece, size = [], 0
        piece.append(entry)
        size += len(entry)
    yield frame(piece)
