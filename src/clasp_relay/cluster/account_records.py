"""The records of accounts in a cluster's log: which rows of ``users.db`` have changed, and which calls are done.

Each names the digest of the one before, so that nobody takes up the accounts of another cluster. A record is a change
like those of params, and so in every relay's journal; its bytes are in pieces, since a value has its limits.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import msgpack

from clasp_relay.cluster.account_calls import pack, unpack, unpacked
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.errors import DecodeError
from clasp_relay.storage.users_rows import Row, Told
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["Done", "Record", "change_of", "record_of"]

VERSION = 1

DIGEST_BYTES = 16

PIECE_BYTES = 60_000
"""How big the pieces are: a value of bytes has 65,535 at most."""


class Done(NamedTuple):
    """A call that a record is the outcome of."""

    link: str
    """The run of the relay that asked."""
    number: int
    outcome: bytes


class Record(NamedTuple):
    """A change of accounts."""

    number: int
    """One more than that of the record before."""
    previous: bytes
    """The digest of the record before; empty for the first one."""
    done: tuple[Done, ...]
    rows: tuple[Row, ...]
    told: tuple[Told, ...] = ()
    """Up to which note the record has the changes that commands made in each relay's file."""

    def encode(self) -> bytes:
        """Encodes it."""
        data: bytes = msgpack.packb((VERSION, *(pack(each) for each in self)))
        return data


def digest_of(payload: bytes) -> bytes:
    """Returns what names a record in the one behind it."""
    return blake2b(payload, digest_size=DIGEST_BYTES).digest()


def change_of(record: Record, time_us: int) -> Change:
    """Returns a record as a change, for the log.

    Args:
        record: the record.
        time_us: Unix µs.
    """
    data = record.encode()
    pieces = [data[begin : begin + PIECE_BYTES] for begin in range(0, len(data), PIECE_BYTES)]
    about = no_param("", "", "", time_us)._replace(value=encode_value(pieces))
    return Change(about, ChangeKind.ACCOUNTS, number=record.number)


def record_of(change: Change) -> tuple[Record, bytes]:
    """Returns the record that a change is, and its digest.

    Raises:
        DecodeError: it is none, or of a version that this relay does not know.
    """
    pieces = decode_value(change.param.value)
    if not isinstance(pieces, list) or not all(isinstance(piece, bytes) for piece in pieces):
        raise DecodeError("a record of accounts that cannot be read")
    data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    record: Record = unpack(Record, unpacked(data, "a record of accounts", VERSION))
    if record.number != change.number:
        raise DecodeError("a record of accounts with another number than its change")
    return record, digest_of(data)
