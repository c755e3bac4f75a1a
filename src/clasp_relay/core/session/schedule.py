"""Bundles whose time has not come."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

from clasp_relay.core.ports import Clock, Timer
from clasp_relay.core.records import Change, ChangeKind, no_param, text_bytes
from clasp_relay.core.session.account import Kept
from clasp_relay.core.session.sessions import AbsentSession, Session
from clasp_relay.core.work import Pieces, Work
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import NULL, Bundle, Publish, Set
from clasp_relay.wire.values import encode_value

MAX_AHEAD_US = 3_600_000_000
"""An hour: further ahead is more likely a wrong clock or unit than a plan."""

MAX_PENDING = 1_000
"""How many bundles of one session may wait."""

MAX_PENDING_BYTES = 64 * 1024 * 1024
"""How much memory all that wait may take, those of sessions that have ended included."""

BUNDLE_BYTES = 1_000
"""How much memory a bundle takes that waits, besides its members: a timer, most of all."""

MEMBER_BYTES = 400
"""How much memory a member of a bundle takes besides its address and its value."""

RUN_US, FOUND_US = 30, 5
"""About what it costs to begin with a bundle, and to find that one is due."""

FOUND_AT_ONCE = 64
"""How many due bundles are found in one piece of work."""

RunDue: TypeAlias = Callable[[int, Session, Bundle], Pieces]


class Schedule:
    """Runs bundles at their time, whether their session still lives or not: they were accepted.

    Args:
        clock: when is now, and who calls later.
        work: runs them in pieces; each session's in the order of their times.
        run_due: is given a bundle whose time has come: its number, its session, and its members; runs it in pieces.
    """

    def __init__(self, clock: Clock, work: Work, run_due: RunDue) -> None:
        self._clock = clock
        self._work = work
        self._run_due = run_due
        self._waiting: dict[int, tuple[Session, int, Change]] = {}
        self._restored: dict[int, Change] = {}
        self._by_subject: dict[str, dict[int, Session]] = {}
        self._due: list[tuple[int, int]] = []
        """A heap of Unix µs and numbers; those of bundles that were dropped stay until their time."""
        self._timer: tuple[int, Timer] | None = None
        """For when (Unix µs) the next call is, and the call."""
        self._last_number = 0
        self.pending_bytes = 0
        """How much memory the bundles take that wait."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting

    def of_token(self, subject: str, token: bytes) -> list[int]:
        """Returns the numbers of the bundles that sessions of a token have waiting, ended sessions included."""
        waiting = self._by_subject.get(subject, {})
        return [number for number, session in waiting.items() if session.identity.token == token]

    def decide(self, session: Session, bundle: Bundle, due_us: int) -> Change:
        """Decides whether a bundle may wait.

        Args:
            session: whose it is.
            bundle: its members are SETs and PUBLISHes, and were accepted.
            due_us: its Unix time in µs, in the future.

        Returns:
            The change by which it waits, not yet applied.

        Raises:
            RequestError: VALUE when it is too far ahead, LIMIT when too many wait, OVERLOADED when those of all
                sessions together are too many. LIMIT also when too much is kept for the session.
        """
        now_us = self._clock.now_us()
        if due_us - now_us > MAX_AHEAD_US:
            raise RequestError(ErrorCode.VALUE, "a bundle may be at most 1 hour ahead (its timestamp is in µs)")
        if session.pending_bundles >= MAX_PENDING:
            raise RequestError(ErrorCode.LIMIT, f"{MAX_PENDING} bundles of this session are waiting already")
        if self.pending_bytes + bundle_bytes(bundle) > MAX_PENDING_BYTES:
            raise RequestError(ErrorCode.OVERLOADED, "as many bundles are waiting as the relay can keep")
        session.account.check(Kept.BUNDLES, bundle_bytes(bundle))
        about = no_param("", session.id, session.identity.subject, now_us)
        token = session.identity.token
        about = about._replace(value=encode_value(token) if token else NULL, origin=session.origin)
        number = self._last_number + 1
        return Change(about, ChangeKind.SCHEDULED, due_us=due_us, number=number, message=Bundle(bundle.messages))

    def apply(self, change: Change, session: Session | None) -> None:
        """Applies that a bundle waits, or waits no longer.

        Args:
            change: a SCHEDULED or DUE.
            session: whose it is; needed for a SCHEDULED.
        """
        number = change.number
        if change.kind is ChangeKind.DUE:
            waiting = self._waiting.pop(number, None)
            if waiting is None:  # of the relay's life before, and not resumed
                return
            owner, size, _ = waiting
            subject = owner.identity.subject
            del self._by_subject[subject][number]
            if not self._by_subject[subject]:
                del self._by_subject[subject]
            owner.pending_bundles -= 1
            self.pending_bytes -= size
            owner.account.add(Kept.BUNDLES, -size)
            return
        assert session is not None, "a bundle of nobody"
        bundle, due_us = bundle_of(change)
        self._last_number = max(number, self._last_number)
        size = bundle_bytes(bundle)
        self._waiting[number] = (session, size, change)
        self._by_subject.setdefault(session.identity.subject, {})[number] = session
        session.pending_bundles += 1
        self.pending_bytes += size
        session.account.add(Kept.BUNDLES, size)
        if due_us > self._clock.now_us() or not isinstance(session, AbsentSession):
            # The relay itself runs what was due while it was off.
            heapq.heappush(self._due, (due_us, number))
            self._set_timer()

    def image(self) -> tuple[Change, ...]:
        """Captures the bundles that wait, in the order in which they were accepted."""
        return (*(change for _, _, change in self._waiting.values()), *self._restored.values())

    def restore(self, change: Change) -> None:
        """Takes a SCHEDULED or DUE of the relay's life before; what waits afterwards, ``take_restored`` returns."""
        if change.kind is ChangeKind.DUE:
            self._restored.pop(change.number, None)
        else:
            self._restored[change.number] = change
            self._last_number = max(change.number, self._last_number)

    def take_restored(self) -> list[Change]:
        """Returns the bundles of the relay's life before that wait, in the order of their times, once."""
        restored, self._restored = self._restored, {}
        return sorted(restored.values(), key=lambda change: (change.due_us or 0, change.number))

    def _set_timer(self) -> None:
        """Has the first bundle found at its time; also one that the machine's clock brings forward or puts back."""
        if not self._due:
            return
        due_us = self._due[0][0]
        if self._timer is not None:
            if self._timer[0] <= due_us:
                return
            self._timer[1].cancel()
        delay_s = max(0, due_us - self._clock.now_us()) / 1e6
        self._timer = due_us, self._clock.call_later(delay_s, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._work.add(self, self._find_due())

    def _find_due(self) -> Pieces:
        """Gives each session the bundles whose time has come, in the order of their times."""
        now_us = self._clock.now_us()
        while self._due and self._due[0][0] <= now_us:
            found = 0
            while found < FOUND_AT_ONCE and self._due and self._due[0][0] <= now_us:
                _, number = heapq.heappop(self._due)
                found += 1
                if number in self._waiting:
                    self._work.add(self._waiting[number][0], self._run(number))
            yield found * FOUND_US
        self._set_timer()

    def _run(self, number: int) -> Pieces:
        if number not in self._waiting:
            return
        session, _, change = self._waiting[number]
        bundle, _ = bundle_of(change)
        yield from self._run_due(number, session, bundle)
        yield RUN_US


def bundle_of(change: Change) -> tuple[Bundle, int]:
    """Returns what a SCHEDULED change is about, and its Unix time in µs."""
    bundle, due_us = change.message, change.due_us
    assert isinstance(bundle, Bundle), "a scheduled bundle without its members"
    assert due_us is not None, "a scheduled bundle without a time"
    return bundle, due_us


def bundle_bytes(bundle: Bundle) -> int:
    """Returns about how much memory a bundle takes that waits."""
    size = BUNDLE_BYTES
    for member in bundle.messages:
        assert isinstance(member, Set | Publish), "a bundle that waits has been checked"
        samples = member.samples if isinstance(member, Publish) else None
        size += MEMBER_BYTES + text_bytes(member.address) + len(member.value or b"") + len(samples or b"")
    return size
