"""HTTP connections in turn, in number and in time."""

from __future__ import annotations

import gc
import socket
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from clasp_relay.access.addresses import parse_networks
from clasp_relay.http.connections import (
    ABORT_TIMEOUT_S,
    BODY_TIMEOUT_S,
    HEADER_TIMEOUT_S,
    IDLE_GRACE_S,
    MAX_IDLE_PER_ADDRESS,
    REQUESTS_A_TURN,
    STALL_TIMEOUT_S,
)
from clasp_relay.http.site import IDLE_TIMEOUT_S, make_site
from clasp_relay.net.tls import ServerTls
from tests.certificates import issue
from tests.core.world import one_turn
from tests.http.memory_site import MemorySite
from tests.net.helpers import Pipe

REACTOR: Any = reactor
ASK = b"GET /auth HTTP/1.1\r\nHost: relay.example\r\n\r\n"
POST = b"POST /auth HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 4\r\n\r\n"


class Counter(Resource):
    """Counts who asked; answers a POST when it is told to."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.open: list[Request] = []

    def render_GET(self, _request: Request) -> bytes:  # noqa: N802 - Twisted's
        """Answers with a number."""
        self.count += 1
        return b"%d" % self.count

    def render_POST(self, request: Request) -> int:  # noqa: N802 - Twisted's
        """Keeps the request."""
        self.count += 1
        self.open.append(request)
        return NOT_DONE_YET

    def answer(self) -> None:
        """Answers the oldest request that is kept."""
        request = self.open.pop(0)
        request.write(b"done")
        request.finish()


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A site, and more clients than it looks after in two turns."""
        self.resource = Counter()
        self.site = MemorySite(self.resource)
        self.clients: list[tuple[Any, StringTransport]] = [self.site.connect() for _ in range(2 * REQUESTS_A_TURN + 1)]

    def ask(self) -> None:
        """Everybody asks for something in the same turn."""
        for protocol, _ in self.clients:
            protocol.dataReceived(ASK)

    def turn(self) -> int:
        """Lets a turn pass; returns how many have been answered in all."""
        one_turn(self.site.clock)
        return self.resource.count

    def test_crowd_is_answered_in_several_turns(self) -> None:
        """Those who came first at first, and nobody twice."""
        self.ask()
        self.assertEqual(self.resource.count, REQUESTS_A_TURN)
        self.assertEqual(
            [self.turn() for _ in range(3)], [2 * REQUESTS_A_TURN, 2 * REQUESTS_A_TURN + 1, 2 * REQUESTS_A_TURN + 1]
        )
        answers = [transport.value().rpartition(b"\r\n")[2] for _, transport in self.clients]
        self.assertEqual(answers, [b"%d" % number for number in range(1, len(self.clients) + 1)])

    def test_nothing_more_is_read_from_who_waits(self) -> None:
        """Until it has had its turn."""
        self.ask()
        states = [transport.producerState for _, transport in self.clients]
        self.assertEqual(states, ["producing"] * REQUESTS_A_TURN + ["paused"] * (REQUESTS_A_TURN + 1))
        self.turn()
        self.turn()
        self.assertEqual({transport.producerState for _, transport in self.clients}, {"producing"})

    def test_what_comes_all_the_same_is_kept_in_order(self) -> None:
        """As a TLS transport has read it already."""
        for protocol, _ in self.clients[:-1]:
            protocol.dataReceived(ASK)
        protocol, transport = self.clients[-1]
        for start in range(0, len(ASK), 5):
            protocol.dataReceived(ASK[start : start + 5])
        self.assertEqual(transport.value(), b"")
        self.turn()
        self.turn()
        self.assertIn(b"200 OK", transport.value())

    def test_who_hangs_up_is_forgotten(self) -> None:
        """The next one has its turn."""
        self.ask()
        for protocol, transport in self.clients[REQUESTS_A_TURN : 2 * REQUESTS_A_TURN]:
            transport.connected = False
            protocol.connectionLost()
        self.assertEqual(self.turn(), REQUESTS_A_TURN + 1)
        self.assertIn(b"200 OK", self.clients[-1][1].value())

    def test_pipelined_requests_wait_for_their_turns(self) -> None:
        """One of a connection in a turn, the others' in between, and in order."""
        (greedy, answers), (other, _) = self.clients[:2]
        greedy.dataReceived(ASK * 1000)
        self.assertEqual(self.resource.count, 1)
        other.dataReceived(ASK)
        self.assertEqual([self.turn() for _ in range(3)], [3, 4, 5])
        for _ in range(996):
            self.turn()
        self.assertEqual(self.resource.count, 1001)
        self.assertEqual(answers.value().count(b"200 OK"), 1000)
        self.assertEqual([self.turn() for _ in range(2)], [1001, 1001])

    def test_pipelined_request_is_read_when_the_one_before_it_is_answered(self) -> None:
        """Whether it came with that one or later, in one piece or in many, and with a body."""
        protocol, transport = self.clients[0]
        protocol.dataReceived(POST + b"abcd" + POST[:30])
        self.turn()
        for start in range(30, len(POST)):
            protocol.dataReceived(POST[start : start + 1])
        protocol.dataReceived(b"efgh" + ASK)
        for _ in range(len(POST)):
            self.turn()
        for expected in (1, 2):
            self.assertEqual((self.resource.count, len(self.resource.open)), (expected, 1))
            self.resource.answer()
            self.turn()
        self.turn()
        self.assertEqual(self.resource.count, 3)
        self.assertEqual(transport.value().count(b"200 OK"), 3)

    def test_requests_wait_while_their_answers_are_not_taken(self) -> None:
        """What waits to be sent stays small, however many requests were pipelined."""
        protocol, transport = self.clients[0]
        protocol.dataReceived(ASK * 10)
        protocol.pauseProducing()
        self.assertEqual([self.turn() for _ in range(3)], [1, 1, 1])
        self.assertEqual(transport.producerState, "paused")
        protocol.resumeProducing()
        self.assertEqual([self.turn() for _ in range(2)], [2, 3])

    def test_fault_in_one_connection_keeps_no_other_waiting(self) -> None:
        """It is logged, and that connection ends."""
        self.ask()
        protocol, transport = self.clients[REQUESTS_A_TURN]
        with patch.object(protocol, "lineReceived", side_effect=ValueError("broken")):
            self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(transport.disconnected)
        self.turn()
        self.turn()
        self.assertEqual(self.resource.count, len(self.clients) - 1)

    def test_who_is_given_up_goes_on_with_no_body(self) -> None:
        """Though what takes the body says that it has room again."""
        protocol, _ = self.clients[0]
        protocol.dataReceived(POST)
        protocol.hold_body()
        protocol.abort()
        protocol.release_body()
        self.assertEqual((protocol in protocol.turns._waiting, protocol in protocol.turns._served), (False, False))

    def test_client_addresses_are_answered_in_turn(self) -> None:
        """However many connections one of them has; behind a trusted proxy those count that it names."""
        site = MemorySite(self.resource, parse_networks("192.0.2.99"))
        ask = b"GET /auth HTTP/1.1\r\nHost: relay.example\r\nX-Forwarded-For: %s\r\n\r\n"
        for peer, crowd_says, newcomer_says, newcomers in (
            ("192.0.2.1", b"192.0.2.7", b"192.0.2.7", "192.0.2.2"),
            ("192.0.2.99", b"198.51.100.1", b"198.51.100.1, 198.51.100.2", "192.0.2.99"),
            ("192.0.2.99", b"2001:db8::1", b"2001:db8:0:1::1", "192.0.2.99"),
        ):
            with self.subTest(peer=peer, newcomer_says=newcomer_says):
                crowd = [site.connect(peer) for _ in range(10 * REQUESTS_A_TURN)]
                newcomer, answer = site.connect(newcomers)
                for protocol, _ in crowd:
                    protocol.dataReceived(ask % crowd_says + ASK)
                newcomer.dataReceived(ask % newcomer_says + ASK)
                self.assertEqual(answer.value(), b"")
                for count in (1, 2):
                    one_turn(site.clock)
                    self.assertEqual(answer.value().count(b"200 OK"), count)
                for _ in range(30):
                    one_turn(site.clock)
                self.assertEqual([transport.value().count(b"200 OK") for _, transport in crowd], [2] * len(crowd))

    def test_turn_without_a_crowd_leaves_room_for_the_next(self) -> None:
        """What is counted begins anew in each."""
        for _ in range(3):
            for protocol, _transport in self.clients[:REQUESTS_A_TURN]:
                protocol.dataReceived(ASK)
            before = self.resource.count
            self.assertEqual(self.turn(), before)
        self.assertEqual(self.resource.count, 3 * REQUESTS_A_TURN)


class TimeTests(SynchronousTestCase):
    """How long a connection may take, however slowly it drips."""

    def setUp(self) -> None:
        """Connects a client."""
        self.resource = Counter()
        self.site = MemorySite(self.resource)
        self.protocol, self.transport = self.site.connect()

    def drip(self, data: bytes, seconds: float) -> float:
        """Sends a byte every half second until the connection is closed; returns after how many seconds."""
        for count in range(int(seconds * 2)):
            if self.transport.disconnecting:
                return count / 2
            self.protocol.dataReceived(data[count : count + 1])
            self.site.clock.advance(0.5)
        return seconds

    def test_header_that_drips_ends_after_ten_seconds(self) -> None:
        """With a 408; also a later one of the connection."""
        self.assertEqual(self.drip(ASK[:-1] * 9, 30), HEADER_TIMEOUT_S)
        self.assertIn(b"408 Request Timeout", self.transport.value())
        self.protocol, self.transport = self.site.connect()
        self.protocol.dataReceived(ASK)
        self.site.clock.advance(HEADER_TIMEOUT_S * 2)
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.drip(ASK[:-1] * 9, 30), HEADER_TIMEOUT_S)

    def test_connection_that_says_nothing_ends_after_ten_seconds(self) -> None:
        """There is nothing to answer."""
        self.site.clock.advance(HEADER_TIMEOUT_S)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.value(), b"")

    def test_body_that_drips_ends_after_a_minute(self) -> None:
        """Counted from its header."""
        self.protocol.dataReceived(POST.replace(b"Length: 4", b"Length: 9999"))
        self.assertEqual(self.drip(b"x" * 9999, 200), BODY_TIMEOUT_S)
        self.assertIn(b"408 Request Timeout", self.transport.value())

    def test_answer_that_nobody_takes_ends_after_a_minute(self) -> None:
        """One that is taken now and then goes on."""
        self.protocol.dataReceived(POST + b"abcd")
        for _ in range(5):
            self.protocol.pauseProducing()
            self.site.clock.advance(STALL_TIMEOUT_S - 1)
            self.protocol.resumeProducing()
        self.site.clock.advance(STALL_TIMEOUT_S * 2)
        self.assertFalse(self.transport.disconnected)
        self.protocol.pauseProducing()
        self.site.clock.advance(STALL_TIMEOUT_S)
        self.assertTrue(self.transport.disconnected)

    def test_client_that_does_not_answer_the_close_is_cut_off(self) -> None:
        """A few seconds later, without a word in the log."""
        self.protocol.dataReceived(ASK)
        self.site.clock.advance(IDLE_TIMEOUT_S)
        self.assertTrue(self.transport.disconnecting)
        self.site.clock.advance(ABORT_TIMEOUT_S)
        self.assertTrue(self.transport.disconnected)

    def test_request_under_way_has_no_deadline(self) -> None:
        """A hash may wait for its thread."""
        self.protocol.dataReceived(POST + b"abcd")
        self.site.clock.advance(1000)
        self.resource.answer()
        self.assertIn(b"200 OK", self.transport.value())
        self.assertFalse(self.transport.disconnecting)


class NumberTests(SynchronousTestCase):
    """How many connections there may be."""

    def setUp(self) -> None:
        """Makes a site behind a proxy."""
        self.resource = Counter()
        self.site = MemorySite(self.resource, parse_networks("192.0.2.99"))

    def connect(self, count: int, peer: str = "192.0.2.1") -> list[tuple[Any, StringTransport]]:
        """Connects clients of one address."""
        return [self.site.connect(peer) for _ in range(count)]

    def open_ones(self, clients: list[tuple[Any, StringTransport]]) -> list[bool]:
        """Tells which connections are not closed."""
        return [not transport.disconnecting and not transport.disconnected for _, transport in clients]

    def test_address_keeps_twenty_idle_connections(self) -> None:
        """The longest idle go first; a crowd that has just come has a second to ask; other addresses lose none."""
        clients = self.connect(MAX_IDLE_PER_ADDRESS + 5)
        others = self.connect(3, "192.0.2.2")
        self.assertEqual(self.open_ones(clients), [True] * len(clients))
        for protocol, _ in clients[:2]:
            protocol.dataReceived(POST + b"abcd")
        self.site.clock.advance(IDLE_GRACE_S)
        self.assertEqual(self.open_ones(clients), [True] * 2 + [False] * 3 + [True] * MAX_IDLE_PER_ADDRESS)
        self.resource.answer()
        self.assertEqual(self.open_ones(clients[:6]), [True] * 2 + [False] * 4)
        self.assertEqual(self.open_ones(others), [True] * 3)

    def test_subscriber_s_ipv6_addresses_are_one(self) -> None:
        """A /64 is."""
        clients = [client for number in range(30) for client in self.connect(1, f"2001:db8::{number:x}")]
        self.site.clock.advance(IDLE_GRACE_S)
        self.assertEqual(sum(self.open_ones(clients)), MAX_IDLE_PER_ADDRESS)

    def test_trusted_proxy_keeps_any_number(self) -> None:
        """It speaks for many."""
        clients = self.connect(100, "192.0.2.99")
        self.site.clock.advance(IDLE_GRACE_S)
        self.assertEqual(self.open_ones(clients), [True] * 100)

    def test_newcomer_takes_the_place_of_the_longest_idle(self) -> None:
        """Then of the longest stalled; where all are being answered it is told to come back."""
        self.site.site.connections.max_connections = 3
        clients = [client for number in range(3) for client in self.connect(1, f"192.0.2.{number + 1}")]
        for protocol, _ in clients[:2]:
            protocol.dataReceived(POST + b"abcd")
        clients += self.connect(1, "192.0.2.9")
        self.assertEqual(self.open_ones(clients), [True, True, False, True])
        clients[3][0].dataReceived(POST + b"abcd")
        clients[1][0].pauseProducing()
        clients += self.connect(1, "192.0.2.10")
        self.assertEqual(self.open_ones(clients), [True, False, False, True, True])
        clients[4][0].dataReceived(POST + b"abcd")
        ((_, refused),) = self.connect(1, "192.0.2.11")
        self.assertIn(b"503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2", refused.value())
        self.assertEqual(len(self.site.site.connections), 3)

    def test_address_with_more_than_its_share_makes_room_for_others(self) -> None:
        """Its own newcomers are told to come back; of others none loses its place."""
        connections = self.site.site.connections
        connections.max_connections = 8
        greedy = self.connect(6)
        others = self.connect(2, "192.0.2.2")
        for protocol, _ in greedy:
            protocol.dataReceived(POST + b"abcd")
        ((_, refused),) = self.connect(1)
        self.assertIn(b"503 Service Unavailable", refused.value())
        newcomers = self.connect(1, "192.0.2.3")
        self.assertEqual(self.open_ones(greedy), [False] + [True] * 5)
        greedy[3][0].pauseProducing()
        newcomers += self.connect(1, "192.0.2.4")
        self.assertEqual(self.open_ones(greedy), [False, True, True, False, True, True])
        greedy += self.connect(1, "192.0.2.5")
        self.assertEqual(self.open_ones(greedy), [False, False, True, False, True, True, True])
        self.assertEqual(self.open_ones([*others, *newcomers]), [True] * 4)
        self.assertEqual(len(connections), 8)

    def test_ended_connections_leave_nothing_behind(self) -> None:
        """Neither counts nor timers."""
        for protocol, transport in self.connect(30):
            protocol.dataReceived(ASK)
            transport.connected = False
            protocol.connectionLost()
        self.site.clock.advance(IDLE_GRACE_S)
        connections = self.site.site.connections
        self.assertEqual((len(connections), connections._idle_at, connections._idle_since_s), (0, {}, {}))
        ours = [call for call in self.site.clock.getDelayedCalls() if "LogDateTime" not in str(call)]
        self.assertEqual(ours, [])


class TlsTests(SynchronousTestCase):
    """With the relay's own TLS between the socket and the connection."""

    def test_connection_that_is_lost_is_kept_by_nothing(self) -> None:
        """The garbage collector might not look at a reference cycle any more."""
        folder = Path(self.mktemp())
        folder.mkdir()
        reactor = MemoryReactorClock()
        site = make_site(Counter(), reactor)
        tls: Any = TLSMemoryBIOFactory(ServerTls(*issue().write(folder)), False, site, reactor)
        pipe = Pipe(reactor)
        pipe.protocol = tls.buildProtocol(pipe.getPeer())
        pipe.protocol.makeConnection(pipe)
        there = weakref.ref(pipe.protocol.wrappedProtocol)
        gc.disable()
        self.addCleanup(gc.enable)
        pipe.lose()
        self.assertIsNone(there())
        self.assertEqual(len(site.connections), 0)


class SocketTests(TestCase):
    """With real sockets."""

    async def test_sockets_beyond_the_bounds_are_closed(self) -> None:
        """Two hundred idle ones of one address become twenty; pipelined requests are all answered, in turns."""
        resource = Counter()
        root = Resource()
        root.putChild(b"auth", resource)
        port = REACTOR.listenTCP(0, make_site(root, REACTOR), interface="127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        idle = []
        for _ in range(200):
            client = socket.create_connection(("127.0.0.1", port.getHost().port))
            self.addCleanup(client.close)
            client.setblocking(False)
            idle.append(client)
            await _turn()

        async def open_ones() -> int:
            await deferLater(REACTOR, IDLE_GRACE_S / 2)
            return sum(not _is_closed(client) for client in idle)

        for _ in range(20):
            if await open_ones() == MAX_IDLE_PER_ADDRESS:
                break
        self.assertEqual(await open_ones(), MAX_IDLE_PER_ADDRESS)
        idle[-1].sendall(ASK * 1200)
        received = b""
        while received.count(b"200 OK") < 1200:
            await _turn()
            received += b"" if _is_closed(idle[-1]) else _read(idle[-1])
        self.assertEqual(resource.count, 1200)


def _turn() -> Deferred[None]:
    return deferLater(REACTOR, 0.001, lambda: None)


def _is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def _read(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return b""
