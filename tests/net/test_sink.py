"""Tests of ``clasp_relay.net.sink``."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.backlog import Counters
from clasp_relay.net.sink import CLOSED, Sink
from tests.net.helpers import Pipe


class SinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a sink over TCP."""
        self.pipe = Pipe(MemoryReactorClock())
        self.sink = Sink(self.pipe, Counters())

    def test_sink_writes_to_the_socket_at_once(self) -> None:
        """Over plain TCP nothing waits for the reactor's next turn."""
        self.sink.write(b"abc")
        self.assertEqual((bytes(self.pipe.taken), self.pipe._tempDataLen), (b"abc", 0))

    def test_sink_leaves_to_the_transport_what_the_socket_does_not_take(self) -> None:
        """No byte is lost or sent twice, and what comes later stands behind."""
        self.pipe.room_bytes = 2
        self.sink.write(b"abc")
        self.sink.write(b"def")
        self.assertEqual((bytes(self.pipe.taken), self.sink.buffered_bytes), (b"ab", 4))
        self.pipe.drain(1)
        self.assertEqual((bytes(self.pipe.taken), self.sink.buffered_bytes), (b"abc", 3))
        self.pipe.drain()
        self.assertEqual((bytes(self.pipe.taken), self.sink.buffered_bytes), (b"abcdef", 0))

    def test_sink_leaves_a_broken_socket_to_the_reactor(self) -> None:
        """An error of the socket ends the connection as the reactor does it."""
        self.pipe.is_broken = True
        self.sink.write(b"a")
        self.assertTrue(self.pipe.connected)
        self.pipe.drain()
        self.assertFalse(self.pipe.connected)

    def test_sink_does_not_overtake_a_connection_that_is_closing(self) -> None:
        """The transport decides what becomes of bytes after ``loseConnection``."""
        self.pipe.loseConnection()
        self.sink.write(b"a")
        self.assertEqual(self.pipe.writes, 0)

    def test_sink_writes_to_any_transport(self) -> None:
        """Of those that do not tell, the last piece is taken as what they hold."""
        transport = StringTransport()
        sink = Sink(transport, Counters())
        sink.write(b"abc")
        sink.write(b"de")
        self.assertEqual((transport.value(), sink.buffered_bytes), (b"abcde", 2))

    def test_sink_that_is_closed_takes_nothing(self) -> None:
        """Writing to it is harmless."""
        CLOSED.write(b"a")
        self.assertEqual(CLOSED.buffered_bytes, 0)
