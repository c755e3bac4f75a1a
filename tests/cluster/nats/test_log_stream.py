"""The log in the stream of a real nats-server."""

from __future__ import annotations

from typing import Any

from clasp_relay.cluster.exchange.ports import Appended, Bounds, Outcome
from tests.cluster.engine_case import EngineCase


class LogStreamTests(EngineCase):
    """A stream that is the arbiter."""

    def test_log_refuses_what_does_not_follow_its_last_message(self) -> None:
        """So there is one decider."""
        self.nats.start()
        engine = self.connected()

        def append(payload: bytes, expected: int) -> Appended:
            answer: Appended = self.loop.ask(lambda done: engine.append(payload, expected, done))
            return answer

        self.assertEqual(append(b"one", 0), Appended(Outcome.DONE, 1))
        self.assertEqual(append(b"two", 1), Appended(Outcome.DONE, 2))
        self.assertEqual(append(b"other", 1).outcome, Outcome.FENCED)
        self.assertEqual(append(b"later", 7).outcome, Outcome.FENCED)
        bounds: Bounds | None = self.loop.ask(engine.bounds)
        self.assertEqual(bounds, Bounds(1, 2))
        read: Any = self.loop.ask(lambda done: engine.read(1, 5, done))
        self.assertEqual(read, [b"one", b"two"])
        read = self.loop.ask(lambda done: engine.read(3, 5, done))
        self.assertEqual(read, [])

    def test_a_stream_of_another_kind_is_left_alone(self) -> None:
        """The cluster needs another name."""
        self.nats.start()
        client = self.nats.client()
        client.request("$JS.API.STREAM.CREATE.test", {"name": "test", "subjects": ["orders.*"]})
        client.close()
        self.start(self.engine())
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("--cluster-name", self.fatal[0])

    def test_a_server_without_jetstream_is_said(self) -> None:
        """It cannot keep a log."""
        self.nats.servers[0].turn_jetstream_off()
        self.nats.start()
        self.start(self.engine())
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("JetStream is off", self.fatal[0])
