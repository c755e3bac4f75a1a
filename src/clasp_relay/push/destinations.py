"""Where push messages may go: push services on the public internet, and nothing else that the relay can reach.

Whoever subscribes names a URL that the relay then posts to. So only https is taken; the name is resolved, and if one
address of it is not public, nothing is sent; and the connection goes to one of the very addresses that were looked at,
so that a name which resolves otherwise a moment later gains nothing. Redirects are not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import SOCK_STREAM, getaddrinfo
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from clasp_relay.errors import ClaspError

__all__ = ["ForbiddenPlaceError", "Place", "Places", "is_public", "make_agent", "place_of"]

MAX_URL = 1_024
"""Characters of an endpoint; those of push services have 150 to 300."""

CONNECT_S = 5
"""How long one connection may take to be made."""

MAX_ADDRESSES = 3
"""Addresses of one name that are tried."""

MAX_ANSWER_BYTES = 64 * 1024
"""How much of an answer is read, headers included; push services answer with a few hundred bytes."""

_NAT64 = ip_network("64:ff9b::/96")


class ForbiddenPlaceError(ClaspError):
    """The relay does not send there; the text says why, for people."""


class Place(NamedTuple):
    """Host and port of a push service."""

    host: str
    port: int

    @property
    def origin(self) -> str:
        """What VAPID's ``aud`` names (RFC 6454 §6.1)."""
        return f"https://{self.host}" + ("" if self.port == 443 else f":{self.port}")


Resolve = Callable[[str, int], "Deferred[list[str]]"]
"""Returns the addresses of a host as texts."""


def place_of(endpoint: str) -> Place:
    """Returns where an endpoint is.

    Raises:
        ForbiddenPlaceError: it is no https URL of a host by its name or IPv4 address.
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
    """Tells whether an IP address is one of the public internet; of one that contains another, whether both are."""
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
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inside(address: IPv6Address) -> list[IPv4Address]:
    """Returns the IPv4 addresses that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


class Places:
    """Looks up where a push service is, and whether the relay may send there.

    Args:
        resolve: returns the addresses of a host.
        allowed: hosts and ports that may be anywhere, as ``host:port``.
    """

    def __init__(self, resolve: Resolve, allowed: Collection[str] = ()) -> None:
        self._resolve = resolve
        self._allowed = frozenset(text.lower() for text in allowed)

    async def addresses(self, place: Place) -> list[str]:
        """Returns the addresses to connect to.

        Raises:
            ForbiddenPlaceError: the host has none, or one that is not public.
        """
        try:
            found = await self._resolve(place.host, place.port)
        except OSError:
            found = []
        if not found:
            raise ForbiddenPlaceError(f"The push service {place.host} cannot be found.")
        if f"{place.host}:{place.port}" not in self._allowed and not all(map(is_public, found)):
            raise ForbiddenPlaceError(f"The push service {place.host} is not on the public internet.")
        return found[:MAX_ADDRESSES]


def resolver(reactor: Any) -> Resolve:
    """Returns what asks the machine's resolver, in the reactor's threads."""

    def look_up(host: str, port: int) -> list[str]:
        return list(dict.fromkeys(str(info[4][0]) for info in getaddrinfo(host, port, type=SOCK_STREAM)))

    def resolve(host: str, port: int) -> Deferred[list[str]]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), look_up, host, port)

    return resolve


def make_agent(reactor: Any, places: Places, trust_root: Any = None) -> IAgent:
    """Returns what makes requests to push services.

    Args:
        reactor: connects.
        places: tells where a push service is.
        trust_root: whose certificates are believed; None for those that the machine knows.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent: IAgent = Agent.usingEndpointFactory(reactor, _EndpointFactory(reactor, places, trust_root), pool)
    return agent


@implementer(IAgentEndpointFactory)
class _EndpointFactory:
    def __init__(self, reactor: Any, places: Places, trust_root: Any) -> None:
        self._reactor = reactor
        self._places = places
        self._trust_root = trust_root

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - Twisted's
        """Returns what connects to a URL."""
        if uri.scheme != b"https":
            raise ForbiddenPlaceError("The endpoint must be an https URL of a push service.")
        place = Place(uri.host.decode("ascii"), uri.port)
        return _CheckedEndpoint(self._reactor, self._places, place, self._trust_root)


@implementer(IStreamClientEndpoint)
class _CheckedEndpoint:
    """Connects with TLS to one of the addresses that were looked at."""

    def __init__(self, reactor: Any, places: Places, place: Place, trust_root: Any) -> None:
        self._reactor = reactor
        self._places = places
        self._place = place
        self._trust_root = trust_root

    def connect(self, protocol_factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        return Deferred.fromCoroutine(self._connect(protocol_factory))

    async def _connect(self, protocol_factory: IProtocolFactory) -> IProtocol:
        host, port = self._place
        options = {} if self._trust_root is None else {"trustRoot": self._trust_root}
        failed: Exception | None = None
        for address in await self._places.addresses(self._place):
            plain = (TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint)(
                self._reactor, address, port, CONNECT_S
            )
            endpoint = wrapClientTLS(optionsForClientTLS(host, **options), plain)
            factory = WrappingFactory(protocol_factory)
            factory.protocol = _Bounded
            try:
                wrapper = await endpoint.connect(factory)
            except Exception as error:
                failed = error
            else:
                assert isinstance(wrapper, _Bounded), "connected with another protocol"
                inner: IProtocol = wrapper.wrappedProtocol
                return inner
        assert failed is not None, "a push service without addresses"
        raise failed


class _Bounded(ProtocolWrapper):
    """Ends a connection that says too much."""

    received = 0

    def dataReceived(self, data: bytes) -> None:
        """Passes on what came."""
        self.received += len(data)
        if self.received > MAX_ANSWER_BYTES:
            assert self.transport is not None, "data without a connection"
            self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP and TLS have it
        else:
            ProtocolWrapper.dataReceived(self, data)
