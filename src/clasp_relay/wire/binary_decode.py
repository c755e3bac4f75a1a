"""Decodes the binary forms of all messages but SET and PUBLISH (``docs/protocol.md``, Messages)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.binary_hot import decode_publish, decode_set
from clasp_relay.wire.constants import (
    ALL_TYPES,
    FEDERATION_SYNC_REFUSED,
    MAX_BUNDLE_MEMBERS,
    MAX_DEFINITIONS,
    MAX_SNAPSHOT_PARAMS,
    MAX_VALUE_PARTS,
    MessageCode,
    Signal,
    ValueType,
)
from clasp_relay.wire.values import check_keys, check_parts, has_suspect_key, most_parts, skip_value

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_F64 = struct.Struct(">d")


class _Cursor:
    """Reads a payload from its second byte on.

    Reading beyond the end raises ``struct.error``, IndexError or DecodeError; ``decode_binary`` handles all three.
    """

    __slots__ = ("_at", "_data", "_is_suspect", "_parts_left")

    def __init__(self, payload: bytes) -> None:
        self._data = payload
        self._at = 1
        self._is_suspect: bool | None = None
        self._parts_left: int | None = None

    def _number(self, form: struct.Struct) -> Any:
        (number,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return number

    def u8(self) -> int:
        number = self._data[self._at]
        self._at += 1
        return number

    def u16(self) -> int:
        return int(self._number(_U16))

    def u32(self) -> int:
        return int(self._number(_U32))

    def u64(self) -> int:
        return int(self._number(_U64))

    def f64(self) -> float:
        return float(self._number(_F64))

    def raw(self) -> bytes:
        """Reads a length and as many bytes."""
        size = self.u16()
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise DecodeError("a length is more than the bytes that are left")
        return self._data[start : self._at]

    def text(self) -> str:
        return self.raw().decode()

    def value(self, address: str) -> m.Value:
        """Reads a value; an ERROR about it names ``address``."""
        start, value_type = self._at, self._data[self._at]
        self._at = skip_value(self._data, start + 1, value_type)
        if value_type >= ValueType.ARRAY:
            # The payload is searched once, since there may be thousands of values.
            if self._is_suspect is None:
                self._is_suspect = has_suspect_key(self._data)
            if self._is_suspect:
                check_keys(self._data, start + 1, value_type, address)
        return self._data[start : self._at]

    def count_parts(self, value: m.Value) -> None:
        """Counts the parts of one value, and refuses a message whose values have too many together."""
        if self._parts_left is None:
            may_be_many = len(self._data) > 2 * MAX_VALUE_PARTS and most_parts(self._data) > MAX_VALUE_PARTS
            self._parts_left = MAX_VALUE_PARTS if may_be_many else -1
        if self._parts_left >= 0:
            self._parts_left -= check_parts(value, 1, value[0], self._parts_left)

    def flags(self, known: int) -> int:
        """Reads flags. An unknown flag may announce a field, so that the rest cannot be decoded."""
        flags = self.u8()
        if flags & ~known:
            raise DecodeError(f"unknown flags 0x{flags & ~known:02X}")
        return flags

    def boolean(self) -> bool:
        flag = self.u8()
        if flag > 1:
            raise DecodeError("a BOOL is neither 0 nor 1")
        return flag == 1

    def signal(self) -> Signal:
        code = self.u8()
        if code > Signal.TIMELINE:
            raise DecodeError(f"unknown signal {code}")
        return Signal(code)

    def count(self, item_bytes: int, most: int) -> int:
        """Reads a count of items: at most ``most``, and no more than the rest can hold at ``item_bytes`` each."""
        count = self.u16()
        if count * item_bytes > len(self._data) - self._at:
            raise DecodeError("a count is more than the bytes that are left can hold")
        if count > most:
            raise RequestError(ErrorCode.MESSAGE, f"the message has {count} entries, at most {most} are allowed")
        return count

    def end(self) -> None:
        if self._at != len(self._data):
            raise DecodeError(f"{len(self._data) - self._at} bytes follow the message")


def _hello(c: _Cursor) -> m.Hello:
    return m.Hello(version=c.u8(), features=c.u8(), name=c.text(), token=c.text())


def _welcome(c: _Cursor) -> m.Welcome:
    return m.Welcome(version=c.u8(), features=c.u8(), time_us=c.u64(), session=c.text(), name=c.text(), token=c.text())


def _announce(c: _Cursor) -> m.Announce:
    namespace = c.text()
    return m.Announce(namespace, tuple(_announced(c) for _ in range(c.count(4, MAX_DEFINITIONS))))


def _announced(c: _Cursor) -> m.SignalDefinition:
    definition = _definition(c, 7)
    if definition.default is not None:
        c.count_parts(definition.default)
    return definition


def _definition(c: _Cursor, known: int) -> m.SignalDefinition:
    address, signal, flags = c.text(), c.signal(), c.flags(known)
    datatype = c.text() if flags & 1 else None
    access = c.text() if flags & 2 else None
    meta = c.flags(15) if flags & 4 else 0
    return m.SignalDefinition(
        address,
        signal,
        datatype,
        access,
        unit=c.text() if meta & 1 else None,
        range=(c.f64(), c.f64()) if meta & 2 else None,
        default=c.value(address) if meta & 4 else None,
        description=c.text() if meta & 8 else None,
    )


def _federation_sync(_: _Cursor) -> NoReturn:
    raise RequestError(ErrorCode.MESSAGE, FEDERATION_SYNC_REFUSED)


def _types(c: _Cursor) -> int:
    """Reads a type mask. 0 means all: the Python client writes it if it knows none of the types asked for."""
    return c.u8() or ALL_TYPES


def _subscribe(c: _Cursor) -> m.Subscribe:
    identity, pattern, types, flags = c.u32(), c.text(), _types(c), c.flags(15)
    max_rate = c.u32() if flags & 1 else None
    epsilon = c.f64() if flags & 2 else None
    # History and window, which the Python client sends, are read and ignored: REPLAY is used for the past.
    for flag in (4, 8):
        if flags & flag:
            c.u32()
    return m.Subscribe(identity, pattern, types, max_rate, epsilon)


def _snapshot(c: _Cursor) -> m.Snapshot:
    return m.Snapshot(tuple(_param(c) for _ in range(c.count(12, MAX_SNAPSHOT_PARAMS))))


def _param(c: _Cursor) -> m.SnapshotParam:
    address = c.text()
    value, revision, flags = c.value(address), c.u64(), c.flags(3)
    return m.SnapshotParam(
        address,
        value,
        revision,
        writer=c.text() if flags & 1 else None,
        timestamp_us=c.u64() if flags & 2 else None,
    )


def _replay(c: _Cursor) -> m.Replay:
    flags = c.flags(0xE0)
    return m.Replay(
        c.text(),
        from_us=c.u64() if flags & 0x80 else None,
        to_us=c.u64() if flags & 0x40 else None,
        limit=c.u32() if flags & 0x20 else None,
        types=_types(c),
    )


def _bundle(c: _Cursor) -> m.Bundle:
    flags = c.flags(0x80)
    # The count stands before the timestamp; a member takes its length and its message code.
    count = c.count(3, MAX_BUNDLE_MEMBERS)
    timestamp_us = c.u64() if flags else None
    return m.Bundle(tuple(_member(c) for _ in range(count)), timestamp_us)


def _member(c: _Cursor) -> m.Message:
    """Decodes a member of a BUNDLE: a SET or a PUBLISH, always binary."""
    payload = c.raw()
    code = payload[0] if payload else None
    if code in (MessageCode.SET, MessageCode.PUBLISH):
        member = decode_set(payload) if code == MessageCode.SET else decode_publish(payload)
        if member.value is not None:
            c.count_parts(member.value)
        return member
    if code == MessageCode.BUNDLE:
        raise DecodeError("a BUNDLE inside a BUNDLE is not supported")
    if code in DECODERS:
        name = MessageCode(code).name
        raise RequestError(ErrorCode.MESSAGE, f"a bundle may hold SET and PUBLISH, not {name}")
    raise DecodeError("a member of a BUNDLE is not a message" if code is None else f"unknown message type 0x{code:02X}")


def _sync(c: _Cursor) -> m.Sync:
    flags = c.flags(3)
    return m.Sync(c.u64(), c.u64() if flags & 1 else None, c.u64() if flags & 2 else None)


def _ack(c: _Cursor) -> m.Ack:
    flags = c.flags(31)
    return m.Ack(
        address=c.text() if flags & 1 else None,
        revision=c.u64() if flags & 2 else None,
        locked=c.boolean() if flags & 4 else None,
        holder=c.text() if flags & 8 else None,
        correlation_id=c.u32() if flags & 16 else None,
    )


def _error(c: _Cursor) -> m.Error:
    error, message, flags = c.u16(), c.text(), c.flags(3)
    return m.Error(
        error,
        message,
        address=c.text() if flags & 1 else None,
        correlation_id=c.u32() if flags & 2 else None,
    )


def _result(c: _Cursor) -> m.Result:
    return m.Result(tuple(_definition(c, 3) for _ in range(c.count(4, MAX_DEFINITIONS))))


_READERS: dict[MessageCode, Callable[[_Cursor], m.Message]] = {
    MessageCode.HELLO: _hello,
    MessageCode.WELCOME: _welcome,
    MessageCode.ANNOUNCE: _announce,
    MessageCode.FEDERATION_SYNC: _federation_sync,
    MessageCode.SUBSCRIBE: _subscribe,
    MessageCode.UNSUBSCRIBE: lambda c: m.Unsubscribe(c.u32()),
    MessageCode.GET: lambda c: m.Get(c.text()),
    MessageCode.SNAPSHOT: _snapshot,
    MessageCode.REPLAY: _replay,
    MessageCode.BUNDLE: _bundle,
    MessageCode.SYNC: _sync,
    MessageCode.PING: lambda _: m.Ping(),
    MessageCode.PONG: lambda _: m.Pong(),
    MessageCode.ACK: _ack,
    MessageCode.ERROR: _error,
    MessageCode.QUERY: lambda c: m.Query(c.text()),
    MessageCode.RESULT: _result,
}


def _decoder(read: Callable[[_Cursor], m.Message]) -> Callable[[bytes], m.Message]:
    def decode_rare(payload: bytes) -> m.Message:
        cursor = _Cursor(payload)
        message = read(cursor)
        cursor.end()
        return message

    return decode_rare


DECODERS: dict[int, Callable[[bytes], m.Message]] = {
    MessageCode.SET: decode_set,
    MessageCode.PUBLISH: decode_publish,
    **{code: _decoder(read) for code, read in _READERS.items()},
}
"""The decoder of a payload, by its first byte."""


def decode_binary(payload: bytes) -> m.Message:
    """Decodes one binary payload.

    Args:
        payload: starts with its message code.

    Returns:
        The message, its values checked.

    Raises:
        DecodeError: code 101; it is not exactly one valid message.
        RequestError: code 402, a map in a value has a key that ``values.check_keys`` refuses; code 101, it is
            FEDERATION_SYNC, a BUNDLE holds something else than SET and PUBLISH, or a count is above its limit.
            Nothing else is raised for any bytes.
    """
    try:
        decoder = DECODERS[payload[0]]
    except KeyError:
        raise DecodeError(f"unknown message type 0x{payload[0]:02X}") from None
    except IndexError:
        raise DecodeError("the message is empty") from None
    try:
        return decoder(payload)
    except (struct.error, IndexError):
        raise DecodeError("the message ends too early") from None
    except UnicodeDecodeError:
        raise DecodeError("a string is not valid UTF-8") from None
