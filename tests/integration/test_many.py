"""Many connections: at once, and one after the other."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time

from clasp_relay.wire.constants import MessageCode
from clasp_relay.wire.messages import Ack, Set, Subscribe
from clasp_relay.wire.values import encode_value
from tests.integration.process import RelayProcess, RelayTestCase, wait_until
from tests.integration.python_client import until
from tests.integration.raw import CLOSE, RawClient, ws_frame
from tests.integration.swarm import SwarmClient, in_flight, join, need_files

IS_CI = os.environ.get("CI") == "true"

HOLD_S = 60 if IS_CI else 10
"""How long many connections are held."""

MANY = 2_000
UPDATES_PER_S = 4

FIRST = 2_000
"""Connections after which memory has what is made once."""

CHURN = 20_000
"""Connections that come and go, the first ones included."""

ADDRESSES = 100

GROWTH_BYTES = 16 * 1024 * 1024
"""What memory may rise by: 18,000 leaked connections of 1 kB each would take more."""

SLACK = 100
"""Objects of a type that may be there for other reasons: Twisted keeps some 50 timers that were cancelled."""

OURS = ("clasp_relay", "autobahn", "twisted", "txaio", "zope")
"""The objects of these packages are counted one type at a time."""


class ManyTests(RelayTestCase):
    def test_two_thousand_connections_get_every_update(self) -> None:
        """One process holds them; each of them gets each update, once and in order."""
        need_files(2 * MANY + 200)
        relay = self.start("--max-sessions", str(MANY + 10))
        writer = RawClient.live(relay.port)
        self.addCleanup(writer.close)
        updates = HOLD_S * UPDATES_PER_S

        async def run() -> None:
            came: list[list[int]] = [[] for _ in range(MANY)]

            async def one(number: int) -> SwarmClient:
                def collect(payload: bytes) -> None:
                    if payload[0] == MessageCode.SET:
                        came[number].append(int.from_bytes(payload[-16:-8], "big"))  # before the revision

                return await join(relay.port, collect, Subscribe(1, "/tick"))

            clients = await in_flight(MANY, 50, one)
            began_s = time.monotonic()
            for update in range(updates):
                writer.send(Set("/tick", encode_value(update)), qos=1)
                await asyncio.to_thread(writer.receive, Ack)
                await asyncio.sleep(max(0.0, began_s + (update + 1) / UPDATES_PER_S - time.monotonic()))
            await until(lambda: all(len(each) == updates for each in came), "every update came to all")
            self.assertEqual([number for number, each in enumerate(came) if each != list(range(updates))], [])
            self.assertEqual([client for client in clients if client.ended.done()], [])
            for client in clients:
                client.transport.abort()

        asyncio.run(run())
        self.assertEqual(relay.stop(), 0)


class LeakTests(RelayTestCase):
    def test_connections_that_come_and_go_leave_nothing(self) -> None:
        """Half of them end in order, half with RST; memory and objects end where they were after the first ones."""
        need_files(1_000)
        relay = self.start(command=("-m", "tests.integration.counted_relay"))
        asyncio.run(self._come_and_go(relay.port, 0, FIRST))
        objects, rss_bytes = self._objects(relay), relay.rss_bytes
        asyncio.run(self._come_and_go(relay.port, FIRST, CHURN))
        objects_after, rss_bytes_after = self._objects(relay), relay.rss_bytes
        grown = {
            name: (objects.get(name, 0), count)
            for name, count in objects_after.items()
            if name.startswith(OURS) and count > objects.get(name, 0) + SLACK
        }
        self.assertEqual(grown, {})
        self.assertLess(sum(objects_after.values()), sum(objects.values()) + 2_000)
        self.assertLess(rss_bytes_after, rss_bytes + GROWTH_BYTES)
        print(
            f"after {FIRST} connections: {sum(objects.values())} objects, {rss_bytes // 1024} kB; "
            f"after {CHURN}: {sum(objects_after.values())} objects, {rss_bytes_after // 1024} kB"
        )

    async def _come_and_go(self, port: int, first: int, last: int) -> None:
        async def one(index: int) -> None:
            number = first + index
            address = f"/churn/{number % ADDRESSES}"
            acked = asyncio.get_running_loop().create_future()

            def take(payload: bytes) -> None:
                if payload[0] == MessageCode.ACK and not acked.done():
                    acked.set_result(None)

            client = await join(port, take, Subscribe(1, address), source=f"127.0.1.{number % 100 + 1}")
            client.send(Set(address, encode_value(number)), qos=1)
            await acked
            if number % 2:
                sock = client.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.transport.abort()
            else:
                client.transport.write(ws_frame(CLOSE, (1000).to_bytes(2, "big")))
            await client.ended

        await in_flight(last - first, 20, one)

    def _objects(self, relay: RelayProcess) -> dict[str, int]:
        """Returns what the relay has in memory once its last connections have ended."""
        counts: dict[str, int] = {}

        def is_alone() -> bool:
            nonlocal counts
            before = len(relay.lines)
            relay.say("count")
            wait_until(lambda: any(line.startswith("objects ") for line in relay.lines[before:]), "it is counted")
            line = next(line for line in relay.lines[before:] if line.startswith("objects "))
            counts = json.loads(line.removeprefix("objects "))
            return not any(name.endswith(".ClaspProtocol") for name in counts)

        wait_until(is_alone, "all connections have ended")
        return counts
