"""A relay's cache of files in the object store of its cluster: copies of those that were read recently.

A copy may be removed at any moment; a reader of it can read on. A file without a record in ``users.db`` is never
served, so a copy that a kill has left does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from clasp_relay.storage.files import FileFolder, FileReader, FileWriter, charge

__all__ = ["FileCache"]

MAX_COPIES = 20_000
"""Copies at most: the relay has an entry in memory for each."""


class FileCache(FileFolder):
    """See the module. Its methods block, and any thread may call them.

    Args:
        folder: the folder of the copies; it is made if it is missing.
        max_bytes: limit of their size; one copy may always exist, whatever its size.
        min_free_bytes: free disk space that is left for the rest of the relay.

    Raises:
        StartError: the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int, min_free_bytes: int = 0) -> None:
        super().__init__(folder, min_free_bytes)
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._sizes: dict[str, int] = {}
        """The size of each copy, the most recently read last."""
        self.bytes = 0
        """The size of all copies."""

    @property
    def count(self) -> int:
        """Number of copies."""
        return len(self._sizes)

    def kept(self) -> list[str]:
        """Returns the ids of all copies."""
        with self._lock:
            return list(self._sizes)

    def load(self) -> list[str]:
        """Finds the existing copies and removes incomplete ones; returns the ids of the others.

        No copy may be written meanwhile.
        """
        self.remove_parts()
        stats = {each: os.stat(self._folder / each) for each in self.ids()}
        with self._lock:
            for file_id in sorted(stats, key=lambda each: (stats[each].st_mtime, each)):
                self._note(file_id, stats[file_id].st_size)
            self._make_room()
        return self.kept()

    def reader(self, file_id: str) -> FileReader | None:
        """Opens a copy to read, which becomes the most recently read; None if there is none."""
        with self._lock:
            found = super().reader(file_id)
            size_bytes = self._sizes.pop(file_id, None)
            if found is None:
                self.bytes -= size_bytes or 0
            elif size_bytes is not None:
                self._sizes[file_id] = size_bytes
                found.touch()  # keeps the order over a restart
        return found

    def keep(self, writer: FileWriter, file_id: str, size_bytes: int) -> None:
        """Adds a written copy, and removes the least recently read ones over the limits."""
        try:
            writer.sync()
            writer.publish()
        except BaseException:
            writer.discard()
            raise
        with self._lock:
            self._note(file_id, size_bytes)
            self._make_room()

    def forget(self, file_ids: Iterable[str]) -> None:
        """Removes copies, if they exist."""
        with self._lock:
            for file_id in file_ids:
                self.bytes -= self._sizes.pop(file_id, 0)
                self.unlink(file_id)

    def _note(self, file_id: str, size_bytes: int) -> None:
        self.bytes -= self._sizes.pop(file_id, 0)
        charged = charge(size_bytes)
        self._sizes[file_id] = charged
        self.bytes += charged

    def _make_room(self) -> None:
        while len(self._sizes) > 1 and (self.bytes > self._max_bytes or len(self._sizes) > MAX_COPIES):
            oldest = next(iter(self._sizes))
            self.bytes -= self._sizes.pop(oldest)
            self.unlink(oldest)
