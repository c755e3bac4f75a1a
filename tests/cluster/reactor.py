"""A reactor of a test's own, which turns while somebody waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from clasp_relay.net.reactor import RelayReactor
from tests.integration.process import PATIENCE_S


class Loop(RelayReactor):
    """An event loop that turns while somebody waits."""

    def until(self, is_done: Callable[[], object], what: str = "what was waited for") -> None:
        """Turns until something holds.

        Args:
            is_done: tells whether it does.
            what: names it.

        Raises:
            AssertionError: it does not come true in time.
        """
        end_s = time.monotonic() + PATIENCE_S
        while not is_done():
            if time.monotonic() > end_s:
                raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}")
            self.turn()

    def turn(self) -> None:
        """Makes one turn, which waits for 0.1 s at most."""
        self.runUntilCurrent()
        wait_s = self.timeout()
        self.doIteration(0.1 if wait_s is None else min(0.1, wait_s))

    def ask(self, begin: Callable[[Callable[[Any], None]], None]) -> Any:
        """Begins something and returns what it calls back with."""
        found: list[Any] = []
        begin(found.append)
        self.until(lambda: bool(found))
        return found[0]
