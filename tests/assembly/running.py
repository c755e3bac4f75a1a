"""An auth server that runs: without sockets, with real threads and files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.tokens import TokenTable
from clasp_relay.assembly.auth_server import AuthServer, Rights, Tells
from clasp_relay.assembly.auth_site import Clients, Core
from clasp_relay.core.records import Param, StateImage
from clasp_relay.http.cors import Origins
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.settings import Settings
from tests.core.world import World
from tests.http.memory_site import Answer, parse_answer

__all__ = ["PATIENCE_S", "REACTOR", "Running", "ServerCase", "until"]

REACTOR: Any = reactor
PATIENCE_S = 60.0


class Running:
    """An auth server that is open and started.

    Args:
        settings: what it is told.
        policy: the application's rules.
        params: what is set.
        clear: ends params where another relay decides; None for a relay that is alone.
    """

    def __init__(
        self,
        settings: Settings,
        policy: Policy | None = None,
        params: Sequence[Param] = (),
        clear: Callable[[Sequence[str]], Deferred[None]] | None = None,
    ) -> None:
        self.tokens = TokenTable(REACTOR, time.time)
        self.world = World()
        self.calls: list[tuple[str, ...]] = []
        relay = self.world.relay
        self.server = AuthServer(
            settings,
            REACTOR,
            Rights(self.tokens, TokenPermissions(self.tokens, policy, lambda: time.time_ns() // 1000), policy),
            Clients(Origins(None), ClientAddresses(settings.trusted_proxies)),
            Core(relay, ClaspFactory(relay, TurnWriter(REACTOR), REACTOR)),
            Tells(lambda *call: self.calls.append(call)),
            clear=clear,
        )
        self.site = self.server.open()
        relay.params.load(StateImage(list(params), [], {}))
        self.server.startService()

    async def ask(self, method: str, path: str, body: object = None, bearer: str = "") -> Answer:
        """Asks for something, and waits for the answer."""
        address = IPv4Address("TCP", "192.0.2.1", 4711)
        transport = StringTransport(peerAddress=address)
        protocol = self.site.buildProtocol(address)
        protocol.makeConnection(transport)
        data = b"" if body is None else json.dumps(body).encode()
        lines = f"{method} {path} HTTP/1.1\r\nHost: relay\r\nContent-Length: {len(data)}\r\nConnection: close\r\n"
        protocol.dataReceived(f"{lines}Authorization: Bearer {bearer}\r\n\r\n".encode() + data)
        deadline_s = time.monotonic() + PATIENCE_S
        while not transport.disconnecting:
            if time.monotonic() > deadline_s:
                raise AssertionError("no answer")
            await deferLater(REACTOR, 0.001)
        return parse_answer(transport.value())


async def until(running: Running, is_so: Callable[[], bool]) -> None:
    """Waits until something is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        running.world.clock.clock.advance(0)
        if time.monotonic() > deadline_s:
            raise AssertionError("it did not come to be so")
        await deferLater(REACTOR, 0.01)


class ServerCase(TestCase):
    """Starts auth servers on a folder."""

    def setUp(self) -> None:
        """Makes a folder."""
        self.folder = Path(self.mktemp()).absolute()

    def start(self, policy: Policy | None = None, params: Sequence[Param] = (), **settings: Any) -> Running:
        """Starts a server until the end of the test; ``clear`` makes it one of a cluster."""
        clear = settings.pop("clear", None)
        given: dict[str, Any] = {"data_dir": self.folder, "web_root": "none"} | settings
        running = Running(Settings(**given), policy, params, clear)
        self.addCleanup(running.server.stopService)
        return running
