"""Tests of clasp_relay.storage.journal.journal_log: batches, waiting, refusing, and the end of a journal."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from clasp_relay.core.history.rules import Judgement
from clasp_relay.core.records import Change, ChangeKind, encode_change, no_param
from clasp_relay.errors import ErrorCode, JournalLost, RequestError
from clasp_relay.storage.journal.commit_delay import MANY_CHANGES, MAX_DELAY_S, MAX_GROWTH_S
from clasp_relay.storage.journal.journal_file import ENCODED_AT_ONCE, Batch, JournalFile
from clasp_relay.storage.journal.journal_log import MAX_QUEUED_BYTES, JournalLog
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.messages import Publish
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import TIME_US, make_folder

Steps = Generator[Deferred[Any], Any, None]


class BusyReactor:
    """The reactor, of which a test says whether it has more to read than a turn has time for."""

    is_behind = False

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class JournalLogTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        """Makes a log on a file."""
        self.path = make_folder(self) / "journal.db"
        self.done: list[int] = []
        self.waiting: dict[int, list[int]] = {}
        self.begin()

    def begin(self, **options: Any) -> None:
        """Makes a log; closed with the test."""
        self.file = open_journal(self.path, syncs_each_commit=True)
        self.log = JournalLog(reactor, lambda address: address == "/fleeting", _judge, **options)
        self.log.watch(lambda batch: self.done.extend(self.waiting.pop(batch, ())))
        self.log.open(self.file, self.file.last_seq)
        self.addCleanup(self.log.close)

    def append(self, *numbers: int, address: str = "/a") -> None:
        """Appends writes together; the first number is noted when they are recorded."""
        batch = self.log.append([write_of(number, address) for number in numbers])
        (self.waiting.setdefault(batch, []) if batch else self.done).append(numbers[0])

    @inlineCallbacks
    def stored(self) -> Generator[Deferred[Any], Any, list[int]]:
        """Returns the revisions in the file, in order."""
        rows = yield self.log.run(lambda file: [change.param.revision for _, change in file.read(0)])
        return rows  # type: ignore[no-any-return]

    def hold(self) -> threading.Event:
        """Keeps the journal's thread busy until the event is set."""
        event = threading.Event()
        self.addCleanup(event.set)
        self.log.run(lambda _: event.wait(30))
        return event

    @inlineCallbacks
    def test_change_is_told_once_it_is_in_the_file(self) -> Steps:
        """In the order in which they were appended; the seqs are dense."""
        for number in range(1, 6):
            self.append(number)
        self.assertEqual((self.done, self.log.queued), ([], 5))
        yield self.log.recorded()
        self.assertEqual((self.done, self.log.recorded_seq, self.log.queued), ([1, 2, 3, 4, 5], 5, 0))
        self.assertEqual((yield self.stored()), [1, 2, 3, 4, 5])
        yield self.log.recorded()

    @inlineCallbacks
    def test_changes_wait_for_more_where_nobody_waits_for_them(self) -> Steps:
        """As long as the log was told; who asks for the record does not wait, also while a commit is at work."""
        self.log.linger(60)
        self.append(1)
        yield deferLater(reactor, 0.05, lambda: None)
        self.assertEqual((self.log.recorded_seq, self.log.commits), (0, 0))
        event = self.hold()
        first = self.log.recorded()
        yield deferLater(reactor, 0.01, lambda: None)
        self.append(2)
        second = self.log.recorded()
        self.append(3)
        event.set()
        yield first
        yield second
        self.assertEqual((self.log.recorded_seq, self.log.commits), (3, 2))
        self.append(4)
        self.log.linger(0)
        yield deferLater(reactor, 0.05, lambda: None)
        yield self.log.run(lambda _: None)
        self.assertEqual(self.log.recorded_seq, 4)

    @inlineCallbacks
    def test_next_batch_is_what_gathered_during_a_commit(self) -> Steps:
        """Without a timer: one commit, then one for all that came meanwhile."""
        event = self.hold()
        self.append(1)
        yield deferLater(reactor, 0.01, lambda: None)
        for number in range(2, 200):
            self.append(number)
            if number % 50 == 0:
                yield deferLater(reactor, 0, lambda: None)
        event.set()
        yield self.log.recorded()
        self.assertEqual((self.log.commits, self.log.entries), (2, 199))
        self.assertEqual(sum(self.log.commit_counts), 2)
        self.assertEqual(self.done, list(range(1, 200)))

    @inlineCallbacks
    def test_commit_waits_for_a_turn_without_changes(self) -> Steps:
        """What is read in a few turns, one right after the other, is one commit; but not for ever."""
        now_s = [0.0]
        self.log.close()
        self.begin(worked_s=lambda: now_s[0])
        event = threading.Event()
        for turns, changes, turn_s, commits in ((5, 1, 0.0, 1), (5, 1, MAX_GROWTH_S / 2, 2), (3, MANY_CHANGES, 0.0, 2)):
            event.clear()
            self.addCleanup(event.set)
            self.log.run(lambda _: event.wait(30))
            before = self.log.commits
            for _ in range(turns):
                self.append(*range(1, changes + 1))
                yield deferLater(reactor, 0, lambda: None)
                now_s[0] += turn_s
            event.set()
            yield self.log.recorded()
            self.assertEqual((self.log.commits - before, self.log.queued), (commits, 0))

    @inlineCallbacks
    def test_commit_waits_while_there_is_more_to_read(self) -> Steps:
        """What is said at the same moment is one commit, in however many turns it is read; but not for ever."""
        now_s = [0.0]
        self.log.close()
        self.begin(worked_s=lambda: now_s[0])
        busy = self.log._reactor = BusyReactor()
        for takes_long in (False, True):
            busy.is_behind = True
            before = self.log.commits
            for number in range(1, 4):
                self.append(number)
                yield deferLater(reactor, 0.001, lambda: None)
            self.assertEqual(self.log.queued, 3)
            if takes_long:
                now_s[0] += MAX_DELAY_S
            else:
                busy.is_behind = False
            yield self.log.recorded()
            self.assertEqual(self.log.commits - before, 1)

    @inlineCallbacks
    def test_change_that_cannot_be_encoded_ends_the_journal(self) -> Steps:
        """What was appended with it would be half recorded."""
        self.append(1)
        yield self.log.recorded()
        too_long = Change(no_param("/a", "w", "", TIME_US), ChangeKind.EVENT, message=Publish("/" + "a" * 70_000))
        batch = self.log.append((write_of(2), too_long))
        self.waiting.setdefault(batch, []).append(2)
        yield self.assertFailure(self.log.recorded(), JournalLost)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIn("Publish", self.log.lost)
        yield deferLater(reactor, 0.01, lambda: None)
        self.assertEqual((self.done, (yield self.stored())), ([1], [1]))

    @inlineCallbacks
    def test_fleeting_params_wait_for_nothing_and_are_recorded(self) -> Steps:
        """Unless history keeps them."""
        self.append(1, address="/fleeting")
        self.assertEqual(self.done, [1])
        self.append(100, address="/fleeting")
        self.assertEqual(self.done, [1])
        yield self.log.recorded()
        self.assertEqual(self.done, [1, 100])
        self.assertEqual((yield self.stored()), [1, 100])
        keys = yield self.log.run(lambda file: file._db.execute("SELECT key, seq FROM history").fetchall())
        self.assertEqual(keys, [("hundred", 2)])

    @inlineCallbacks
    def test_what_ends_with_a_session_is_not_recorded(self) -> Steps:
        """Nobody waits for it."""
        about = no_param("/a", "w", "", TIME_US)
        self.assertEqual((self.log.append([Change(about, ChangeKind.LOCK_RELEASE)]), self.log.queued), (0, 0))
        yield self.log.recorded()
        self.assertEqual((yield self.stored()), [])

    @inlineCallbacks
    def test_renewals_are_recorded_once_a_minute(self) -> Steps:
        """Or once in a quarter of a shorter life time, counted from the write; without the value."""
        for ttl_s, step_s, address in ((3_600, 60, "/long"), (40, 10, "/short")):
            param = write_of(0, address).param
            for after_s in (step_s - 1, step_s, step_s + 1, 2 * step_s - 1, 2 * step_s):
                due_us = TIME_US + (after_s + ttl_s) * 1_000_000
                renewal = Change(param, ChangeKind.RENEWAL, ttl=ttl_s, due_us=due_us)
                self.log.append((renewal,))
        yield self.log.recorded()
        found = yield self.log.run(lambda file: [change for _, change in file.read(0)])
        expected = []
        for ttl_s, step_s, address in ((3_600, 60, "/long"), (40, 10, "/short")):
            for after_s in (step_s, 2 * step_s):
                now_us = TIME_US + after_s * 1_000_000
                due_us = now_us + ttl_s * 1_000_000
                expected.append(Change(no_param(address, "", "", now_us), ChangeKind.RENEWAL, ttl=ttl_s, due_us=due_us))
        self.assertEqual(found, expected)

    @inlineCallbacks
    def test_too_much_that_waits_is_refused(self) -> Steps:
        """Until the disk has caught up."""
        event = self.hold()
        big = write_of(1)
        big = big._replace(param=big.param._replace(value=bytes(60_000)))
        self.log.check()
        self.log.append([big] * (MAX_QUEUED_BYTES // 60_000 + ENCODED_AT_ONCE))
        self.refused("wait to be recorded")
        event.set()
        yield self.log.recorded()
        self.log.check()

    def refused(self, words: str) -> None:
        """Checks that writes are refused, and why."""
        with self.assertRaisesRegex(RequestError, words) as caught:
            self.log.check()
        self.assertEqual(caught.exception.code, ErrorCode.OVERLOADED)

    @inlineCallbacks
    def test_writes_are_refused_while_the_disk_is_almost_full(self) -> Steps:
        """It is looked at once a second."""
        self.log.close()
        self.begin(min_free_bytes=1)
        self.log.check()
        real = os.statvfs
        full = (*real(self.path.parent)[:4], 0, *real(self.path.parent)[5:])
        self.patch(os, "statvfs", lambda _: os.statvfs_result(full))
        yield self.log.maintain()
        self.refused("almost full")
        self.patch(os, "statvfs", real)
        yield self.log.maintain()
        self.log.check()

    @inlineCallbacks
    def test_failed_commit_ends_the_journal_for_good(self) -> Steps:
        """Nothing of it or behind it is told as recorded; the cause is told once, with the file."""
        for error in (sqlite3.OperationalError("disk I/O error"), OSError(28, "No space left on device")):
            with self.subTest(error=error):
                self.log.close()
                self.begin()
                lost: list[str] = []
                self.log.on_lost = lambda: lost.append(self.log.lost)  # noqa: B023
                attempts: list[object] = []

                def commit(_: JournalFile, batch: Batch) -> None:
                    attempts.append(batch)  # noqa: B023
                    raise error  # noqa: B023

                self.patch(JournalFile, "commit", commit)
                self.append(1)
                waiting = self.log.recorded()
                yield deferLater(reactor, 0, lambda: None)
                self.append(2)
                yield self.assertFailure(waiting, JournalLost)
                self.append(3)
                self.assertEqual((self.done, len(attempts), len(lost)), ([], 1, 1))
                self.assertTrue(lost[0].startswith(f"{self.path}: "), lost)
                self.refused("stopping")
                yield self.assertFailure(self.log.recorded(), JournalLost)
                yield self.log.maintain()

    @inlineCallbacks
    def test_trimming_waits_for_two_generations_of_the_state_file(self) -> Steps:
        """Rows above the older one's always stay."""
        self.append(*range(1, 11))
        yield self.log.recorded()
        for seq, oldest in ((4, 1), (7, 5), (10, 8)):
            self.log.saved(seq)
            yield self.log.maintain()
            yield self.log.maintain()
            self.assertEqual((yield self.stored()), list(range(oldest, 11)))

    @inlineCallbacks
    def test_big_journal_asks_for_a_state_file(self) -> Steps:
        """At half of what it may take, until two generations have everything."""
        self.log.close()
        self.begin(max_bytes=100_000)
        self.assertFalse(self.log.wants_state_saved)
        self.append(*range(1, 2_000))
        yield self.log.recorded()
        yield self.log.maintain()
        self.assertTrue(self.log.wants_state_saved)
        for _ in range(2):
            self.assertTrue(self.log.wants_state_saved)
            self.log.saved(1_999)
        self.assertFalse(self.log.wants_state_saved)

    @inlineCallbacks
    def test_what_others_of_a_cluster_may_lack_stays(self) -> Steps:
        """And the last row that says how far the cluster's log is, however big the journal is."""
        self.append(*range(1, 11))
        self.log.append_judged([(_position(7), None, (), b"")])
        yield self.log.recorded()
        self.log.saved(11)
        self.log.saved(11)
        yield self.log.maintain()
        yield self.log.maintain()
        self.assertEqual(len((yield self.stored())), 11)
        self.log.close()
        self.begin(max_bytes=1)
        self.assertEqual(self.log.last_position(), (11, _position(7)))
        self.log.load_floors(11, 11)
        for _ in range(3):
            yield self.log.maintain()
        self.assertEqual((yield self.stored()), [0])

    @inlineCallbacks
    def test_rows_are_found_for_others_of_a_cluster(self) -> Steps:
        """A batch's row by its number, and all rows from one on, if none is missing."""
        self.assertIsNone(self.log.last_position())
        self.append(1, 2)
        self.log.append_judged([(_position(7), None, (), b""), (write_of(3), None, (), encode_change(write_of(3)))])
        self.log.append_judged([(_position(8), None, (), b"")])
        for number, expected in ((7, _position(7)), (8, _position(8)), (9, None)):
            done: Deferred[Change | None] = Deferred()
            self.log.find_position(number, done.callback)
            self.assertEqual((yield done), expected)
        for seq, last, expected_rows in ((3, 5, [_position(7), write_of(3), _position(8)]), (3, 6, None)):
            rows: Deferred[Any] = Deferred()
            self.log.read_tail(seq, last, rows.callback)
            self.assertEqual((yield rows), expected_rows)

    @inlineCallbacks
    def test_what_is_the_last_of_a_turn_is_committed_within_it(self) -> Steps:
        """Two batches within a turn, so the second one is a commit of its own behind the first; else both are one."""
        for is_last, commits in ((True, 2), (False, 1)):
            before = self.log.commits
            for number in (7, 8):
                self.log.append_judged([(_position(number), None, (), b"")], is_last=is_last)
            yield self.log.recorded()
            self.assertEqual(self.log.commits - before, commits)

    @inlineCallbacks
    def test_a_journal_without_rows_goes_on_behind_those_of_others(self) -> Steps:
        """Their state is in the state file."""
        self.log.restart_at(41)
        self.append(1)
        yield self.log.recorded()
        self.assertEqual(self.log.recorded_seq, 42)
        self.assertEqual((yield self.log.run(lambda file: [each.seq for each in file.read(0)])), [42])

    def test_renewals_are_thinned_by_the_relay_that_decides(self) -> None:
        """Those that follow record all that it has recorded."""
        about = write_of(1).param
        renewal = Change(about, ChangeKind.RENEWAL, ttl=40, due_us=about.timestamp_us + 41_000_000)
        self.assertIsNone(self.log.renewal(renewal))
        later = renewal._replace(due_us=about.timestamp_us + 60_000_000)
        self.assertIsNotNone(self.log.renewal(later))
        self.assertIsNone(self.log.as_recorded(later))
        self.log.records_all = True
        self.assertIsNotNone(self.log.as_recorded(later))


def _position(number: int) -> Change:
    return Change(no_param("", "", "", TIME_US), ChangeKind.POSITION, number=number)


def _judge(change: Change) -> Judgement:
    return "hundred" if change.param.revision == 100 else None, ()
