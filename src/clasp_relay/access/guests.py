"""Ends guests' own params some days after their last token was issued (``guest_ttl_days`` of a policy).

At the start and every hour it searches the params in pieces, asks the store about the guests that have some, and ends
the params that are due, in pieces, by nulls of the relay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred, fail

from clasp_relay.access.policy.document import Document
from clasp_relay.access.policy.language.captures import PathTable
from clasp_relay.access.refusals import Busy
from clasp_relay.access.tokens import TokenTable
from clasp_relay.core.commit import ENDED_AT_ONCE, Committer
from clasp_relay.core.records import Param
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import Pieces, Work
from clasp_relay.logs import events

DAY_S = 86_400

SEARCHED_AT_ONCE = 200
"""Params that are looked at in one piece."""

SEARCH_US = 2
"""Estimated cost in µs of looking at one."""

ANOTHER_DECIDES = "Another relay of the cluster decides now."

ASKED_AT_ONCE = 500
"""About how many guests the store is asked in one call; a sign-in that comes meanwhile waits for milliseconds."""


class LastIssued(Protocol):
    """Asks the store when the last tokens of guests were issued; see ``UserStore.last_issued``."""

    async def __call__(self, subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
        """Returns Unix seconds by id."""


class _Own(NamedTuple):
    """A param that somebody wrote for themselves."""

    address: str
    days: int


class _Guest:
    """The params that one subject, a guest or not, wrote for itself."""

    __slots__ = ("own", "written_us")

    def __init__(self) -> None:
        self.own: list[_Own] = []
        self.written_us = 0
        """When the newest of them was written, in Unix µs: the guest had a token then, whatever the store knows."""


class GuestParams:
    """The params that guests wrote for themselves.

    Args:
        document: the policy, with the paths and their days.
        params: all params.
        committer: ends params.
        work: runs the work in pieces.
        tokens: the valid tokens; nothing ends while its guest has one.
        now_s: Unix seconds.
    """

    def __init__(
        self,
        document: Document,
        params: Params,
        committer: Committer,
        work: Work,
        tokens: TokenTable,
        now_s: Callable[[], float],
    ) -> None:
        self._table = PathTable([path for path, _ in document.guest_ttl_days])
        self._days = [days for _, days in document.guest_ttl_days]
        self._params = params
        self._committer = committer
        self._work = work
        self._tokens = tokens
        self._now_s = now_s
        self._has_asked = False
        """Whether the store was asked in the last round, so that it still keeps tokens for that."""
        self._ended = 0
        """Number of params that have ended since the start."""
        self._under_way: Deferred[None] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """Stops the current round, since its core no longer decides: ``end_old`` raises ``Busy``."""
        self._is_stopped = True
        done, self._under_way = self._under_way, None
        if done is not None:
            done.errback(Busy(ANOTHER_DECIDES, 0))

    async def end_old(self, last_issued: LastIssued) -> int:
        """Ends the params that are due.

        Args:
            last_issued: asks the store.

        Returns:
            the number of params that ended.

        Raises:
            Refusal: the store cannot be asked now; nothing has ended.
        """
        if not self._days:
            return 0
        guests: dict[str, _Guest] = {}
        await self._do(self._search(guests))
        issued_s = await self._ask(list(guests), last_issued)
        before = self._ended
        await self._do(self._end(guests, issued_s))
        count = self._ended - before
        if count:
            events.GUEST_PARAMS_ENDED.log(count=count)
        return count

    def _do(self, pieces: Pieces) -> Deferred[None]:
        """Runs work in pieces; the Deferred fires at its end, also after an error."""
        if self._is_stopped:
            return fail(Busy(ANOTHER_DECIDES, 0))
        done: Deferred[None] = Deferred()
        self._under_way = done

        def steps() -> Pieces:
            try:
                yield from pieces
            finally:
                if self._under_way is done:
                    self._under_way = None
                    done.callback(None)

        self._work.add(self, steps())
        return done

    def _search(self, guests: dict[str, _Guest]) -> Pieces:
        """Finds the params that subjects wrote for themselves."""
        params = iter(self._params.all())
        while some := list(islice(params, SEARCHED_AT_ONCE)):
            for param in some:
                found = self._table.find(param.address)
                if found is not None and _is_own(param, found.captured[0]):
                    guest = guests.setdefault(found.captured[0], _Guest())
                    guest.own.append(_Own(param.address, self._days[found.number]))
                    guest.written_us = max(guest.written_us, param.timestamp_us)
            yield SEARCH_US * len(some)

    async def _ask(self, subjects: list[str], last_issued: LastIssued) -> dict[str, int | None]:
        """Asks the store about some at a time; once also about nobody, so that it keeps nothing of the last round."""
        issued_s: dict[str, int | None] = {}
        for start in range(0, max(self._has_asked, len(subjects)), ASKED_AT_ONCE):
            issued_s |= await last_issued(subjects[start : start + ASKED_AT_ONCE], is_first=start == 0)
        self._has_asked = bool(subjects)
        return issued_s

    def _end(self, guests: dict[str, _Guest], issued_s: dict[str, int | None]) -> Pieces:
        """Ends the params that are due by now."""
        for subject, guest in guests.items():
            last_s = issued_s.get(subject)
            if last_s is not None:
                yield from self._end_of(subject, guest, max(last_s, guest.written_us // 1_000_000))
            yield SEARCH_US

    def _end_of(self, subject: str, guest: _Guest, last_s: int) -> Pieces:
        for start in range(0, len(guest.own), ENDED_AT_ONCE):
            own = guest.own[start : start + ENDED_AT_ONCE]
            yield from self._committer.until_free([each.address for each in own])
            over = [each.address for each in own if self._is_over(each, subject, last_s)]
            self._ended += len(over)
            yield SEARCH_US * len(own) + self._committer.end_params(over)

    def _is_over(self, own: _Own, subject: str, last_s: int) -> bool:
        """Tells whether a param is due, its guest has not come back, and nobody else has written there."""
        if last_s + own.days * DAY_S > self._now_s() or self._tokens.has_any(subject):
            return False
        param = self._params.get(own.address)
        return param is not None and _is_own(param, subject)


def _is_own(param: Param, subject: str) -> bool:
    """Tells whether a subject wrote a param itself; state files of another relay do not tell, so those params stay."""
    return param.subject == subject
