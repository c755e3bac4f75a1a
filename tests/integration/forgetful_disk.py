"""A disk that loses its power: what was not synced is there afterwards, or not, or in part, in any order.

An SQLite VFS passes everything on to the system, and remembers of each file what a sync has put on the disk and what
was written since. After the loss each 512-byte sector that was written since is as it was at some time in between.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

SECTOR_BYTES = 512


class ForgetfulDisk:
    """The disk; it is used by one connection at a time.

    Args:
        name: of its VFS, which no other one may have.
        chance: what is lost.
        calls: the power fails during this call to the system; later ones fail.
    """

    def __init__(self, name: str, chance: random.Random, calls: int) -> None:
        self._chance = chance
        self._calls_left = calls
        self._files: dict[str, _Contents] = {}
        self._deleted: dict[str, _Contents] = {}
        """What is deleted, until something is synced: the folder may not be on the disk yet."""
        self._vfs = _Vfs(name, self)
        self._name = name

    @property
    def is_off(self) -> bool:
        """Whether the power has failed."""
        return self._calls_left <= 0

    def connect(self, path: Path) -> Connection:
        """Opens a database on it, for this connection alone: so SQLite needs no shared memory."""
        connection = Connection(str(path), vfs=self._name)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        return connection

    def fsync(self, descriptor: int) -> None:
        """Is called in the place of ``os.fsync``."""
        status = os.fstat(descriptor)
        (path,) = (path for path in self._files if os.path.exists(path) and os.path.samestat(os.stat(path), status))
        self.synced(path)

    def after_the_loss(self, folder: Path) -> None:
        """Leaves in a folder what is on the disk afterwards."""
        for path in {*self._files, *self._deleted}:
            contents = self._files.get(path)
            if contents is None or (not contents.is_durable and path in self._deleted):
                contents = self._chance.choice((contents, self._deleted[path]))
            data = None if contents is None else contents.after_the_loss(self._chance)
            if data is not None:
                (folder / Path(path).name).write_bytes(data)

    # What the files tell

    def opened(self, path: str) -> None:
        """A file is opened, and perhaps made."""
        self._call()
        self._files.setdefault(path, _Contents())

    def written(self, path: str, offset: int, data: bytes) -> None:
        """Bytes are written; when the power fails meanwhile some of them may be there."""
        self._files[path].written += ((offset + at, data[at : at + end]) for at, end in _sectors(offset, len(data)))
        self._call()

    def truncated(self, path: str, size: int) -> None:
        """A file becomes shorter, or longer."""
        self._files[path].written.append((size, None))
        self._call()

    def synced(self, path: str) -> None:
        """All of a file is put on the disk, and its folder."""
        self._call()
        self._files[path].sync()
        self._deleted.clear()

    def deleted(self, path: str) -> None:
        """A file is deleted."""
        self._call()
        if path in self._files:
            self._deleted[path] = self._files.pop(path)

    def _call(self) -> None:
        self._calls_left -= 1
        if self.is_off:
            raise apsw.IOError("the power is off")


class Connection(apsw.Connection):
    """A connection with the one method of Python's own that has another name here."""

    def executescript(self, script: str) -> None:
        """Executes statements to their ends."""
        self.execute(script).fetchall()


class _Contents:
    """What is on the disk of a file, and what was written since."""

    def __init__(self) -> None:
        self.is_durable = False
        self._durable = bytearray()
        self.written: list[tuple[int, bytes | None]] = []
        """Where, and what; a new size where that is None."""

    def sync(self) -> None:
        for change in self.written:
            _apply(self._durable, *change)
        self.written.clear()
        self.is_durable = True

    def after_the_loss(self, chance: random.Random) -> bytes | None:
        """Returns what is there, None where there is no file."""
        if not self.is_durable and chance.random() < 0.5:
            return None
        share = chance.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        kept = [change for change in self.written if chance.random() < share]
        if chance.random() < 0.7:
            chance.shuffle(kept)
        data = bytearray(self._durable)
        for change in kept:
            _apply(data, *change)
        return bytes(data)


def _apply(data: bytearray, offset: int, written: bytes | None) -> None:
    if len(data) < offset:
        data += bytes(offset - len(data))
    if written is None:
        del data[offset:]
    else:
        data[offset : offset + len(written)] = written


def _sectors(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields where the parts of a write begin, and how long they are, so that each is in one sector."""
    at = 0
    while at < size:
        length = min(size - at, SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
        yield at, length
        at += length


class _Vfs(apsw.VFS):
    def __init__(self, name: str, disk: ForgetfulDisk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        assert name is not None, "no temporary files"
        return _File(name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self._disk.deleted(filename)
        super().xDelete(filename, syncdir)

    def excepthook(self, *_: Any) -> bool:
        """Says nothing of a failure, which the statement raises, too."""
        return True


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename, flags: list[int], disk: ForgetfulDisk) -> None:
        self._path = name if isinstance(name, str) else name.filename()
        self._disk = disk
        disk.opened(self._path)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.written(self._path, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.truncated(self._path, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.synced(self._path)

    def excepthook(self, *_: Any) -> bool:
        """As of the VFS."""
        return True
