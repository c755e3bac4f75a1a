"""Tests of clasp_relay.storage.audit: rows that are added, found, and go when they are old."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.storage import audit as module
from clasp_relay.storage.audit import AuditEntry, AuditStore
from clasp_relay.storage.users_sqlite import SqliteUsers


class AuditStoreTests(SynchronousTestCase):
    """In a file, so that another connection can try to change it."""

    def setUp(self) -> None:
        """Makes the file, with three rows."""
        self.path = Path(self.mktemp())
        users = SqliteUsers(self.path, name_keys)
        self.addCleanup(users.close)
        self.audit: AuditStore = users.audit
        self.audit.add(
            [
                AuditEntry(10, "login", "ok", "u1", "Alice", address="aa"),
                AuditEntry(20, "login", "Unauthenticated", address="bb"),
                AuditEntry(30, "admin.disable", "ok", "u1", "Alice", "u2", "aa", {"name": "Bób"}),
            ]
        )

    def seqs(self, seq: int | None = None, limit: int = 10, action: str = "", search: str = "") -> list[int]:
        """Returns the seqs of a page."""
        return [row.seq for row in self.audit.before(seq, limit, action, search)[0]]

    def test_rows_come_back_as_they_were_added(self) -> None:
        """The latest first in pages, the oldest first in an export."""
        rows, more = self.audit.before(None, 2)
        self.assertEqual(([row.seq for row in rows], more), ([3, 2], 2))
        self.assertEqual(self.audit.before(more, 2), ([self.audit.after(0, 1)[0]], 0))
        self.assertEqual(
            rows[0].as_json(),
            {
                "seq": 3,
                "at": 30,
                "action": "admin.disable",
                "outcome": "ok",
                "actor": "u1",
                "actor_name": "Alice",
                "target": "u2",
                "address": "aa",
                "detail": {"name": "Bób"},
            },
        )
        self.assertEqual([row.seq for row in self.audit.after(1, 10)], [2, 3])

    def test_line_is_safe_to_show(self) -> None:
        """Whoever calls a room as they like neither controls a terminal nor turns what stands beside it."""
        name = "Bób \u202e1a\u2066\x07\x9b31m\x7f\u2028"
        self.audit.add([AuditEntry(40, "admin.room.delete", "ok", "u1", "Alice", "r1", "aa", {"name": name})])
        (row,) = self.audit.after(3, 1)
        line = row.as_line()
        self.assertIn("Bób", line)
        self.assertTrue(line.isprintable(), ascii(line))
        self.assertEqual(json.loads(line), row.as_json())

    def test_rows_are_found_by_action_and_text(self) -> None:
        """Wherever the text stands, and irrespective of case; an empty table has none."""
        self.assertEqual(self.seqs(action="login"), [2, 1])
        self.assertEqual(self.seqs(search="ALICE"), [3, 1])
        self.assertEqual(self.seqs(search="unauth"), [2])
        self.assertEqual(self.seqs(search="%"), [])
        self.audit.trim(1_000)
        self.assertEqual(self.audit.before(None, 5), ([], 0))

    def test_search_goes_on_behind_what_one_call_looks_at(self) -> None:
        """So that it holds nobody up."""
        self.patch(module, "EXAMINED_AT_ONCE", 2)
        self.assertEqual(self.audit.before(None, 5, "", "aa")[1], 2)
        self.assertEqual([row.seq for row in self.audit.before(2, 5, "", "aa")[0]], [1])

    def test_nothing_changes_a_row(self) -> None:
        """Not another program's SQL either: neither UPDATE, nor DELETE, nor REPLACE, nor a bound that goes back."""
        self.audit.trim(15)
        attempts = (
            "UPDATE audit SET actor = 'u2'",
            "UPDATE OR REPLACE audit SET seq = 2 WHERE seq = 3",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE seq = 3",
            "INSERT OR REPLACE INTO audit VALUES (3, 1, 'x', 'ok', '', '', '', '', '{}')",
            "REPLACE INTO audit VALUES (2, 1, 'x', 'ok', '', '', '', '', '{}')",
            "UPDATE audit_bounds SET first_seq = 1",
            "DELETE FROM audit_bounds",
            "INSERT OR REPLACE INTO audit_bounds VALUES (1, 1)",
        )
        before = self.audit.after(0, 10)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            for attempt in attempts:
                with self.subTest(sql=attempt):
                    self.assertRaisesRegex(sqlite3.IntegrityError, "append-only", db.execute, attempt)
        self.assertEqual(self.audit.after(0, 10), before)

    def test_old_rows_go_and_their_numbers_are_not_used_again(self) -> None:
        """Up to the first that is young; so do those that are too many."""
        self.assertEqual(self.audit.trim(5), 0)
        self.assertEqual(self.audit.trim(25), 2)
        self.assertEqual([row.seq for row in self.audit.after(0, 10)], [3])
        self.assertEqual(self.audit.trim(1_000), 1)
        self.audit.add([AuditEntry(40, "x"), AuditEntry(41, "y")])
        self.assertEqual(self.audit.trim(0, max_rows=1), 1)
        self.assertEqual([row.seq for row in self.audit.after(0, 10)], [5])

    def test_entries_are_added_all_or_none(self) -> None:
        """And a detail that is too long is left out."""
        broken = AuditEntry(1, None)  # type: ignore[arg-type]
        self.assertRaises(sqlite3.IntegrityError, self.audit.add, [AuditEntry(1, "x"), broken])
        self.audit.add([AuditEntry(50, "x", detail={"text": "x" * 5_000})])
        rows = self.audit.after(3, 10)
        self.assertEqual([dict(row.entry.detail) for row in rows], [{"left_out": True}])
