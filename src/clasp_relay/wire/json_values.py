"""Values as JSON, for HTTP: a value that JSON lacks is an object with one key that starts with ``$``.

Bytes are ``{"$bytes": base64}``; floats that are no numbers are ``{"$float": "nan"}``, ``"inf"`` and ``"-inf"``. All
other values are themselves: integers without a fraction, floats with one. HTTP sessions have :class:`JsonCodec`: it
encodes each answer as one JSON object, and decodes nothing, since requests become messages where they are handled.
Sessions of event streams have :class:`EventStreamCodec`: each delivery is one event with such an object.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.constants import JSON_MARKS
from clasp_relay.wire.messages import Error, Message, ParamFields, Publish, SignalDefinition, Value
from clasp_relay.wire.values import PyValue, check_keys, decode_value, encode_value, has_suspect_key

__all__ = [
    "CODEC",
    "COMMENT",
    "EVENT_STREAM",
    "EventStreamCodec",
    "JsonCodec",
    "event",
    "param_to_json",
    "parse_json",
    "to_json",
    "value_from_json",
]

COMMENT = b":\n\n"
"""A comment, which readers of an event stream ignore."""

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(value: Value) -> Any:
    """Returns a value as an object for ``json.dumps``."""
    return _shown(decode_value(value))


def param_to_json(param: ParamFields) -> dict[str, Any]:
    """Returns a param as an object for ``json.dumps``."""
    return {
        "address": param.address,
        "value": to_json(param.value),
        "revision": param.revision,
        "timestamp": param.timestamp_us,
        "writer": param.writer,
    }


def value_from_json(parsed: Any, address: str | None = None) -> Value:
    """Returns the value of parsed JSON.

    Args:
        parsed: the result of ``parse_json``.
        address: the address that a refusal names.

    Raises:
        RequestError: VALUE; it has an integer beyond 64 bits, is nested too deep, or has a key that ``check_keys``
            refuses.
    """
    try:
        value = encode_value(_meant(parsed))
    except (ValueError, RecursionError) as error:
        raise RequestError(ErrorCode.VALUE, str(error) or "the value is nested too deep", address) from None
    if has_suspect_key(value):
        check_keys(value, 1, value[0], address)
    return value


def parse_json(data: bytes, max_marks: int = 0) -> Any:
    """Parses JSON in UTF-8, strictly: no key twice in one object, no NaN.

    Args:
        data: the text.
        max_marks: limit of its commas, colons and brackets: ``MAX_JSON_MARKS`` for texts of clients, so that parsing
            takes some ms at most; 0 for no limit.

    Raises:
        DecodeError: it is not such JSON, or exceeds ``max_marks``.
    """
    if max_marks and len(data) > max_marks and len(data) - len(data.translate(None, JSON_MARKS)) > max_marks:
        raise DecodeError(f"the body has more than {max_marks} commas, colons and brackets; send it in parts")
    try:
        parsed = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        text = "a string holds half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else str(error)
        raise DecodeError(f"the body is not valid JSON: {text}") from None
    return parsed


class JsonCodec:
    """Implements ``core.ports.Codec`` for sessions whose messages come from HTTP requests."""

    def decode(self, data: bytes, /) -> tuple[Message, int]:  # noqa: ARG002
        """Refuses: a request becomes a message where it is handled."""
        raise DecodeError("there is nothing to decode")

    def cost(self, data: bytes, /) -> int:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None, /) -> bytes:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return _json({"address": address, "value": to_json(value), "revision": revision})

    def publish(self, message: Publish, /) -> bytes:
        """See ``core.ports.Codec``."""
        value = None if message.value is None else to_json(message.value)
        return _json({"address": message.address, "value": value})

    def ack(
        self,
        address: str | None = None,  # noqa: ARG002
        revision: int | None = None,
        locked: bool | None = None,  # noqa: ARG002
        holder: str | None = None,  # noqa: ARG002
        /,
    ) -> bytes:
        """See ``core.ports.Codec``."""
        return _json({"revision": revision})

    def encode(self, message: Message, /) -> bytes:
        """See ``core.ports.Codec``; all answers but ERRORs become an empty object: HTTP clients do not need them."""
        if isinstance(message, Error):
            return _json({"code": message.error, "error": message.message})
        return _json({})

    def snapshot(self, params: Iterable[ParamFields], /) -> Iterator[bytes]:
        """See ``core.ports.Codec``: a message for each param."""
        for param in params:
            yield _json(param_to_json(param))

    def result(self, definitions: Iterable[SignalDefinition], /) -> Iterator[bytes]:
        """See ``core.ports.Codec``."""
        for definition in definitions:
            yield _json({"address": definition.address})


CODEC = JsonCodec()
"""The codec that all HTTP sessions share."""


class EventStreamCodec(JsonCodec):
    """Implements ``core.ports.Codec`` for Server-Sent Events (HTML standard, section 9.2).

    Args:
        end_mark: the address of the end mark of a REPLAY, which becomes a ``live`` event.
        position: returns the time in history of what is encoded, which becomes the event's id
            (``Keeping.position_us``); None without history.
    """

    def __init__(self, end_mark: str = "", position: Callable[[], int] | None = None) -> None:
        self._end_mark = end_mark
        self._position = position

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None, /) -> bytes:
        """See ``core.ports.Codec``."""
        return event("set", super().set(address, value, revision, lock, unlock, ttl), self.position)

    def publish(self, message: Publish, /) -> bytes:
        """See ``core.ports.Codec``."""
        if message.address == self._end_mark and message.value is not None:
            return _live(decode_value(message.value))
        value = None if message.value is None else to_json(message.value)
        kind = message.signal.name.lower()
        return event("publish", _json({"address": message.address, "signal": kind, "value": value}), self.position)

    @property
    def position(self) -> int | None:
        """The id of an event that is encoded now; None without history."""
        return None if self._position is None else self._position()

    def encode(self, message: Message, /) -> bytes:
        """See ``core.ports.Codec``; all answers but ERRORs become a comment."""
        return event("problem", super().encode(message)) if isinstance(message, Error) else COMMENT

    def snapshot(self, params: Iterable[ParamFields], /) -> Iterator[bytes]:
        """See ``core.ports.Codec``: an event for each param, as for a change.

        The events have no id: changes during the snapshot follow it, and an id would tell that they were received.
        """
        for param in params:
            shown = {"address": param.address, "value": to_json(param.value), "revision": param.revision}
            yield event("set", _json(shown))


EVENT_STREAM = EventStreamCodec()
"""The one that all event streams share."""


def event(kind: str, data: bytes, position: int | None = None) -> bytes:
    """Returns one Server-Sent Event.

    Args:
        kind: its type.
        data: its data: JSON, which has no line breaks.
        position: its id; None for none.
    """
    made = b"event: %s\ndata: %s\n\n" % (kind.encode("ascii"), data)
    return made if position is None else b"id: %d\n%s" % (position, made)


def _live(mark: PyValue) -> bytes:
    """Returns the ``live`` event of a REPLAY's end mark; a comment for all of several marks but the last."""
    about = mark if isinstance(mark, dict) else {}
    return COMMENT if about.get("more") is True else event("live", _json({"complete": about.get("complete") is True}))


def _json(shown: dict[str, Any]) -> bytes:
    return json.dumps(shown, ensure_ascii=False).encode("utf-8")


def _shown(value: PyValue) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    return value


def _meant(parsed: Any) -> PyValue:
    if isinstance(parsed, list):
        return [_meant(item) for item in parsed]
    if not isinstance(parsed, dict):
        return parsed
    if parsed.keys() == {"$bytes"}:
        try:
            return base64.b64decode(parsed["$bytes"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise ValueError("$bytes is not base64") from None
    if parsed.keys() == {"$float"}:
        number = _FLOATS.get(parsed["$float"]) if isinstance(parsed["$float"], str) else None
        if number is None:
            raise ValueError("$float is none of nan, inf, -inf")
        return number
    return {key: _meant(item) for key, item in parsed.items()}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")
