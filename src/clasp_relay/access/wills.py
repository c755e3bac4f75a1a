"""Ends the params that a policy clears when their writer's last session ends (``clear_on_disconnect``).

A presence or a cursor is true only while its writer is connected. The params end by nulls of the relay, in pieces.
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
"""Seconds from the start until the params of users who are not connected are cleared: clients reconnect meanwhile."""

SEARCHED_AT_ONCE = 200
SEARCH_US = 2
"""Params that are looked at in one piece, and the estimated cost of one in µs."""


class Wills:
    """Clears params as ``clear_on_disconnect`` of the policy says.

    Args:
        paths: the paths of ``clear_on_disconnect``.
        params: all params.
        committer: ends params.
        work: runs the work in pieces.
        sessions: tells who is connected.
        clock: for the delay after the start.
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
        """Clears, ``AFTER_START_S`` after a start, the params of users who have not reconnected."""
        if self._paths:
            self._clock.call_later(AFTER_START_S, lambda: self._work.add(self, self._clear(None)))

    def gone(self, subject: str) -> None:
        """Clears the params of a subject whose last session has ended."""
        if self._paths and subject:
            self._work.add((self, subject), self._clear(subject))

    def _clear(self, subject: str | None) -> Pieces:
        """Ends the params of a subject; for None those of everybody who is not connected."""
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
                # The subject may have reconnected, or somebody may have written there, since the last piece.
                now = [self._params.get(address) for address in next_ones]
                yield SEARCH_US + self._committer.end_params(
                    [param.address for param in now if param is not None and self._is_left(param, subject)]
                )

    def _candidates(self, patterns: Sequence[Pattern]) -> Iterator[Param]:
        """Yields all params that match, and perhaps others; each once if there is one pattern."""
        for pattern in patterns:
            found = self._params.find(pattern)
            if found is None:
                yield from self._params.all()
                return
            yield from found

    def _is_left(self, param: Param, subject: str | None) -> bool:
        """Tells whether a param's writer is not connected; params of the relay or of another relay have none."""
        writer = param.subject
        if not writer or (subject is not None and writer != subject):
            return False
        return not self._sessions.has_subject(writer)
