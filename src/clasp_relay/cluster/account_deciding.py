"""The decider's part for accounts: makes records of the calls.

Calls are attempted on the decider's own ``users.db``, several in one transaction, which is rolled back: what they would
have led to goes into the log as one record, and the next ones are attempted once the log has brought that back and it
is written. So an attempt always finds what the records before it have led to, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.cluster.account_asking import Call, CallPacket
from clasp_relay.cluster.account_calls import CAUGHT, Failed, Methods, encode_outcome
from clasp_relay.cluster.account_records import Done, Record, change_of
from clasp_relay.cluster.deciding import BatchLog
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_rows import Attempt, OtherAccounts, Row, Told
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["AccountDecider"]

AT_ONCE = 64
"""How many calls are attempted together."""

MAX_RECORD_BYTES = 256 * 1024
"""From this size on a record takes no further call."""

TOO_LARGE_BYTES = 768 * 1024
"""What the rows of one call may take; NATS carries 1 MiB at most."""

AGAIN_S = 0.1
"""How long an attempt waits while another process holds the file."""

MAX_EARLY = 1_000
"""How many packets wait until the decider knows what is done."""


class _Asked(NamedTuple):
    link: str
    call: Call


class AccountDecider:
    """See the module. Made for one epoch.

    Args:
        epoch: this decider's.
        log: gathers what becomes the next batch.
        now_us: the decider's clock, Unix µs.
        store: this relay's.
        run: calls something on the thread of the store.
        methods: the store's.
        head: returns the number and digest of the last record of the log.
        resend: has a relay send all again that is not done.
        call_later: the event loop's.
        is_own: tells whether calls are of this relay's own run, by the name of that.
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
        """Up to which number each relay's calls are done or wait here; None until the file has told."""
        self._early: list[CallPacket] = []
        self._queue: deque[_Asked] = deque()
        self._is_at_work = False
        """Whether something is at work on the thread, or a record is on its way into the log and from there to here."""
        self._is_alone = False
        """Whether calls are attempted one by one, since one of them has failed the others."""
        self._is_over = False
        self._known: frozenset[str] = frozenset()
        """The relays of which calls were done before this decider's time: such a one has begun to tell its accounts."""
        self._base = ""
        """Whose accounts from before the cluster have become those of the cluster."""

    def receive(self, packet: CallPacket) -> None:
        """Takes what a relay asks."""
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
        """Ends it: what is not in the log was never done."""
        self._is_over = True

    def go_on(self) -> None:
        """Attempts what waits; called when there is something, and when the file has all that the log has."""
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
        """Is told that a record of the log, this decider's own, is written."""
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
        """Tells whether the accounts that a relay had before become those of the cluster: the first one's do."""
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
                break  # the others are attempted again, behind these
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
        """Tries again where another process holds the file; finds out which call it was where one has failed."""
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
    """Which tokens are still needed was told to the store of the relay that asked, before another one decided."""
    return 0
