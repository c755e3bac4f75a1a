"""The clocks of a cluster: all relays use the decider's time, which all changes have.

A period that begins with a change, such as the grace of somebody who left a room, is judged by every relay for its own
clients. The clocks of the machines need not agree, so each relay follows the decider's clock, which the decider's
heartbeats have.
"""

from __future__ import annotations

from collections.abc import Callable

from clasp_relay.core.ports import Clock, Timer

__all__ = ["DecidersClock", "FollowersClock"]

JITTER_US = 1_000_000
"""The decider's time, as a follower computes it, may go back by less than this when a heartbeat was late; the clock
then stands still."""


class DecidersClock:
    """Implements ``core.ports.Clock`` for the decider: continues from the last decider's time, by a monotonic clock.

    Args:
        from_us: the Unix time in µs at which it begins.
        monotonic_s: returns seconds.
        call_later: the event loop's.
    """

    def __init__(
        self, from_us: int, monotonic_s: Callable[[], float], call_later: Callable[[float, Callable[[], None]], Timer]
    ) -> None:
        self._from_us = from_us
        self._monotonic_s = monotonic_s
        self._began_s = monotonic_s()
        self._call_later = call_later
        self._is_stopped = False

    def now_us(self) -> int:
        """See ``Clock``."""
        return self._from_us + int((self._monotonic_s() - self._began_s) * 1e6)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """See ``Clock``; after ``stop`` nothing is called."""
        return self._call_later(delay_s, lambda: None if self._is_stopped else call())

    def stop(self) -> None:
        """Makes no more calls, also not the scheduled ones."""
        self._is_stopped = True


class FollowersClock:
    """Implements ``core.ports.Clock`` for the serving core: the decider's time, as far as it is known.

    It goes back only once, if this machine's clock is ahead: when the decider is first heard, before any session.

    Args:
        own: this machine's clock, which makes the scheduled calls.
        deciders_us: returns the Unix time in µs by the decider's clock; None if the decider was not heard yet.
    """

    def __init__(self, own: Clock, deciders_us: Callable[[], int | None]) -> None:
        self._own = own
        self._deciders_us = deciders_us
        self._last_us = 0

    def now_us(self) -> int:
        """See ``Clock``."""
        found = self._deciders_us()
        now_us = self._own.now_us() if found is None else found
        if self._last_us - JITTER_US < now_us < self._last_us:
            return self._last_us
        self._last_us = now_us
        return now_us

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """See ``Clock``."""
        return self._own.call_later(delay_s, call)
