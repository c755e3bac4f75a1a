"""The records of accounts in a cluster's log: changed rows of ``users.db``, and the outcomes of calls.

Each record names the digest of the one before, so that no relay continues with records of another cluster. A record is
a change like those of params, and so it is in every relay's journal; its bytes are in pieces, since values have a size
limit.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import msgpack

from clasp_relay.cluster.accounts.account_calls import pack, unpack, unpacked
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.errors import DecodeError
from clasp_relay.storage.users_rows import Row, Told
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["Done", "Record", "change_of", "record_of"]

VERSION = 1

DIGEST_BYTES = 16

PIECE_BYTES = 60_000
"""The size of the pieces: a value of type bytes has 65,535 at most."""


class Done(NamedTuple):
    """A call whose outcome is in a record."""

    link: str
    """The link that asked."""
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
    """The notes of commands' changes in relays' files whose changes the record has."""

    def encode(self) -> bytes:
        """Encodes the record."""
        data: bytes = msgpack.packb((VERSION, *(pack(each) for each in self)))
        return data


def digest_of(payload: bytes) -> bytes:
    """Returns the digest by which the next record names this one."""
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
    """Returns the record in a change, and its digest.

    Raises:
        DecodeError: there is none, or it is of a version that this relay does not know.
    """
    pieces = decode_value(change.param.value)
    if not isinstance(pieces, list) or not all(isinstance(piece, bytes) for piece in pieces):
        raise DecodeError("a record of accounts that cannot be read")
    data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    record: Record = unpack(Record, unpacked(data, "a record of accounts", VERSION))
    if record.number != change.number:
        raise DecodeError("a record of accounts with another number than its change")
    return record, digest_of(data)
