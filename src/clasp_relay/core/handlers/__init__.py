"""One file per family of messages; each handler is one function of relay, session, message and QoS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from clasp_relay.core.handlers.connection import hello, ping, pong, sync
from clasp_relay.core.handlers.reads import announce, get, query, replay, subscribe, unsubscribe
from clasp_relay.core.handlers.writes import bundle, publish, set_param
from clasp_relay.wire import messages as m

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session

Handler: TypeAlias = "Callable[[Relay, Session, Any, int], None]"

HANDLERS: dict[type[m.Message], Handler] = {
    m.Hello: hello,
    m.Announce: announce,
    m.Subscribe: subscribe,
    m.Unsubscribe: unsubscribe,
    m.Publish: publish,
    m.Set: set_param,
    m.Get: get,
    m.Replay: replay,
    m.Bundle: bundle,
    m.Sync: sync,
    m.Ping: ping,
    m.Pong: pong,
    m.Query: query,
}
"""Who handles what; ``session.sessions.check_legal`` lets nothing else through."""
