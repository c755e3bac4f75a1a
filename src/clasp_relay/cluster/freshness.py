"""Freshness: whether a relay has applied all that the log had when it last heard from the engine.

A relay that was cut off may grant rights that have ended meanwhile: somebody was banned, a token was revoked. So after
a silence of the engine it is not fresh until it has applied the log up to the end that the log had then. The end is
read from the log itself, so that it does not matter which relay is the decider, or whether there is one.
"""

from __future__ import annotations

from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.ports import Bounds, Engine

__all__ = ["Freshness"]


class Freshness:
    """See the module.

    Args:
        engine: returns the end of the log.
        ledger: has the last batch that is applied here.
    """

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger
        self._is_fresh = True
        self._silences = 0
        """Number of silences of the engine; an answer to a question from before the last one does not count."""
        self._is_asking = False
        self._end: int | None = None
        """The last batch of the log after the last silence; None until that is known."""

    def look(self, *, is_in_touch: bool) -> bool:
        """Tells whether the relay is fresh; called several times a second.

        Args:
            is_in_touch: whether the engine was heard within the last second.
        """
        if not is_in_touch:
            if self._is_fresh or self._end is not None or self._is_asking:
                self._silences += 1
            self._is_fresh, self._is_asking, self._end = False, False, None
        elif not self._is_fresh:
            if self._end is not None:
                self._is_fresh = self._ledger.seq >= self._end
            elif not self._is_asking:
                self._ask()
        return self._is_fresh

    def _ask(self) -> None:
        self._is_asking = True
        silences = self._silences

        def found(bounds: Bounds | None) -> None:
            if silences == self._silences:
                self._is_asking = False
                self._end = None if bounds is None else bounds.last

        self._engine.bounds(found)
