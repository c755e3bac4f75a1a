"""A web server without sockets: requests as bytes, answers taken apart."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import IResource, Resource

from clasp_relay.access.addresses import Network
from clasp_relay.http.site import make_site


@dataclass
class Answer:
    """One answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


def parse_answer(data: bytes) -> Answer:
    """Takes an answer apart; its body is not chunked."""
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("ascii").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(status_line.split()[1]), {name.lower(): value for name, _, value in pairs}, body)


class SocketTransport(StringTransport):
    """A transport of which, as of a socket, a producer may be unregistered that no longer is registered."""

    def unregisterProducer(self) -> None:  # noqa: N802 - Twisted's
        """Unregisters the producer, if there is one."""
        if self.producer is not None:
            super().unregisterProducer()


class MemorySite:
    """A site with one resource at ``/auth``.

    Args:
        auth: the resource.
        proxies: networks of trusted proxies.
    """

    def __init__(self, auth: IResource, proxies: Sequence[Network] = ()) -> None:
        self.clock = Clock()
        root = Resource()
        root.putChild(b"auth", auth)
        self.site = make_site(root, self.clock, proxies)
        self.site.startFactory()

    def connect(self, peer: str = "192.0.2.1") -> tuple[Any, StringTransport]:
        """Returns the server's side of a new connection, and what it writes to."""
        address = IPv4Address("TCP", peer, 4711)
        transport = SocketTransport(peerAddress=address)
        protocol = self.site.buildProtocol(address)
        assert protocol is not None
        protocol.makeConnection(transport)
        return protocol, transport

    def send(self, data: bytes, peer: str = "192.0.2.1") -> Answer:
        """Sends bytes and returns the answer."""
        return parse_answer(self._send(data, peer).value())

    def _send(self, data: bytes, peer: str) -> StringTransport:
        protocol, transport = self.connect(peer)
        protocol.dataReceived(data)
        self.clock.advance(0)
        return transport

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        bearer: str | None = None,
        headers: dict[str, str] | None = None,
        peer: str = "192.0.2.1",
    ) -> Answer:
        """Asks for something; ``body`` is bytes as they are, or what becomes JSON."""
        return parse_answer(self.start(method, path, body, bearer=bearer, headers=headers, peer=peer).value())

    def start(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        bearer: str | None = None,
        headers: dict[str, str] | None = None,
        peer: str = "192.0.2.1",
    ) -> StringTransport:
        """Asks likewise; returns where the answer will be."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {"Host": "relay.example", "Content-Length": str(len(data)), **(headers or {})}
        if bearer is not None:
            lines["Authorization"] = f"Bearer {bearer}"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return self._send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data, peer)
