"""A crowd of requests is answered in several turns."""

from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from clasp_relay.http.patient import AT_ONCE
from tests.http.memory_site import MemorySite
from tests.net.helpers import one_turn

ASK = b"GET /auth HTTP/1.1\r\nHost: relay.example\r\n\r\n"


class Counter(Resource):
    """Counts who asked."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def render_GET(self, _request: Request) -> bytes:  # noqa: N802 - Twisted's
        """Answers with a number."""
        self.count += 1
        return b"%d" % self.count


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A site, and more clients than it looks after in two turns."""
        self.resource = Counter()
        self.site = MemorySite(self.resource)
        self.clients: list[tuple[Any, StringTransport]] = [self.site.connect() for _ in range(2 * AT_ONCE + 1)]

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
        self.assertEqual(self.resource.count, AT_ONCE)
        self.assertEqual([self.turn() for _ in range(3)], [2 * AT_ONCE, 2 * AT_ONCE + 1, 2 * AT_ONCE + 1])
        answers = [transport.value().rpartition(b"\r\n")[2] for _, transport in self.clients]
        self.assertEqual(answers, [b"%d" % number for number in range(1, len(self.clients) + 1)])

    def test_nothing_more_is_read_from_who_waits(self) -> None:
        """Until it has had its turn."""
        self.ask()
        states = [transport.producerState for _, transport in self.clients]
        self.assertEqual(states, ["producing"] * AT_ONCE + ["paused"] * (AT_ONCE + 1))
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
        for protocol, transport in self.clients[AT_ONCE : 2 * AT_ONCE]:
            transport.connected = False
            protocol.connectionLost()
        self.assertEqual(self.turn(), AT_ONCE + 1)
        self.assertIn(b"200 OK", self.clients[-1][1].value())

    def test_turn_without_a_crowd_leaves_room_for_the_next(self) -> None:
        """What is counted begins anew in each."""
        for _ in range(3):
            for protocol, _transport in self.clients[:AT_ONCE]:
                protocol.dataReceived(ASK)
            before = self.resource.count
            self.assertEqual(self.turn(), before)
        self.assertEqual(self.resource.count, 3 * AT_ONCE)


class TlsTests(SynchronousTestCase):
    def test_client_that_speaks_tls_is_told_at_once(self) -> None:
        """With an answer in plain HTTP, which it reports as a wrong protocol; a body may begin like that."""
        site = MemorySite(Counter())
        protocol, transport = site.connect()
        protocol.dataReceived(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 400 "))
        self.assertTrue(transport.disconnecting)
        protocol, transport = site.connect()
        protocol.dataReceived(ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"))
        protocol.dataReceived(b"\x16\x03")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "), transport.value())
