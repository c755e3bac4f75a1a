"""Connections at a door are admitted, limited and closed as those of WebSocket, and counted with them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Frame
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.stream import TAKEN_AT_ONCE_BYTES, StreamConnection, StreamFactory
from clasp_relay.errors import CloseCode
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.frames import CODEC
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.reading import MAX_BUSY_STEP_S, SLICE_S
from tests.core.world import one_turn
from tests.doors.site import Site


class Echo(StreamConnection):
    """Says back what it hears; ``hello`` makes it live, ``fault`` is a fault of ours."""

    live = False
    busy = False
    causes: list[str]

    @property
    def is_live(self) -> bool:
        """After its hello."""
        return self.live

    @property
    def is_busy(self) -> bool:
        """When the test says so."""
        return self.busy

    @property
    def session_id(self) -> str:
        """Its name in the log."""
        return "echo"

    def begin(self, outbox: Outbox) -> None:
        """Says so."""
        self.causes = []
        outbox.send(Frame(b"begun"))

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """Says so."""
        outbox.send(Frame(b"away: " + refusal.encode()))

    def take(self, data: bytes) -> None:
        """Says it back."""
        if data == b"fault":
            raise ValueError(data)
        self.live = self.live or data == b"hello"
        assert self.outbox is not None
        self.outbox.send(Frame(data))

    def late(self, outbox: Outbox, reason: str) -> None:
        """Says so."""
        outbox.send(Frame(b"late: " + reason.encode()))

    def gone(self, cause: str) -> None:
        """Notes it."""
        self.causes = [*getattr(self, "causes", ()), cause]

    def look_after(self, silent_s: float) -> None:
        """Closes after a minute."""
        if silent_s >= 60:
            self.close(CloseCode.POLICY_VIOLATION, "silent")


class StreamTests(SynchronousTestCase):
    def site(self, **limits: Any) -> Site:
        """Returns a relay, with a door in ``self.factory``."""
        site = Site(NetLimits(**limits))
        self.counts = DoorCounts("echo")
        self.factory = StreamFactory(site.gate, self.counts, lambda: Echo(site.gate, self.counts, CODEC))
        return site

    def test_client_is_counted_with_the_others(self) -> None:
        """As a connection and a session of its address, and no longer once it is gone."""
        site = self.site()
        client = site.connect(self.factory)
        self.assertEqual((len(site.gate.connections), site.gate.sessions, self.counts.clients), (1, 1, 1))
        client.send(b"hello")
        self.assertEqual(client.heard(), b"begunhello")
        self.assertEqual(client.pipe.options, ["nodelay True", "keepalive True"])
        client.pipe.lose(clean=True)
        self.assertEqual(client.protocol.causes, ["the client hung up"])
        self.assertEqual((len(site.gate.connections), site.gate.sessions, self.counts.clients), (0, 0, 0))

    def test_one_client_too_many_is_told(self) -> None:
        """Whichever door the others came through; further ones are not accepted at all."""
        site = self.site(max_sessions=1)
        site.clasp()
        client = site.connect(self.factory)
        self.assertEqual(client.heard(), b"away: the server is full (1 sessions)")
        self.assertTrue(client.is_closed)
        self.assertEqual(self.counts.refused, 1)
        site.gate.stop_accepting()
        self.assertIsNone(self.factory.buildProtocol(None))
        self.assertEqual(self.counts.refused, 2)
        self.assertEqual(len(site.observer.turned), 2)

    def test_client_that_says_nothing_is_ended(self) -> None:
        """After the time that a HELLO has."""
        site = self.site(hello_timeout_s=10)
        quiet, awake = site.connect(self.factory), site.connect(self.factory)
        awake.send(b"hello")
        site.turn(10)
        self.assertEqual(quiet.heard(), b"begunlate: nothing said who the client is within 10 s")
        self.assertTrue(quiet.is_closed)
        self.assertFalse(awake.is_closed)

    def test_client_that_says_nothing_and_reads_nothing_is_dropped(self) -> None:
        """There is no use in telling it."""
        site = self.site(hello_timeout_s=10)
        client = site.connect(self.factory, room_bytes=2)
        site.turn(10)
        self.assertIn("reset", client.pipe.options)

    def test_silence_is_measured(self) -> None:
        """From the last byte on."""
        site = self.site(hello_timeout_s=1000)
        quiet, awake = site.connect(self.factory), site.connect(self.factory)
        for _ in range(4):
            site.turn(30)
            awake.send(b"x")
        self.assertTrue(quiet.is_closed)
        self.assertFalse(awake.is_closed)

    def test_much_that_comes_at_once_is_taken_in_turns(self) -> None:
        """Each as long as a slice, which begins behind the first piece; meanwhile nothing is read from there."""
        site = self.site()
        client = site.connect(self.factory)
        taken: list[bytes] = []

        def slowly(data: bytes) -> None:
            taken.append(data)
            site.reactor.rightNow += SLICE_S

        client.protocol.take = slowly
        pieces = [bytes((number,)) * TAKEN_AT_ONCE_BYTES for number in b"abc"]
        client.protocol.dataReceived(b"".join(pieces))
        client.protocol.dataReceived(b"end")
        self.assertEqual(taken, pieces[:2])
        self.assertNotIn(client.pipe, site.reactor.readers)
        for _ in range(3):
            one_turn(site.reactor)
        self.assertEqual(taken, [*pieces, b"end"])
        self.assertIn(client.pipe, site.reactor.readers)

    def test_nothing_is_taken_while_a_message_is_at_work(self) -> None:
        """Nor once the connection is gone."""
        site = self.site()
        client, gone = site.connect(self.factory), site.connect(self.factory)
        for each in (client, gone):
            each.protocol.busy = True
            each.protocol.dataReceived(b"later")
        gone.pipe.lose()
        for _ in range(3):
            one_turn(site.reactor)
        client.pipe.drain(0)
        self.assertEqual(bytes(client.pipe.taken), b"begun")
        client.protocol.busy = gone.protocol.busy = False
        site.reactor.advance(MAX_BUSY_STEP_S)
        self.assertEqual((client.heard(), gone.heard()), (b"begunlater", b""))

    def test_fault_of_ours_ends_that_connection_only(self) -> None:
        """With a line in the log."""
        site = self.site()
        broken, other = site.connect(self.factory), site.connect(self.factory)
        broken.send(b"fault")
        self.assertTrue(broken.is_closed)
        other.send(b"fine")
        self.assertEqual(other.heard(), b"begunfine")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_stop_closes_every_connection(self) -> None:
        """Behind what was sent; what does not take it is aborted in the end."""
        site = self.site()
        client, slow = site.connect(self.factory), site.connect(self.factory, room_bytes=2)
        aborted = site.gate.close_all(timeout_s=5)
        site.turn(1)
        self.assertEqual(client.heard(), b"begun")
        self.assertTrue(client.is_closed)
        self.assertGreater(slow.protocol.waiting_bytes, 0)
        for _ in range(3):
            site.turn(5)
        self.assertEqual(self.successResultOf(aborted), 1)

    def test_all_that_is_sent_is_traced_where_that_is_asked_for(self) -> None:
        """With the session's name."""
        site = self.site()
        site.observer.traces = True
        client = site.connect(self.factory)
        client.send(b"x")
        self.assertEqual(b"".join(site.observer.traced), b"begunx")

    def test_traced_connection_that_has_ended_is_kept_by_nothing(self) -> None:
        """Nor by a reference cycle, which the garbage collector might not look at any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        site = self.site()
        site.observer.traces = True
        client = site.connect(self.factory)
        there = weakref.ref(client.protocol)
        client.pipe.lose()
        site.turn()
        del client
        self.assertEqual(self.counts.clients, 0)
        self.assertIsNone(there())
