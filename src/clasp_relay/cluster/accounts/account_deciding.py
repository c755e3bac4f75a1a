"""The decider's part for accounts: makes records of the calls.

Several calls are attempted on the decider's own ``users.db`` in one transaction, which is rolled back. Their changes go
into the log as one record. The next calls are attempted once that record has come back from the log and is written, so
that each attempt sees the changes of all records before it, and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.cluster.accounts.account_asking import Call, CallPacket
from clasp_relay.cluster.accounts.account_calls import CAUGHT, Failed, Methods, encode_outcome
from clasp_relay.cluster.accounts.account_records import Done, Record, change_of
from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_rows import Attempt, OtherAccounts, Row, Told
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["AccountDecider"]

AT_ONCE = 64
"""How many calls are attempted together."""

MAX_RECORD_BYTES = 256 * 1024
"""A record with more bytes of rows than this has only one call."""

TOO_LARGE_BYTES = 768 * 1024
"""Size limit of the rows of one call; a message of NATS may have 1 MiB."""

AGAIN_S = 0.1
"""After how long an attempt is repeated if another process holds the file."""

MAX_EARLY = 1_000
"""How many packets may wait until the decider has read which calls are done."""


class _Asked(NamedTuple):
    link: str
    call: Call


class AccountDecider:
    """See the module. Made for one epoch.

    Args:
        epoch: the epoch of this decider.
        log: gathers changes for the next batch.
        now_us: the decider's clock, Unix µs.
        store: the store of this relay.
        run: calls a function on the thread of the store.
        methods: the methods of the store.
        head: returns the number and digest of the last record of the log.
        resend: asks a link to send all calls that are not done again.
        call_later: the event loop's.
        is_own: tells whether a link is this relay's own.
    """

    def __init__(
        self,
        epoch: int,
        log: BatchLog,
        now_us: Callable[[], int],
        store: SqliteUsers,
        run: Callable[[Callable[[], Any]], Deferred[Any]],
        methods: Methods,
        head: Callable[[], tuple[int, bytes]],
        resend: Callable[[str], None],
        call_later: Callable[[float, Callable[[], None]], object],
        is_own: Callable[[str], bool],
    ) -> None:
        self.epoch = epoch
        self._log = log
        self._now_us = now_us
        self._store = store
        self._run = run
        self._methods = methods
        self._head = head
        self._resend = resend
        self._call_later = call_later
        self._is_own = is_own
        self._taken: dict[str, int] | None = None
        """The last call of each link that is done or queued here; None until it was read from the file."""
        self._early: list[CallPacket] = []
        self._queue: deque[_Asked] = deque()
        self._is_at_work = False
        """Whether the thread is busy for this object, or a record is on its way into the log and back."""
        self._is_alone = False
        """Whether the next call is attempted alone, since one of several calls has failed all of them."""
        self._is_over = False
        self._known: frozenset[str] = frozenset()
        """Links with calls that were done before this epoch: such a link may have begun to send its accounts."""
        self._base = ""
        """The link whose accounts from before the cluster have become those of the cluster."""

    def receive(self, packet: CallPacket) -> None:
        """Queues the calls of a relay."""
        if packet.epoch != self.epoch or self._is_over:
            return
        if self._taken is None:
            if len(self._early) < MAX_EARLY:
                self._early.append(packet)
            return
        taken = self._taken.get(packet.link, 0)
        if not packet.is_first and packet.previous > taken:
            self._resend(packet.link)
            return
        for call in packet.calls:
            if call.number > taken:
                taken = call.number
                self._queue.append(_Asked(packet.link, call))
        self._taken[packet.link] = taken

    def stop(self) -> None:
        """Makes no more records. Calls that are not in the log were never done."""
        self._is_over = True

    def go_on(self) -> None:
        """Attempts the next queued calls; called when there are some, and when the file has all records of the log."""
        if self._is_at_work or self._is_over:
            return
        if self._taken is None:
            self._is_at_work = True
            self._run(self._store.rows.calls).addCallbacks(self._begun, self._not_begun)
        elif self._queue:
            self._is_at_work = True
            count = 1 if self._is_alone else min(AT_ONCE, len(self._queue))
            asked = [self._queue.popleft() for _ in range(count)]
            calls = [self._call(each) for each in asked]
            self._run(lambda: self._store.rows.attempt(calls, CAUGHT)).addCallbacks(
                lambda attempts: self._attempted(asked, attempts), lambda failure: self._not_attempted(asked, failure)
            ).addErrback(events.CLUSTER_FAULT.failure)

    def recorded(self) -> None:
        """Notes that a record of this decider is in the file."""
        self._is_at_work = False

    def _begun(self, done: dict[str, int]) -> None:
        self._is_at_work = False
        self._taken, self._known = done, frozenset(done)
        early, self._early = self._early, []
        for packet in early:
            self.receive(packet)
        self.go_on()

    def _not_begun(self, failure: Failure) -> None:
        if self._is_over:
            return
        self._is_at_work = False
        if failure.check(StoreBusy) is None:
            events.CLUSTER_FAULT.failure(failure)
        self._call_later(AGAIN_S, self.go_on)

    def _call(self, asked: _Asked) -> Callable[[], object]:
        try:
            call = self._methods.call(asked.call.method, asked.call.arguments)
        except DecodeError as error:
            return _fails(error.message)
        if asked.call.method == "rows.put_base" and not self._takes_base(asked.link):
            return _refuses_base
        if asked.call.method == "users.purge" and not self._is_own(asked.link):
            return _purges_nothing
        return call

    def _takes_base(self, link: str) -> bool:
        """Tells whether a link's accounts from before the cluster become the cluster's: those of the first do."""
        if not self._base and not self._head()[0]:
            self._base = link
        return link == self._base or link in self._known

    def _attempted(self, asked: Sequence[_Asked], attempts: Sequence[Attempt]) -> None:
        if self._is_over:
            return
        self._is_alone = False
        done: list[Done] = []
        rows: list[Row] = []
        told: list[Told] = []
        size_bytes = 0
        for each, attempt in zip(asked, attempts, strict=True):
            mine_bytes = sum(map(_size, attempt.rows))
            if done and size_bytes + mine_bytes > MAX_RECORD_BYTES:
                break  # the other calls are attempted again, after these
            result: object = attempt.result
            is_refused, mine = attempt.is_refused, attempt.rows
            if mine_bytes > TOO_LARGE_BYTES:
                result, is_refused, mine = Failed("a call changes more than a record can have"), True, ()
            done.append(Done(each.link, each.call.number, encode_outcome(result, is_refused=is_refused)))
            rows += mine
            if attempt.told is not None and not is_refused:
                told.append(attempt.told)
            size_bytes += mine_bytes
        self._queue.extendleft(reversed(asked[len(done) :]))
        number, digest = self._head()
        record = Record(number + 1, digest, tuple(done), tuple(rows), tuple(told))
        self._log.append((change_of(record, self._now_us()),))

    def _not_attempted(self, asked: Sequence[_Asked], failure: Failure) -> None:
        """Repeats an attempt if another process holds the file; if a call has failed, attempts calls one by one."""
        if self._is_over:
            return
        if failure.check(StoreBusy) is None:
            if len(asked) == 1:
                events.CLUSTER_FAULT.failure(failure)
                self._attempted(asked, [Attempt(Failed("the relay that decides has a problem"), True, ())])
                return
            self._is_alone = True
        self._queue.extendleft(reversed(asked))
        self._is_at_work = False
        self._call_later(0 if self._is_alone else AGAIN_S, self.go_on)


def _size(row: Row) -> int:
    values = row.key if row.values is None else (*row.key, *row.values)
    return 20 + sum(len(value) if isinstance(value, bytes | str) else 9 for value in values)


def _fails(text: str) -> Callable[[], object]:
    def call() -> object:
        raise Failed(text)

    return call


def _refuses_base() -> object:
    raise OtherAccounts


def _purges_nothing() -> int:
    """Purges nothing: which tokens are still needed only the store of the relay that asked was told."""
    return 0
