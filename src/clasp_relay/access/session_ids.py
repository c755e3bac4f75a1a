"""The session ids of subjects: a client that has reconnected may go on to use the id of its first session.

A session id is a subject's own while the session is connected, and for a day after it was given, or was last seen
connected, which is noted every hour; also after a restart of the relay. The number of kept ids is bounded for each
subject and in all. If there are too many, the subject that has most loses the one that was seen longest ago, so
that no subject can displace the ids of others.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from clasp_relay.access.policy.language.question import SessionIds
from clasp_relay.access.refusals import Busy
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.core.session.sessions import Session, SessionTable
from clasp_relay.logs import events
from clasp_relay.storage.session_ids import GivenId, SessionIdStore

__all__ = ["KEPT_S", "MAX_IDS", "MAX_IDS_PER_SUBJECT", "KnownSessionIds", "SessionIdsOfAll"]

KEPT_S = 86_400
"""Seconds for which an id is still its subject's, after the session was last seen."""

MAX_IDS_PER_SUBJECT = 256
"""Ids that are kept for one subject: more than the sessions that one client address may have at once."""

GATHER_S = 1.0
"""Seconds for which ids are collected after others were stored. Without that a thousand clients that connected at once
were stored in as many transactions as the store's thread could begin, which took 0.2 s of CPU time."""

MAX_IDS = 50_000
"""Ids that are kept in all, about 15 MB: those of a thousand clients that reconnect every half hour."""


class KnownSessionIds:
    """Implements ``access.policy.language.question.SessionIds``.

    Args:
        sessions: the connected sessions.
        now_us: Unix µs.
        outdated: called with an id whose owner has changed.
    """

    def __init__(self, sessions: SessionTable, now_us: Callable[[], int], outdated: Callable[[str], None]) -> None:
        self._sessions = sessions
        self._now_us = now_us
        self._outdated = outdated
        self._given: dict[str, GivenId] = {}
        """By session id, in the order in which they were last seen."""
        self._of: dict[str, dict[str, None]] = {}
        """The ids of each subject, in the same order."""
        self._by_count: list[dict[str, None]] = [{} for _ in range(MAX_IDS_PER_SUBJECT + 2)]
        """The subjects by their number of ids."""
        self._unsaved: dict[str, GivenId] = {}
        self._forgotten: dict[str, None] = {}
        """Forgotten ids that are still to be deleted from the store."""
        self._store: SessionIdStore | None = None
        self._calls: StoreCalls | None = None
        self._clock: IReactorTime | None = None
        self._is_saving = False
        self._gathering: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._given)

    def open(self, store: SessionIdStore, sql: Workers, clock: IReactorTime) -> None:
        """Loads the ids; calls the store on this thread, so before the event loop runs.

        Args:
            store: where the ids are stored.
            sql: the thread that the store is called on later.
            clock: for timers.
        """
        self._store, self._calls, self._clock = store, StoreCalls(sql), clock
        for given in store.all(self._now_s() - KEPT_S, MAX_IDS):
            self._add(given)

    async def reload(self) -> None:
        """Adds the ids in the store to those that are known here.

        Raises:
            Refusal: the store cannot be asked now.
        """
        assert self._store is not None, "used before it was opened"
        assert self._calls is not None, "used before it was opened"
        for given in await self._calls.run(self._store.all, self._now_s() - KEPT_S, MAX_IDS):
            self.follow(given)

    def began(self, session: Session) -> None:
        """Notes the subject of a session that has become live."""
        self._note(session)
        self._save()

    def own_until_us(self, subject: str, session_id: str, now_us: int) -> int | None:
        """See ``SessionIds``."""
        given = self._given.get(session_id)
        if given is not None and given.subject == subject:
            until_us = (given.seen_s + KEPT_S) * 1_000_000
            if now_us < until_us:
                return until_us
        # The id of a connected session need not be among the kept ones.
        return _connected_until_us(self._sessions, subject, session_id, now_us)

    def renew(self) -> None:
        """Notes which sessions are still connected, and forgets old ids; to be called every hour."""
        now_s = self._now_s()
        for session in self._sessions.all():
            self._note(session)
        for given in list(self._given.values()):
            if given.seen_s >= now_s - KEPT_S:
                break
            self._forget(given)
        self._save()

    def follow(self, given: GivenId) -> None:
        """Takes over an id as the store has it, whichever relay has given it."""
        known = self._given.get(given.session_id)
        if known is None or known.seen_s < given.seen_s:
            self._add(given)
            self._outdated(given.session_id)

    def close(self) -> None:
        """Stores what is not stored yet; calls the store on this thread, so after the SQL thread has stopped."""
        self._clock = None
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._store is not None and self._is_unsaved:
            self._store.note(*self._take_unsaved(), self._now_s() - KEPT_S)

    def _note(self, session: Session) -> None:
        """Notes that a session is connected."""
        if not session.identity.subject:
            return
        if session.identity.token:  # without one the subject is this session's alone, or the relay's own
            given = GivenId(session.id, session.identity.subject, self._now_s())
            self._unsaved[session.id] = given
            self._forgotten.pop(session.id, None)
            self._add(given)
        self._outdated(session.id)

    def _add(self, given: GivenId) -> None:
        self._given.pop(given.session_id, None)
        self._given[given.session_id] = given
        mine = self._of.setdefault(given.subject, {})
        had = len(mine)
        mine.pop(given.session_id, None)
        mine[given.session_id] = None
        self._count(given.subject, had, len(mine))
        if len(mine) > MAX_IDS_PER_SUBJECT:
            self._forget(self._given[next(iter(mine))])
        elif len(self._given) > MAX_IDS:
            richest = next(iter(next(filter(None, reversed(self._by_count)))))
            self._forget(self._given[next(iter(self._of[richest]))])

    def _forget(self, given: GivenId) -> None:
        del self._given[given.session_id]
        self._unsaved.pop(given.session_id, None)
        if self._store is not None and len(self._forgotten) < MAX_IDS:  # else the store forgets it in a day
            self._forgotten[given.session_id] = None
        mine = self._of[given.subject]
        del mine[given.session_id]
        self._count(given.subject, len(mine) + 1, len(mine))
        if not mine:
            del self._of[given.subject]
        self._outdated(given.session_id)

    def _count(self, subject: str, had: int, has: int) -> None:
        if has != had:
            self._by_count[had].pop(subject, None)
            if has:
                self._by_count[has][subject] = None

    @property
    def _is_unsaved(self) -> bool:
        return bool(self._unsaved or self._forgotten)

    def _take_unsaved(self) -> tuple[list[GivenId], list[str]]:
        """Returns what is to be stored, and what is to be deleted, once."""
        unsaved, self._unsaved = self._unsaved, {}
        forgotten, self._forgotten = self._forgotten, {}
        return list(unsaved.values()), list(forgotten)

    def _save(self) -> None:
        """Stores new ids: at once, or after ``GATHER_S`` if the batch before was stored just now."""
        if self._is_saving or self._gathering is not None or self._calls is None or not self._is_unsaved:
            return
        self._is_saving = True
        Deferred.fromCoroutine(self._write(self._calls)).addErrback(_tell_lost_write).addBoth(self._gather)

    async def _write(self, calls: StoreCalls) -> None:
        assert self._store is not None, "saved before it was opened"
        given, forgotten = self._take_unsaved()
        try:
            await calls.run(self._store.note, given, forgotten, self._now_s() - KEPT_S)
        except Busy:
            late = {each.session_id: each for each in given if each.session_id in self._given}
            self._unsaved = late | self._unsaved
            self._forgotten |= {each: None for each in forgotten if each not in self._given}

    def _gather(self, _: None) -> None:
        self._is_saving = False
        if self._clock is not None:
            self._gathering = self._clock.callLater(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._save()

    def _now_s(self) -> int:
        return self._now_us() // 1_000_000


class SessionIdsOfAll:
    """Implements ``SessionIds`` for the decider's core in a cluster, which has the sessions of all relays.

    Args:
        known: the ids that this relay knows.
        sessions: the sessions that are connected to any relay.
    """

    def __init__(self, known: SessionIds, sessions: SessionTable) -> None:
        self._known = known
        self._sessions = sessions

    def own_until_us(self, subject: str, session_id: str, now_us: int) -> int | None:
        """See ``SessionIds``."""
        until_us = self._known.own_until_us(subject, session_id, now_us)
        return _connected_until_us(self._sessions, subject, session_id, now_us) if until_us is None else until_us


def _connected_until_us(sessions: SessionTable, subject: str, session_id: str, now_us: int) -> int | None:
    """Returns a time just after now if the session of this id is connected and is the subject's; None otherwise."""
    session = sessions.get(session_id)
    return now_us + 1 if session is not None and subject and session.identity.subject == subject else None


def _tell_lost_write(failure: Failure) -> None:
    events.SESSION_IDS_FAULT.failure(failure)
