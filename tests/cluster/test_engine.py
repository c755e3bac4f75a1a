"""The engine over a real nats-server."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster import engine as engine_module
from clasp_relay.cluster.engine import NatsEngine
from clasp_relay.cluster.ports import Appended, Bounds, Outcome
from tests.certificates import issue
from tests.cluster.reactor import Loop
from tests.integration.namespaces import HERE
from tests.integration.nats import Nats
from tests.integration.process import PATIENCE_S, wait_until
from tests.ports import free_port


class ScriptedServer:
    """Says INFO, answers PING, and is silent about nearly all else; takes one connection after the other.

    Args:
        before: what it says before its first answer of each connection.
        closes_at: a PING that it answers by closing the first connection; 0 for none.
        closes_with: what it says then.
        has_log: whether it says that there is a log.
    """

    def __init__(
        self,
        before: bytes = b"",
        closes_at: int = 0,
        closes_with: bytes = b"",
        has_log: bool = False,
    ) -> None:
        self.received = b""
        self.taken = 0
        """How many connections there were."""
        self._before = before
        self._closes_at = closes_at
        self._closes_with = closes_with
        self._has_log = has_log
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it; whoever was connected has gone."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.taken += 1
                with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
                    self._serve(connection, lines, self._closes_at if self.taken == 1 else 0)

    def _serve(self, connection: socket.socket, lines: Any, closes_at: int) -> None:
        info = {"server_id": "scripted", "version": "2.10.0", "max_payload": 1 << 20, "headers": True}
        connection.sendall(b"INFO %s\r\n" % json.dumps(info | {"jetstream": True}).encode())
        pings, inbox = 0, b""
        for line in lines:
            self.received += line
            if line == b"PING\r\n":
                pings += 1
                if pings == closes_at:
                    connection.sendall(self._closes_with)
                    return
                connection.sendall((self._before if pings == 1 else b"") + b"PONG\r\n")
            elif line.startswith(b"SUB _INBOX") and not inbox:
                inbox = line.split()[-1]
            elif line.startswith(b"PUB $JS.API.STREAM.INFO") and self._has_log:
                answer = json.dumps({"config": {"subjects": ["test.log"], "retention": "limits"}}).encode()
                connection.sendall(b"MSG %s %s %d\r\n%s\r\n" % (line.split()[2], inbox, len(answer), answer))


class EngineTests(SynchronousTestCase):
    """A log that is the arbiter, and a bus."""

    def setUp(self) -> None:
        """Starts a server."""
        self.nats = Nats.with_password(Path(self.mktemp()).absolute())
        self.addCleanup(self.nats.close)
        self.loop = Loop()
        self.states: list[bool] = []
        self.fatal: list[str] = []

    def engine(
        self, url: str = "", name: str = "test", creds: Path | None = None, more: Sequence[str] = ()
    ) -> NatsEngine:
        """Returns an engine that is ended with the test."""
        engine = NatsEngine(self.loop, (url or self.nats.url, *more), name, creds, "one")
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

    def test_wrong_credentials_make_no_sense_to_try_again(self) -> None:
        """One line says so, without the password."""
        self.nats.start()
        engine = self.start(self.engine(f"nats://clasp:wrong@{self.nats.servers[0].place}"))
        self.loop.until(lambda: bool(self.fatal))
        self.stop(engine)  # at once, while it is ending by itself
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
        threads: list[threading.Thread] = []
        read_certificates = ssl.create_default_context

        def read() -> ssl.SSLContext:
            threads.append(threading.current_thread())
            return read_certificates()

        self.patch(ssl, "create_default_context", read)
        engine = self.start(self.engine(url))
        self.loop.until(lambda: engine.is_connected)
        self.assertNotIn(threading.main_thread(), threads, "the event loop waited while certificates were read")
        self.nats.servers[0].kill()
        self.loop.until(lambda: not engine.is_connected)
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        answer = self.loop.ask(lambda done: engine.append(b"secret", 0, done))
        self.assertEqual(answer, Appended(Outcome.DONE, 1))

    def paused(self, url: str, flood_bytes: int) -> NatsEngine:
        """Returns an engine whose server reads nothing any more, and that has something to send."""
        self.nats.start()
        engine = self.start(self.engine(url))
        self.loop.until(lambda: engine.is_connected)
        self.nats.servers[0].pause()
        self.addCleanup(self.nats.servers[0].resume)
        piece = bytes(500_000)
        for _ in range(flood_bytes // len(piece)):
            engine.publish("test.live", piece)
        return engine

    def test_a_server_that_stops_reading_is_left(self) -> None:
        """Also where it has not taken all that was sent: more than the buffers of two sockets hold."""
        engine = self.paused(self.nats.url, 30_000_000)
        self.loop.until(lambda: not engine.is_connected)

    def test_a_server_that_stops_reading_is_left_under_tls(self) -> None:
        """Without the farewell for which TLS waits half a minute."""
        engine = self.paused(self.encrypt(), 0)
        began_s = time.monotonic()
        self.loop.until(lambda: not engine.is_connected)
        self.assertLess(time.monotonic() - began_s, 15)

    def stop_at_once(self, engine: NatsEngine) -> None:
        """Ends an engine, and asserts that it takes the second that is promised, or little more."""
        began_s = time.monotonic()
        self.stop(engine)
        self.assertLess(time.monotonic() - began_s, 5)

    def test_a_stop_waits_for_no_server_that_stops_reading(self) -> None:
        """The relay would never end."""
        self.stop_at_once(self.paused(self.nats.url, 30_000_000))

    def test_a_stop_waits_for_no_server_that_stops_reading_under_tls(self) -> None:
        """Nor for its farewell."""
        self.stop_at_once(self.paused(self.encrypt(), 0))

    def test_a_stop_waits_for_no_server_that_is_gone(self) -> None:
        """Also where more was to be sent than a connection takes."""
        engine = self.paused(self.nats.url, 30_000_000)
        self.nats.servers[0].kill()
        self.loop.until(lambda: not engine.is_connected)
        self.stop_at_once(engine)

    def test_certificate_that_nobody_trusts_is_said(self) -> None:
        """The relay tries again: the certificate may be another one by then."""
        url = self.encrypt()
        self.set_variable("SSL_CERT_FILE", str(self.nats.servers[0]._config))
        self.nats.start()
        engine = self.start(self.engine(url))
        self.loop.until(lambda: "certificate verify failed" in engine._failures, "the cause")
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

    def scripted(self, **script: Any) -> ScriptedServer:
        """Returns a server that does as it is told, and is ended with the test."""
        server = ScriptedServer(**script)
        self.addCleanup(server.close)
        return server

    def test_it_connects_where_the_server_asks_before_it_answers(self) -> None:
        """A busy server sends a PING of its own before the PONG."""
        server = self.scripted(before=b"PING\r\n")
        self.start(self.engine(server.url))
        self.loop.until(lambda: b"$JS.API.STREAM.INFO.test" in server.received, "the engine asks for the stream")

    def test_a_server_that_knows_nothing_of_the_log_is_left(self) -> None:
        """It is there, but cut off from the others: one of those is asked."""
        self.patch(engine_module, "ELSEWHERE_S", 0.5)
        cut_off = self.scripted()
        engine = self.start(self.engine(cut_off.url, more=(self.nats.url,)))
        self.loop.until(lambda: b"$JS.API.STREAM.INFO.test" in cut_off.received, "the engine asks for the stream")
        self.nats.start()
        self.loop.until(lambda: engine.is_connected)
        self.assertEqual(self.loop.ask(lambda done: engine.append(b"one", 0, done)), Appended(Outcome.DONE, 1))

    def test_a_server_without_its_quorum_is_left(self) -> None:
        """It says itself that it reaches too few of those with which it keeps the log."""
        self.patch(engine_module, "ELSEWHERE_S", 0.5)
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
        self.patch(engine_module, "ELSEWHERE_S", 0.5)
        self.nats.start()
        engine = self.start(self.engine(more=(f"nats://127.0.0.1:{free_port()}",)))
        self.loop.until(lambda: engine.is_connected)
        looked: list[str] = []
        reaches_log = engine._reaches_log

        async def look(url: str) -> bool:
            looked.append(url)
            return await reaches_log(url)

        self.patch(engine, "_reaches_log", look)
        with mock.patch.object(engine, "_api_answer", side_effect=TimeoutError):
            engine._note_answer(is_there=False)
            self.loop.until(lambda: bool(looked) and not engine._is_looking, "the other server was looked at")
        self.assertEqual(self.states, [True])
        self.assertIsNotNone(self.loop.ask(engine.bounds))

    def test_a_server_is_kept_that_answers_about_the_log_again(self) -> None:
        """It is asked first; what others ask of it, and is not answered, is no reason to leave it either."""
        self.patch(engine_module, "ELSEWHERE_S", 0.5)
        self.patch(random, "sample", lambda urls, _count: list(urls))
        self.nats.start()
        other = self.scripted(has_log=True)
        engine = self.start(self.engine(more=(other.url,)))
        self.loop.until(lambda: engine.is_connected)
        self.assertIsNone(self.loop.ask(lambda done: engine.request("nobody.listens", b"", None, done)))
        self.assertIsNone(engine._silent_since_s)
        engine._note_answer(is_there=False)
        self.loop.until(lambda: engine._silent_since_s is None and not engine._is_looking, "its own server was asked")
        self.assertEqual((other.taken, self.states), (0, [True]))

    def test_servers_that_others_tell_of_get_the_password(self) -> None:
        """One URL is enough where the servers know each other; it holds after that server's end, too."""
        quorum = Nats.with_password(Path(self.mktemp()).absolute(), (HERE,) * 3)
        self.addCleanup(quorum.close)
        quorum.start()
        engine = self.start(self.engine(quorum.url.partition(",")[0]))
        self.loop.until(lambda: engine.is_connected)
        quorum.servers[0].kill()
        self.loop.until(lambda: self.states == [True, False, True])

    def test_a_connection_that_is_lost_at_once_is_made_again(self) -> None:
        """Also where the server says why it has ended it: nothing but that makes a relay stop."""
        self.patch(engine_module, "FLUSH_S", 1)
        for closes_with in (b"", b"-ERR 'Maximum Connections Exceeded'\r\n"):
            server = self.scripted(closes_at=2, closes_with=closes_with, has_log=True)
            engine = self.start(self.engine(server.url))
            self.loop.until(lambda: engine.is_connected or bool(self.fatal))  # noqa: B023  called at once
            with self.subTest(closes_with):
                self.assertEqual((self.fatal, server.taken > 1), ([], True))
            self.stop(engine)

    def test_a_server_that_is_busy_does_not_refuse_credentials(self) -> None:
        """It ends a connection that has not said in time who it is; the next one is faster."""
        late = b"-ERR 'Authentication Timeout'\r\n"
        server = self.scripted(closes_at=1, closes_with=late, has_log=True)
        engine = self.start(self.engine(server.url))
        self.loop.until(lambda: engine.is_connected or bool(self.fatal))
        self.assertEqual(self.fatal, [])

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
