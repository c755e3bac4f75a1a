"""Announces the relay on the local network: mDNS and DNS-SD (RFC 6762, 6763), as ``_clasp._tcp``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from clasp_relay import __version__
from clasp_relay.doors.door import DoorCounts
from clasp_relay.errors import cause_text
from clasp_relay.logs import events
from clasp_relay.net.tls import ServerTls

SERVICE_TYPE = "_clasp._tcp.local."

_LONGEST_NAME_BYTES = 63
"""A label of the DNS (RFC 1035 §2.3.4)."""

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104  it is compared, not bound


def service_info(name: str, port: int, addresses: Sequence[str], *, has_accounts: bool) -> ServiceInfo:
    """Returns what is announced.

    Args:
        name: the relay's name; cut to what a label holds, dots replaced.
        port: its WebSocket port.
        addresses: the addresses at which it can be reached.
        has_accounts: whether clients need a token.
    """
    label = name.replace(".", " ").encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore").strip() or "CLASP Relay"
    return ServiceInfo(
        SERVICE_TYPE,
        f"{label}.{SERVICE_TYPE}",
        port=port,
        parsed_addresses=list(addresses),
        properties={"version": __version__, "path": "/", "auth": "1" if has_accounts else "0"},
        server=f"{socket.gethostname().partition('.')[0]}.local.",
    )


def own_addresses(host: str) -> list[str]:
    """Returns the addresses to announce: the one that is listened on, or all that this machine has."""
    if host not in _EVERYWHERE:
        return [host]
    found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the system only chooses the source address for a destination (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            found.add(str(probe.getsockname()[0]))
        except OSError:
            events.CONNECTION_DETAIL.log(detail="there is no route to other networks")
    return sorted(found)


class Announcement:
    """Announces the relay while it runs. Implements ``door.Door``, without clients.

    A failure is logged and has no other effect.

    Args:
        reactor: has the threads that wait for the network.
        name: the relay's name.
        host: the address that it listens on.
        has_accounts: whether clients need a token.
    """

    def __init__(self, reactor: Any, name: str, host: str, *, has_accounts: bool) -> None:
        self._reactor = reactor
        self._name = name
        self._host = host
        self._has_accounts = has_accounts
        self._zeroconf: Zeroconf | None = None
        self._done: Deferred[None] | None = None
        self.counts: Sequence[DoorCounts] = ()
        """See ``Door``."""

    def open(self, _tls: ServerTls | None) -> None:
        """See ``Door``: does nothing yet, since a start may still fail."""

    def started(self, port: int | None) -> None:
        """Announces, in a thread: it takes a second to find out whether the name is free."""
        if port is not None and self._done is None:
            self._done = self._in_thread(lambda: self._register(port))
            self._done.addErrback(lambda failure: events.ANNOUNCE_FAILED.log(cause=cause_text(failure.value)))

    def close(self) -> Deferred[Any]:
        """Withdraws the announcement."""
        done, self._done = self._done, None
        if done is None:
            done = Deferred()
            done.callback(None)
            return done
        return done.addCallback(lambda _: self._in_thread(self._unregister))

    def _register(self, port: int) -> None:
        addresses = own_addresses(self._host)
        version = IPVersion.V6Only if ":" in addresses[0] else IPVersion.V4Only
        self._zeroconf = Zeroconf(interfaces=addresses, ip_version=version)
        info = service_info(self._name, port, addresses, has_accounts=self._has_accounts)
        self._zeroconf.register_service(info, allow_name_change=True)
        told = ", ".join(addresses)
        self._reactor.callFromThread(lambda: events.ANNOUNCED.log(name=info.name, address=told, port=port))

    def _unregister(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            zeroconf.close()

    def _in_thread(self, call: Callable[[], None]) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call)
