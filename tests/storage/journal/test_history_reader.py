"""Tests of clasp_relay.storage.journal.history_reader: pages from SQLite, off the event loop."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.core.history.reading import MAX_SEQ, PAGE_ROWS, Asked, Page
from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.storage.journal import history_reader, history_table
from clasp_relay.storage.journal.history_pages import HistoryPage, HistoryRow, insert_page
from clasp_relay.storage.journal.history_reader import HistoryReader, KnownKeys, read_page
from clasp_relay.storage.journal.journal_file import DamagedRowError, Entry, JournalFile, encode_body
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES
from clasp_relay.wire.messages import Publish
from clasp_relay.wire.values import encode_value
from tests.core.world import START_US, WorldClock, rules_of
from tests.storage.values import make_folder

Steps = Generator[Deferred[Any], Any, None]

RULES = rules_of(
    {
        "path": "/r/{room}/m",
        "per": ["room"],
        "max_count": 4,
        "max_age_secs": 600,
        "erased_by": "/r/{room}/meta",
        "erases": {"type": "delete", "by": "of", "of": "id"},
    },
    {"path": "/p/**", "signals": ["param"], "max_count": 3},
)
ADDRESSES = ("/r/a/m", "/r/b/m", "/p/a", "/p/b", "/else", "/r/a/meta")
PATTERNS = ("/r/a/m", "/p/a", "/**", "/r/*/m", "/p/*", "/r/a/*", "/else")


class Recorder:
    """The same changes, in a journal and in memory."""

    def __init__(self, file: JournalFile) -> None:
        self.clock = WorldClock()
        self.keeping = Keeping(RULES, Params(ParamLimits()), self.clock)
        self.memory = MemoryHistory(self.clock.now_us)
        self.memory.attach(self.keeping)
        self.file = file
        self.waiting: list[Entry] = []
        file.history.begin(RULES.limits, RULES.fingerprint, self.keeping.key_of)

    def record(self, address: str, value: object, by: str = "ann") -> None:
        """Records a write, or an event below ``/r``."""
        stored = encode_value(value)
        time_us = self.keeping.next_us()
        if address.endswith("/m"):
            about = no_param(address, "w", by, time_us)
            change = Change(about, ChangeKind.EVENT, message=Publish(address, value=stored, timestamp_us=time_us))
        else:
            change = Change(Param(address, stored, 1, "w", time_us, None, by))
        self.memory.append((change,))
        seq = self.file.last_seq + len(self.waiting) + 1
        self.waiting.append(Entry(seq, change, *self.keeping.judge(change)))

    def commit(self) -> None:
        """Commits what waits together."""
        if self.waiting:
            self.file.write(self.waiting)
            self.waiting = []


STEPS = st.one_of(
    st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(("ann", "bob")), st.integers(0, 5)),
    st.tuples(st.sampled_from(("delete", "commit", "wait", "trim")), st.just("ann"), st.integers(0, 5)),
)
ASKED = st.builds(
    Asked,
    st.sampled_from(PATTERNS).map(Pattern.parse),
    st.sampled_from((ALL_TYPES, 1, 2)),
    st.integers(0, 30),
    st.one_of(st.integers(1, 50), st.just(MAX_SEQ)),
    st.one_of(st.just(0), st.integers(START_US, START_US + 900_000_000)),
    st.one_of(st.just(MAX_SEQ), st.integers(START_US, START_US + 900_000_000)),
    st.booleans(),
    st.just(PAGE_ROWS),
)


class PageTests(SynchronousTestCase):
    """What one page holds."""

    def setUp(self) -> None:
        """Makes a journal."""
        self.path = make_folder(self) / "journal.db"
        self.file = open_journal(self.path, syncs_each_commit=False)
        self.addCleanup(self.close)

    def close(self) -> None:
        """Closes the journal that is open now."""
        self.file.close()

    @given(st.lists(STEPS, min_size=5, max_size=50), st.lists(ASKED, min_size=1, max_size=5))
    def test_journal_and_memory_keep_the_same(self, steps: list[tuple[str, str, int]], asked: list[Asked]) -> None:
        """After any life, whatever is asked for: counts, ages, erasures, commits in between."""
        self.file._db.executescript(
            "DELETE FROM entries; DELETE FROM history; DELETE FROM history_keys; DELETE FROM times;"
        )
        self.file._db.execute("UPDATE trimmed SET seq = 0")
        self.file = JournalFile(self.path, self.file._db, syncs_each_commit=False)
        recorder = Recorder(self.file)
        for what, by, number in steps:
            if what == "commit":
                recorder.commit()
            elif what == "wait":
                recorder.clock.clock.advance(number * 70)
            elif what == "trim":
                recorder.commit()
                self.file.trim(self.file.last_seq - number, 1 << 30)
                self.file.history.trim_old(recorder.clock.now_us())
            elif what == "delete":
                recorder.record("/r/a/m", {"type": "delete", "of": number}, by)
            else:
                recorder.record(what, None if what == "/r/a/meta" else {"id": number}, by)
        recorder.commit()
        known: dict[str, KnownKeys] = {}
        for question in asked:
            expected: list[Page | None] = []
            recorder.memory.read(question, expected.append)
            assert expected[0] is not None
            # Once with what was learned for the question before, then entry by entry, and with the keys merged here.
            looking, dense, sparse = KnownKeys(), KnownKeys(), KnownKeys()
            looking.is_many = True
            sparse.is_dense = False
            cases = ((known.setdefault(question.pattern.text, KnownKeys()), 32), (looking, 32), (dense, 0), (sparse, 0))
            for keys, few in cases:
                patch = self.patch(history_reader, "FEW_KEYS", few)
                page = read_page(self.file._db, question, RULES, recorder.clock.now_us(), keys)
                patch.restore()
                found = [(entry.seq, entry.address, entry.change) for entry in page.entries]
                self.assertEqual(found, [(entry.seq, entry.address, entry.change) for entry in expected[0].entries])
                self.assertTrue(page.is_end)

    def test_keys_are_those_that_have_entries(self) -> None:
        """Whatever comes, is erased, is too much or too old, or gets another key with other rules."""
        recorder = Recorder(self.file)
        for room in "abc":
            for number in range(6):
                recorder.record(f"/r/{room}/m", {"id": number})
        recorder.record("/p/a", 1)
        recorder.commit()
        self.assertEqual(self.keys(), {"0:a", "0:b", "0:c", "1:/p/a"})
        recorder.record("/r/a/meta", None)
        recorder.commit()
        self.assertEqual(self.keys(), {"0:b", "0:c", "1:/p/a"})
        rules = rules_of({"path": "/r/**", "per": [], "max_count": 5}, {"path": "/p/**", "signals": ["param"]})
        keeping = Keeping(rules, Params(ParamLimits()), recorder.clock)
        self.file.history.begin(rules.limits, rules.fingerprint, keeping.key_of)
        self.assertEqual(self.keys(), {"0:", "1:/p/a"})

    def keys(self) -> set[str]:
        """Returns the keys in their table, which are those of the entries, each with a seq of its own."""
        rows = self.file.ask("SELECT key, seq FROM history_keys")
        self.assertEqual({key for key, _ in rows}, {key for (key,) in self.file.ask("SELECT key FROM history")})
        self.assertEqual(len({seq for _, seq in rows}), len(rows))
        return {key for key, _ in rows}

    def test_wildcards_look_at_the_keys_that_match_alone(self) -> None:
        """However many entries others have; a key that begins later is found, one that ended is not missed."""
        recorder = Recorder(self.file)
        for number in range(200):
            for name in ("x", "y"):
                recorder.record(f"/p/{number % 20}{name}/{number % 10}", number)
        recorder.commit()
        known = KnownKeys()
        for is_backwards in (False, True):
            asked = Asked(Pattern.parse("/p/*x/7"), is_backwards=is_backwards)
            page = read_page(self.file._db, asked, RULES, START_US, known)
            self.assertEqual([entry.address for entry in page.entries].count("/p/7x/7"), 3)
            self.assertEqual({entry.address for entry in page.entries}, {"/p/7x/7", "/p/17x/7"})
            self.assertLess(page.examined_bytes, 7 * 120)
        recorder.record("/p/x/7", "new")
        recorder.commit()
        page = read_page(self.file._db, Asked(Pattern.parse("/p/*x/7")), RULES, START_US, known)
        self.assertEqual(page.entries[-1].address, "/p/x/7")
        self.assertEqual(list(known.matching), ["1:/p/7x/7", "1:/p/17x/7", "1:/p/x/7"])

    def test_too_many_keys_are_not_merged(self) -> None:
        """Those that ended do not count; there are pages that only learn keys."""
        recorder = Recorder(self.file)
        self.patch(history_reader, "MAX_MERGED_KEYS", 4)
        self.patch(history_reader, "EXAMINED_ROWS", 3)
        asked = Asked(Pattern.parse("/r/*/m"))
        known = KnownKeys()
        for room in "abcd":
            recorder.record(f"/r/{room}/m", {"id": 1})
        recorder.commit()
        self.assertEqual(read_page(self.file._db, asked, RULES, START_US, known)[:2], ([], 0))
        self.assertEqual(self.all_of(asked, 3, known), [1, 2, 3, 4])
        recorder.record("/r/a/meta", None)
        recorder.record("/r/e/m", {"id": 1})
        recorder.commit()
        self.assertEqual(self.all_of(asked, 3, known), [2, 3, 4, 6])
        self.assertFalse(known.is_many)
        recorder.record("/r/f/m", {"id": 1})
        recorder.commit()
        self.assertEqual(self.all_of(asked, 3, known), [2, 3, 4, 6, 7])
        self.assertTrue(known.is_many)

    def test_entries_are_looked_at_in_order_where_most_of_them_match(self) -> None:
        """Each key is read on its own where few do, as soon as enough were looked at to tell."""
        recorder = Recorder(self.file)
        for number in range(40):
            recorder.record(f"/p/{'ab'[number % 20 == 0]}/{number}", number)
        recorder.commit()
        for text, value in (("FEW_KEYS", 1), ("SAMPLE_ROWS", 30), ("EXAMINED_ROWS", 32)):
            self.patch(history_reader, text, value)
        for pattern, seqs, is_dense in (("/p/**", list(range(1, 41)), True), ("/p/b/*", [1, 21], False)):
            for is_backwards in (False, True):
                with self.subTest(pattern=pattern, is_backwards=is_backwards):
                    known = KnownKeys()
                    asked = Asked(Pattern.parse(pattern), is_backwards=is_backwards)
                    while not read_page(self.file._db, asked, RULES, START_US, known).is_end and not known.seq:
                        pass
                    found = self.all_of(asked, 40, known)
                    self.assertEqual((found, known.is_dense), (sorted(seqs, reverse=is_backwards), is_dense))

    def test_what_was_emptied_is_not_counted(self) -> None:
        """As it is not sent; a row without a body is told."""
        recorder = Recorder(self.file)
        for number in range(3):
            recorder.record("/p/a" if number == 1 else "/r/a/m", {"id": number})
        recorder.commit()
        self.file.history._empty([1])
        for is_backwards in (False, True):
            asked = Asked(Pattern.parse("/**"), is_backwards=is_backwards)
            self.assertEqual(sorted(self.all_of(asked, 3)), [2, 3])
        self.file._db.execute("UPDATE entries SET body = x'01' WHERE seq = 2")
        with self.assertRaisesRegex(DamagedRowError, "row 2 is damaged"):
            self.all_of(Asked(Pattern.parse("/**"), is_backwards=True), 3)

    def test_page_is_bounded(self) -> None:
        """In entries, in bytes, and in what was looked at; the next one begins there."""
        recorder = Recorder(self.file)
        for number in range(12):
            recorder.record(f"/p/{number}", "x" * 100)
        recorder.commit()
        for is_backwards, kind in ((False, "PAGE"), (True, "COUNTED")):
            for limit, value in ((f"{kind}_ROWS", 5), (f"{kind}_BYTES", 900), ("EXAMINED_ROWS", 5)):
                with self.subTest(limit=limit, is_backwards=is_backwards):
                    self.patch(history_reader, limit, value)
                    asked = Asked(Pattern.parse("/p/*"), is_backwards=is_backwards)
                    seqs = self.all_of(asked, at_most=6)
                    self.assertEqual(sorted(seqs, reverse=is_backwards), seqs)
                    self.assertEqual(len(seqs), 12)
                    self.patch(history_reader, limit, 10_000)

    def all_of(self, asked: Asked, at_most: int, known: KnownKeys | None = None) -> list[int]:
        """Returns the seqs of all pages, none of which has more than it may."""
        seqs: list[int] = []
        known = known or KnownKeys()
        while True:
            page = read_page(self.file._db, asked, RULES, START_US, known)
            self.assertLessEqual(len(page.entries), at_most)
            seqs += [entry.seq for entry in page.entries]
            if page.is_end:
                return seqs
            key = "before_seq" if asked.is_backwards else "after_seq"
            asked = asked._replace(**{key: page.examined_seq})  # type: ignore[arg-type]

    def test_times_narrow_what_is_looked_at(self) -> None:
        """By the rows that lead from a time to a seq."""
        recorder = Recorder(self.file)
        for number in range(40):
            recorder.record(f"/p/{number}", number)
            recorder.commit()
            recorder.clock.clock.advance(60)
        asked = Asked(Pattern.parse("/p/*"), from_us=START_US + 20 * 60_000_000, to_us=START_US + 22 * 60_000_000)
        for is_backwards in (False, True):
            page = read_page(self.file._db, asked._replace(is_backwards=is_backwards), RULES, START_US, KnownKeys())
            self.assertEqual(sorted(entry.seq for entry in page.entries), [21, 22, 23])
            self.assertLess(page.examined_bytes, 3 * 200 + 300)

    def test_page_before_all_that_is_kept_ends_before_it(self) -> None:
        """Who asks for a time before it, and goes on from there, misses nothing; likewise between entries."""
        recorder = Recorder(self.file)
        for number in range(5):
            recorder.record(f"/p/{number}", number)
            recorder.commit()
            recorder.clock.clock.advance(600)
        asked = Asked(Pattern.parse("/p/*"), before_seq=6)
        minute_us = 60_000_000
        for from_us, to_us, next_seq in (
            (0, START_US - 10 * minute_us, 0),
            (START_US + 11 * minute_us, START_US + 15 * minute_us, 2),
            (START_US + 60 * minute_us, START_US + 70 * minute_us, 5),
        ):
            with self.subTest(next_seq=next_seq):
                question = asked._replace(from_us=from_us, to_us=to_us)
                expected: list[Page | None] = []
                recorder.memory.read(question, expected.append)
                page = read_page(self.file._db, question, RULES, START_US, KnownKeys())
                self.assertEqual((page.entries, page.examined_seq, page.is_end), ([], next_seq, True))
                assert expected[0] is not None
                self.assertEqual(expected[0].examined_seq, next_seq)
        for to_us in (START_US - 10 * minute_us, START_US + 11 * minute_us):
            with self.subTest("who goes on from an entry does not go back", to_us=to_us):
                question = asked._replace(after_seq=4, to_us=to_us)
                page = read_page(self.file._db, question, RULES, START_US, KnownKeys())
                self.assertEqual((page.entries, page.examined_seq, page.is_end), ([], 4, True))


class HistoryReaderTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        """Makes a log, and a reader of its journal."""
        self.file = open_journal(make_folder(self) / "journal.db", syncs_each_commit=False)
        self.recorder = Recorder(self.file)
        self.log = JournalLog(reactor, lambda _: False, self.recorder.keeping.judge)
        self.log.open(self.file, 0)
        self.reader = HistoryReader(reactor, self.log, RULES, self.recorder.clock.now_us)
        self.reader.open()
        self.addCleanup(self.log.close)
        self.addCleanup(self.reader.close)

    def read(self) -> Deferred[Page | None]:
        """Reads everything."""
        done: Deferred[Page | None] = Deferred()
        self.reader.read(Asked(Pattern.parse("/**")), done.callback)
        return done

    def settle(self) -> Deferred[int | None]:
        """Waits until all is recorded."""
        done: Deferred[int | None] = Deferred()
        self.reader.settle(done.callback)
        return done

    def older(self, before_seq: int) -> Deferred[HistoryPage | None]:
        """Reads for another relay."""
        done: Deferred[HistoryPage | None] = Deferred()
        self.reader.read_older(before_seq, done.callback)
        return done

    @inlineCallbacks
    def test_entries_of_another_relay_are_given_taken_and_found(self) -> Steps:
        """Also those of keys that are older than all that were known; nothing is given that cannot be read."""
        self.log.restart_at(10)
        self.log.append((Change(Param("/p/b", encode_value(2), 1, "w", START_US + 9)),))
        yield self.settle()
        page = yield self.read()
        self.assertEqual([entry.address for entry in page.entries], ["/p/b"])
        given = yield self.older(12)
        body = encode_body(Change(Param("/p/a", encode_value(1), 1, "w", START_US)))
        key = self.recorder.keeping.spot("/p/a").key
        row = HistoryRow(1, START_US, int(ChangeKind.WRITE), "/p/a", key, "", body)
        yield self.log.run(lambda file: insert_page(file, given._replace(rows=(row,))))
        self.reader.forget()
        page = yield self.read()
        self.assertEqual([entry.address for entry in page.entries], ["/p/a", "/p/b"])
        self.assertEqual([each.seq for each in (yield self.older(12)).rows], [11, 1])
        yield self.log.run(lambda file: file._db.execute("DROP TABLE history_rules"))
        with capturedLogs() as logs:
            self.assertIsNone((yield self.older(12)))
        self.assertEqual([each["event"] for each in logs], ["history.unreadable"])
        self.reader.close()
        self.assertIsNone((yield self.older(12)))

    @inlineCallbacks
    def test_what_was_appended_is_read_once_it_is_settled(self) -> Steps:
        """In another thread, with a connection that cannot write."""
        change = Change(Param("/p/a", encode_value(1), 1, "w", START_US))
        self.log.append((change,))
        seq = yield self.settle()
        page = yield self.read()
        self.assertEqual((seq, [(entry.seq, entry.change) for entry in page.entries]), (1, [(1, change)]))
        assert self.reader._db is not None
        with self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
            self.reader._db.execute("DELETE FROM history")

    @inlineCallbacks
    def test_keys_that_a_pattern_may_match_are_remembered(self) -> Steps:
        """For some patterns, and up to a bound."""
        self.log.append((Change(Param("/p/a", encode_value(1), 1, "w", START_US)),))
        yield self.log.recorded()
        asked: list[str] = []
        real = RULES.key_may_match

        def may_match(key: str, pattern: Pattern) -> bool:
            asked.append(key)
            return real(key, pattern)

        self.patch(RULES, "key_may_match", may_match)
        for _ in range(3):
            page = yield self.read()
            self.assertEqual(len(page.entries), 1)
        self.assertEqual(asked, ["1:/p/a"])
        self.patch(history_reader, "MAX_MATCHES", 1)
        done: Deferred[Page | None] = Deferred()
        self.reader.read(Asked(Pattern.parse("/r/*/m")), done.callback)
        self.assertEqual((yield done).entries, [])
        self.assertEqual(list(self.reader._matches), ["/r/*/m"])

    @inlineCallbacks
    def test_journal_that_is_lost_is_never_settled(self) -> Steps:
        """Whoever waits is told."""
        self.log.append((Change(Param("/p/a", encode_value(1), 1, "w", START_US)),))
        yield self.log.recorded()
        self.file._db.execute("CREATE TRIGGER no BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'no'); END")
        self.log.append((Change(Param("/p/a", encode_value(2), 2, "w", START_US)),))
        self.assertIsNone((yield self.settle()))
        self.assertIsNone((yield self.settle()))

    @inlineCallbacks
    def test_row_that_cannot_be_read_is_logged(self) -> Steps:
        """With the file's name; a fault of ours with its traceback."""
        self.log.append((Change(Param("/p/a", encode_value(1), 1, "w", START_US)),))
        yield self.log.recorded()
        yield self.log.run(lambda file: file._db.execute("UPDATE entries SET body = x'00'"))
        with capturedLogs() as logged:
            self.assertIsNone((yield self.read()))
        self.assertIn("row 1 is damaged", str(logged[0]["log_format"].format(**logged[0])))
        self.patch(history_reader, "read_page", lambda *_: 1 // 0)
        self.assertIsNone((yield self.read()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def erase(self, subject: str) -> Deferred[int | None]:
        """Erases what somebody said."""
        done: Deferred[int | None] = Deferred()
        self.reader.erase_of(subject, done.callback)
        return done

    @inlineCallbacks
    def test_what_somebody_said_is_erased(self) -> Steps:
        """Also what is not recorded yet, in as many pieces as it takes."""
        self.patch(history_table, "ERASED_AT_ONCE", 2)
        for number, subject in enumerate("abaab"):
            self.log.append((Change(Param("/p/a", encode_value(number), 1, "w", START_US, subject=subject)),))
        self.assertEqual((yield self.erase("a")), 2)  # of its three the rule keeps two
        page = yield self.read()
        self.assertEqual({entry.change.param.subject for entry in page.entries}, {"b"})
        self.assertEqual((yield self.erase("nobody")), 0)

    @inlineCallbacks
    def test_what_cannot_be_erased_is_told(self) -> Steps:
        """With the file's name; a fault of ours with its traceback; nobody waits for ever."""
        self.log.append((Change(Param("/p/a", encode_value(1), 1, "w", START_US, subject="a")),))
        yield self.log.recorded()
        yield self.log.run(
            lambda file: file._db.execute(
                "CREATE TRIGGER no BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        )
        with capturedLogs() as logged:
            self.assertIsNone((yield self.erase("a")))
        self.assertIn("cannot be erased now (no)", str(logged[0]["log_format"].format(**logged[0])))
        self.patch(history_reader, "_erase_some", lambda *_: 1 // 0)
        self.assertIsNone((yield self.erase("a")))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.reader.close()
        self.assertIsNone((yield self.erase("a")))

    @inlineCallbacks
    def test_lost_journal_erases_nothing(self) -> Steps:
        """Whoever waits is told."""
        self.patch(self.log, "lost", "journal.db: no")
        self.assertIsNone((yield self.erase("a")))

    @inlineCallbacks
    def test_closed_reader_reads_nothing(self) -> Steps:
        """It says so at once."""
        self.reader.close()
        self.assertIsNone((yield self.read()))
