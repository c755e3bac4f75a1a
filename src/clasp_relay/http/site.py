"""The web server of the HTTP ports: Twisted's, with limits on bodies, connections and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Protocol, TypeAlias

from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer_only

from clasp_relay.access.addresses import Network, client_address, is_in_networks
from clasp_relay.http.connections import HttpConnection, HttpConnections, RefusedConnection, TurnQueue
from clasp_relay.net.open_files import is_short

__all__ = ["MAX_BODY_BYTES", "Body", "BoundedRequest", "Instead", "OpenBody", "make_site"]

MAX_BODY_BYTES = 16 * 1024
"""The longest body that a call accepts."""

MAX_DRAINED_BYTES = 1024 * 1024
"""Bytes of a longer body that are read and discarded, so that the client can read the answer. Beyond it the connection
is closed at once, and a client that still writes may lose the answer (RFC 9112 §9.6)."""

IDLE_TIMEOUT_S = 60

_TOO_LARGE = b'{"error": "The request is too large."}'
_CUT_OFF = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TOO_LARGE), _TOO_LARGE)
)


PACE_BYTES = 1024 * 1024
"""Bytes of a long body for which each deadline is set, so that a client that sends almost nothing cannot keep its
connection."""


class Body(Protocol):
    """Receives a body while it arrives, so that it is not kept in memory."""

    @property
    def patience_s(self) -> float | None:
        """Seconds in which each ``PACE_BYTES`` of it have to arrive; None for the usual deadline of a whole body."""

    @property
    def max_bytes(self) -> int:
        """Limit of the body; a longer one closes the connection."""

    def when_room(self, call: Callable[[], None]) -> None:
        """Sets the function that is called when more may be written, after ``write`` returned False."""

    def write(self, data: bytes) -> bool:
        """Receives bytes; returns whether more may be written now."""

    def abort(self) -> None:
        """Ends the body, since the client is gone; may also be called after the end of the body."""


class BoundedRequest(Request):
    """A request that keeps at most :data:`MAX_BODY_BYTES` + 1 bytes of its body, or passes it to a ``Body``.

    The extra byte shows that the body was too long.
    """

    body: Body | None = None
    """Receives the body, if the site has a ``Body`` for this path; else None."""
    _received_bytes = 0
    _max_bytes = MAX_DRAINED_BYTES

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's
        """Prepares to receive the body, whatever Content-Length says."""
        self.content = self._kept = BytesIO()
        channel: Any = self.channel
        self.client = channel.getPeer()  # Twisted sets it after the body
        self.body = channel.site.open_body(self, channel._command, channel._path, length)
        if self.body is not None:
            self.body.when_room(channel.release_body)
            self._max_bytes = self.body.max_bytes

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        """Keeps the bytes up to the limit, or passes them to ``body``."""
        before = self._received_bytes
        self._received_bytes += len(data)
        channel: Any = self.channel
        if self.body is None:
            self._kept.write(data[: max(MAX_BODY_BYTES + 1 - before, 0)])
        else:
            if before // PACE_BYTES < self._received_bytes // PACE_BYTES:
                channel.renew_patience()
            if not self.body.write(data):
                channel.hold_body()
        if before <= self._max_bytes < self._received_bytes:
            self.channel.write(_CUT_OFF)
            self.channel.loseConnection()

    def connectionLost(self, reason: Any) -> None:
        """Ends the body, since the client is gone."""
        if self.body is not None:
            self.body.abort()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


OpenBody: TypeAlias = Callable[[BoundedRequest, bytes, bytes, int | None], Body | None]
"""Returns the ``Body`` for a request, given the request, its method, its path, and its Content-Length; None for
none."""


Instead: TypeAlias = Callable[[IRequest, Callable[[Any], Any]], IResource | None]
"""Returns a resource that answers instead of the one at the request's path, which it may find later; None for none."""


def _keeps(_request: BoundedRequest, _method: bytes, _path: bytes, _length: int | None) -> None:
    """Returns None: every body is kept in memory."""


@implementer_only(IProtocolFactory)  # without protocol negotiation (ALPN), which needs a callback; see ``net.tls``
class QuietSite(Site):
    """Twisted's site without its access log, which would have a line per request with text from its headers.

    Args:
        resource: its root.
        clock: for time-outs.
        proxies: networks of trusted proxies, each of which has many clients.
        uses_reserve: whether it may use the last file descriptors; for health checks.
    """

    noisy = False
    protocol = HttpConnection  # type: ignore[assignment]  # in the place of one that would also speak HTTP/2

    def __init__(
        self, resource: IResource, clock: IReactorTime, proxies: Sequence[Network], *, uses_reserve: bool
    ) -> None:
        options: dict[str, Any] = {"requestFactory": BoundedRequest, "parsePOSTFormSubmission": False}
        super().__init__(resource, timeout=IDLE_TIMEOUT_S, reactor=clock, **options)  # type: ignore[no-untyped-call]
        self.connections = HttpConnections(
            clock,
            lambda peer: peer == "local" or is_in_networks(peer, proxies),
            lambda peer, forwarded: client_address(peer, forwarded, proxies),
        )
        """The open connections."""
        self.open_body: OpenBody = _keeps
        """Chooses the ``Body`` of a request."""
        self.instead: Instead | None = None
        """Chooses a resource that answers instead of the one at the request's path; None for none."""
        self._turns = TurnQueue(clock)
        self._uses_reserve = uses_reserve

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Makes the protocol for a new connection; if there are too many, one that answers 503."""
        if not self._uses_reserve and is_short():
            return None
        if not self.connections.make_room(getattr(addr, "host", None) or "local"):
            return RefusedConnection()
        connection = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        connection.turns = self._turns
        connection.connections = self.connections
        return connection

    def getResourceFor(self, request: Any) -> Any:  # noqa: N802 - Twisted's
        """Finds the resource that answers a request."""
        find = super().getResourceFor
        found = None if self.instead is None else self.instead(request, find)
        return find(request) if found is None else found  # type: ignore[no-untyped-call]

    def log(self, request: Any) -> None:
        """Does nothing."""


def make_site(
    resource: IResource, clock: IReactorTime, proxies: Sequence[Network] = (), *, uses_reserve: bool = False
) -> QuietSite:
    """Returns a web server.

    Args:
        resource: its root.
        clock: for time-outs.
        proxies: networks of trusted proxies; they may keep any number of idle connections.
        uses_reserve: whether it may use the last file descriptors; for health checks.
    """
    return QuietSite(resource, clock, proxies, uses_reserve=uses_reserve)
