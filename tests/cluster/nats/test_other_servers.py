"""Servers of NATS that are cut off from the log."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.logger import capturedLogs

from clasp_relay.cluster.exchange.ports import Appended, Outcome
from clasp_relay.cluster.nats import other_servers
from tests.cluster.engine_case import EngineCase
from tests.integration.namespaces import HERE
from tests.integration.nats import Nats
from tests.ports import free_port


class OtherServersTests(EngineCase):
    """A server is left for one that reaches the log, and for no other."""

    def test_a_server_that_knows_nothing_of_the_log_is_left(self) -> None:
        """It is there, but cut off from the others: one of those is asked."""
        self.patch(other_servers, "ELSEWHERE_S", 0.5)
        cut_off = self.scripted()
        engine = self.start(self.engine(cut_off.url, more=(self.nats.url,)))
        self.loop.until(lambda: b"$JS.API.STREAM.INFO.test" in cut_off.received, "the engine asks for the stream")
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        self.assertEqual(self.loop.ask(lambda done: engine.append(b"one", 0, done)), Appended(Outcome.DONE, 1))

    def test_a_server_without_its_quorum_is_left(self) -> None:
        """It says itself that it reaches too few of those with which it keeps the log."""
        self.patch(other_servers, "ELSEWHERE_S", 0.5)
        quorum = Nats.with_password(Path(self.mktemp()).absolute(), (HERE,) * 3)
        self.addCleanup(quorum.close)
        cut_off = quorum.servers[0]
        cut_off.start()
        engine = self.start(self.engine(quorum.url.partition(",")[0], more=(self.nats.url,)))
        self.loop.until(lambda: engine._client is not None, "the engine is connected to the one server that runs")
        with capturedLogs() as logs:
            self.nats.start()
            self.loop.until(lambda: engine.is_connected)
        (left,) = [each for each in logs if each.get("event") == "cluster.server_left"]
        self.assertEqual(left["server"], f"nats://{cut_off.place}")
        self.assertEqual(left["other"], f"nats://{self.nats.servers[0].place}")

    def test_a_server_is_kept_where_no_other_one_is_better(self) -> None:
        """Its relay may still read; looking for others disturbs nothing."""
        self.patch(other_servers, "ELSEWHERE_S", 0.5)
        self.nats.start()
        engine = self.start(self.engine(more=(f"nats://127.0.0.1:{free_port()}",)))
        self.loop.until(lambda: engine.is_connected)
        looked: list[str] = []
        reaches_log = engine._others._reaches_log

        async def look(url: str, login: Mapping[str, Any]) -> bool:
            looked.append(url)
            return await reaches_log(url, login)

        self.patch(engine._others, "_reaches_log", look)
        with mock.patch.object(engine._stream, "_ask", side_effect=TimeoutError):
            engine._stream.note_answer(is_there=False)
            self.loop.until(lambda: bool(looked) and not engine._others._is_looking, "the other server was looked at")
        self.assertEqual(self.states, [True])
        self.assertIsNotNone(self.loop.ask(engine.bounds))

    def test_a_server_is_kept_that_answers_about_the_log_again(self) -> None:
        """It is asked first; what others ask of it, and is not answered, is no reason to leave it either."""
        self.patch(other_servers, "ELSEWHERE_S", 0.5)
        self.patch(random, "sample", lambda urls, _count: list(urls))
        self.nats.start()
        other = self.scripted(has_log=True)
        engine = self.start(self.engine(more=(other.url,)))
        self.loop.until(lambda: engine.is_connected)
        self.assertIsNone(self.loop.ask(lambda done: engine.request("nobody.listens", b"", None, done)))
        self.assertIsNone(engine._stream.silent_since_s)
        engine._stream.note_answer(is_there=False)
        self.loop.until(
            lambda: engine._stream.silent_since_s is None and not engine._others._is_looking, "its own server was asked"
        )
        self.assertEqual((other.taken, self.states), (0, [True]))
