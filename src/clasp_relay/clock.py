"""Time for the core: the machine's Unix time, made so that it never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from clasp_relay.core.ports import Timer


class ReactorClock:
    """Implements ``core.ports.Clock``.

    When the machine's clock is set back, time goes on at half its pace until the machine has caught up; it neither
    jumps nor stands still, so that orders and intervals hold.

    Args:
        reactor: calls later.
        wall_s: the machine's Unix time, in seconds.
        monotonic_s: seconds that nobody sets.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._last_us = int(wall_s() * 1e6)
        self._ahead_since: tuple[int, float] | None = None
        """What was told last before the machine's clock was set back, and the monotonic time when that was seen."""

    def now_us(self) -> int:
        """Returns the Unix time in µs."""
        now_us = int(self._wall_s() * 1e6)
        if now_us < self._last_us:
            now_us = self._while_ahead_us()
        elif self._ahead_since is not None:
            self._ahead_since = None
        self._last_us = now_us
        return now_us

    def _while_ahead_us(self) -> int:
        """Returns the time while the machine's clock is behind what was told."""
        monotonic_s = self._monotonic_s()
        if self._ahead_since is None:
            self._ahead_since = (self._last_us, monotonic_s)
        last_us, since_s = self._ahead_since
        return last_us + int((monotonic_s - since_s) * 5e5)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Makes ``call`` in ``delay_s`` seconds."""
        return self._reactor.callLater(delay_s, call)


def steady_timers(reactor: Any, monotonic_s: Callable[[], float] = time.monotonic) -> None:
    """Has a reactor's timers run on a clock that nobody sets.

    Twisted's run on the machine's. When that is set back by a day, nothing that waits happens for a day: no token
    expires, no dead peer is given up, nothing is saved. What waits already is still due in as long as before.

    Args:
        reactor: one that keeps its time in ``seconds``, as all of Twisted's do.
        monotonic_s: seconds that nobody sets.
    """
    ahead_s = reactor.seconds() - monotonic_s()
    reactor.seconds = lambda: monotonic_s() + ahead_s
