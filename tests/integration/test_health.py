"""The health port of a real relay."""

from __future__ import annotations

import http.client
import re
import resource
import socket
from pathlib import Path

from clasp_relay.wire.messages import Ack, Set
from clasp_relay.wire.values import encode_value
from tests.integration.accounts import AccountsTestCase
from tests.integration.process import PATIENCE_S, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import Closed, RawClient

_HEALTH = re.compile(r"health checks and metrics are served on [0-9.]+:(\d+)")


def ask(port: int, path: str) -> tuple[int, str]:
    """Returns status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def health_port(relay: RelayProcess) -> int:
    """Returns where a relay tells how it is."""
    wait_until(lambda: _HEALTH.search(relay.log), "the health port listens")
    found = _HEALTH.search(relay.log)
    assert found is not None
    return int(found[1])


class HealthTests(RelayTestCase):
    def test_relay_tells_how_it_is(self) -> None:
        """On a port of its own; the WebSocket port tells only that it lives."""
        relay = self.start("--health-port", "0")
        port = health_port(relay)
        self.assertEqual([ask(port, path)[0] for path in ("/healthz", "/readyz", "/metrics")], [200, 200, 200])
        self.assertEqual([ask(relay.port, path)[0] for path in ("/healthz", "/readyz", "/metrics")], [200, 426, 426])

    def test_relay_is_not_ready_while_it_stops(self) -> None:
        """It answers so until its last session has taken what is its own, or given up."""
        relay = self.start("--health-port", "0", "--drain-timeout", "30")
        port = health_port(relay)
        client = RawClient.live(relay.port, receive_buffer=4096)
        self.addCleanup(client.close)
        relay.signal()
        # The client does not answer the Close: the relay waits for it.
        wait_until(lambda: "stopping" in relay.log, "the stop has begun")
        wait_until(lambda: not relay.is_running or ask(port, "/readyz")[0] == 503, "it is not ready")
        client.end()
        client.close()
        self.assertEqual(relay.wait(), 0)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (150, 200))
from clasp_relay.cli import main
main()
"""


class OpenFilesTests(RelayTestCase):
    def test_connections_never_take_the_last_open_files(self) -> None:
        """The soft limit is raised, the warning has the number, and with all places taken the relay saves."""
        relay = self.start("--health-port", "0", "--persist-interval", "0.1", command=("-c", LIMITED))
        port = health_port(relay)
        self.assertIn("open files are limited to 200, which is enough for 136 sessions", relay.log)
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        sockets = [socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) for _ in range(250)]
        for each in sockets:
            self.addCleanup(each.close)
        wait_until(lambda: "too many open files" in relay.log, "connections are refused")
        self.assertLessEqual(relay.log.count("too many open files"), 2, relay.log)
        self.assertEqual(ask(port, "/readyz")[0], 200)
        client.send(Set("/a", encode_value(1)), qos=1)
        client.receive(Ack)
        wait_until(lambda: relay.state_file.exists() and "/a" in relay.state_file.read_text("utf-8"), "it is saved")
        self.assertGreater(len(list(Path(f"/proc/{relay.pid}/fd").iterdir())), 120)
        self.assertEqual(relay.stop(), 0)

    def is_served(self, relay: RelayProcess) -> bool:
        """Tells whether a new client can write."""
        try:
            client = RawClient.live(relay.port)
        except (ConnectionError, Closed):
            return False
        self.addCleanup(client.close)
        client.send(Set("/b", encode_value(1)), qos=1)
        client.receive(Ack)
        return True

    def test_crowd_that_finds_no_open_file_is_a_line_in_the_log(self) -> None:
        """And not one for each connection, where something else has taken the last descriptors; then it goes on."""
        relay = self.start("--health-port", "0")
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        limits = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)
        descriptors = [int(each.name) for each in Path(f"/proc/{relay.pid}/fd").iterdir()]
        lines = len(relay.lines)
        # None is left at all: not even to accept a connection and close it.
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (max(descriptors) + 1, limits[1]))
        for _ in range(100):
            socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S).close()
        client.send(Set("/a", encode_value(1)), qos=1)
        client.receive(Ack)
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, limits)
        # What came while the last of the crowd was closed is closed, too.
        wait_until(lambda: self.is_served(relay), "connections are accepted again")
        told = [line for line in relay.lines[lines:] if "file" in line]
        self.assertEqual(len(told), 1, told)
        self.assertIn("warn  net: open files are used up", told[0])
        self.assertNotIn("Traceback", relay.log)
        self.assertEqual(relay.stop(), 0)


class AuthMetricsTests(AccountsTestCase):
    def test_calls_of_the_auth_api_are_counted(self) -> None:
        """By call and outcome."""
        relay = self.start_accounts("--health-port", "0")
        relay.api.guest("u-1-abcdef12")
        relay.api.call("login", {"username": "nobody", "password": "not the one"})
        text = ask(health_port(relay), "/metrics")[1]
        self.assertIn('clasp_auth_total{call="guest",outcome="ok"} 1.0\n', text)
        self.assertIn('clasp_auth_total{call="login",outcome="Unauthenticated"} 1.0\n', text)
