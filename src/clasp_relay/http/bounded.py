"""A web server that keeps no more of a request than the relay can use."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer_only

from clasp_relay.access.addresses import Network, is_in_networks
from clasp_relay.http.connections import HttpConnection, HttpConnections, RefusedConnection, TurnQueue

__all__ = ["MAX_BODY_BYTES", "BoundedRequest", "make_site"]

MAX_BODY_BYTES = 16 * 1024
"""The longest body that any call has a use for."""

MAX_DRAINED_BYTES = 1024 * 1024
"""What is read and thrown away of a longer one, so that its sender gets to read the answer; beyond it the
connection is closed at once (a client that still writes may lose the answer then, RFC 9112 §9.6)."""

IDLE_TIMEOUT_S = 60

_TOO_LARGE = b'{"error": "The request is too large."}'
_CUT_OFF = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TOO_LARGE), _TOO_LARGE)
)


class BoundedRequest(Request):
    """A request of whose body at most one byte more than :data:`MAX_BODY_BYTES` is kept.

    Whoever reads the body sees by that byte that it is too long.
    """

    _received_bytes = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802, ARG002 - Twisted's
        """Makes room for the body, in memory whatever its length is said to be."""
        self.content = self._kept = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        """Keeps what fits."""
        before = self._received_bytes
        self._received_bytes += len(data)
        self._kept.write(data[: max(MAX_BODY_BYTES + 1 - before, 0)])
        if before <= MAX_DRAINED_BYTES < self._received_bytes:
            self.channel.write(_CUT_OFF)
            self.channel.loseConnection()


@implementer_only(IProtocolFactory)  # without protocol negotiation (ALPN), which needs a callback; see ``net.tls``
class QuietSite(Site):
    """Twisted's site without an access log: it would have a line per request, and what clients put into headers.

    Args:
        resource: its root.
        clock: for time-outs.
        proxies: networks of trusted proxies, each of which speaks for many clients.
    """

    noisy = False
    protocol = HttpConnection  # type: ignore[assignment]  # in the place of one that would also speak HTTP/2

    def __init__(self, resource: IResource, clock: IReactorTime, proxies: Sequence[Network]) -> None:
        options: dict[str, Any] = {"requestFactory": BoundedRequest, "parsePOSTFormSubmission": False}
        super().__init__(resource, timeout=IDLE_TIMEOUT_S, reactor=clock, **options)  # type: ignore[no-untyped-call]
        self.connections = HttpConnections(clock, lambda peer: peer == "local" or is_in_networks(peer, proxies))
        """The open ones."""
        self._turns = TurnQueue(clock)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Makes the protocol for a new connection."""
        if not self.connections.make_room():
            return RefusedConnection()
        connection = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        connection.turns = self._turns
        connection.connections = self.connections
        return connection

    def log(self, request: Any) -> None:
        """Writes nothing."""


def make_site(resource: IResource, clock: IReactorTime, proxies: Sequence[Network] = ()) -> QuietSite:
    """Returns a web server.

    Args:
        resource: its root.
        clock: for time-outs.
        proxies: networks of trusted proxies; they may keep any number of idle connections.
    """
    return QuietSite(resource, clock, proxies)
