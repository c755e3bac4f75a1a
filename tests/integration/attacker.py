"""An attacker with an address of its own, a guest and any number of connections; see ``attackers``."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import NamedTuple

from clasp_relay.wire.messages import Message, Publish, Set
from clasp_relay.wire.values import encode_value
from tests.integration.swarm import SwarmClient, join

ATTACK_S = 4.0
"""How long one goes on."""

PAUSE_S = 0.02
"""Between two pieces of an attack, or the attacking process would do nothing but write."""


MACHINES = 8
"""How many addresses attackers come from. Whoever has more than 16 can fill the reserve for newcomers, too."""

_guests: dict[str, list[tuple[str, str]]] = {}
"""Names and tokens of the guests of each address so far; once it gets no more of them, these come back."""


class Ports(NamedTuple):
    """The ports of a relay."""

    relay: int
    """CLASP over WebSocket."""
    auth: int
    """The auth API."""
    mqtt: int
    osc: int
    """OSC over UDP."""
    osc_tcp: int
    tcp: int
    """Framed TCP."""


class Attacker:
    """One attacker: an address of its own, a guest, and as many sessions as it likes.

    Args:
        ports: the relay's.
        random_: what is drawn.
        number: which one.
    """

    def __init__(self, ports: Ports, random_: random.Random, number: int) -> None:
        self.ports = ports
        self.random = random_
        self.name = f"mallory-{number}-{random_.randrange(1 << 40):x}"
        self.source = f"127.66.0.{1 + random_.randrange(MACHINES)}"
        self.end_s = time.monotonic() + ATTACK_S
        self.folder = f"/chat/user/{self.name}"
        self._token = ""
        self._clients: list[SwarmClient] = []

    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.end_s

    async def http(self, method: str, path: str, body: bytes = b"", more: str = "") -> bytes:
        """Makes one HTTP request on a connection of its own; returns the answer."""
        reader, writer = await self.tcp(self.ports.auth)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{more}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()

    async def tcp(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a TCP connection."""
        return await asyncio.open_connection("127.0.0.1", port, local_addr=(self.source, 0))

    async def token(self) -> str:
        """Returns its guest token."""
        if not self._token:
            answer = await self.http("POST", "/auth/guest", json.dumps({"user_id": self.name}).encode())
            _, _, body = answer.partition(b"\r\n\r\n")
            self._token = json.loads(body or b"{}").get("token", "")
            known = _guests.setdefault(self.source, [])
            if self._token:
                known.append((self.name, self._token))
            elif known:
                self.name, self._token = self.random.choice(known)
                self.folder = f"/chat/user/{self.name}"
            else:
                raise ConnectionRefusedError("no token")
        return self._token

    async def session(self, *messages: Message) -> SwarmClient:
        """Opens a session that reads all and looks at nothing."""
        token = await self.token()
        client = await join(self.ports.relay, lambda _payload: None, *messages, source=self.source, token=token)
        self._clients.append(client)
        return client

    async def room(self, client: SwarmClient) -> str:
        """Makes a room of its own and enters it; returns its address."""
        room = f"/chat/room/{self.name}"
        client.send(put(f"{room}/meta", {"name": "m", "isPublic": True}), put(f"{room}/presence/{self.name}", {"n": 1}))
        await asyncio.sleep(PAUSE_S)
        return room

    def close(self) -> None:
        """Ends its connections, half of them with RST."""
        for client in self._clients:
            if self.random.random() < 0.5:
                client.transport.abort()
            else:
                client.transport.close()

    async def go_on(self, client: SwarmClient, *messages: Message, qos: int = 0) -> None:
        """Sends the same again and again; no faster than the socket takes it."""
        while self.goes_on() and not client.ended.done():
            if client.transport.get_write_buffer_size() < 1 << 20:
                client.send(*messages, qos=qos)
            await asyncio.sleep(PAUSE_S)


def put(address: str, value: object) -> Set:
    """Returns a SET."""
    return Set(address, encode_value(value))


def event(address: str, value: object) -> Publish:
    """Returns an event."""
    return Publish(address, value=encode_value(value))
