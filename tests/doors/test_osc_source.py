"""The pace at which an OSC client is sent things."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Frame, Kind
from clasp_relay.doors import osc_source
from clasp_relay.doors.osc_source import RESYNC_PACKETS, OscOutbox, SenderAwareCodec
from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import SnapshotParam
from clasp_relay.wire.values import encode_value


class OscOutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        """An outbox with 10 values a second."""
        self.clock = Clock()
        self.sent: list[bytes] = []
        self.outbox = OscOutbox(self.clock, self.sent.append, 0.1)

    def value(self, data: bytes, address: str = "/a") -> None:
        """Delivers a value."""
        self.outbox.deliver(Frame(data, Kind.PARAM, address))

    def run_for(self, seconds: float) -> None:
        """Lets time pass."""
        for _ in range(int(seconds * 100)):
            self.clock.advance(0.01)

    def test_first_and_last_value_of_an_address_arrive(self) -> None:
        """And no more than the rate in between, in order."""
        for number in range(100):
            self.value(b"%03d" % number)
            self.clock.advance(0.01)
        self.run_for(0.5)
        self.assertEqual((self.sent[0], self.sent[-1]), (b"000", b"099"))
        self.assertEqual(self.sent, sorted(self.sent))
        self.assertIn(len(self.sent), (10, 11))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_addresses_that_move_together_have_nearly_their_rate_each(self) -> None:
        """Whichever of them has its turn."""
        for number in range(100):
            for address in "abcdefghij":
                self.value(b"%s%03d" % (address.encode(), number), f"/{address}")
                self.clock.advance(0.001)
        self.run_for(0.5)
        for address in "abcdefghij":
            sent = [each for each in self.sent if each.startswith(address.encode())]
            self.assertIn(len(sent), (9, 10, 11))
            self.assertEqual(sent[-1][1:], b"099")

    def test_addresses_do_not_wait_for_each_other(self) -> None:
        """The rate is that of each."""
        self.value(b"1", "/a")
        self.value(b"2", "/b")
        self.assertEqual(self.sent, [b"1", b"2"])

    def test_events_do_not_wait(self) -> None:
        """Each counts."""
        for _ in range(3):
            self.outbox.send(Frame(b"e", Kind.KEEP, "/a"))
        self.assertEqual(self.sent, [b"e"] * 3)

    def test_what_waits_is_bounded(self) -> None:
        """The value that waits longest goes."""
        self.patch(osc_source, "MAX_HELD", 2)
        for number in range(3):
            self.value(b"first", f"/{number}")
            self.value(b"%d" % number, f"/{number}")
        self.run_for(0.5)
        self.assertEqual(self.sent.count(b"first"), 3)
        self.assertEqual(len(self.sent), 5)

    def test_snapshot_is_sent_to_who_asked_for_it(self) -> None:
        """500 a second; of a client that did not ask it is given up at once."""
        ended: list[str] = []

        def frames(name: str) -> Iterator[bytes]:
            try:
                for number in range(25):
                    yield b"%d" % number
                    yield b""
            finally:
                ended.append(name)

        unasked = frames("unasked")
        next(unasked)
        self.outbox.send_snapshot(1, unasked)
        self.assertEqual((self.sent, ended), ([], ["unasked"]))
        self.outbox.takes_snapshots = True
        self.outbox.send_snapshot(1, frames("asked"))
        self.assertEqual(len(self.sent), RESYNC_PACKETS // 2)
        self.run_for(0.2)
        self.assertEqual(self.sent, [b"%d" % number for number in range(25)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_older_value_does_not_follow_a_newer_one(self) -> None:
        """What changes during a resync overtakes it."""
        codec = SenderAwareCodec("")
        params = [SnapshotParam(f"/{number}", encode_value("old"), 1) for number in range(30)]
        self.outbox.takes_snapshots = True
        self.outbox.send_snapshot(1, codec.snapshot(params))
        self.value(codec.set("/29", encode_value("new"), 2, False, False, None), "/29")
        self.run_for(0.5)
        self.assertEqual([b"new" in packet for packet in self.sent if packet.startswith(b"/29")], [True])
        self.assertEqual(len(self.sent), 30)

    def test_client_does_not_get_what_it_sent(self) -> None:
        """The codec notes who the sender was."""
        codec = SenderAwareCodec("")
        codec.sender = self.outbox
        self.value(codec.set("/a", encode_value(1), 1, False, False, None))
        codec.sender = None
        self.assertEqual(self.sent, [])
        self.value(codec.set("/a", encode_value(2), 2, False, False, None))
        self.assertEqual(len(self.sent), 1)

    def test_nothing_is_sent_after_the_end(self) -> None:
        """Nor is anything that waited."""
        self.value(b"1")
        self.value(b"2")
        self.outbox.takes_snapshots = True
        self.outbox.send_snapshot(1, iter([b"s"] * 50))
        sent = len(self.sent)
        self.outbox.close(CloseCode.POLICY_VIOLATION, "revoked")
        self.outbox.abort()
        self.value(b"3")
        self.outbox.send_snapshot(2, iter([b"s"]))
        self.run_for(1)
        self.assertEqual((len(self.sent), self.outbox.closed), (sent, "revoked"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
