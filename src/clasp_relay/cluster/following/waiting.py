"""Messages that wait at a relay of a cluster: reads for the writes of their session, HELLOs for their token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from clasp_relay.cluster.following.requests import WAITS_S, SessionRequests
from clasp_relay.core.relay import Handler, Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import Pieces
from clasp_relay.wire import messages as m

__all__ = ["WaitingHellos", "WaitingReads"]

TOKEN_S = 1.0
"""How long the HELLO of a session waits if its token is not known here."""


class _Later(NamedTuple):
    """A message that waits, and with it all later ones of its session (``Relay.put_off``)."""

    relay: Relay
    session: Session
    handler: Handler
    message: m.Message
    qos: int
    since_s: float

    def go_on(self) -> None:
        """Has the message handled, then those that wait behind it."""
        self.relay.go_on(self.session, self._handled())

    def _handled(self) -> Iterator[int]:
        pieces = self.handler(self.relay, self.session, self.message, self.qos)
        yield 1
        if pieces is not None:
            yield from pieces


class WaitingReads:
    """Reads that wait until the requests of their session are done, or until this relay has caught up with the log.

    Args:
        find: returns the requests of a session by its id; None if the log has ended the session.
        monotonic_s: returns seconds.
    """

    def __init__(self, find: Callable[[str], SessionRequests | None], monotonic_s: Callable[[], float]) -> None:
        self._find = find
        self._monotonic_s = monotonic_s
        self._is_fresh = True
        self._waiting: dict[SessionRequests, _Later] = {}

    def behind_writes(self, handler: Handler) -> Handler:
        """Returns a handler that delays a read until the session's writes are done.

        Args:
            handler: handles the read.
        """

        def handle(relay: Relay, session: Session, message: m.Message, qos: int) -> Pieces | None:
            asking = self._find(session.id)
            if asking is None or not (asking.has_writes or self._holds(relay)):
                return handler(relay, session, message, qos)
            self._waiting[asking] = _Later(relay, session, handler, message, qos, self._monotonic_s())
            relay.put_off(session)
            return None

        return handle

    def note_fresh(self, is_fresh: bool) -> None:
        """Notes whether this relay has applied all batches that the log had when the engine was last heard.

        If it has not, a right may have ended without its knowledge: then, with accounts, reads wait.
        """
        was_fresh, self._is_fresh = self._is_fresh, is_fresh
        if is_fresh and not was_fresh:
            for asking in list(self._waiting):
                self.go_on(asking)

    def _holds(self, relay: Relay) -> bool:
        """Tells whether reads have to wait even if there are no writes before them."""
        return not (self._is_fresh or relay.permissions.is_open)

    def go_on(self, asking: SessionRequests) -> None:
        """Handles the read of a session that has waited, if the session's writes are done."""
        later = self._waiting.get(asking)
        if later is not None and not (asking.has_writes or self._holds(later.relay)):
            del self._waiting[asking]
            later.go_on()

    def overdue(self, now_s: float) -> Iterator[Session]:
        """Yields the sessions whose read waits since too long because this relay has not caught up with the log.

        Args:
            now_s: the monotonic time in seconds.
        """
        for asking in list(self._waiting):
            later = self._waiting.get(asking)
            if later is not None and later.since_s <= now_s - WAITS_S and self._holds(later.relay):
                yield later.session

    def forget(self, asking: SessionRequests) -> None:
        """Drops the read of a session that has ended."""
        self._waiting.pop(asking, None)


class WaitingHellos:
    """HELLOs that wait for their token: another relay may have issued it just now.

    Args:
        knows_token: tells whether a token is, or was, known here.
        monotonic_s: returns seconds.
    """

    def __init__(self, knows_token: Callable[[str], bool], monotonic_s: Callable[[], float]) -> None:
        self._knows_token = knows_token
        self._monotonic_s = monotonic_s
        self._waiting: dict[Session, _Later] = {}

    def behind_token(self, handler: Handler) -> Handler:
        """Returns a handler that delays a HELLO with an unknown token.

        Args:
            handler: handles the HELLO.
        """

        def handle(relay: Relay, session: Session, message: m.Message, qos: int) -> Pieces | None:
            assert isinstance(message, m.Hello), "a HELLO that is none"
            # A request over HTTP has to be answered at once.
            if not message.token or session.door.startswith("http") or self._knows_token(message.token):
                return handler(relay, session, message, qos)
            self._waiting[session] = _Later(relay, session, handler, message, qos, self._monotonic_s())
            relay.put_off(session)
            return None

        return handle

    def go_on(self, now_s: float) -> None:
        """Handles those whose token is known by now, and those that have waited too long, which are refused then.

        Args:
            now_s: the monotonic time in seconds.
        """
        for session, later in list(self._waiting.items()):
            assert isinstance(later.message, m.Hello), "something else than a HELLO waits for a token"
            if self._knows_token(later.message.token) or now_s - later.since_s >= TOKEN_S:
                del self._waiting[session]
                later.go_on()
