"""The accounts in a relay's image: all rows of another relay's ``users.db``, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgpack

from clasp_relay.cluster.account_calls import unpack, unpacked
from clasp_relay.storage.users_rows import Position, Row

__all__ = ["AccountImages", "NoAccounts", "decode_pieces", "encode_head", "encode_rows"]

VERSION = 1


class AccountImages(Protocol):
    """The accounts of a relay, as others take them over."""

    has_base: bool
    """Whether the relay has accounts that the cluster does not have yet."""

    def capture(self, done: Callable[[list[bytes]], None], still: Callable[[], None], /) -> None:
        """Captures all accounts.

        Args:
            done: told the pieces; there are none in open mode.
            still: called now and then while that takes its time.
        """

    def install(self, pieces: Sequence[bytes], done: Callable[[], None], /) -> None:
        """Takes the accounts of another relay in the place of this one's, which has none.

        Args:
            pieces: as ``capture`` gave them.
            done: called when it has; never where the relay cannot go on with them.
        """


class NoAccounts:
    """Implements ``AccountImages`` for a relay in open mode."""

    has_base = False

    def capture(self, done: Callable[[list[bytes]], None], _still: Callable[[], None]) -> None:
        """See ``AccountImages``."""
        done([])

    def install(self, _pieces: Sequence[bytes], done: Callable[[], None]) -> None:
        """See ``AccountImages``; a record of the log says that others have accounts."""
        done()


def encode_head(position: Position, calls: dict[str, int]) -> bytes:
    """Encodes the first piece: how much of the log is in the others, and which calls are done."""
    data: bytes = msgpack.packb((VERSION, *position[:3], calls))
    return data


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Encodes one of the other pieces."""
    data: bytes = msgpack.packb(rows)
    return data


def decode_pieces(pieces: Sequence[bytes]) -> tuple[Position, dict[str, int], Iterator[list[Row]]]:
    """Decodes all pieces, the rows one piece after the other.

    Raises:
        DecodeError: they are no such pieces, or of another version; for rows when they are read.
    """
    head = unpacked(pieces[0], "accounts", VERSION)
    *position, calls = unpack(tuple[int, bytes, bytes, dict[str, int]], head)
    return Position(*position), calls, (unpack(list[Row], unpacked(piece, "accounts")) for piece in pieces[1:])
