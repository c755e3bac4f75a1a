"""The folders of the relay's files: makes them, checks that they are writable, and locks files for one relay."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import tempfile
from pathlib import Path

from clasp_relay.errors import StartError

FILE_MODE = 0o600
"""The mode of folders with users' data: only the relay's user may read them."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""Errors of ``flock`` on file systems without locks (some network shares)."""

_HOLDER = re.compile(r"process [0-9]+ on [!-~]+")
"""The text of a lock file; any other text is not quoted."""

_HOLDER_BYTES = 512
"""Bytes of a lock file that are read."""

_CURES = {
    errno.EXDEV: "mount the folder that it is in, not the file alone",
    errno.EBUSY: "mount the folder that it is in, not the file alone",
    errno.EROFS: "mount its file system for writing",
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room in the quota of the relay's user",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files (sysctl fs.file-max)",
}


def is_plain(path: Path) -> bool:
    """Tells whether there is a plain file, or none. Opening a pipe would block until its other end is opened."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # opening it will raise the same
        return True


def cannot_write(option: str, path: Path, error: OSError) -> StartError:
    """Returns the error for an operator whose file or folder cannot be written to.

    Args:
        option: the option that named it.
        path: the file or folder.
        error: the system's error.
    """
    cure = _CURES.get(error.errno or 0, f"name a folder that user {os.geteuid()} may write to")
    return StartError(f"{option}: cannot write to {path} ({error.strerror}); {cure}")


def prepare_folder(option: str, folder: Path) -> None:
    """Makes a folder if it is missing, and checks that files can be made there.

    Args:
        option: the option that named it, for the message.
        folder: its path.

    Raises:
        StartError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(option, folder, error) from error


class FileLock:
    """Locks a file against a second relay, until ``release`` or the end of the process.

    The lock is an ``flock`` on a file beside it, which holds the number of the process. The kernel drops the lock
    with the process, however it ends, so a file that was left behind, whatever number it holds, locks nothing. It is
    never deleted: a relay that has opened it to lock it would otherwise lock a file that is not in the folder any more.

    Args:
        option: the option that named the file, for the message.
        path: of the file, which need not exist; its folder must.

    Raises:
        StartError: another relay has the file, or the lock file cannot be made.
    """

    def __init__(self, option: str, path: Path) -> None:
        path = Path(os.path.realpath(path))
        self.path = path.with_name(path.name + ".lock")
        """The lock file."""
        self.warning: str | None = None
        """A warning for the operator; None for none."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        except OSError as error:
            raise cannot_write(option, self.path, error) from error
        try:
            self._lock(option, path)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Releases the lock. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self, option: str, path: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"{option}: {path.parent} is in use by another relay ({self._holder()}), "
                f"which keeps {path.name} there; stop that one first, or give each a folder of its own"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise cannot_write(option, self.path, error) from error
            self.warning = (
                f"{path.parent}: its file system has no locks ({error.strerror}): "
                "make sure that no other relay uses this folder"
            )
        try:
            self._sign()
        except OSError as error:
            raise cannot_write(option, self.path, error) from error

    def _sign(self) -> None:
        """Writes the holder of the lock into the file."""
        if os.geteuid() == 0:
            # A relay that starts as root and drops privileges, or later starts without them, must be able to open it.
            owner = self.path.parent.stat()
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)
        os.ftruncate(self._descriptor, 0)
        # With the host's name: each container has a process 1.
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _holder(self) -> str:
        said = os.pread(self._descriptor, _HOLDER_BYTES, 0).decode("ascii", "replace").strip()
        return said if _HOLDER.fullmatch(said) else "it has not said which process"
