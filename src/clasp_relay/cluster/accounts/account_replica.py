"""This relay's copy of the cluster's accounts: its ``users.db``, at a position in the log.

Each record of the log names the one before it, so that no record is left out. Its rows are applied to memory at once,
and written to the file a moment later, on the store's thread; then those who asked for the changes are answered. A
relay that joins takes all rows from the image of another relay.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.cluster.accounts.account_asking import AccountCalls, LookingBehind
from clasp_relay.cluster.accounts.account_images import decode_pieces, read_pieces
from clasp_relay.cluster.accounts.account_records import Record, record_of
from clasp_relay.core.ports import Timer
from clasp_relay.core.records import Change
from clasp_relay.errors import ClaspError, DecodeError, StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_rows import Row, RowStore

__all__ = ["AccountReplica", "RowsInMemory"]

AGAIN_S = 0.2
"""After how long writing is repeated if another process holds the file."""

WRITTEN_AT_ONCE = 64
"""How many records are given to the store's thread at once; each is a transaction of its own."""


class RowsInMemory(Protocol):
    """What the relay has of the rows in memory."""

    def follow(self, rows: Sequence[Row]) -> None:
        """Applies changed rows, in the log's order."""

    def written(self, rows: Sequence[Row]) -> None:
        """Notes that rows are in the file."""

    def reload(self) -> Deferred[None]:
        """Loads everything from the file; memory is empty before."""


class _Read(NamedTuple):
    """A record of the log that is not written yet."""

    record: Record
    digest: bytes


class AccountReplica:
    """See the module. Implements ``account_images.AccountImages``.

    Args:
        calls: this relay's calls, which are answered when their records are in the file.
        behind: has callers that wait until a record is in the file.
        run: calls a function on the store's thread.
        call_later: the event loop's.
        busy_kind: the exception of ``run``, and of memory, when that thread is overloaded or stopping.
        when_recorded: called for each record that is in the file, before its calls are answered.
        when_current: called when the file has all records that were read here.
        when_fatal: called with one line for the operator when the relay cannot go on.
    """

    def __init__(
        self,
        calls: AccountCalls,
        behind: LookingBehind,
        run: Callable[[Callable[[], Any]], Deferred[Any]],
        call_later: Callable[[float, Callable[[], None]], Timer],
        busy_kind: type[Exception],
        when_recorded: Callable[[], None],
        when_current: Callable[[], None],
        when_fatal: Callable[[str], None],
    ) -> None:
        self._calls = calls
        self._behind = behind
        self._run = run
        self._call_later = call_later
        self._busy_kind = busy_kind
        self._when_recorded = when_recorded
        self._when_current = when_current
        self._when_fatal = when_fatal
        self._number = 0
        self._digest = self._origin = b""
        self._written = 0
        self._unwritten: deque[_Read] = deque()
        self._captures: list[Callable[[], None]] = []
        """Functions that begin images, called when the file has more records."""
        self._retry: Timer | None = None
        self._is_writing = self._is_over = False
        self.has_base = False
        """Whether the file has accounts from before the cluster that the cluster does not have yet."""

    def open(self, rows: RowStore, memory: RowsInMemory) -> None:
        """Begins to note changes of the file. It calls the store on this thread, so before the event loop runs.

        Args:
            rows: the rows of the file.
            memory: the memory that follows the rows.
        """
        self._rows, self._memory = rows, memory
        position = rows.begin()
        self._number = self._written = position.number
        self._digest, self._origin = position.digest, position.origin
        self.has_base = position.has_base and not position.number

    def stop(self) -> None:
        """Writes nothing any more."""
        self._is_over = True
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        self._captures = []

    @property
    def number(self) -> int:
        """The number of the last record that was read here."""
        return self._number

    @property
    def head(self) -> tuple[int, bytes]:
        """Number and digest of the last record that was read here."""
        return self._number, self._digest

    @property
    def written(self) -> int:
        """The number of the last record that is in the file."""
        return self._written

    @property
    def is_current(self) -> bool:
        """Whether the file has all records that were read here."""
        return not self._unwritten

    # Records

    def catch_up(self, changes: Sequence[Change]) -> None:
        """Writes the records that the journal has and the file has not, before the event loop runs.

        Args:
            changes: the records after ``number``, in order.

        Raises:
            StartError: journal and file do not belong together.
            StoreBusy: another process holds the file.
        """
        for change in changes:
            try:
                read = self._next(change)
                if read is not None:
                    self._write_one(read)
            except StoreBusy:
                raise
            except (ClaspError, sqlite3.IntegrityError) as error:
                raise StartError(
                    f"the journal does not go on where users.db is ({error}): start with an empty data-dir"
                ) from None
            if read is not None:
                self._written = read.record.number
                self._memory.follow(read.record.rows)
                self._memory.written(read.record.rows)

    def follow(self, change: Change) -> None:
        """Applies the next record of the log: to memory at once, to the file a moment later."""
        if self._is_over:
            return
        try:
            read = self._next(change)
        except ClaspError as error:
            self._fatal(f"the log of the cluster does not go on where users.db is ({error})")
            return
        if read is None:
            return
        if self.has_base and read.record.number == 1 and not self._calls.is_in(read.record):
            self.refuse_base()
            return
        self._memory.follow(read.record.rows)
        self._unwritten.append(read)
        self._write()

    def _next(self, change: Change) -> _Read | None:
        """Returns a record if it is the next one; None if it is here already.

        Raises:
            ClaspError: records are missing before it, or it is of another log.
        """
        if change.number < self._number:
            return None
        if change.number == self._number:
            if self._number and record_of(change)[1] != self._digest:
                raise ClaspError(f"record {change.number} is another one than the record {self._number} that is here")
            return None
        if change.number != self._number + 1:
            raise ClaspError(f"record {change.number} comes behind record {self._number}")
        record, digest = record_of(change)
        if record.previous != self._digest:
            raise ClaspError(f"record {change.number} does not follow the record {self._number} that is here")
        self._number, self._digest = record.number, digest
        self._origin = self._origin or digest
        return _Read(record, digest)

    def _write(self) -> None:
        """Has the store's thread write the next records."""
        self._retry = None
        if self._is_writing or self._is_over:
            return
        if not self._unwritten:
            self._when_current()
            return
        self._is_writing = True
        reads = [self._unwritten[place] for place in range(min(len(self._unwritten), WRITTEN_AT_ONCE))]
        done = self._run(lambda: self._write_all(reads))
        done.addCallbacks(lambda _: self._have_written(reads), self._not_written).addErrback(
            events.CLUSTER_FAULT.failure
        )

    def _write_all(self, reads: Sequence[_Read]) -> None:
        for read in reads:
            self._write_one(read)

    def _write_one(self, read: _Read) -> None:
        record = read.record
        calls = [(done.link, done.number) for done in record.done]
        self._rows.follow(record.number, read.digest, record.rows, calls, record.told)

    def _have_written(self, reads: Sequence[_Read]) -> None:
        self._is_writing = False
        for read in reads:
            self._unwritten.popleft()
            self._written = read.record.number
            self._memory.written(read.record.rows)
            self._when_recorded()
            self._calls.answer(read.record)
        self._behind.written(self._written)
        captures, self._captures = self._captures, []
        for begin in captures:
            begin()
        self._write()

    def _not_written(self, failure: Failure) -> None:
        self._is_writing = False
        if failure.check(StoreBusy, self._busy_kind) is not None:
            if not self._is_over:
                self._retry = self._call_later(AGAIN_S, self._write)
        else:
            self._fatal(f"users.db cannot be written: {cause_text(failure.value)}")

    # Images

    def capture(self, done: Callable[[list[bytes]], None], still: Callable[[], None]) -> None:
        """See ``account_images.AccountImages``."""
        self._capture_from(self._number, done, still)

    def _capture_from(self, number: int, done: Callable[[list[bytes]], None], still: Callable[[], None]) -> None:
        """Captures once the records up to a number are written.

        The image may have later ones, too: its reader ignores them when it finds them in the log.
        """
        if self._written < number:
            self._captures.append(partial(self._capture_from, number, done, still))
        else:
            read_pieces(self._rows, self._run, done, still, self._not_captured)

    def _not_captured(self, failure: Failure) -> None:
        """Logs the failure; the relay that waits for the image asks again."""
        if failure.check(StoreBusy, self._busy_kind) is None:
            events.CLUSTER_FAULT.failure(failure)

    def install(self, pieces: Sequence[bytes], done: Callable[[], None]) -> None:
        """See ``account_images.AccountImages``."""
        try:
            position, calls, _ = decode_pieces(pieces)
        except (DecodeError, IndexError):
            self._fatal("the relay that decides has no accounts for this one")
            return
        if not (position.number or self._number):
            done()  # the cluster has none yet
            return
        if self.has_base or self._number > position.number or self._origin not in (b"", position.origin):
            self.refuse_base()
            return

        def write() -> Deferred[None]:
            # Decoded for each attempt, since the iterator of rows can be read only once.
            _, _, rows = decode_pieces(pieces)
            return self._run(lambda: self._rows.install(position, calls.items(), rows))

        def written() -> None:
            self._number = self._written = position.number
            self._digest, self._origin = position.digest, position.origin
            self._install(self._memory.reload, known)

        def known() -> None:
            self._behind.written(self._written)
            done()

        self._install(write, written)

    def _install(self, step: Callable[[], Deferred[None]], done: Callable[[], None]) -> None:
        """Makes a step of the installation; repeats it while another process holds the file."""
        self._retry = None

        def did(_: None) -> None:
            if not self._is_over:
                done()

        def failed(failure: Failure) -> None:
            if failure.check(StoreBusy, self._busy_kind) is None:
                self._fatal(f"the accounts of the cluster cannot be written to users.db ({cause_text(failure.value)})")
            elif not self._is_over:
                self._retry = self._call_later(AGAIN_S, lambda: self._install(step, done))

        step().addCallbacks(did, failed).addErrback(events.CLUSTER_FAULT.failure)

    # Faults

    def refuse_base(self) -> None:
        """Ends the relay, since its file has accounts that are not those of the cluster."""
        self._fatal("this relay's users.db has accounts that are not those of the cluster")

    def _fatal(self, text: str) -> None:
        self._when_fatal(f"{text}: start this relay with an empty data-dir, or give the cluster another name")
