"""Goes through many params in pieces, to count or to end them, while the relay goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from twisted.internet.defer import Deferred

from clasp_relay.core.commit import Committer
from clasp_relay.core.records import Param
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import Pieces, Work
from clasp_relay.wire.address import Pattern

__all__ = ["Search"]

SEARCHED_AT_ONCE = 200
"""The most params that are looked at in one piece."""

SEARCH_US = 3
"""Estimated cost in µs of looking at one."""

BYTES_PER_US = 20
"""Estimated bytes of a value that are decoded in a microsecond."""

PIECE_US = 600
"""The highest estimated cost in µs of one piece, or that of one param if it is higher."""


def _never(_param: Param) -> bool:
    return False


class Search:
    """Searches the state.

    Args:
        params: all params.
        committer: ends params.
        work: runs the work in pieces.
        clear: ends params in place of ``committer`` if another relay is the decider; its Deferred fires when that is
            done, and fails with a Refusal.
    """

    def __init__(
        self,
        params: Params,
        committer: Committer,
        work: Work,
        clear: Callable[[Sequence[str]], Deferred[None]] | None = None,
    ) -> None:
        self._params = params
        self._committer = committer
        self._work = work
        self._clear = clear

    def each(
        self, pattern: Pattern, look: Callable[[Param], None], decodes: Callable[[Param], bool] = _never
    ) -> Deferred[None]:
        """Calls a function with each param that matches a pattern, if it is set at that moment.

        Args:
            pattern: the pattern.
            look: the function; it takes some µs.
            decodes: tells whether ``look`` decodes the value of a param.

        Returns:
            a Deferred that fires at the end, and fails with an exception of the function.
        """
        return self._do(self._look(pattern, look, decodes))

    def end(self, addresses: Sequence[str]) -> Deferred[None]:
        """Ends params by nulls of the relay; addresses where nothing is set are skipped."""
        return self._do(self._committer.clear(addresses)) if self._clear is None else self._clear(addresses)

    def _look(self, pattern: Pattern, look: Callable[[Param], None], decodes: Callable[[Param], bool]) -> Pieces:
        found = self._params.find(pattern)
        params = iter(self._params.all() if found is None else found)
        while some := list(islice(params, SEARCHED_AT_ONCE)):
            cost_us = 0
            for param in some:
                cost_us += SEARCH_US
                if self._params.get(param.address) is param and (found is not None or pattern.matches(param.address)):
                    if decodes(param):
                        cost_us += len(param.value) // BYTES_PER_US
                    look(param)
                if cost_us >= PIECE_US:
                    yield cost_us
                    cost_us = 0
            if cost_us:
                yield cost_us

    def _do(self, pieces: Pieces) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def steps() -> Pieces:
            try:
                yield from pieces
            except Exception:
                done.errback()
                return
            done.callback(None)

        self._work.add(self, steps())
        return done
