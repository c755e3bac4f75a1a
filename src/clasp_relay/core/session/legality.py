"""Which message is legal when, as a table."""

from __future__ import annotations

from clasp_relay.core.session.sessions import SessionState
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire import messages as m

ALLOWED_LIVE: frozenset[type[m.Message]] = frozenset(
    {
        m.Announce,
        m.Bundle,
        m.Get,
        m.Ping,
        m.Pong,
        m.Publish,
        m.Query,
        m.Replay,
        m.Set,
        m.Subscribe,
        m.Sync,
        m.Unsubscribe,
    }
)

ALLOWED: dict[SessionState, frozenset[type[m.Message]]] = {
    SessionState.NEW: frozenset({m.Hello}),
    SessionState.LIVE: ALLOWED_LIVE,
    SessionState.CLOSED: frozenset(),
}
"""What a session may send in each of its states."""


def check(state: SessionState, message: m.Message) -> None:
    """Refuses a message that is not legal in a session's state.

    Raises:
        RequestError: MESSAGE, naming the message and what is wrong with it there.
    """
    kind = type(message)
    if kind not in ALLOWED[state]:
        raise RequestError(ErrorCode.MESSAGE, _why(state, kind))


def _why(state: SessionState, kind: type[m.Message]) -> str:
    name = kind.__name__
    if state is SessionState.NEW:
        return f"the first message must be HELLO, not {name.upper()}"
    if kind is m.Hello:
        return "this session has said HELLO before; open another connection for another session"
    if kind is m.FederationSync:
        return "FEDERATION_SYNC is not offered by this relay"
    return f"{name.upper()} is a message that only the relay sends"
