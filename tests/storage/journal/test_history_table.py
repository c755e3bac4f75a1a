"""Tests of clasp_relay.storage.journal.history_table: what is kept in SQLite, and what goes from it."""

from __future__ import annotations

import random
import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.memory import victim
from clasp_relay.core.history.rules import Erasure, Limits
from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.storage.journal import history_table
from clasp_relay.storage.journal.journal_file import DamagedRowError, Entry
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.messages import Publish
from clasp_relay.wire.values import decode_value, encode_value
from tests.storage.values import TIME_US, make_folder

GIGABYTE = 1 << 30


def event(seq: int, by: str = "ann", obj: object = None) -> Change:
    """Returns an event that was accepted so many seconds after the start."""
    message = Publish("/m", value=encode_value(seq if obj is None else obj))
    return Change(no_param("/m", "w", by, TIME_US + seq * 1_000_000), ChangeKind.EVENT, message=message)


class HistoryTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a journal whose rule 0 keeps three entries of each key."""
        self.path = make_folder(self) / "journal.db"
        self.file = open_journal(self.path, syncs_each_commit=False)
        self.addCleanup(self.close)
        self.begin(Limits(3))

    def close(self) -> None:
        """Closes the journal that is open now."""
        self.file.close()

    def begin(self, *limits: Limits, fingerprint: str = "one") -> int:
        """Begins with rules under which everything has the key that it has."""
        return self.file.history.begin(limits, fingerprint, lambda _: "0:a")

    def keep(self, *changes: Change, key: str | None = "0:a", erasures: tuple[Erasure, ...] = ()) -> None:
        """Writes changes in one transaction; the erasures belong to the last one."""
        first = self.file.last_seq + 1
        entries = [Entry(first + n, change, key) for n, change in enumerate(changes)]
        self.file.write([*entries[:-1], entries[-1]._replace(erasures=erasures)])

    def kept(self, key: str = "0:a") -> list[int]:
        """Returns the seqs under a key."""
        rows = self.file._db.execute("SELECT seq FROM history WHERE key = ? ORDER BY seq", (key,)).fetchall()
        return [row[0] for row in rows]

    def rows(self) -> list[tuple[int, object]]:
        """Returns seq and value of each row; None for what was emptied."""
        return [
            (seq, None if change.message is None else decode_value(change.message.value))  # type: ignore[union-attr, arg-type]
            for seq, change in self.file.read(0)
        ]

    def trim(self, floor_seq: int) -> None:
        """Deletes what the recovery needs no more."""
        while self.file.trim(floor_seq, GIGABYTE):
            pass

    def test_count_of_a_key_is_limited_in_the_transaction(self) -> None:
        """For each key; rows that a recovery may need stay until they are trimmed."""
        self.keep(*(event(seq) for seq in range(1, 6)))
        self.keep(event(6), key="0:b")
        self.keep(event(7))
        self.assertEqual((self.kept(), self.kept("0:b")), ([4, 5, 7], [6]))
        self.assertEqual([seq for seq, _ in self.rows()], [1, 2, 3, 4, 5, 6, 7])
        self.trim(7)
        self.assertEqual([seq for seq, _ in self.rows()], [4, 5, 6, 7])
        self.keep(event(8))
        self.assertEqual([seq for seq, _ in self.rows()], [5, 6, 7, 8])

    def test_whoever_has_most_loses_first(self) -> None:
        """Nobody flushes what the others said; the count is right after a restart."""
        self.keep(event(1, "bob"), event(2, "eve"), event(3, "eve"))
        self.file.close()
        self.file = open_journal(self.path, syncs_each_commit=False)
        self.begin(Limits(3))
        for seq in range(4, 50):
            self.keep(event(seq, "eve"))
        self.assertEqual(self.kept(), [1, 48, 49])

    def test_undone_transaction_counts_nothing(self) -> None:
        """The next one counts again."""
        self.keep(event(1))
        with self.assertRaises(sqlite3.IntegrityError):
            self.file.write([Entry(2, event(2), "0:a"), Entry(1, event(1), "0:a")])
        self.keep(event(2), event(3))
        self.assertEqual(self.kept(), [1, 2, 3])

    def test_entries_are_known_of_some_keys(self) -> None:
        """Those of the others are read again."""
        for max_bytes, keys in ((900, 2), (0, 0)):
            self.patch(history_table, "MAX_KNOWN_BYTES", max_bytes)
            for round_ in range(5):
                for key in ("0:a", "0:b", "0:c"):
                    self.keep(event(round_), key=key)
            self.assertEqual([len(self.kept(key)) for key in ("0:a", "0:b", "0:c")], [3, 3, 3])
            self.assertEqual(len(self.file.history._known), keys)
            self.assertEqual(self.file.history._known_bytes, keys * (history_table.SUBJECT_BYTES + 3 * 8))

    def test_erased_signal_leaves_nothing(self) -> None:
        """In rows that a recovery may still read, not even a copy in the file; trimmed ones go."""
        self.keep(event(1, obj="secret-one"), event(2, obj="secret-two"))
        self.trim(1)
        self.keep(event(3), key="0:b", erasures=(Erasure("0:a"),))
        self.assertEqual((self.kept(), self.kept("0:b")), ([], [3]))
        self.assertEqual(self.rows(), [(2, None), (3, 3)])
        self.file.close()
        data = self.path.read_bytes()
        self.assertEqual((b"secret-one" in data, b"secret-two" in data), (False, False))
        self.file = open_journal(self.path, syncs_each_commit=False)

    def test_erased_param_is_there_for_the_recovery(self) -> None:
        """Its row holds what is set."""
        write = Change(Param("/m", encode_value(5), 1, "w", TIME_US))
        self.keep(write)
        self.keep(event(2), key=None, erasures=(Erasure("0:a"),))
        self.assertEqual((self.kept(), next(self.file.read(0)).change), ([], write))

    def test_what_comes_behind_an_erasure_stays(self) -> None:
        """Also in the same transaction."""
        self.file.write(
            [Entry(1, event(1), "0:a"), Entry(2, event(2), None, (Erasure("0:a"),)), Entry(3, event(3), "0:a")]
        )
        self.assertEqual(self.kept(), [3])
        self.file.write([Entry(4, event(4), "0:a", (Erasure("0:a"),))])
        self.assertEqual(self.kept(), [4])

    def test_single_entries_are_erased(self) -> None:
        """Those that hold a word, and of these the ones to which it applies."""
        self.keep(event(1, obj=["x"]), event(2, "bob", ["x"]), event(3, obj=["y"]))
        word = encode_value("x")
        erasure = Erasure("0:a", word, lambda change: change.param.subject == "ann")
        self.keep(event(4), key=None, erasures=(erasure,))
        self.assertEqual(self.kept(), [2, 3])
        self.assertEqual(self.rows()[0], (1, None))

    def test_too_old_entries_go_piece_by_piece(self) -> None:
        """Key after key; those of rules without an age stay."""
        self.patch(history_table, "AGED_AT_ONCE", 2)
        self.patch(history_table, "KEYS_AT_ONCE", 2)
        self.begin(Limits(None, 10_000_000), Limits(), fingerprint="two")
        self.keep(*(event(seq) for seq in range(1, 6)))
        self.keep(event(6), key="0:b")
        self.keep(event(7), key="1:c")
        self.trim(7)
        old_us = TIME_US + 16_000_001
        self.assertEqual([self.file.history.trim_old(old_us) for _ in range(4)], [True, True, False, False])
        self.assertEqual([self.kept(key) for key in ("0:a", "0:b", "1:c")], [[], [], [7]])
        self.assertEqual(self.rows(), [(7, 7)])
        self.keep(event(8))
        self.assertFalse(self.file.history.trim_old(old_us))
        self.assertEqual(self.kept(), [8])

    def test_ages_of_many_keys_are_asked_in_one_statement(self) -> None:
        """Once a second, while commits wait."""
        self.begin(Limits(9, 10_000_000), fingerprint="two")
        for number in range(history_table.KEYS_AT_ONCE):
            self.keep(event(number), event(number), key=f"0:{number}")
        statements: list[str] = []
        self.file._db.set_trace_callback(statements.append)
        self.assertFalse(self.file.history.trim_old(TIME_US + 9_000_000))
        self.assertEqual(len(statements), 1)

    def test_what_somebody_said_goes_piece_by_piece(self) -> None:
        """Under every key; what others said stays, and the limits count what is left."""
        self.patch(history_table, "ERASED_AT_ONCE", 2)
        self.begin(Limits(4), fingerprint="two")
        for key in ("0:a", "0:b"):
            self.keep(event(1, "ann", "secret-one"), event(2, "bob"), event(3, "ann", "secret-two"), key=key)
        self.trim(4)
        steps: list[int] = []
        after: tuple[str, int] | None = ("", 0)
        while after is not None:
            gone, after = self.file.history.erase_of("ann", after)
            steps.append(gone)
        self.assertEqual((steps, self.kept(), self.kept("0:b")), ([1, 2, 1, 0], [2], [5]))
        self.assertEqual(self.rows(), [(2, 2), (5, 2), (6, None)])
        self.file.close()
        self.assertNotIn(b"secret", self.path.read_bytes())
        self.file = open_journal(self.path, syncs_each_commit=False)
        self.begin(Limits(4), fingerprint="two")
        self.keep(*(event(seq, "cat") for seq in range(4)))
        self.assertEqual(self.kept(), [2, 8, 9, 10])

    def test_nothing_is_too_old_without_a_rule_about_age(self) -> None:
        """And nothing is looked at."""
        self.keep(event(1))
        self.assertFalse(self.file.history.trim_old(1 << 60))
        self.assertEqual(self.kept(), [1])

    def test_failure_while_old_entries_go_undoes_it(self) -> None:
        """As any transaction that fails."""
        self.begin(Limits(None, 1), fingerprint="two")
        self.keep(event(1))
        self.file._db.execute("CREATE TRIGGER no BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'no'); END")
        with self.assertRaises(sqlite3.IntegrityError):
            self.file.history.trim_old(1 << 60)
        self.assertEqual((self.kept(), self.file._db.in_transaction), ([1], False))

    def test_other_rules_make_other_keys(self) -> None:
        """Once; what they do not keep goes, and what is too much."""
        self.keep(*(event(seq) for seq in range(1, 4)))
        self.keep(event(4), event(5), key="0:b")
        self.assertEqual(self.file.history.last_us, TIME_US + 5_000_000)

        def key_of(change: Change) -> str | None:
            number = (change.param.timestamp_us - TIME_US) // 1_000_000
            return None if number == 2 else f"{number % 2}:x"

        gone = self.file.history.begin((Limits(), Limits(2)), "two", key_of)
        self.assertEqual((gone, self.kept("0:x"), self.kept("1:x")), (2, [4], [3, 5]))
        self.assertEqual(self.rows()[1], (2, None))
        self.assertEqual(self.file.history.begin((Limits(), Limits(2)), "two", lambda _: None), 0)
        self.assertEqual(self.file.history.begin((), "three", lambda _: None), 3)
        # Nothing is left of the entries but their times, and later ones come behind them.
        self.assertEqual(self.file.history.last_us, TIME_US + 5_000_000)
        self.keep(event(6), key="7:x")
        self.assertEqual(self.kept("7:x"), [6])

    def test_damaged_entry_leaves_the_keys_as_they_were(self) -> None:
        """The error names the row."""
        self.keep(event(1))
        self.file._db.execute("UPDATE entries SET body = x'00'")
        with self.assertRaisesRegex(DamagedRowError, "row 1 is damaged"):
            self.begin(Limits(), fingerprint="two")
        self.assertEqual((self.kept(), self.file._db.in_transaction), ([1], False))

    def test_several_go_as_one_after_the_other(self) -> None:
        """Whoever has most loses the oldest first, however many of them are known, and however they come."""
        dice = random.Random(5)
        for max_bytes, max_count in ((0, 3), (1_300, 5), (10_000, 8)):
            self.patch(history_table, "MAX_KNOWN_BYTES", max_bytes)
            self.begin(Limits(max_count), fingerprint=f"{max_count}")
            for key in ("0:x", "0:y"):
                left: list[tuple[int, str]] = []
                for _ in range(30):
                    some = [dice.choice("aaab" if len(left) % 2 else "bcde") for _ in range(dice.randint(1, 9))]
                    first = self.file.last_seq + 1
                    self.keep(*(event(seq, by) for seq, by in enumerate(some, first)), key=f"{key}{max_count}")
                    left += enumerate(some, first)
                    while len(left) > max_count:
                        gone = victim(left)
                        left = [each for each in left if each[0] != gone]
                    self.assertEqual(self.kept(f"{key}{max_count}"), [seq for seq, _ in left])

    def test_keys_are_noted_while_they_have_entries(self) -> None:
        """Each with the seq of the entry with which it began, however entries come and go, and after a failure."""
        self.patch(history_table, "MAX_BEGUN_KEYS", 2)

        def noted() -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = self.file.ask("SELECT key, seq FROM history_keys ORDER BY seq")
            keys = {key for (key,) in self.file.ask("SELECT DISTINCT key FROM history")}
            self.assertEqual({key for key, _ in found}, keys)
            return found

        nul = "0:a\0b"
        for key in ("0:a", nul, "0:c", "0:a", nul):
            self.keep(event(self.file.last_seq + 1), key=key)
        self.assertEqual(noted(), [("0:a", 1), (nul, 2), ("0:c", 3)])
        with self.assertRaises(sqlite3.IntegrityError):
            self.file.write([Entry(6, event(6), "0:d"), Entry(1, event(1), "0:d")])
        self.keep(event(6), key="0:d")
        self.assertEqual(noted()[3:], [("0:d", 6)])
        erasing = Entry(8, event(8), None, (Erasure("0:c"), Erasure(nul)))
        self.file.write([Entry(7, event(7), "0:c"), erasing, Entry(9, event(9), nul)])
        self.assertEqual(noted(), [("0:a", 1), ("0:d", 6), (nul, 9)])
        self.trim(6)
        with self.file.transaction():
            self.file.history.remove_oldest(2)
        self.assertEqual(noted(), [("0:d", 6), (nul, 9)])
        self.file.history.erase_of("ann", ("", 0))
        self.assertEqual(noted(), [])
        self.keep(event(10), key=nul)
        self.assertEqual(noted(), [(nul, 10)])
