"""The rate limit of a session's messages (``docs/protocol.md``, Limits)."""

from __future__ import annotations

ERROR_INTERVAL_US = 1_000_000
"""The interval in µs between two ERRORs to a session that keeps exceeding its limit."""


class Limiter:
    """A token bucket, and whether an ERROR was held back.

    Args:
        per_second: messages a second on average.
        burst: messages that may come at once; at least one, or none would ever be accepted.
        now_us: Unix µs; the bucket starts full.
    """

    __slots__ = ("_burst", "_error_us", "_filled_us", "_per_us", "_tokens", "owes_error")

    def __init__(self, per_second: float, burst: float, now_us: int) -> None:
        self._per_us = per_second / 1e6
        self._burst = self._tokens = max(1.0, float(burst))
        self._filled_us = now_us
        self._error_us = now_us - ERROR_INTERVAL_US
        self.owes_error = False
        """Whether an ERROR was held back; it is sent before the next answer."""

    @property
    def burst(self) -> int:
        """Messages that may come at once."""
        return int(self._burst)

    def reading_cost(self, cost: int) -> int:
        """Returns the tokens that are taken for decoding a message, apart from those for the message itself.

        At most all but one of a full bucket: with a small burst, a message that costs more could never pass.
        """
        return min(cost, max(1, self.burst - 1))

    def take(self, cost: int, now_us: int) -> bool:
        """Takes the cost of a message in tokens; returns False, and takes none, if there are too few."""
        tokens = min(self._burst, self._tokens + (now_us - self._filled_us) * self._per_us)
        self._filled_us = now_us
        if tokens < cost:
            self._tokens = tokens
            return False
        self._tokens = tokens - cost
        return True

    def may_send_error(self, now_us: int) -> bool:
        """Tells whether the ERROR of a refused message is sent now; if not, it is held back."""
        if now_us - self._error_us < ERROR_INTERVAL_US:
            self.owes_error = True
            return False
        self._error_us = now_us
        self.owes_error = False
        return True

    def settle(self, now_us: int) -> None:
        """Notes that the ERROR that was held back is being sent."""
        self._error_us = now_us
        self.owes_error = False
