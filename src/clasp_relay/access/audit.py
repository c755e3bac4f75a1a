"""The audit log while the relay runs: collects entries and writes them in batches on the SQL thread.

Actions of administrators are written before they are answered, those of users (sign-ins and the like) a moment later.
The latter are limited for each client address, so that none can fill the disk; entries left out are counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from clasp_relay.access.refusals import Busy
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.logs import events
from clasp_relay.storage.audit import AuditEntry, AuditRow, AuditStore

__all__ = ["Actor", "Audit"]

DAY_S = 86_400

FAILURES = (0.2, 60)
"""Failed calls of one client address that are written, a second and at once; a person who mistypes makes fewer."""

SUCCESSES = (1.0, 300)
"""The same for calls that succeed: a school signs in within minutes."""

ALL_FAILURES = (0.5, 20_000)
ALL_SUCCESSES = (2.0, 50_000)
"""The same for all client addresses together: an attacker with many of them needs days, not minutes, to displace all
other entries of the log (``storage.audit.MAX_ROWS``)."""

ALWAYS_KEPT = frozenset({"console", "password", "reset"})
"""Calls that are always written if they succeed, so that none is left out because of many others; each costs a hash."""

MAX_ADDRESSES = 10_000
"""Client addresses whose calls are counted at once; the least recent one is forgotten first."""

MAX_PENDING = 10_000
"""Entries about calls of users that may wait for the disk; further ones are counted and left out."""

RETRY_S = 1.0
"""Seconds until the next attempt if another process holds the file."""

EXPORTED_AT_ONCE = 500
"""Rows of an export that are read in one call."""

SEARCHED_AT_MOST = 100
"""Calls that a search makes for one page: 200,000 rows."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The user who acts.

    Args:
        user_id: empty if the user is not known.
        name: the user's name.
        address: the client's.
    """

    user_id: str = ""
    name: str = ""
    address: str = ""


class Audit:
    """The audit log.

    Args:
        store: the table of the log.
        sql: the thread that the store is called on.
        clock: for the next attempt.
        now_s: Unix seconds.
        mark_of: returns the keyed hash of a client address, so that the file has no addresses.
        max_age_days: how long entries are kept; 0 for ever.
    """

    def __init__(
        self,
        store: AuditStore,
        sql: Workers,
        clock: IReactorTime,
        now_s: Callable[[], float],
        mark_of: Callable[[str], str],
        max_age_days: int,
    ) -> None:
        self._store = store
        self._calls = StoreCalls(sql)
        self._clock = clock
        self._now_s = now_s
        self._mark_of = mark_of
        self._max_age_days = max_age_days
        self._pending: list[AuditEntry] = []
        self._waiting: list[Deferred[None]] = []
        """Deferreds to fire once all that is pending is written."""
        self._is_writing = False
        self._is_closed = False
        self._retry: IDelayedCall | None = None
        self._limiters: OrderedDict[tuple[str, bool], Limiter] = OrderedDict()
        self._left_out = 0
        now_us = int(now_s() * 1_000_000)
        self._whole = {False: Limiter(*ALL_FAILURES, now_us), True: Limiter(*ALL_SUCCESSES, now_us)}
        """The limits of all client addresses together, by whether calls succeed."""

    def entry(
        self, action: str, who: Actor, target: str = "", outcome: str = "ok", detail: Mapping[str, Any] | None = None
    ) -> AuditEntry:
        """Returns an entry for what happens now."""
        return AuditEntry(
            int(self._now_s()),
            action,
            outcome,
            who.user_id,
            who.name,
            target,
            self._mark_of(who.address),
            detail or {},
        )

    def note(self, action: str, outcome: str, who: Actor) -> None:
        """Adds an entry about a call of the auth API; it is written a moment later."""
        if self._is_closed:
            return
        is_kept = outcome == "ok" and action in ALWAYS_KEPT
        if not is_kept and (len(self._pending) >= MAX_PENDING or not self._has_room(who.address, outcome == "ok")):
            self._left_out += 1
            return
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self._pending.append(self.entry("audit.left_out", Actor(), detail={"count": count}))
        self._pending.append(self.entry(action, who, outcome=outcome))
        self._write()

    def record(self, entry: AuditEntry) -> Deferred[None]:
        """Adds an entry; the Deferred fires when it is on the disk."""
        done: Deferred[None] = Deferred()
        self._pending.append(entry)
        self._waiting.append(done)
        self._write()
        return done

    def close(self) -> None:
        """Writes what is pending, on this thread: called after the SQL thread has stopped.

        Later entries are left out: they are about calls that are refused because of the stop.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        pending, self._pending = self._pending, []
        if self._left_out:
            pending.append(self.entry("audit.left_out", Actor(), detail={"count": self._left_out}))
        if pending:
            self._store.add(pending)

    async def page(
        self, before: int | None, limit: int, action: str = "", search: str = ""
    ) -> tuple[list[AuditRow], int]:
        """Returns rows, the latest first, and ``before`` of the next page; 0 at the end.

        Raises:
            Refusal: the store cannot be asked now.
        """
        found: list[AuditRow] = []
        for _ in range(SEARCHED_AT_MOST):
            rows, before = await self._calls.run(self._store.before, before, limit - len(found), action, search)
            found += rows
            if len(found) >= limit or not before:
                break
        return found, before or 0

    async def after(self, seq: int) -> list[AuditRow]:
        """Returns the next rows of an export.

        Raises:
            Refusal: the store cannot be asked now.
        """
        return await self._calls.run(self._store.after, seq, EXPORTED_AT_ONCE)

    async def trim(self) -> int:
        """Deletes rows that are too old; returns their number. To be called periodically.

        A busy relay deletes them the next time.
        """
        before_s = int(self._now_s()) - self._max_age_days * DAY_S if self._max_age_days else 0
        removed = 0
        while True:
            try:
                count = await self._calls.run(self._store.trim, before_s)
            except Busy:
                return removed
            removed += count
            if not count:
                return removed

    def _has_room(self, address: str, is_success: bool) -> bool:
        """Counts one more call of a client address, and tells whether the limits allow its entry."""
        now_us = int(self._now_s() * 1_000_000)
        key = self._mark_of(address), is_success
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = Limiter(*(SUCCESSES if is_success else FAILURES), now_us)
            if len(self._limiters) > MAX_ADDRESSES:
                self._limiters.popitem(last=False)
        self._limiters.move_to_end(key)
        return limiter.take(1, now_us) and self._whole[is_success].take(1, now_us)

    def _write(self) -> None:
        if self._is_writing or self._retry is not None or not self._pending:
            return
        self._is_writing = True
        batch, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        done = Deferred.fromCoroutine(self._calls.run(self._store.add, batch))
        done.addCallbacks(self._written, self._failed, callbackArgs=(waiting,), errbackArgs=(batch, waiting))

    def _written(self, _: None, waiting: list[Deferred[None]]) -> None:
        self._is_writing = False
        for done in waiting:
            done.callback(None)
        self._write()

    def _failed(self, failure: Failure, batch: list[AuditEntry], waiting: list[Deferred[None]]) -> None:
        """Tries again later if another process holds the file; other errors are logged, and fail waiting entries."""
        self._is_writing = False
        if failure.check(Busy):
            self._pending[:0] = batch
            self._waiting[:0] = waiting
            self._retry = self._clock.callLater(RETRY_S, self._again)
            return
        events.AUDIT_FAULT.failure(failure)
        for done in waiting:
            done.errback(failure)
        self._write()

    def _again(self) -> None:
        self._retry = None
        self._write()
