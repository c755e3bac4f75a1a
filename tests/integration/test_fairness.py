"""A client address that does all that it may keeps others waiting for its share of a turn, not for each connection.

What is measured is how much CPU time the relay spends while somebody waits: whatever else this machine does does not
count. One who waits at the crowd's own address is the measure, since it stands behind all of the crowd.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Event
from statistics import median

from clasp_relay.wire.constants import MessageCode
from clasp_relay.wire.messages import Get, Hello, Message, Ping, Pong, Set, Snapshot, Welcome
from clasp_relay.wire.values import encode_value
from tests.integration.process import RelayProcess, RelayTestCase, cpu_s, wait_until
from tests.integration.raw import RawClient
from tests.integration.swarm import SwarmClient, in_flight, join, masked, need_files

CROWD = 100
"""Of one client address; by default it may have 250."""

CROWDS_ADDRESS = "127.66.0.1"
ASKED = 8
"""How often each of the two asks."""


BUSY = Set("/crowd", encode_value([{"a": 1}] * 1_200))
"""Takes a while: a value of many parts is checked."""

GREEDY = Get("/large")
"""Is answered with much."""


async def _be_a_crowd(port: int, message: Message, answer: MessageCode, begun: Event) -> None:
    data = masked(message, qos=1)
    at_work: list[SwarmClient] = []

    def hear(number: int, payload: bytes) -> None:
        if at_work and payload[0] == answer:
            at_work[number].transport.write(data)

    async def enter(number: int) -> SwarmClient:
        return await join(port, partial(hear, number), source=CROWDS_ADDRESS)

    at_work += await in_flight(CROWD, 20, enter)
    for client in at_work:
        client.transport.write(data)
    begun.set()
    await asyncio.gather(*(client.ended for client in at_work))


def be_a_crowd(port: int, message: Message, answer: MessageCode, begun: Event) -> None:
    """Sends, and sends again whenever it is answered, on many connections at once; for a process of its own."""
    need_files(1024)
    with contextlib.suppress(ConnectionError):
        asyncio.run(_be_a_crowd(port, message, answer, begun))


class FairnessTests(RelayTestCase):
    def waits(self, relay: RelayProcess, ask: Callable[[RawClient], None]) -> tuple[float, float]:
        """Returns how much CPU time the relay spends while somebody waits: at the crowd's address, and at another."""
        clients = []
        for source in (CROWDS_ADDRESS, "127.7.0.1"):
            client = RawClient(relay.port, source=source)
            self.addCleanup(client.close)
            client.send(Hello(1, 0xF8, "raw"))
            client.receive(Welcome)
            client.settle()
            clients.append(client)
        times: list[list[float]] = [[], []]
        for _ in range(ASKED):
            for client, found in zip(clients, times, strict=True):
                began_s = cpu_s(relay)
                ask(client)
                found.append(cpu_s(relay) - began_s)
        insider_s, other_s = map(median, times)
        return insider_s, other_s

    def crowd(self, relay: RelayProcess, message: Message, answer: MessageCode) -> None:
        """Has a crowd at work until the end of the test."""
        spawn = multiprocessing.get_context("spawn")
        begun = spawn.Event()
        process = spawn.Process(target=be_a_crowd, args=(relay.port, message, answer, begun), daemon=True)
        process.start()
        self.addCleanup(process.join)
        self.addCleanup(process.kill)
        wait_until(begun.is_set, "the crowd is at work")
        before_s = cpu_s(relay)
        wait_until(lambda: cpu_s(relay) - before_s > 0.2, "the relay is, too")

    def test_message_waits_for_one_of_each_other_address(self) -> None:
        """Not for a message of each connection."""
        relay = self.start("--rate-limit", "0", "--durability", "snapshot")
        self.crowd(relay, BUSY, MessageCode.ACK)

        def ask(client: RawClient) -> None:
            client.send(Ping())
            client.receive(Pong)

        insider_s, other_s = self.waits(relay, ask)
        self.assertLess(3 * other_s, insider_s)

    def test_snapshot_waits_for_one_of_each_other_address(self) -> None:
        """Not for those of each connection."""
        relay = self.start("--rate-limit", "0")
        maker = RawClient.live(relay.port)
        maker.send(Set("/large", encode_value("x" * 60_000)), Set("/small", encode_value(1)))
        maker.settle()
        self.crowd(relay, GREEDY, MessageCode.SNAPSHOT)

        def ask(client: RawClient) -> None:
            client.send(Get("/small"))
            client.receive(Snapshot)

        insider_s, other_s = self.waits(relay, ask)
        self.assertLess(3 * other_s, insider_s)
