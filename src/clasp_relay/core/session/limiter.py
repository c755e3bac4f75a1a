"""How many messages a session may send (``docs/protocol.md``, Limits)."""

from __future__ import annotations

ERROR_INTERVAL_US = 1_000_000
"""A session that goes on sending too much reads one ERROR a second, not one a message."""


class Limiter:
    """A token bucket, and the ERROR that a session is owed.

    Args:
        per_second: how many messages a second flow in the long run.
        burst: how many may come at once; at least one, or none would ever pass.
        now_us: Unix µs; the bucket starts full.
    """

    __slots__ = ("_burst", "_error_us", "_filled_us", "_per_us", "_tokens", "owes_error")

    def __init__(self, per_second: float, burst: float, now_us: int) -> None:
        self._per_us = per_second / 1e6
        self._burst = self._tokens = max(1.0, float(burst))
        self._filled_us = now_us
        self._error_us = now_us - ERROR_INTERVAL_US
        self.owes_error = False
        """An ERROR was held back; it goes out before the next answer."""

    @property
    def burst(self) -> int:
        """How many messages may come at once."""
        return int(self._burst)

    def take(self, cost: int, now_us: int) -> bool:
        """Takes as many tokens as a message costs; returns False, and takes none, when there are too few."""
        tokens = min(self._burst, self._tokens + (now_us - self._filled_us) * self._per_us)
        self._filled_us = now_us
        if tokens < cost:
            self._tokens = tokens
            return False
        self._tokens = tokens - cost
        return True

    def may_send_error(self, now_us: int) -> bool:
        """Tells whether a refused message is answered now; if not, the ERROR is owed."""
        if now_us - self._error_us < ERROR_INTERVAL_US:
            self.owes_error = True
            return False
        self._error_us = now_us
        self.owes_error = False
        return True

    def settle(self, now_us: int) -> None:
        """Notes that the owed ERROR is being sent."""
        self._error_us = now_us
        self.owes_error = False
