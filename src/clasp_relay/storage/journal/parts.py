"""Checks of a journal's files that are made before SQLite opens them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from clasp_relay.errors import StartError
from clasp_relay.storage.folder import FILE_MODE, is_plain

AWAY = "move it away with its -wal and -shm, and the relay starts from state.json alone"
RESTORE = f"put back a backup of it and of state.json, or {AWAY}"
"""What an operator can do about a file that is not a journal, and about a damaged journal."""

_HEADER = struct.Struct(">16s2s10xI")

_WAL_HEADER = struct.Struct(">24s2I")
"""The header of a WAL, and its checksums."""

_WAL_MAGIC = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}
"""The first bytes of a WAL, and the byte order of the words that its checksums add up."""


def check_parts(path: Path) -> None:
    """Checks a journal and the files beside it, whether the journal exists or not.

    Raises:
        StartError: the relay cannot start on them.
    """
    check_plain(path)
    _check_companions(path)
    _check_wal(path)


def check_plain(path: Path) -> None:
    """Checks that a path is a plain file, or that there is nothing.

    Raises:
        StartError: there is something else.
    """
    if not is_plain(path):
        raise StartError(f"{path}: the journal cannot be opened (it is no plain file); {AWAY}; it was not changed")


def make_empty(path: Path) -> bool:
    """Creates the file if it does not exist; returns whether it is empty.

    Raises:
        StartError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    except OSError as error:
        raise StartError(
            f"{path}: the journal cannot be opened ({error.strerror}); let user {os.geteuid()} write to it"
        ) from error
    try:
        if os.geteuid() == 0:
            # A relay that starts as root and drops its privileges must still be able to open it the next time.
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def check_length(path: Path) -> None:
    """Checks that a file is not truncated; an interrupted checkpoint leaves a short file, too, but a WAL beside it.

    Raises:
        StartError: it is truncated, or it is no SQLite file.
    """
    wal = beside(path, "-wal")
    if wal.exists() and wal.stat().st_size:
        return
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise StartError(f"{path}: the journal is cut off; {RESTORE}")
    magic, page, pages = _HEADER.unpack(head)
    if magic != b"SQLite format 3\0":
        raise StartError(f"{path}: not a journal (it is no SQLite file); {AWAY}; it was not changed")
    page_bytes = int.from_bytes(page, "big")
    expected = (65_536 if page_bytes == 1 else page_bytes) * pages
    if path.stat().st_size < expected:
        raise StartError(
            f"{path}: the journal is cut off ({path.stat().st_size} of {expected} bytes are there); {RESTORE}"
        )


def beside(path: Path, suffix: str) -> Path:
    """Returns the path of a file that SQLite keeps beside a journal: ``-wal``, ``-shm`` or ``-journal``.

    If the journal's path is a symbolic link, they are beside the file that it leads to.
    """
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + suffix)


def _check_companions(path: Path) -> None:
    """Checks that the files beside the journal can be written; SQLite's own error does not name them."""
    for suffix in ("-wal", "-shm", "-journal"):
        companion = beside(path, suffix)
        if not companion.exists():
            continue
        if not is_plain(companion):
            raise StartError(
                f"{companion}: this part of the journal cannot be written (it is no plain file); move it away"
            )
        try:
            os.close(os.open(companion, os.O_RDWR))
        except OSError as error:
            warning = ", and do not move it away: it holds the latest changes" if suffix == "-wal" else ""
            raise StartError(
                f"{companion}: this part of the journal cannot be written ({error.strerror}); let user {os.geteuid()}"
                f" write to it{warning}"
            ) from error


def _check_wal(path: Path) -> None:
    """Checks that SQLite will accept the WAL beside the journal; a WAL that it does not accept it discards silently.

    Raises:
        StartError: it will not.
    """
    wal = beside(path, "-wal")
    try:
        with wal.open("rb") as file:
            head = file.read(_WAL_HEADER.size)
    except FileNotFoundError:
        return
    if len(head) < _WAL_HEADER.size:  # it has no rows
        return
    if not path.exists() or path.stat().st_size == 0:
        raise StartError(
            f"{path}: the journal is missing, and {wal.name} beside it has changes of it; put back both, or move "
            f"{wal.name} away, and the relay starts from state.json alone"
        )
    # A power failure may leave zeros if no change in it was acknowledged yet.
    if any(head) and not _is_wal(head):
        raise StartError(
            f"{wal}: this part of the journal is damaged (it is no WAL); put back a backup of {path.name} and of "
            f"state.json, or move it away to go on without the latest changes; it was not changed"
        )


def _is_wal(head: bytes) -> bool:
    """Tells whether this is the header of a WAL: https://sqlite.org/fileformat2.html#walformat."""
    about, *expected = _WAL_HEADER.unpack(head)
    order = _WAL_MAGIC.get(about[:4])
    if order is None:
        return False
    sums = [0, 0]
    for first, second in struct.iter_unpack(f"{order}2I", about):
        sums[0] = (sums[0] + first + sums[1]) & 0xFFFF_FFFF
        sums[1] = (sums[1] + second + sums[0]) & 0xFFFF_FFFF
    return sums == expected
