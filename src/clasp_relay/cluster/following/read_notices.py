"""Notices to the decider that a param with a life time was read at this relay, so that the decider renews it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ReadNotices"]

RENEW_STEP_S = 1.0
"""The shortest time between two notices about one address."""

MAX_READ = 50_000
"""For how many addresses the time of the last notice is remembered."""


class ReadNotices:
    """See the module.

    Args:
        ends_us: returns when the param at an address ends by itself, in Unix µs; None for never.
        monotonic_s: returns seconds.
        send: sends the notice about an address to the decider.
    """

    def __init__(
        self,
        ends_us: Callable[[str], int | None],
        monotonic_s: Callable[[], float],
        send: Callable[[str], None],
    ) -> None:
        self._ends_us = ends_us
        self._monotonic_s = monotonic_s
        self._send = send
        self._noted_s: dict[str, float] = {}
        """The time of the last notice by address."""

    def note(self, address: str) -> None:
        """Notes a GET at an address; the decider learns of it once a second at most."""
        if self._ends_us(address) is None:
            return
        now_s = self._monotonic_s()
        if now_s - self._noted_s.get(address, -RENEW_STEP_S) < RENEW_STEP_S:
            return
        if len(self._noted_s) >= MAX_READ:
            self._noted_s.clear()
        self._noted_s[address] = now_s
        self._send(address)
