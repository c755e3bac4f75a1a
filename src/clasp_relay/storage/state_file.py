"""The state file: written atomically, with the previous one kept beside it."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import NamedTuple

from clasp_relay.core.records import StateImage
from clasp_relay.errors import StartError
from clasp_relay.storage.folder import FILE_MODE, cannot_write, is_plain
from clasp_relay.storage.state_reading import Restored, read_state
from clasp_relay.storage.state_writing import HEAD_BYTES, read_journal_seq

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""The errors of ``link`` on file systems without hard links (FAT, some network shares)."""

_NO_RESERVING = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""The errors of ``posix_fallocate`` on file systems that cannot reserve space."""

_TRIED_BYTES = 4096
"""How many bytes a trial writes, to find out that a disk has not one free block."""


class LoadedState(NamedTuple):
    """The contents of the file when the relay started."""

    image: StateImage
    warnings: list[str]
    """One line for each warning to the operator."""
    found: bool
    """Whether there was a file."""


class StateFile:
    """``state.json``, its last generation ``state.json.1``, and ``state.json.tmp`` while it is written.

    Everything here waits for the disk: it is meant for the time before the reactor runs, and for a
    thread afterwards, one call at a time.

    Args:
        path: of the file; its folder must exist. A symbolic link is followed, once.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self.previous = self._beside(".1")
        self._temporary = self._beside(".tmp")
        self._linked = self._beside(".1.tmp")
        self._loaded = False
        self._original: Path | None = None
        """The path under which the present file is kept, if it has more in it than was loaded."""

    def load(self, now_us: int | None = None) -> LoadedState:
        """Reads the file. A ``.tmp`` that an interrupted write left is ignored; the next write removes it.

        Args:
            now_us: Unix µs; later deletions in the file count as of then. None to take their times as they are.

        Returns:
            The state; an empty one if there is no file.

        Raises:
            StartError: the file cannot be read, or it is no state file. It is left as it is.
        """
        for path in (self.path, self.previous):
            if not is_plain(path):
                raise StartError(f"{path}: cannot be read (it is no plain file): move it away; it was not changed")
        try:
            with self.path.open("rb", buffering=0) as file:
                restored = read_state(file) if now_us is None else read_state(file, now_us)
        except FileNotFoundError:
            self._loaded = True
            return LoadedState(StateImage(params=[], ended=[], expires_us={}), self._missing(), found=False)
        except OSError as error:
            raise StartError(
                f"{self.path}: cannot be read ({error.strerror}): make it a file that I may read"
            ) from error
        except ValueError as error:
            raise StartError(f"{self.path}: not a state file ({error}): {self._cure()}; it was not changed") from error
        self._loaded = True
        return LoadedState(restored.image, self._warnings(restored), found=True)

    @property
    def previous_journal_seq(self) -> int:
        """The last change of the journal that the previous generation includes; 0 if there is none."""
        try:
            with self.previous.open("rb") as file:
                return read_journal_seq(file.read(HEAD_BYTES))
        except OSError:
            # So the journal deletes nothing that may be nowhere else.
            return 0

    def _warnings(self, restored: Restored) -> list[str]:
        warnings = []
        if restored.left_out:
            self._original = self._free_name()
            kept = f"before this file is replaced, it is kept as {self._original.name}"
            warnings.append(f"{self.path}: left out {restored.left_out}; {kept}")
        if restored.postdated:
            warnings.append(f"{self.path}: has {restored.postdated}")
        return warnings

    def _free_name(self) -> Path:
        """Returns an unused path for a file with more in it than was loaded; replaces no earlier one."""
        names = (self._beside(".before-limits" + (f".{number}" if number > 1 else "")) for number in count(1))
        return next(name for name in names if not name.exists())

    def try_write(self, option: str) -> None:
        """Tries all steps of a save, so that the operator learns at the start, and not after a loss, that one fails.

        It makes a file, reserves as much space as the present state takes, syncs and renames it, and renames the
        present file to its own name, which fails if that single file is a mount. All files are the same afterwards.

        Args:
            option: the option that named the file, for the message.

        Raises:
            StartError: one of these steps failed.
        """
        try:
            self._try_new_file()
            if self._link_present():
                # If both names are links to one file, the system only checks the rename; a copy replaces the file.
                os.replace(self._linked, self.path)
        except OSError as error:
            raise cannot_write(option, self.path, error) from error
        finally:
            for path in (self._temporary, self._linked):
                if not path.is_dir():  # a folder of that name may be the cause
                    path.unlink(missing_ok=True)

    def _try_new_file(self) -> None:
        self._temporary.unlink(missing_ok=True)
        size_bytes = self.path.stat().st_size if self.path.exists() else 0
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with open(descriptor, "wb") as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            if sys.platform != "darwin":  # which has no posix_fallocate
                try:
                    os.posix_fallocate(file.fileno(), 0, max(size_bytes, _TRIED_BYTES))
                except OSError as error:
                    if error.errno not in _NO_RESERVING:
                        raise
            os.fsync(file.fileno())
        os.replace(self._temporary, self._linked)

    def save(self, pieces: Iterable[bytes]) -> int:
        """Writes a new file in place of the old one, which is kept as ``.1``.

        At every moment, even after a power failure, the file exists and is either the old one or the new one.

        Args:
            pieces: the new content.

        Returns:
            How many bytes were written.

        Raises:
            OSError: it cannot be written (disk full, …); the old file is still there.
        """
        if not self._loaded:
            raise AssertionError("a state file must be read before it is written: a broken one is never overwritten")
        self._temporary.unlink(missing_ok=True)
        try:
            size_bytes = self._write(pieces)
            self._keep_original()
            self._keep_previous()
            os.replace(self._temporary, self.path)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        self._sync_folder()
        return size_bytes

    def _write(self, pieces: Iterable[bytes]) -> int:
        size_bytes = 0
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with open(descriptor, "wb") as file:
            for piece in pieces:
                size_bytes += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return size_bytes

    def _keep_original(self) -> None:
        """Keeps a file that has more in it than was loaded, under another name."""
        if self._original is not None and self._link_present():
            os.replace(self._linked, self._original)
            self._original = None

    def _keep_previous(self) -> None:
        """Makes the old file ``.1``, through a temporary name, so that there is always a ``.1``."""
        if self._link_present():
            os.replace(self._linked, self.previous)

    def _link_present(self) -> bool:
        """Links the present file to a temporary name, or copies it; returns whether there is a file."""
        self._linked.unlink(missing_ok=True)
        try:
            os.link(self.path, self._linked)
        except FileNotFoundError:  # the first time
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._copy_present()
        return True

    def _copy_present(self) -> None:
        descriptor = os.open(self._linked, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with open(self.path, "rb") as source, open(descriptor, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())

    def _sync_folder(self) -> None:
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _cure(self) -> str:
        if self.previous.exists():
            return f"move it away to start empty, or restore {self.previous.name} in its place"
        return "move it away to start empty, or restore a backup in its place"

    def _missing(self) -> list[str]:
        if not self.previous.exists():
            return []
        return [
            f"{self.path}: missing, so the relay starts empty, although {self.previous.name} is there: "
            "if that is not meant, stop the relay and copy it into place"
        ]
