"""The engine over a real nats-server."""

from __future__ import annotations

import time
from typing import Any

from twisted.logger import capturedLogs

from clasp_relay.cluster.exchange.ports import Appended, Outcome
from tests.cluster.engine_case import EngineCase
from tests.integration.process import wait_until
from tests.ports import free_port


class EngineTests(EngineCase):
    """A log that is the arbiter, and a bus."""

    def test_append_that_is_not_answered_in_time_is_told_so(self) -> None:
        """It may have happened all the same: the next one tells; an answer that comes too late is told nobody."""
        self.nats.start()
        engine = self.connected()
        answers: list[Appended] = []
        (server,) = self.nats.servers
        server.pause()
        engine.append(b"one", 0, answers.append)
        self.loop.until(lambda: bool(answers))
        self.assertEqual(answers[0].outcome, Outcome.FAILED)
        server.resume()
        self.loop.until(lambda: engine.is_connected)
        wait_until(lambda: server.monitor("/healthz") is not None, "the server answers")
        while (again := self.loop.ask(lambda done: engine.append(b"one", 0, done))).outcome is Outcome.FAILED:
            time.sleep(0.05)
        self.assertIn(again.outcome, (Outcome.FENCED, Outcome.DONE))
        read: Any = self.loop.ask(lambda done: engine.read(1, 5, done))
        self.assertEqual((read, len(answers)), ([b"one"], 1))

    def test_bus_brings_messages_to_all(self) -> None:
        """In order, its own too."""
        self.nats.start()
        first, second = self.engine(), self.engine()
        heard: list[tuple[str, bytes]] = []
        first.subscribe("test.live", lambda data: heard.append(("first", data)))
        second.subscribe("test.live", lambda data: heard.append(("second", data)))
        for engine in (first, second):
            self.start(engine)
        self.loop.until(lambda: first.is_connected and second.is_connected)
        for number in range(3):
            first.publish("test.live", b"%d" % number)
        self.loop.until(lambda: len(heard) == 6)
        for who in ("first", "second"):
            self.assertEqual([data for each, data in heard if each == who], [b"0", b"1", b"2"])

    def test_what_is_not_wanted_is_not_heard(self) -> None:
        """Until it is wanted again, in the order of what is said; also where there was no connection meanwhile."""
        engine = self.engine()
        heard: list[bytes] = []
        for name in ("live", "other"):
            engine.subscribe(f"test.{name}", heard.append)
        engine.hear("test.live", False)
        self.start(engine)
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)

        def say(*words: bytes) -> list[bytes]:
            for word in words:
                engine.publish("test.live", word)
            engine.publish("test.other", b"end")
            self.loop.until(lambda: b"end" in heard)
            found = heard[:-1]
            heard.clear()
            return found

        self.assertEqual(say(b"1"), [])
        engine.hear("test.live", True)
        self.assertEqual(say(b"2", b"3"), [b"2", b"3"])
        engine.hear("test.live", False)
        self.assertEqual(say(b"4"), [])
        self.nats.servers[0].kill()
        self.loop.until(lambda: not engine.is_connected)
        engine.hear("test.live", True)
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        self.assertEqual(say(b"5"), [b"5"])

    def test_it_connects_when_the_server_is_there(self) -> None:
        """It tries for ever, and again when the connection was lost; meanwhile appends fail."""
        engine = self.start(self.engine())
        answer = self.loop.ask(lambda done: engine.append(b"early", 0, done))
        self.assertEqual(answer.outcome, Outcome.FAILED)
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        self.nats.servers[0].kill()
        self.loop.until(lambda: not engine.is_connected)
        self.assertIsNone(self.loop.ask(engine.bounds))
        self.assertIsNone(self.loop.ask(lambda done: engine.read(1, 1, done)))
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        self.assertEqual(self.states, [True, False, True])

    def test_a_server_that_carries_too_little_is_said(self) -> None:
        """A long bundle would never come through."""
        config = self.nats.servers[0]._config
        config.write_text(config.read_text("utf-8") + "max_payload: 65536\n", "utf-8")
        self.nats.start()
        self.start(self.engine())
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("max_payload of NATS is 65536 bytes", self.fatal[0])

    def test_an_engine_that_never_connected_ends_at_once(self) -> None:
        """So does one that was never started."""
        self.engine(f"nats://127.0.0.1:{free_port()}")
        self.start(self.engine(f"nats://127.0.0.1:{free_port()}"))

    def test_what_cannot_be_sent_ends_nothing(self) -> None:
        """A message that is too long for the server is lost, and the log says so."""
        self.nats.start()
        engine = self.connected()
        with capturedLogs() as logs:
            engine.publish("test.live", bytes(2 << 20))
            self.loop.ask(lambda done: engine.append(b"one", 0, done))
            # NATS counts the header, too.
            long = self.loop.ask(lambda done: engine.append(bytes((1 << 20) - 10), 1, done))
        self.assertEqual(long.outcome, Outcome.TOO_LONG)
        self.assertTrue(engine.is_connected)
        self.assertEqual([each["event"] for each in logs], ["cluster.message_bad"])
        self.assertEqual(self.fatal, [])

    def test_a_fault_in_one_call_does_not_take_others_their_turn(self) -> None:
        """What came with it is told all the same."""
        engine = self.engine()
        told: list[int] = []

        def fail() -> None:
            raise ZeroDivisionError

        for call in (lambda: told.append(1), fail, lambda: told.append(2)):
            engine._tell(call)
        self.loop.until(lambda: bool(told))
        self.assertEqual(told, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
