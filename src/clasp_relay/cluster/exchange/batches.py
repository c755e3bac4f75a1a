"""The batches of a cluster's log: the changes of one turn of the decider, as one message of the stream.

A batch is applied completely, in the order of its items. It names its epoch and the digest of the batch before, so that
no relay continues with another log. Its bytes are a version, whether it is compressed, and MessagePack.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from hashlib import blake2b
from itertools import product
from types import NoneType
from typing import Any, NamedTuple, TypeAlias

import msgpack

from clasp_relay.core.records import Change, decode_change, encode_change
from clasp_relay.errors import DecodeError

__all__ = [
    "NO_DIGEST",
    "VERSION",
    "AckFields",
    "Announced",
    "Answer",
    "Answered",
    "Batch",
    "Began",
    "Claimed",
    "Ended",
    "Group",
    "HandedOver",
    "Item",
    "LinkBegan",
    "LinkEnded",
    "Marked",
    "Named",
    "NewerVersion",
    "Willed",
    "decode_batch",
    "digest_of",
    "encode_batch",
]

VERSION = 1
"""The first byte of every batch. A newer version only adds to the older ones, so a relay reads all of these, and it
stops at a version newer than its own. So followers are updated first, the decider last."""

DIGEST_BYTES = 16
NO_DIGEST = bytes(DIGEST_BYTES)
"""The digest before the first batch."""

COMPRESSED_FROM_BYTES = 64 * 1024
"""From this size on a batch is compressed: a long bundle repeats its writer, and a message of NATS may have 1 MiB."""

MAX_BYTES = 64 * 1024 * 1024
"""Size limit of a batch after its decompression."""


AckFields: TypeAlias = "tuple[str | None, int | None, bool | None, str | None]"
"""The fields of an ACK: address, revision, whether it is locked, and by whom."""

Answer: TypeAlias = "AckFields | bytes"
"""The fields of an ACK, or an ERROR as a payload. ACKs are many, and their bytes would be of no use."""


class NewerVersion(DecodeError):
    """A batch is of a version that this relay does not know."""


class Group(NamedTuple):
    """Changes that were committed together."""

    changes: tuple[Change, ...]
    encoded: tuple[bytes, ...]
    """The encoded changes."""

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Group:
        """Returns a group of changes."""
        changes = tuple(changes)
        return cls(changes, tuple(map(encode_change, changes)))


class Began(NamedTuple):
    """A session was admitted at a relay, or continues with another token."""

    session_id: str
    link: str
    """The link of its relay."""
    subject: str
    token: bytes
    """The identifier of its token."""
    origin: str
    vouched: str = ""
    """The rights of the session, if only its own relay knows its token; see ``Permissions.vouch``."""


class Ended(NamedTuple):
    """A session has ended."""

    session_id: str
    close_code: int = 0
    """The close code for its relay; 0 if the session ended there."""
    reason: str = ""


class Answered(NamedTuple):
    """The requests of a session up to a number are done; these are the answers."""

    session_id: str
    number: int
    answers: tuple[tuple[int, Answer], ...]
    """Each with the number of its request; 0 for none."""


class Announced(NamedTuple):
    """Signals were announced."""

    subject: str
    time_us: int
    message: bytes
    """The ANNOUNCE as a payload."""


class LinkBegan(NamedTuple):
    """A relay has joined, with the link that all its sessions name."""

    link: str
    relay: str


class LinkEnded(NamedTuple):
    """A relay has left, or was not heard any more: its sessions have ended."""

    link: str


class Claimed(NamedTuple):
    """A relay is the decider from here on."""

    link: str
    relay: str
    is_cold: bool
    """Whether it knows no sessions, so that the sessions of all relays have ended."""
    base: bytes
    """The identifier of the state from before the log, which the log does not have; empty if there was none."""


class HandedOver(NamedTuple):
    """The decider has stepped down; the next one takes over at once."""


class Named(NamedTuple):
    """A session has taken a name, which one session has at a time: the session that had it before has lost it."""

    session_id: str
    name: str
    is_new: bool
    """Whether nothing of the sessions that had it before is kept."""
    time_us: int
    """When it was taken, by the cluster's clock as its relay knows it, in Unix µs."""


class Marked(NamedTuple):
    """Data of the sender's door about the group of changes that follows, for the same door of other relays."""

    mark: bytes


class Willed(NamedTuple):
    """A session has set its will: the decider handles it as the session's message when the session is lost."""

    session_id: str
    message: bytes
    """A SET or PUBLISH as a payload; empty for no will."""
    more: bytes
    mark: bytes


Item: TypeAlias = (
    Group
    | Began
    | Ended
    | Answered
    | Announced
    | LinkBegan
    | LinkEnded
    | Claimed
    | HandedOver
    | Named
    | Marked
    | Willed
)

_KINDS: tuple[type[Any], ...] = (
    Group,
    Began,
    Ended,
    Answered,
    Announced,
    LinkBegan,
    LinkEnded,
    Claimed,
    HandedOver,
    Named,
    Marked,
    Willed,
)
"""The index of a kind is its number in the encoding."""

_NUMBER_OF = {kind: number for number, kind in enumerate(_KINDS)}

_FIELDS: dict[type[Any], tuple[type[Any], ...]] = {
    Began: (str, str, str, bytes, str, str),
    Ended: (str, int, str),
    Answered: (str, int, tuple),
    Announced: (str, int, bytes),
    LinkBegan: (str, str),
    LinkEnded: (str,),
    Claimed: (str, str, bool, bytes),
    HandedOver: (),
    Named: (str, str, bool, int),
    Marked: (bytes,),
    Willed: (str, bytes, bytes, bytes),
}


_ACK_TYPES = frozenset(product((str, NoneType), (int, NoneType), (bool, NoneType), (str, NoneType)))
"""The types that the fields of an ACK can have."""


class Batch(NamedTuple):
    """One message of the log."""

    epoch: int
    """The epoch of its decider, counted from 1."""
    previous: bytes
    """The digest of the batch before."""
    time_us: int
    """The decider's clock when it was made, in Unix µs."""
    journal_seq: int
    """The last row before the batch in every relay's journal."""
    items: tuple[Item, ...]


def digest_of(payload: bytes) -> bytes:
    """Returns the digest by which the next batch names this one."""
    return blake2b(payload, digest_size=DIGEST_BYTES).digest()


def encode_batch(batch: Batch) -> bytes:
    """Encodes a batch."""
    items = [_encode_item(item) for item in batch.items]
    body: bytes = msgpack.packb((batch.epoch, batch.previous, batch.time_us, batch.journal_seq, items))
    if len(body) < COMPRESSED_FROM_BYTES:
        return bytes((VERSION, 0)) + body
    return bytes((VERSION, 1)) + zlib.compress(body, 1)


def decode_batch(payload: bytes) -> Batch:
    """Decodes what ``encode_batch`` made.

    Raises:
        NewerVersion: a newer relay made it.
        DecodeError: the bytes are not exactly one batch.
    """
    if not payload or not 1 <= payload[0] <= VERSION:
        version = payload[0] if payload else "none"
        raise NewerVersion(f"the batch is of version {version}, this relay reads version {VERSION}")
    try:
        body = payload[2:] if payload[1] == 0 else _decompress(payload[2:])
        epoch, previous, time_us, journal_seq, items = msgpack.unpackb(body, use_list=False, strict_map_key=True)
        _check((epoch, previous, time_us, journal_seq, items), (int, bytes, int, int, tuple))
        return Batch(epoch, previous, time_us, journal_seq, tuple(_decode_item(item) for item in items))
    except DecodeError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, zlib.error, msgpack.UnpackException) as error:
        raise DecodeError(f"the batch is damaged: {error}") from None


def _encode_item(item: Item) -> tuple[object, ...]:
    if isinstance(item, Group):
        return (0, *item.encoded)
    return (_NUMBER_OF[type(item)], *item)


def _decode_item(item: tuple[Any, ...]) -> Item:
    kind = _KINDS[item[0]]
    if kind is Group:
        return Group(tuple(map(decode_change, item[1:])), item[1:])
    _check(item[1:], _FIELDS[kind])
    if kind is Answered:
        for answer in item[3]:
            _check(answer, (int, (bytes, tuple)))
            if type(answer[1]) is tuple and tuple(map(type, answer[1])) not in _ACK_TYPES:
                raise DecodeError("the batch is damaged: an ACK has other fields")
    made: Item = kind(*item[1:])
    return made


def _check(values: tuple[Any, ...], kinds: tuple[type[Any] | tuple[type[Any], ...], ...]) -> None:
    if not isinstance(values, tuple) or len(values) != len(kinds) or not all(map(isinstance, values, kinds)):
        raise DecodeError("the batch is damaged: a field is not what it has to be")


def _decompress(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    body = inflater.decompress(data, MAX_BYTES)
    if not inflater.eof or inflater.unused_data:
        raise DecodeError("the batch is damaged: its compressed part is not whole")
    return body
