"""Connections to real nats-servers: TLS, credentials, losses, the end."""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path

from clasp_relay.cluster.exchange.ports import Appended, Outcome
from clasp_relay.cluster.nats import nats_client
from clasp_relay.cluster.nats.engine import NatsEngine
from tests.cluster.engine_case import EngineCase
from tests.integration.namespaces import HERE
from tests.integration.nats import Nats


class NatsClientTests(EngineCase):
    """A connection that begins, is lost, and ends."""

    def test_wrong_credentials_make_no_sense_to_try_again(self) -> None:
        """One line says so, without the password."""
        self.nats.start()
        engine = self.start(self.engine(f"nats://clasp:wrong@{self.nats.servers[0].place}"))
        self.loop.until(lambda: bool(self.fatal))
        self.stop(engine)  # at once, while it is ending by itself
        self.assertEqual(
            self.fatal, [f"nats://{self.nats.servers[0].place}: NATS refuses the credentials; see --cluster-creds"]
        )

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
        self.loop.until(lambda: "certificate verify failed" in engine._failure, "the cause")
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

    def test_it_connects_where_the_server_asks_before_it_answers(self) -> None:
        """A busy server sends a PING of its own before the PONG."""
        server = self.scripted(before=b"PING\r\n")
        self.start(self.engine(server.url))
        self.loop.until(lambda: b"$JS.API.STREAM.INFO.test" in server.received, "the engine asks for the stream")

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
        self.patch(nats_client, "FLUSH_S", 1)
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
