"""Clearing: a relay asks the decider to delete params, as the relay's own nulls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from clasp_relay.cluster.exchange.packets import Asked, encode_addresses
from clasp_relay.cluster.following.requests import Requests
from clasp_relay.core.session.sessions import Session

__all__ = ["Clearing"]

CLEARED_AT_ONCE = 500
"""How many addresses one CLEAR names at most."""

RELAYS_OWN = "admin:/**"
"""The scope that a relay vouches for its own session."""


class Clearing:
    """Asks the decider in a session of the relay's own.

    Args:
        requests: the requests of this relay's sessions.
        connect: begins a session of the serving core to which nothing is sent.
    """

    def __init__(self, requests: Requests, connect: Callable[[], Session]) -> None:
        self._requests = requests
        self._connect = connect
        self._own: Session | None = None
        """The relay's own session; None until the first request."""

    def clear(self, addresses: Sequence[str], over: Callable[[bool], None]) -> None:
        """Asks the decider to delete the params at some addresses.

        Args:
            addresses: the addresses.
            over: called once with whether it was done; False if that is not known in time, so that it is asked again.
        """
        if not addresses:
            over(True)
            return
        session = self._session()
        parts = [addresses[start : start + CLEARED_AT_ONCE] for start in range(0, len(addresses), CLEARED_AT_ONCE)]
        left, is_done = len(parts), True

        def part_over(is_part_done: bool) -> None:
            nonlocal left, is_done
            left, is_done = left - 1, is_done and is_part_done
            if not left:
                over(is_done)

        for part in parts:
            self._requests.keep(session, Asked.CLEAR, data=encode_addresses(part), over=part_over)

    def _session(self) -> Session:
        """Returns the relay's own session: another one if the log has ended the last."""
        if self._own is None or self._own.id not in self._requests.sessions:
            self._own = self._connect()
            self._own.close()  # nothing is sent to it here
            self._requests.begin(self._own, json.dumps([RELAYS_OWN]))
        return self._own
