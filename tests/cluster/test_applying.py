"""Followers apply the log whole and in order, whatever the bus loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.applying import TURN_S, Ring
from clasp_relay.wire.messages import Bundle, Ping, Subscribe
from tests.cluster.world import TwoRelays, put
from tests.core.world import heard


class ApplyingTests(TwoRelays):
    """What a follower has."""

    def test_what_is_lost_on_the_bus_is_read_from_the_log(self) -> None:
        """A follower that misses batches has them a moment later, in order."""
        watcher, writer = self.follower.join(), self.decider.join()
        watcher.ask(Subscribe(1, "/a"))
        writer.send(put("/a", 1), 1)
        self.cluster.bus.lost = 1
        self.cluster.turn()
        self.cluster.advance(1)
        self.assertEqual(heard(watcher.hear()), [("/a", 1)])

    def test_journals_are_the_same(self) -> None:
        """A position is valid on every relay."""
        writer = self.follower.join()
        writer.ask(put("/a", 1), 1)
        writer.ask(Bundle((put("/b", 1), put("/c", 2))), 1)
        self.cluster.turn()
        ours = [(row.kind, row.param.address, row.number) for row in self.follower.journal.rows]
        theirs = [(row.kind, row.param.address, row.number) for row in self.decider.journal.rows]
        self.assertEqual(ours[-3:], theirs[-3:])
        self.assertEqual(self.follower.journal.appended_seq, self.decider.journal.appended_seq)

    def test_batches_that_come_over_the_bus_while_the_log_is_read_are_applied_once(self) -> None:
        """What the log then gives begins before them."""
        watcher, writer = self.follower.join(), self.decider.join()
        watcher.ask(Subscribe(1, "/a"))
        reads: list[Callable[[], None]] = []
        read = self.follower.engine.read

        def read_later(seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
            reads.append(lambda: read(seq, at_most, done))

        self.follower.engine.read = read_later  # type: ignore[method-assign]
        self.cluster.bus.lost = 1
        writer.ask(put("/a", 1), 1)
        lost = self.cluster.bus.log[-1]
        writer.ask(put("/a", 2), 1)
        self.assertEqual(len(reads), 1)
        # It was not lost, it was late; the third one is lost.
        late = len(self.cluster.bus.log) - 1
        self.follower.engine.receive("test.live", late.to_bytes(8, "big") + lost)
        self.cluster.bus.lost = 1
        writer.ask(put("/a", 3), 1)
        writer.ask(put("/a", 4), 1)
        reads.pop()()
        writer.ask(put("/a", 5), 1)
        self.assertEqual(self.follower.fatal, [])
        self.assertEqual(heard(watcher.hear()), [("/a", number) for number in range(1, 6)])

    def test_what_is_read_from_the_log_is_applied_in_short_turns(self) -> None:
        """What comes over the bus between them is applied once, too."""
        watcher, writer = self.follower.join(), self.decider.join()
        watcher.ask(Subscribe(1, "/a"))
        writer.ask(Ping())
        membership, ledger, log = self.follower.node.membership, self.follower.ledger, self.cluster.bus.log
        now_s = self.cluster.clock.seconds()
        turns: list[int] = []
        call_later = membership.call_later

        def later(delay_s: float, call: Callable[[], None]) -> object:
            turns.append(ledger.seq)
            if len(turns) == 3:
                self.follower.engine.receive("test.live", (ledger.seq + 1).to_bytes(8, "big") + log[ledger.seq])
            return call_later(delay_s, call)

        def long_since() -> float:
            nonlocal now_s
            now_s += TURN_S
            return now_s

        self.patch(membership, "call_later", later)
        self.patch(membership, "monotonic_s", long_since)
        before = ledger.seq
        self.cluster.bus.lost = 9
        for number in range(1, 11):
            writer.ask(put("/a", number), 1)
        self.assertEqual(heard(watcher.hear()), [("/a", number) for number in range(1, 11)])
        self.assertEqual(turns, [before + number for number in (1, 2, 3, 5, 6, 7, 8, 9)])
        self.assertEqual((ledger.seq, self.follower.fatal), (before + 10, []))


class RingTests(SynchronousTestCase):
    """The last batches."""

    def test_it_keeps_the_last_ones(self) -> None:
        """As many as have room."""
        ring = Ring()
        for seq in range(1, 20):
            ring.add(seq, bytes(1024 * 1024))
        self.assertIsNone(ring.get(3))
        self.assertEqual([ring.get(seq) is not None for seq in (4, 19)], [True, True])
        ring.clear()
        self.assertIsNone(ring.get(19))
