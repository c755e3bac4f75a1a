"""What the relay says in its log of sessions, messages and people.

No line per message at info; what a client can cause as often as it likes is said once a minute for each
offender, with a count. Values of params and signals are their users' own: only traces have them, in the
frames. Tokens and passwords are in no line.
"""

from __future__ import annotations

from twisted.logger import Logger

from clasp_relay.core.ports import Clock
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import RequestError
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.masks import frame_hex, sent_hex
from clasp_relay.logs.tally import Tally
from clasp_relay.wire.messages import Bundle, Message, Publish

__all__ = ["RelayLog", "described"]

_ENDLESS = frozenset({"Limited", "BadInput", "Busy"})
"""Outcomes that anybody can have as often as they like: nothing was tried."""

_WITHOUT_LIMIT = frozenset({"logout", "refresh"})
"""Calls that may fail any number of times."""

_LONGEST_SHOWN = 200
"""Characters of what a client chose that a line has; an address may have 65,535."""

_core_log = Logger(namespace="clasp_relay.core")
_net_log = Logger(namespace="clasp_relay.net")
_auth_log = Logger(namespace="clasp_relay.auth")


class RelayLog:
    """Writes the log. Implements ``core.observer.Observer`` and ``net.observer.NetObserver``.

    Args:
        levels: what is logged; what is not is not even told to it.
        clock: when is now, and who calls later.
    """

    def __init__(self, levels: LogLevels, clock: Clock) -> None:
        self.watches = levels.passes("core", "debug")
        """See ``Observer``."""
        self.traces = levels.passes("net", "trace")
        """See ``Observer`` and ``NetObserver``."""
        self._clock = clock
        self._tally = Tally(clock.call_later, _say_others)

    def flush(self) -> None:
        """Writes what is still to be said; to be called at the end."""
        self._tally.flush()

    # core.observer.Observer

    def began(self, session: Session) -> None:
        """See ``Observer``."""
        _core_log.info(
            "session {session} of {address} began: {client}, {subject}",
            session=session.id,
            address=session.peer,
            client=_cut(session.name) or "without a name",
            subject=session.identity.subject or "nobody in particular",
        )

    def ended(self, session: Session, cause: str) -> None:
        """See ``Observer``."""
        _core_log.info(
            "session {session} of {address} ended{before} after {duration_s} s: {cause}"
            " ({subject}; {messages} messages, {errors} errors)",
            session=session.id,
            address=session.peer,
            before="" if session.hello_us else " before HELLO was accepted",
            duration_s=round((self._clock.now_us() - session.connected_us) / 1e6, 3),
            cause=_cut(cause),
            subject=session.identity.subject or "nobody in particular",
            messages=session.received,
            errors=session.errors,
        )

    def refused(self, session: Session, refusal: RequestError) -> None:
        """See ``Observer``."""
        about = "" if refusal.address is None else f" ({_cut(refusal.address)})"
        self._tally.note(
            ("refused", session.id),
            lambda count: _core_log.info(
                "session {session}: {count} messages refused, the last one with {code}: {reason}{about}",
                session=session.id,
                count=count,
                code=int(refusal.code),
                reason=_cut(refusal.message),
                about=about,
            ),
        )

    def limited(self, session: Session) -> None:
        """See ``Observer``."""
        self._tally.note(
            ("limited", session.id),
            lambda count: _core_log.warn(
                "session {session} of {address} sends too much: {count} messages dropped ({subject})",
                session=session.id,
                address=session.peer,
                count=count,
                subject=session.identity.subject or "nobody in particular",
            ),
        )

    def operation(self, session: Session, message: Message) -> None:
        """See ``Observer``."""
        _core_log.debug("session {session}: {operation}", session=session.id, operation=described(message))

    def frame(self, session: Session, data: bytes) -> None:
        """See ``Observer``."""
        _net_log.debug("session {session} < {frame}", session=session.id, frame=frame_hex(data), is_trace=True)

    # net.observer.NetObserver

    def turned_away(self, address: str, why: str) -> None:
        """See ``NetObserver``."""
        self._tally.note(
            ("turned away", address),
            lambda count: _net_log.warn(
                "{count} connections of {address} turned away: {why}", count=count, address=address, why=why
            ),
        )

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """See ``NetObserver``."""
        self._tally.note(
            ("slow", session),
            lambda count: _net_log.warn(
                "session {session} of {address} is slow: {waiting_bytes} bytes wait, some are left out ({count} times)",
                session=session,
                address=address,
                waiting_bytes=waiting_bytes,
                count=count,
            ),
        )

    def sent(self, session: str, data: bytes) -> None:
        """See ``NetObserver``."""
        _net_log.debug("session {session} > {frame}", session=session, frame=sent_hex(data), is_trace=True)

    # access.accounts

    def signed(self, event: str, address: str, outcome: str, user_id: str) -> None:
        """Tells of a call of the auth API; see ``accounts.Tell``."""
        if outcome not in _ENDLESS and (outcome == "ok" or event not in _WITHOUT_LIMIT):
            _auth_log.info(
                "{event} from {address}: {outcome} {user_id}",
                event=event,
                address=address,
                outcome=outcome,
                user_id=user_id,
            )
            return
        self._tally.note(
            (event, outcome, address),
            lambda count: _auth_log.warn(
                "{event} from {address}: {outcome}, {count} times",
                event=event,
                address=address,
                outcome=outcome,
                count=count,
            ),
        )


def described(message: Message) -> str:
    """Returns what a message asks for, without anything secret and without its value."""
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


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _say_others(count: int) -> None:
    _net_log.warn("{count} more of too many different offenders to name", count=count)
