"""Bundles: all members or none. Long bundles are done in pieces, isolated from other writes.

A long bundle is *decided* in pieces against the current params, and everything that the decisions read is noted. If any
of it has changed when the last member is decided, the bundle is decided again. The last attempt reserves what it reads:
writes there wait until the bundle is decided. Then the bundle is *accepted* in one step: its changes are given to the
log, and its addresses are reserved. Then it is *carried out* in pieces. Only one bundle at a time reserves addresses
(docs/protocol.md, Bundles).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from clasp_relay.core.commit import Committer
from clasp_relay.core.decide import Decider
from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Change, Ended, Param
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import WAIT_US
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Bundle, Message, Publish, Set

DONE_AT_ONCE = 16
"""Members that are decided or carried out in one piece: half a millisecond of work, three times that with permissions.
A bundle with no more members than this is done in one step."""

DECIDE_US, CARRY_OUT_US = 25, 30
"""Estimated cost in µs to decide a member, and to carry it out and tell its recipients."""

JUDGED_FACTOR = 3
"""The factor by which deciding costs more where permissions are asked."""

ATTEMPTS = 2
"""Attempts to decide a bundle while others may write. The next attempt reserves what it reads, so that it cannot fail
again."""

CHECK_COST, MATCH_COST = 4_000, 100
"""How much of what was read is compared again in one step, counted in addresses (this many take some ms), and the
addresses that one pattern counts for. A bundle that has read more is decided again, with all of it reserved, unless
nothing at all has changed."""


class Watched:
    """The params below a draft, with a record of what was read of them.

    Args:
        params: the state.
    """

    def __init__(self, params: Params) -> None:
        self._params = params
        self._changes = params.changes
        self._found: dict[tuple[Callable[[Any], object], str | Pattern], object] = {}
        self._cost = 0
        self._has_changed = False

    @property
    def is_too_much(self) -> bool:
        """Whether comparing everything that was read would take too long."""
        return self._cost > CHECK_COST

    def is_current(self) -> bool:
        """Tells whether everything that was read is certainly unchanged since it was first read."""
        if self._params.changes == self._changes:
            return True
        if self._has_changed or self.is_too_much:
            return False
        return all(_again(read, what) == found for (read, what), found in self._found.items())

    def get(self, address: str) -> Param | None:
        """See ``Params``."""
        found = self._params.get(address)
        self._note((self._params.get, address), found)
        return found

    def match(self, pattern: Pattern) -> Iterator[Param]:
        """See ``Params``."""
        found = list(self._params.match(pattern))
        self._note((self._params.match, pattern), found)
        return iter(found)

    def ended(self, address: str) -> Ended | None:
        """See ``Params``."""
        found = self._params.ended(address)
        self._note((self._params.ended, address), found)
        return found

    def last_revision(self, address: str) -> int:
        """See ``Params``."""
        found = self._params.last_revision(address)
        self._note((self._params.last_revision, address), found)
        return found

    def holder(self, address: str) -> str | None:
        """See ``Params``."""
        found = self._params.holder(address)
        self._note((self._params.holder, address), found)
        return found

    def due_us(self, ttl: int | None, written_us: int) -> int | None:
        """See ``Params``."""
        return self._params.due_us(ttl, written_us)

    def _note(self, what: tuple[Callable[[Any], object], str | Pattern], found: object) -> None:
        if what not in self._found:
            self._found[what] = found
            self._cost += 1 if isinstance(what[1], str) else MATCH_COST
        elif self._found[what] != found:
            self._has_changed = True


def _again(read: Callable[[Any], Any], what: str | Pattern) -> object:
    return read(what) if isinstance(what, str) else list(read(what))


class Reserving(Watched):
    """The params below a draft; everything that is read of them is reserved, so it cannot change."""

    def _note(self, what: tuple[Callable[[Any], object], str | Pattern], _found: object) -> None:
        self._params.reserved.read(what[1])


_Decided: TypeAlias = tuple[Draft, list[Change | Publish]]


class Bundles:
    """Decides about bundles and carries them out.

    Args:
        params: the state.
        decider: decides about members.
        committer: commits them.
        clock: the current time.
        is_open: whether the relay is in open mode, without permissions.
    """

    def __init__(
        self, params: Params, decider: Decider, committer: Committer, clock: Clock, *, is_open: bool = True
    ) -> None:
        self._params = params
        self._decider = decider
        self._committer = committer
        self._clock = clock
        factor = 1 if is_open else JUDGED_FACTOR
        self._decide_us, self._carry_out_us = factor * DECIDE_US, factor * CARRY_OUT_US
        self._carried_out: Iterator[int] | None = None
        """The rest of the accepted bundle that is being carried out."""
        self._when_whole: list[Callable[[], None]] = []
        """Calls to make as soon as that bundle is carried out."""
        self._is_alone = False
        """Whether a bundle is being decided that reserves what it reads."""

    def at_once(self, session: Session, bundle: Bundle) -> int | None:
        """Decides a short bundle in one step, and commits or schedules it.

        Args:
            session: its sender.
            bundle: at most ``DONE_AT_ONCE`` members, none of which writes at a reserved address.

        Returns:
            the last revision; None if nothing was written.

        Raises:
            RequestError: it is refused; nothing has changed.
        """
        draft = Draft(self._params)
        accepted = [self._decide(session, member, draft) for member in bundle.messages]
        if self._waits(session, bundle):
            return None
        self._committer.write_all(session, accepted, draft.outcomes())
        return _last_revision(accepted)

    def in_pieces(self, session: Session, bundle: Bundle, *, is_due: bool = False) -> Generator[int, None, int | None]:
        """Decides a bundle of any length in pieces, and carries it out or schedules it.

        Args:
            session: its sender.
            bundle: the bundle.
            is_due: whether it is a scheduled bundle that is due now.

        Yields:
            the estimated cost of each piece, in µs.

        Returns:
            the last revision; None if nothing was written.

        Raises:
            RequestError: it is refused; nothing has changed.
        """
        decided = yield from self._decide_among_others(session, bundle)
        if decided is None:
            decided = yield from self._decide_alone(session, bundle)
        draft, accepted = decided
        if not session.is_live and not is_due:
            return None
        if not is_due and self._waits(session, bundle):
            return None
        changes = self._committer.accept_all(session, accepted, draft.outcomes(), is_due=is_due)
        carried_out = self._carried_out = self._carry_out(session, changes)
        yield from carried_out
        return _last_revision(accepted)

    def _decide_among_others(self, session: Session, bundle: Bundle) -> Generator[int, None, _Decided | None]:
        """Decides all members while others may write; returns None if what the decisions read has changed."""
        for _ in range(ATTEMPTS):
            below = Watched(self._params)
            draft = Draft(below)
            accepted = yield from self._decide_all(session, bundle, draft)
            while self._is_reserved:
                yield WAIT_US
            if below.is_current():
                return draft, accepted
            if below.is_too_much:
                break
        return None

    def _decide_alone(self, session: Session, bundle: Bundle) -> Generator[int, None, _Decided]:
        """Decides all members while writes to what they read wait."""
        while self._is_reserved:
            yield WAIT_US
        self._is_alone = True
        try:
            draft = Draft(Reserving(self._params))
            return draft, (yield from self._decide_all(session, bundle, draft))
        finally:
            self._is_alone = False
            self._params.reserved.end_reads()

    def _decide_all(
        self, session: Session, bundle: Bundle, draft: Draft
    ) -> Generator[int, None, list[Change | Publish]]:
        accepted: list[Change | Publish] = []
        for number, member in enumerate(bundle.messages):
            accepted.append(self._decide(session, member, draft))
            if number % DONE_AT_ONCE == DONE_AT_ONCE - 1:
                yield DONE_AT_ONCE * self._decide_us
        return accepted

    @property
    def _is_reserved(self) -> bool:
        """Whether another bundle has reserved addresses or begun to."""
        return self._is_alone or self._carried_out is not None

    @property
    def is_whole(self) -> bool:
        """Whether no bundle is being carried out, so that the state has all of each or nothing."""
        return self._carried_out is None

    def when_whole(self, call: Callable[[], None]) -> None:
        """Makes a call that captures the state as soon as no bundle is being carried out; immediately if none is.

        Args:
            call: raises nothing.
        """
        if self.is_whole:
            call()
        else:
            self._when_whole.append(call)

    def finish(self) -> None:
        """Carries out the rest of the accepted bundle in one step, for the stop of the relay."""
        for _ in self._carried_out or ():
            """Each is a piece."""

    def _decide(self, session: Session, member: Message, draft: Draft) -> Change | Publish:
        if isinstance(member, Set):
            change = self._decider.set(session, member, draft)
            draft.stage(change)
            return change
        if isinstance(member, Publish):
            return self._decider.publish(session, member, draft)
        name = type(member).__name__.upper()
        raise RequestError(ErrorCode.MESSAGE, f"a bundle may hold SET and PUBLISH, not {name}")

    def _waits(self, session: Session, bundle: Bundle) -> bool:
        """Schedules a bundle whose time is in the future; returns whether it did."""
        due_us = bundle.timestamp_us
        if due_us is None or due_us <= self._clock.now_us():
            return False
        self._committer.schedule(session, bundle, due_us)
        return True

    def _carry_out(self, session: Session, changes: Sequence[Change | Publish]) -> Iterator[int]:
        reserved = self._params.reserved
        reserved.begin_writes(change.param for change in changes if isinstance(change, Change))
        try:
            left = iter(changes)
            while some := list(islice(left, DONE_AT_ONCE)):
                self._committer.carry_out(session, some)
                yield self._carry_out_us * len(some)
        finally:
            reserved.end_writes()
            self._carried_out = None
            calls, self._when_whole = self._when_whole, []
            for call in calls:
                call()


def _last_revision(accepted: Sequence[Change | Publish]) -> int | None:
    revisions = [change.param.revision for change in accepted if isinstance(change, Change)]
    return revisions[-1] if revisions else None
