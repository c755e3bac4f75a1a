"""Tests of clasp_relay.storage.journal.recovery: what the state file does not have, and what is wrong."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.errors import StartError
from clasp_relay.storage.journal import recovery
from clasp_relay.storage.journal.journal_file import Entry, JournalFile
from clasp_relay.storage.journal.opening import open_journal, prepare
from clasp_relay.storage.journal.recovery import Recovery, recover
from clasp_relay.wire.messages import NULL, Bundle, Publish, Set
from clasp_relay.wire.values import encode_value
from tests.core.world import World
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import TIME_US, make_folder


def write_at(number: int) -> Change:
    """Returns a write to an address of its own."""
    return write_of(number, f"/a/{number}")


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
        """Writes rows, each about another address."""
        self.file.write([Entry(seq, write_at(seq)) for seq in range(first, last + 1)])

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
                self.assertEqual(applied, [write_at(seq) for seq in range(journal_seq + 1, 11)])
                self.assertEqual(found, Recovery(10 - journal_seq, 10, ()))

    def test_journal_that_is_older_than_the_state_is_told(self) -> None:
        """New rows count above the state file's."""
        found, applied = self.recover(25)
        self.assertEqual((applied, found.rows, found.last_seq), ([], 0, 25))
        self.assertIn("older than the state file", found.warnings[0])
        self.write(26, 27)
        self.assertEqual(self.recover(25)[1], [write_at(26), write_at(27)])
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
            for damage in (
                "body = substr(body, 1, 20)",
                "body = ''",
                "body = x'00000000'",
                "body = (SELECT body FROM entries WHERE seq = 8)",
                "address = '/b'",
                "address = x'ff'",
                "kind = 2",
            ):
                with self.subTest(damage):
                    connection.execute(f"UPDATE entries SET {damage} WHERE seq = 7")  # noqa: S608 - from above
                    connection.commit()
                    self.assertIn("row 7 is damaged", self.refused(0))
                    self.assertEqual(len(self.recover(7)[1]), 3)
                    connection.execute("DELETE FROM entries WHERE seq = 7")
                    connection.commit()
                    self.write(7, 7)

    def test_damaged_row_is_named_though_a_later_one_replaces_it(self) -> None:
        """Its disk is not to be trusted."""
        self.file.write([Entry(11, write_at(3))])
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE entries SET body = substr(body, 1, 20) WHERE seq = 3")
            connection.commit()
        self.assertIn("row 3 is damaged (its checksum is wrong)", self.refused(0))


_STEPS = st.lists(
    st.tuples(st.sampled_from(("set", "null", "renew", "schedule", "due", "event")), st.integers(0, 3)), max_size=40
)
"""What happens, and where."""


class LatestTests(SynchronousTestCase):
    """What is left out makes no difference."""

    @given(_STEPS, st.integers(1, 50), st.integers(0, 20))
    def test_state_is_that_of_all_changes(self, steps: list[tuple[str, int]], at_once: int, saved: int) -> None:
        """Values, revisions, owners, life times and tombstones, in their order; also where some are in the state."""
        self.patch(recovery, "MAX_LATEST", at_once)
        self.patch(recovery, "LOOKED_AFTER", 1)
        changes = self.changes(steps)
        saved = min(saved, len(changes))
        expected, found = Life(), Life()
        for change in changes:
            expected.restore(change)
        for change in changes[:saved]:
            found.restore(change)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            prepare(connection, syncs_each_commit=True)
            file = JournalFile(Path("journal.db"), connection, syncs_each_commit=True)
            if changes:
                file.write([Entry(seq, change) for seq, change in enumerate(changes, 1)])
            told = recover(file, saved, found.restore, has_state=saved > 0)
        self.assertEqual(told, Recovery(len(changes) - saved, len(changes), ()))
        self.assertEqual(found.kept(), expected.kept())
        if at_once == 50 and not saved:
            writes = {change.param.address for change in changes if change.kind is ChangeKind.WRITE}
            self.assertEqual(found.kinds[ChangeKind.WRITE], len(writes))

    def changes(self, steps: list[tuple[str, int]]) -> list[Change]:
        """Returns the changes that a relay records when something happens; renewals also of what is not there."""
        changes, revisions = list[Change](), Counter[str]()
        for number, (what, where) in enumerate(steps):
            address, time_us = f"/{where}", TIME_US + number * 1_000_000
            due_us = time_us + (where + number % 3) * 1_000_000
            about = no_param(address, "", f"user{where}", time_us)
            if what in ("set", "null"):
                revisions[address] += 1
                value = encode_value(None if what == "null" else "x" * number)
                param = Param(address, value, revisions[address], "w", time_us, 60, f"user{number % 3}", "here")
                is_set = what == "set"
                stamp = "user1" if where == 3 else None
                due = due_us if is_set and where else None
                changes.append(Change(param, lock=is_set, takes_lock=is_set, stamp=stamp, due_us=due))
            elif what == "renew":
                changes.append(Change(about, ChangeKind.RENEWAL, ttl=60, due_us=due_us))
            elif what == "event":
                changes.append(Change(about, ChangeKind.EVENT, message=Publish(address)))
            else:
                kind = ChangeKind.SCHEDULED if what == "schedule" else ChangeKind.DUE
                message = Bundle((Set(address, NULL),)) if what == "schedule" else None
                changes.append(Change(about, kind, due_us=due_us, number=where, message=message))
        return changes


class Life:
    """A relay's memory."""

    def __init__(self) -> None:
        self._relay = World().relay
        self.kinds = Counter[ChangeKind]()

    def restore(self, change: Change) -> None:
        """Applies a recorded change."""
        self.kinds[change.kind] += 1
        self._relay.committer.restore(change)

    def kept(self) -> tuple[object, ...]:
        """Returns all that it keeps, in the orders that mean something."""
        params = self._relay.params
        image = params.image()
        return (
            {param.address: param for param in image.params},
            image.ended,
            list(image.expires_us.items()),
            params.state_bytes,
            *(vars(shares) for shares in (params._by_subject, params._by_origin)),
            len(params.locks),
            self._relay.schedule.image(),
        )
