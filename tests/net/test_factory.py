"""Tests of ``clasp_relay.net.factory``."""

from __future__ import annotations

from typing import Any

import txaio
from autobahn.twisted.resource import WebSocketResource
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site as WebSite

from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.net.limits import NetLimits
from tests.net.helpers import UPGRADE, Pipe, Site, client_frame, datas, error_payload, keep, server_frames


class LimitTests(SynchronousTestCase):
    def test_factory_caps_tcp_connections_at_accept(self) -> None:
        """Twice as many as sessions; one that ends makes room for one."""
        site = Site(NetLimits(max_sessions=2))
        clients = [site.connect() for _ in range(4)]
        self.assertIsNone(site.factory.buildProtocol(None))
        clients[0].pipe.lose()
        site.connect()
        self.assertIsNone(site.factory.buildProtocol(None))

    def test_factory_refuses_sessions_that_are_too_many(self) -> None:
        """After the upgrade the client reads ERROR 503 and the cause in Close 1013; one that ends makes room."""
        site = Site(NetLimits(max_sessions=2))
        first, _ = site.open(), site.open()
        refused = site.connect()
        refused.send(UPGRADE, client_frame(b"not heard"))
        refused.turn()
        reason = "the server is full (2 sessions)"
        self.assertEqual(datas(refused.frames), [error_payload(ErrorCode.OVERLOADED, reason)])
        self.assertEqual(refused.closes, [(1013, reason)])
        self.assertEqual(len(site.relay.sessions), 2)
        first.pipe.lose()
        refused.pipe.lose()
        self.assertEqual(site.factory.sessions, 1)
        site.open()
        self.assertEqual(len(site.relay.sessions), 3)

    def test_factory_refuses_too_many_sessions_from_one_address(self) -> None:
        """Others are served, and so is this machine itself."""
        site = Site(NetLimits(max_sessions_per_address=1))
        for host, count in (("192.0.2.1", 1), ("192.0.2.2", 2), ("127.0.0.1", 3), ("127.0.0.1", 4)):
            site.open(host)
            self.assertEqual(site.factory.sessions, count)
        refused = site.connect("192.0.2.1")
        refused.send(UPGRADE)
        refused.turn()
        self.assertEqual(refused.closes, [(1013, "too many sessions from your address (1)")])

    def test_factory_ends_a_refused_connection_that_lingers(self) -> None:
        """A refused client does not keep its connection by not answering the Close."""
        site = Site(NetLimits(max_sessions=1))
        site.open()
        refused = site.connect()
        refused.send(UPGRADE)
        refused.turn(10)
        refused.turn()
        self.assertFalse(refused.pipe.connected)
        self.assertEqual(len(site.factory.connections), 1)


class TimerTests(SynchronousTestCase):
    def test_factory_uses_no_timer_but_its_reactors(self) -> None:
        """Autobahn's own timers, which run on a global reactor, are all off."""

        class Trap:
            def __getattr__(self, name: str) -> object:
                raise AssertionError(f"{name} of a global reactor was used")

        self.patch(
            txaio.config,  # type: ignore[attr-defined]
            "loop",
            Trap(),
        )
        site = Site()
        client = site.open()
        client.protocol.close(CloseCode.NORMAL, "bye")
        client.turn(10)
        client.turn()
        self.assertFalse(client.pipe.connected)

    def test_protocols_share_their_options(self) -> None:
        """A connection holds no copies of its options."""
        protocol = Site().open().protocol
        self.assertNotIn("maxFramePayloadSize", vars(protocol))
        self.assertFalse(vars(type(protocol))["failByDrop"])


class StopTests(SynchronousTestCase):
    def test_factory_refuses_connections_while_stopping(self) -> None:
        """At accept, and at the upgrade of those that are there already."""
        site = Site()
        early = site.connect()
        site.factory.stop_accepting()
        self.assertIsNone(site.factory.buildProtocol(None))
        early.send(UPGRADE)
        early.turn()
        self.assertEqual(early.closes, [(1013, "the server is stopping")])

    def test_factory_closes_all_sessions(self) -> None:
        """Each gets what was sent to it, then 1001; connections without a session are dropped."""
        site = Site()
        clients = [site.open() for _ in range(3)]
        half = site.connect()
        site.relay.sessions[0].outbox.send(keep(b"last"))
        stopped = site.factory.close_all(CloseCode.GOING_AWAY, "going away", batch=2, timeout_s=5)
        for client in clients:
            client.turn()
            self.assertEqual(client.closes, [(1001, "going away")])
        self.assertEqual(datas(clients[0].frames), [b"last"])
        self.assertFalse(half.pipe.connected)
        site.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(stopped), 0)


class ResourceTests(SynchronousTestCase):
    def test_factory_serves_as_a_web_servers_resource(self) -> None:
        """Behind a web server the session is the same: upgrade, messages, TCP_NODELAY, back-pressure, end."""
        site = Site()
        root = Resource()
        root.putChild(b"ws", WebSocketResource(site.factory))
        reactor = MemoryReactorClock()
        channel: Any = WebSite(root, reactor=reactor).buildProtocol(None)
        pipe = Pipe(reactor)
        pipe.protocol = channel
        channel.makeConnection(pipe)
        channel.dataReceived(UPGRADE)
        pipe.drain(0)
        self.assertTrue(pipe.taken.startswith(b"HTTP/1.1 101 "))
        self.assertIn("nodelay True", pipe.options)
        session = site.relay.sessions[0]
        self.assertIs(pipe.producer, session.outbox)
        pipe.taken.clear()
        pipe.protocol.dataReceived(client_frame(b"hello"))
        site.reactor.advance(0)
        self.assertEqual(server_frames(bytes(pipe.taken)), [(2, b"hello")])
        pipe.lose()
        self.assertEqual((session.disconnects, len(site.factory.connections)), (1, 0))
