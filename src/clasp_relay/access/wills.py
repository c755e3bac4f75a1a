"""Ends what users leave behind: params that a policy clears when their writer's last session ends.

A presence or a cursor is true only while somebody is there (``clear_on_disconnect`` in a policy). What it names ends by
nulls of the relay, in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from clasp_relay.access.policy.document import will_pattern
from clasp_relay.core.commit import ENDED_AT_ONCE, Committer
from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Param
from clasp_relay.core.session.sessions import SessionTable
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import Pieces, Work
from clasp_relay.wire.address import Pattern

__all__ = ["AFTER_START_S", "Wills"]

AFTER_START_S = 30.0
"""From the start until what was left by those who have not come back is cleared: clients connect again meanwhile."""

SEARCHED_AT_ONCE = 200
SEARCH_US = 2
"""How many params are looked at in one piece, and about what it costs to look at one."""


class Wills:
    """Clears what the policy says.

    Args:
        paths: the policy's.
        params: all params.
        committer: ends them.
        work: does it in pieces.
        sessions: who is there.
        clock: calls later.
    """

    def __init__(
        self,
        paths: Sequence[str],
        params: Params,
        committer: Committer,
        work: Work,
        sessions: SessionTable,
        clock: Clock,
    ) -> None:
        self._paths = paths
        self._params = params
        self._committer = committer
        self._work = work
        self._sessions = sessions
        self._clock = clock

    def start(self) -> None:
        """Has cleared, in a while, what those left who do not come back after a restart."""
        if self._paths:
            self._clock.call_later(AFTER_START_S, lambda: self._work.add(self, self._clear(None)))

    def gone(self, subject: str) -> None:
        """The last session of a subject has ended."""
        if self._paths and subject:
            self._work.add((self, subject), self._clear(subject))

    def _clear(self, subject: str | None) -> Pieces:
        """Ends what a subject left; of None everybody's who is not there."""
        patterns = [will_pattern(path, "*" if subject is None else subject) for path in self._paths]
        candidates = self._candidates(patterns)
        while some := list(islice(candidates, SEARCHED_AT_ONCE)):
            yield SEARCH_US * len(some)
            left = [
                param.address
                for param in some
                if any(pattern.matches(param.address) for pattern in patterns) and self._is_left(param, subject)
            ]
            for start in range(0, len(left), ENDED_AT_ONCE):
                next_ones = left[start : start + ENDED_AT_ONCE]
                yield from self._committer.until_free(next_ones)
                # Somebody may have come back, or written there, since the piece before.
                now = [self._params.get(address) for address in next_ones]
                yield SEARCH_US + self._committer.end_params(
                    [param.address for param in now if param is not None and self._is_left(param, subject)]
                )

    def _candidates(self, patterns: Sequence[Pattern]) -> Iterator[Param]:
        """Yields the params among which those are that match; each once, where there is one pattern."""
        for pattern in patterns:
            found = self._params.find(pattern)
            if found is None:
                yield from self._params.all()
                return
            yield from found

    def _is_left(self, param: Param, subject: str | None) -> bool:
        """Tells whether a param's writer is not there: the relay's own and another relay's params have none."""
        writer = param.subject
        if not writer or (subject is not None and writer != subject):
            return False
        return not self._sessions.has_subject(writer)
