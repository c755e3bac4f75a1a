"""Client addresses: found behind proxies, grouped by internet subscriber, and hashed for storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from clasp_relay.logs import events

__all__ = [
    "ClientAddresses",
    "Network",
    "address_group",
    "client_address",
    "hasher_of_addresses",
    "is_in_networks",
    "parse_networks",
]

Network: TypeAlias = IPv4Network | IPv6Network
_Address: TypeAlias = IPv4Address | IPv6Address

_MAX_TEXT_LENGTH = 64
"""Characters of the longest text that is parsed: an IPv6 address has up to 45, and may have a zone after them."""

_CACHED_ADDRESSES = 1024
"""Parsed addresses that are cached. Each connection parses its own six times, at 4 µs: a sixth of its whole cost."""

_IPV6_SITE_BITS = 64
"""The smallest IPv6 network that a subscriber gets; limits cannot count its 2^64 addresses singly (RFC 6177)."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Returns the networks in a comma-separated list of addresses and CIDRs.

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def _parse(text: str) -> _Address | None:
    # A proxy passes on any text of a client; only texts that may be addresses are cached.
    return _parse_short(text) if len(text) <= _MAX_TEXT_LENGTH else None


@lru_cache(maxsize=_CACHED_ADDRESSES)
def _parse_short(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _parse_hop(text: str) -> _Address | None:
    """Parses one element of X-Forwarded-For; some proxies add a port."""
    text = text.strip()
    if text.startswith("["):
        return _parse(text[1:].partition("]")[0])
    if text.count(":") == 1:
        return _parse(text.partition(":")[0])
    return _parse(text)


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Returns the address of the client that a request comes from.

    Each proxy appends the address of its peer to the header, so the header is read from right to left as long as
    the sender is a trusted proxy. So an element that a client wrote itself is never used, unless all addresses after
    it are trusted proxies.

    Args:
        peer: the socket's peer.
        forwarded: the values of the X-Forwarded-For headers, in order.
        trusted: the networks of trusted proxies.

    Returns:
        an IP address in its usual spelling, an IPv4-mapped one as IPv4; ``peer`` itself if it is no IP address.
    """
    speaker = _parse(peer)
    if speaker is None:
        return peer
    hops = [hop for line in forwarded for hop in line.split(",")]
    while hops and any(speaker in network for network in trusted):
        hop = _parse_hop(hops.pop())
        if hop is None:
            break
        speaker = hop
    return str(speaker)


class ClientAddresses:
    """Finds the addresses of clients, and warns once about a proxy that is not trusted.

    Args:
        trusted: the networks of trusted proxies.
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._has_warned = False

    def of(self, peer: str, forwarded: Sequence[str]) -> str:
        """Returns the address of the client that a request comes from; see ``client_address``."""
        address = client_address(peer, forwarded, self._trusted)
        if forwarded and not self._has_warned and not is_in_networks(peer, self._trusted) and _is_near(peer):
            self._has_warned = True
            events.PROXY_UNTRUSTED.log(address=peer)
        return address


def _is_near(peer: str) -> bool:
    """Tells whether a peer is on this machine or its network, as proxies are; others may send any header."""
    parsed = _parse(peer)
    return parsed is not None and parsed.is_private


def is_in_networks(address: str, networks: Sequence[Network]) -> bool:
    """Tells whether an address is in one of several networks; a text that is no IP address is in none."""
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def address_group(address: str) -> str:
    """Returns the text by which limits count an address: an IPv4 address itself, or the /64 of an IPv6 address."""
    parsed = _parse(address)
    if not isinstance(parsed, IPv6Address):
        return address
    return str(ip_network((parsed, _IPV6_SITE_BITS), strict=False))


def hasher_of_addresses(key: bytes) -> Callable[[str], bytes]:
    """Returns a function that hashes address groups for storage, with a key.

    Args:
        key: at most 64 random bytes. Without a key the address of a hash is quickly found by trying all of IPv4.
    """
    return lambda address: blake2b(address_group(address).encode(), key=key, digest_size=16).digest()
