"""Each door is made when its port is given, and not otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.assembly.lifecycle import RelayService
from clasp_relay.errors import StartError
from clasp_relay.service import make_service
from clasp_relay.settings import Settings
from tests.machine import Machine


class DoorSetTests(SynchronousTestCase):
    def service(self, machine: Machine, **settings: Any) -> RelayService:
        """Returns a relay that is not started."""
        return make_service(Settings(auth_port=0, data_dir=Path(self.mktemp()), **settings), machine)

    def doors(self, **settings: Any) -> list[str]:
        """Returns the names of the doors that there are."""
        return [each.door for door in self.service(Machine(), **settings).doors for each in door.counts]

    def test_there_is_no_door_unless_it_is_asked_for(self) -> None:
        """WebSocket alone."""
        self.assertEqual(self.doors(), [])

    def test_port_makes_a_door(self) -> None:
        """One each."""
        for settings, expected in (
            ({"tcp_port": 7340}, ["tcp"]),
            ({"osc_port": 8000}, ["osc"]),
            ({"mqtt_port": 1883}, ["mqtt"]),
            ({"announce": True}, []),
            ({"osc_tcp_port": 8000}, ["osc"]),
        ):
            with self.subTest(settings):
                self.assertEqual(self.doors(**settings), expected)

    def test_doors_listen_while_the_relay_runs(self) -> None:
        """From its start to its stop, on the relay's host."""
        machine = Machine()
        service = self.service(machine, tcp_port=7340, host="127.0.0.1")
        service.startService()
        service.startService()
        self.assertEqual([(each[0], each[3]) for each in machine.tcpServers][1:], [(7340, "127.0.0.1")])
        stopped = service.stopService()
        machine.pump([0.1, 0.1])
        self.successResultOf(stopped)
        self.assertEqual(machine.stopped_ports, 2)

    def test_port_that_is_taken_is_named(self) -> None:
        """By its option; nothing listens then."""
        machine = Machine()
        service = self.service(machine, tcp_port=7340)
        listen_tcp = machine.listenTCP

        def listen(port: int, *rest: Any, **more: Any) -> Any:
            machine.taken = port == 7340
            return listen_tcp(port, *rest, **more)

        self.patch(machine, "listenTCP", listen)
        with self.assertRaises(StartError) as caught:
            service.startService()
        self.assertIn("--tcp-port: cannot listen on 0.0.0.0:7340", str(caught.exception))
        self.assertEqual(machine.stopped_ports, 1)
        self.assertFalse(service.is_ready)
