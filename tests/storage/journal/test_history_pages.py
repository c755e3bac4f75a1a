"""Pages of history from one journal to another one that begins later."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from clasp_relay.core.history.rules import Erasure, Limits
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.errors import DecodeError
from clasp_relay.storage.journal import history_pages
from clasp_relay.storage.journal.history_pages import (
    HistoryPage,
    HistoryRow,
    JournalPast,
    Taken,
    decode_page,
    encode_page,
    insert_page,
    oldest_seq,
    read_older,
)
from clasp_relay.storage.journal.journal_file import DamagedRowError, Entry, JournalFile
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.messages import Publish
from clasp_relay.wire.values import encode_value
from tests.storage.values import TIME_US, make_folder

LIMITS = Limits(1_000)


def entry(seq: int, key: str | None = "0:a", *erasures: Erasure) -> Entry:
    """Returns an event that was accepted so many seconds after the start."""
    about = no_param("/m", "w", "ann", TIME_US + seq * 1_000_000)
    change = Change(about, ChangeKind.EVENT, message=Publish("/m", value=encode_value(seq)))
    return Entry(seq, change, key, erasures)


class PageTests(SynchronousTestCase):
    """A journal that has all, and one that begins with row 50."""

    def setUp(self) -> None:
        """Opens both."""
        self.old, self.new = self.journal(LIMITS), self.journal(LIMITS)
        self.old.write([entry(seq) for seq in range(1, 61)])
        self.new.write([entry(seq) for seq in range(50, 61)])
        self.new.history.begin_refill()

    def journal(self, limits: Limits, fingerprint: str = "rules") -> JournalFile:
        """Returns an open journal."""
        file = open_journal(make_folder(self) / "journal.db", syncs_each_commit=False)
        self.addCleanup(file.close)
        file.history.begin([limits], fingerprint, lambda _: "0:a")
        return file

    def page(self, before_seq: int) -> HistoryPage:
        """Returns a page of the old one, as it goes over the bus."""
        return decode_page(encode_page(read_older(self.old._db, before_seq)))

    def kept(self, file: JournalFile) -> list[int]:
        """Returns the seqs of all entries."""
        return [seq for (seq,) in file.ask("SELECT seq FROM history ORDER BY seq")]

    def test_all_comes_in_pages_newest_first(self) -> None:
        """With the same rows; what was there stays."""
        self.patch(history_pages, "PAGE_BYTES", 2_000)
        before, pages = oldest_seq(self.new), 0
        self.assertEqual(before, 50)
        while before is not None:
            page = self.page(before)
            self.assertTrue(insert_page(self.new, page))
            self.assertEqual(self.kept(self.new), list(range(page.rows[-1].seq, 61)))
            before, pages = None if page.is_last else page.rows[-1].seq, pages + 1
        self.assertGreater(pages, 3)
        rows = "SELECT * FROM entries ORDER BY seq"
        self.assertEqual(self.new.ask(rows), self.old.ask(rows))
        self.assertEqual(self.page(1), HistoryPage("rules", 60, (), True))

    def test_what_was_erased_meanwhile_does_not_come_back(self) -> None:
        """Whether before the page was read or behind that."""
        before = self.page(50)
        erasing = entry(61, None, Erasure("0:a"))
        self.new.write([erasing])
        self.assertTrue(insert_page(self.new, before))
        self.assertEqual(self.kept(self.new), [])
        self.old.write([erasing])
        self.assertTrue(insert_page(self.new, self.page(50)))
        self.assertEqual(self.kept(self.new), [])
        self.old.write([entry(62)])
        self.new.write([entry(62)])
        self.assertEqual(self.kept(self.new), [62])

    def test_nothing_comes_back_of_who_was_erased(self) -> None:
        """Here, while the page was on its way."""
        self.new.history.erase_of("ann", ("", 0))
        self.assertEqual(self.kept(self.new), [])
        self.assertTrue(insert_page(self.new, self.page(50)))
        self.assertEqual(self.kept(self.new), [])
        self.new.history.end_refill()
        self.assertEqual(self.new.history.erased_subjects, set())

    def test_erasures_are_remembered_as_long_as_pages_come(self) -> None:
        """A page that has them in it already may be followed by one of a relay that has not applied them yet."""
        self.patch(history_pages, "PAGE_BYTES", 2_000)
        behind = self.journal(LIMITS)
        behind.write([entry(seq) for seq in range(1, 61)])
        erasing = entry(61, None, Erasure("0:a"))
        self.new.write([erasing])
        self.assertTrue(insert_page(self.new, self.page(50)))
        self.old.write([erasing])
        self.assertTrue(insert_page(self.new, self.page(40)))
        self.assertTrue(insert_page(self.new, read_older(behind._db, 30)))
        self.assertEqual(self.kept(self.new), [])
        self.new.history.end_refill()
        self.new.write([entry(62, None, Erasure("0:a"))])
        self.assertIsNone(self.new.history._erased)

    def test_limits_hold_for_what_comes(self) -> None:
        """The oldest go."""
        self.new = self.journal(Limits(20))
        self.new.write([entry(seq) for seq in range(50, 61)])
        self.assertTrue(insert_page(self.new, self.page(50)))
        self.assertEqual(self.kept(self.new), list(range(41, 61)))
        self.new.write([entry(61)])
        self.assertEqual(self.kept(self.new), list(range(42, 62)))

    def test_page_of_other_rules_is_left_out(self) -> None:
        """Its keys mean something else."""
        self.new = self.journal(LIMITS, "others")
        self.assertFalse(insert_page(self.new, self.page(50)))
        self.assertEqual(self.kept(self.new), [])
        self.assertIsNone(oldest_seq(self.new))

    def test_damaged_row_is_refused(self) -> None:
        """And nothing of its page is there."""
        page = self.page(50)
        for bad in ({"body": b"nonsense"}, {"address": "/other"}, {"kind": 1}):
            with self.subTest(bad):
                rows = (page.rows[0], page.rows[1]._replace(**bad))
                self.assertRaises(DamagedRowError, insert_page, self.new, page._replace(rows=rows))
                self.assertEqual(self.kept(self.new), list(range(50, 61)))

    @given(st.binary(max_size=100))
    def test_any_bytes_are_a_page_or_refused(self, data: bytes) -> None:
        """Nothing else is raised."""
        row = HistoryRow(1, 2, 3, "/a", "key", "ann", b"body")
        for bad in (
            data,
            msgpack.packb(("rules", 1, [(*row[:-1], "text")], True)),
            msgpack.packb(("rules", 1, [3], True)),
            msgpack.packb(("rules", 1, [], 1)),
            msgpack.packb(3),
        ):
            try:
                decode_page(bad)
            except DecodeError:
                continue
            self.fail(f"{bad!r} is a page")


class Pages:
    """Reads a journal that nobody else reads. Implements ``history_pages.PageReader``."""

    def __init__(self, file: JournalFile) -> None:
        self.file = file
        self.forgot = 0
        self.is_readable = True

    def read_older(self, before_seq: int, done: Callable[[HistoryPage | None], None]) -> None:
        """See ``PageReader``."""
        done(read_older(self.file._db, before_seq) if self.is_readable else None)

    def forget(self) -> None:
        """See ``PageReader``."""
        self.forgot += 1


class PastTests(TestCase):
    """The same in the journal's thread."""

    def setUp(self) -> None:
        """Opens a journal without rows."""
        self.file = open_journal(make_folder(self) / "journal.db", syncs_each_commit=False)
        self.file.history.begin([LIMITS], "rules", lambda _: "0:a")
        self.log = JournalLog(reactor, lambda _: False)
        self.log.open(self.file, 49)
        self.addCleanup(self.log.close)
        self.pages = Pages(self.file)
        self.times_us: list[int] = []
        self.past = JournalPast(self.log, self.pages, self.times_us.append)

    def asked(self, ask: Callable[[Callable[[Any], None]], None]) -> Deferred[Any]:
        """Returns what something calls back with."""
        found: Deferred[Any] = Deferred()
        ask(found.callback)
        return found

    @inlineCallbacks
    def test_pages_are_added_and_given(self) -> Generator[Deferred[Any], Any, None]:
        """The reader looks at the keys anew; what cannot be added is said."""
        self.assertEqual((yield self.asked(self.past.oldest)), 50)
        rows = self._rows()
        data = encode_page(HistoryPage("rules", 49, rows, True))
        self.assertEqual((yield self.asked(lambda call: self.past.insert(data, call))), Taken(1, True))
        self.assertEqual((yield self.asked(self.past.oldest)), 1)
        self.assertEqual((self.pages.forgot, self.times_us), (1, [TIME_US + 2_000_000]))
        empty = encode_page(HistoryPage("rules", 49, (), False))
        self.assertEqual((yield self.asked(lambda call: self.past.insert(empty, call))), Taken(0, False))
        with capturedLogs() as logs:
            for bad in (b"nonsense", encode_page(HistoryPage("rules", 49, (rows[0]._replace(body=b"x"),), True))):
                self.assertIsNone((yield self.asked(partial(self.past.insert, bad))))
        self.assertEqual([each["event"] for each in logs], ["cluster.message_bad", "history.unreadable"])
        others = encode_page(HistoryPage("others", 49, (), True))
        self.assertIsNone((yield self.asked(lambda call: self.past.insert(others, call))))
        yield self.log.run(lambda _: None)
        given = yield self.asked(lambda call: self.past.read_older(2, call))
        self.assertEqual(decode_page(given).rows, rows[1:])
        self.pages.is_readable = False
        self.assertEqual((yield self.asked(lambda call: self.past.read_older(2, call))), b"")
        self.past.end()
        yield self.log.run(lambda _: None)
        self.assertIsNone(self.file.history._erased)

    def _rows(self) -> tuple[HistoryRow, ...]:
        other = open_journal(make_folder(self) / "journal.db", syncs_each_commit=False)
        other.write([entry(1, None), entry(2, None)])
        query = "SELECT seq, time_us, kind, address, '0:a', 'ann', body FROM entries ORDER BY seq DESC"
        rows = tuple(HistoryRow(*row) for row in other.ask(query))
        other.close()
        return rows

    @inlineCallbacks
    def test_journal_with_all_rows_lacks_nothing(self) -> Generator[Deferred[Any], Any, None]:
        """Unless it goes on behind the rows of others."""
        self.log.has_all = True
        self.assertEqual((yield self.asked(self.past.oldest)), 1)

    @inlineCallbacks
    def test_journal_that_cannot_be_read_asks_nobody(self) -> Generator[Deferred[Any], Any, None]:
        """Nothing could be added; the log says so, and erasures are not remembered for it."""
        yield self.log.run(lambda file: file._db.execute("ALTER TABLE history RENAME TO gone"))
        with capturedLogs() as logs:
            self.assertEqual((yield self.asked(self.past.oldest)), 1)
        self.assertEqual([each["event"] for each in logs], ["history.unreadable"])
        self.past.end()
        yield self.log.run(lambda _: None)
        self.assertIsNone(self.file.history._erased)
        yield self.log.run(lambda file: file._db.execute("ALTER TABLE gone RENAME TO history"))

    def test_it_is_safe_once_a_state_was_saved(self) -> None:
        """A start reads no rows before that one's."""
        self.assertFalse(self.past.is_safe)
        self.log.saved(49)
        self.assertTrue(self.past.is_safe)
