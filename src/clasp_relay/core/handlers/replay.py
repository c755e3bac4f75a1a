"""REPLAY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Replay

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session


def replay(_relay: Relay, _session: Session, message: Replay, _qos: int) -> None:
    """Refuses: there is no journal to replay from."""
    raise RequestError(ErrorCode.NOT_CONFIGURED, "this relay keeps no history", message.pattern)
