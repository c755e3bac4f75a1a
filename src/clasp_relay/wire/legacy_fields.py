"""Reads the fields of a MessagePack map by name and type; errors name the field."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NoReturn, TypeVar

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.constants import ValueType
from clasp_relay.wire.values import check_keys, encode_value, has_suspect_key

_T = TypeVar("_T")


def join_doubles(numbers: list[float]) -> bytes:
    """Encodes numbers as big-endian doubles, 8 bytes each."""
    return struct.pack(f">{len(numbers)}d", *numbers)


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Fields:
    """The fields of one map. Every method raises DecodeError for a field of the wrong type.

    Names are given in snake_case and found in camelCase, too. nil means absent, except in ``value``.

    Args:
        document: the decoded MessagePack; refused unless it is a map with string keys.
    """

    __slots__ = ("_entries",)

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise DecodeError("a message or a part of one is not a map")
        if set(map(type, document)) - {str}:
            raise DecodeError("a key of a map is not a string")
        self._entries: dict[str, object] = document

    def __contains__(self, name: str) -> bool:
        return self.optional(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def optional(self, name: str) -> object:
        """Returns a field of any type; None if it is absent."""
        found = self._entries.get(name)
        return self._entries.get(_camel_case(name)) if found is None and "_" in name else found

    def _required(self, name: str) -> object:
        found = self.optional(name)
        if found is None:
            raise DecodeError(f"the field '{name[:40]}' is missing")
        return found

    def text(self, name: str) -> str:
        """Returns a required string."""
        found = self._required(name)
        return found if isinstance(found, str) else _refuse(name, "a string")

    def optional_text(self, name: str) -> str | None:
        """Returns a string, or None."""
        return self.text(name) if name in self else None

    def integer(self, name: str, bits: int = 32) -> int:
        """Returns a required unsigned integer of at most ``bits`` bits."""
        found = self._required(name)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << bits:
            return _refuse(name, f"an integer of {bits} bits without sign")
        return found

    def optional_integer(self, name: str, bits: int = 32) -> int | None:
        """Returns an unsigned integer of at most ``bits`` bits, or None."""
        return self.integer(name, bits) if name in self else None

    def boolean(self, name: str) -> bool:
        """Returns a boolean; False if it is absent."""
        found = self.optional(name)
        if found is None:
            return False
        return found if isinstance(found, bool) else _refuse(name, "true or false")

    def optional_double(self, name: str) -> float | None:
        """Returns a number, or None."""
        found = self.optional(name)
        return None if found is None else _double(name, found)

    def optional_doubles(self, name: str) -> list[float] | None:
        """Returns numbers, or None."""
        return [_double(name, item) for item in self._list(name)] if name in self else None

    def _list(self, name: str) -> list[object]:
        """Returns a list; an empty one if it is absent."""
        found = self.optional(name)
        if found is None:
            return []
        return found if isinstance(found, list) else _refuse(name, "a list")

    def texts(self, name: str) -> list[str]:
        """Returns a list of strings; an empty one if it is absent."""
        return [item if isinstance(item, str) else _refuse(name, "a list of strings") for item in self._list(name)]

    def maps(self, name: str, most: int) -> Iterator[Fields]:
        """Yields the maps of a list, each checked when it is reached; none if the list is absent: no list is required.

        Raises:
            RequestError: MESSAGE; there are more than ``most``.
        """
        found = self._list(name)
        if len(found) > most:
            text = f"the field '{name}' has {len(found)} entries, at most {most} are allowed"
            raise RequestError(ErrorCode.MESSAGE, text)
        return map(Fields, found)

    def optional_map(self, name: str) -> Fields | None:
        """Returns a map, or None."""
        return Fields(self.optional(name)) if name in self else None

    def choice(self, name: str, choices: Mapping[str, _T], default: _T | None = None) -> _T:
        """Returns the value that a name stands for; required unless there is a default."""
        if default is not None and name not in self:
            return default
        return _choose(name, self.text(name), choices)

    def choices(self, name: str, choices: Mapping[str, _T]) -> list[_T]:
        """Returns the values that names stand for; an empty list if the field is absent."""
        return [_choose(name, item, choices) for item in self.texts(name)]

    def value(self, name: str) -> bytes:
        """Returns a required field as an encoded value; nil is the value null."""
        if name not in self._entries:
            raise DecodeError(f"the field '{name}' is missing")
        return _value(name, self._entries[name], self.optional("address"))

    def optional_value(self, *names: str) -> bytes | None:
        """Returns the first of some fields that is present, as an encoded value; None if none is."""
        for name in names:
            if name in self:
                return _value(name, self.optional(name), self.optional("address"))
        return None

    def part(self, *names: str) -> bytes:
        """Returns those of some fields that are present, together as one encoded map."""
        found = {name: self.optional(name) for name in names if name in self}
        return _value(names[0], found, self.optional("address"))


def _value(name: str, found: object, address: object) -> bytes:
    try:
        value = encode_value(found)
    except ValueError as error:
        raise DecodeError(f"the field '{name}': {error}") from None
    if value[0] >= ValueType.ARRAY and has_suspect_key(value):
        check_keys(value, 1, value[0], address if isinstance(address, str) else None)
    return value


def _double(name: str, found: object) -> float:
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return _refuse(name, "made of numbers")
    return float(found)


def _choose(name: str, found: str, choices: Mapping[str, _T]) -> _T:
    try:
        return choices[found]
    except KeyError:
        raise DecodeError(f"the field '{name}' is none of {', '.join(choices)}") from None


def _refuse(name: str, wanted: str) -> NoReturn:
    raise DecodeError(f"the field '{name[:40]}' is not {wanted}")
