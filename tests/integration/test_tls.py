"""wss: and https: with real sockets: clients that check the certificate, and a SIGHUP that brings a new one."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import Ack, Hello, Set, Snapshot, Subscribe, Welcome
from clasp_relay.wire.values import encode_value
from tests.certificates import Issued, issue, trusting
from tests.integration.node import NodeProcess
from tests.integration.process import PATIENCE_S, TWISTD, RelayProcess, RelayTestCase, environment, wait_until
from tests.integration.python_client import connected
from tests.integration.raw import RawClient
from tests.ports import free_port

BIG = encode_value(bytes(60_000))

DENYING = """
import ctypes
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
assert ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0, "needs Linux 6.3"
from clasp_relay.cli import main
main()
"""


class TlsTestCase(RelayTestCase):
    """Has relays with a certificate."""

    def setUp(self) -> None:
        """Makes one."""
        super().setUp()
        self.issued = issue()
        self.certificate, self.key = self.issued.write(self.folder)

    def start_tls(self, *options: str) -> RelayProcess:
        """Starts a relay."""
        return self.start("--tls-cert", str(self.certificate), "--tls-key", str(self.key), *options)

    def live(self, relay: RelayProcess, *trusted: Issued) -> RawClient:
        """Returns a client that trusts certificates, by default ours, and is past the first SNAPSHOT."""
        client = RawClient.live(relay.port, tls=trusting(*(trusted or (self.issued,))))
        self.addCleanup(client.close)
        return client


class ServingTests(TlsTestCase):
    """What goes over TLS."""

    def test_raw_client_sets_and_reads_more_than_buffers_hold(self) -> None:
        """Big values go in and come out whole, also to a client that takes its time."""
        relay = self.start_tls()
        writer = self.live(relay)
        for n in range(100):
            writer.send(Set(f"/big/{n}", BIG), qos=1)
            writer.receive(Ack)
        reader = RawClient(relay.port, tls=trusting(self.issued), receive_buffer=4_096)
        self.addCleanup(reader.close)
        reader.send(Hello(1, 0xF8, "reader"))
        reader.receive(Welcome)
        seen: set[str] = set()
        while len(seen) < 100:
            seen.update(param.address for param in reader.receive(Snapshot).params)
        self.assertEqual(reader.settle(), [])
        reader.send(Subscribe(1, "/big/*"))
        reader.receive(Snapshot)

    def test_python_client_connects(self) -> None:
        """Through the system's store of trusted certificates, as it would anywhere."""
        relay = self.start_tls()
        self._set_variable("SSL_CERT_FILE", self.certificate)

        async def run() -> None:
            async with connected(f"wss://localhost:{relay.port}") as one:
                await one.client.set("/a", 1)
                await one.round_trip()
                self.assertEqual(await one.client.get("/a"), 1)

        asyncio.run(run())

    def test_js_client_connects(self) -> None:
        """Node's way to trust a certificate of one's own."""
        relay = self.start_tls()
        self._set_variable("NODE_EXTRA_CA_CERTS", self.certificate)
        process = NodeProcess("scenarios.mjs", "subscribes_with_wildcards", f"wss://localhost:{relay.port}")
        self.addCleanup(process.kill)
        status, output, errors = process.end()
        self.assertEqual((status, output), (0, '"done"\n'), errors)

    def test_client_without_tls_is_left_and_does_no_harm(self) -> None:
        """Plain HTTP on the port ends its own connection only."""
        relay = self.start_tls()
        client = self.live(relay)
        with socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertNotIn(b"HTTP", plain.recv(1_024))
        self.assertEqual(client.settle(), [])

    def test_auth_api_is_served_by_https(self) -> None:
        """A token that came over TLS opens a session over TLS."""
        port = free_port()
        relay = self.start_tls("--auth-port", str(port), "--app-config", "none")
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE_S, context=trusting(self.issued))
        self.addCleanup(connection.close)
        connection.request("POST", "/auth/guest", body=b"{}", headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200, answer.read())
        self.assertTrue(relay.is_running)

    def test_relay_serves_where_memory_is_never_writable_and_executable(self) -> None:
        """As under systemd's MemoryDenyWriteExecute: sessions and the auth API."""
        port = free_port()
        relay = self.start(
            *("--tls-cert", str(self.certificate), "--tls-key", str(self.key), "--auth-port", str(port)),
            *("--app-config", "none"),
            command=("-c", DENYING),
        )
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE_S, context=trusting(self.issued))
        self.addCleanup(connection.close)
        connection.request("POST", "/auth/guest", body=b"{}", headers={"Content-Type": "application/json"})
        token = json.loads(connection.getresponse().read())["token"]
        client = RawClient(relay.port, tls=trusting(self.issued))
        self.addCleanup(client.close)
        client.send(Hello(1, 0xF8, "client", token))
        client.receive(Welcome)

    def test_sessions_read_why_they_end_when_the_relay_stops(self) -> None:
        """The Close with 1001 arrives before the end of TLS."""
        relay = self.start_tls()
        clients = [self.live(relay) for _ in range(20)]
        self.assertEqual(relay.stop(), 0, relay.log)
        self.assertEqual({client.end()[1].code for client in clients}, {CloseCode.GOING_AWAY})

    def test_relay_names_what_is_wrong_with_its_files(self) -> None:
        """One line, and nothing listens."""
        self.key.write_bytes(issue().key_pem())
        with self.assertRaises(AssertionError) as caught:
            self.start_tls()
        self.assertIn("clasp-relay: --tls-key: ", str(caught.exception))
        self.assertIn("is not the key of the first certificate", str(caught.exception))

    def _set_variable(self, name: str, value: Path) -> None:
        """Sets a variable of this process and those that it starts, until the test ends."""
        before = os.environ.get(name)
        os.environ[name] = str(value)
        self.addCleanup(os.environ.pop if before is None else os.environ.__setitem__, name, before or "")


class ReloadTests(TlsTestCase):
    """SIGHUP to a relay that runs."""

    def test_sighup_brings_a_new_certificate_without_ending_sessions(self) -> None:
        """New connections get it, and the session from before goes on."""
        relay = self.start_tls()
        before = self.live(relay)
        new = issue()
        new.write(self.folder)
        relay.signal(signal.SIGHUP)
        wait_until(
            lambda: "new connections use the certificate" in relay.log, "the relay has loaded the new certificate"
        )
        self.live(relay, new).send(Set("/a", encode_value(1)), qos=1)
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.live(relay, self.issued)
        before.send(Set("/b", encode_value(2)), qos=1)
        before.receive(Ack)
        self.assertEqual(relay.stop(), 0)

    def test_sighup_keeps_the_old_certificate_when_the_new_one_is_broken(self) -> None:
        """The log says why, and the relay goes on."""
        relay = self.start_tls()
        self.certificate.write_text("junk")
        relay.signal(signal.SIGHUP)
        wait_until(lambda: "stays in use" in relay.log, "the relay has looked at the new certificate")
        self.assertIn("cert.pem is not a certificate in PEM format", relay.log)
        self.assertEqual(self.live(relay).settle(), [])

    def test_sighup_storm_ends_nothing(self) -> None:
        """However many come, while sessions come too."""
        relay = self.start_tls()
        before = self.live(relay)

        def send() -> None:
            for _ in range(200):
                relay.signal(signal.SIGHUP)

        storm = threading.Thread(target=send)
        storm.start()
        for _ in range(5):
            self.assertEqual(self.live(relay).settle(), [])
        storm.join()
        self.assertEqual(before.settle(), [])


class LogTests(RelayTestCase):
    """SIGUSR1, by which twistd starts a new log file."""

    def test_sigusr1_starts_a_new_log_file(self) -> None:
        """The old one is kept beside it."""
        log = self.folder / "relay.log"
        process = subprocess.Popen(
            [
                *(sys.executable, *TWISTD[:-1], "--logfile", "relay.log", TWISTD[-1]),
                *("--host", "127.0.0.1", "--port", "0", "--auth-port", "0"),
            ],
            cwd=self.folder,
            env=environment(),
        )
        self.addCleanup(process.wait, PATIENCE_S)
        self.addCleanup(process.kill)
        wait_until(lambda: log.exists() and "open mode" in log.read_text("utf-8"), "the relay listens")
        process.send_signal(signal.SIGUSR1)
        wait_until((self.folder / "relay.log.1").exists, "the log is a new file")
        process.terminate()
        self.assertEqual(process.wait(PATIENCE_S), 0)
        self.assertIn("stopped", log.read_text("utf-8"))

    def test_sigusr1_does_nothing_without_a_log_file(self) -> None:
        """The relay goes on, and ends in order."""
        relay = self.start()
        relay.signal(signal.SIGUSR1)
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        self.assertEqual(client.settle(), [])
        self.assertEqual(relay.stop(), 0)
