"""The allowed destinations of push messages: push services on the public internet, never the relay's own network.

A client that subscribes names a URL that the relay then posts to. So that it cannot reach internal services with that
(server-side request forgery), only https is accepted; the host name is resolved, and if one of its addresses is not
public, nothing is sent. The connection goes to one of the addresses that were checked, so a name that resolves
differently a moment later (DNS rebinding) has no effect. Redirects are not followed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import SOCK_STREAM, getaddrinfo
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone as CONNECTION_DONE
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from clasp_relay.access.refusals import Busy
from clasp_relay.errors import ClaspError

__all__ = ["ForbiddenPlaceError", "LookUps", "Place", "Places", "is_public", "make_agent", "place_of"]

MAX_URL = 1_024
"""Maximum length of an endpoint in characters; those of push services have 150 to 300."""

CONNECT_S = 5
"""Timeout of a TCP connect to one address, in seconds."""

CONNECTION_S = 20
"""Maximum lifetime of a connection in seconds, longer than the deadline of a request (``sender.REQUEST_S``)."""

MAX_ADDRESSES = 3
"""Maximum number of addresses of one host that are tried."""

MAX_ANSWER_BYTES = 64 * 1024
"""Maximum size of a response, headers included; those of push services have a few hundred bytes."""

_NAT64 = ip_network("64:ff9b::/96")

_NOT_PUBLIC_EITHER = (
    ip_network("192.0.0.0/24"),  # IETF protocol assignments (RFC 6890); the metadata service of some clouds
    ip_network("192.88.99.0/24"),  # 6to4 relays, deprecated (RFC 7526)
    ip_network("168.63.129.16/32"),  # Azure's host services, at a public address
    ip_network("fec0::/10"),  # site-local, deprecated (RFC 3879)
)
"""Networks that are not public although ``ipaddress`` counts them as global."""


class ForbiddenPlaceError(ClaspError):
    """The relay does not send to this endpoint; the message says why, for people."""


class Place(NamedTuple):
    """Host and port of a push service."""

    host: str
    port: int

    @property
    def origin(self) -> str:
        """The origin (RFC 6454 §6.1), which is the ``aud`` of a VAPID token (RFC 8292 §2)."""
        return f"https://{self.host}" + ("" if self.port == 443 else f":{self.port}")


LOOK_UPS_AT_ONCE = 8
LOOK_UPS_AT_ONCE_IN_LANE = 2
MAX_LOOK_UPS_WAITING = 200
MAX_LOOK_UPS_WAITING_IN_LANE = 4
"""Maximum numbers of concurrent and of queued look-ups: in all, and in one lane, which is a client or a push
service."""

KNOWN_S = 300
"""How long the addresses of a host are cached, in seconds. So the usual push services can be reached while slow name
servers of other hosts occupy all look-ups."""

MAX_KNOWN = 1_000
"""Maximum number of hosts whose addresses are cached; the least recently used one is removed."""

Resolve = Callable[[str, int, str], "Deferred[list[str]]"]
"""Returns the addresses of a host as texts; called with the host, the port and the lane."""


def place_of(endpoint: str) -> Place:
    """Returns the host and port of an endpoint.

    Raises:
        ForbiddenPlaceError: it is not an https URL with a host name or an IPv4 address.
    """
    if len(endpoint) > MAX_URL or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        raise ForbiddenPlaceError("The endpoint is not a URL that the relay takes.")
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise ForbiddenPlaceError("The endpoint is not a URL.") from None
    host = parts.hostname or ""
    if parts.scheme != "https" or not host or ":" in host or "@" in parts.netloc or "\\" in endpoint or port == 0:
        raise ForbiddenPlaceError("The endpoint must be an https URL of a push service.")
    return Place(host, port or 443)


def is_public(text: str) -> bool:
    """Tells whether an IP address is public; IPv4 addresses embedded in an IPv6 address have to be public, too."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inside = _inside(address)
        if address in _NAT64 or address.ipv4_mapped is not None:
            return all(map(_is_public, inside))
        return _is_public(address) and all(map(_is_public, inside))
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    is_public = address.is_global and not address.is_multicast and not address.is_reserved
    return is_public and not any(address in network for network in _NOT_PUBLIC_EITHER)


def _inside(address: IPv6Address) -> list[IPv4Address]:
    """Returns the IPv4 addresses embedded in an IPv6 address: mapped, 6to4, Teredo, NAT64."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


def _look_up(host: str, port: int) -> list[str]:
    return list(dict.fromkeys(str(info[4][0]) for info in getaddrinfo(host, port, type=SOCK_STREAM)))


class Places:
    """Resolves push services, and checks whether the relay may send to them.

    Args:
        resolve: returns the addresses of a host.
        allowed: push services that need not be public, as ``host:port``.
    """

    def __init__(self, resolve: Resolve, allowed: Collection[str] = ()) -> None:
        self._resolve = resolve
        self._allowed = frozenset(text.lower() for text in allowed)

    async def addresses(self, place: Place, lane: str = "") -> list[str]:
        """Returns the addresses to connect to.

        Args:
            place: the push service.
            lane: the lane of the look-up; the host is the lane where it is empty.

        Raises:
            ForbiddenPlaceError: the host has no address, or one that is not public.
            Busy: too many look-ups wait.
        """
        try:
            found = await self._resolve(place.host, place.port, lane or place.host)
        except OSError:
            found = []
        if not found:
            raise ForbiddenPlaceError(f"The push service {place.host} cannot be found.")
        if f"{place.host}:{place.port}" not in self._allowed and not all(map(is_public, found)):
            raise ForbiddenPlaceError(f"The push service {place.host} is not on the public internet.")
        return found[:MAX_ADDRESSES]


class LookUps:
    """Resolves hosts with the machine's resolver, in threads of its own: a dead name server blocks one for long.

    Look-ups are queued while too many run. Each lane has at most two running and a few queued ones, so that no client
    can occupy all. Results are cached.

    Args:
        reactor: the results are passed to its thread.
        look_up: calls ``socket.getaddrinfo``: returns the addresses of a host and port, or raises an OSError.
    """

    def __init__(self, reactor: Any, look_up: Callable[[str, int], list[str]] = _look_up) -> None:
        self._reactor = reactor
        self._look_up = look_up
        self._running: Counter[str] = Counter()
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self._known: OrderedDict[tuple[str, int], tuple[list[str], float]] = OrderedDict()
        """The cache: addresses, and when they expire in the reactor's seconds; the most recently used come last."""

    def resolve(self, host: str, port: int, lane: str) -> Deferred[list[str]]:
        """See ``Resolve``.

        Raises:
            Busy: too many look-ups are queued, in all or in this lane; the Deferred fails with it.
        """
        known = self._known.get((host, port))
        if known is not None and self._reactor.seconds() < known[1]:
            self._known.move_to_end((host, port))
            return succeed(list(known[0]))
        found: Deferred[list[str]] = Deferred()
        in_lane = sum(each == lane for each, _ in self._waiting)
        if len(self._waiting) >= MAX_LOOK_UPS_WAITING or in_lane >= MAX_LOOK_UPS_WAITING_IN_LANE:
            return fail(Busy("The relay is busy. Try again in a minute.", 60))

        def ended(answer: list[str] | OSError) -> None:
            self._running -= Counter([lane])
            self._begin()
            if isinstance(answer, OSError):
                found.errback(answer)
            else:
                self._note(host, port, answer)
                found.callback(answer)

        def ask() -> None:
            answer: list[str] | OSError
            try:
                answer = self._look_up(host, port)
            except (OSError, UnicodeError) as error:
                answer = error if isinstance(error, OSError) else OSError(str(error))
            self._reactor.callFromThread(ended, answer)

        # A daemon thread, so that the end of the process does not wait for it.
        self._waiting.append((lane, Thread(target=ask, name="push look-up", daemon=True).start))
        self._begin()
        return found

    def _note(self, host: str, port: int, addresses: list[str]) -> None:
        self._known[host, port] = list(addresses), self._reactor.seconds() + KNOWN_S
        self._known.move_to_end((host, port))
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _begin(self) -> None:
        for _ in range(len(self._waiting)):
            if self._running.total() >= LOOK_UPS_AT_ONCE:
                return
            lane, begin = self._waiting.popleft()
            if self._running[lane] >= LOOK_UPS_AT_ONCE_IN_LANE:
                self._waiting.append((lane, begin))
                continue
            self._running[lane] += 1
            begin()


Trust = Callable[[SSL.Context], None]
"""Sets the certificate authorities that a TLS context trusts."""


def make_agent(reactor: Any, places: Places, trust: Trust = SSL.Context.set_default_verify_paths) -> IAgent:
    """Returns an agent for requests to push services.

    Args:
        reactor: connects.
        places: resolves and checks push services.
        trust: sets the trusted certificate authorities; by default the machine's.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent: IAgent = Agent.usingEndpointFactory(reactor, _EndpointFactory(reactor, places, trust), pool)
    return agent


@implementer(IAgentEndpointFactory)
class _EndpointFactory:
    def __init__(self, reactor: Any, places: Places, trust: Trust) -> None:
        self._reactor = reactor
        self._places = places
        self._trust = trust

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - Twisted's
        """See ``IAgentEndpointFactory``."""
        if uri.scheme != b"https":
            raise ForbiddenPlaceError("The endpoint must be an https URL of a push service.")
        place = Place(uri.host.decode("ascii"), uri.port)
        return _CheckedEndpoint(self._reactor, self._places, place, self._trust)


@implementer(IStreamClientEndpoint)
class _CheckedEndpoint:
    """Connects with TLS to one of the addresses that were checked."""

    def __init__(self, reactor: Any, places: Places, place: Place, trust: Trust) -> None:
        self._reactor = reactor
        self._places = places
        self._place = place
        self._trust = trust

    def connect(self, protocol_factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        return Deferred.fromCoroutine(self._connect(protocol_factory))

    async def _connect(self, protocol_factory: IProtocolFactory) -> IProtocol:
        host, port = self._place
        failed: Exception | None = None
        for address in await self._places.addresses(self._place):
            plain = (TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint)(
                self._reactor, address, port, CONNECT_S
            )
            endpoint = wrapClientTLS(_Tls(host, self._trust), plain)
            try:
                wrapper = await endpoint.connect(_Factory(self._reactor, protocol_factory, host))
                assert isinstance(wrapper, _Checked), "connected with another protocol"
                await wrapper.ready
            except CancelledError:
                raise  # the request was cancelled, so no other address is tried
            except Exception as error:
                failed = error
            else:
                inner: IProtocol = wrapper.wrappedProtocol
                return inner
        assert failed is not None, "a push service without addresses"
        try:
            raise failed
        finally:
            del failed  # its traceback has this frame, which must not have it


@implementer(IOpenSSLClientConnectionCreator)
class _Tls:
    """Starts TLS without callbacks from OpenSSL into Python, as ``net.tls`` does and Twisted's own options do not.

    Such callbacks need memory that is writable and executable, which systemd's ``MemoryDenyWriteExecute`` denies.
    """

    def __init__(self, host: str, trust: Trust) -> None:
        self._host = host
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_verify(SSL.VERIFY_PEER)
        trust(self._context)

    def clientConnectionForTLS(self, _protocol: Any) -> SSL.Connection:  # noqa: N802 - Twisted's
        """See ``IOpenSSLClientConnectionCreator``; OpenSSL verifies the certificate chain, ``_Checked`` the name."""
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._host.encode("ascii"))
        connection.set_connect_state()
        return connection


class _Factory(WrappingFactory):
    """Makes protocols that verify the name of the host."""

    noisy = False

    def __init__(self, reactor: Any, inner: IProtocolFactory, host: str) -> None:
        WrappingFactory.__init__(self, inner)  # type: ignore[arg-type]  # Twisted leaves WP open
        self._reactor = reactor
        self._host = host

    def buildProtocol(self, addr: Any) -> _Checked:
        """See ``IProtocolFactory``."""
        return _Checked(self, self.wrappedFactory.buildProtocol(addr), self._host, self._reactor)


@implementer(IHandshakeListener)
class _Checked(ProtocolWrapper):
    """Starts the wrapped protocol once the host's name is verified.

    It aborts a connection that receives more than ``MAX_ANSWER_BYTES`` or lasts longer than ``CONNECTION_S``.
    """

    received = 0

    def __init__(self, factory: Any, inner: Any, host: str, reactor: Any) -> None:
        ProtocolWrapper.__init__(self, factory, inner)
        self._host = host
        self._end = reactor.callLater(CONNECTION_S, self._abort)
        self.ready: Deferred[None] = Deferred(lambda _ready: self._abort())
        """Fires when the handshake is complete and the name verified; cancelling it aborts the connection."""

    def makeConnection(self, transport: Any) -> None:
        """Waits for the handshake."""
        self.transport = transport

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's
        """Verifies the name in the certificate, then starts the wrapped protocol."""
        transport: Any = self.transport
        try:
            verify_hostname(transport.getHandle(), self._host)
        except (VerificationError, CertificateError) as error:
            self._abort()
            self.ready.errback(error)
            return
        ProtocolWrapper.makeConnection(self, transport)
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Passes on the data, unless the response is too large."""
        self.received += len(data)
        if self.received > MAX_ANSWER_BYTES:
            self._abort()
        else:
            ProtocolWrapper.dataReceived(self, data)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = CONNECTION_DONE) -> None:
        """Passes on the end of the connection; fails ``ready`` if it ended before the handshake."""
        if self._end.active():
            self._end.cancel()
        # The reactor's call holds this protocol, also once it was made: they would be a reference cycle.
        del self._end
        if self.connected:
            ProtocolWrapper.connectionLost(self, reason)
        elif not self.ready.called:
            self.ready.errback(reason)
