"""The files that users of a cluster send to each other, through any of its relays.

Their records are rows of ``users.db``, which the decider changes for all relays. Their bytes are in the cluster's
object store, and each relay keeps copies of some. A file arrives on the disk of the relay that its sender is connected
to. When it is whole, its record is added, which takes the space of the file; the bytes are put into the object store;
the record is marked as stored; and only then the sender is answered. So a file whose sender was answered survives the
loss of the relay. Of any other file bytes without a record may stay, or a record that is never marked as stored:
``SharedFiles.sweep`` removes both.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from clasp_relay.access.file_quotas import GUEST_ADDRESS_BYTES, FileOwner, no_room
from clasp_relay.access.files import Files, Upload, lane_of
from clasp_relay.access.refusals import Busy, NoRoom, Refusal, Unauthenticated
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Slots, Workers
from clasp_relay.errors import cause_text
from clasp_relay.logs import events
from clasp_relay.storage.file_cache import FileCache
from clasp_relay.storage.files import READ_STEP_S, FileReader, FileWriter, StoredFile
from clasp_relay.storage.sent_files import GONE, Bounds, SentFileStore, Totals

__all__ = ["Objects", "SharedFiles"]

P = ParamSpec("P")
T = TypeVar("T")

TRANSFERS_AT_ONCE = 4
"""Files that are put into the object store at once, and as many that are fetched from it: each has a piece of 128 KiB
on the connection, and the relay's messages to other relays wait behind these."""

TRIES = 3
"""How often a file is fetched and opened, if other files displace its copy before it is open."""

MOST_LEFT = 100
"""Objects without a record that a sweep removes. If there are more, and more than half of all, it removes none: then
the records are lost, since failures do not leave so many."""

CHECKED_AT_ONCE = 500
"""Ids that are looked up in one call."""

NOT_CONNECTED = "The relay has no connection to its cluster at the moment. Try again in a few seconds."
_SENDER_GONE = "This account was deleted or disabled."
_REMOVED = "The file was removed while it arrived. Send it again."
_TOO_MANY = "Too many files are being read at once. Try again in a few seconds."
_RETRY_AFTER_S = 5


class Objects(Protocol):
    """The object store. Its methods fail with ``Busy`` if the engine does not answer."""

    def put(self, file_id: str, size_bytes: int, read: Callable[[int, int], Awaitable[bytes]], /) -> Awaitable[bool]:
        """Stores an object; after a failure the pieces that were stored remain.

        Args:
            file_id: its name.
            size_bytes: its length.
            read: returns bytes, given a position and a count.

        Returns:
            whether it is stored; False if a part of it is there already, or another relay stores it.

        Raises:
            Busy: the engine does not answer.
            NoRoom: the object store is full.
        """

    def get(self, file_id: str, write: Callable[[bytes], Awaitable[None]], /) -> Awaitable[bool]:
        """Passes the bytes of an object to ``write``, in order.

        Returns:
            whether all bytes came, and are those that were stored.

        Raises:
            Busy: the engine does not answer.
        """

    def remove(self, file_id: str, /) -> Awaitable[None]:
        """Removes an object, or the part of it that there is.

        Raises:
            Busy: the engine does not answer.
        """

    def names(self, file_id: str | None = None, /) -> Awaitable[Mapping[str, int | None]]:
        """Returns the objects that are in the store, as a whole or in part.

        Args:
            file_id: the object that is looked for; None for all.

        Returns:
            the number of pieces by name; None if the message that comes after the pieces is missing.

        Raises:
            Busy: the engine does not answer.
        """

    def pieces(self, size_bytes: int, /) -> int:
        """Returns the number of pieces of an object of this length."""


class SharedFiles(Files):
    """The files of a cluster; see the module.

    Args:
        records: the rows of ``users.db``.
        calls: makes calls that change the rows at the decider, and all others here.
        cache: this relay's copies; called through ``disk``.
        objects: the object store.
        is_ready: tells whether this relay has caught up with the cluster, so that it may serve clients.
        rest: see ``Files``.
    """

    def __init__(
        self,
        *,
        records: SentFileStore,
        calls: Workers,
        cache: FileCache,
        objects: Objects,
        is_ready: Callable[[], bool],
        **rest: Any,
    ) -> None:
        super().__init__(records=records, folder=cache, **rest)
        self._cache = cache
        self._rows = records
        self._calls = StoreCalls(calls)
        self._objects = objects
        self._is_ready = is_ready
        limits = self.quotas.limits
        self._bounds = Bounds(limits.subject, limits.guest, GUEST_ADDRESS_BYTES, limits.whole, limits.guests)
        self._totals = Totals(0, 0, 0)
        self._to_store = Slots(TRANSFERS_AT_ONCE)
        self._from_store = Slots(TRANSFERS_AT_ONCE)
        self._fetching: dict[str, list[Deferred[bool]]] = {}
        """Deferreds that wait for a file from the object store; they fire with whether the store has answered."""
        self._unstored: set[str] = set()
        """Records that failed uploads have left, since the cluster did not answer."""
        self._arrived_before: frozenset[str] = frozenset()
        """Records that were not marked as stored at the last sweep."""
        self._is_counting = self._is_stale = False

    @property
    def used_bytes(self) -> int:
        """See ``Files``; a file that arrives at another relay counts only once it is whole."""
        return self._totals.charged + self.quotas.bytes

    @property
    def used_by_guests_bytes(self) -> int:
        """See ``Files``."""
        return self._totals.guests_charged + self.quotas.guest_bytes

    @property
    def copies(self) -> tuple[int, int] | None:
        """See ``Files``."""
        return self._cache.count, self._cache.bytes

    def load(self, is_account: Callable[[str], bool]) -> None:  # noqa: ARG002 - rows of guests follow their accounts
        """Removes incomplete copies that an abrupt end has left, and counts the files; see ``Files``."""
        kept = self._cache.load()
        self._cache.forget(self._rows.missing(kept))
        self._count(self._rows.totals())

    def on_sql(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See ``Files``."""
        return Deferred.fromCoroutine(self._calls.run(work, *args, **kwargs))

    # Uploads

    def begin(self, bearer: str | None, address: str, size_bytes: int) -> Upload:
        """See ``Files``; the limits are looked up while the file arrives, and decided when it is whole."""
        if not self._is_ready():
            self.counts.refused += 1
            raise Busy(NOT_CONNECTED, _RETRY_AFTER_S)
        upload = super().begin(bearer, address, size_bytes)
        Deferred.fromCoroutine(self._look_for_room(upload)).addErrback(_tell)
        return upload

    async def _look_for_room(self, upload: Upload) -> None:
        lacking = await self.on_sql(self._rows.lacks, upload.record, self._bounds)
        if lacking:
            upload.refuse(no_room(lacking, self.quotas.limits))

    async def store(self, bearer: str | None, owner: FileOwner, writer: FileWriter, record: StoredFile) -> None:
        """Puts a file into the object store whose bytes are written here; see ``Files``."""
        self._recognise(bearer)  # the token may have ended meanwhile
        await self._to_store.acquire(lane_of(owner))
        try:
            if self._unstored:
                self._remove_later()
            await self._add(record)
            try:
                if not await self._put(owner, await self.on_disk(owner, writer.reader), record):
                    raise Busy(_REMOVED, _RETRY_AFTER_S)
                self._recognise(bearer)
                if not await self.on_sql(self._rows.store, record.id):
                    raise Busy(_REMOVED, _RETRY_AFTER_S)
            except BaseException:
                self._undo(record.id)
                raise
        finally:
            self._to_store.release()
        self.counts.stored += 1
        self.quotas.end(owner)
        self.quotas.give_back(owner, record.size)  # the rows count it from now on
        await self._keep(owner, writer, record)

    async def _add(self, record: StoredFile) -> None:
        try:
            lacking = await self.on_sql(self._rows.add, record, self._bounds)
        except Busy:
            self._undo(record.id)  # the record may have been added in spite of the error
            raise
        if lacking == GONE:
            raise Unauthenticated(_SENDER_GONE)
        if lacking:
            raise no_room(lacking, self.quotas.limits)

    async def _put(self, owner: FileOwner, reader: FileReader, record: StoredFile) -> bool:
        try:
            return await self._put_from(owner, reader, record)
        finally:
            reader.close()

    def _put_from(self, owner: FileOwner, reader: FileReader, record: StoredFile) -> Awaitable[bool]:
        return self._objects.put(
            record.id, record.size, lambda start, count: self.on_disk(owner, reader.read, start, count)
        )

    def _undo(self, file_id: str) -> None:
        """Removes the record and the bytes of a file that is not stored; the sender does not wait for that.

        After a failure the next upload or sweep tries again.
        """
        self._unstored.add(file_id)
        self._remove_later()

    def _remove_later(self) -> None:
        Deferred.fromCoroutine(self._remove_unstored()).addErrback(_tell)

    async def _remove_unstored(self) -> None:
        for file_id in list(self._unstored):
            await self.on_sql(self._rows.remove, file_id)
            await self._objects.remove(file_id)
            self._unstored.discard(file_id)

    async def _keep(self, owner: FileOwner, writer: FileWriter, record: StoredFile) -> None:
        """Keeps the bytes that were written here as this relay's copy."""
        try:
            await self.on_disk(owner, self._cache.keep, writer, record.id, record.size)
            await self._forget_if_removed(owner, record.id)
        except Exception as error:  # it is in the object store
            events.FILE_NOT_KEPT.log(cause=cause_text(error))

    async def adopt(self, file: StoredFile, reader: FileReader) -> bool:
        """Stores a file that was sent before its relay joined the cluster; limits are not checked.

        Args:
            file: its record.
            reader: reads its bytes; it is not closed.

        Returns:
            whether it is stored now; False if its sender was deleted.

        Raises:
            Busy: the cluster does not answer.
            NoRoom: the object store has no room.
        """
        if not self._is_ready():
            raise Busy(NOT_CONNECTED, _RETRY_AFTER_S)
        if await self.on_sql(self._rows.find, file.id) is not None:
            return True
        if not await self.on_sql(self._rows.adopt, file):
            return False
        if not await self._put_from(FileOwner(""), reader, file):
            await self._objects.remove(file.id)  # pieces that a failed attempt has left
            if not await self._put_from(FileOwner(""), reader, file):
                raise Busy(_REMOVED, _RETRY_AFTER_S)
        if not await self.on_sql(self._rows.store, file.id, is_of_before=True):
            raise Busy(_REMOVED, _RETRY_AFTER_S)
        return True

    # Downloads

    async def find(self, bearer: str | None, file_id: str) -> StoredFile:
        """See ``Files``."""
        if not self._is_ready():
            raise Busy(NOT_CONNECTED, _RETRY_AFTER_S)
        return await super().find(bearer, file_id)

    async def _note_read(self, file: StoredFile) -> None:
        now_s = int(self._now_s())
        if now_s - file.read_s >= READ_STEP_S:
            # No call waits for it: files can be read while there is no decider.
            self.on_sql(self._rows.note_read, file.id, now_s).addErrback(_tell)

    async def _open(self, lane: FileOwner, file: StoredFile) -> FileReader | None:
        for _ in range(TRIES):
            reader = await self.on_disk(lane, self._cache.reader, file.id)
            if reader is not None:
                return reader
            if not await self._fetch(lane, file):
                return None
        raise Busy(_TOO_MANY, _RETRY_AFTER_S)

    async def _fetch(self, lane: FileOwner, file: StoredFile) -> bool:
        """Copies a file from the object store, once for all concurrent calls; returns False if it is gone."""
        waiting = self._fetching.get(file.id)
        if waiting is not None:
            done: Deferred[bool] = Deferred()
            waiting.append(done)
            if not await done:
                raise Busy(NOT_CONNECTED, _RETRY_AFTER_S)
            return True
        waiting = self._fetching[file.id] = []
        has_answered = False
        try:
            await self._from_store.acquire(lane_of(lane))
            try:
                is_there = await self._copy(lane, file)
            finally:
                self._from_store.release()
            has_answered = True
        finally:
            del self._fetching[file.id]
            for each in waiting:
                each.callback(has_answered)
        return is_there

    async def _copy(self, lane: FileOwner, file: StoredFile) -> bool:
        writer = self._cache.writer(file.id, file.size)
        is_kept = False
        try:
            is_whole = await self._objects.get(file.id, lambda data: self.on_disk(lane, writer.write, data))
            if is_whole:
                await self.on_disk(lane, self._cache.keep, writer, file.id, file.size)
                is_kept = True
                self.counts.fetched += 1
        finally:
            if not is_kept:
                await self.on_disk(lane, writer.discard)
        if await self._forget_if_removed(lane, file.id):
            return False
        if not is_whole:
            events.FILE_LOST.log(file=file.id)
        return is_whole

    async def _forget_if_removed(self, lane: FileOwner, file_id: str) -> bool:
        """Removes a copy that arrived after its file was removed; returns whether it did."""
        is_removed = bool(await self.on_sql(self._rows.missing, [file_id]))
        if is_removed:
            await self.on_disk(lane, self._cache.forget, [file_id])
        return is_removed

    # Removal

    async def forget(self, record: StoredFile) -> None:
        """See ``Files``."""
        self._undo(record.id)

    async def _remove_all(self, files: Sequence[StoredFile]) -> int:
        removing = [Deferred.fromCoroutine(self._remove(file.id)) for file in files]
        count = 0
        for is_done, result in await DeferredList(removing, consumeErrors=True):
            if not is_done:
                assert isinstance(result, Failure), "failed without a failure"
                result.raiseException()
            count += result is True
        return count

    async def _remove(self, file_id: str) -> bool:
        is_removed = await self.on_sql(self._rows.remove, file_id)
        if is_removed:
            self.counts.removed += 1
            try:
                await self._objects.remove(file_id)
            except Busy:
                """The next sweep removes it."""
        return is_removed

    async def registered(self, subject: str) -> None:
        """Does nothing: the rows of a guest's files change with the account."""

    async def sweep(self, *, acts: bool) -> None:
        """See ``Files``; a relay that has not caught up with the cluster does it later."""
        if not self._is_ready():
            return
        if self._unstored:
            self._remove_later()
        try:
            # Before the names are read: a later copy may be of an object that is not among them.
            kept = self._cache.kept()
            names = await self._objects.names()
            await self._restore(kept, names)
            if acts:
                await self._sweep(names)
        except (Busy, NoRoom):
            """The next sweep does it."""
        except Exception:
            events.FILES_FAULT.failure()  # the other hourly work must not fail with it

    async def _restore(self, kept: Sequence[str], names: Mapping[str, int | None]) -> None:
        """Puts files back that the object store has lost, as a whole or in part, if there are copies here."""
        count = 0
        for begin in range(0, len(kept), CHECKED_AT_ONCE):
            for file in await self.on_sql(self._rows.found, kept[begin : begin + CHECKED_AT_ONCE]):
                if not self._is_whole(file, names):
                    count += await self._put_back_or_forget(file)
        if count:
            events.FILES_RESTORED.log(count=count)

    async def _put_back(self, file: StoredFile) -> bool:
        """Puts one file back, if it is still missing and was not removed; returns whether it did."""
        left = await self._objects.names(file.id)
        if self._is_whole(file, left):
            return False  # another relay was faster
        if await self.on_sql(self._rows.confirm_missing, [file.id]):
            return False  # it was removed: this relay has not read that in the log yet
        reader = await self._disk.run("", _nothing, self._cache.reader, file.id)
        if reader is None:
            return False
        try:
            if left:
                await self._objects.remove(file.id)  # its old pieces would mix with the new ones
            return await self._put(FileOwner(""), reader, file)
        finally:
            reader.close()

    async def _put_back_or_forget(self, file: StoredFile) -> bool:
        """As ``_put_back``, but an unreadable copy is skipped, and removed if it is damaged."""
        try:
            return await self._put_back(file)
        except OSError as error:
            events.FILE_COPY_BAD.log(file=file.id, cause=cause_text(error))
            if error.errno in (None, errno.EIO):  # damaged; others, such as too many open files, pass
                await self._disk.run("", _nothing, self._cache.forget, [file.id])
            return False

    def _is_whole(self, file: StoredFile, names: Mapping[str, int | None]) -> bool:
        return names.get(file.id) == self._objects.pieces(file.size)

    async def _sweep(self, found: Iterable[str]) -> None:
        """Removes what relays have left that ended while files arrived; ``found`` has the names of all objects."""
        arriving = frozenset(await self.on_sql(self._rows.arriving))
        # An upload takes minutes at most: a record that was not marked as stored an hour ago, and is not now, never
        # will be.
        late = sorted(arriving & self._arrived_before)
        self._arrived_before = arriving
        for file_id in late:
            if await self.on_sql(self._rows.remove_unstored, file_id):
                await self._objects.remove(file_id)
        # A record is added before any byte is stored, so an object that has none now, after the names were read, was
        # removed. The log has to confirm that, since a relay that is no longer the decider may lack a record.
        names = sorted(found)
        orphans: list[str] = []
        for begin in range(0, len(names), CHECKED_AT_ONCE):
            missing = await self.on_sql(self._rows.missing, names[begin : begin + CHECKED_AT_ONCE])
            if missing:
                orphans += await self.on_sql(self._rows.confirm_missing, missing)
        if len(orphans) > MOST_LEFT and 2 * len(orphans) > len(names):
            events.FILES_WITHOUT_RECORDS.log(count=len(orphans), all=len(names))
            orphans = []
        for file_id in orphans:
            await self._objects.remove(file_id)
        if late or orphans:
            events.FILES_REMOVED.log(records=len(late), objects=len(orphans))

    # Changes that come by the log

    def follow(self, gone: Iterable[str]) -> None:
        """Removes the copies of files that are gone, and counts again, after rows have changed in ``users.db``."""
        file_ids = list(gone)
        if file_ids:
            self._disk.run("", _nothing, self._cache.forget, file_ids).addErrback(_tell)
        self._recount()

    async def reload(self) -> None:
        """Removes copies and counts again after all rows were replaced."""
        gone = await self.on_sql(self._rows.missing, self._cache.kept())
        await self._disk.run("", _nothing, self._cache.forget, gone)
        self._count(await self.on_sql(self._rows.totals))

    def _recount(self) -> None:
        """Reads the totals again, once for all changes until then."""
        self._is_stale = True
        if not self._is_counting:
            self._is_counting = True
            Deferred.fromCoroutine(self._count_again()).addErrback(_tell)

    async def _count_again(self) -> None:
        try:
            while self._is_stale:
                self._is_stale = False
                self._count(await self.on_sql(self._rows.totals))
        finally:
            self._is_counting = False

    def _count(self, totals: Totals) -> None:
        self._totals, self.stored = totals, totals.files


def _tell(failure: Failure) -> None:
    """Logs a fault; after a refusal the next change or sweep does the work."""
    if failure.check(Refusal) is None:
        events.FILES_FAULT.failure(failure)


def _nothing() -> None:
    """Does nothing: admits every call."""
