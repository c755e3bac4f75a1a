"""A client of NATS with a short way, over a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

from nats.aio.subscription import Subscription
from nats.errors import MaxPayloadError
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.nats.direct_client import WRITTEN_AHEAD_BYTES, DirectClient, _Reading
from tests.integration.nats import Nats
from tests.integration.process import PATIENCE_S


class DirectClientTests(SynchronousTestCase):
    """What is put comes to whoever listens."""

    def setUp(self) -> None:
        """Starts a server."""
        self.nats = Nats.with_password(Path(self.mktemp()).absolute())
        self.addCleanup(self.nats.close)
        self.nats.start()
        self.errors: list[Exception] = []

    def connected(self, work: Callable[[DirectClient], Awaitable[None]]) -> None:
        """Does something with a client that has a connection."""

        async def erred(error: Exception) -> None:
            self.errors.append(error)

        async def run() -> None:
            client = DirectClient()
            await client.connect(servers=[self.nats.url], error_cb=erred)
            try:
                await asyncio.wait_for(work(client), PATIENCE_S)
            finally:
                await client.close()

        asyncio.run(run())

    def test_messages_come_in_order_with_their_subjects(self) -> None:
        """What nats-py publishes stands in the same order; an answer has an inbox, and a header is not in the way."""
        heard: list[tuple[bytes, bytes]] = []

        async def work(client: DirectClient) -> None:
            await client.listen("a.*", lambda subject, data: heard.append((subject, data)))
            self.assertIsNone(client.put("a.1", b"one"))
            self.assertIsNone(client.put("a.2", b"two", "a.reply", b"NATS/1.0\r\nName: value\r\n\r\n"))
            await client.publish("a.3", b"three")
            self.assertIsNone(client.put("a.4", b""))
            client.write()
            await client.flush()

        self.connected(work)
        self.assertEqual(heard, [(b"a.1", b"one"), (b"a.2", b"two"), (b"a.3", b"three"), (b"a.4", b"")])

    def test_flush_is_answered_behind_all_that_was_said_before(self) -> None:
        """So who has subscribed and flushed hears what others publish from then on."""
        written: list[bytes] = []

        async def work(client: DirectClient) -> None:
            transport = client._transport
            assert transport is not None, "it is connected"
            write, write_lines = transport.write, transport.writelines

            def note(data: bytes) -> None:
                written.append(data)
                write(data)

            def note_lines(lines: list[bytes]) -> None:
                written.extend(lines)
                write_lines(lines)

            with mock.patch.object(transport, "write", note), mock.patch.object(transport, "writelines", note_lines):
                await client.listen("a", lambda _subject, _data: None)
                await client.publish("b", b"one")
                await client.flush()

        self.connected(work)
        self.assertEqual([each.split(b" ")[0].strip() for each in written if each], [b"SUB", b"PUB", b"PING"])

    def test_messages_are_whole_wherever_they_are_cut(self) -> None:
        """And in order with all else that the server says, of which nothing is lost or heard twice."""
        told = (
            b"MSG a.1 1 3\r\none\r\n"
            b"MSG a.2 1 a.reply 6\r\nMSG \r\n\r\nPING\r\n"
            b"MSG b 2 5\r\nother\r\nMSG a.3 1 0\r\n\r\n"
            b"HMSG a.4 1 12 16\r\nNATS/1.0\r\n\r\nfour\r\nMSG a.5 1 4\r\nfive\r\n"
        )
        expected = [
            (b"a.1", b"one"),
            (b"a.2", b"MSG \r\n"),
            "ping",
            (b"a.3", b""),
            (b"a.4", b"four"),
            (b"a.5", b"five"),
        ]

        async def hear(*pieces: bytes) -> list[object]:
            client, heard = DirectClient(), list[object]()
            client._listeners[1] = lambda subject, data: heard.append((subject, data))
            reader = asyncio.StreamReader()
            reading = _Reading(client, reader, asyncio.StreamReaderProtocol(reader))

            async def note_ping() -> None:
                heard.append("ping")

            with mock.patch.object(client, "_process_ping", note_ping):
                for piece in pieces:
                    reading.data_received(piece)
                    while reader._buffer:  # type: ignore[attr-defined]
                        # As nats-py's own task does.
                        await client._ps.parse(await reader.read(7))
            return heard

        async def cut_everywhere() -> None:
            for cut in range(len(told)):
                self.assertEqual(await hear(told[:cut], told[cut:]), expected, cut)
            self.assertEqual(await hear(*(told[place : place + 1] for place in range(len(told)))), expected)

        asyncio.run(cut_everywhere())

    def test_messages_are_not_taken_by_nats_py(self) -> None:
        """Whole ones to whoever listens come the short way; that is what they are listened to for."""
        heard: list[bytes] = []

        async def work(client: DirectClient) -> None:
            await client.listen("a", lambda _, data: heard.append(data))
            await client.flush()
            with mock.patch.object(client._ps, "parse", side_effect=AssertionError):
                for number in range(3):
                    client.put("a", b"%d" % number)
                client.write()
                while len(heard) < 3:
                    await asyncio.sleep(0.001)

        self.connected(work)
        self.assertEqual(heard, [b"0", b"1", b"2"])

    def test_who_listens_twice_at_once_hears_once(self) -> None:
        """And nothing any more once that is ended, also where that is asked for meanwhile."""
        heard: list[bytes] = []

        async def work(client: DirectClient) -> None:
            subscribe = client.subscribe

            async def slowly(*args: Any, **kwargs: Any) -> Subscription:
                await asyncio.sleep(0)
                return await subscribe(*args, **kwargs)

            with mock.patch.object(client, "subscribe", slowly):
                await asyncio.gather(*(client.listen("a", lambda _, data: heard.append(data)) for _ in range(2)))
                await client.publish("a", b"one")
                await client.flush()
                await asyncio.gather(client.leave("a"), client.listen("a", lambda *_: None), client.leave("a"))
            await client.publish("a", b"two")
            await client.flush()
            self.assertEqual((client._listening, client._listeners, client._subs), ({}, {}, {}))

        self.connected(work)
        self.assertEqual(heard, [b"one"])

    def test_more_than_the_connection_takes_is_waited_for(self) -> None:
        """Nothing is lost, and what waits stays bounded; the server is asked to read nothing meanwhile."""
        count, heard = 40, list[bytes]()
        ended = asyncio.Event()

        def take(_subject: bytes, data: bytes) -> None:
            heard.append(data[:8])
            if len(heard) == count:
                ended.set()

        async def work(client: DirectClient) -> None:
            await client.listen("long", take)
            waits = 0
            for number in range(count):
                waiting = client.put("long", number.to_bytes(8) + bytes(WRITTEN_AHEAD_BYTES // 2))
                if number % 4:
                    client.write()
                if waiting is not None:
                    waits += 1
                    await waiting
            client.write()
            self.assertGreater(waits, 0)
            await ended.wait()
            self.assertEqual(client.pending_data_size, 0)

        self.connected(work)
        self.assertEqual(heard, [number.to_bytes(8) for number in range(count)])

    def test_who_has_left_hears_nothing(self) -> None:
        """Until it listens again; to listen twice, or to leave what was left, does nothing."""
        heard: list[bytes] = []

        def take(_subject: bytes, data: bytes) -> None:
            heard.append(data)

        async def work(client: DirectClient) -> None:
            async def say(data: bytes) -> None:
                client.put("a", data)
                client.write()
                await client.flush()

            await client.leave("a")
            await client.listen("a", take)
            await client.listen("a", take)
            await say(b"one")
            await client.leave("a")
            await say(b"two")
            await client.listen("a", take)
            await say(b"three")

        self.connected(work)
        self.assertEqual(heard, [b"one", b"three"])

    def test_too_long_a_message_is_refused(self) -> None:
        """The server would end the connection."""

        async def work(client: DirectClient) -> None:
            with self.assertRaises(MaxPayloadError):
                client.put("a", bytes(client.max_payload + 1))

        self.connected(work)

    def test_a_fault_of_who_listens_is_told(self) -> None:
        """The next message comes all the same."""
        heard: list[bytes] = []

        def take(_subject: bytes, data: bytes) -> None:
            heard.append(data)
            if len(heard) == 1:
                raise ValueError(data)

        async def work(client: DirectClient) -> None:
            await client.listen("a", take)
            client.put("a", b"one")
            client.put("a", b"two")
            client.write()
            await client.flush()

        self.connected(work)
        self.assertEqual((heard, [str(error) for error in self.errors]), ([b"one", b"two"], ["b'one'"]))
