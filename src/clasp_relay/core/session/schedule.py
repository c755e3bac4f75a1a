"""Scheduled bundles (``docs/protocol.md``, Bundles)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

from clasp_relay.core.ports import Clock, Timer
from clasp_relay.core.records import Change, ChangeKind, no_param, text_bytes
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import AbsentSession, Session
from clasp_relay.core.work import Pieces, Work
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import NULL, Bundle, Publish, Set
from clasp_relay.wire.values import encode_value

MAX_AHEAD_US = 3_600_000_000
"""One hour: a time further ahead is probably a wrong clock or a wrong unit."""

MAX_PENDING = 1_000
"""Scheduled bundles of one session."""

MAX_PENDING_BYTES = 64 * 1024 * 1024
"""Memory in bytes of all scheduled bundles, those of ended sessions included."""

BUNDLE_BYTES = 1_000
"""Memory of a scheduled bundle in bytes, without its members; most of it is the timer."""

MEMBER_BYTES = 400
"""Memory of a member in bytes, without its address and its value."""

RUN_US, FOUND_US = 30, 5
"""Estimated cost in µs of starting a bundle, and of finding one that is due."""

FOUND_AT_ONCE = 64
"""Due bundles that are found in one piece of work."""

RunDue: TypeAlias = Callable[[int, Session, Bundle], Pieces]


class Schedule:
    """Runs bundles when they are due, also after their session has ended: they were accepted.

    Args:
        clock: the current time and timers.
        work: runs them in pieces, each session's in the order of their times.
        run_due: runs a due bundle in pieces, given its number, its session, and its members.
    """

    def __init__(self, clock: Clock, work: Work, run_due: RunDue) -> None:
        self._clock = clock
        self._work = work
        self._run_due = run_due
        self._waiting: dict[int, tuple[Session, int, Change]] = {}
        self._restored: dict[int, Change] = {}
        self._by_subject: dict[str, dict[int, Session]] = {}
        self._due: list[tuple[int, int]] = []
        """A heap of due times in Unix µs and numbers; entries of dropped bundles stay until they are due."""
        self._timer: tuple[int, Timer] | None = None
        """The time of the next call in Unix µs, and the call."""
        self._last_number = 0
        self.pending_bytes = 0
        """Memory of the scheduled bundles, in bytes."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting

    def of_token(self, subject: str, token: bytes) -> list[int]:
        """Returns the numbers of the scheduled bundles of a token's sessions, ended sessions included."""
        waiting = self._by_subject.get(subject, {})
        return [number for number, session in waiting.items() if session.identity.token == token]

    def decide(self, session: Session, bundle: Bundle, due_us: int) -> Change:
        """Decides whether a bundle may be scheduled.

        Args:
            session: its sender.
            bundle: the bundle; its members are SETs and PUBLISHes that were accepted.
            due_us: when it is due: a future time in Unix µs.

        Returns:
            The change that schedules it, not yet applied.

        Raises:
            RequestError: VALUE if it is too far ahead; LIMIT if the session has too many, or is over its memory limit;
                OVERLOADED if all sessions together have too many.
        """
        now_us = self._clock.now_us()
        if due_us - now_us > MAX_AHEAD_US:
            raise RequestError(ErrorCode.VALUE, "a bundle may be at most 1 hour ahead (its timestamp is in µs)")
        if session.pending_bundles >= MAX_PENDING:
            raise RequestError(ErrorCode.LIMIT, f"{MAX_PENDING} bundles of this session are waiting already")
        if self.pending_bytes + bundle_bytes(bundle) > MAX_PENDING_BYTES:
            raise RequestError(ErrorCode.OVERLOADED, "as many bundles are waiting as the relay can keep")
        session.account.check(MemoryKind.BUNDLES, bundle_bytes(bundle))
        about = no_param("", session.id, session.identity.subject, now_us)
        token = session.identity.token
        about = about._replace(value=encode_value(token) if token else NULL, origin=session.origin)
        number = self._last_number + 1
        return Change(about, ChangeKind.SCHEDULED, due_us=due_us, number=number, message=Bundle(bundle.messages))

    def apply(self, change: Change, session: Session | None) -> None:
        """Applies a change that schedules a bundle, or by which it is due.

        Args:
            change: a SCHEDULED or DUE.
            session: its sender; needed for a SCHEDULED.
        """
        number = change.number
        if change.kind is ChangeKind.DUE:
            waiting = self._waiting.pop(number, None)
            if waiting is None:  # recorded before this start, and not resumed
                return
            owner, size, _ = waiting
            subject = owner.identity.subject
            del self._by_subject[subject][number]
            if not self._by_subject[subject]:
                del self._by_subject[subject]
            owner.pending_bundles -= 1
            self.pending_bytes -= size
            owner.account.add(MemoryKind.BUNDLES, -size)
            return
        assert session is not None, "a bundle of nobody"
        bundle, due_us = bundle_of(change)
        self._last_number = max(number, self._last_number)
        size = bundle_bytes(bundle)
        self._waiting[number] = (session, size, change)
        self._by_subject.setdefault(session.identity.subject, {})[number] = session
        session.pending_bundles += 1
        self.pending_bytes += size
        session.account.add(MemoryKind.BUNDLES, size)
        if due_us > self._clock.now_us() or not isinstance(session, AbsentSession):
            # ``Relay.resume`` runs the bundles that were due while the relay was off.
            heapq.heappush(self._due, (due_us, number))
            self._set_timer()

    def image(self) -> tuple[Change, ...]:
        """Captures the scheduled bundles, in the order in which they were accepted."""
        return (*(change for _, _, change in self._waiting.values()), *self._restored.values())

    def restore(self, change: Change) -> None:
        """Applies a SCHEDULED or DUE that was recorded before this start; see ``take_restored``."""
        if change.kind is ChangeKind.DUE:
            self._restored.pop(change.number, None)
        else:
            self._restored[change.number] = change
            self._last_number = max(change.number, self._last_number)

    def take_restored(self) -> list[Change]:
        """Returns the bundles that were scheduled before this start, in the order of their times, once."""
        restored, self._restored = self._restored, {}
        return sorted(restored.values(), key=lambda change: (change.due_us or 0, change.number))

    def _set_timer(self) -> None:
        """Sets the timer for the first bundle, also after the machine's clock was set."""
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
        """Starts the due bundles, in the order of their times."""
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
    """Returns the bundle of a SCHEDULED change, and when it is due in Unix µs."""
    bundle, due_us = change.message, change.due_us
    assert isinstance(bundle, Bundle), "a scheduled bundle without its members"
    assert due_us is not None, "a scheduled bundle without a time"
    return bundle, due_us


def bundle_bytes(bundle: Bundle) -> int:
    """Estimates the memory of a scheduled bundle in bytes."""
    size = BUNDLE_BYTES
    for member in bundle.messages:
        assert isinstance(member, Set | Publish), "a bundle that waits has been checked"
        samples = member.samples if isinstance(member, Publish) else None
        size += MEMBER_BYTES + text_bytes(member.address) + len(member.value or b"") + len(samples or b"")
    return size
