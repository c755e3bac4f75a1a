"""Admission: limits of connections and sessions, in all and from one client address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

SPARE_CONNECTIONS = 4
"""Connections of a client address that are accepted beyond its limit, to be refused with a reason after their
upgrade."""


@dataclass(frozen=True, slots=True)
class NetLimits:
    """The limits of connections.

    Attributes:
        max_sessions: WebSocket connections in all; TCP connections are capped at twice that, at accept. 0 for no limit.
        max_sessions_per_address: connections from one client address, before HELLO and after it; 0 for no limit.
        session_timeout_s: idle timeout in seconds: a peer that has sent no byte for so long counts as dead.
        outbox_bytes: limit of what waits for one session, in bytes.
        hello_timeout_s: time from the TCP connection to the end of the upgrade, TLS included; and from there to HELLO.
        exempts_loopback: whether clients on this machine are not counted by address.
    """

    max_sessions: int = 1000
    max_sessions_per_address: int = 250
    session_timeout_s: float = 300
    outbox_bytes: int = 1024 * 1024
    hello_timeout_s: float = 10
    exempts_loopback: bool = True


@lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    """Tells whether an address is of this machine; one that is no IP address (a Unix socket) is."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def same_address(address: str) -> str:
    """Returns the address itself: each one counts separately."""
    return address


class Admission:
    """Counts connections by client address, from their acceptance on, and the sessions among them.

    Args:
        limits: the limits.
        address_group: maps an address to what counts as one; an IPv6 client has a whole network of them.
    """

    def __init__(self, limits: NetLimits, address_group: Callable[[str], str] = same_address) -> None:
        self._limits = limits
        self._address_group = address_group
        self._group_of: dict[object, str] = {}
        self._connections: dict[str, int] = {}
        self._sessions: set[object] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    def may_connect(self, address: str) -> bool:
        """Tells whether a connection from an address is accepted.

        A few more are accepted than may become sessions, so that a client over the limit reads the reason.

        Args:
            address: the client's address.
        """
        limit = self._limits.max_sessions_per_address
        if not limit or self._is_exempt(address):
            return True
        return self._connections.get(self._address_group(address), 0) < limit + SPARE_CONNECTIONS

    def connected(self, who: object, address: str) -> None:
        """Counts a connection, or moves it to another address once that is known.

        Args:
            who: the connection.
            address: the client's address; not a proxy's own.
        """
        self._uncount(who)
        if not self._is_exempt(address):
            group = self._group_of[who] = self._address_group(address)
            self._connections[group] = self._connections.get(group, 0) + 1

    def admit(self, who: object) -> str | None:
        """Counts a connection as a session, unless there are too many.

        Args:
            who: the connection.

        Returns:
            The reason of a refusal, for people; None if it is accepted.
        """
        limits = self._limits
        if limits.max_sessions and len(self._sessions) >= limits.max_sessions:
            return f"the server is full ({limits.max_sessions} sessions)"
        group = self._group_of.get(who)
        per_address = limits.max_sessions_per_address
        if per_address and group is not None and self._connections[group] > per_address:
            return f"too many connections from your address ({per_address})"
        self._sessions.add(who)
        return None

    def leave(self, who: object) -> None:
        """Stops counting a connection; does nothing if it is not counted."""
        self._sessions.discard(who)
        self._uncount(who)

    def _is_exempt(self, address: str) -> bool:
        return not address or (self._limits.exempts_loopback and is_loopback(address))

    def _uncount(self, who: object) -> None:
        group = self._group_of.pop(who, None)
        if group is None:
            return
        left = self._connections[group] - 1
        if left:
            self._connections[group] = left
        else:
            del self._connections[group]
