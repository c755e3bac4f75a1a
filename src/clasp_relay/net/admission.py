"""Who may connect: how many sessions there are, in all and from one address."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address


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
    outbox_bytes: int = 1024 * 1024
    hello_timeout_s: float = 10


def is_loopback(address: str) -> bool:
    """Says whether an address is this machine itself; what is no IP address (a Unix socket) is."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


class Admission:
    """Counts the sessions.

    Args:
        limits: how many there may be.
    """

    def __init__(self, limits: NetLimits) -> None:
        self._limits = limits
        self._address_of: dict[object, str] = {}
        self._from_address: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._address_of)

    def admit(self, who: object, address: str) -> str | None:
        """Counts a session, unless there are too many.

        Args:
            who: the session's connection; counted once.
            address: the client's address.

        Returns:
            Why not, for people; None when it is counted.
        """
        if len(self._address_of) >= self._limits.max_sessions:
            return f"the server is full ({self._limits.max_sessions} sessions)"
        before = self._from_address.get(address, 0)
        if before >= self._limits.max_sessions_per_address and not is_loopback(address):
            return f"too many sessions from your address ({self._limits.max_sessions_per_address})"
        self._address_of[who] = address
        self._from_address[address] = before + 1
        return None

    def leave(self, who: object) -> None:
        """Counts a session no longer; harmless for one that is not counted."""
        address = self._address_of.pop(who, None)
        if address is None:
            return
        left = self._from_address[address] - 1
        if left:
            self._from_address[address] = left
        else:
            del self._from_address[address]
