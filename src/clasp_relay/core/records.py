"""The records of the state and of its changes: ``Param``, ``Ended``, ``Change``, and the encoding of changes.

A :class:`Param` is what is set at an address. A :class:`Change` is one alteration of any kind: the state, the log and
other relays all take this record, and the state can be rebuilt from a log of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, overload

from clasp_relay.errors import DecodeError, RequestError
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.messages import NULL, Bundle, Publish, Value
from clasp_relay.wire.tuples import new_tuple
from clasp_relay.wire.values import skip_value


class Param(NamedTuple):
    """The result of an accepted SET at its address. A ``value`` of null means that nothing is set there."""

    address: str
    value: Value
    revision: int
    writer: str
    """The id of the session that wrote it; empty for the relay itself."""
    timestamp_us: int
    ttl: int | None = None
    """As on the wire: 0 never, bit 31 from the write, else sliding, in seconds; None the server's default."""
    subject: str = ""
    """The subject of the token that wrote it; empty in open mode."""
    origin: str = ""
    """The client address of its writer, an IPv6 address as its /64; empty where addresses are not counted."""
    sent_as: bytes = b""
    """The bytes that a client of another protocol sent for it; empty if the value encodes to the same bytes."""


class Ended(NamedTuple):
    """The tombstone of an address: how its last param was deleted or expired."""

    revision: int
    when_us: int
    subject: str = ""
    """The subject of the token that deleted it; empty if it expired, and in open mode."""
    stamp: str | None = None
    """The subject that a policy's stamp names past the null; such a record is never forgotten."""


class EndedSequence(Sequence[tuple[str, Ended]]):
    """Addresses and their tombstones. A pair is made when it is read: a hundred thousand at once would take 20 ms.

    Args:
        addresses: the addresses.
        records: the tombstone of each.
    """

    __slots__ = ("_addresses", "_records")

    def __init__(self, addresses: list[str], records: list[Ended]) -> None:
        self._addresses = addresses
        self._records = records

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[tuple[str, Ended]]:
        return zip(self._addresses, self._records, strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[str, Ended]: ...

    @overload
    def __getitem__(self, index: slice) -> EndedSequence: ...

    def __getitem__(self, index: int | slice) -> tuple[str, Ended] | EndedSequence:
        if isinstance(index, slice):
            return EndedSequence(self._addresses[index], self._records[index])
        return self._addresses[index], self._records[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of lists


class StateImage(NamedTuple):
    """Everything that survives a restart, captured by reference in one step."""

    params: list[Param]
    ended: Sequence[tuple[str, Ended]]
    """Oldest first."""
    expires_us: dict[str, int]
    journal_seq: int = 0
    """The number of the last recorded change that it includes; 0 without a journal."""
    scheduled: tuple[Change, ...] = ()
    """The scheduled bundles, if the log records them."""


class ChangeKind(IntEnum):
    """The kind of a change. The numbers are part of the encoding; 4 is not used."""

    WRITE = 1
    """A SET or a null, by a session, or by the relay for a param that expires or is evicted."""

    RENEWAL = 2
    """A GET renewed the sliding life time of a param."""

    LOCK_RELEASE = 3
    """A lock ended without a write: with its session, or an hour after it was taken last."""

    SCHEDULED = 5
    """A bundle was scheduled. Its ``param.value`` is ``Identity.token`` of its session, as bytes."""

    DUE = 6
    """A scheduled bundle is due, and no longer scheduled. Its writes are separate changes."""

    EVENT = 7
    """A signal was published that history keeps."""

    SIGNAL = 8
    """A signal was published that history does not keep. Only the log of a cluster carries it, for the other relays to
    send."""

    POSITION = 9
    """The last batch of a cluster's log that the journal has: its number is ``number``, its digest ``param.value``."""

    ACCOUNTS = 10
    """Rows of users.db have changed, in a cluster: ``number`` counts these changes, ``param.value`` is a list of bytes
    that are the pieces of one record."""


class Change(NamedTuple):
    """One alteration of the state, of any kind.

    For every kind, ``param`` has the address, the time and the writer; fields that a kind does not use keep their
    default.
    """

    param: Param
    """For a WRITE, what is set afterwards; else the address and the writer of the change, with a ``value`` of null if
    the kind has none."""
    kind: ChangeKind = ChangeKind.WRITE
    lock: bool = False
    """As in the SET."""
    unlock: bool = False
    """As in the SET."""
    ttl: int | None = None
    """As in the SET; ``param.ttl`` is the one in force. Of a RENEWAL, the seconds of the renewed life time."""
    takes_lock: bool = False
    """Whether the writer holds the lock afterwards."""
    stamp: str | None = None
    """The subject that a policy's stamp names, if it is kept after a null."""
    due_us: int | None = None
    """Unix µs: when the param ends by itself, or a scheduled bundle is due; None for never."""
    number: int = 0
    """The number of the scheduled bundle."""
    message: Bundle | Publish | None = None
    """The bundle or signal."""


def no_param(address: str, writer: str, subject: str, timestamp_us: int) -> Param:
    """Returns the ``param`` of a change that sets nothing."""
    return Param(address, NULL, 0, writer, timestamp_us, None, subject)


def text_bytes(text: str) -> int:
    """Returns the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def param_bytes(param: Param) -> int:
    """Returns the bytes of the state that a param counts for: its address, its value, and ``sent_as``."""
    return text_bytes(param.address) + len(param.value) + len(param.sent_as)


MAX_WRITERS = 1_024
"""Writers whose encoding is cached."""

VERSION = 1
"""The first byte of every encoded change. A reader refuses versions that it does not know."""

_HEAD = struct.Struct(">BBHQQ")
_HEAD_AND_SIZE = struct.Struct(">BBHQQI")
_LOCK, _UNLOCK, _TAKES_LOCK, _TTL, _TTL_SENT, _STAMP, _DUE, _NUMBER, _MESSAGE, _SENT_AS = (1 << n for n in range(10))
_KNOWN_FLAGS = (1 << 10) - 1
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_unpack_u32, _unpack_u64 = _U32.unpack_from, _U64.unpack_from
_pack_u32, _pack_head = _U32.pack, _HEAD_AND_SIZE.pack
_SHORT_SIZES = tuple(map(_pack_u32, range(256)))
_KINDS = {int(kind): kind for kind in ChangeKind}


_USUAL_SET = Change(no_param("", "", "", 0))[1:]
_USUAL_EVENT = Change(no_param("", "", "", 0), ChangeKind.EVENT)[1:-1]
"""The other fields at their defaults, compared as one tuple, since thousands of changes a second are like this."""


def encode_change(change: Change) -> bytes:
    """Encodes a change: version, kind, flags, revision, time, its texts, then the fields that the flags announce.

    Numbers are big-endian; texts and blobs follow their length in four bytes.
    """
    address, value, revision, writer, timestamp_us, ttl, subject, origin, sent_as = change[0]
    kind, message = change[1], change[9]
    is_usual = ttl is None and not sent_as
    if is_usual and message is None and change[1:] == _USUAL_SET:
        flags, tail = 0, b""
    elif is_usual and message is not None and change[1:-1] == _USUAL_EVENT:
        data = encode(message)
        flags, tail = _MESSAGE, _pack_u32(len(data)) + data
    else:
        flags, tail = _tail(change)
    raw = address.encode()
    head = _pack_head(VERSION, kind, flags, revision, timestamp_us, len(raw))
    size = len(value)
    value_size = _SHORT_SIZES[size] if size < len(_SHORT_SIZES) else _pack_u32(size)
    return b"".join((head, raw, _by(writer, subject, origin), value_size, value, tail))


def _tail(change: Change) -> tuple[int, bytes]:
    """Returns the flags of a change, and the bytes of the fields that they announce."""
    flags = change.lock * _LOCK | change.unlock * _UNLOCK | change.takes_lock * _TAKES_LOCK
    tail: list[bytes] = []
    for flag, number, pack in (
        (_TTL, change.param.ttl, _U32.pack),
        (_TTL_SENT, change.ttl, _U32.pack),
        (_DUE, change.due_us, _U64.pack),
        (_NUMBER, change.number or None, _U64.pack),
    ):
        if number is not None:
            flags |= flag
            tail.append(pack(number))
    if change.stamp is not None:
        flags |= _STAMP
        tail.append(_blob(change.stamp.encode()))
    if change.message is not None:
        flags |= _MESSAGE
        tail.append(_blob(encode(change.message)))
    if change.param.sent_as:
        flags |= _SENT_AS
        tail.append(_blob(change.param.sent_as))
    return flags, b"".join(tail)


@lru_cache(MAX_WRITERS)
def _by(*texts: str) -> bytes:
    """Encodes the writer: the same bytes for all writes of a session."""
    return b"".join([_blob(text.encode()) for text in texts])


def decode_change(data: bytes) -> Change:
    """Decodes an encoded change.

    Raises:
        DecodeError: it is not exactly one change, or of a version that this relay does not know.
    """
    try:
        return _decode_change(data)
    except DecodeError:
        raise
    except (IndexError, KeyError, ValueError, struct.error, RequestError) as error:
        raise DecodeError(f"the record is damaged: {error}") from None


def _head(data: bytes) -> tuple[int, int, int, int, int]:
    """Returns version, kind, flags, revision and time, after checking that this relay knows them."""
    if not data or data[0] != VERSION:
        raise DecodeError(f"the record is of version {data[0] if data else 'none'}, this relay reads version {VERSION}")
    found: tuple[int, int, int, int, int] = _HEAD.unpack_from(data)
    if found[2] & ~_KNOWN_FLAGS:
        raise DecodeError("the record has flags that this relay does not know")
    return found


def _decode_change(data: bytes) -> Change:
    _, kind, flags, revision, timestamp_us = _head(data)
    address, at = _take(data, _HEAD.size)
    writer, at = _take(data, at)
    subject, at = _take(data, at)
    origin, at = _take(data, at)
    value, at = _take(data, at)
    if at > len(data):
        raise DecodeError("the record ends too early")
    if value != NULL and skip_value(value, 1, value[0]) != len(value):
        raise DecodeError("bytes follow the value of the record")
    ttl = ttl_sent = due_us = stamp = message = None
    number, sent_as = 0, b""
    if flags & _TTL:
        ttl, at = _unpack_u32(data, at)[0], at + 4
    if flags & _TTL_SENT:
        ttl_sent, at = _unpack_u32(data, at)[0], at + 4
    if flags & _DUE:
        due_us, at = _unpack_u64(data, at)[0], at + 8
    if flags & _NUMBER:
        number, at = _unpack_u64(data, at)[0], at + 8
    if flags & _STAMP:
        blob, at = _take(data, at)
        stamp = blob.decode()
    if flags & _MESSAGE:
        blob, at = _take(data, at)
        message = _message(blob)
    if flags & _SENT_AS:
        sent_as, at = _take(data, at)
    if at != len(data):
        raise DecodeError("the record ends too early" if at > len(data) else "bytes follow the record")
    by = (subject.decode(), origin.decode())
    param = new_tuple(Param, (address.decode(), value, revision, writer.decode(), timestamp_us, ttl, *by, sent_as))
    locks = (flags & _LOCK != 0, flags & _UNLOCK != 0)
    takes_lock = flags & _TAKES_LOCK != 0
    return new_tuple(Change, (param, _KINDS[kind], *locks, ttl_sent, takes_lock, stamp, due_us, number, message))


def _take(data: bytes, at: int) -> tuple[bytes, int]:
    """Returns the text or blob at an offset, and the offset after it, which is beyond the end of truncated data."""
    start = at + 4
    end = start + _unpack_u32(data, at)[0]
    return data[start:end], end


def _message(data: bytes) -> Bundle | Publish:
    message = decode(data)
    if not isinstance(message, Bundle | Publish):
        raise DecodeError("the record holds a message that cannot be kept")
    return message


def is_about(data: bytes, kind: int, address: str) -> bool:
    """Tells, without decoding it, whether an encoded change has a kind and an address."""
    text = address.encode()
    return data.startswith(_U32.pack(len(text)) + text, _HEAD.size) and data[1] == kind


HEAD_BYTES = 4
"""Bytes of an encoded change that ``is_emptied_event`` reads."""


def is_emptied_event(head: bytes) -> bool:
    """Tells, from the first bytes of an encoded change, whether it is a signal whose content was erased."""
    return head[1] == ChangeKind.EVENT and not (head[2] << 8 | head[3]) & _MESSAGE


def _blob(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data
