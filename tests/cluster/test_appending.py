"""What is decided gets into the log once, and leaves the decider when log and journal have it."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

from twisted.logger import capturedLogs

from clasp_relay.cluster.exchange.batches import Batch, Ended, Group, decode_batch
from clasp_relay.cluster.exchange.ports import Appended
from clasp_relay.cluster.membership import Role
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Bundle, Get, Ping, Publish, Subscribe
from tests.cluster.world import ThreeRelays, TwoRelays, put
from tests.core.world import codes, heard, revisions, value


class AppendingTests(TwoRelays):
    """While all is well."""

    def test_bundles_are_whole(self) -> None:
        """All members are in one batch, also of a long one, with its answer."""
        watcher, writer = self.decider.join(), self.follower.join()
        watcher.ask(Subscribe(1, "/b/**"))
        before = len(self.cluster.bus.log)
        members = tuple(put(f"/b/{number}", number) for number in range(100))
        answer = writer.ask(Bundle((*members, Publish("/b/done", Signal.EVENT, value=value(True)))), 1)
        self.cluster.advance(0.5)
        self.assertEqual(revisions(answer + writer.hear()), [1])
        self.assertEqual(len(self.cluster.bus.log) - before, 1)
        self.assertEqual(
            heard(watcher.hear()), [(f"/b/{number}", number) for number in range(100)] + [("/b/done", True)]
        )

    def test_what_the_log_does_not_take_keeps_nobody_from_writing(self) -> None:
        """Its sender is told; everybody else's writes are decided again."""
        writer, other = self.follower.join(), self.decider.join()
        writer.ask(put("/before", 1), 1)
        self.decider.engine.max_bytes = self.follower.engine.max_bytes = 5_000
        with capturedLogs() as logs:
            writer.send(put("/long", "x" * 6_000), 1)
            other.send(put("/short", 1), 1)
            self.cluster.advance(8)
        self.assertEqual(codes(writer.hear()), [ErrorCode.OVERLOADED])
        self.assertEqual(revisions(other.hear()), [1])
        self.assertIn("cluster.too_long", [each["event"] for each in logs])
        self.assertEqual(revisions(writer.ask(put("/short", 2), 1)), [2])
        self.assertEqual(heard(other.ask(Get("/long"))), [("/long", None)])
        self.assertEqual((writer.outbox.closed, other.outbox.closed), (None, None))

    def test_nothing_leaves_before_the_deciders_journal_has_it(self) -> None:
        """Neither an ACK nor the value."""
        watcher, writer = self.decider.join(), self.follower.join()
        watcher.ask(Subscribe(1, "/a"))
        writer.ask(Ping())
        self.decider.journal.is_slow = True
        self.assertEqual(writer.ask(put("/a", 1), 1), [])
        self.assertEqual(watcher.hear(), [])
        self.decider.journal.is_slow = False
        self.decider.journal.sync()
        self.cluster.turn()
        self.assertEqual(revisions(writer.hear()), [1])
        self.assertEqual(heard(watcher.hear()), [("/a", 1)])

    def test_what_this_relays_sessions_ask_is_appended_when_it_is_decided(self) -> None:
        """All of a turn has been gathered by then. Packets of others may be followed by more in the same turn."""
        appended: list[int] = []
        for writer in (self.decider.join(), self.follower.join()):
            self.cluster.turn()
            before = len(self.cluster.bus.log)
            for number in range(3):
                writer.send(put("/n/one", number))
            writer.member.following.requests.flush()
            appended.append(len(self.cluster.bus.log) - before)
            self.cluster.turn()
            self.assertEqual(len(self.cluster.bus.log) - before, 1)
        self.assertEqual(appended, [1, 0])

    def test_what_is_decided_while_a_batch_is_on_its_way_is_one_batch(self) -> None:
        """However many turns it takes; each sender's messages stay in order."""
        watcher, writer = self.follower.join(), self.decider.join()
        watcher.ask(Subscribe(1, "/n/**"))
        appends: list[Callable[[], None]] = []
        append = self.decider.engine.append

        def append_later(payload: bytes, expected: int, done: Callable[[Appended], None]) -> None:
            appends.append(lambda: append(payload, expected, done))

        self.decider.engine.append = append_later  # type: ignore[method-assign]
        for number in range(20):
            writer.ask(put("/n/one", number), 1)
        self.assertEqual(len(appends), 1)
        before = len(self.cluster.bus.log)
        for _ in range(2):
            appends.pop()()
            self.cluster.turn()
        self.assertEqual((len(appends), len(self.cluster.bus.log) - before), (0, 2))
        self.assertEqual(heard(watcher.hear()), [("/n/one", number) for number in range(20)])

    def test_what_is_decided_while_the_journal_is_at_work_is_one_batch(self) -> None:
        """It would leave no earlier on its own; a batch that is full does not wait."""
        watcher, writer = self.follower.join(), self.decider.join()
        watcher.ask(Subscribe(1, "/n/**"))
        before = len(self.cluster.bus.log)
        self.decider.journal.is_slow = True
        for number in range(20):
            writer.ask(put("/n/one", number), 1)
        self.assertEqual(len(self.cluster.bus.log) - before, 1)
        self.decider.journal.hang(False)
        self.cluster.turn()
        self.assertEqual(len(self.cluster.bus.log) - before, 2)
        self.assertEqual(heard(watcher.hear()), [("/n/one", number) for number in range(20)])
        before = len(self.cluster.bus.log)
        self.decider.journal.is_slow = True
        for number in range(4):
            writer.ask(put(f"/n/long/{number}", str(number) * 50_000), 1)
        self.assertEqual(len(self.cluster.bus.log) - before, 2)
        self.decider.journal.hang(False)
        self.cluster.turn()
        self.assertEqual(
            [address for address, _ in heard(watcher.hear())], [f"/n/long/{number}" for number in range(4)]
        )
        self.assertEqual(revisions(writer.hear())[-4:], [1] * 4)

    def batches(self, before: int) -> list[Batch]:
        """Returns the batches behind one of the log."""
        return [decode_batch(payload) for payload in self.cluster.bus.log[before:]]

    def assert_short(self, batches: list[Batch], count: int) -> None:
        """Asserts that as many changes and other items are in batches that a relay applies in a short turn."""
        counts = [sum(len(i.changes) if isinstance(i, Group) else 1 for i in batch.items) for batch in batches]
        self.assertGreaterEqual(sum(counts), count)
        self.assertLess(max(counts), 500)

    def test_what_ends_by_itself_while_the_journal_is_at_work_is_in_several_batches(self) -> None:
        """Nobody asks for it, so nobody is refused; one batch of all of it may be longer than NATS carries."""
        writer = self.follower.join()
        for number in range(2_000):
            writer.send(put(f"/t/{number}", number, ttl=1))
        self.cluster.turn()
        before = len(self.cluster.bus.log)
        self.decider.journal.is_slow = True
        self.cluster.advance(2.5)
        self.decider.journal.hang(False)
        self.cluster.advance(1)
        self.assert_short(self.batches(before), 2_000)
        self.assertEqual(len(self.follower.relay.params), 0)

    def test_sessions_that_begin_while_a_batch_is_on_its_way_are_in_several_batches(self) -> None:
        """All clients of a relay that was lost may come to another one in one moment."""
        before = len(self.cluster.bus.log)
        self.decider.journal.is_slow = True
        for _ in range(1_000):
            self.decider.join()
        self.cluster.turn()
        self.decider.journal.hang(False)
        self.cluster.turn()
        self.assert_short(self.batches(before), 1_000)

    def test_the_wills_of_a_relay_that_is_gone_are_in_several_batches(self) -> None:
        """Each is told once, also where the decider is lost between two of them."""
        watcher = self.decider.join()
        watcher.ask(Subscribe(1, "/will/**"))
        for number in range(1_000):
            client = self.follower.join()
            will = Publish(f"/will/{number}", Signal.EVENT, value=value(number))
            self.follower.following.leave(client.session, will)
        self.cluster.turn()
        before = len(self.cluster.bus.log)
        self.follower.kill()
        self.cluster.advance(5)
        batches = self.batches(before)
        self.assert_short(batches, 1_000)
        for batch in batches:
            told = sum(isinstance(item, Group) for item in batch.items)
            self.assertEqual(sum(isinstance(item, Ended) for item in batch.items), told)
        self.assertEqual([number for _, number in heard(watcher.hear())], list(range(1_000)))

    def test_a_fault_in_what_is_decided_stops_no_later_batch(self) -> None:
        """Whatever it is, others' writes are appended."""
        own, other = self.decider.join(), self.follower.join()
        self.cluster.turn()
        deciding = self.decider.node._appending.deciding
        assert deciding is not None
        with mock.patch.object(deciding, "receive", side_effect=ZeroDivisionError):
            own.send(put("/a", 1))
            self.assertRaises(ZeroDivisionError, self.decider.following.requests.flush)
        self.assertEqual(revisions(other.ask(put("/b", 1), 1)), [1])

    def test_a_relay_that_hands_over_does_not_wait_for_its_journal(self) -> None:
        """What it has decided is in the log, and the next one reads it there."""
        writer = self.follower.join()
        self.decider.journal.is_slow = True
        for number in range(3):
            writer.ask(put("/a", number), 1)
        self.assertTrue(self.decider.node.hand_over())
        self.cluster.advance(4)
        self.assertIs(self.cluster.decider, self.follower)
        self.assertEqual(revisions(writer.hear()), [1, 2, 3])
        self.assertEqual(heard(writer.ask(Get("/a"))), [("/a", 2)])


class HardTimesTests(ThreeRelays):
    """While the engine, the log or a disk is not well."""

    def test_what_is_sent_again_while_the_deciders_disk_hangs_is_done_once(self) -> None:
        """By the decider that has taken it, and by the one after it, which reads of it in the log."""
        writer = self.first.join()
        writer.ask(Ping())
        self.decider.journal.hang(True)
        writer.send(put("/a", 1), 1)
        writer.send(put("/b", 1), 1)
        self.cluster.advance(3)
        self.assertEqual(writer.hear(), [])
        self.decider.journal.hang(False)
        self.cluster.turn()
        self.assertEqual(revisions(writer.hear()), [1, 1])
        self.decider.journal.hang(True)
        writer.send(put("/a", 2), 1)
        self.cluster.advance(2)
        self.decider.kill()
        self.cluster.advance(4)
        self.assertEqual(revisions(writer.hear()), [2])
        self.assertEqual(revisions(writer.ask(put("/a", 3), 1)), [3])

    def test_an_append_whose_answer_is_lost_happened_once(self) -> None:
        """The decider looks whether the log has it."""
        writer = self.first.join()
        writer.ask(Ping())
        self.decider.engine.loses_answers = True
        writer.send(put("/a", 1), 1)
        self.cluster.turn()
        self.decider.engine.loses_answers = False
        self.cluster.advance(1)
        self.assertEqual(revisions(writer.hear()), [1])
        self.assertIs(self.cluster.decider, self.decider)

    def test_a_decider_that_was_away_steps_down(self) -> None:
        """What it decided alone was never seen; its clients' writes are done by the next one."""
        mine = self.decider.join()
        mine.ask(put("/a", 0), 1)
        self.decider.engine.is_paused = True
        mine.send(put("/a", 1), 1)
        self.cluster.advance(3)
        self.assertEqual(revisions(mine.hear()), [])
        other = self.first.join()
        self.assertEqual(revisions(other.ask(put("/a", 7), 1)), [2])
        self.decider.engine.is_paused = False
        self.cluster.advance(1)
        self.assertIs(self.decider.node.role, Role.FOLLOWER)
        self.cluster.advance(1)
        self.assertEqual(revisions(mine.hear()), [3])
        self.assertEqual(self.decider.relay.params.image(), self.first.relay.params.image())

    def test_a_log_that_loses_its_end_gets_it_again(self) -> None:
        """With an alarm; nobody's state changes."""
        writer = self.first.join()
        writer.ask(put("/a", 1), 1)
        writer.ask(put("/a", 2), 1)
        whole = list(self.cluster.bus.log)
        del self.cluster.bus.log[-2:]
        self.assertEqual(revisions(writer.ask(put("/a", 3), 1)), [3])
        self.assertEqual(self.cluster.bus.log[: len(whole)], whole)
        self.assertEqual(self.decider.node.alarms, 1)

    def test_a_log_that_loses_what_no_memory_has_is_begun_anew(self) -> None:
        """From the journals, as after a start; sessions end, and nothing that was acknowledged is missing."""
        writer = self.first.join()
        self.assertEqual(revisions(writer.ask(put("/a", 1), 1)), [1])
        self.cluster.bus.log.clear()
        for member in self.cluster.members:
            member.node._applying.ring.clear()
        writer.send(put("/a", 2), 1)
        self.cluster.advance(15)
        self.assertIsNotNone(writer.outbox.closed)
        self.assertEqual([member.fatal for member in self.cluster.members], [[], [], []])
        decider = self.cluster.decider
        assert decider is not None
        self.assertEqual(len(self.cluster.followers), 2)
        (revision,) = revisions(self.second.join().ask(put("/a", 3), 1))
        self.assertIn(revision, (2, 3))
        for member in self.cluster.followers:
            self.assertIs(member.node.role, Role.FOLLOWER)
            self.assertEqual(member.relay.params.image(), decider.relay.params.image())
            self.assertEqual(member.journal.appended_seq, decider.journal.appended_seq)


class HandOverTests(ThreeRelays):
    """A decider that wants to be none."""

    def test_hand_over_is_quick_and_loses_nothing(self) -> None:
        """The next decider does not wait for silence."""
        writer = self.first.join()
        writer.ask(put("/a", 1), 1)
        self.assertTrue(self.decider.node.hand_over())
        writer.send(put("/a", 2), 1)
        self.cluster.advance(1)
        self.assertEqual(revisions(writer.hear()), [2])
        self.assertIsNot(self.cluster.decider, self.decider)
        self.assertEqual(self.decider.relay.params.image(), self.first.relay.params.image())

    def test_stop_hands_over(self) -> None:
        """What the decider has taken is in the log when it ends."""
        writer = self.first.join()
        writer.ask(put("/a", 1), 1)
        ended: list[bool] = []
        self.decider.node.stop(lambda: ended.append(True))
        self.cluster.advance(1)
        self.assertEqual(ended, [True])
        self.decider.is_dead = True
        self.assertEqual(revisions(writer.ask(put("/a", 2), 1)), [2])
