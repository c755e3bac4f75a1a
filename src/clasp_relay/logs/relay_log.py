"""Logs sessions, messages and calls of the auth API.

At level info there is no line per message. What a client can cause as often as it likes is logged at once and then once
a minute for each client, with a count. The values of params and signals are private to users: only level trace shows
them, in the frames. Tokens and passwords are in no line.
"""

from __future__ import annotations

from clasp_relay.core.ports import Clock
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import RequestError
from clasp_relay.logs import events
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.masks import frame_hex, sent_hex
from clasp_relay.logs.tally import Tally
from clasp_relay.wire.messages import Bundle, Message, Publish

__all__ = ["RelayLog", "described"]

_UNLIMITED_OUTCOMES = frozenset({"Limited", "BadInput", "Busy"})
"""Outcomes that a client can cause without limit: the call was refused before any work was done."""

_UNLIMITED_CALLS = frozenset({"logout", "refresh"})
"""Calls that no limit of attempts counts."""

_SHORT = frozenset({"osc", "http-single"})
"""Doors where each message of a client may begin a session, as with ``oscsend``: there clients are told apart by their
address."""

_NOT_TOLD = _SHORT | {"mqtt-kept", "rules"}
"""Doors whose sessions have no line at their end: those, and doors whose sessions have no connection."""

_MAX_TEXT_LENGTH = 200
"""Characters of a text that a client chose; the rest is cut off."""


class RelayLog:
    """Writes the log. Implements ``core.observer.Observer`` and ``net.observer.NetObserver``.

    Args:
        levels: the levels; ``watches`` and ``traces`` are false for what they exclude.
        clock: the clock and its timers.
    """

    def __init__(self, levels: LogLevels, clock: Clock) -> None:
        self.watches = levels.passes("core", "debug")
        """See ``Observer``."""
        self.traces = levels.passes("net", "trace")
        """See ``Observer`` and ``NetObserver``."""
        self._clock = clock
        self._tally = Tally(clock.call_later, lambda count: events.LOG_OVERFLOW.log(count=count))

    def flush(self) -> None:
        """Logs the counts whose minute has not ended; to be called at the stop."""
        self._tally.flush()

    # core.observer.Observer

    def began(self, session: Session) -> None:
        """See ``Observer``."""
        if session.door == "osc":
            self._tally.note(
                ("sources", session.peer),
                lambda count: events.OSC_SOURCES.log(count=count, address=session.peer, session=session.id),
            )
            return
        if session.door in _SHORT:
            self._tally.note(
                ("requests", session.peer),
                lambda count: events.HTTP_REQUESTS.log(count=count, address=session.peer, session=session.id),
            )
            return
        events.SESSION_CONNECTED.log(
            session=session.id,
            address=session.peer,
            client=_cut(session.name) or "unnamed",
            subject=_who(session),
        )

    def ended(self, session: Session, cause: str) -> None:
        """See ``Observer``."""
        if session.door in _NOT_TOLD:
            return
        duration_s = round((self._clock.now_us() - session.connected_us) / 1e6, 3)
        if session.hello_us:
            events.SESSION_DISCONNECTED.log(
                session=session.id,
                address=session.peer,
                duration_s=duration_s,
                cause=_cut(cause),
                subject=_who(session),
                messages=session.received,
                errors=session.errors,
            )
            return
        self._tally.note(
            ("not established", session.peer),
            lambda count: events.SESSION_NOT_ESTABLISHED.log(
                session=session.id, address=session.peer, duration_s=duration_s, cause=_cut(cause), count=count
            ),
        )

    def refused(self, session: Session, refusal: RequestError) -> None:
        """See ``Observer``; what HTTP answers is told by its door."""
        if session.door in _SHORT:
            if session.door == "osc":
                self.door_refused("OSC", session.peer, refusal.message)
            return
        # Not the refusal itself: its traceback has all that the message was handled with.
        session_id, code, reason = session.id, int(refusal.code), _cut(refusal.message)
        about = "" if refusal.address is None else f" ({_cut(refusal.address)})"
        self._tally.note(
            ("refused", session_id),
            lambda count: events.SESSION_MESSAGES_REFUSED.log(
                session=session_id, count=count, code=code, reason=reason, about=about
            ),
        )

    def limited(self, session: Session) -> None:
        """See ``Observer``."""
        self._tally.note(
            ("limited", session.door, session.peer if session.door in _SHORT else session.id),
            lambda count: events.SESSION_RATE_LIMITED.log(
                session=session.id,
                address=session.peer,
                count=count,
                subject=_who(session),
            ),
        )

    def door_refused(self, door: str, address: str, reason: str) -> None:
        """Logs that a door refused a message.

        Args:
            door: what the log calls it.
            address: the client's.
            reason: why, for people.
        """
        self._tally.note(
            ("door refused", door, address),
            lambda count: events.DOOR_REFUSED.log(count=count, door=door, address=address, reason=_cut(reason)),
        )

    def rule_left_out(self, rule: str, reason: str) -> None:
        """Logs that an action of a rule was left out.

        Args:
            rule: its id.
            reason: why, for people.
        """
        self._tally.note(
            ("rule", rule),
            lambda count: events.RULE_LEFT_OUT.log(count=count, rule=_cut(rule), reason=_cut(reason)),
        )

    def operation(self, session: Session, message: Message) -> None:
        """See ``Observer``."""
        events.SESSION_OPERATION.log(session=session.id, operation=described(message))

    def frame(self, session: Session, data: bytes) -> None:
        """See ``Observer``."""
        events.FRAME_RECEIVED.log(session=session.id, frame=frame_hex(data))

    # net.observer.NetObserver

    def turned_away(self, address: str, why: str) -> None:
        """See ``NetObserver``."""
        self._tally.note(
            ("turned away", address),
            lambda count: events.CONNECTION_REFUSED.log(count=count, address=address, reason=why),
        )

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """See ``NetObserver``."""
        self._tally.note(
            ("slow", session),
            lambda count: events.SESSION_SLOW.log(
                session=session, address=address, waiting_bytes=waiting_bytes, count=count
            ),
        )

    def sent(self, session: str, data: bytes) -> None:
        """See ``NetObserver``."""
        events.FRAME_SENT.log(session=session, frame=sent_hex(data))

    # access.accounts

    def signed(self, call: str, address: str, outcome: str, user_id: str) -> None:
        """Logs a call of the auth API; see ``accounts.Tell``."""
        if outcome not in _UNLIMITED_OUTCOMES and (outcome == "ok" or call not in _UNLIMITED_CALLS):
            events.log_auth_call(call, address, outcome, user_id)
            return
        self._tally.note(
            (call, outcome, address),
            lambda count: events.AUTH_REFUSED.log(
                call=call, address=address, outcome=outcome, reason=events.auth_reason(outcome), count=count
            ),
        )


def described(message: Message) -> str:
    """Returns the type of a message and its address or pattern, without secrets and values."""
    name = type(message).__name__.upper()
    if isinstance(message, Bundle):
        return f"{name} of {len(message.messages)}"
    if isinstance(message, Publish):
        name += f" {message.signal.name.lower()}"
    for field in ("address", "pattern", "namespace"):
        about = getattr(message, field, None)
        if about is not None:
            return f"{name} {_cut(about)}"
    return name


def _who(session: Session) -> str:
    """Returns the subject of a session, with its label, which an operator has chosen."""
    who = session.identity
    return f"{who.subject} ({_cut(who.label)})" if who.label else who.subject or "none"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_LENGTH else text[:_MAX_TEXT_LENGTH] + "…"
