"""PUBLISH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clasp_relay.wire.messages import Publish

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session


def publish(relay: Relay, session: Session, message: Publish, _qos: int) -> None:
    """Passes a signal on; there is never an answer but an ERROR."""
    relay.publishing.check(session, message, relay.params)
    relay.publishing.send(session, message)
