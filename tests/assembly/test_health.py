"""The health port and the relay's life, on a reactor in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.assembly.lifecycle import RelayService
from clasp_relay.errors import StartError
from clasp_relay.service import make_service
from clasp_relay.settings import Settings
from tests.http.memory_site import parse_answer
from tests.machine import Machine


class HealthServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a relay with a health port."""
        self.machine = Machine()
        self.service = self.make()

    def make(self, **settings: Any) -> RelayService:
        """Returns a relay that is not started."""
        given: dict[str, Any] = {"auth_port": 0, "health_port": 7360, "data_dir": Path(self.mktemp())} | settings
        return make_service(Settings(**given), self.machine)

    def ask(self, path: str, number: int = 0) -> tuple[int, bytes]:
        """Returns status and body of an answer of the health port, or of another one by its number."""
        site: Any = self.machine.tcpServers[number][1]
        protocol = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4711))
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = parse_answer(transport.value())
        return answer.status, answer.body

    def test_there_is_no_health_port_unless_it_is_asked_for(self) -> None:
        """It would show numbers to everybody."""
        self.assertIsNone(self.make(health_port=None).health)

    def test_readiness_follows_the_relays_life(self) -> None:
        """Ready once all ports listen and the state is loaded, and no more from the stop's beginning."""
        assert self.service.health is not None
        self.service.health.open()
        self.assertEqual([self.ask("/healthz")[0], self.ask("/readyz")[0]], [200, 503])
        self.assertNotIn(b"clasp_snapshots", self.ask("/metrics")[1])
        self.service.startService()
        self.assertEqual([each[0] for each in self.machine.tcpServers], [7360, 7330])
        self.assertEqual([self.ask("/healthz")[0], self.ask("/readyz")[0]], [200, 200])
        self.assertIn(b"clasp_snapshots_total", self.ask("/metrics")[1])
        self.service.stopService()
        self.assertEqual([self.ask("/healthz")[0], self.ask("/readyz")[0]], [200, 503])
        self.machine.pump([0.1, 0.1])
        self.assertIsNone(self.service.health.port)
        self.assertEqual(self.machine.stopped_ports, 2)
        self.assertEqual(self.machine.getDelayedCalls(), [])

    def test_metrics_alone_have_a_port_of_their_own(self) -> None:
        """Beside a health port or without one."""
        for health_port, ports in ((7360, [7360, 9090, 7330]), (None, [9090, 7330])):
            with self.subTest(health_port=health_port):
                self.machine = Machine()
                self.service = self.make(health_port=health_port, metrics_port=9090)
                self.service.startService()
                self.assertEqual([each[0] for each in self.machine.tcpServers], ports)
                number = ports.index(9090)
                self.assertIn(b"clasp_sessions 0.0", self.ask("/metrics", number)[1])
                self.assertEqual(self.ask("/healthz", number)[0], 404)
                self.service.stopService()
                self.machine.pump([0.1, 0.1])
                self.assertEqual(self.machine.stopped_ports, len(ports))

    def test_metrics_have_what_the_auth_server_counts(self) -> None:
        """None of it in open mode; its calls and its queue with accounts."""
        self.service = self.make(auth_port=7350)
        self.service.startService()
        self.assertIn(b"clasp_hash_queue 0.0", self.ask("/metrics")[1])
        self.service.stopService()
        self.machine.pump([0.1, 0.1])

    def test_start_without_its_port_fails_and_leaves_none_open(self) -> None:
        """The health port is named where it is the one in use, and closed where another one is."""
        self.machine.taken = True
        error = self.assertRaises(StartError, self.service.startService)
        self.assertIn("--health-port: cannot listen on 0.0.0.0:7360", str(error))
        self.machine.taken = False
        assert self.service.health is not None
        self.service.health.open()
        self.machine.taken = True
        error = self.assertRaises(StartError, self.service.startService)
        self.assertIn("--port: cannot listen", str(error))
        self.assertEqual((self.service.health.port, self.machine.stopped_ports), (None, 1))
