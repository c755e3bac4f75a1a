"""Reads and changes encoded maps without decoding them; unchanged entries keep their bytes.

A value is its type byte and data (``docs/protocol.md``, Values). Of equal keys of a map the last counts,
as it does for every client.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from clasp_relay.wire.constants import ValueType
from clasp_relay.wire.messages import NULL, Value
from clasp_relay.wire.values import FIXED_SIZES, RUN_ITEMS, PyValue, decode_value, skip_run, skip_value

_SMALL_BYTES = 4096
"""The parsed fields of 256 maps up to this size are cached: what decisions read, such as a room's settings, is small.
Of larger maps 8 are cached (20 MB at most), so that a large one is not parsed again for every reader."""

_U16 = struct.Struct(">H")
_HEAD = struct.Struct(">BH")
_NUMBERS = frozenset(range(ValueType.I8, ValueType.F64 + 1))
_MARK = "\ufeff".encode()
_NO_FIELDS: Mapping[bytes, Value] = {}


def is_map(value: Value) -> bool:
    """Tells whether a value is a map."""
    return value[0] == ValueType.MAP


def fields_of(value: Value) -> Mapping[bytes, Value]:
    """Returns the fields of a map by key (UTF-8); empty when the value is no map. Do not change it."""
    if value[0] != ValueType.MAP:
        return _NO_FIELDS
    return _small_maps(value) if len(value) <= _SMALL_BYTES else _big_maps(value)


def _take_apart(value: Value) -> dict[bytes, Value]:
    return {key: value[start:end] for key, start, end in _entries(value)}


_small_maps = lru_cache(256)(_take_apart)
_big_maps = lru_cache(8)(_take_apart)


def _entries(value: Value) -> Iterable[tuple[bytes, int, int]]:
    """Yields key, start (of the type byte) and end of each entry of a map."""
    (count,) = _U16.unpack_from(value, 1)
    offset = 3
    for _ in range(count):
        key_end = offset + 2 + (value[offset] << 8 | value[offset + 1])
        value_type = value[key_end]
        size = FIXED_SIZES[value_type]
        end = key_end + 1 + size if size >= 0 else skip_value(value, key_end + 1, value_type)
        yield value[offset + 2 : key_end], key_end, end
        offset = end


def get_field(value: Value, key: bytes) -> Value | None:
    """Returns a field of a map, without a byte order mark; None when it is missing or null, or the value is no map."""
    found = fields_of(value).get(key)
    return None if found is None or found == NULL else without_mark(found)


def find_field(value: Value, key: bytes) -> Value | None:
    """Returns the same as ``get_field``, for a value that is read once: its fields are not cached."""
    if value[0] != ValueType.MAP:
        return None
    if len(value) > _SMALL_BYTES:
        return get_field(value, key)
    name = _U16.pack(len(key)) + key
    # The last entry with this key starts at or before the last place where its bytes are.
    last = value.rfind(name)
    found = None
    offset = 3
    while offset <= last:
        start = offset + 2 + (value[offset] << 8 | value[offset + 1])
        value_type = value[start]
        if value_type == ValueType.STRING:
            end = start + 3 + (value[start + 1] << 8 | value[start + 2])
        else:
            end = skip_value(value, start + 1, value_type)
        if value.startswith(name, offset):
            found = value[start:end]
        offset = end
    return None if found is None or found == NULL else without_mark(found)


def without_mark(value: Value) -> Value:
    """Returns a string without the U+FEFF that it begins with, any other value as it is.

    JavaScript's ``TextDecoder`` drops that character, so texts are compared as such clients read them.
    """
    if value[3:6] != _MARK or value[0] != ValueType.STRING:
        return value
    return encode_text(value[6:])


def repeated_key(value: Value, keys: Iterable[bytes]) -> bytes | None:
    """Returns the first of some keys (UTF-8) that a map has more than once; None when there is none, or no map."""
    if value[0] != ValueType.MAP:
        return None
    for key in keys:
        if sum(found == key for found, _, _ in _entries(value)) > 1:
            return key
    return None


@lru_cache(maxsize=1024)
def entry_heads(keys: frozenset[bytes]) -> tuple[bytes, ...]:
    """Returns how an entry of a map begins for each of some keys (UTF-8); one object for equal sets."""
    return tuple(_U16.pack(len(key)) + key for key in sorted(keys))


def may_repeat(value: Value, heads: Sequence[bytes]) -> bool:
    """Tells whether ``repeated_key`` may find one of the keys with these ``entry_heads``; False is certain.

    Nearly always the bytes of each occur at most once, and one search tells.
    """
    for head in heads:  # noqa: SIM110 - a generator takes longer than the search
        if value.count(head) > 1:
            return True
    return False


def holds(value: Value | None, word: bytes) -> bool:
    """Tells whether a string (UTF-8) is a key of a map or an item of a list."""
    if value is None:
        return False
    if value[0] == ValueType.MAP:
        return word in fields_of(value)
    return word in value and any(without_mark(text) == encode_text(word) for text in _texts(value))


def _texts(value: Value) -> Iterator[Value]:
    """Yields the strings of a list, encoded; nothing of any other value."""
    if value[0] != ValueType.ARRAY:
        return
    (count,) = _U16.unpack_from(value, 1)
    offset = 3
    while count:
        offset, count = skip_run(value, offset, count)
        some = min(count, RUN_ITEMS)
        count -= some
        for _ in range(some):
            value_type = value[offset]
            size = FIXED_SIZES[value_type]
            end = offset + 1 + size if size >= 0 else skip_value(value, offset + 1, value_type)
            if value_type == ValueType.STRING:
                yield value[offset:end]
            offset = end


def names_in(value: Value | None) -> set[str]:
    """Returns the keys of a map, or the strings of a list; nothing of any other value."""
    if value is None:
        return set()
    if value[0] == ValueType.MAP:
        return {key.decode() for key in fields_of(value)}
    return {without_mark(text)[3:].decode() for text in _texts(value)}


def encode_text(word: bytes) -> Value:
    """Encodes a string given as UTF-8."""
    return _HEAD.pack(ValueType.STRING, len(word)) + word


def text_of(value: Value | None) -> str | None:
    """Returns a string value's text; None when it is something else."""
    return value[3:].decode() if value is not None and value[0] == ValueType.STRING else None


def same(one: Value, other: Value) -> bool:
    """Tells whether two values are equal; numbers are compared by value, whatever their type.

    Maps and lists of more than ``_SMALL_BYTES`` are equal only where they are the same bytes: to decode two large ones
    takes 20 ms.
    """
    if one == other:
        return True
    if one[0] in _NUMBERS:
        return other[0] in _NUMBERS and bool(decode_value(one) == decode_value(other))
    if one[0] != other[0] or one[0] not in (ValueType.MAP, ValueType.ARRAY):
        return False
    if max(len(one), len(other)) > _SMALL_BYTES:
        return False
    return _same(decode_value(one), decode_value(other))


def _same(one: PyValue, other: PyValue) -> bool:
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_same(item, other[key]) for key, item in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return one.removeprefix("\ufeff") == other.removeprefix("\ufeff")
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def redact(value: Value, fields: Iterable[str]) -> Value:
    """Removes keys of a map.

    Args:
        value: any valid value; only maps are changed.
        fields: the keys to remove, every occurrence of them.

    Returns:
        the value without them, all other bytes as they were; the same object when nothing was removed.
    """
    if value[0] != ValueType.MAP:
        return value
    hidden = {field.encode() for field in fields}
    parts: list[bytes] = []
    kept = 0
    start = keep_from = 3
    for key, _, end in _entries(value):
        if key in hidden:
            parts.append(value[keep_from:start])
            keep_from = end
        else:
            kept += 1
        start = end
    if not parts:
        return value
    return b"".join((_HEAD.pack(ValueType.MAP, kept), *parts, value[keep_from:]))


def add_field(value: Value, key: bytes, field: Value) -> Value:
    """Adds a field to a map that does not have it, or has it as null.

    Args:
        value: a map.
        key: the key, UTF-8.
        field: the encoded value.
    """
    name = _U16.pack(len(key)) + key
    if value.find(name) >= 0:
        return with_fields(value, {key: field})
    (count,) = _U16.unpack_from(value, 1)
    return b"".join((_HEAD.pack(ValueType.MAP, count + 1), value[3:], name, field))


def with_fields(value: Value, fields: Mapping[bytes, Value]) -> Value:
    """Sets fields of a map; each replaces the field with an equal key, or is appended.

    Args:
        value: a map.
        fields: encoded values by their key's UTF-8.
    """
    if all(fields_of(value).get(key) == field for key, field in fields.items()):
        return value
    parts: list[bytes] = []
    left = dict(fields)
    count = 0
    for key, start, end in _entries(value):
        if key in fields:
            if key not in left:
                continue
            parts += (_U16.pack(len(key)), key, left.pop(key))
        else:
            parts += (_U16.pack(len(key)), key, value[start:end])
        count += 1
    for key, field in left.items():
        parts += (_U16.pack(len(key)), key, field)
    return b"".join((_HEAD.pack(ValueType.MAP, count + len(left)), *parts))
