"""The engine over a real nats-server."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.engine import NatsEngine
from clasp_relay.cluster.ports import Appended, Bounds, Outcome
from tests.certificates import issue
from tests.integration.nats import Nats
from tests.integration.process import PATIENCE_S, wait_until
from tests.ports import free_port


class Loop:
    """An event loop that turns while somebody waits."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue()

    def callFromThread(self, call: Callable[[], None]) -> None:  # noqa: N802  Twisted's
        """See ``IReactorFromThreads``."""
        self._calls.put(call)

    def until(self, is_done: Callable[[], bool]) -> None:
        """Makes the calls that come until something holds."""
        end_s = time.monotonic() + PATIENCE_S
        while not is_done():
            self._calls.get(timeout=max(0.1, end_s - time.monotonic()))()

    def ask(self, begin: Callable[[Callable[[Any], None]], None]) -> Any:
        """Begins something and returns what it calls back with."""
        found: list[Any] = []
        begin(found.append)
        self.until(lambda: bool(found))
        return found[0]


class EngineTests(SynchronousTestCase):
    """A log that is the arbiter, and a bus."""

    def setUp(self) -> None:
        """Starts a server."""
        self.nats = Nats.with_password(Path(self.mktemp()).absolute())
        self.addCleanup(self.nats.close)
        self.loop = Loop()
        self.states: list[bool] = []
        self.fatal: list[str] = []

    def engine(self, url: str = "", name: str = "test", creds: Path | None = None) -> NatsEngine:
        """Returns an engine that is ended with the test."""
        engine = NatsEngine(self.loop, (url or self.nats.url,), name, creds, "one")
        self.addCleanup(self.stop, engine)
        return engine

    def start(self, engine: NatsEngine) -> NatsEngine:
        """Begins to connect."""
        engine.start(self.states.append, self.fatal.append)
        return engine

    def stop(self, engine: NatsEngine) -> None:
        """Ends an engine."""
        ended: list[bool] = []
        engine.stop(lambda: ended.append(True))
        self.loop.until(lambda: bool(ended))

    def connected(self, name: str = "test") -> NatsEngine:
        """Returns an engine with a connection."""
        engine = self.start(self.engine(name=name))
        self.loop.until(lambda: engine.is_connected)
        return engine

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

    def test_wrong_credentials_make_no_sense_to_try_again(self) -> None:
        """One line says so, without the password."""
        self.nats.start()
        engine = self.start(self.engine(f"nats://clasp:wrong@{self.nats.servers[0].place}"))
        self.loop.until(lambda: bool(self.fatal))
        self.stop(engine)  # at once, while its thread is ending by itself
        self.assertEqual(
            self.fatal, [f"nats://{self.nats.servers[0].place}: NATS refuses the credentials; see --cluster-creds"]
        )

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

    def test_a_server_that_carries_too_little_is_said(self) -> None:
        """A long bundle would never come through."""
        config = self.nats.servers[0]._config
        config.write_text(config.read_text("utf-8") + "max_payload: 65536\n", "utf-8")
        self.nats.start()
        self.start(self.engine())
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("max_payload of NATS is 65536 bytes", self.fatal[0])

    def encrypt(self) -> str:
        """Has the server speak TLS with a certificate of its own; returns its URL, and trusts nobody but that."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        certificate, key = issue().write(folder)
        config = self.nats.servers[0]._config
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'
        config.write_text(config.read_text("utf-8") + tls, "utf-8")
        self.set_variable("SSL_CERT_FILE", str(certificate))
        return self.nats.url.replace("nats://", "tls://").replace("127.0.0.1", "localhost")

    def set_variable(self, name: str, text: str) -> None:
        """Sets an environment variable for the rest of the test; OpenSSL reads the process's own."""
        before = os.environ.get(name)
        os.environ[name] = text
        self.addCleanup(os.environ.pop, name) if before is None else self.addCleanup(os.environ.update, {name: before})

    def test_connection_is_encrypted(self) -> None:
        """With a certificate of one's own, where ``SSL_CERT_FILE`` names it; it holds after a loss, too."""
        url = self.encrypt()
        self.nats.start()
        engine = self.start(self.engine(url))
        self.loop.until(lambda: engine.is_connected)
        self.nats.servers[0].kill()
        self.loop.until(lambda: not engine.is_connected)
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        answer = self.loop.ask(lambda done: engine.append(b"secret", 0, done))
        self.assertEqual(answer, Appended(Outcome.DONE, 1))

    def test_certificate_that_nobody_trusts_is_said(self) -> None:
        """The relay tries again: the certificate may be another one by then."""
        url = self.encrypt()
        self.set_variable("SSL_CERT_FILE", str(self.nats.servers[0]._config))
        self.nats.start()
        engine = self.start(self.engine(url))
        wait_until(lambda: "certificate verify failed" in engine._failures, "the cause")
        self.assertEqual((engine.is_connected, self.fatal), (False, []))

    def test_password_is_sent_to_no_server_without_tls(self) -> None:
        """The URL says that it is encrypted; a server, or somebody between, does not talk the relay out of that."""
        self.nats.start()
        self.start(self.engine(self.nats.url.replace("nats://", "tls://")))
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("the server speaks no TLS", self.fatal[0])
        self.assertNotIn("clasp:", self.fatal[0])

    def test_creds_that_cannot_be_read_are_said(self) -> None:
        """The line names the file."""
        self.nats.start()
        self.start(self.engine(creds=Path("/nowhere/relay.creds")))
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("/nowhere/relay.creds", self.fatal[0])

    def test_an_engine_that_never_connected_ends_at_once(self) -> None:
        """So does one that was never started."""
        self.engine(f"nats://127.0.0.1:{free_port()}")
        self.start(self.engine(f"nats://127.0.0.1:{free_port()}"))
