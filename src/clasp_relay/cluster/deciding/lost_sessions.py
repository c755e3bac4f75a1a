"""The sessions that are lost with their relay: what depends on them stays for a while at the decider.

Their clients connect to another relay, mostly within seconds; what they have left there, such as their places in rooms,
ends only if they do not come back.
"""

from __future__ import annotations

from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session

__all__ = ["LostSessions"]

COMES_BACK_S = 30.0
"""How long what depends on sessions stays after they were lost with their relay, so that clients can connect to another
relay."""


class LostSessions:
    """See the module.

    Args:
        relay: the decider's core.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._lost: set[Session] = set()

    def add(self, session: Session) -> None:
        """Notes that a session of the core, which is about to end there, is lost with its relay."""
        self._lost.add(session)

    def delay_ends(self) -> None:
        """Delays the core's hooks for ended sessions by ``COMES_BACK_S`` for lost ones; called once they are set."""
        relay, lost = self._relay, self._lost
        ended, gone = relay.hooks.when_ended, relay.hooks.when_gone
        is_lost = False

        def when_ended(session: Session) -> None:
            nonlocal is_lost
            is_lost = session in lost
            if is_lost:
                lost.discard(session)
                relay.clock.call_later(COMES_BACK_S, lambda: end(session))
            else:
                ended(session)

        def when_gone(subject: str) -> None:
            if not is_lost:  # called right after ``when_ended``, for the same session
                gone(subject)

        def end(session: Session) -> None:
            ended(session)
            subject = session.identity.subject
            if subject and not relay.sessions.has_subject(subject):
                gone(subject)

        relay.hooks.when_ended, relay.hooks.when_gone = when_ended, when_gone
