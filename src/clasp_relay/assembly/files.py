"""Puts together the files that users send to each other: on this relay's disk, or in its cluster's object store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from clasp_relay.access.file_quotas import GUEST_BYTES, FileLimits, FileQuotas
from clasp_relay.access.files import Files, OwnFiles
from clasp_relay.access.files_of_before import FilesOfBefore
from clasp_relay.access.shared_files import Objects, SharedFiles
from clasp_relay.access.threads import ThreadWorkers, Workers
from clasp_relay.access.tokens import TokenRecord
from clasp_relay.settings import Settings
from clasp_relay.storage.file_cache import FileCache
from clasp_relay.storage.files import FileStore, record_damage_told
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["FileParts", "told_limits"]

THREADS = 2
"""Threads that write and read files: a sync of one does not keep the others waiting."""

MAX_WAITING_CALLS = 2048
"""Length of the queue of these threads: every upload and every download has at most one call in it."""


class FileParts:
    """The parts of the files.

    Args:
        settings: the settings.
        reactor: the event loop.
        is_user: tells whether a subject has signed in as a registered user.
        scopes_of: returns the scopes that a token carries.
        sql: the thread that SQLite is called on.
        calls: makes the calls of users.db.
        objects: the object store of a cluster; None for a relay that is alone, or takes no files.
        is_ready: tells whether the relay serves clients.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        is_user: Callable[[str], bool],
        scopes_of: Callable[[TokenRecord], Sequence[str]],
        sql: Workers,
        calls: Workers,
        objects: Objects | None,
        is_ready: Callable[[], bool],
    ) -> None:
        self.files: Files | None = None
        """The files; from ``open`` on."""
        self.before: FilesOfBefore | None = None
        """Moves files from before this relay joined its cluster; None if there are none."""
        self._settings = settings
        self._is_user = is_user
        self._scopes_of = scopes_of
        self._sql = sql
        self._calls = calls
        self._objects = objects
        self._is_ready = is_ready
        self._disk = ThreadWorkers(reactor, THREADS, MAX_WAITING_CALLS, "files")
        self._store: FileStore | None = None

    def open(
        self, store: SqliteUsers, recognise: Callable[[str | None], TokenRecord], hash_of: Callable[[str], bytes]
    ) -> None:
        """Opens the files; called before the event loop runs.

        Args:
            store: the users' database.
            recognise: returns a token's record, or raises ``Unauthenticated``.
            hash_of: returns the keyed hash of a client address.

        Raises:
            StartError: a file or folder cannot be used.
        """
        settings = self._settings
        limits = FileLimits(
            file=settings.files_max_file, subject=settings.files_per_user, whole=settings.files_max_bytes
        )
        common: dict[str, Any] = {
            "disk": self._disk,
            "quotas": FileQuotas(limits),
            "recognise": recognise,
            "scopes_of": self._scopes_of,
            "is_user": self._is_user,
            "hash_of": hash_of,
            "days": settings.files_days,
            "now_s": time.time,
            "random_hex": secrets.token_hex,
        }

        def is_account(subject: str) -> bool:
            return store.user(subject) is not None

        files: Files
        if self._objects is None:
            self._store = FileStore(settings.files_folder, settings.files_database, settings.min_free_bytes)
            files = OwnFiles(store=self._store, sql=self._sql, **common)
            with record_damage_told(settings.files_database):
                files.load(is_account)
        else:
            files = SharedFiles(
                records=store.files,
                calls=self._calls,
                cache=FileCache(settings.files_cache, settings.files_cache_bytes, settings.min_free_bytes),
                objects=self._objects,
                is_ready=self._is_ready,
                **common,
            )
            self.before = self._open_files_of_before(files)
            files.load(is_account)
        self.files = files

    def _open_files_of_before(self, files: SharedFiles) -> FilesOfBefore | None:
        """Opens the files from before this relay joined its cluster; returns None if there are none."""
        settings = self._settings
        if not settings.files_database.exists():
            return None
        store = self._store = FileStore(settings.files_folder, settings.files_database, settings.min_free_bytes)
        before = FilesOfBefore(store, files, self._sql, self._disk, str(settings.files_database))
        with record_damage_told(settings.files_database):
            before.load()
        return None if before.is_over else before

    def start(self) -> None:
        """Starts the threads."""
        self._disk.start()

    def stop(self) -> None:
        """Stops the threads."""
        self._disk.stop()

    def close(self) -> None:
        """Closes files.db."""
        if self._store is not None:
            self._store.close()


def told_limits(settings: Settings) -> dict[str, int] | None:
    """Returns the limits of files that clients are sent, in bytes and days; None where the relay takes no files."""
    if not settings.takes_files:
        return None
    return {
        "max_file": settings.files_max_file,
        "per_user": settings.files_per_user,
        "per_guest": min(GUEST_BYTES, settings.files_per_user or GUEST_BYTES),
        "days": settings.files_days,
    }
