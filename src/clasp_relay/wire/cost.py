"""Estimates the cost of a frame before it is decoded, for the rate limit (``docs/protocol.md``, Limits).

The limiter is asked first, so that a frame that it refuses is not decoded. One unit is about 0.1 ms of work, the cost
of a usual message. Nothing here raises, whatever the bytes are: a frame that is not valid costs 1 or what it claims to
hold, and decoding refuses it.

A message that does not come in a frame is paid for in two parts: for its parsing, before it is parsed (``json_cost``
for JSON), and for its handling, when it is handled (``message_cost``).
"""

from __future__ import annotations

import re

from clasp_relay.wire.constants import JSON_MARKS, MAX_ADDRESS_BYTES, MAX_JSON_MARKS, MessageCode
from clasp_relay.wire.messages import Bundle, Get, Message, Publish, Query, Replay, Set, Subscribe
from clasp_relay.wire.values import most_parts

CHEAP_BYTES = 256
"""Bytes of an address or a pattern that add nothing."""

SEGMENTS_A_UNIT, BYTES_A_UNIT, WILDCARDS_A_UNIT = 32, 1_024, 8
"""Segments or bytes of a text longer than ``CHEAP_BYTES``, or wildcards of any pattern, that add one unit."""

DEFINITIONS_A_UNIT = 32
"""Definitions of an ANNOUNCE that add one unit: each takes about 4 µs."""

NODES_A_UNIT = 256
"""Nodes of a MessagePack frame (keys, values, items) that add one unit; each takes up to 1 µs to decode."""

JSON_MARKS_A_UNIT = 256
"""Commas, colons and brackets of a JSON text that are one unit: each takes about 0.5 µs to parse."""

MAX_EXTRA = 64
"""Cost beyond 1 of a message that is not a BUNDLE, at most, so that it always fits into the usual burst of 120."""

FREE_PARTS, PARTS_A_UNIT, FREE_PARTS_BYTES = 2_048, 256, 4_096
"""A binary frame longer than ``FREE_PARTS_BYTES`` costs one more unit for each ``PARTS_A_UNIT`` strings, bytes, arrays,
maps and BOOLs that it can hold beyond ``FREE_PARTS``: each takes up to 1 µs to check. Long texts and files have fewer
bytes that may be the type of one."""

_SCANNED_NODES = 256
"""Nodes of a MessagePack frame that are counted, in 40 µs; behind them each byte counts as one."""

_WALKED_MEMBERS = 255
"""Members of a BUNDLE that are examined: a frame cannot hold more members that are longer than ``CHEAP_BYTES``."""

_TEXT_AT: dict[int, int] = {
    MessageCode.SET: 2,
    MessageCode.PUBLISH: 2,
    MessageCode.GET: 1,
    MessageCode.SUBSCRIBE: 5,
    MessageCode.QUERY: 1,
    MessageCode.REPLAY: 2,
}
"""The offset of the length of the address or the pattern in a binary payload, by message code."""

_WITH_VALUE = (int(MessageCode.SET), int(MessageCode.PUBLISH))
_BUNDLE, _ANNOUNCE = int(MessageCode.BUNDLE), int(MessageCode.ANNOUNCE)

_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length field in the MessagePack head of bytes and strings, by the first byte."""

_FIXED_BYTES = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
_HEAD_BYTES = {0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5, **{head: 1 + length for head, length in _LENGTH_BYTES.items()}}

_SHORT_BYTES = {0xA0 + length: 1 + length for length in range(32)}

_NODE_BYTES = tuple({**_FIXED_BYTES, **_HEAD_BYTES, **_SHORT_BYTES}.get(head, 1) for head in range(256))
"""Bytes of a MessagePack node by its first byte: of a number, of a short string, or of the head of a longer string, of
bytes, or of a container."""

# The key 'messages', in any of the forms of a MessagePack string, and the head of an array.
_MESSAGES = re.compile(rb"[\xa8\x08]messages(?:([\x90-\x9f])|\xdc(..)|\xdd(....))", re.DOTALL)


def frame_cost(data: bytes) -> int:
    """Estimates the cost of a frame for the session's limiter.

    Args:
        data: a whole CLASP frame, valid or not.

    Returns:
        At least 1. For a BUNDLE, the number of its members and what their long addresses add; in MessagePack never
        less than the members, and more only if the text ``type`` occurs in their values. For any other message 1 and
        what its address or pattern adds by its length, segments and wildcards, or the number of definitions of an
        ANNOUNCE; at most ``1 + MAX_EXTRA``. Any MessagePack frame costs at least 1 and what its nodes add.
    """
    if len(data) < 8:
        return 1
    start = 12 if data[1] & 0x20 else 4
    if start >= len(data):
        return 1
    code = data[start]
    if code in _WITH_VALUE and start == 4 and not data[6]:
        # Nearly all frames: a SET or a PUBLISH at an address of less than 256 bytes.
        return 1 if len(data) <= FREE_PARTS_BYTES else 1 + _parts(data)
    if code == _BUNDLE:
        return max(_bundle_cost(data, start), 1 + _parts(data))
    if code >= 0x80:
        cost = _legacy_cost(data, start)
        # Each node has at least one byte.
        return cost if len(data) - start < NODES_A_UNIT else max(cost, _nodes_cost(data, start))
    extra = _extra(data, start)
    return 1 + min(MAX_EXTRA, extra + _parts(data) if code in _WITH_VALUE else extra)


def message_cost(message: Message) -> int:
    """Estimates the cost of handling a message that did not come in a frame.

    Args:
        message: the message, valid or not. Parsing its values was paid for before.

    Returns:
        The cost of a frame with that message and short values (``frame_cost``); 1 for an ANNOUNCE.
    """
    if isinstance(message, Bundle):
        return max(1, sum(map(message_cost, message.messages)))
    if isinstance(message, Set | Publish | Get):
        return 1 + _text_extra(message.address, 0)
    if isinstance(message, Subscribe | Query | Replay):
        return 1 + _text_extra(message.pattern, message.pattern.count("*"))
    return 1


def json_cost(data: bytes) -> int:
    """Estimates the cost of parsing a JSON text, apart from its message; takes 20 µs for 60 kB.

    Returns:
        the cost; 0 for a short text, and for one that has more than ``MAX_JSON_MARKS`` and so is not parsed.
    """
    if len(data) < JSON_MARKS_A_UNIT:
        return 0
    marks = len(data) - len(data.translate(None, JSON_MARKS))
    return marks // JSON_MARKS_A_UNIT if marks <= MAX_JSON_MARKS else 0


def _text_extra(text: str, wildcards: int) -> int:
    """Returns what an address or a pattern adds; see ``_extra``."""
    size = len(text) if len(text) <= CHEAP_BYTES // 4 else len(text.encode("utf-8", "replace"))
    if size > MAX_ADDRESS_BYTES:
        return 0
    extra = wildcards // WILDCARDS_A_UNIT
    if size > CHEAP_BYTES:
        extra += size // BYTES_A_UNIT + text.count("/") // SEGMENTS_A_UNIT
    return extra


def _parts(data: bytes) -> int:
    """Returns what the values of a binary frame add by the parts that they can have."""
    if len(data) <= FREE_PARTS_BYTES:
        return 0
    return min(MAX_EXTRA, max(0, most_parts(data) - FREE_PARTS) // PARTS_A_UNIT)


def _u16(data: bytes, at: int) -> int:
    """Returns a number of two bytes; bytes beyond the end are left out, without an error."""
    return int.from_bytes(data[at : at + 2], "big")


def _extra(data: bytes, start: int) -> int:
    """Returns what a binary message that starts at ``start`` adds to its one unit."""
    code = data[start]
    if code == _ANNOUNCE:
        namespace_bytes = _u16(data, start + 1)
        count_at = start + 3 + namespace_bytes
        return min(_u16(data, count_at), (len(data) - start) // 4) // DEFINITIONS_A_UNIT
    text_at = _TEXT_AT.get(code)
    if text_at is None:
        return 0
    size = _u16(data, start + text_at)
    if size > MAX_ADDRESS_BYTES:
        # A message with such an address or pattern is refused before anything is matched.
        return 0
    text = start + text_at + 2
    extra = data.count(b"*", text, text + size) // WILDCARDS_A_UNIT if code not in _WITH_VALUE else 0
    if size > CHEAP_BYTES:
        extra += size // BYTES_A_UNIT + data.count(b"/", text, text + size) // SEGMENTS_A_UNIT
    return extra


def _bundle_cost(data: bytes, start: int) -> int:
    at = start + (12 if data[start + 1 : start + 2] >= b"\x80" else 4)
    # A member has at least its length and its message code. A larger count is not valid and ends the decoding at once.
    members = min(_u16(data, start + 2), max(0, len(data) - at) // 3)
    cost = members
    for _ in range(min(members, _WALKED_MEMBERS)):
        size = _u16(data, at)
        if size > CHEAP_BYTES and at + 2 < len(data):
            cost += _extra(data, at + 2)
        at += 2 + size
    return max(1, cost)


def _legacy_cost(data: bytes, start: int) -> int:
    """Counts the members of a MessagePack BUNDLE without decoding it."""
    if data.find(b"BUNDLE", start) < 0:
        return 1
    # Every member, and the bundle, has a key 'type'.
    most = data.count(b"type", start) - 1
    if most <= 1:
        return 1
    heads = _MESSAGES.findall(data, start)
    if len(heads) != 1:
        # Of equal keys the last one counts, and only decoding could tell which of the matches are keys.
        return most if heads else 1
    short, medium, long = heads[0]
    claimed = short[0] & 0x0F if short else int.from_bytes(medium or long, "big")
    return max(1, min(claimed, most))


def _nodes_cost(data: bytes, at: int) -> int:
    """Returns the cost of a MessagePack frame by its nodes, which are read one after the other, at any depth."""
    size, nodes = len(data), 0
    while at < size and nodes < _SCANNED_NODES:
        head = data[at]
        length_bytes = _LENGTH_BYTES.get(head)
        if length_bytes:
            at += int.from_bytes(data[at + 1 : at + 1 + length_bytes], "big")
        at += _NODE_BYTES[head]
        nodes += 1
    return 1 + min(MAX_EXTRA, (nodes + max(0, size - at)) // NODES_A_UNIT)
