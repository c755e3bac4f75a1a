"""Maps topics to addresses, filters to patterns, and payloads to values, and back (``docs/doors.md``, MQTT)."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.constants import JSON_MARKS, MAX_DEPTH, MAX_JSON_MARKS, MAX_PAYLOAD_BYTES
from clasp_relay.wire.cost import JSON_MARKS_A_UNIT, json_cost
from clasp_relay.wire.messages import NULL, Value
from clasp_relay.wire.values import decode_value, encode_value

_ROOM_BYTES = MAX_PAYLOAD_BYTES - 8_192
"""A longer JSON value stays a string: the address, and what a SNAPSHOT adds, must fit into the frame, too."""

_JSON_STARTS = b'{["-0123456789tfn'
_JSON_SPACE = b" \t\r\n"
_MIN_I64, _MAX_I64 = -(2**63), 2**63 - 1


class _NotJson(ValueError):
    """A payload that looks like JSON but does not become a JSON value in CLASP."""


def topic_address(prefix: str, topic: str) -> str | None:
    """Returns the address of a topic; None if it has none.

    Args:
        prefix: the prefix of its address in CLASP; empty for the whole tree.
        topic: the topic of a PUBLISH.
    """
    if not topic or topic.startswith("$") or "+" in topic or "#" in topic:
        return None
    address = f"{prefix}/{topic}"
    try:
        check_address(address)
    except RequestError:
        return None
    return address


def address_topic(prefix: str, address: str) -> str | None:
    """Returns the topic of an address; None if it has none."""
    start = len(prefix) + 1
    if not address.startswith(prefix + "/") or len(address) == start:
        return None
    topic = address[start:]
    if topic.startswith("$") or "+" in topic or "#" in topic or "\0" in topic or len(topic.encode()) > 65_535:
        return None
    return topic


def is_filter(text: str) -> bool:
    """Tells whether a text is a topic filter ([5] 4.7): ``#`` last only, both wildcards alone in their level."""
    if not text:
        return False
    levels = text.split("/")
    return all("+" not in level or level == "+" for level in levels) and all(
        "#" not in level or (level == "#" and place == len(levels) - 1) for place, level in enumerate(levels)
    )


def filter_pattern(prefix: str, text: str) -> str | None:
    """Returns the CLASP pattern of a filter; None if no address can match it.

    Args:
        prefix: the prefix of its addresses in CLASP.
        text: the filter, without ``$share/name/``.
    """
    if text.startswith("$") or "*" in text:
        return None
    levels = {"+": "*", "#": "**"}
    pattern = f"{prefix}/" + "/".join(levels.get(level, level) for level in text.split("/"))
    try:
        Pattern.parse(pattern)
    except RequestError:
        return None
    return pattern


def payload_value(payload: bytes, *, is_retained: bool) -> Value:
    """Returns the value of a payload: that of JSON, a string for other UTF-8, bytes for the rest.

    An empty payload is null. Some JSON becomes a string: a retained ``null``, since null would delete; what CLASP would
    not keep as it is, with a repeated key, nested too deep, or with too large numbers; and what has more than
    ``MAX_JSON_MARKS`` commas, colons and brackets, which would take too long to parse.

    Raises:
        RequestError: VALUE; a map has a key that CLASP refuses.
    """
    if not payload:
        return NULL
    text: object = payload
    try:
        text = payload.decode()
        # JSON allows white space around it; the first byte rules out most texts.
        if payload.strip(_JSON_SPACE)[:1] in _START_BYTES and not _takes_long(payload):
            value = encode_value(_from_json(str(text)))
            if len(value) <= _ROOM_BYTES and not (is_retained and value == NULL):
                return value
    except UnicodeDecodeError:
        text = payload
    except (ValueError, RecursionError):
        pass
    return encode_value(text)


_START_BYTES = tuple(bytes((byte,)) for byte in _JSON_STARTS)


def payload_cost(payload: bytes) -> int:
    """Estimates the cost of ``payload_value``, in units of ``wire.cost``; 0 if it does not parse the payload."""
    if len(payload) < JSON_MARKS_A_UNIT or payload.strip(_JSON_SPACE)[:1] not in _START_BYTES:
        return 0
    return json_cost(payload)


def _takes_long(payload: bytes) -> bool:
    """Tells whether parsing a payload as JSON may take too long for one turn."""
    return len(payload) > MAX_JSON_MARKS and len(payload) - len(payload.translate(None, JSON_MARKS)) > MAX_JSON_MARKS


def _from_json(text: str) -> Any:
    value = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    _check_depth(value, 0)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    for key in found:
        if key.startswith("\ufeff") or key == "__proto__":
            raise RequestError(ErrorCode.VALUE, "a map has a key that is refused (docs/protocol.md, Values)")
    if len(found) != len(pairs):
        raise _NotJson("a key is repeated")
    return found


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else _MAX_I64 + 1
    if not _MIN_I64 <= number <= _MAX_I64:
        raise _NotJson("an integer is beyond 64 bits")
    return number


def _constant(text: str) -> Any:
    raise _NotJson(f"{text} is not JSON")


def _check_depth(value: object, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            raise _NotJson("nested too deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _NotJson("a number is too large")


def value_payload(value: Value | None) -> bytes:
    """Returns the payload of a value: strings and bytes raw, others as JSON; empty for null and for no value."""
    if value is None or value == NULL:
        return b""
    found = decode_value(value)
    if isinstance(found, bytes):
        return found
    if isinstance(found, str):
        return found.encode()
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), default=_base64).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
