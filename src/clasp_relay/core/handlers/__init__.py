"""One file per family of messages; each handler is one function of relay, session, message and QoS."""

from __future__ import annotations

from clasp_relay.core.handlers.connection import hello, ping, pong, sync
from clasp_relay.core.handlers.reads import announce, get, query, replay, subscribe, unsubscribe
from clasp_relay.core.handlers.writes import bundle, publish, set_param
from clasp_relay.core.relay import Handler
from clasp_relay.wire import messages as m

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
"""The handler of each message type; ``session.sessions.check_legal`` refuses all others."""
