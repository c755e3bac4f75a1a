"""What the net layer tells those who watch it, and what it counts."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import CloseCode
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.observer import UnwatchedNet
from clasp_relay.net.websocket import END_TIMEOUT_S
from tests.net.helpers import REQUEST, UPGRADE, Client, Site, client_frame, keep, param


class Witness:
    """Keeps what it is told."""

    def __init__(self, *, traces: bool = False) -> None:
        self.traces = traces
        self.told: list[tuple[object, ...]] = []

    def turned_away(self, address: str, why: str) -> None:
        """Notes it."""
        self.told.append((address, why))

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """Notes it."""
        self.told.append((session, address, waiting_bytes))

    def sent(self, session: str, data: bytes) -> None:
        """Notes it."""
        self.told.append((session, data))


class CauseTests(SynchronousTestCase):
    """Why a session has ended, as the relay is told."""

    def cause(self, client: Client) -> str:
        """Returns why the only session of a client's site has ended."""
        (session,) = client.site.relay.sessions
        self.assertEqual(session.disconnects, 1)
        return session.cause

    def test_relay_is_told_that_the_client_closed(self) -> None:
        """With the code and the reason that it gave."""
        for payload, cause in (
            (b"\x03\xe8", "closed by the client (1000)"),
            (b"\x03\xe9bye", "closed by the client (1001 bye)"),
        ):
            with self.subTest(cause):
                client = Site().open()
                client.send(client_frame(payload, 8))
                client.pipe.lose(clean=True)
                self.assertEqual(self.cause(client), cause)

    def test_relay_is_told_that_the_connection_ended_without_a_word(self) -> None:
        """In order or torn off."""
        for clean, cause in ((True, "the client hung up"), (False, "the connection was lost")):
            with self.subTest(cause):
                client = Site().open()
                client.pipe.lose(clean)
                self.assertEqual(self.cause(client), cause)

    def test_relay_is_told_what_the_client_was_told(self) -> None:
        """The reason of the Close that was sent to it, whatever came afterwards."""
        client = Site().open()
        client.send(client_frame(b"text", 1))
        client.turn()
        client.send(client_frame(b"\x03\xe8", 8))
        client.pipe.lose(clean=True)
        self.assertEqual(self.cause(client), "text messages are no CLASP")
        self.assertEqual(client.site.writer.counters.texts, 1)

    def test_relay_is_told_of_a_breach_of_the_protocol(self) -> None:
        """As Autobahn words it."""
        client = Site().open()
        client.send(b"\x82\x01x")
        client.pipe.lose(clean=True)
        self.assertIn("mask", self.cause(client))

    def test_relay_is_told_of_a_peer_that_takes_nothing(self) -> None:
        """The Close cannot be sent to it."""
        client = Site(NetLimits(outbox_bytes=1 << 20)).open(room_bytes=200)
        outbox = client.site.relay.sessions[0].outbox
        for _ in range(3):
            outbox.send(keep(bytes(100_000)))
            client.turn()
        outbox.close(CloseCode.GOING_AWAY, "going away")
        client.turn(END_TIMEOUT_S)
        client.pipe.lose()
        self.assertEqual(self.cause(client), "given up: it did not take what was sent")


class TurnedAwayTests(SynchronousTestCase):
    """Connections that did not become sessions."""

    def test_observer_is_told_that_the_server_is_full(self) -> None:
        """Of the upgraded connection, with its address."""
        witness = Witness()
        site = Site(NetLimits(max_sessions=1), observer=witness)
        site.open()
        site.connect("192.0.2.7").send(UPGRADE)
        self.assertEqual(witness.told, [("192.0.2.7", "the server is full (1 sessions)")])

    def test_observer_is_told_of_a_foreign_origin(self) -> None:
        """And of the address behind a proxy."""
        witness = Witness()
        site = Site(
            observer=witness,
            allows_origin=lambda _origin, _host: False,
            client_address=lambda _peer, forwarded: forwarded,
        )
        site.connect().send(REQUEST + b"X-Forwarded-For: 198.51.100.4\r\nOrigin: https://evil.example\r\n\r\n")
        self.assertEqual(witness.told, [("198.51.100.4", "a web page of another origin")])

    def test_observer_is_told_of_connections_closed_at_once(self) -> None:
        """Those that are not accepted while there are too many."""
        witness = Witness()
        site = Site(NetLimits(max_sessions=1), observer=witness)
        site.connect()
        site.connect()
        self.assertIsNone(site.factory.buildProtocol(IPv4Address("TCP", "192.0.2.8", 1)))
        self.assertEqual(witness.told, [("192.0.2.8", "too many connections")])
        self.assertEqual(site.writer.counters.turned_away, 1)


class SlowTests(SynchronousTestCase):
    """Sessions that do not keep up."""

    def test_observer_is_told_of_a_session_over_its_bound(self) -> None:
        """And how much waits for it, of which the site knows too."""
        witness = Witness()
        site = Site(NetLimits(outbox_bytes=200_000), observer=witness)
        client = site.open(room_bytes=200)
        outbox = site.relay.sessions[0].outbox
        self.assertEqual(site.factory.waiting_bytes, 0)
        for _ in range(4):
            outbox.send(param("/a", bytes(60_000)))
            client.turn()
        (session, address, waiting_bytes), *_ = witness.told
        self.assertEqual((session, address), ("a session", "192.0.2.1"))
        assert isinstance(waiting_bytes, int)
        self.assertGreater(waiting_bytes, 0)
        self.assertGreater(site.factory.waiting_bytes, 60_000)

    def test_nobody_is_told_of_connections_without_a_session(self) -> None:
        """There is none to name."""
        witness = Witness()
        client = Site(observer=witness).connect()
        client.protocol.slow(1)
        self.assertEqual(witness.told, [])
        self.assertEqual(client.site.factory.waiting_bytes, 0)


class TracedTests(SynchronousTestCase):
    """All that is sent."""

    def test_observer_that_traces_is_told_of_what_is_sent(self) -> None:
        """As WebSocket messages."""
        witness = Witness(traces=True)
        client = Site(observer=witness).open()
        client.site.relay.sessions[0].outbox.send(keep(b"abc"))
        client.turn()
        self.assertEqual(witness.told[-1], ("a session", b"\x82\x03abc"))

    def test_refusal_of_a_connection_is_traced_without_a_session(self) -> None:
        """It has none."""
        witness = Witness(traces=True)
        site = Site(NetLimits(max_sessions=1), observer=witness)
        site.open()
        client = site.connect()
        client.send(UPGRADE)
        client.turn()
        self.assertEqual(witness.told[-1][0], "")

    def test_bytes_are_counted(self) -> None:
        """What came, and the messages that went."""
        client = Site().open()
        counters = client.site.writer.counters
        before = counters.received_bytes, counters.sent_bytes
        client.send(client_frame(b"12345"))
        client.turn()
        self.assertEqual((counters.received_bytes - before[0], counters.sent_bytes - before[1]), (11, 7))


class UnwatchedTests(SynchronousTestCase):
    def test_stand_in_wants_nothing(self) -> None:
        """And takes everything."""
        nobody = UnwatchedNet()
        nobody.turned_away("192.0.2.1", "too many")
        nobody.slow("id", "192.0.2.1", 1)
        nobody.sent("id", b"")
        self.assertFalse(nobody.traces)
