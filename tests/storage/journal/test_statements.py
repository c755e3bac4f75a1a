"""Tests of clasp_relay.storage.journal.statements: few statements, whatever the number of rows."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.rules import Limits
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.storage.journal.statements import (
    CACHED_STATEMENTS,
    MANY_ROWS,
    ROWS_AT_ONCE,
    inserts,
    rows_at_once,
)
from clasp_relay.wire.messages import Publish
from tests.storage.values import TIME_US, make_folder

COUNTS = (0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, *MANY_ROWS, 255, 300, 1_023, 2_500)


class StatementTests(SynchronousTestCase):
    def test_rows_are_cut_into_few_statements(self) -> None:
        """Of which each is there and kept prepared."""
        statements = inserts("INSERT INTO t VALUES", 2)
        self.assertEqual(statements[2], "INSERT INTO t VALUES (?, ?), (?, ?)")
        self.assertGreaterEqual(CACHED_STATEMENTS, 2 * len(statements))
        for count in COUNTS:
            with self.subTest(count):
                sizes = list(rows_at_once(count))
                self.assertEqual(sum(sizes), count)
                self.assertTrue(statements.keys() >= set(sizes))
                self.assertLessEqual(len(sizes), count // max(MANY_ROWS) + len(MANY_ROWS) + 1)

    def test_every_number_of_rows_is_written(self) -> None:
        """As it was given, in both tables that have most."""
        file = open_journal(make_folder(self) / "journal.db", syncs_each_commit=False)
        self.addCleanup(file.close)
        file.history.begin((Limits(),), "one", lambda _: None)
        last_seq = 0
        for count in COUNTS[1:]:
            with self.subTest(count):
                seqs = range(last_seq + 1, last_seq + count + 1)
                last_seq += count
                file.write([Entry(seq, _event(seq), f"0:{seq % 7}") for seq in seqs])
                rows = [(each.seq, each.change) for each in file.read(seqs[0] - 1)]
                self.assertEqual(rows, [(seq, _event(seq)) for seq in seqs])
                kept = file.ask("SELECT key, seq, subject FROM history WHERE seq >= ? ORDER BY seq", (seqs[0],))
                self.assertEqual(kept, [(f"0:{seq % 7}", seq, f"user-{seq}") for seq in seqs])


def _event(seq: int) -> Change:
    about = no_param("/m", "w", f"user-{seq}", TIME_US + seq)
    return Change(about, ChangeKind.EVENT, message=Publish("/m", timestamp_us=TIME_US + seq))
