"""Reads the state from its JSON document, and reports what is wrong with it.

Files of the Rust relay load, too. Entries that this relay would refuse are left out: the Rust relay does not check what
it stores, and limits may have been added since the file was written. Any other fault is damage, and then nothing is
read.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from clasp_relay.core.records import Change, ChangeKind, Ended, Param, StateImage, decode_change
from clasp_relay.errors import DecodeError, RequestError
from clasp_relay.storage.json_stream import JsonObject
from clasp_relay.storage.state_writing import VERSION
from clasp_relay.wire.address import check_address
from clasp_relay.wire.constants import MAX_DEPTH, MAX_PAYLOAD_BYTES, ValueType
from clasp_relay.wire.messages import Value
from clasp_relay.wire.values import check_keys, encode_value, has_suspect_key, skip_value

_MAX_U64 = 2**64 - 1
_MAX_REVISION = 2**63
"""Half of the largest revision of the protocol, so that later writes can count on."""
_MAX_SEQ = 2**62
"""Half of SQLite's largest integer."""
_MAX_U32 = 2**32 - 1
_MIN_I64, _MAX_I64 = -(2**63), 2**63 - 1

_SNAPSHOT_OVERHEAD_BYTES = 24
"""What a SNAPSHOT with one param has besides its address, value and writer (``docs/protocol.md``, SNAPSHOT)."""

_SHOWN_CHARACTERS = 80
"""How many characters of an address a message shows."""

_CONTAINERS = frozenset({ValueType.ARRAY, ValueType.MAP})


class Restored(NamedTuple):
    """The contents of a document."""

    image: StateImage
    left_out: str
    """The entries that were left out, in one line; empty if there were none."""
    postdated: str
    """The deletions that were in the future, in one line; empty if there were none."""


class _UnusableError(ValueError):
    """The entry is well-formed, but this relay would not accept it."""


class _LateVersionError(Exception):
    """``version`` follows entries, which were read as those of a file without it."""


def read_state(file: BinaryIO, now_us: int = _MAX_U64) -> Restored:
    """Reads a document, without having all of its text in memory at once.

    Args:
        file: the document, from its beginning; must be seekable.
        now_us: Unix µs. A deletion in the future (the machine's clock was wrong when it was written) counts as of now:
            otherwise a policy's grace for those who were present a moment ago would last until then. Nothing else is
            changed here: a clock that is wrong now must not end params with a life time (for short ones see
            ``Params.load``).

    Returns:
        The state, and what was left out of it.

    Raises:
        ValueError: it is no valid document; the text, one line, says what is wrong and where.
    """
    try:
        return _Reader(False, now_us).read(file)
    except _LateVersionError:
        file.seek(0)
        return _Reader(True, now_us).read(file)


class LeftOut:
    """Counts things of one kind and remembers the first."""

    def __init__(self) -> None:
        self.count = 0
        self._first = ""

    def add(self, name: str) -> None:
        """Counts one more."""
        self._first = self._first or name
        self.count += 1

    def line(self, text: str) -> str:
        """Returns a line with the count, the text and the first; an empty one if nothing was counted."""
        return f"{self.count} {text}; the first: {self._first}" if self.count else ""


class _Reader:
    """Collects the state from a document.

    Args:
        ours: whether this relay wrote it, so that the optional keys have their meaning.
        now_us: Unix µs.
    """

    def __init__(self, ours: bool, now_us: int) -> None:
        self._ours = ours
        self._now_us = now_us
        self._known: set[str] = set()
        self._names: dict[str, str] = {}
        """Interned writers and subjects: the state has few of them, and many params."""
        self._ended: list[tuple[str, Ended]] = []
        self._image = StateImage(params=[], ended=self._ended, expires_us={})
        self._left_out = LeftOut()
        self._postdated = LeftOut()

    def read(self, file: BinaryIO) -> Restored:
        document = JsonObject(file, listed=("params", "tombstones", "scheduled"))
        params = tombstones = journal_seq = 0
        scheduled: list[Change] = []
        for key, item in document.items():
            if key == "params":
                self._read(self._param, "param", params, item)
                params += 1
            elif key == "tombstones" and self._ours:
                self._read(self._tombstone, "tombstone", tombstones, item)
                tombstones += 1
            elif key == "journal_seq" and self._ours:
                journal_seq = _integer({key: item}, key, 0, _MAX_SEQ)
            elif key == "scheduled" and self._ours:
                scheduled.append(_scheduled(len(scheduled), item))
            elif key == "version" and item is not None:
                _check_version(item)
                if not self._ours and document.keys & {"params", "tombstones", "journal_seq", "scheduled"}:
                    raise _LateVersionError
                self._ours = True
        if "params" not in document.keys:
            raise ValueError('"params" is missing')
        return Restored(
            self._image._replace(journal_seq=journal_seq, scheduled=tuple(scheduled)),
            self._left_out.line("entries that this relay would refuse"),
            self._postdated.line("deletions that lie in the future and now count as deletions of this moment"),
        )

    def _read(self, how: Callable[[object], None], kind: str, index: int, entry: object) -> None:
        try:
            how(entry)
        except ValueError as error:
            message = f"{kind} {index}{_name_of(entry)}: {error}"
            if not isinstance(error, _UnusableError):
                raise ValueError(message) from error
            self._left_out.add(message)

    def _param(self, entry: object) -> None:
        if not isinstance(entry, dict):
            raise ValueError("not a JSON object")
        address = _text(entry, "address")
        revision = _integer(entry, "revision", 1, _MAX_REVISION)
        writer = self._name(entry, "writer")
        timestamp_us = _integer(entry, "timestamp", 0, _MAX_U64)
        if "value" not in entry:
            raise ValueError('"value" is missing')
        self._claim(address)
        encoded = _encoded(entry) if self._ours and "encoded" in entry else None
        if encoded is None and entry["value"] is None:
            # The Rust relay keeps deleted params as nulls, of which only the revision is needed.
            self._end(address, Ended(revision, timestamp_us))
            return
        value = value_of_json(entry["value"]) if encoded is None else encoded
        check_fits(address, value, writer)
        ttl, subject, origin, sent_as = None, "", "", b""
        if self._ours:
            ttl = _integer(entry, "ttl", 0, _MAX_U32) if "ttl" in entry else None
            subject = self._name(entry, "subject") if "subject" in entry else ""
            origin = self._name(entry, "origin") if "origin" in entry else ""
            sent_as = b64decode(_text(entry, "sent"), validate=True) if "sent" in entry else b""
            if "expires" in entry:
                self._image.expires_us[address] = _integer(entry, "expires", 0, _MAX_U64)
        self._image.params.append(Param(address, value, revision, writer, timestamp_us, ttl, subject, origin, sent_as))

    def _tombstone(self, entry: object) -> None:
        if not isinstance(entry, dict):
            raise ValueError("not a JSON object")
        address = _text(entry, "address")
        revision = _integer(entry, "revision", 1, _MAX_REVISION)
        when_us = _integer(entry, "timestamp", 0, _MAX_U64)
        subject = self._name(entry, "subject") if "subject" in entry else ""
        stamp = self._name(entry, "stamp") if "stamp" in entry else None
        self._claim(address)
        self._end(address, Ended(revision, when_us, subject, stamp))

    def _end(self, address: str, ended: Ended) -> None:
        if ended.when_us > self._now_us:
            self._postdated.add(_shown(address))
            ended = ended._replace(when_us=self._now_us)
        self._ended.append((address, ended))

    def _name(self, entry: dict[str, object], key: str) -> str:
        name = _text(entry, key)
        return self._names.setdefault(name, name)

    def _claim(self, address: str) -> None:
        """Checks that an address is valid, and that no earlier entry has it."""
        try:
            check_address(address)
        except RequestError as error:
            raise _UnusableError(error.message) from error
        if address in self._known:
            raise ValueError("the address is there twice")
        self._known.add(address)


def _scheduled(index: int, item: object) -> Change:
    """Returns a scheduled bundle."""
    try:
        change = decode_change(b64decode(item, validate=True)) if isinstance(item, str) else None
    except (ValueError, DecodeError) as error:
        raise ValueError(f"scheduled {index}: {error}") from error
    if change is None or change.kind is not ChangeKind.SCHEDULED:
        raise ValueError(f"scheduled {index}: not a scheduled bundle")
    return change


def _encoded(entry: dict[str, object]) -> bytes:
    value = b64decode(_text(entry, "encoded"), validate=True)
    if not value or value[0] == ValueType.NULL:
        raise ValueError('"encoded" is no value')
    try:
        end = _check_value(value)
    except DecodeError as error:
        raise ValueError(f'"encoded" is no value: {error.message}') from error
    if end != len(value):
        raise ValueError('"encoded" is no value')
    return value


def check_fits(address: str, value: Value, writer: str) -> None:
    """Checks that a param fits into a frame.

    Raises:
        ValueError: it does not.
    """
    if _SNAPSHOT_OVERHEAD_BYTES + len(address.encode()) + len(value) + len(writer.encode()) > MAX_PAYLOAD_BYTES:
        raise _UnusableError("too big for a frame")


def value_of_json(content: object) -> Value:
    """Returns the value of parsed JSON of the Rust relay.

    Raises:
        ValueError: no message may have such a value.
    """
    try:
        value = encode_value(_in_range(content, 0))
    except ValueError as error:
        raise _UnusableError(f"the value cannot be said in CLASP: {error}") from error
    if value[0] in _CONTAINERS:
        _check_value(value)
    return value


def _check_value(value: bytes) -> int:
    """Returns the position of a value's end.

    Raises:
        DecodeError: it is no value.
        _UnusableError: no message may have it, because of a key of a map in it.
    """
    end = skip_value(value, 1, value[0])
    if has_suspect_key(value):
        try:
            check_keys(value, 1, value[0])
        except RequestError as error:
            raise _UnusableError(error.message) from error
    return end


def _in_range(content: object, depth: int) -> object:
    """Converts integers that do not fit into an I64 to floats, as the Rust relay does."""
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


def _check_version(version: object) -> None:
    if type(version) is not int:
        raise ValueError("version is not an integer")
    if version != VERSION:
        raise ValueError(f"made by another relay, with version {version}; this one reads version {VERSION}")


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
    """Returns the address of an entry for a message: one line, and not too long."""
    address = entry.get("address") if isinstance(entry, dict) else None
    return f" ({_shown(address)})" if isinstance(address, str) and address else ""


def _shown(address: str) -> str:
    shown = json.dumps(address[:_SHOWN_CHARACTERS], ensure_ascii=False)[1:-1]
    return shown.encode("utf-8", "backslashreplace").decode()
