"""Decodes messages in MessagePack to the same objects as binary ones (``docs/protocol.md``, MessagePack).

The Python client sends BUNDLE and QUERY in MessagePack, Rust clients may send any message in it; the relay answers in
binary. Field names have two spellings (``max_rate`` in Rust, ``maxRate`` in JavaScript). nil means that an optional
field is absent. Fields that a message does not have are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

import msgpack

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.constants import (
    ALL_TYPES,
    FEDERATION_SYNC_REFUSED,
    MAX_BUNDLE_MEMBERS,
    MAX_DEFINITIONS,
    MAX_LEGACY_NODES,
    MAX_LEGACY_VALUE_NODES,
    MAX_SNAPSHOT_PARAMS,
    MEMBER_NODES,
    TTL_ABSOLUTE,
    Feature,
    Phase,
    Signal,
)
from clasp_relay.wire.legacy_fields import Fields, join_doubles

_FEATURES = {feature.name.lower(): feature for feature in Feature if feature.name}
_SIGNALS = {signal.name.lower(): signal for signal in Signal}
_PHASES = {phase.name.lower(): phase for phase in Phase}
_BUNDLED = ("SET", "PUBLISH")
_TOO_MANY_NODES = f"a MessagePack message has more than {MAX_LEGACY_NODES} keys, values and items"
_TOO_MANY_VALUES = (
    f"the values of a MessagePack message have more than {MAX_LEGACY_VALUE_NODES} keys, values and items; "
    "send them in several messages, or in the binary format"
)


def is_legacy(first_byte: int) -> bool:
    """Tells whether a payload that starts with this byte is a MessagePack map."""
    return 0x80 <= first_byte <= 0x8F or first_byte in (0xDE, 0xDF)


def decode_legacy(payload: bytes) -> m.Message:
    """Decodes one MessagePack payload.

    Args:
        payload: starts with the head of a map.

    Returns:
        The message, its values encoded as CLASP values.

    Raises:
        DecodeError: code 101; it is not exactly one valid message.
        RequestError: code 402, a map in a value has a key that ``values.check_keys`` refuses; code 101, it is
            FEDERATION_SYNC, a BUNDLE holds something else than SET and PUBLISH, or a count is above its limit.
            Nothing else is raised for any bytes.
    """
    try:
        # unpackb bounds every declared size by what the payload can hold. A node takes at least one byte.
        if len(payload) <= MAX_LEGACY_VALUE_NODES:
            document = msgpack.unpackb(payload, raw=False, strict_map_key=True, ext_hook=_refuse_extension)
        else:
            document = _unpack_counting(payload)
    except DecodeError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        # msgpack has no text for nesting beyond its stack, and names its own options for a container that is too long.
        if "exceeds max_" in str(error) and len(payload) > MAX_LEGACY_NODES:
            raise DecodeError(_TOO_MANY_NODES) from None
        raise DecodeError(f"not valid MessagePack: {str(error) or 'nested too deep'}") from None
    return _message(Fields(document), nested=False)


class _NodeCounter:
    """Counts the items of each container when it is complete, and ends the decoding beyond the limit."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_LEGACY_NODES - 1

    @property
    def nodes(self) -> int:
        return MAX_LEGACY_NODES - self._left

    def array(self, items: list[object]) -> list[object]:
        self._take(len(items))
        return items

    def pairs(self, entries: list[tuple[object, object]]) -> dict[object, object]:
        self._take(2 * len(entries))
        return dict(entries)

    def _take(self, nodes: int) -> None:
        self._left -= nodes
        if self._left < 0:
            raise DecodeError(_TOO_MANY_NODES)


def _unpack_counting(payload: bytes) -> object:
    """Decodes a payload that is long enough to exceed ``MAX_LEGACY_VALUE_NODES``."""
    counter = _NodeCounter()
    document: object = msgpack.unpackb(
        payload,
        raw=False,
        strict_map_key=True,
        ext_hook=_refuse_extension,
        list_hook=counter.array,
        object_pairs_hook=counter.pairs,
        max_array_len=MAX_LEGACY_NODES,
        max_map_len=MAX_LEGACY_NODES // 2,
    )
    members = document.get("messages") if isinstance(document, dict) else None
    own = MEMBER_NODES * len(members) if isinstance(members, list) else 0
    if counter.nodes > MAX_LEGACY_VALUE_NODES + own:
        raise DecodeError(_TOO_MANY_VALUES)
    return document


def _refuse_extension(code: int, _: bytes) -> NoReturn:
    raise DecodeError(f"MessagePack extension type {code} is not supported")


def _message(fields: Fields, *, nested: bool) -> m.Message:
    name = fields.text("type")
    if nested and name == "BUNDLE":
        raise DecodeError("a BUNDLE inside a BUNDLE is not supported")
    reader = _READERS.get(name)
    if reader is None:
        raise DecodeError(f"unknown message type {name[:40]!r}")
    if nested and name not in _BUNDLED:
        raise RequestError(ErrorCode.MESSAGE, f"a bundle may hold SET and PUBLISH, not {name}")
    return reader(fields)


def _mask(names: Iterable[Signal]) -> int:
    mask = 0
    for signal in names:
        mask |= 1 << signal
    return mask or ALL_TYPES


def _features(f: Fields) -> int:
    """Returns the features byte; unknown features are ignored."""
    mask = 0
    for name in f.texts("features"):
        mask |= _FEATURES.get(name, 0)
    return mask


def _hello(f: Fields) -> m.Hello:
    return m.Hello(f.integer("version", bits=8), _features(f), f.text("name"), f.optional_text("token") or "")


def _welcome(f: Fields) -> m.Welcome:
    return m.Welcome(
        f.integer("version", bits=8),
        _features(f),
        f.integer("time", bits=64),
        f.text("session"),
        f.text("name"),
        f.optional_text("token") or "",
    )


def _definition(f: Fields) -> m.SignalDefinition:
    meta = f.optional_map("meta") or Fields({})
    bounds = meta.optional_doubles("range")
    if bounds is not None and len(bounds) != 2:
        raise DecodeError("the field 'range' is not a pair of numbers")
    return m.SignalDefinition(
        f.text("address"),
        f.choice("type", _SIGNALS),
        f.optional_text("datatype"),
        f.optional_text("access"),
        unit=meta.optional_text("unit"),
        range=(bounds[0], bounds[1]) if bounds is not None else None,
        default=meta.optional_value("default"),
        description=meta.optional_text("description"),
    )


def _announce(f: Fields) -> m.Announce:
    return m.Announce(f.text("namespace"), tuple(map(_definition, f.maps("signals", MAX_DEFINITIONS))))


def _result(f: Fields) -> m.Result:
    return m.Result(tuple(map(_definition, f.maps("signals", MAX_DEFINITIONS))))


def _federation_sync(_: Fields) -> NoReturn:
    raise RequestError(ErrorCode.MESSAGE, FEDERATION_SYNC_REFUSED)


def _subscribe(f: Fields) -> m.Subscribe:
    options = f.optional_map("options") or Fields({})
    return m.Subscribe(
        f.integer("id"),
        f.text("pattern"),
        _mask(f.choices("types", _SIGNALS)),
        options.optional_integer("max_rate"),
        options.optional_double("epsilon"),
    )


def _publish(f: Fields) -> m.Publish:
    value = f.optional_value("value", "payload", "timeline")
    if value is None and "keyframes" in f:
        value = f.part("keyframes", "loop", "start_time", "duration")
    samples = f.optional_doubles("samples")
    return m.Publish(
        f.text("address"),
        f.choice("signal", _SIGNALS, default=Signal.EVENT),
        f.choice("phase", _PHASES, default=Phase.START),
        value,
        join_doubles(samples) if samples is not None and value is None else None,
        f.optional_integer("timestamp", bits=64),
        f.optional_integer("id"),
        f.optional_integer("rate"),
    )


def _ttl(f: Fields) -> int | None:
    """Reads Rust's ``"Never"``, ``{"Sliding": s}``, ``{"Absolute": s}``, or seconds with ``absolute`` beside them."""
    ttl = f.optional("ttl")
    if ttl is None:
        return None
    if ttl == "Never":
        return 0
    is_absolute = f.boolean("absolute")
    if isinstance(ttl, dict):
        modes = Fields(ttl)
        is_absolute = "Absolute" in modes
        seconds = modes.integer("Absolute" if is_absolute else "Sliding", bits=31)
    else:
        seconds = f.integer("ttl", bits=31)
    return seconds | TTL_ABSOLUTE if is_absolute else seconds


def _set(f: Fields) -> m.Set:
    return m.Set(
        f.text("address"),
        f.value("value"),
        f.optional_integer("revision", bits=64),
        f.boolean("lock"),
        f.boolean("unlock"),
        _ttl(f),
    )


def _param(f: Fields) -> m.SnapshotParam:
    return m.SnapshotParam(
        f.text("address"),
        f.value("value"),
        f.integer("revision", bits=64),
        f.optional_text("writer"),
        f.optional_integer("timestamp", bits=64),
    )


def _replay(f: Fields) -> m.Replay:
    return m.Replay(
        f.text("pattern"),
        f.optional_integer("from", bits=64),
        f.optional_integer("to", bits=64),
        f.optional_integer("limit"),
        _mask(f.choices("types", _SIGNALS)),
    )


def _bundle(f: Fields) -> m.Bundle:
    members = tuple(_message(member, nested=True) for member in f.maps("messages", MAX_BUNDLE_MEMBERS))
    return m.Bundle(members, f.optional_integer("timestamp", bits=64))


def _sync(f: Fields) -> m.Sync:
    return m.Sync(f.integer("t1", bits=64), f.optional_integer("t2", bits=64), f.optional_integer("t3", bits=64))


def _ack(f: Fields) -> m.Ack:
    return m.Ack(
        f.optional_text("address"),
        f.optional_integer("revision", bits=64),
        f.boolean("locked") if "locked" in f else None,
        f.optional_text("holder"),
        f.optional_integer("correlation_id"),
    )


def _error(f: Fields) -> m.Error:
    return m.Error(
        f.integer("code", bits=16),
        f.text("message"),
        f.optional_text("address"),
        f.optional_integer("correlation_id"),
    )


_READERS: dict[str, Callable[[Fields], m.Message]] = {
    "HELLO": _hello,
    "WELCOME": _welcome,
    "ANNOUNCE": _announce,
    "FEDERATION_SYNC": _federation_sync,
    "SUBSCRIBE": _subscribe,
    "UNSUBSCRIBE": lambda f: m.Unsubscribe(f.integer("id")),
    "PUBLISH": _publish,
    "SET": _set,
    "GET": lambda f: m.Get(f.text("address")),
    "SNAPSHOT": lambda f: m.Snapshot(tuple(map(_param, f.maps("params", MAX_SNAPSHOT_PARAMS)))),
    "REPLAY": _replay,
    "BUNDLE": _bundle,
    "SYNC": _sync,
    "PING": lambda _: m.Ping(),
    "PONG": lambda _: m.Pong(),
    "ACK": _ack,
    "ERROR": _error,
    "QUERY": lambda f: m.Query(f.text("pattern")),
    "RESULT": _result,
}
