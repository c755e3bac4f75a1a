"""What a client sends while a packet before it is at work."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.packet_queue import LOOK_S, MAX_WAITING_BYTES, PACKET_BYTES, PacketQueue


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing waits."""
        self.clock = Clock()
        self.waiting = PacketQueue(self.clock)
        self.looks: list[str] = []

    def look(self, name: str) -> None:
        """Looks, and goes on waiting."""
        self.looks.append(name)
        self.waiting.begin(lambda: self.look(name))

    def test_packets_come_out_in_their_order_once_nothing_is_at_work(self) -> None:
        """And none while another one of them is."""
        self.waiting.begin()
        for packet in (b"a", b"b", b"c"):
            self.assertTrue(self.waiting.add(packet, MAX_WAITING_BYTES))
        self.assertIsNone(self.waiting.next())
        self.waiting.end()
        self.assertEqual(self.waiting.next(), b"a")
        self.waiting.begin()
        self.assertIsNone(self.waiting.next())
        self.waiting.add(b"d", MAX_WAITING_BYTES)
        self.waiting.end()
        self.assertEqual([self.waiting.next() for _ in range(4)], [b"b", b"c", b"d", None])

    def test_what_waits_is_bounded(self) -> None:
        """In bytes; a packet that was taken counts no longer."""
        self.waiting.begin()
        most = 2 * (PACKET_BYTES + 1)
        self.assertEqual([self.waiting.add(b"x", most) for _ in range(3)], [True, True, False])
        self.waiting.end()
        self.waiting.next()
        self.assertEqual([self.waiting.add(b"x", most) for _ in range(2)], [True, False])

    def test_client_has_one_timer(self) -> None:
        """However often it begins to wait, and none once it does not."""
        for name in ("first", "second", "third"):
            self.waiting.begin(lambda name=name: self.look(name))  # type: ignore[misc]  # bound now
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([LOOK_S] * 3)
        self.assertEqual(self.looks, ["third"] * 3)
        self.waiting.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_looked_at_once_where_something_has_happened(self) -> None:
        """In the place of the look that was due; without one nothing happens."""
        self.waiting.look_now()
        self.waiting.begin(lambda: self.looks.append("looked"))
        self.waiting.look_now()
        self.waiting.look_now()
        self.clock.advance(1)
        self.assertEqual(self.looks, ["looked"])

    def test_nothing_is_left_of_a_client_that_is_gone(self) -> None:
        """Neither its timer nor its packets."""
        self.waiting.begin(lambda: self.look("x"))
        self.waiting.add(b"a", MAX_WAITING_BYTES)
        self.waiting.stop()
        self.clock.advance(1)
        self.waiting.end()
        self.assertEqual((self.looks, self.waiting.next()), ([], None))
