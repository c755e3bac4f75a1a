"""The limit of open files: raised as far as possible, with a reserve that connections do not use.

Every connection takes a file descriptor. When none is left, the state cannot be saved and health checks fail, so the
last ones are kept for files and for the health port.
"""

from __future__ import annotations

import errno
import os
import resource
import sys

__all__ = ["RESERVED", "is_none_left", "is_short", "raise_limit", "room_for_sessions"]

RESERVED = 64
"""Descriptors kept back: about 20 are open in a relay without connections, SQLite and a snapshot take 10 more."""


def raise_limit() -> int:
    """Raises the soft limit of open files to the hard one.

    For a process that runs only a relay: epoll works with high descriptors, unlike select().

    Returns:
        The limit in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some systems have a lower one for the whole process
            return _number(soft)
    return _number(hard)


def room_for_sessions(limit: int) -> int:
    """Returns how many connections fit, given the limit of open files."""
    return max(0, limit - RESERVED)


def is_short() -> bool:
    """Tells whether only the reserved descriptors are left.

    The system gives out the lowest free number, so one of the last numbers means that all below it are taken.
    """
    lowest_free = _lowest_free()
    return lowest_free is None or lowest_free >= _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - RESERVED


def is_none_left() -> bool:
    """Tells whether no file can be opened at all, not even on the reserved descriptors."""
    return _lowest_free() is None


def _lowest_free() -> int | None:
    """Returns the lowest free descriptor; None if there is none. Every connection asks for it."""
    try:
        lowest_free = os.dup(0)  # as open() does, without a walk through the file system
    except OSError as error:
        return 0 if error.errno == errno.EBADF else None
    os.close(lowest_free)
    return lowest_free


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
