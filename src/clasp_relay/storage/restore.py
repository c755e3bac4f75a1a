"""The state as a JSON document: reading, and finding out what is wrong with it.

Files of the Rust relay load too. That relay checked nothing that it stored, so what it holds and
this relay would refuse is left out with a warning; in a file of ours the same is damage.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from clasp_relay.core.records import Ended, Param, StateImage
from clasp_relay.errors import RequestError
from clasp_relay.storage.snapshot import VERSION
from clasp_relay.wire.address import check_address
from clasp_relay.wire.constants import MAX_DEPTH, MAX_PAYLOAD_BYTES, ValueType
from clasp_relay.wire.values import encode_value, skip_value

_MAX_U64 = 2**64 - 1
_MAX_REVISION = 2**63
"""Half of what the wire can say, so that what is written next has room to rise."""
_MAX_U32 = 2**32 - 1
_MIN_I64, _MAX_I64 = -(2**63), 2**63 - 1

_SNAPSHOT_OVERHEAD_BYTES = 24
"""What a SNAPSHOT with one param has besides its address, value and writer (``docs/protocol.md``, SNAPSHOT)."""

_SHOWN_CHARACTERS = 80
"""How much of an address a message shows."""


class Restored(NamedTuple):
    """What was in a document."""

    image: StateImage
    warnings: list[str]
    """One line for each param that was left out."""


class _UnusableError(ValueError):
    """The entry is well made, but this relay would never have accepted it."""


def decode(data: bytes) -> Restored:
    """Reads a document.

    Args:
        data: the whole file.

    Returns:
        The state, and what was left out of it.

    Raises:
        ValueError: it is no such document; the text, one line, says what is wrong and where.
    """
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    version = document.get("version")
    if version is not None:
        if type(version) is not int:
            raise ValueError("version is not an integer")
        if version != VERSION:
            raise ValueError(f"made by another relay, with version {version}; this one reads version {VERSION}")
    return _Reader(ours=version is not None).read(document)


class _Reader:
    """Collects the state from a document.

    Args:
        ours: this relay wrote it, so the optional keys mean what we mean by them.
    """

    def __init__(self, ours: bool) -> None:
        self._ours = ours
        self._known: set[str] = set()
        self._image = StateImage(params=[], ended=[], expires_us={})
        self._warnings: list[str] = []

    def read(self, document: dict[str, object]) -> Restored:
        if "params" not in document:
            raise ValueError('"params" is missing')
        for index, entry in enumerate(_items(document, "params")):
            self._read(self._param, f"param {index}", entry)
        if self._ours:
            for index, entry in enumerate(_items(document, "tombstones")):
                self._read(self._tombstone, f"tombstone {index}", entry)
        return Restored(self._image, self._warnings)

    def _read(self, how: Callable[[object], None], where: str, entry: object) -> None:
        try:
            how(entry)
        except ValueError as error:
            message = f"{where}{_name_of(entry)}: {error}"
            if self._ours or not isinstance(error, _UnusableError):
                raise ValueError(message) from error
            self._warnings.append(message)

    def _param(self, entry: object) -> None:
        if not isinstance(entry, dict):
            raise ValueError("not a JSON object")
        address = _text(entry, "address")
        revision = _integer(entry, "revision", 1, _MAX_REVISION)
        writer = _text(entry, "writer")
        timestamp_us = _integer(entry, "timestamp", 0, _MAX_U64)
        if "value" not in entry:
            raise ValueError('"value" is missing')
        self._claim(address)
        encoded = _encoded(entry) if self._ours and "encoded" in entry else None
        if encoded is None and entry["value"] is None:
            # The Rust relay keeps deleted params as nulls: only the revision is worth keeping.
            self._image.ended.append((address, Ended(revision, timestamp_us)))
            return
        value = _encode(entry["value"]) if encoded is None else encoded
        if _SNAPSHOT_OVERHEAD_BYTES + len(address.encode()) + len(value) + len(writer.encode()) > MAX_PAYLOAD_BYTES:
            raise _UnusableError("too big for a frame")
        ttl, subject, origin = None, "", ""
        if self._ours:
            ttl = _integer(entry, "ttl", 0, _MAX_U32) if "ttl" in entry else None
            subject = _text(entry, "subject") if "subject" in entry else ""
            origin = _text(entry, "origin") if "origin" in entry else ""
            if "expires" in entry:
                self._image.expires_us[address] = _integer(entry, "expires", 0, _MAX_U64)
        self._image.params.append(Param(address, value, revision, writer, timestamp_us, ttl, subject, origin))

    def _tombstone(self, entry: object) -> None:
        if not isinstance(entry, dict):
            raise ValueError("not a JSON object")
        address = _text(entry, "address")
        revision = _integer(entry, "revision", 1, _MAX_REVISION)
        when_us = _integer(entry, "timestamp", 0, _MAX_U64)
        subject = _text(entry, "subject") if "subject" in entry else ""
        stamp = _text(entry, "stamp") if "stamp" in entry else None
        self._claim(address)
        self._image.ended.append((address, Ended(revision, when_us, subject, stamp)))

    def _claim(self, address: str) -> None:
        """Checks an address and that it is the first of its name."""
        try:
            check_address(address)
        except RequestError as error:
            raise _UnusableError(error.message) from error
        if address in self._known:
            raise ValueError("the address is there twice")
        self._known.add(address)


def _encoded(entry: dict[str, object]) -> bytes:
    value = b64decode(_text(entry, "encoded"), validate=True)
    try:
        end = skip_value(value, 1, value[0]) if value else 0
    except RequestError as error:
        raise ValueError(f'"encoded" is no value: {error.message}') from error
    if not value or end != len(value) or value[0] == ValueType.NULL:
        raise ValueError('"encoded" is no value')
    return value


def _encode(content: object) -> bytes:
    try:
        return encode_value(_in_range(content, 0))
    except ValueError as error:
        raise _UnusableError(f"the value cannot be said in CLASP: {error}") from error


def _in_range(content: object, depth: int) -> object:
    """Makes floats of integers that no I64 holds, as the Rust relay does when it reads them."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if type(content) is int and not _MIN_I64 <= content <= _MAX_I64:
        try:
            return float(content)
        except OverflowError as error:
            raise ValueError("a number is too big") from error
    if isinstance(content, list):
        return [_in_range(item, depth + 1) for item in content]
    if isinstance(content, dict):
        return {key: _in_range(item, depth + 1) for key, item in content.items()}
    return content


def _items(document: dict[str, object], key: str) -> list[object]:
    items = document.get(key, [])
    if not isinstance(items, list):
        raise ValueError(f'"{key}" is not a list')
    return items


def _text(entry: dict[str, object], key: str) -> str:
    text = entry.get(key)
    if not isinstance(text, str):
        raise ValueError(f'"{key}" is {"not a string" if key in entry else "missing"}')
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f'"{key}" is not Unicode text')
    return text


def _integer(entry: dict[str, object], key: str, low: int, high: int) -> int:
    number = entry.get(key)
    if type(number) is not int:
        raise ValueError(f'"{key}" is {"not an integer" if key in entry else "missing"}')
    if not low <= number <= high:
        raise ValueError(f'"{key}" is not from {low} to {high}')
    return number


def _name_of(entry: object) -> str:
    """The address of an entry for a message: one line, and not too long."""
    address = entry.get("address") if isinstance(entry, dict) else None
    if not isinstance(address, str) or not address:
        return ""
    shown = json.dumps(address[:_SHOWN_CHARACTERS], ensure_ascii=False)[1:-1]
    return f" ({shown.encode('utf-8', 'backslashreplace').decode()})"


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
