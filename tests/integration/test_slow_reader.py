"""One slow reader in a room: nobody else is slowed, memory is bounded; it gets the last values or is told why not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.constants import MessageCode, Signal
from clasp_relay.wire.messages import Error, Message, Publish, Set, Subscribe
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.process import RelayProcess, RelayTestCase
from tests.integration.python_client import until
from tests.integration.raw import RawClient
from tests.integration.swarm import SwarmClient, in_flight, join

Result = TypeVar("Result")

OTHERS = 49
RATE = 1_000
"""Updates a second."""

UPDATES = 6_000
ADDRESSES = 10
READS_FROM = 4_000
"""After so many updates the slow one of events reads again: it has 10 s for what it is told."""

_SOCKET_BYTES = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text("ascii").split()[2])
FILLER = "x" * ((_SOCKET_BYTES + 3 * 1024 * 1024) // READS_FROM)
"""So that by then more was sent than a socket and an outbox take."""

BOUND_BYTES = 48 * 1024 * 1024
"""What the relay's memory may rise by: the outbox of one session has 1 MiB, and some 12 MB pass by."""


class SlowReaderTests(RelayTestCase):
    def test_slow_reader_ends_with_the_last_value_of_every_address(self) -> None:
        """Many updates to few addresses: old values give way to new ones, and the session lives."""
        messages = self.room(lambda number, value: Set(f"/room/{number % ADDRESSES}", value), UPDATES, RawClient.settle)
        last: dict[str, int] = {}
        count = 0
        for message in messages:
            assert isinstance(message, Set), message
            number = _number(message.value)
            self.assertGreater(number, last.get(message.address, -1), "a newer value came before an older one")
            last[message.address] = number
            count += 1
        expected = {f"/room/{(UPDATES - n) % ADDRESSES}": UPDATES - n for n in range(1, ADDRESSES + 1)}
        self.assertEqual(last, expected)
        self.assertLess(count, UPDATES)

    def test_slow_reader_of_events_is_told_that_it_is_too_slow(self) -> None:
        """Events are never dropped: ERROR 503, then a close with the same words."""
        messages, closed = self.room(
            lambda number, value: Publish(f"/room/{number % ADDRESSES}", Signal.EVENT, value=value),
            READS_FROM,
            RawClient.end,
        )
        *events, error = messages
        assert isinstance(error, Error), error
        self.assertEqual((error.error, error.message), (ErrorCode.OVERLOADED, "too slow"))
        self.assertEqual((closed.code, closed.reason), (CloseCode.TRY_AGAIN_LATER, "too slow"))
        numbers = [_number(event.value) for event in events if isinstance(event, Publish) and event.value]
        self.assertEqual(numbers, list(range(len(events))))
        self.assertLess(len(events), UPDATES)

    def room(
        self, update: Callable[[int, bytes], Message], reads_from: int, read: Callable[[RawClient], Result]
    ) -> Result:
        """Runs a room in which one does not read at first; the others must have had all.

        Args:
            update: makes an update from its number and its value.
            reads_from: after how many updates the slow one reads.
            read: how it does.

        Returns:
            What it has read.
        """
        relay = self.start()
        slow = RawClient.live(relay.port, receive_buffer=4_096)
        self.addCleanup(slow.close)
        slow.send(Subscribe(1, "/room/*"))
        slow.settle()
        return asyncio.run(self._room(relay, update, reads_from, lambda: read(slow)))

    async def _room(
        self,
        relay: RelayProcess,
        update: Callable[[int, bytes], Message],
        reads_from: int,
        read: Callable[[], Result],
    ) -> Result:
        came = [0] * OTHERS
        wrong: list[int] = []

        async def other(index: int) -> SwarmClient:
            def take(payload: bytes) -> None:
                if payload[0] in (MessageCode.SET, MessageCode.PUBLISH):
                    if b"%06d" % came[index] not in payload[:60]:
                        wrong.append(index)
                    came[index] += 1

            return await join(relay.port, take, Subscribe(1, "/room/*"))

        clients = await in_flight(OTHERS, 10, other)
        writer = await join(relay.port, lambda _: None)
        before_bytes, highest_bytes = relay.rss_bytes, 0
        reading: asyncio.Task[Result] | None = None
        began_s = time.monotonic()
        for number in range(UPDATES):
            writer.send(update(number, encode_value(f"{number:06d}{FILLER}")))
            if number % 20 == 19:
                highest_bytes = max(highest_bytes, relay.rss_bytes)
                await asyncio.sleep(max(0.0, began_s + number / RATE - time.monotonic()))
            if number == reads_from:
                reading = asyncio.create_task(asyncio.to_thread(read))
        await until(lambda: min(came) == UPDATES, "the others had all")
        self.assertEqual((wrong, set(came)), ([], {UPDATES}))
        self.assertLess(highest_bytes - before_bytes, BOUND_BYTES)
        self.assertEqual([client for client in clients if client.ended.done()], [])
        return await (reading or asyncio.to_thread(read))


def _number(value: bytes) -> int:
    text = decode_value(value)
    assert isinstance(text, str)
    return int(text[:6])
