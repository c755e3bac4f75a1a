"""Tests of ``clasp_relay.net.websocket``."""

from __future__ import annotations

import gc
import weakref
from itertools import count
from typing import Any

import txaio
from autobahn.twisted.resource import WebSocketResource
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site as WebSite

from clasp_relay.clock import ReactorClock
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.ports import Audience
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.net.admission import SPARE_CONNECTIONS, NetLimits
from clasp_relay.net.frames import CODEC
from clasp_relay.net.observer import UnwatchedNet
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory, ClaspProtocol, RelayPort
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import decode, encode_to_frame
from clasp_relay.wire.constants import MAX_FRAME_BYTES
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.values import decode_value, encode_value
from tests.core.world import one_turn
from tests.net.helpers import (
    REQUEST,
    UPGRADE,
    Client,
    MemorySession,
    Pipe,
    Site,
    client_frame,
    datas,
    error_payload,
    keep,
    server_frames,
)

CLOSE = client_frame(b"\x03\xe8", 8)


class UpgradeTests(SynchronousTestCase):
    def test_server_echoes_the_subprotocol_that_was_asked_for(self) -> None:
        """Clients fail the connection without the echo; old ones ask for none and get none."""
        for offered, answer in (
            ("clasp", "clasp"),
            ("clasp.v2", "clasp.v2"),
            ("chat, clasp.v2, clasp", "clasp"),
            (None, None),
        ):
            with self.subTest(offered=offered):
                client = Site().connect()
                client.send(
                    REQUEST + (b"" if offered is None else f"Sec-WebSocket-Protocol: {offered}\r\n".encode()) + b"\r\n"
                )
                self.assertTrue(client.head.startswith("HTTP/1.1 101 "))
                names = [line.partition(": ")[2] for line in client.head.split("\r\n") if "-Protocol" in line]
                self.assertEqual(names, [] if answer is None else [answer])

    def test_server_refuses_a_subprotocol_that_it_does_not_know(self) -> None:
        """A client of another protocol is told so before it sends anything."""
        client = Site().connect()
        client.send(REQUEST + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n")
        self.assertTrue(client.head.startswith("HTTP/1.1 400 "))
        self.assertFalse(client.pipe.connected and not client.pipe.disconnecting)

    def test_server_upgrades_on_any_path(self) -> None:
        """Proxies differ in what they pass on."""
        for path in (b"/", b"/clasp", b"/ws/room?x=1"):
            with self.subTest(path=path):
                client = Site().connect()
                client.send(UPGRADE.replace(b"/ws", path))
                self.assertTrue(client.head.startswith("HTTP/1.1 101 "))

    def test_server_asks_about_the_origin(self) -> None:
        """A web page of a foreign origin may not connect; what sends no Origin is no web page."""
        asked: list[tuple[str, str]] = []

        def allows(origin: str, host: str) -> bool:
            asked.append((origin, host))
            return origin == "https://chat.example"

        for origin, status in (
            ("https://chat.example", 101),
            ("https://evil.example", 403),
            ("null", 403),
            (None, 101),
        ):
            with self.subTest(origin=origin):
                client = Site(allows_origin=allows).connect()
                client.send(UPGRADE[:-2] + (b"" if origin is None else f"Origin: {origin}\r\n".encode()) + b"\r\n")
                self.assertTrue(client.head.startswith(f"HTTP/1.1 {status} "), client.head)
        self.assertIn(("https://chat.example", "relay.example:7330"), asked)

    def test_server_lets_every_origin_in_unless_told_otherwise(self) -> None:
        """Without a list of origins pages from anywhere may connect, opaque origins included."""
        for origin in ("https://chat.example", "null", "file://"):
            with self.subTest(origin=origin):
                client = Site().connect()
                client.send(UPGRADE[:-2] + f"Origin: {origin}\r\n\r\n".encode())
                self.assertTrue(client.head.startswith("HTTP/1.1 101 "), client.head)

    def test_server_takes_the_clients_address_from_what_it_was_given(self) -> None:
        """The relay and the limits see the client behind a proxy."""
        site = Site(client_address=lambda peer, forwarded: f"{peer} for {forwarded}")
        client = site.connect("192.0.2.7")
        client.send(UPGRADE[:-2] + b"X-Forwarded-For: 198.51.100.1\r\n\r\n")
        self.assertEqual(site.relay.sessions[0].peer, "192.0.2.7 for 198.51.100.1")

    def test_server_does_not_offer_compression(self) -> None:
        """permessage-deflate, which all clients offer, is declined."""
        client = Site().connect()
        client.send(UPGRADE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")
        self.assertTrue(client.head.startswith("HTTP/1.1 101 "))
        self.assertNotIn("Extensions", client.head)

    def test_server_takes_what_was_sent_before_the_upgrade_was_answered(self) -> None:
        """A HELLO in the same segment as the request is a message like any other."""
        site = Site()
        client = site.connect()
        client.send(UPGRADE + client_frame(b"hello") + client_frame(b"more"))
        client.turn()
        self.assertEqual(datas(client.frames), [b"hello", b"more"])

    def test_server_sets_the_sockets_options(self) -> None:
        """Nagle's algorithm is off, TCP keepalive on."""
        client = Site().connect()
        self.assertEqual(client.pipe.options, ["nodelay True", "keepalive True"])

    def test_server_serves_transports_without_tcp_options(self) -> None:
        """A Unix socket has neither options nor an address."""
        site = Site()
        protocol = site.factory.buildProtocol(None)
        protocol.makeConnection(transport := StringTransport())
        transport.registerProducer(object(), True)
        protocol.dataReceived(UPGRADE)
        self.assertEqual(len(site.relay.sessions), 1)
        protocol.connectionLost()


class MessageTests(SynchronousTestCase):
    def test_session_gets_its_messages_answered(self) -> None:
        """Messages go to the relay, whole or in fragments, and answers come back."""
        site = Site()
        client = site.open()
        client.send(client_frame(b"ab", fin=False), client_frame(b"ping", 9), client_frame(b"cd", 0), client_frame(b""))
        client.turn()
        self.assertEqual(site.relay.sessions[0].received, [b"hello", b"abcd", b""])
        self.assertEqual(client.frames, [(10, b"ping"), (2, b"abcd"), (2, b"")])

    def test_session_is_closed_for_a_text_message(self) -> None:
        """A text message gets ERROR 101 and Close 1003, even one that is no UTF-8."""
        for payload in (b"hello", b"\xff", b""):
            with self.subTest(payload=payload):
                site = Site()
                client = site.open()
                client.send(client_frame(payload, 1), client_frame(b"later"))
                client.turn()
                self.assertEqual(datas(client.frames), [error_payload(ErrorCode.MESSAGE, "text messages are no CLASP")])
                self.assertEqual(client.closes, [(1003, "text messages are no CLASP")])
                self.assertEqual(site.relay.sessions[0].received, [b"hello"])

    def test_session_is_closed_for_a_message_that_is_too_big(self) -> None:
        """1009 at the header, before anything is kept; one frame or many; the largest CLASP frame passes."""
        most = bytes(MAX_FRAME_BYTES)
        too_big = client_frame(most + b"x")
        for name, data in (
            ("header", too_big[:14]),
            ("whole", too_big),
            ("fragments", client_frame(most, fin=False) + client_frame(b"x", 0)),
            ("huge", b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"mask"),
        ):
            with self.subTest(name=name):
                site = Site()
                client = site.open()
                client.send(data)
                client.turn()
                self.assertEqual([code for code, _ in client.closes], [1009])
                self.assertEqual(site.relay.sessions[0].received, [b"hello"])
                client.turn(11)
                self.assertFalse(client.pipe.connected)
        site = Site()
        site.open().send(client_frame(most))
        self.assertEqual(site.relay.sessions[0].received[1:], [most])

    def test_session_is_closed_for_a_websocket_error(self) -> None:
        """1002, and the bad frame is no message."""
        for name, data in (
            ("unmasked", b"\x82\x01a"),
            ("reserved bits", b"\xc2\x81mask\0"),
            ("reserved opcode", client_frame(b"a", 3)),
            ("continuation of nothing", client_frame(b"a", 0)),
        ):
            with self.subTest(name=name):
                site = Site()
                client = site.open()
                client.send(data)
                client.turn()
                self.assertEqual([code for code, _ in client.closes], [1002])
                self.assertEqual(site.relay.sessions[0].received, [b"hello"])

    def test_session_is_closed_when_the_relay_fails(self) -> None:
        """A fault of ours is logged and ends this session with 1011."""
        site = Site()
        client, other = site.open(), site.open()

        def raise_error(*_: object) -> None:
            raise ZeroDivisionError

        site.relay.on_receive = raise_error
        client.send(client_frame(b"a"))
        client.turn()
        self.assertEqual(client.closes, [(1011, "internal error")])
        self.assertEqual(other.frames, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_session_is_closed_when_the_relay_cannot_begin_it(self) -> None:
        """A fault of ours at the start is logged and ends the connection with 1011."""
        site = Site()

        def raise_error(*_: object) -> MemorySession:
            raise ZeroDivisionError

        self.patch(site.relay, "connect", raise_error)
        client = site.connect()
        client.send(UPGRADE, client_frame(b"hello"))
        client.turn()
        self.assertEqual(client.closes, [(1011, "internal error")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_session_is_told_what_was_due_before_its_close_is_answered(self) -> None:
        """An ACK reaches a client that sends its last message and Close at once."""
        site = Site()
        client = site.open()
        client.send(client_frame(b"last") + CLOSE)
        client.turn()
        self.assertEqual([opcode for opcode, _ in client.frames], [2, 8])
        self.assertEqual(site.relay.sessions[0].disconnects, 1)

    def test_session_is_closed_although_its_last_frames_cannot_be_written(self) -> None:
        """A fault while the turn's frames are handed over is logged; the Close is answered all the same."""
        site = Site()
        client = site.open()

        def raise_error(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(site.writer, "flush_runs", raise_error)
        client.send(CLOSE)
        client.turn()
        self.assertEqual([opcode for opcode, _ in client.frames], [8])
        self.assertEqual(site.relay.sessions[0].disconnects, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_session_gets_one_pong_once_it_reads_again(self) -> None:
        """Pings of a peer that does not read do not fill our memory."""
        site = Site()
        client = site.open()
        client.pipe.room_bytes = 0
        site.relay.sessions[0].outbox.send(keep(bytes(100_000)))
        client.turn()
        buffered = client.pipe._tempDataLen
        for number in range(50):
            client.send(client_frame(b"%d" % number, 9))
        self.assertEqual(client.pipe._tempDataLen, buffered)
        client.pipe.drain()
        self.assertEqual(client.frames[1:], [(10, b"49")])


class HelloTests(SynchronousTestCase):
    def test_connection_that_says_nothing_is_ended(self) -> None:
        """10 s from the TCP connection, wherever it stopped, and however it drips."""
        for name, data in (("nothing", b""), ("half a request", REQUEST)):
            with self.subTest(name=name):
                client = Site().connect()
                client.send(data)
                client.turn(9.9)
                self.assertTrue(client.pipe.connected)
                client.turn(0.2)
                client.turn(0)
                self.assertFalse(client.pipe.connected)
                self.assertIn("reset", client.pipe.options)

    def test_request_that_drips_has_no_more_time(self) -> None:
        """A byte a second keeps no connection."""
        client = Site().connect()
        for number in range(9):
            client.send(UPGRADE[number : number + 1])
            client.turn(1)
        self.assertTrue(client.pipe.connected)
        client.turn(1)
        client.turn()
        self.assertFalse(client.pipe.connected)

    def test_connection_without_hello_is_closed(self) -> None:
        """After the upgrade the client reads an ERROR and the cause in the Close."""
        site = Site()
        client = site.connect()
        client.turn(6)
        client.send(UPGRADE)
        client.turn(9.9)
        self.assertEqual(client.closes, [])
        client.turn(0.2)
        self.assertEqual(datas(client.frames), [error_payload(ErrorCode.UNAUTHENTICATED, "no HELLO within 10 s")])
        self.assertEqual(client.closes, [(1008, "no HELLO within 10 s")])
        client.turn()
        self.assertFalse(client.pipe.connected)
        self.assertEqual(site.relay.sessions[0].disconnects, 1)

    def test_connection_without_hello_that_reads_nothing_is_aborted(self) -> None:
        """It cannot keep its socket by not taking what it is told."""
        client = Site().connect()
        client.send(UPGRADE)
        client.protocol.transport.write(bytes(100_000))
        client.pipe.room_bytes = 0
        client.protocol.transport.write(bytes(100_000))
        client.turn(10)
        client.turn()
        self.assertFalse(client.pipe.connected)

    def test_connection_that_said_hello_stays(self) -> None:
        """A live session has no timer left, however it became live."""
        site = Site()
        site.open()
        self.assertEqual(len(site.reactor.getDelayedCalls()), 1)  # that of the liveness checks
        late = site.connect()
        late.send(UPGRADE)
        site.relay.sessions[1].is_live = True
        late.turn(11)
        self.assertTrue(late.pipe.connected)
        self.assertEqual(late.closes, [])


class LivenessTests(SynchronousTestCase):
    def pass_time(self, client: Client, seconds: int) -> None:
        """Lets seconds pass one by one."""
        for _ in range(seconds):
            client.turn(1)

    def test_session_is_pinged_every_30_s(self) -> None:
        """A listener that answers its pings lives for ever."""
        client = Site().open()
        for _ in range(40):
            self.pass_time(client, 30)
            self.assertEqual(client.frames, [(9, b"")])
            client.clear()
            client.send(client_frame(b"", 10))
        self.assertTrue(client.pipe.connected)

    def test_session_that_answers_nothing_is_closed(self) -> None:
        """After the timeout a Close, and 10 s later the socket is closed."""
        site = Site()
        client = site.open()
        self.pass_time(client, 300)
        self.assertEqual(client.closes, [])
        self.pass_time(client, 31)
        self.assertEqual(client.closes, [(1008, "nothing was received for 300 s")])
        self.pass_time(client, 11)
        self.assertFalse(client.pipe.connected)
        self.assertEqual(site.relay.sessions[0].disconnects, 1)

    def test_session_with_a_short_timeout_is_pinged_more_often(self) -> None:
        """A peer has three pings to answer, whatever the timeout."""
        client = Site(NetLimits(session_timeout_s=6)).open()
        for _ in range(50):
            client.turn(0.2)
            if client.frames:
                client.clear()
                client.send(client_frame(b"", 10))
        self.assertTrue(client.pipe.connected)
        self.assertEqual(client.closes, [])


class ControlFrameTests(SynchronousTestCase):
    """What pings and pongs of a client may cost."""

    def pongs(self, client: Client) -> list[bytes]:
        """Returns the payloads of the pongs that a client got."""
        return [data for opcode, data in client.frames if opcode == 10]

    def test_pings_before_hello_are_few(self) -> None:
        """They are answered; the ninth ends the connection."""
        client = Site().connect()
        client.send(UPGRADE)
        client.clear()
        for number in range(8):
            client.send(client_frame(b"%d" % number, 9 + number % 2))
            client.turn(0.3)
        self.assertEqual(self.pongs(client), [b"%d" % number for number in range(0, 8, 2)])
        client.send(client_frame(b"", 9))
        client.turn()
        self.assertEqual(client.closes, [(1008, "more than 8 control frames before HELLO")])
        client.turn()
        self.assertFalse(client.pipe.connected)

    def test_pings_of_a_session_are_answered_four_times_a_second(self) -> None:
        """Each pong answers the last ping, and with it those before."""
        client = Site().open()
        for number in range(40):
            client.send(client_frame(b"%d" % number, 9))
            client.turn(1 / 32)
        client.turn(0.25)
        self.assertEqual(self.pongs(client), [b"%d" % number for number in (0, 7, 15, 23, 31, 39)])
        client.turn(1)
        client.send(client_frame(b"late", 9))
        self.assertEqual(self.pongs(client)[-1], b"late")
        client.pipe.lose()

    def test_flood_of_control_frames_ends_its_session(self) -> None:
        """Fifty in a second are many, in every second anew; pings or pongs."""
        for opcode in (9, 10):
            with self.subTest(opcode=opcode):
                client = Site().open()
                for _ in range(3):
                    client.send(client_frame(b"", opcode) * 50)
                    client.turn(1)
                self.assertEqual(client.closes, [])
                client.send(client_frame(b"", opcode) * 1000)
                client.turn()
                self.assertEqual(client.closes, [(1008, "more than 50 control frames in a second")])
                client.turn()
                self.assertFalse(client.pipe.connected)
                self.assertEqual(client.site.relay.sessions[0].disconnects, 1)

    def test_no_pong_is_owed_to_a_peer_that_is_gone(self) -> None:
        """No timer is left."""
        site = Site()
        client, other = site.open(), site.open()
        for _ in range(2):
            client.send(client_frame(b"", 9))
        client.pipe.lose()
        site.reactor.advance(0)
        self.assertEqual(len(site.reactor.getDelayedCalls()), 1)  # that of the liveness checks
        self.assertTrue(other.pipe.connected)


class CrowdTests(SynchronousTestCase):
    """Many sessions that end at once."""

    def setUp(self) -> None:
        """Three hundred sessions, the end of each of which takes the relay 1.5 ms."""
        self.site = Site()
        self.clients = [self.site.open(f"192.0.2.{number % 250}") for number in range(300)]
        self.told: list[MemorySession] = []

        def disconnect(session: MemorySession, cause: str) -> None:
            self.assertEqual(cause, "the connection was lost")
            self.site.reactor.rightNow += 0.0015
            self.told.append(session)

        self.site.relay.disconnect = disconnect  # type: ignore[method-assign]

    def test_sessions_that_end_at_once_are_ended_a_few_in_each_turn(self) -> None:
        """So that everybody else's messages come through in between; in their order, and all of them."""
        for client in self.clients:
            client.pipe.lose()
        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.site.factory.sessions, 0)
        turns = 0
        while len(self.told) < 300:
            before = len(self.told)
            one_turn(self.site.reactor)
            self.assertLessEqual(len(self.told) - before, 2)
            turns += 1
        self.assertEqual(self.told, self.site.relay.sessions)
        self.assertLess(turns, 160)

    def test_session_that_ends_alone_is_ended_at_once(self) -> None:
        """Nobody waits for a turn of the event loop, and a fault of the relay keeps nobody else."""
        self.clients[0].pipe.lose()
        self.assertEqual(len(self.told), 1)
        one_turn(self.site.reactor)
        self.patch(self.site.relay, "disconnect", raise_error)
        self.clients[1].pipe.lose()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_ends_those_that_wait(self) -> None:
        """Before the state is saved for the last time."""
        for client in self.clients:
            client.pipe.lose()
        stopped = self.site.factory.close_all()
        self.site.reactor.advance(1)
        self.assertEqual(self.successResultOf(stopped), 0)
        self.assertEqual(len(self.told), 300)


def raise_error(*_: object) -> None:
    """Fails as nobody expects."""
    raise ZeroDivisionError


class EndTests(SynchronousTestCase):
    def test_relay_is_told_once_whatever_ended_the_connection(self) -> None:
        """Clean or not, by the peer or by us."""

        def abort(client: Client) -> None:
            client.protocol.abort()
            client.turn()

        def break_socket(client: Client) -> None:
            client.pipe.is_broken = True
            client.site.relay.sessions[0].outbox.send(keep(b"a"))
            client.turn()
            client.pipe.drain()

        def close_by_relay(client: Client) -> None:
            client.site.relay.sessions[0].outbox.close(CloseCode.NORMAL, "bye")
            client.turn()
            self.assertEqual(client.closes, [(1000, "bye")])
            client.send(CLOSE)
            client.turn()

        for name, end in (
            ("RST", lambda client: client.pipe.lose()),
            ("FIN", lambda client: client.pipe.lose(clean=True)),
            ("Close", lambda client: client.send(CLOSE)),
            ("RST in a message", lambda client: (client.send(client_frame(b"abc")[:5]), client.pipe.lose())),
            ("our abort", abort),
            ("broken socket", break_socket),
            ("our Close", close_by_relay),
            ("dead at a close", lambda client: (client.protocol.close(CloseCode.NORMAL, ""), client.turn(11))),
        ):
            with self.subTest(name=name):
                site = Site()
                client = site.open()
                end(client)
                client.turn()
                client.turn()
                self.assertFalse(client.pipe.connected)
                self.assertEqual(site.relay.sessions[0].disconnects, 1)
                self.assertEqual((len(site.factory.connections), site.factory.sessions), (0, 0))
                self.assertEqual(site.reactor.getDelayedCalls(), [])

    def test_relay_that_fails_at_a_disconnect_leaks_nothing(self) -> None:
        """A fault of ours is logged; the counts are right nevertheless."""
        site = Site()
        client = site.open()

        def raise_error(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(site.relay, "disconnect", raise_error)
        client.pipe.lose()
        self.assertEqual((len(site.factory.connections), site.factory.sessions), (0, 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connection_is_closed_in_order_once_the_peer_answered(self) -> None:
        """After a complete closing handshake the TCP connection is not reset."""
        client = Site().open()
        client.protocol.close(CloseCode.NORMAL, "bye")
        client.turn()
        client.send(CLOSE)
        client.turn()
        self.assertEqual(client.pipe.options[-1], "closed")

    def test_connection_that_lingers_is_aborted(self) -> None:
        """A peer that neither reads nor leaves is gone after 10 s, and what it sends is not kept."""
        client = Site().open()
        client.pipe.room_bytes = 0
        client.send(CLOSE)
        self.assertTrue(client.pipe.connected)
        for _ in range(100):
            client.send(bytes(1000))
        self.assertEqual(len(client.protocol.data), 0)
        client.turn(10)
        client.turn(0)
        self.assertFalse(client.pipe.connected)

    def test_slow_session_is_closed_with_its_reason(self) -> None:
        """A peer that does not read is ended; it reads why, if it reads at all within 10 s."""
        site = Site(NetLimits(outbox_bytes=100_000))
        client, other = site.open(), site.open()
        client.pipe.room_bytes = 1000
        audience = Audience(CODEC, tuple(session.outbox for session in site.relay.sessions))
        for number in range(400):
            site.writer.fan_out(audience, keep(b"%d" % number + bytes(1000)))
            client.turn()
        self.assertEqual(len(other.frames), 400)
        client.pipe.drain()
        self.assertEqual(datas(client.frames)[-1], error_payload(ErrorCode.OVERLOADED, "too slow"))
        self.assertEqual(client.closes, [(1013, "too slow")])
        client.turn(10)
        client.turn(0)
        self.assertFalse(client.pipe.connected)

    def test_protocols_are_freed_without_the_garbage_collector(self) -> None:
        """Nothing keeps a closed connection alive: no cycle, no timer, no table."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        observer = UnwatchedNet()
        site = Site(observer=observer)
        alive: weakref.WeakSet[ClaspProtocol] = weakref.WeakSet()

        def cycle(number: int) -> None:
            observer.traces = number >= 30
            client = site.open() if number % 3 else site.connect()
            alive.add(client.protocol)
            if number % 2:
                client.send(CLOSE if number % 3 else b"GET / HTTP/1.0\r\n\r\n")
            else:
                client.pipe.lose()
            client.turn()

        for number in range(60):
            cycle(number)
        site.relay.sessions.clear()
        self.assertEqual(len(alive), 0)

    def test_close_reason_fits_a_close_frame(self) -> None:
        """At most 123 bytes, valid UTF-8: it is cut between characters."""
        for reason, expected in (
            ("bye", "bye"),
            ("x" * 200, "x" * 123),
            ("é" * 100, "é" * 61),
            ("", ""),
        ):
            with self.subTest(reason=reason):
                client = Site().open()
                client.protocol.close(CloseCode.NORMAL, reason)
                client.turn()
                self.assertEqual(client.closes, [(1000, expected)])

    def test_protocol_reports_whether_its_bytes_have_left(self) -> None:
        """Drained means: nothing in the outbox, nothing in the transport."""
        site = Site()
        client = site.open()
        self.assertTrue(client.protocol.is_drained)
        client.pipe.room_bytes = 0
        site.relay.sessions[0].outbox.send(keep(b"a"))
        self.assertFalse(client.protocol.is_drained)
        client.turn()
        self.assertFalse(client.protocol.is_drained)
        client.pipe.drain()
        self.assertTrue(client.protocol.is_drained)
        self.assertTrue(site.connect().protocol.is_drained)


class LimitTests(SynchronousTestCase):
    def test_factory_caps_tcp_connections_at_accept(self) -> None:
        """Twice as many as sessions; one that ends makes room for one."""
        site = Site(NetLimits(max_sessions=2))
        clients = [site.connect() for _ in range(4)]
        self.assertIsNone(site.factory.buildProtocol(None))
        clients[0].pipe.lose()
        site.connect()
        self.assertIsNone(site.factory.buildProtocol(None))

    def test_zero_is_no_limit_of_connections_and_sessions(self) -> None:
        """As for every limit that counts."""
        site = Site(NetLimits(max_sessions=0))
        clients = [site.open() for _ in range(5)]
        self.assertEqual((len(clients), site.factory.sessions), (5, 5))

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
        for host, sessions in (("192.0.2.1", 1), ("192.0.2.2", 2), ("127.0.0.1", 3), ("127.0.0.1", 4)):
            site.open(host)
            self.assertEqual(site.factory.sessions, sessions)
        refused = site.connect("192.0.2.1")
        refused.send(UPGRADE)
        refused.turn()
        self.assertEqual(refused.closes, [(1013, "too many connections from your address (1)")])

    def test_connections_that_say_nothing_take_no_more_places_than_sessions(self) -> None:
        """One address cannot hold the places of all others, not even without a word."""
        witness = Site(NetLimits(max_sessions_per_address=3))
        silent = [witness.connect("192.0.2.1") for _ in range(3 + SPARE_CONNECTIONS)]
        here, there = (IPv4Address("TCP", host, 4711) for host in ("192.0.2.1", "192.0.2.2"))
        self.assertIsNone(witness.factory.buildProtocol(here))
        self.assertIsNotNone(witness.factory.buildProtocol(there))
        silent[-1].send(UPGRADE)
        silent[-1].turn()
        self.assertEqual(silent[-1].closes, [(1013, "too many connections from your address (3)")])
        silent[0].pipe.lose()
        self.assertIsNotNone(witness.factory.buildProtocol(here))

    def test_connections_of_a_trusted_proxy_count_for_its_clients(self) -> None:
        """The proxy itself may have any number, and each of its clients so many."""
        site = Site(
            NetLimits(max_sessions_per_address=1),
            client_address=lambda peer, forwarded: forwarded or peer,
            is_proxy=lambda peer: peer == "192.0.2.9",
        )
        clients = [site.connect("192.0.2.9") for _ in range(20)]
        self.assertIsNotNone(site.factory.buildProtocol(IPv4Address("TCP", "192.0.2.9", 4711)))
        for number, client in enumerate(clients):
            client.send(UPGRADE[:-2] + b"X-Forwarded-For: 198.51.100.%d\r\n\r\n" % (number // 2))
            client.turn()
            self.assertEqual([code for code, _ in client.closes], [1013] if number % 2 else [])

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


TOKEN_ENDED = ErrorCode.TOKEN_EXPIRED


class RelaySite(Site):
    """A site with the core's relay."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.writer = TurnWriter(self.reactor)
        numbers = count(1)
        relay = Relay(
            RelayOptions(),
            HANDLERS,
            ReactorClock(self.reactor),
            lambda: f"session-{next(numbers)}",
            self.writer,
            self.report,
        )
        self.core = relay
        port: RelayPort[Session] = relay
        self.factory = ClaspFactory(port, self.writer, self.reactor)
        self.faults: list[Exception] = []

    def report(self, _what: str, fault: Exception) -> None:
        """Notes a fault."""
        self.faults.append(fault)


def say(client: Client, message: m.Message, qos: int = 0) -> None:
    """Sends a message as a client does."""
    frame = decode_frame(encode_to_frame(message))
    client.send(client_frame(encode_frame(frame.payload, qos)))


def heard(client: Client) -> list[m.Message]:
    """Returns the messages that came, and forgets them."""
    messages = [decode(decode_frame(data).payload) for data in datas(client.frames)]
    client.clear()
    return messages


class RelayPortTests(SynchronousTestCase):
    def enter(self, site: RelaySite) -> Client:
        """Opens a live session."""
        client = site.connect()
        client.send(UPGRADE)
        client.clear()
        say(client, m.Hello(1, 0xF8, "test"))
        client.turn()
        self.assertEqual([type(message) for message in heard(client)], [m.Welcome, m.Snapshot])
        return client

    def test_relay_welcomes_a_client_and_stops_its_timer(self) -> None:
        """WELCOME, SNAPSHOT, and no end after 10 s."""
        site = RelaySite()
        client = self.enter(site)
        client.turn(11)
        self.assertTrue(client.pipe.connected)
        client.pipe.lose()
        self.assertEqual(site.faults, [])

    def test_session_whose_token_ended_reads_nothing_more(self) -> None:
        """Though it has asked for megabytes, and reads again only then; the core does it like this."""
        site = RelaySite()
        writer, reader = self.enter(site), self.enter(site)
        for number in range(200):
            say(writer, m.Set(f"/big/{number}", encode_value("x" * 10_000)))
        reader.pipe.room_bytes = 10_000
        for number in range(3):
            say(reader, m.Subscribe(number, "/big/**"))
        reader.turn()
        say(writer, m.Set("/big/0", encode_value("last")))
        writer.turn()
        session = reader.protocol._session
        assert isinstance(session, Session)
        session.outbox.discard()
        site.core.end(session, Disconnect(CloseCode.POLICY_VIOLATION, "revoked", TOKEN_ENDED))
        waiting_bytes = len(reader.pipe.taken) + len(reader.pipe.dataBuffer) + reader.pipe._tempDataLen
        for _ in range(3):
            reader.turn()
            reader.pipe.drain()
        last = error_payload(TOKEN_ENDED, "revoked")
        self.assertEqual(datas(reader.frames)[-1], last)
        self.assertEqual(reader.closes, [(1008, "revoked")])
        self.assertLess(len(reader.pipe.taken) - waiting_bytes, 100)
        self.assertEqual(site.faults, [])

    def test_relay_keeps_a_burst_in_order_for_50_subscribers(self) -> None:
        """Every subscriber, the writer included, reads every value once and in order, and the writer its ACKs."""
        site = RelaySite()
        clients = [self.enter(site) for _ in range(50)]
        for client in clients:
            say(client, m.Subscribe(1, "/burst/**"))
        for number in range(100):
            say(clients[0], m.Set(f"/burst/{number % 3}", encode_value(number)), qos=1)
        clients[0].turn()
        for client in clients:
            messages = heard(client)
            values = [decode_value(message.value) for message in messages if isinstance(message, m.Set)]
            self.assertEqual(values, list(range(100)))
            acks = sum(isinstance(message, m.Ack) for message in messages)
            self.assertEqual(acks, 100 if client is clients[0] else 0)
        self.assertEqual(site.faults, [])
