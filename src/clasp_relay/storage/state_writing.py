"""Writes the state as a JSON document.

The format is that of the Rust relay, so that either relay can read the other's files, with optional keys added
(``docs/protocol.md``, Persistence)::

    {"version":1,"params":[
    {"address":"/a","value":1.0,"revision":3,"writer":"5b0f…","timestamp":1700000000000000},
    {"address":"/b","value":[1,2],"revision":1,"writer":"…","timestamp":…,"encoded":"CQACAQI=","ttl":60,"expires":…}
    ],"tombstones":[
    {"address":"/deleted","revision":7,"timestamp":…,"subject":"…","stamp":"…"}
    ]}

``encoded`` is present when ``value`` alone would not be read back as the same bytes; a reader uses it instead.
``journal_seq``, after ``version``, is the number of the last journal entry that the document includes; ``scheduled``
lists the scheduled bundles, as encoded changes. A tombstone is what is remembered of a deleted address.
The JSON is strict: no NaN. One line is one param, so that the usual text tools can find it.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from math import isfinite

from clasp_relay.core.records import Ended, Param, StateImage, encode_change
from clasp_relay.wire.constants import ValueType
from clasp_relay.wire.values import decode_value, encode_value

VERSION = 1
"""``version`` in a file that this relay wrote; a file of the Rust relay has none."""

HEAD_BYTES = 64
"""The start of a document, up to its params, fits into this many bytes."""

_JOURNAL_SEQ = re.compile(rb'\{"version":1,"journal_seq":([0-9]+),')

PIECE_PARAMS = 200
"""A piece is ready with this many params or …"""

PIECE_CHARACTERS = 32 * 1024
"""… with this much text, so that making one takes a few milliseconds, whatever its contents."""

MAX_TRANSLATED_BYTES = 8 * 1024
"""A larger array or map is not decoded, which would take milliseconds: ``encoded`` has it, and ``value`` is null."""

MAX_APPROXIMATION_BYTES = 1024
"""If a larger value needs ``encoded``, ``value`` is null: bytes as a list of numbers take four times their size."""

_EXACT = frozenset({ValueType.BOOL, ValueType.I64, ValueType.STRING})
"""Types of which JSON represents every value exactly."""

_CONTAINERS = frozenset({ValueType.ARRAY, ValueType.MAP})

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def encode(image: StateImage) -> Iterator[bytes]:
    """Writes the state as a document.

    Meant to be called in a thread. It yields small pieces, so that the caller can let other threads run in between.

    Args:
        image: the state, which must not change meanwhile.

    Yields:
        The document's bytes, in order.
    """
    # At the beginning, so that ``read_journal_seq`` need not read the whole file.
    journal = f'"journal_seq":{image.journal_seq:d},' if image.journal_seq else ""
    yield f'{{"version":{VERSION},{journal}"params":[\n'.encode()
    yield from _in_pieces(_param_line(param, image.expires_us.get(param.address)) for param in image.params)
    yield b'\n],"tombstones":[\n'
    yield from _in_pieces(_tombstone_line(address, ended) for address, ended in image.ended)
    if image.scheduled:
        yield b'\n],"scheduled":[\n'
        yield from _in_pieces(f'"{b64encode(encode_change(change)).decode("ascii")}"' for change in image.scheduled)
    yield b"\n]}\n"


def read_journal_seq(head: bytes) -> int:
    """Returns the ``journal_seq`` of a document from its first ``HEAD_BYTES``; 0 if it has none."""
    found = _JOURNAL_SEQ.match(head)
    return int(found[1]) if found else 0


def _in_pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Joins lines by commas and cuts the result into pieces."""
    piece: list[str] = []
    size = 0
    before = ""
    for line in lines:
        piece.append(line)
        size += len(line)
        if len(piece) >= PIECE_PARAMS or size >= PIECE_CHARACTERS:
            yield (before + ",\n".join(piece)).encode()
            piece.clear()
            size = 0
            before = ",\n"
    if piece:
        yield (before + ",\n".join(piece)).encode()


def _param_line(param: Param, expires_us: int | None) -> str:
    text, exact = _value_text(param.value)
    line = (
        f'{{"address":{_to_json(param.address)},"value":{text},"revision":{param.revision:d},'
        f'"writer":{_to_json(param.writer)},"timestamp":{param.timestamp_us:d}'
    )
    if not exact:
        line += f',"encoded":"{b64encode(param.value).decode("ascii")}"'
    if param.ttl is not None:
        line += f',"ttl":{param.ttl:d}'
    if expires_us is not None:
        line += f',"expires":{expires_us:d}'
    if param.subject:
        line += f',"subject":{_to_json(param.subject)}'
    if param.origin:
        line += f',"origin":{_to_json(param.origin)}'
    if param.sent_as:
        line += f',"sent":"{b64encode(param.sent_as).decode("ascii")}"'
    return line + "}"


def _tombstone_line(address: str, ended: Ended) -> str:
    line = f'{{"address":{_to_json(address)},"revision":{ended.revision:d},"timestamp":{ended.when_us:d}'
    if ended.subject:
        line += f',"subject":{_to_json(ended.subject)}'
    if ended.stamp is not None:
        line += f',"stamp":{_to_json(ended.stamp)}'
    return line + "}"


def _value_text(value: bytes) -> tuple[str, bool]:
    """Returns a value as JSON, and whether that encodes back to the same bytes."""
    kind = value[0]
    if kind in _CONTAINERS and len(value) > MAX_TRANSLATED_BYTES:
        return "null", False
    content = decode_value(value)
    if kind in _EXACT or (kind == ValueType.F64 and isinstance(content, float) and isfinite(content)):
        return _to_json(content), True
    if kind in _CONTAINERS:
        try:
            text = _to_json(content)
        except (TypeError, ValueError):  # bytes, or a number that is not finite, somewhere inside
            return _approximation(value, content), False
        # Small integers, 32-bit floats and duplicate keys are not told apart in JSON.
        return text, encode_value(content) == value
    return _approximation(value, content), False


def _approximation(value: bytes, content: object) -> str:
    """Returns a JSON approximation of a value that JSON cannot represent, for people and for the Rust relay."""
    return _to_json(_plain(content)) if len(value) <= MAX_APPROXIMATION_BYTES else "null"


def _plain(content: object) -> object:
    if isinstance(content, bytes):
        return list(content)
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    if isinstance(content, dict):
        return {key: _plain(item) for key, item in content.items()}
    return content
