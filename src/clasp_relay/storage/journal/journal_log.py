"""The log that records changes in ``journal.db``: group commit in a thread of its own.

A commit begins once it has many changes, or once a turn of the event loop brings no more. It begins later while the
loop is behind with reading (``commit_delay``), and at a follower of a cluster (``linger``).

There is one commit at a time; changes that are appended meanwhile are the next batch. A batch is taken between two
events of the loop. So all changes of one message, such as a bundle, or a scheduled bundle's end and its writes, are in
one batch: all are recorded or none.
"""

from __future__ import annotations

import os
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from clasp_relay.core.history.rules import UNKEPT, Erasure
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.errors import ErrorCode, JournalLost, RequestError, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.journal.commit_delay import CommitDelay
from clasp_relay.storage.journal.journal_file import RECORDED_KINDS, Batch, JournalFile, Judge, Recorded, Sizes
from clasp_relay.storage.journal.journal_thread import JournalThread

T = TypeVar("T")

_WRITE, _EVENT = ChangeKind.WRITE, ChangeKind.EVENT

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""Memory limit of the changes that wait to be recorded, not counting the last ones (``ENCODED_AT_ONCE``). Beyond it
writes are refused, so that they do not fill the memory while a disk hangs."""

RENEWAL_STEP_US = 60_000_000
"""The shortest time between two recorded renewals of one address, or a quarter of the life time if that is less."""

KEPT_ROWS = 100_000
"""How many rows a relay of a cluster keeps at least for others that may lack some, unless the journal is half full."""

MAX_RENEWALS = 50_000
"""For how many addresses the time of the last recorded renewal is remembered."""

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Upper bounds of the histogram of commit times."""


class JournalLog:
    """Implements ``core.ports.Log`` over a ``JournalFile``.

    Args:
        reactor: the event loop.
        is_fleeting: tells whether a param at an address ends so soon that its ACK does not wait for the record.
        judge: returns what history does with a change; without history rules nothing.
        min_free_bytes: with less free disk space than this, clients' writes are refused; 0 for no limit.
        max_bytes: size limit of the journal.
        monotonic: returns seconds, to measure commits.
        worked_s: returns the CPU time of the event loop's thread in seconds.
        now_us: returns Unix µs, for the age of entries.
    """

    is_immediate = False

    def __init__(
        self,
        reactor: Any,
        is_fleeting: Callable[[str], bool],
        judge: Judge = lambda _: UNKEPT,
        *,
        min_free_bytes: int = 0,
        max_bytes: int = 1 << 30,
        monotonic: Callable[[], float] = time.monotonic,
        worked_s: Callable[[], float] = time.thread_time,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._reactor = reactor
        self._is_fleeting = is_fleeting
        self.judge = judge
        """See above; set before the first change."""
        self._min_free_bytes = min_free_bytes
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._delay = CommitDelay(worked_s)
        self._now_us = now_us
        self._thread: JournalThread | None = None
        self._file: JournalFile | None = None
        self._gathered = Batch()
        self._batch = 1
        """The number of the batch that is being gathered."""
        self._recorded: Callable[[int], None] = _nobody_waits
        self._committed_bytes = 0
        """Memory of the batch that is being committed."""
        self._is_at_work = False
        self._linger_s = 0.0
        self._beginning: Any = None
        """The timer of the next commit."""
        self._waiters: list[tuple[int, Callable[[], None], Callable[[JournalLost], None]]] = []
        """Callers that wait until a row is recorded: its seq, and what is called then, or when recording has failed."""
        self._renewed_us: dict[str, int] = {}
        self._floors = (0, 0)
        self._position_seq: int | None = None
        """The seq of the last POSITION, which is not trimmed; None if there is none."""
        self._is_maintaining = False
        self.on_lost: Callable[[], None] = _nobody
        """Called once when a commit has failed; set before the first one."""
        self.lost: str = ""
        """Why recording has failed for good, in one line with the file's name; empty while it has not."""
        self.has_all = False
        """Whether this process has appended every row since the first one."""
        self.records_all = False
        """Whether every renewal is recorded, since the caller has left out those that need not be."""
        self.appended_seq = 0
        """The seq of the last change that was appended."""
        self.recorded_seq = 0
        """The seq of the last change that is recorded."""
        self.is_disk_low = False
        """Whether the disk has less free space than ``min_free_bytes``."""
        self.sizes = Sizes(0, 0, 0)
        """The sizes that were measured last."""
        self.commits = 0
        self.entries = 0
        """Number of recorded changes."""
        self.commit_counts = [0] * (len(BOUNDS_S) + 1)
        """Number of commits in each bucket of the histogram, up to its bound; the last bucket has none."""
        self.commit_sum_s = 0.0

    # Life

    def open(self, file: JournalFile, last_seq: int) -> None:
        """Begins to record.

        Args:
            file: the open journal.
            last_seq: the last seq in use; new rows get higher ones.
        """
        assert self._file is None, "opened twice"
        self._file = file
        self.appended_seq = self.recorded_seq = last_seq
        self.has_all = not last_seq
        self._thread = JournalThread(self._reactor, "journal")
        self._look(file)

    def close(self) -> None:
        """Ends the thread, once its work is done, and closes the file. Does nothing if no file is open."""
        file, self._file = self._file, None
        thread, self._thread = self._thread, None
        if file is not None and thread is not None:
            thread.stop()
            file.close()

    @property
    def path(self) -> Path:
        """The path of the open journal."""
        assert self._file is not None, "asked for the path of a closed journal"
        return self._file.path

    # core.ports.Log

    def watch(self, recorded: Callable[[int], None]) -> None:
        """See ``Log.watch``."""
        self._recorded = recorded

    def append(self, changes: Sequence[Change]) -> int:
        """See ``Log.append``. After a failed commit nothing is ever recorded."""
        if self.lost:
            return self._batch
        waits, gathered, seq = False, self._gathered, self.appended_seq
        try:
            for each in changes:
                kind = each.kind
                change = each if kind is _WRITE or kind is _EVENT else self.as_recorded(each)
                if change is None:
                    continue
                key, erasures = self.judge(change)
                waits = waits or key is not None or not self._is_fleeting(change.param.address)
                seq += 1
                gathered.add(seq, change, key, erasures)
        except Exception:
            # Otherwise only a part of the changes would be recorded.
            self._fail(Failure())
            return self._batch
        self.appended_seq = seq
        if not self._is_at_work:
            self._begin_commit()
        return self._batch if waits else 0

    def as_recorded(self, change: Change) -> Change | None:
        """Returns a change as it is recorded; None if it is not."""
        kind = change.kind
        if kind not in RECORDED_KINDS:
            return None
        if kind is not ChangeKind.RENEWAL:
            return change
        return _renewal(change) if self.records_all else self.renewal(change)

    def renewal(self, change: Change) -> Change | None:
        """Returns a renewed life time as it is recorded; None if one there was recorded a moment ago."""
        return _renewal(change) if self._records_renewal(change) else None

    def last_position(self) -> Recorded | None:
        """Returns the last POSITION: how far a cluster's log is in the journal. Called before the first append."""
        assert self._file is not None, "asked a closed journal"
        found = self._file.last_position()
        self._position_seq = None if found is None else found.seq
        return found

    def accounts_behind(self, number: int) -> list[Change]:
        """Returns the ACCOUNTS changes with higher numbers than this one. Called before the first append."""
        assert self._file is not None, "asked a closed journal"
        return self._file.accounts_behind(number)

    def restart_at(self, seq: int) -> None:
        """Makes an empty journal continue after a row of other relays, whose state this one has taken over."""
        assert not self.appended_seq, "a journal that has rows of its own"
        self.appended_seq = self.recorded_seq = seq
        self.has_all = False

    def find_position(self, number: int, call: Callable[[Change | None], None]) -> None:
        """Calls with the POSITION that names a batch of a cluster's log by its number; with None if there is none."""

        def work(file: JournalFile) -> Change | None:
            found = file.position_at(number)
            return None if found is None else found.change

        self._look_up(work, call)

    def read_tail(self, seq: int, last_seq: int, call: Callable[[Sequence[Change] | None], None]) -> None:
        """Calls with the changes from ``seq`` to ``last_seq``, both included; with None if some were deleted."""
        self._look_up(lambda file: file.tail(seq, last_seq), call)

    def _look_up(self, work: Callable[[JournalFile], T], call: Callable[[T], None]) -> None:
        """Calls with the result of a look-up in the file, made once all appended changes are recorded."""

        def look() -> None:
            self.run(work).addCallbacks(call, self._fail).addErrback(events.JOURNAL_FAULT.failure)

        self.when_recorded(look)

    def when_recorded(self, call: Callable[[], None]) -> None:
        """Makes a call once all appended changes are recorded; never if recording fails."""

        def recorded() -> None:
            try:
                call()
            except Exception:
                events.JOURNAL_FAULT.failure()

        if not self.lost:
            self._await_record(recorded, _ignore)

    def append_judged(
        self,
        entries: Iterable[tuple[Change, str | None, tuple[Erasure, ...], bytes]],
        *,
        is_last: bool = False,
    ) -> None:
        """Records changes as they are given: the caller has applied ``as_recorded`` and ``judge`` already.

        Args:
            entries: each change with its key, what it erases, and its bytes; no bytes if it is not encoded yet.
            is_last: whether no more follow in this turn of the event loop, so that a commit may begin at once.
        """
        if self.lost:
            return
        try:
            for change, key, erasures, data in entries:
                seq = self.appended_seq + 1
                self._gathered.add(seq, change, key, erasures, data)
                self.appended_seq = seq
                if change.kind is ChangeKind.POSITION:
                    self._position_seq = seq
        except Exception:
            # Otherwise only a part of the changes would be recorded.
            self._fail(Failure())
            return
        if is_last and not self._is_at_work and self._gathered:
            self._is_at_work = True
            self._delay.saw(self.appended_seq)
            self._commit_in_time()
        else:
            self._begin_commit()

    def _begin_commit(self) -> None:
        if not self._is_at_work and self._gathered:
            self._is_at_work = True
            self._beginning = self._reactor.callLater(self._linger_s, self._commit_in_time)

    def _commit_in_time(self) -> None:
        """Commits, or waits for the next turn (``commit_delay``)."""
        if self.lost:
            return
        is_behind = getattr(self._reactor, "is_behind", False)
        if self._delay.goes_on(self.appended_seq, len(self._gathered), is_behind=is_behind):
            self._reactor.callLater(0, self._commit_in_time)
        else:
            self._commit()

    def check(self) -> None:
        """See ``Log.check``."""
        if self.lost:
            raise RequestError(ErrorCode.OVERLOADED, "the relay cannot record changes and is stopping")
        if self.is_disk_low:
            raise RequestError(ErrorCode.OVERLOADED, "the relay's disk is almost full; try again later")
        if self._committed_bytes + self._gathered.size_bytes > MAX_QUEUED_BYTES:
            raise RequestError(ErrorCode.OVERLOADED, "too many changes wait to be recorded; try again in a moment")

    # For the state file, and for other users of the file

    @property
    def queued_bytes(self) -> int:
        """Approximate memory of the changes that wait to be recorded."""
        return self._committed_bytes + self._gathered.size_bytes

    @property
    def queued(self) -> int:
        """How many changes wait to be recorded."""
        return self.appended_seq - self.recorded_seq

    def recorded(self) -> Deferred[None]:
        """Returns a Deferred that fires once all appended changes are recorded; it fails if recording fails."""
        if self.lost:
            return fail(JournalLost(self.lost))
        done: Deferred[None] = Deferred()
        self._await_record(partial(done.callback, None), done.errback)
        return done

    def _await_record(self, call: Callable[[], None], failed: Callable[[JournalLost], None]) -> None:
        if self.recorded_seq == self.appended_seq:
            call()
            return
        if self._linger_s:
            self._hasten()
        self._waiters.append((self.appended_seq, call, failed))

    def linger(self, delay_s: float) -> None:
        """Delays commits by so many seconds, to gather more changes, unless a caller waits until they are recorded."""
        self._linger_s = delay_s
        if not delay_s:
            self._hasten()

    def _hasten(self) -> None:
        if self._beginning is not None and self._beginning.active():
            self._beginning.reset(0)

    def run(self, work: Callable[[JournalFile], T]) -> Deferred[T]:
        """Calls a function with the file in the journal's thread, between two commits.

        Returns:
            a Deferred of its result. If it fails, commits go on.
        """
        assert self._file is not None, "asked a closed journal to work"
        assert self._thread is not None, "an open journal without a thread"
        return self._thread.run(partial(work, self._file))

    def saved(self, seq: int) -> None:
        """Notes that a state file with all changes up to a seq was written; the one before it stays as ``.1``."""
        self._floors = (self._floors[1], seq)

    def load_floors(self, previous_seq: int, seq: int) -> None:
        """Sets, at the start, the seq of the last change in each of the two generations of the state file."""
        self._floors = (previous_seq, seq)

    @property
    def saved_seq(self) -> int:
        """The seq of the last change in the newest state file; 0 if there is none."""
        return self._floors[1]

    @property
    def wants_state_saved(self) -> bool:
        """Whether the journal has grown so much that a state file should be written before its time."""
        return self.sizes.used_bytes > self._max_bytes // 2 and self._floors[0] < self.recorded_seq

    def maintain(self) -> Deferred[bool | None]:
        """Does what is due once a second: syncs, measures the disk, deletes rows that are not needed any more.

        Returns:
            a Deferred that fires when it is done; it does not fail.
        """
        if self._file is None or self.lost or self._is_maintaining:
            return succeed(None)
        self._is_maintaining = True
        floor_seq = min(self._floors)
        if self._position_seq is not None:
            floor_seq = min(floor_seq, self._position_seq - 1)
            if self.sizes.used_bytes < self._max_bytes // 2:
                floor_seq = min(floor_seq, max(0, self.appended_seq - KEPT_ROWS))
        done = self.run(partial(self._maintain, floor_seq=floor_seq))
        return done.addCallbacks(self._maintained, self._fail)

    # The thread's part

    def _maintain(self, file: JournalFile, *, floor_seq: int) -> bool:
        file.sync()
        self._look(file)
        has_more = file.history.trim_old(self._now_us())
        return file.trim(floor_seq, self._max_bytes) or has_more

    def _look(self, file: JournalFile) -> None:
        """Measures the file, and the free disk space."""
        self.sizes = file.sizes()
        if self._min_free_bytes:
            stat = os.statvfs(file.path.parent)
            self.is_disk_low = stat.f_bavail * stat.f_frsize < self._min_free_bytes

    # The event loop's part

    def _maintained(self, has_more: bool) -> None:
        self._is_maintaining = False
        if has_more and not self.lost and self._file is not None:
            # Piece by piece, so that commits are made in between.
            self._reactor.callLater(0, self.maintain)

    def _commit(self) -> None:
        """Gives the gathered batch to the thread."""
        batch, number = self._gathered, self._batch
        try:
            batch.encode()
        except Exception:
            # Otherwise only a part of the changes would be recorded.
            self._fail(Failure())
            return
        self._gathered = Batch()
        self._batch += 1
        self._committed_bytes = batch.size_bytes
        began_s = self._monotonic()
        assert self._file is not None, "asked a closed journal to commit"
        assert self._thread is not None, "an open journal without a thread"
        self._thread.start(
            partial(self._file.commit, batch),
            lambda _: self._committed(batch.last_seq, len(batch), number, began_s),
            self._fail,
        )

    def _committed(self, seq: int, count: int, number: int, began_s: float) -> None:
        took_s = self._monotonic() - began_s
        self.commits += 1
        self.entries += count
        self.commit_counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.commit_sum_s += took_s
        self.recorded_seq = seq
        self._committed_bytes = 0
        # Before the answers are sent, so that the disk works meanwhile, and no ``append`` that they lead to commits.
        is_waited_for = bool(self._waiters) and self._waiters[-1][0] > seq
        if self._gathered and (is_waited_for or not self._linger_s):
            # The batch has gathered for as long as the last commit took.
            self._delay.saw(self.appended_seq)
            self._commit_in_time()
        else:
            self._is_at_work = False
            self._begin_commit()
        self._recorded(number)
        while self._waiters and self._waiters[0][0] <= seq:
            self._waiters.pop(0)[1]()

    def _fail(self, failure: Failure) -> None:
        """Ends recording for good: what a failed sync has lost, a second sync does not bring back."""
        if self.lost:
            return
        self._is_maintaining = False
        error = failure.value
        path = "the journal" if self._file is None else str(self._file.path)
        self.lost = f"{path}: {cause_text(error)}"
        if failure.check(sqlite3.Error, OSError) is None:
            events.JOURNAL_FAULT.failure(failure)
        events.JOURNAL_LOST.log(path=path, cause=cause_text(error))
        self._gathered = Batch()
        waiters, self._waiters = self._waiters, []
        self.on_lost()
        for _, _, failed in waiters:
            failed(JournalLost(self.lost))

    def _records_renewal(self, change: Change) -> bool:
        """Tells whether a renewal is recorded: if it is late enough after the write or the last recorded renewal."""
        param = change.param
        now_us, ttl_us = _times_us(change)
        since_us = max(param.timestamp_us, self._renewed_us.get(param.address, 0))
        if now_us - since_us < min(RENEWAL_STEP_US, ttl_us // 4):
            return False
        if len(self._renewed_us) >= MAX_RENEWALS:
            self._renewed_us.clear()
        self._renewed_us[param.address] = now_us
        return True


def _times_us(renewal: Change) -> tuple[int, int]:
    """Returns the time of a renewal and its life time, in µs."""
    assert renewal.due_us is not None, "a renewal without a time"
    assert renewal.ttl is not None, "a renewal without a life time"
    ttl_us = renewal.ttl * 1_000_000
    return renewal.due_us - ttl_us, ttl_us


def _renewal(change: Change) -> Change:
    """Returns a renewal as it is recorded: without the param's value."""
    param = change.param
    return change._replace(param=no_param(param.address, "", param.subject, _times_us(change)[0]))


def _nobody_waits(_batch: int) -> None:
    """Does nothing."""


def _nobody() -> None:
    """Does nothing."""


def _ignore(_error: JournalLost) -> None:
    """Does nothing: the call is never made."""
