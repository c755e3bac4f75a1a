"""A client address that does all that it may keeps others waiting for its share of a turn, not for each connection.

What is measured is how much CPU time the relay spends while somebody waits: whatever else this machine does does not
count. One who waits at the crowd's own address is the measure, since it stands behind all of the crowd.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

from clasp_relay.wire.constants import MessageCode
from clasp_relay.wire.messages import Get, Hello, Message, Ping, Pong, Set, Snapshot, Welcome
from clasp_relay.wire.values import encode_value
from tests.integration.process import RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import RawClient
from tests.integration.swarm import SwarmClient, in_flight, join, need_files

CROWD = 200
"""Of one client address; by default it may have 250."""

CROWDS_ADDRESS = "127.66.0.1"
ASKED = 12
"""How often each of the two asks."""

NICENESS = 5


def busy(number: int) -> Message:
    """Returns a message that takes a while: a value of many parts is checked."""
    return Set(f"/crowd/{number}", encode_value([{"a": 1}] * 1_500))


def greedy(_number: int) -> Message:
    """Returns a message that is answered with much."""
    return Get("/large")


async def _be_a_crowd(port: int, message_of: Callable[[int], Message], answer: MessageCode) -> None:
    over = asyncio.Event()

    async def enter(number: int) -> None:
        entered: list[SwarmClient] = []

        def hear(payload: bytes) -> None:
            if payload[0] == answer:
                for client in entered:
                    client.send(message_of(number), qos=1)

        client = await join(port, hear, source=CROWDS_ADDRESS)
        entered.append(client)
        client.send(message_of(number), qos=1)
        client.ended.add_done_callback(lambda _: over.set())

    await in_flight(CROWD, 20, enter)
    await over.wait()


def be_a_crowd(port: int, message_of: Callable[[int], Message], answer: MessageCode) -> None:
    """Sends, and sends again whenever it is answered, on many connections at once; for a process of its own."""
    os.nice(NICENESS)
    need_files(1024)
    with contextlib.suppress(ConnectionError):
        asyncio.run(_be_a_crowd(port, message_of, answer))


def cpu_s(relay: RelayProcess) -> float:
    """Returns the CPU time of the event loop's thread."""
    return int(Path(f"/proc/{relay.pid}/schedstat").read_text("ascii").split()[0]) / 1e9


class FairnessTests(RelayTestCase):
    def waits(self, relay: RelayProcess, ask: Callable[[RawClient], None]) -> tuple[float, float]:
        """Returns how much CPU time the relay spends while somebody waits: at the crowd's address, and at another."""
        found: list[float] = []
        for source in (CROWDS_ADDRESS, "127.7.0.1"):
            client = RawClient(relay.port, source=source)
            client.send(Hello(1, 0xF8, "raw"))
            client.receive(Welcome)
            client.settle()
            times = []
            for _ in range(ASKED):
                began_s = cpu_s(relay)
                ask(client)
                times.append(cpu_s(relay) - began_s)
            client.close()
            found.append(median(times))
        insider, other = found
        return insider, other

    def crowd(self, relay: RelayProcess, message_of: Callable[[int], Message], answer: MessageCode) -> None:
        """Has a crowd at work until the end of the test."""
        process = multiprocessing.get_context("spawn").Process(
            target=be_a_crowd, args=(relay.port, message_of, answer), daemon=True
        )
        process.start()
        self.addCleanup(process.join)
        self.addCleanup(process.kill)
        before_s = cpu_s(relay)
        wait_until(lambda: cpu_s(relay) - before_s > 2, "the crowd is at work")

    def test_message_waits_for_one_of_each_other_address(self) -> None:
        """Not for a message of each connection."""
        relay = self.start("--rate-limit", "0")
        self.crowd(relay, busy, MessageCode.ACK)

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
        self.crowd(relay, greedy, MessageCode.SNAPSHOT)

        def ask(client: RawClient) -> None:
            client.send(Get("/small"))
            client.receive(Snapshot)

        insider_s, other_s = self.waits(relay, ask)
        self.assertLess(3 * other_s, insider_s)
