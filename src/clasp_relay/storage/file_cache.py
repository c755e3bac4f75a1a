"""A relay's copies of files that are in the object store of its cluster: some of them, those that were read lately.

A copy may go at any moment; who reads it meanwhile reads on. Nothing is served that has no record in ``users.db``, so a
copy that was left over by a kill does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from clasp_relay.storage.files import FileFolder, FileReader, FileWriter, charge

__all__ = ["FileCache"]

MAX_COPIES = 20_000
"""How many copies there may be: of each the relay keeps in memory that it is there."""


class FileCache(FileFolder):
    """See the module. Its methods block, and any thread may call them.

    Args:
        folder: where they are; it is made when it is missing.
        max_bytes: how much they may take; one copy always may be there, whatever its size.
        min_free_bytes: room that is left on the disk for the rest of the relay.

    Raises:
        StartError: the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int, min_free_bytes: int = 0) -> None:
        super().__init__(folder, min_free_bytes)
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._sizes: dict[str, int] = {}
        """What each copy takes, the one that was read last at the end."""
        self.bytes = 0
        """What all of them take."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def kept(self) -> list[str]:
        """Returns the ids of all copies."""
        with self._lock:
            return list(self._sizes)

    def load(self) -> list[str]:
        """Takes note of what is there and removes half-written copies; returns the ids of the others.

        Nothing must arrive meanwhile.
        """
        self.remove_parts()
        stats = {each: os.stat(self._folder / each) for each in self.ids()}
        with self._lock:
            for file_id in sorted(stats, key=lambda each: (stats[each].st_mtime, each)):
                self._note(file_id, stats[file_id].st_size)
            self._make_room()
        return self.kept()

    def reader(self, file_id: str) -> FileReader | None:
        """Opens a copy to read, which is then the last to go; None where there is none."""
        with self._lock:
            found = super().reader(file_id)
            size_bytes = self._sizes.pop(file_id, None)
            if found is None:
                self.bytes -= size_bytes or 0
            elif size_bytes is not None:
                self._sizes[file_id] = size_bytes
                found.touch()  # the order outlives a restart
        return found

    def keep(self, writer: FileWriter, file_id: str, size_bytes: int) -> None:
        """Keeps a copy that is written, and removes others that were not read for long where they are too many."""
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
        """Removes copies, as far as they are there."""
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
