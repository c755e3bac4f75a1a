"""Tests of clasp_relay.storage.journal.journal_file: rows in, rows out, and what goes."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.storage.journal.journal_file import (
    FREED_AT_ONCE,
    TIME_STEP_US,
    TRIMMED_AT_ONCE,
    DamagedRowError,
    Entry,
    JournalFile,
    Recorded,
    decode_body,
    encode_body,
)
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.messages import NULL, Bundle, Set
from clasp_relay.wire.values import encode_value
from tests.storage.values import TIME_US, make_folder

GIGABYTE = 1 << 30


def write_of(number: int, address: str = "/a") -> Change:
    """Returns a write, one second after the one before."""
    return Change(Param(address, encode_value(number), number, "w", TIME_US + number * 1_000_000))


class JournalFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a journal."""
        self.path = make_folder(self) / "journal.db"
        self.file = self.open()

    def open(self, *, syncs_each_commit: bool = True) -> JournalFile:
        """Opens it; closed with the test."""
        file = open_journal(self.path, syncs_each_commit=syncs_each_commit)
        self.addCleanup(file.close)
        return file

    def test_changes_of_accounts_are_found_from_the_end(self) -> None:
        """Behind one of that number, in order."""
        accounts = [Change(no_param("", "", "", TIME_US), ChangeKind.ACCOUNTS, number=number) for number in (3, 4, 5)]
        rows = [accounts[0], write_of(1), accounts[1], accounts[2], write_of(2)]
        self.file.write([Entry(seq, change) for seq, change in enumerate(rows, 1)])
        self.assertEqual(self.file.accounts_behind(0), accounts)
        self.assertEqual(self.file.accounts_behind(4), accounts[2:])
        self.assertEqual(self.file.accounts_behind(5), [])

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Asks the file through a connection that only reads."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as reader:
            return reader.execute(query).fetchall()

    def fill(self, count: int, keep_every: int = 0) -> None:
        """Writes rows 1 to ``count``; history keeps some."""
        self.file.write(
            [
                Entry(seq, write_of(seq), "kept" if keep_every and seq % keep_every == 0 else None)
                for seq in range(1, count + 1)
            ]
        )

    def test_changes_come_back_in_order(self) -> None:
        """Of every kind, in batches of every size, also after the file was closed."""
        scheduled = Change(no_param("", "w", "s", TIME_US), ChangeKind.SCHEDULED, due_us=TIME_US, number=1)
        scheduled = scheduled._replace(message=Bundle((Set("/é", NULL),)))
        self.file.write([Entry(1, scheduled)])
        self.file.write([Entry(seq, write_of(seq)) for seq in range(2, 301)])
        expected = [Recorded(1, scheduled), *(Recorded(seq, write_of(seq)) for seq in range(2, 301))]
        self.assertEqual(list(self.file.read(0)), expected)
        self.file.close()
        again = self.open()
        self.assertEqual((list(again.read(0)), again.last_seq, again.trimmed_seq), (expected, 300, 0))
        self.assertEqual([each.seq for each in again.read(298)], [299, 300])

    def test_history_and_times_are_written_with_the_change(self) -> None:
        """The key in the same transaction; of the times one row a minute."""
        self.fill(130, keep_every=60)
        self.file.write([Entry(131, write_of(131)), Entry(132, write_of(132))])
        self.assertEqual(self.rows("SELECT key, seq FROM history"), [("kept", 60), ("kept", 120)])
        self.assertEqual(
            self.rows("SELECT seq, time_us FROM times"), [(1, TIME_US + 1_000_000), (131, TIME_US + 131_000_000)]
        )
        self.assertGreaterEqual(130_000_000, TIME_STEP_US)

    def test_batch_is_written_whole_or_not_at_all(self) -> None:
        """A row that is there twice takes the whole batch with it, and the file goes on."""
        self.fill(2)
        with self.assertRaises(sqlite3.IntegrityError):
            self.file.write([Entry(3, write_of(3)), Entry(2, write_of(2))])
        self.assertEqual(self.rows("SELECT max(seq) FROM entries"), [(2,)])
        self.file.write([Entry(3, write_of(3))])

    def test_trimming_goes_piece_by_piece_and_leaves_history(self) -> None:
        """Up to the floor, never beyond; where the file is over its limit history goes, too."""
        count = 2 * TRIMMED_AT_ONCE + 10
        self.fill(count, keep_every=100)
        pieces = 0
        while self.file.trim(count - 5, GIGABYTE):
            pieces += 1
        self.assertEqual(pieces, 3)
        kept = [(seq,) for seq in range(1, count + 1) if seq % 100 == 0 or seq > count - 5]
        self.assertEqual(self.rows("SELECT seq FROM entries ORDER BY seq"), kept)
        while self.file.trim(count - 5, 1):
            pass
        self.assertEqual(self.rows("SELECT seq FROM entries"), [(seq,) for seq in range(count - 4, count + 1)])
        self.assertEqual(self.rows("SELECT count(*) FROM history"), [(0,)])
        self.file.close()
        again = self.open()
        self.assertEqual((again.trimmed_seq, again.last_seq), (count - 5, count))

    def test_trimmed_rows_free_room(self) -> None:
        """Which is measured; where much of it is free the file becomes smaller."""
        self.fill(20_000)
        full = self.file.sizes()
        self.assertEqual(full.oldest_us, TIME_US + 1_000_000)
        while self.file.trim(20_000, GIGABYTE):
            pass
        trimmed = self.file.sizes()
        self.assertGreater(trimmed.free_bytes, 500_000)
        self.assertEqual(trimmed.oldest_us, 0)
        self.assertTrue(self.file.trim(20_000, 1_000_000))
        self.assertEqual(trimmed.free_bytes - self.file.sizes().free_bytes, FREED_AT_ONCE * 4_096)
        while self.file.trim(20_000, 1_000_000):
            pass
        self.assertLess(self.file.sizes().free_bytes, 300_000)

    def test_sync_puts_the_wal_on_the_disk_where_commits_do_not(self) -> None:
        """Once for what was written since the last time."""
        synced: list[int] = []
        real = os.fsync

        def sync(descriptor: int) -> None:
            synced.append(descriptor)
            real(descriptor)

        self.patch(os, "fsync", sync)
        self.fill(1)
        self.file.sync()
        self.assertEqual(synced, [])
        lazy = self.open(syncs_each_commit=False)
        lazy.write([Entry(2, write_of(2))])
        lazy.sync()
        lazy.sync()
        self.assertEqual(len(synced), 1)


class BodyTests(SynchronousTestCase):
    """What a row holds."""

    def test_every_flipped_bit_is_found(self) -> None:
        """And whatever else is no body; the error names the row."""
        body = encode_body(write_of(1))
        self.assertEqual(decode_body(7, body), write_of(1))
        for bit in range(8 * len(body)):
            broken = bytearray(body)
            broken[bit // 8] ^= 1 << bit % 8
            with self.assertRaisesRegex(DamagedRowError, "row 7 is damaged"):
                decode_body(7, bytes(broken))
        newer = b"\x09" + body[1:-4]
        for bad in (None, "text", b"", b"abc", body[:-1], body + b"\0", encode_crc(newer)):
            with self.subTest(bad=bad), self.assertRaises(DamagedRowError):
                decode_body(7, bad)


def encode_crc(data: bytes) -> bytes:
    """Returns data with the checksum that belongs to it."""
    return data + zlib.crc32(data).to_bytes(4, "big")
