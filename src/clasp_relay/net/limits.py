"""The limits of the net layer, each with its unit and reason."""

from __future__ import annotations

from dataclasses import dataclass

OUTBOX_BYTES = 1024 * 1024
"""How much may wait for one session, by default."""


@dataclass(frozen=True, slots=True)
class NetLimits:
    """What connections may use.

    Attributes:
        max_sessions: WebSocket connections in all; TCP connections are capped at twice that, at accept.
        max_sessions_per_address: WebSocket connections from one client address; loopback is exempt.
        session_timeout_s: after this many seconds without any byte from a peer it is taken for dead.
        outbox_bytes: how much may wait for one session.
        hello_timeout_s: time from the TCP connection to the end of HELLO, TLS and HTTP upgrade included.
    """

    max_sessions: int = 1000
    max_sessions_per_address: int = 250
    session_timeout_s: float = 300
    outbox_bytes: int = OUTBOX_BYTES
    hello_timeout_s: float = 10
