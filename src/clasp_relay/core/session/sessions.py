"""A connected client, as the core knows it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from clasp_relay.core.rights.port import ANYBODY, Identity

if TYPE_CHECKING:
    from clasp_relay.core.fanout.subscriptions import Subscription
    from clasp_relay.core.ports import Outbox
    from clasp_relay.core.session.limiter import Limiter


class SessionState(Enum):
    """Where a session is in its life (``docs/protocol.md``, Connection)."""

    NEW = "waiting for HELLO"
    LIVE = "live"
    CLOSED = "closed"


class Session:
    """One connection, from its WebSocket upgrade to its end.

    Args:
        session_id: a lower-case UUID4, told to the client in WELCOME.
        outbox: its way out.
        peer: the client's address, for the log.
        connected_us: the Unix time in µs.
    """

    __slots__ = (
        "bad_frames_us",
        "connected_us",
        "errors",
        "features",
        "hello_us",
        "id",
        "identity",
        "limiter",
        "name",
        "outbox",
        "peer",
        "pending_bundles",
        "received",
        "state",
        "subscriptions",
    )

    def __init__(self, session_id: str, outbox: Outbox, peer: str, connected_us: int = 0) -> None:
        self.id = session_id
        self.outbox = outbox
        self.peer = peer
        self.connected_us = connected_us
        self.hello_us = 0
        """When its HELLO was accepted; 0 until then."""
        self.received = 0
        """Messages that it sent."""
        self.errors = 0
        """ERRORs that it was sent."""
        self.state = SessionState.NEW
        self.name = ""
        self.features = 0
        self.identity: Identity = ANYBODY
        self.limiter: Limiter | None = None
        self.subscriptions: dict[int, Subscription] = {}
        self.pending_bundles = 0
        self.bad_frames_us: list[int] = []
        """When the last frames came that could not be decoded."""

    @property
    def is_live(self) -> bool:
        """Whether HELLO was accepted and the session has not ended."""
        return self.state is SessionState.LIVE
