"""Moves files that users sent before the relay joined its cluster into the cluster, one after the other.

A file is removed from the relay's own folder only after the object store has its bytes and the cluster has its record.
So a move that is interrupted at any moment is resumed, and nothing is lost. Limits are not checked, since the files
were accepted before.
"""

from __future__ import annotations

from clasp_relay.access.refusals import Busy, NoRoom
from clasp_relay.access.shared_files import SharedFiles
from clasp_relay.access.threads import Workers
from clasp_relay.errors import cause_text
from clasp_relay.logs import events
from clasp_relay.storage.files import FileStore, StoredFile

__all__ = ["FilesOfBefore"]

MOVED_AT_ONCE = 100
"""Records that are read in one call."""


class FilesOfBefore:
    """Moves the files; see the module. All methods are for the event loop's thread.

    Args:
        store: the relay's own files; called through ``sql`` and ``disk``.
        files: the files of the cluster.
        sql: the one thread that records are read and written on.
        disk: the threads that bytes are read on.
        path: the path of the records, for the log.
    """

    def __init__(self, store: FileStore, files: SharedFiles, sql: Workers, disk: Workers, path: str) -> None:
        self._store = store
        self._files = files
        self._sql = sql
        self._disk = disk
        self._path = path
        self._count = 0
        """Number of moved files."""
        self._unread: set[str] = set()
        """Files that cannot be read; the next start tries again."""
        self.is_over = False
        """Whether no file is left that can be moved."""

    def load(self) -> None:
        """Removes what an abrupt end has left, and checks whether there are files; called before the relay listens."""
        self._store.sweep()
        self.is_over = not self._store.unread_since(1 << 62, 1)
        if not self.is_over:
            events.FILES_OF_BEFORE.log(path=self._path)

    async def move(self) -> None:
        """Moves the remaining files until the cluster does not answer; to be called again until ``is_over``."""
        try:
            while not self.is_over:
                found = await self._sql.run("", _nothing, self._store.unread_since, 1 << 62, MOVED_AT_ONCE)
                left = [file for file in found if file.id not in self._unread]
                for file in left:
                    try:
                        await self._move(file)
                    except OSError as error:
                        self._unread.add(file.id)
                        events.FILE_NOT_MOVED.log(file=file.id, path=self._path, cause=cause_text(error))
                self.is_over = not left
        except (Busy, NoRoom):
            return  # the next call goes on
        if self._count:
            events.FILES_MOVED.log(count=self._count, path=self._path)
            self._count = 0

    async def _move(self, file: StoredFile) -> None:
        reader = await self._disk.run("", _nothing, self._store.reader, file.id)
        if reader is not None:
            try:
                if await self._files.adopt(file, reader):
                    self._count += 1
            finally:
                reader.close()
        await self._sql.run("", _nothing, self._store.remove, file.id)


def _nothing() -> None:
    """Does nothing."""
