"""Tests of clasp_relay.storage.journal.upkeep: what operators see of a journal, take out of it, and erase in it."""

from __future__ import annotations

import json
import math
import sqlite3
import struct

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.storage.journal.journal_file import READ_AT_ONCE, DamagedRowError, Entry
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.storage.journal.recovery import recover
from clasp_relay.storage.journal.upkeep import ERASED_AT_ONCE, KeptKey, entries, forget, inspect
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish
from clasp_relay.wire.values import encode_value
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import TIME_US, make_folder

SECOND_US = 1_000_000


class UpkeepCase(SynchronousTestCase):
    """An open journal."""

    def setUp(self) -> None:
        """Makes one without rows."""
        self.path = make_folder(self) / "journal.db"
        self.file = open_journal(self.path, syncs_each_commit=True)
        self.addCleanup(self.file.close)

    def fill(self, count: int) -> None:
        """Writes rows, one a second; history keeps every second one, under one key or another."""
        kept = {0: "1:/b", 2: "0:/a"}
        self.file.write([Entry(seq, write_of(seq), kept.get(seq % 4)) for seq in range(1, count + 1)])


class InspectTests(UpkeepCase):
    def test_facts_are_those_of_the_file(self) -> None:
        """Before and after a part was trimmed."""
        self.fill(9)
        about = no_param("/a", "", "", TIME_US)
        self.file.write([Entry(10, Change(about, ChangeKind.RENEWAL, ttl=60, due_us=TIME_US))])
        facts = inspect(self.file)
        self.assertEqual((facts.rows, facts.first_seq, facts.last_seq, facts.trimmed_seq), (10, 1, 10, 0))
        self.assertEqual((facts.first_us, facts.last_us), (TIME_US + SECOND_US, TIME_US))
        self.assertEqual(facts.kinds, {"write": 9, "renewal": 1})
        expected = tuple(
            KeptKey(key, 2, TIME_US + first * SECOND_US, TIME_US + last * SECOND_US)
            for key, first, last in (("0:/a", 2, 6), ("1:/b", 4, 8))
        )
        self.assertEqual(facts.history, expected)
        self.assertEqual(facts.sizes, self.file.sizes())
        while self.file.trim(7, 1 << 30):
            pass
        facts = inspect(self.file)
        self.assertEqual((facts.rows, facts.first_seq, facts.last_seq, facts.trimmed_seq), (6, 2, 10, 7))

    def test_empty_journal_has_no_rows(self) -> None:
        """And no times."""
        facts = inspect(self.file)
        self.assertEqual((facts.rows, facts.first_seq, facts.last_us, facts.kinds, facts.history), (0, 0, 0, {}, ()))

    def test_damaged_row_is_named(self) -> None:
        """Wherever it is."""
        self.fill(9)
        self.file.ask("UPDATE entries SET body = substr(body, 1, 9) WHERE seq = 5")
        with self.assertRaisesRegex(DamagedRowError, "row 5 is damaged"):
            inspect(self.file)


class EntriesTests(UpkeepCase):
    def test_entries_have_the_keys_that_others_read(self) -> None:
        """SETs with their revision, signals with their kind; what is neither is left out."""
        about = no_param("/e", "session", "", TIME_US)
        samples = struct.pack(">2d", 0.5, 1)
        changes = (
            Change(Param("/a", encode_value({"x": math.nan}), 3, "session", TIME_US, subject="alice")),
            Change(Param("/a", NULL, 4, "", TIME_US)),
            Change(about, ChangeKind.RENEWAL, ttl=60, due_us=TIME_US),
            Change(about, ChangeKind.DUE, number=1),
            Change(about, ChangeKind.EVENT, message=Publish("/e", value=encode_value(1))),
            Change(about, ChangeKind.EVENT, message=Publish("/e", Signal.GESTURE)),
            Change(about, ChangeKind.EVENT, message=Publish("/e", Signal.STREAM, samples=samples)),
        )
        self.file.write([Entry(seq, change) for seq, change in enumerate(changes, 1)])
        found = list(entries(self.file, 0))
        keys = ["seq", "timestamp", "author", "address", "signal_type", "value", "revision", "msg_type"]
        self.assertEqual([list(entry) for entry in found], [keys] * 5)
        self.assertEqual(
            [tuple(entry.values()) for entry in found],
            [
                (1, TIME_US, "alice", "/a", "param", {"x": {"$float": "nan"}}, 3, 33),
                (2, TIME_US, "", "/a", "param", None, 4, 33),
                (5, TIME_US, "session", "/e", "event", 1, None, 32),
                (6, TIME_US, "session", "/e", "gesture", None, None, 32),
                (7, TIME_US, "session", "/e", "stream", [0.5, 1.0], None, 32),
            ],
        )
        json.dumps(found, allow_nan=False)

    def test_entries_come_page_by_page(self) -> None:
        """All of them, or those that history keeps; the file can be trimmed in between."""
        count = 3 * READ_AT_ONCE
        self.fill(count)
        self.assertEqual([entry["seq"] for entry in entries(self.file, 5)], list(range(6, count + 1)))
        found = entries(self.file, 0, history_only=True)
        self.assertEqual(next(found)["seq"], 2)
        forget(self.file, before_seq=count - 3)
        rest = [entry["seq"] for entry in found]
        self.assertEqual(rest[-2:], [count - 2, count])
        self.assertEqual(len(rest), READ_AT_ONCE - 1 + 2)


class ForgetTests(UpkeepCase):
    def left(self) -> tuple[list[int], list[int]]:
        """Returns the rows that are there, and those that history keeps."""
        kept = self.file.ask("SELECT seq FROM history ORDER BY seq")
        return [seq for seq, _ in self.file.read(0)], [seq for (seq,) in kept]

    def test_history_goes_and_what_a_start_needs_stays(self) -> None:
        """By row, and by time."""
        self.fill(12)
        while self.file.trim(5, 1 << 30):
            pass
        self.assertEqual(self.left(), ([2, 4, *range(6, 13)], [2, 4, 6, 8, 10, 12]))
        self.assertEqual(forget(self.file, before_seq=4), 1)
        self.assertEqual(self.left(), ([4, *range(6, 13)], [4, 6, 8, 10, 12]))
        self.assertEqual(forget(self.file, before_us=TIME_US + 8 * SECOND_US), 2)
        self.assertEqual(self.left(), (list(range(6, 13)), [8, 10, 12]))
        self.assertEqual(forget(self.file, before_us=TIME_US + 8 * SECOND_US), 0)
        self.assertEqual(recover(self.file, 5, lambda _: None, has_state=True).last_seq, 12)

    def test_signal_is_erased_at_once(self) -> None:
        """Nothing of it is left in a row that stays for the sake of the order."""
        about = no_param("/a", "session", "", TIME_US)
        message = Publish("/a", value=encode_value("to be forgotten"))
        self.file.write([Entry(1, Change(about, ChangeKind.EVENT, message=message), "0:/a")])
        self.file.write([Entry(2, write_of(2), "0:/a")])
        self.assertEqual(forget(self.file, before_seq=3), 2)
        self.assertEqual([entry["seq"] for entry in entries(self.file, 0)], [2])
        self.file.ask("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assertNotIn(b"to be forgotten", self.path.read_bytes())
        self.assertEqual(recover(self.file, 0, lambda _: None, has_state=False).last_seq, 2)

    def test_much_goes_in_several_transactions(self) -> None:
        """And its room is given back to the file system."""
        count = 4 * ERASED_AT_ONCE + 8
        self.fill(count)
        while self.file.trim(count, 1 << 30):
            pass
        before = self.file.sizes()
        self.assertEqual(forget(self.file, before_seq=count), count // 2 - 1)
        self.assertEqual(self.left(), ([count], [count]))
        self.file.ask("PRAGMA wal_checkpoint(TRUNCATE)")
        after = self.file.sizes()
        self.assertLess(after.used_bytes + after.free_bytes, (before.used_bytes + before.free_bytes) // 4)

    def test_nothing_is_erased_from_a_file_that_is_only_read(self) -> None:
        """The error is SQLite's."""
        self.fill(4)
        self.file.ask("PRAGMA query_only = ON")
        with self.assertRaises(sqlite3.OperationalError):
            forget(self.file, before_seq=4)
        self.assertEqual(self.left(), ([1, 2, 3, 4], [2, 4]))
