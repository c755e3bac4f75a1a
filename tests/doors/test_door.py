"""The ports of a door: opened, named in the log, closed."""

from __future__ import annotations

from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.door import Ports


class PortsTests(SynchronousTestCase):
    def test_ports_are_logged_and_closed(self) -> None:
        """Each with the door's name and its address."""
        reactor = MemoryReactor()
        ports = Ports("A door")
        self.assertFalse(ports)
        port = reactor.listenTCP(4711, Factory(), interface="127.0.0.1")
        ports.add(port)
        self.assertTrue(ports)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        self.assertEqual(ports.numbers, [address.port])
        events: list[LogEvent] = []
        observer = cast("ILogObserver", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        ports.log()
        self.assertEqual(formatEvent(events[-1]), f"A door listens on {address.host}:{address.port}")
        self.successResultOf(ports.close())
        self.assertFalse(ports)
