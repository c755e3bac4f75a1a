"""Files that users send to each other: checks who may send, read and delete them, and moves their bytes.

Every signed-in user who knows a file's id may read it: the id has 128 random bits and is sent in messages. Names and
types of files are sent in messages, too; the relay does not know them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail

from clasp_relay.access.file_quotas import FileOwner, FileQuotas, charge
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.access.refusals import Busy, Forbidden, Limited, Missing, NoRoom, Refusal
from clasp_relay.access.threads import LANE, Workers
from clasp_relay.access.tokens import TokenRecord
from clasp_relay.errors import ClaspError, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.files import DiskFull, FileFolder, FileReader, FileStore, FileUse, FileWriter, StoredFile

__all__ = [
    "FileCounts",
    "FileReading",
    "Files",
    "OwnFiles",
    "Records",
    "Upload",
    "UploadCut",
    "refusal_of",
]

P = ParamSpec("P")
T = TypeVar("T")

WRITE_BYTES = 128 * 1024
"""Bytes that are written to the disk at once: each write costs the event loop a tenth of a millisecond."""

MAX_WAITING_BYTES = 512 * 1024
"""Bytes of one file that wait for the disk before nothing more is read from its sender."""

READS_PER_ADDRESS = 100
"""Files that one client address reads at once: each is open, and has 128 KiB in memory while its reader is slow."""

DAY_S = 86_400

_ENDED_AT_ONCE = 200
"""Files that are deleted in one call of the SQL thread; a sign-in that comes meanwhile waits for milliseconds."""

_SOON_S = 5

_ID = re.compile(r"[0-9a-f]{32}")
_NO_SUCH_FILE = "There is no such file. It may have been deleted, or nobody has read it for long."
_DISK_FULL = "The relay's disk is full. Try again later, or tell its operator."


class Records(Protocol):
    """The records of files: what those of one relay and those of a cluster have in common. Its methods block."""

    def find(self, file_id: str, /) -> StoredFile | None:
        """Returns the record of a file; None if there is none."""

    def usage(self, subjects: Sequence[str], /) -> list[FileUse]:
        """Returns the space that the files of some users take."""

    def unread_since(self, before_s: int, limit: int, /) -> list[StoredFile]:
        """Returns files that were last read before a time, the longest unread first."""

    def of_subject(self, subject: str, limit: int, /) -> list[StoredFile]:
        """Returns files of one user, the oldest first."""


class UploadCut(ClaspError):
    """The sender has disconnected before the file was whole."""


@dataclass(slots=True)
class FileCounts:
    """Counts since the start."""

    stored: int = 0
    cut: int = 0
    """Uploads that ended early."""
    refused: int = 0
    """Uploads that were refused, or failed."""
    read: int = 0
    """Reads that were begun."""
    removed: int = 0
    """Files that were deleted, or that nobody had read for long."""
    received_bytes: int = 0
    sent_bytes: int = 0
    fetched: int = 0
    """Files that were copied from the object store of a cluster."""


class Upload:
    """An upload. For the event loop's thread.

    Args:
        files: the files of the relay.
        writer: writes its bytes.
        record: the record that it will have.
        owner: its owner.
        bearer: the token that it is sent with.
    """

    def __init__(
        self, files: Files, writer: FileWriter, record: StoredFile, owner: FileOwner, bearer: str | None
    ) -> None:
        self.room: Callable[[], None] = _nothing
        """Called when more may be written after ``write`` returned False."""
        self.record = record
        """The record that it will have."""
        self._files = files
        self._writer = writer
        self._owner = owner
        self._bearer = bearer
        self._waiting = bytearray()
        self._writing_bytes = 0
        self._has_failed = False
        self._failure: Exception | None = None
        """Why it failed; None once that was told: the traceback of what is raised holds whoever has waited for it, and
        so this upload."""
        self._is_whole = False
        self._is_full = False
        self._is_at_work = False
        self._is_over = False
        self._done: Deferred[StoredFile] = Deferred()

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return self.record.size

    def write(self, data: bytes) -> bool:
        """Takes bytes.

        Returns:
            whether more may be written now; otherwise when ``room`` is called.
        """
        if not self._has_failed:
            self._files.counts.received_bytes += len(data)
            self._waiting += data
            self._work()
        self._is_full = not self._has_failed and len(self._waiting) + self._writing_bytes > MAX_WAITING_BYTES
        return not self._is_full

    def finish(self) -> Deferred[StoredFile]:
        """Stores the file, after all of its bytes were written.

        Returns:
            a Deferred of its record. It fails with a ``Refusal``, with ``UploadCut``, or with an error of the disk.
        """
        self._is_whole = True
        if self._is_over and self._failure is not None:
            return fail(self._take_failure())
        self._work()
        return self._done

    def abort(self) -> None:
        """Ends the upload, since its sender is gone. Does nothing when all bytes have come, or it has failed."""
        if not self._has_failed and not self._is_whole:
            self._fail(UploadCut("the sender is gone"))
            self._work()

    def refuse(self, refusal: Refusal) -> None:
        """Ends the upload with a refusal. Does nothing when all bytes have come, or it has failed."""
        if not self._has_failed and not self._is_whole:
            self._fail(refusal)
            self._work()

    def _work(self) -> None:
        """Begins to write, or to end the upload, unless that has begun already."""
        if self._is_at_work or self._is_over:
            return
        if self._is_whole or self._has_failed or len(self._waiting) >= WRITE_BYTES:
            self._is_at_work = True
            Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        try:
            while not self._has_failed and len(self._waiting) >= (1 if self._is_whole else WRITE_BYTES):
                data, self._waiting = self._waiting, bytearray()
                self._writing_bytes = len(data)
                await self._files.on_disk(self._owner, self._writer.write, data)
                self._writing_bytes = 0
                if self._is_full and len(self._waiting) <= MAX_WAITING_BYTES:
                    self._is_full = False
                    self.room()
            if not self._has_failed and not self._is_whole:
                self._is_at_work = False
                return
            if not self._has_failed:
                await self._files.store(self._bearer, self._owner, self._writer, self.record)
        except Exception as error:
            # Its traceback holds this frame, which would be a reference cycle.
            self._fail(error.with_traceback(None) if isinstance(error, Refusal) else error)
        if self._failure is not None:
            await self._files.drop(self._owner, self._writer, self.record, self._failure)
        self._is_over = True
        if not self._is_whole:
            return
        if self._has_failed:
            self._done.errback(self._take_failure())
        else:
            self._done.callback(self.record)

    def _take_failure(self) -> Exception:
        failure, self._failure = self._failure, None
        assert failure is not None, "taken before it failed, or twice"
        return failure

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed, self._failure = True, error
        self._waiting.clear()
        self._writing_bytes = 0
        if self._is_full:
            self._is_full = False
            self.room()


class FileReading:
    """A file that is being read.

    Args:
        files: the files of the relay.
        record: the file's record.
        reader: reads its bytes.
        lane: the lane of the client that reads it.
    """

    def __init__(self, files: Files, record: StoredFile, reader: FileReader, lane: FileOwner) -> None:
        self.record = record
        """The file's record."""
        self._files = files
        self._reader = reader
        self._lane = lane

    async def read(self, start: int, count: int) -> bytes:
        """Returns bytes from a position on."""
        data = await self._files.on_disk(self._lane, self._reader.read, start, count)
        self._files.counts.sent_bytes += len(data)
        return data

    def close(self) -> None:
        """Closes the file; no ``read`` may be at work. A second call does nothing."""
        if self._reader.close():
            self._files.end_reading(self._lane)


class Files(ABC):
    """The files of a relay. All methods are for the event loop's thread.

    Args:
        records: the records of files; called through ``on_sql``.
        folder: the folder that their bytes are written to; called through ``disk``.
        disk: the threads that bytes are read and written on.
        quotas: the limits of disk space.
        recognise: returns a token's record, or raises ``Unauthenticated``.
        scopes_of: returns the scopes that a token carries.
        is_user: tells whether a subject has signed in as a registered user, and so is no guest any more.
        hash_of: returns the keyed hash of a client address.
        days: after how many days a file is deleted that nobody reads; 0 for never.
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
    """

    def __init__(
        self,
        *,
        records: Records,
        folder: FileFolder,
        disk: Workers,
        quotas: FileQuotas,
        recognise: Callable[[str | None], TokenRecord],
        scopes_of: Callable[[TokenRecord], Sequence[str]],
        is_user: Callable[[str], bool],
        hash_of: Callable[[str], bytes],
        days: int,
        now_s: Callable[[], float],
        random_hex: Callable[[int], str],
    ) -> None:
        self.quotas = quotas
        """The space that files take, and its limits."""
        self.counts = FileCounts()
        """The counts."""
        self.stored = 0
        """Number of files."""
        self._records = records
        self._folder = folder
        self._disk = disk
        self._recognise = recognise
        self._scopes_of = scopes_of
        self._is_user = is_user
        self._hash_of = hash_of
        self._days = days
        self._now_s = now_s
        self._random_hex = random_hex
        self._reading: Counter[bytes] = Counter()
        """Files that are being read, by keyed hashes of client addresses."""

    @property
    def used_bytes(self) -> int:
        """The bytes of all files, those that are arriving included."""
        return self.quotas.bytes

    @property
    def used_by_guests_bytes(self) -> int:
        """The bytes of the files of guests."""
        return self.quotas.guest_bytes

    @property
    def copies(self) -> tuple[int, int] | None:
        """Number and bytes of this relay's copies of files in a cluster's object store; None without a cluster."""
        return None

    # Access to the records

    @abstractmethod
    def load(self, is_account: Callable[[str], bool]) -> None:
        """Counts the files that exist, on the caller's thread, before the relay listens.

        Args:
            is_account: tells whether an id is a registered user's.
        """

    @abstractmethod
    def on_sql(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Calls a method of the records."""

    @abstractmethod
    async def store(self, bearer: str | None, owner: FileOwner, writer: FileWriter, record: StoredFile) -> None:
        """Stores a file whose bytes are written; for ``Upload``."""

    @abstractmethod
    async def registered(self, subject: str) -> None:
        """Counts a guest's files as a user's from now on, since the guest has registered."""

    @abstractmethod
    async def sweep(self, *, acts: bool) -> None:
        """Removes what failures have left; to be called once an hour.

        Args:
            acts: whether this relay does that for the whole cluster.
        """

    @abstractmethod
    async def _note_read(self, file: StoredFile) -> None:
        """Notes that a file is read."""

    @abstractmethod
    async def _open(self, lane: FileOwner, file: StoredFile) -> FileReader | None:
        """Opens a file; returns None if it is gone."""

    @abstractmethod
    async def _remove_all(self, files: Sequence[StoredFile]) -> int:
        """Deletes files; returns how many of them existed."""

    # Requests of clients

    def begin(self, bearer: str | None, address: str, size_bytes: int) -> Upload:
        """Begins an upload.

        Args:
            bearer: the presented token.
            address: the client's.
            size_bytes: the file's length.

        Raises:
            Refusal: it is not accepted.
        """
        try:
            token = self._recognise(bearer)
            origin = self._hash_of(address)
            is_guest = token.guest and not self._is_user(token.subject)
            owner = FileOwner(token.subject, origin if is_guest else b"", origin)
            self.quotas.begin(owner, size_bytes)
        except Refusal:
            self.counts.refused += 1
            raise
        now_s = int(self._now_s())
        file_id = self._random_hex(16)
        record = StoredFile(file_id, owner.subject, owner.origin, size_bytes, charge(size_bytes), now_s, now_s)
        return Upload(self, self._folder.writer(file_id, size_bytes), record, owner, bearer)

    async def find(self, bearer: str | None, file_id: str) -> StoredFile:
        """Returns the record of a file, and notes that it is read.

        Raises:
            Refusal: the token is not valid, or there is no such file.
        """
        self._recognise(bearer)
        file = await self._find(file_id)
        await self._note_read(file)
        return file

    async def open(self, bearer: str | None, address: str, file: StoredFile) -> FileReading:
        """Opens a file to read.

        Args:
            bearer: the presented token.
            address: the client's.
            file: its record.

        Raises:
            Refusal: the token is not valid, the file is gone, or too many are being read.
        """
        lane = FileOwner(self._recognise(bearer).subject, address=self._hash_of(address))
        if self._reading[lane.address] >= READS_PER_ADDRESS:
            raise Limited("Too many files are being read at once. Try again when one of them has arrived.", _SOON_S)
        self._reading[lane.address] += 1
        try:
            reader = await self._open(lane, file)
            if reader is None:
                raise Missing(_NO_SUCH_FILE)
        except BaseException:
            self.end_reading(lane)
            raise
        self.counts.read += 1
        return FileReading(self, file, reader, lane)

    def end_reading(self, lane: FileOwner) -> None:
        """Counts a file as being read no longer; for ``FileReading``."""
        self._reading[lane.address] -= 1
        if not self._reading[lane.address]:
            del self._reading[lane.address]

    async def remove(self, bearer: str | None, file_id: str) -> None:
        """Deletes a file.

        Raises:
            Refusal: there is no such file, or it is somebody else's.
        """
        token = self._recognise(bearer)
        file = await self._find(file_id)
        if file.subject != token.subject and not Scopes.parse(self._scopes_of(token)).is_admin_everywhere:
            raise Forbidden("This file is somebody else's: only who sent it or an administrator may delete it.")
        await self._remove_all([file])

    async def remove_all_of(self, subject: str) -> int:
        """Deletes all files of a user; returns their number."""
        count = 0
        while found := await self.on_sql(self._records.of_subject, subject, _ENDED_AT_ONCE):
            count += await self._remove_all(found)
        return count

    async def usage(self, subjects: Sequence[str]) -> list[FileUse]:
        """Returns the space that the files of some users take."""
        return await self.on_sql(self._records.usage, subjects)

    async def end_old(self) -> None:
        """Deletes files that nobody has read for ``days``; the next call retries those that cannot be deleted now."""
        if not self._days or not self.stored:
            return
        before_s = int(self._now_s()) - self._days * DAY_S
        count = 0
        try:
            while found := await self.on_sql(self._records.unread_since, before_s, _ENDED_AT_ONCE):
                count += await self._remove_all(found)
        except Busy:
            """The other hourly work has to go on; the next call tries again."""
        if count:
            events.FILES_ENDED.log(count=count, days=self._days)

    def on_disk(self, lane: FileOwner, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Calls a function on one of the disk's threads."""
        return self._disk.run(lane_of(lane), _nothing, work, *args, **kwargs)

    async def drop(self, owner: FileOwner, writer: FileWriter, record: StoredFile, why: Exception) -> None:
        """Removes what was written of a file that did not arrive; for ``Upload``."""
        if isinstance(why, UploadCut):
            self.counts.cut += 1
        else:
            self.counts.refused += 1
        if isinstance(why, OSError | DiskFull):
            events.FILE_NOT_STORED.log(cause=cause_text(why))
        try:
            await self.on_disk(owner, writer.discard)
        except Exception as error:  # the next start removes it
            events.FILE_NOT_STORED.log(cause=cause_text(error))
        self.quotas.end(owner)
        self.quotas.give_back(owner, record.size)

    async def forget(self, record: StoredFile) -> None:
        """Deletes a file whose sender has disconnected before it was told the id."""
        await self._remove_all([record])

    async def _find(self, file_id: str) -> StoredFile:
        file = await self.on_sql(self._records.find, file_id) if _ID.fullmatch(file_id) else None
        if file is None:
            raise Missing(_NO_SUCH_FILE)
        return file


class OwnFiles(Files):
    """The files of a relay without a cluster: all of them are on its disk.

    Args:
        store: where they are; called through ``sql`` and ``disk``.
        sql: the one thread that records are read and written on.
        rest: see ``Files``.
    """

    def __init__(self, *, store: FileStore, sql: Workers, **rest: Any) -> None:
        super().__init__(records=store, folder=store, **rest)
        self._store = store
        self._sql = sql
        self._unnamed: dict[str, list[Deferred[None]]] = {}
        """Ids of files that have a record and no name on the disk yet, with the Deferreds that wait for that."""

    def load(self, is_account: Callable[[str], bool]) -> None:
        """Removes what an abrupt end has left, and counts the files; see ``Files``."""
        swept = self._store.sweep()
        if swept.parts or swept.records:
            events.FILES_SWEPT.log(parts=swept.parts, records=swept.records)
        if swept.strangers:
            events.FILES_UNKNOWN.log(count=swept.strangers)
        for subject in {each.subject for each in self._store.usage() if each.origin}:
            if is_account(subject):
                self._store.give_to_account(subject)
        used = self._store.usage()
        self.quotas.load((FileOwner(each.subject, each.origin), each.charged) for each in used)
        self.stored = sum(each.files for each in used)

    def on_sql(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See ``Files``."""
        return self._sql.run(LANE.get(), _nothing, work, *args, **kwargs)

    async def registered(self, subject: str) -> None:
        """See ``Files``."""
        try:
            used = await self.on_sql(self._store.give_to_account, subject)
        except Busy:
            return  # the next start does it
        for use in used:
            self.quotas.move(FileOwner(use.subject, use.origin), use.charged)

    async def sweep(self, *, acts: bool) -> None:
        """Does nothing: only a start finds anything to remove."""

    async def store(self, bearer: str | None, owner: FileOwner, writer: FileWriter, record: StoredFile) -> None:
        """Records a file whose bytes are written, and names it; see ``Files``."""
        self._recognise(bearer)  # the token may have ended meanwhile
        await self.on_disk(owner, writer.sync)
        # Again: if the token has ended meanwhile, the files of its user may be being deleted already.
        self._recognise(bearer)
        waiting = self._unnamed[record.id] = []
        try:
            await self.on_sql(self._store.add, record)
            try:
                await self.on_disk(owner, writer.publish)
            except Exception:
                await self.on_sql(self._store.remove, record.id)
                raise
            self.quotas.end(owner)
            self.stored += 1
            self.counts.stored += 1
            if owner.is_guest and self._is_user(owner.subject):
                await self.registered(owner.subject)  # the guest has registered while the file arrived
        finally:
            del self._unnamed[record.id]
            for done in waiting:
                done.callback(None)

    async def _note_read(self, file: StoredFile) -> None:
        await self.on_sql(self._store.note_read, file, int(self._now_s()))

    async def _open(self, lane: FileOwner, file: StoredFile) -> FileReader | None:
        return await self.on_disk(lane, self._store.reader, file.id)

    async def _remove_all(self, files: Sequence[StoredFile]) -> int:
        count = 0
        for file in files:
            count += await self._remove(file)
        return count

    async def _remove(self, file: StoredFile) -> bool:
        if file.id in self._unnamed:
            named: Deferred[None] = Deferred()
            self._unnamed[file.id].append(named)
            await named
        removed = await self.on_sql(self._store.remove, file.id)
        if removed is None:
            return False
        self.quotas.give_back(FileOwner(removed.subject, removed.origin), removed.size)
        self.stored -= 1
        self.counts.removed += 1
        return True


def lane_of(owner: FileOwner) -> str:
    """Returns the lane of an owner's work: the client address, or the user if no address is known."""
    return owner.address.hex() or owner.subject


def refusal_of(error: BaseException | None) -> Refusal | None:
    """Returns the refusal that a client is told of for a failed upload; None if it is a fault of the relay."""
    if isinstance(error, DiskFull):
        return NoRoom(_DISK_FULL)
    return error if isinstance(error, Refusal) else None


def _nothing() -> None:
    """Does nothing."""
