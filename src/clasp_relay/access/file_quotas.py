"""Limits of the disk space of files: of one user, of guests, and of all.

A file counts for its sender in blocks of :data:`BLOCK_BYTES`, from the moment at which its length is known, so that
concurrent uploads cannot exceed a limit together. Half of all space is reserved for accounts, so that invented guests
cannot fill it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from clasp_relay.access.refusals import BadInput, Later, Limited, NoRoom, TooLarge
from clasp_relay.storage.files import BLOCK_BYTES, charge
from clasp_relay.storage.sent_files import MAX_GUEST_FILES

__all__ = ["BLOCK_BYTES", "FileLimits", "FileOwner", "FileQuotas", "charge", "no_room"]

MIB = 1024 * 1024

GUEST_BYTES = 25 * MIB
"""The most bytes of the files of one guest."""

GUEST_ADDRESS_BYTES = 100 * MIB
"""The most bytes of the files of all guests of one client address."""

GUESTS_SHARE = 0.5
"""The share of all space that guests may take."""

UPLOADS_AT_ONCE = 64
"""The most files that arrive at once, in all: each may have half a mebibyte in memory."""

UPLOADS_PER_OWNER = 10
"""Those of one user, or of all guests of one client address."""

UPLOADS_PER_ADDRESS = 32
"""Those of one client address, of whichever users: registration costs little, and an upload may be slow."""

UPLOADS_IN_A_CROWD = 4
"""Those of one user or client address, while more than half of ``UPLOADS_AT_ONCE`` arrive, so that a few slow senders
do not block all others."""

_SOON_S = 5
_LATER_S = 3600


class FileOwner(NamedTuple):
    """The owner of a file."""

    subject: str
    origin: bytes = b""
    """A keyed hash of the client address for a guest's file; empty for an account's."""
    address: bytes = b""
    """A keyed hash of the client address while the file arrives; empty if that is not known."""

    @property
    def is_guest(self) -> bool:
        """Whether a guest sent it."""
        return bool(self.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The limits, in bytes.

    Args:
        file: the limit of one file.
        subject: that of all files of one user; 0 for no limit.
        whole: that of all files.
    """

    file: int
    subject: int
    whole: int

    @property
    def guest(self) -> int:
        """The limit of all files of one guest."""
        return min(GUEST_BYTES, self.subject or GUEST_BYTES)

    @property
    def guests(self) -> int:
        """The limit of all files of all guests."""
        return int(self.whole * GUESTS_SHARE)


def no_room(lacking: str, limits: FileLimits) -> Later | NoRoom:
    """Returns the refusal of a file that would exceed a limit.

    Args:
        lacking: the limit: ``subject``, ``guest`` or ``guest_files`` for the sender's own, ``guest_address``, ``whole``
            or ``guests``.
        limits: the limits.
    """
    match lacking:
        case "subject" | "guest":
            share = limits.guest if lacking == "guest" else limits.subject
            return Limited(
                f"Your files would take more than {_amount(share)}. Delete some of them, or send a smaller one.",
                _LATER_S,
            )
        case "guest_files":
            return Limited(f"A guest may have {MAX_GUEST_FILES:,} files. Delete some of them, or register.", _LATER_S)
        case "guest_address":
            return Limited(
                f"The files of the guests at your address would take more than {_amount(GUEST_ADDRESS_BYTES)}. "
                "Delete some of them, or register.",
                _LATER_S,
            )
        case "whole":
            return NoRoom("The relay has no room for more files. Send a smaller one, or ask its operator.")
    return NoRoom("The relay has no room for more files of guests. Register, or send a smaller one.")


class FileQuotas:
    """Counts the space that files take, and refuses files that exceed a limit.

    Args:
        limits: the limits.
    """

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        self.bytes = 0
        """The bytes of all files, those that are arriving included."""
        self.guest_bytes = 0
        """The bytes of the files of guests."""
        self._by_subject: Counter[str] = Counter()
        self._by_origin: Counter[bytes] = Counter()
        self._arriving: Counter[object] = Counter()
        self.arriving = 0
        """Files that are arriving."""

    def load(self, used: Iterable[tuple[FileOwner, int]]) -> None:
        """Counts the files that are on the disk already: owners, and the sum of their charges in bytes."""
        for owner, size_bytes in used:
            self._count(owner, size_bytes)

    def used_by(self, subject: str) -> int:
        """Returns the bytes that the files of one user take."""
        return self._by_subject[subject]

    def begin(self, owner: FileOwner, size_bytes: int) -> None:
        """Reserves the space of a file that is about to arrive.

        Raises:
            BadInput: it is empty.
            TooLarge: it can never be accepted.
            Limited: its owner has no space left, or sends too many files at once.
            NoRoom: the relay has no space left.
        """
        self._check(owner, size_bytes)
        self._count(owner, charge(size_bytes))
        for lane in _lanes(owner):
            self._arriving[lane] += 1
        self.arriving += 1

    def end(self, owner: FileOwner) -> None:
        """Notes that a file has arrived, or will not."""
        self.arriving -= 1
        for lane in _lanes(owner):
            self._arriving[lane] -= 1
            if not self._arriving[lane]:
                del self._arriving[lane]

    def give_back(self, owner: FileOwner, size_bytes: int) -> None:
        """Frees the space of a file that was removed, or did not arrive."""
        self._count(owner, -charge(size_bytes))

    def move(self, owner: FileOwner, charged_bytes: int) -> None:
        """Counts a guest's files as an account's, since the guest has registered."""
        self._count(owner, -charged_bytes)
        self._count(FileOwner(owner.subject), charged_bytes)

    def _check(self, owner: FileOwner, size_bytes: int) -> None:
        limits, charged = self.limits, charge(size_bytes)
        if size_bytes <= 0:
            raise BadInput("The file is empty.")
        share = limits.guest if owner.is_guest else limits.subject
        if size_bytes > limits.file:
            raise TooLarge(f"The file is too large: this relay takes files of up to {_amount(limits.file)}.")
        if share and charged > share:
            raise TooLarge(f"The file is too large: your files may take {_amount(share)} together.")
        most = UPLOADS_IN_A_CROWD if self.arriving > UPLOADS_AT_ONCE // 2 else UPLOADS_AT_ONCE
        is_full = any(self._arriving[lane] >= min(own, most) for lane, own in _lanes(owner).items())
        if self.arriving >= UPLOADS_AT_ONCE or is_full:
            raise Limited("Too many files are being sent at once. Try again when one of them has arrived.", _SOON_S)
        if share and self._by_subject[owner.subject] + charged > share:
            raise no_room("guest" if owner.is_guest else "subject", limits)
        if owner.is_guest and self._by_origin[owner.origin] + charged > GUEST_ADDRESS_BYTES:
            raise no_room("guest_address", limits)
        if self.bytes + charged > limits.whole:
            raise no_room("whole", limits)
        if owner.is_guest and self.guest_bytes + charged > limits.guests:
            raise no_room("guests", limits)

    def _count(self, owner: FileOwner, by: int) -> None:
        self.bytes += by
        _add(self._by_subject, owner.subject, by)
        if owner.is_guest:
            self.guest_bytes += by
            _add(self._by_origin, owner.origin, by)


def _add(counter: Counter[str] | Counter[bytes], key: str | bytes, by: int) -> None:
    """Adds to a count; an entry that is 0 again is removed."""
    counts: Counter[str | bytes] = counter  # type: ignore[assignment]  # each has keys of one kind only
    counts[key] += by
    if not counts[key]:
        del counts[key]


def _lanes(owner: FileOwner) -> dict[object, int]:
    """Returns the lanes that an arriving file is counted in, each with the most files that may arrive at once."""
    lanes: dict[object, int] = {owner.origin or owner.subject: UPLOADS_PER_OWNER}
    if owner.address:
        lanes["address", owner.address] = UPLOADS_PER_ADDRESS
    return lanes


def _amount(size_bytes: int) -> str:
    """Returns a size for people."""
    if size_bytes >= MIB:
        return f"{size_bytes / MIB:.10g} MiB" if size_bytes % MIB == 0 else f"{size_bytes / MIB:.1f} MiB"
    return f"{size_bytes / 1024:.1f} KiB" if size_bytes % 1024 else f"{size_bytes // 1024} KiB"
