"""The accounts in an image: all rows of a relay's ``users.db``, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgpack
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.cluster.accounts.account_calls import unpack, unpacked
from clasp_relay.storage.users_rows import Position, Row, RowStore, Snapshot

__all__ = ["AccountImages", "NoAccounts", "decode_pieces", "encode_head", "encode_rows", "read_pieces"]

VERSION = 1


class AccountImages(Protocol):
    """Captures the accounts of a relay for others, and installs those of another one."""

    has_base: bool
    """Whether the relay has accounts that the cluster does not have yet."""

    def capture(self, done: Callable[[list[bytes]], None], still: Callable[[], None], /) -> None:
        """Captures all accounts.

        Args:
            done: called with the pieces; there are none in open mode.
            still: called from time to time meanwhile.
        """

    def install(self, pieces: Sequence[bytes], done: Callable[[], None], /) -> None:
        """Installs the accounts of another relay in this one, which has none.

        Args:
            pieces: the pieces from ``capture``.
            done: called when they are installed; never if this relay cannot use them.
        """


class NoAccounts:
    """Implements ``AccountImages`` for a relay in open mode."""

    has_base = False

    def capture(self, done: Callable[[list[bytes]], None], _still: Callable[[], None]) -> None:
        """See ``AccountImages``."""
        done([])

    def install(self, _pieces: Sequence[bytes], done: Callable[[], None]) -> None:
        """See ``AccountImages``. If other relays have accounts, a record of the log shows it."""
        done()


def encode_head(position: Position, calls: dict[str, int]) -> bytes:
    """Encodes the first piece: the last record that is in the rows, and the last call that is done, by link."""
    data: bytes = msgpack.packb((VERSION, *position[:3], calls))
    return data


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Encodes one of the other pieces."""
    data: bytes = msgpack.packb(rows)
    return data


def decode_pieces(pieces: Sequence[bytes]) -> tuple[Position, dict[str, int], Iterator[list[Row]]]:
    """Decodes all pieces; those of rows only when the iterator comes to them.

    Raises:
        DecodeError: they are invalid, or of another version; for rows it is raised by the iterator.
    """
    head = unpacked(pieces[0], "accounts", VERSION)
    *position, calls = unpack(tuple[int, bytes, bytes, dict[str, int]], head)
    return Position(*position), calls, (unpack(list[Row], unpacked(piece, "accounts")) for piece in pieces[1:])


def read_pieces(
    rows: RowStore,
    run: Callable[[Callable[[], Any]], Deferred[Any]],
    done: Callable[[list[bytes]], None],
    still: Callable[[], None],
    failed: Callable[[Failure], None],
) -> None:
    """Reads all rows as they are now, whatever is written meanwhile.

    Args:
        rows: the rows of the file.
        run: calls a function on the store's thread.
        done: called with the pieces.
        still: called before each piece is read.
        failed: called with the failure if the file cannot be read.
    """

    def begun(snapshot: Snapshot) -> None:
        pieces = [encode_head(snapshot.position, snapshot.calls)]

        def go_on() -> None:
            still()
            run(snapshot.next_rows).addCallback(took).addErrback(left).addErrback(failed)

        def took(found: list[Row]) -> None:
            if found:
                pieces.append(encode_rows(found))
                go_on()
            else:
                done([*pieces])
                # ``took`` and ``go_on`` hold each other, and this list with all of the accounts.
                pieces.clear()

        def left(failure: Failure) -> Deferred[None]:
            failed(failure)
            return run(snapshot.close)

        go_on()

    run(rows.snapshot).addCallback(begun).addErrback(failed)
