"""Tests of clasp_relay.storage.journal.recovery: what the state file does not have, and what is wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change
from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import Entry, JournalFile
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.storage.journal.recovery import Recovery, recover
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import make_folder


class RecoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a journal of ten rows."""
        self.path = make_folder(self) / "journal.db"
        self.file = self.open()
        self.write(1, 10)

    def open(self) -> JournalFile:
        """Opens it; closed with the test."""
        file = open_journal(self.path, syncs_each_commit=True)
        self.addCleanup(file.close)
        return file

    def write(self, first: int, last: int) -> None:
        """Writes rows."""
        self.file.write([Entry(seq, write_of(seq)) for seq in range(first, last + 1)])

    def recover(self, journal_seq: int) -> tuple[Recovery, list[Change]]:
        """Recovers; returns what was applied, too."""
        applied: list[Change] = []
        return recover(self.file, journal_seq, applied.append, has_state=journal_seq > 0), applied

    def refused(self, journal_seq: int) -> str:
        """Returns why the relay does not start."""
        with self.assertRaises(StartError) as caught:
            self.recover(journal_seq)
        said = str(caught.exception)
        self.assertTrue(said.startswith(str(self.path)), said)
        return said

    def test_later_rows_are_applied_in_order(self) -> None:
        """All without a state file, those behind it with one, none where it has everything."""
        for journal_seq in (0, 4, 10):
            with self.subTest(journal_seq):
                found, applied = self.recover(journal_seq)
                self.assertEqual(applied, [write_of(seq) for seq in range(journal_seq + 1, 11)])
                self.assertEqual(found, Recovery(10 - journal_seq, 10, ()))

    def test_journal_that_is_older_than_the_state_is_told(self) -> None:
        """New rows count above the state file's."""
        found, applied = self.recover(25)
        self.assertEqual((applied, found.rows, found.last_seq), ([], 0, 25))
        self.assertIn("older than the state file", found.warnings[0])
        self.write(26, 27)
        self.assertEqual(self.recover(25)[1], [write_of(26), write_of(27)])
        self.assertIn("rows 11 to 25 are missing", self.refused(8))

    def test_fresh_journal_beside_a_state_is_nothing_special(self) -> None:
        """It was moved away, or the version before this one had none."""
        self.file.close()
        self.path.unlink()
        self.file = self.open()
        self.assertEqual(self.recover(25)[0], Recovery(0, 25, ()))

    def test_gap_between_state_and_journal_is_refused(self) -> None:
        """A state file that is older than what was trimmed, and none at all."""
        while self.file.trim(6, 1 << 30):
            pass
        self.assertEqual(len(self.recover(6)[1]), 4)
        self.assertIn("rows 4 to 6 are missing (the state file ends with row 3)", self.refused(3))
        self.assertIn("rows 1 to 6 are missing (there is no state file)", self.refused(0))

    def test_damaged_row_is_named(self) -> None:
        """Nothing behind it is applied, for it would rest on it."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE entries SET body = substr(body, 1, 20) WHERE seq = 7")
            connection.commit()
        self.assertIn("row 7 is damaged", self.refused(0))
        self.assertEqual(len(self.recover(7)[1]), 3)
