"""Tests of clasp_relay.access.audit: what is written when, and what is left out."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import audit as module
from clasp_relay.access.audit import Actor, Audit
from clasp_relay.access.names import name_keys
from clasp_relay.access.threads import Workers
from clasp_relay.storage.audit import AuditEntry, AuditRow
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.access.stack import InlineWorkers, Stack, SteppedWorkers

ALICE = Actor("u1", "Alice", "192.0.2.1")


class AuditTests(SynchronousTestCase):
    """Over a store in memory."""

    def setUp(self) -> None:
        """Makes the log."""
        self.clock = Clock()
        self.clock.advance(1_000)
        self.users = SqliteUsers(None, name_keys)
        self.addCleanup(self.users.close)
        self.audit = self.make(InlineWorkers())

    def make(self, sql: Workers, max_age_days: int = 0) -> Audit:
        """Makes a log."""
        return Audit(self.users.audit, sql, self.clock, self.clock.seconds, lambda text: f"#{text}", max_age_days)

    def rows(self) -> list[AuditRow]:
        """Returns what is written."""
        return self.users.audit.after(0, 1_000)

    def actions(self) -> list[str]:
        """Returns the actions that are written."""
        return [row.entry.action for row in self.rows()]

    def test_entries_have_time_and_the_mark_of_the_address(self) -> None:
        """Never the address itself."""
        self.audit.note("login", "ok", ALICE)
        entry = AuditEntry(1_000, "login", "ok", "u1", "Alice", "", "#192.0.2.1", {})
        self.assertEqual(self.rows(), [AuditRow(1, entry)])

    def test_recorded_entry_is_on_the_disk_when_it_is_told(self) -> None:
        """Those that come meanwhile are the next batch."""
        sql = SteppedWorkers()
        audit = self.make(sql)
        first = audit.record(audit.entry("a", ALICE))
        second = audit.record(audit.entry("b", ALICE, "u2", detail={"n": 1}))
        audit.note("login", "ok", ALICE)
        self.assertNoResult(first)
        sql.step()
        self.successResultOf(first)
        self.assertNoResult(second)
        sql.step()
        self.successResultOf(second)
        self.assertEqual(self.actions(), ["a", "b", "login"])

    def test_entries_wait_while_another_process_holds_the_file(self) -> None:
        """In their order."""
        sql = SteppedWorkers()
        audit = self.make(sql)
        first = audit.record(audit.entry("a", ALICE))
        sql.fail(StoreBusy("users.db"))
        second = audit.record(audit.entry("b", ALICE))
        self.assertEqual(sql.steps, [])
        self.clock.advance(module.RETRY_S)
        sql.step()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.actions(), ["a", "b"])

    def test_fault_of_the_disk_fails_what_waits(self) -> None:
        """And is logged; what comes afterwards is written again."""
        sql = SteppedWorkers()
        audit = self.make(sql)
        first = audit.record(audit.entry("a", ALICE))
        sql.fail(OSError("disk"))
        self.failureResultOf(first, OSError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        audit.note("b", "ok", ALICE)
        sql.step()
        self.assertEqual(self.actions(), ["b"])

    def test_calls_beyond_the_rate_of_an_address_are_counted(self) -> None:
        """Others' calls, and the same address's calls of the other outcome, are written all the same."""
        for _ in range(module.FAILURES[1] + 5):
            self.audit.note("login", "Unauthenticated", ALICE)
        self.assertEqual(len(self.rows()), module.FAILURES[1])
        self.audit.note("login", "ok", ALICE)
        self.audit.note("login", "Unauthenticated", Actor(address="192.0.2.2"))
        last = self.rows()[module.FAILURES[1] :]
        self.assertEqual([row.entry.action for row in last], ["audit.left_out", "login", "login"])
        self.assertEqual(last[0].entry.detail, {"count": 5})
        self.clock.advance(5)
        self.audit.note("login", "Unauthenticated", ALICE)
        self.assertEqual(len(self.rows()), module.FAILURES[1] + 4)
        for _ in range(400):
            self.audit.note("guest", "ok", ALICE)
        self.assertEqual(self.actions().count("guest"), module.SUCCESSES[1])

    def test_way_in_is_written_however_many_calls_came_before(self) -> None:
        """Nobody hides a sign-in to the console, or a new password, behind sign-ins that cost nothing."""
        for _ in range(module.SUCCESSES[1] + 5):
            self.audit.note("guest", "ok", ALICE)
        for action in ("console", "reset", "password"):
            self.audit.note(action, "ok", ALICE)
        self.assertEqual(self.actions()[-3:], ["console", "reset", "password"])

    def test_crowd_of_addresses_does_not_push_out_what_was_done(self) -> None:
        """All addresses together have a rate, so that a million entries are not theirs within minutes."""
        self.patch(module, "ALL_SUCCESSES", (1.0, 5))
        self.patch(module, "ALL_FAILURES", (1.0, 3))
        audit = self.make(InlineWorkers())
        audit.record(audit.entry("admin.x", ALICE))
        for number in range(20):
            audit.note("guest", "ok", Actor(address=str(number)))
        for number in range(20):
            audit.note("login", "Unauthenticated", Actor(address=str(number)))
        actions = self.actions()
        self.assertEqual((actions[0], actions.count("guest"), actions.count("login")), ("admin.x", 5, 3))
        self.clock.advance(1)
        audit.note("guest", "ok", Actor(address="99"))
        self.assertEqual([row.entry.detail for row in self.rows()][-2:], [{"count": 17}, {}])

    def test_memory_is_bounded(self) -> None:
        """Of addresses and of what waits; what administrators do is never left out."""
        self.patch(module, "MAX_ADDRESSES", 3)
        self.patch(module, "MAX_PENDING", 2)
        sql = SteppedWorkers()
        audit = self.make(sql)
        for number in range(10):
            audit.note("login", "ok", Actor(address=str(number)))
        audit.record(audit.entry("admin.x", ALICE))
        sql.finish()
        audit.close()
        self.assertEqual(self.actions(), ["login", "login", "login", "admin.x", "audit.left_out"])

    def test_closing_writes_what_is_pending(self) -> None:
        """On the caller's thread, and without a timer that stays."""
        sql = SteppedWorkers()
        audit = self.make(sql)
        audit.note("a", "ok", ALICE)
        sql.fail(StoreBusy("users.db"))
        audit.note("b", "ok", ALICE)
        audit.close()
        self.assertEqual(self.actions(), ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        audit.note("c", "ok", ALICE)
        audit.close()
        self.assertEqual((self.actions(), len(sql.steps)), (["a", "b"], 0))
        self.make(sql).close()

    def test_page_goes_on_where_the_one_before_ended(self) -> None:
        """Also where a search has to look at more than one call does."""
        self.users.audit.add([AuditEntry(1, "x" if number % 5 else "y") for number in range(20)])
        self.patch(module, "SEARCHED_AT_MOST", 2)
        rows, more = self.successResultOf(Deferred.fromCoroutine(self.audit.page(None, 3, "y")))
        self.assertEqual([row.seq for row in rows], [16, 11, 6])
        rows, more = self.successResultOf(Deferred.fromCoroutine(self.audit.page(more, 3, "y")))
        self.assertEqual(([row.seq for row in rows], more), ([1], 0))
        export = self.successResultOf(Deferred.fromCoroutine(self.audit.after(18)))
        self.assertEqual([row.seq for row in export], [19, 20])

    def test_old_entries_are_trimmed(self) -> None:
        """After the days that the operator chose; a busy relay leaves them for the next time."""
        self.users.audit.add([AuditEntry(1, "old"), AuditEntry(999, "new")])
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.audit.trim())), 0)
        self.clock.advance(module.DAY_S - 500)
        sql = SteppedWorkers()
        audit = self.make(sql, max_age_days=1)
        trimmed = Deferred.fromCoroutine(audit.trim())
        sql.fail(StoreBusy("users.db"))
        self.assertEqual(self.successResultOf(trimmed), 0)
        trimmed = Deferred.fromCoroutine(audit.trim())
        sql.finish()
        self.assertEqual(self.successResultOf(trimmed), 1)
        self.assertEqual(self.actions(), ["new"])


class AuthEventTests(SynchronousTestCase):
    """What the calls of the accounts note."""

    def test_every_call_is_noted_with_who_made_it(self) -> None:
        """Failures with whose name was tried, where there is one; nothing that a client typed."""
        stack = Stack()
        self.addCleanup(stack.store.close)
        noted: list[tuple[str, str, Actor]] = []
        accounts = stack.accounts
        accounts._note = lambda *note: noted.append(note)
        home = "192.0.2.1"
        token = self.successResultOf(accounts.register("Alice", "password", "a1", None, home)).token
        self.failureResultOf(accounts.login("Alice", "wrong", home))
        self.failureResultOf(accounts.login("my password", "wrong", home))
        self.successResultOf(accounts.login("alice", "password", home))
        self.successResultOf(accounts.guest("Gina", "g1", None, home))
        self.successResultOf(accounts.change_password("password", "new password", token, home))
        self.successResultOf(accounts.refresh(token, home))
        self.successResultOf(accounts.logout(token, home))
        alice = Actor("a1", "Alice", home)
        self.assertEqual(
            noted,
            [
                ("register", "ok", alice),
                ("login", "Unauthenticated", alice),
                ("login", "Unauthenticated", Actor(address=home)),
                ("login", "ok", alice),
                ("guest", "ok", Actor("g1", "Gina", home)),
                ("password", "ok", alice),
                ("refresh", "ok", alice),
                ("logout", "ok", alice),
            ],
        )

    def test_disabled_account_signs_in_nowhere(self) -> None:
        """Who knows the password is told why; who does not is told what everybody is."""
        stack = Stack()
        self.addCleanup(stack.store.close)
        accounts = stack.accounts
        token = self.successResultOf(accounts.register("Alice", "password", "a1", None, "192.0.2.1")).token
        stack.store.administration.disable("a1", AuditEntry(0, "x"))
        calls = (
            (accounts.login("Alice", "password", "192.0.2.1"), "disabled"),
            (accounts.sign_in("Alice", "password", "192.0.2.1"), "disabled"),
            (accounts.login("Alice", "wrong", "192.0.2.1"), "wrong"),
            (accounts.refresh(token, "192.0.2.1"), "not valid"),
        )
        for call, words in calls:
            with self.subTest(words=words):
                self.assertIn(words, str(self.failureResultOf(call).value))
