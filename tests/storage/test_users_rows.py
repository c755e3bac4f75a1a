"""Tests of clasp_relay.storage.users_rows: several files that have the same rows, whichever was asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage import users_rows as module
from clasp_relay.storage.administration import AdminStore
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.devices import DeviceToken
from clasp_relay.storage.files import StoredFile
from clasp_relay.storage.hooks import Hook
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.storage.sent_files import Bounds
from clasp_relay.storage.session_ids import GivenId
from clasp_relay.storage.users import Claim, NameTaken, StoreBusy, StoreRefusal, TokenGone, UserChanged
from clasp_relay.storage.users_rows import TABLES, Position, Row, Told
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_users_sqlite import ALICE, BOB, DAY_S, GINA, GUEST, NO_PROOF, NOW_S, keys_of, token, user

FILE = StoredFile("0" * 32, "u1", b"", 5, 4096, NOW_S, NOW_S)
BOUNDS = Bounds(0, 8192, 8192, 65_536, 32_768)
ANY_GUEST = Claim(None, True, NOW_S)
ENTRY = AuditEntry(NOW_S, "admin.test", actor="root")
DEVICE = DeviceToken("d1", b"device", "clasp.device.d1", "lamp", ("read:/**",), NOW_S, None)
SUBSCRIPTION = Subscription("https://push.example/1", "u1", b"key", b"auth", b"a", NOW_S)

CALLS: tuple[tuple[str, Callable[[SqliteUsers], object]], ...] = (
    ("a user", lambda s: s.add_user(user(), ALICE, token("a"), NO_PROOF)),
    ("another user", lambda s: s.add_user(user("u2", "Bob"), BOB, token("b", "u2"), NO_PROOF)),
    ("a guest", lambda s: s.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)),
    ("a guest's file", lambda s: s.files.add(FILE._replace(id="1" * 32, subject="g1", origin=b"home"), BOUNDS)),
    ("a file", lambda s: s.files.add(FILE, BOUNDS)),
    ("a file of before", lambda s: s.files.adopt(FILE._replace(id="3" * 32, charged=BOUNDS.whole))),
    ("its bytes, too", lambda s: s.files.store("3" * 32, is_of_before=True)),
    ("no room", lambda s: s.files.add(FILE._replace(id="2" * 32, charged=BOUNDS.whole), BOUNDS)),
    ("its bytes", lambda s: s.files.store(FILE.id)),
    ("a reader", lambda s: s.files.note_read(FILE.id, NOW_S + DAY_S)),
    ("a sign-in", lambda s: s.add_user_token(token("a2"), 0)),
    ("a refresh", lambda s: s.add_refreshed_token(token("a3")._replace(replaces=token("a").digest), token("a").digest)),
    ("its first use", lambda s: s.end_replaced(token("a3").digest, NOW_S + 60)),
    ("room", lambda s: s.end([token("a2").digest], NOW_S + 5)),
    ("a clock", lambda s: s.redate([token("b").digest], 1_000)),
    ("an invite", lambda s: s.add_invite(b"invite", NOW_S, None, 2)),
    ("its use", lambda s: s.add_user(user("u3", "Gina"), GINA, token("c", "u3"), NO_PROOF, b"invite")),
    ("another hash", lambda s: s.replace_hash(user(), "stronger")),
    ("a password", lambda s: s.change_password(user(), "new hash", token("a").digest, NOW_S + 9)),
    ("a sign-out", lambda s: s.revoke(token("b").digest, NOW_S + 9)),
    ("an administrator", lambda s: s.administration.grant("u1", ENTRY)),
    ("another", lambda s: s.administration.grant("u2", ENTRY)),
    ("no longer", lambda s: s.administration.withdraw("u2", ENTRY)),
    ("a link", lambda s: s.administration.add_reset("u1", b"reset 1", NOW_S + DAY_S, ENTRY)),
    ("a later link", lambda s: s.administration.add_reset("u1", b"reset 2", NOW_S + DAY_S, ENTRY)),
    ("the link's use", lambda s: s.administration.use_reset(b"reset 2", "hash", NOW_S)),
    ("a name", lambda s: s.administration.rename("u3", "Guest", GUEST, ENTRY)),
    ("a choice", lambda s: s.administration.choose({"registration": "closed", "guests": "off"}, ENTRY)),
    ("a choice taken back", lambda s: s.administration.choose({"guests": None}, ENTRY)),
    ("disabled", lambda s: s.administration.disable("u3", ENTRY)),
    ("enabled", lambda s: s.administration.enable("u3", ENTRY)),
    ("entries", lambda s: s.audit.add([ENTRY, ENTRY._replace(detail={"ü": [1, None]})])),
    ("a browser", lambda s: s.push.add(SUBSCRIPTION)),
    ("another browser", lambda s: s.push.add(SUBSCRIPTION._replace(endpoint="https://push.example/2"))),
    ("a browser gone", lambda s: s.push.remove(["https://push.example/2"])),
    ("ids", lambda s: s.session_ids.note([GivenId("s1", "u1", NOW_S), GivenId("s2", "u1", NOW_S)], [], 0)),
    ("an id forgotten", lambda s: s.session_ids.note([], ["s1"], 0)),
    ("an id seen again", lambda s: s.session_ids.note([GivenId("s2", "u1", NOW_S + 5)], [], 0)),
    ("a device", lambda s: s.devices.add(DEVICE, is_own_subject=True)),
    ("a device revoked", lambda s: s.devices.revoke("d1", NOW_S)),
    ("a webhook", lambda s: s.hooks.add(Hook(b"hook" * 8, "/chat/room/r/messages", "chat", "bot", NOW_S))),
    ("an invite revoked", lambda s: s.revoke_invite(b"invite"[:4].hex())),
    ("deleted", lambda s: s.administration.delete("u3", ENTRY, erases_messages=True)),
    ("nothing left", lambda s: s.administration.deleted("u3", ENTRY)),
    ("the guest is a user", lambda s: s.add_user(user("g1", "Gast"), keys_of("Gast"), token("h", "g1"), ANY_GUEST)),
    ("a file removed", lambda s: s.files.remove(FILE.id)),
    ("objects without a record", lambda s: s.files.confirm_missing([FILE.id, "1" * 32])),
    ("audit trimmed", lambda s: s.audit.trim(0, 3)),
    ("tokens purged", lambda s: s.purge(NOW_S + 300 * DAY_S, 1_000)),
)
"""Something of everything that changes the file; what it returns is the same wherever it is called."""


def everything(store: SqliteUsers) -> dict[str, list[Row]]:
    """Returns all rows of a store, by table."""
    found: dict[str, list[Row]] = {}
    for rows in store.rows.dump():
        found.setdefault(rows[0].table, []).extend(rows)
    return {name: sorted(rows, key=lambda row: repr(tuple(row))) for name, rows in found.items()}


class Files:
    """Files that follow one log."""

    def __init__(self, *stores: SqliteUsers) -> None:
        self.stores = stores
        self.number = 0
        for store in stores:
            store.rows.begin()

    def ask(self, call: Callable[[SqliteUsers], object], at: int = 0) -> Any:
        """Attempts a call at one of them, has all follow, and returns its result."""
        store = self.stores[at]
        before = everything(store)
        (attempt,) = store.rows.attempt([lambda: call(store)], (StoreRefusal,))
        assert everything(store) == before, "an attempt has changed something"
        self.follow(attempt.rows)
        if isinstance(attempt.result, Exception):
            raise attempt.result
        return attempt.result

    def follow(self, rows: Iterable[Row], *told: Told) -> None:
        """Has all write rows."""
        self.number += 1
        for store in self.stores:
            store.rows.follow(self.number, b"%d" % self.number, tuple(rows), [], told)

    def tell(self, at: int) -> None:
        """Has all follow what was changed in one of them."""
        outside = self.stores[at].rows.outside(1_000)
        assert outside is not None, "nothing was changed"
        decider = self.stores[0]
        (attempt,) = decider.rows.attempt([lambda: decider.rows.put(outside.rows, outside.told)], (StoreRefusal,))
        assert attempt.told == outside.told
        self.follow(attempt.rows, outside.told)


_OWN = {"log_position", "log_calls", "changed_rows", "own_erasures", "sent_files_use", "sent_files_totals"}
"""Tables that each file has for itself."""


class _Case(SynchronousTestCase):
    """Makes stores."""

    def store(self, path: Path | None = None) -> SqliteUsers:
        """Returns an empty store."""
        store = SqliteUsers(path, keys_of)
        self.addCleanup(store.close)
        return store

    def files(self, count: int = 2) -> Files:
        """Returns files that follow one log."""
        return Files(*(self.store() for _ in range(count)))


class RowsTests(_Case):
    """What files have in common."""

    def test_all_tables_are_followed(self) -> None:
        """With all of their columns; a new one has to be entered here."""
        store = self.store()
        tables = {
            row[0]
            for row in store.rows._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row[0].startswith("sqlite_")
        }
        self.assertEqual(tables - _OWN, set(TABLES))
        for name, table in TABLES.items():
            columns = store.rows._db.execute(f"PRAGMA table_info({name})").fetchall()
            with self.subTest(table=name):
                self.assertEqual({column[1] for column in columns}, {*table.key, *table.rest})
                self.assertEqual({column[1] for column in columns if column[5]}, set(table.key))

    def test_what_is_attempted_and_followed_is_what_a_call_does(self) -> None:
        """Whichever method it is: the same result, the same rows, in every file."""
        files, alone = self.files(), self.store()
        for name, call in CALLS:
            with self.subTest(call=name):
                self.assertEqual(files.ask(call), call(alone))
                for store in files.stores:
                    self.assertEqual(everything(store), everything(alone))

    def test_it_does_not_matter_who_decides(self) -> None:
        """Each file can go on where the others were, the numbers of the audit log included."""
        files, alone = self.files(3), self.store()
        for place, (name, call) in enumerate(CALLS):
            with self.subTest(call=name):
                self.assertEqual(files.ask(call, at=place % 3), call(alone))
        for store in files.stores:
            self.assertEqual(everything(store), everything(alone))

    def test_several_calls_are_attempted_together(self) -> None:
        """Each finds what those before it would have led to; one that refuses changes nothing."""
        store = self.store()
        store.rows.begin()
        calls: list[Callable[[], object]] = [
            lambda: store.add_user(user(), ALICE, token("a"), NO_PROOF),
            lambda: store.add_user(user("u2", "Alice"), ALICE, token("b", "u2"), NO_PROOF),
            lambda: store.change_password(user(), "new", token("a").digest, NOW_S),
            lambda: store.change_password(user(), "newer", token("a").digest, NOW_S),
            lambda: store.audit.add([ENTRY]),
            lambda: store.audit.add([ENTRY]),
        ]
        attempts = store.rows.attempt(calls, (StoreRefusal,))
        self.assertEqual([attempt.is_refused for attempt in attempts], [False, True, False, True, False, False])
        self.assertIsInstance(attempts[1].result, NameTaken)
        self.assertIsInstance(attempts[3].result, UserChanged)
        self.assertEqual(attempts[1].rows, ())
        self.assertEqual([row.key for attempt in attempts[4:] for row in attempt.rows], [(1,), (2,)])
        self.assertIsNone(store.user("u1"))

    def test_what_fails_ends_the_attempt_and_leaves_the_file_as_it_was(self) -> None:
        """The next attempt works."""
        store = self.store()
        store.rows.begin()

        def fail() -> None:
            store.add_invite(b"x", NOW_S, None, 1)
            raise ValueError

        self.assertRaises(ValueError, store.rows.attempt, [fail], (StoreRefusal,))
        self.assertEqual(store.invites(NOW_S), [])
        store.add_invite(b"y", NOW_S, None, 1)
        self.assertEqual([each.digest for each in store.invites(NOW_S)], [b"y"])

    def test_a_record_is_written_once(self) -> None:
        """What the file has is left alone; one that comes too early is a fault of ours."""
        store = self.store()
        store.rows.begin()
        row = Row("choices", ("a",), ("1",))
        store.rows.follow(1, b"one", [row], [("r1", 5)])
        store.rows.follow(1, b"one", [row._replace(values=("2",))], [("r1", 9)])
        self.assertEqual(store.administration.decided().choices, {"a": "1"})
        self.assertEqual(store.rows.calls(), {"r1": 5})
        self.assertRaises(AssertionError, store.rows.follow, 3, b"three", [], [])
        self.assertEqual(store.rows.position(), Position(1, b"one", b"one"))
        store.rows.follow(2, b"two", [], [])
        self.assertEqual(store.rows.position(), Position(2, b"two", b"one"))

    def test_calls_of_relays_of_long_ago_are_forgotten(self) -> None:
        """Those of the latest are known."""
        store = self.store()
        store.rows.begin()
        self.patch(module, "MAX_LINKS", 2)
        for number in range(1, 5):
            store.rows.follow(number, b"", [], [(f"r{number}", 1)])
        found = store.rows.calls()
        self.assertEqual(found, {"r3": 1, "r4": 1})

    def test_a_relay_that_is_alone_notes_nothing(self) -> None:
        """Before it was in a cluster, and after it has left one."""
        store = self.store()
        store.rows.leave()
        store.add_invite(b"x", NOW_S, None, 1)
        self.assertIsNone(store.rows.outside(10))
        self.assertIsNone(store.rows.position())
        store.rows.begin()
        store.rows.leave()
        store.audit.add([ENTRY])
        store.add_invite(b"y", NOW_S, None, 1)
        self.assertIsNone(store.rows.outside(10))
        self.assertIsNone(store.rows.position())
        self.assertEqual(len(store.audit.after(0, 10)), 1)


class OutsideTests(_Case):
    """What commands change in the file of one relay."""

    def test_a_command_is_noted_and_told(self) -> None:
        """From whichever file; then nothing is left to be told, and all have it."""
        files = self.files(3)
        files.ask(lambda s: s.add_user(user(), ALICE, token("a"), NO_PROOF))
        for at in (1, 2, 0):
            store = files.stores[at]
            device = DEVICE._replace(id=f"d{at}", digest=b"%d" % at)
            store.devices.add(device, is_own_subject=True)
            before = len(store.audit.after(0, 10))
            store.audit.add([ENTRY])
            self.assertEqual(len(store.audit.after(0, 10)), before)
            files.tell(at)
            self.assertIsNone(store.rows.outside(10))
        self.assertEqual(*(everything(store) for store in files.stores[:2]))
        self.assertEqual(*(everything(store) for store in files.stores[1:]))
        self.assertEqual([each.id for each in files.stores[0].devices.all()], ["d0", "d1", "d2"])
        self.assertEqual([row.seq for row in files.stores[2].audit.after(0, 10)], [1, 2, 3])

    def test_what_a_command_deletes_goes_everywhere(self) -> None:
        """With what hangs on it."""
        files = self.files(3)
        files.ask(lambda s: s.add_user(user(), ALICE, token("a"), NO_PROOF))
        files.ask(lambda s: s.administration.grant("u1", ENTRY))
        files.stores[1].administration.delete("u1", ENTRY, erases_messages=False)
        files.tell(1)
        for store in files.stores:
            self.assertIsNone(store.user("u1"))
            self.assertEqual(store.valid_tokens(NOW_S), [])
        self.assertEqual(everything(files.stores[0]), everything(files.stores[1]))

    def test_what_is_changed_while_it_is_told_stays_changed(self) -> None:
        """A token that was revoked before the log had it is revoked in the end."""
        files = self.files()
        here = files.stores[1]
        here.devices.add(DEVICE, is_own_subject=True)
        outside = here.rows.outside(10)
        assert outside is not None
        here.devices.revoke("d1", NOW_S)
        files.follow(outside.rows, outside.told)
        self.assertEqual([len(store.devices.all()) for store in files.stores], [1, 0])
        files.tell(1)
        self.assertEqual([len(store.devices.all()) for store in files.stores], [0, 0])

    def test_what_was_told_is_not_told_again_after_a_restart(self) -> None:
        """Neither where the log had it before the end, nor by a copy of the file."""
        files = self.files()
        here = files.stores[1]
        here.audit.add([ENTRY])
        outside = here.rows.outside(10)
        assert outside is not None
        here.rows.begin()
        files.follow(outside.rows, outside.told)
        self.assertIsNone(here.rows.outside(10))
        here.audit.add([ENTRY])
        here.rows.begin()
        again = here.rows.outside(10)
        assert again is not None
        self.assertEqual(again.told.file, outside.told.file)
        files.follow(again.rows, again.told)
        here.rows.begin()
        here.audit.add([ENTRY])
        last = here.rows.outside(10)
        assert last is not None
        self.assertNotEqual(last.told.file, outside.told.file)

    def test_who_is_deleted_while_signing_in_elsewhere_is_out(self) -> None:
        """Whichever comes first in the log; so is who is disabled."""
        change = partial(AdminStore.delete, user_id="u1", entry=ENTRY, erases_messages=False)
        for do in (change, partial(AdminStore.disable, user_id="u1", entry=ENTRY)):
            files = self.files(3)
            files.ask(lambda s: s.add_user(user(), ALICE, token("a"), NO_PROOF))
            do(files.stores[1].administration)
            files.ask(lambda s: s.add_user_token(token("b")._replace(made_for=b"elsewhere"), 0))
            files.tell(1)
            for store in files.stores:
                self.assertEqual(store.valid_tokens(NOW_S), [])
                self.assertEqual(store.rows._db.execute("PRAGMA foreign_key_check").fetchall(), [])
                self.assertEqual(store.rows._db.execute("PRAGMA foreign_keys").fetchone(), (1,))
                self.assertEqual(everything(store), everything(files.stores[0]))

    def test_what_contradicts_the_others_is_put_back(self) -> None:
        """The others' rows count."""
        files = self.files()
        files.ask(lambda s: s.add_user(user(), ALICE, token("a"), NO_PROOF))
        row = ("u9", "Alice", "hash", NOW_S)
        files.stores[1].rows._db.execute("DELETE FROM users")
        files.stores[1].rows._db.execute("INSERT INTO users VALUES (?, ?, ?, ?)", row)
        outside = files.stores[1].rows.outside(10)
        assert outside is not None
        kept = [each for each in outside.rows if each.key == ("u9",)]
        decider = files.stores[0]
        (attempt,) = decider.rows.attempt([lambda: decider.rows.put(kept, outside.told)], (StoreRefusal,))
        self.assertEqual(attempt.rows, (Row("users", ("u9",), None),))

    def test_the_first_key_of_push_services_counts(self) -> None:
        """Each relay makes one when it starts."""
        files = self.files()
        for store, key in zip(files.stores, (b"key 0", b"key 1"), strict=True):
            self.assertEqual(store.push.key(partial(bytes, key)), key)
        files.tell(0)
        files.tell(1)
        self.assertEqual([store.push.key(bytes) for store in files.stores], [b"key 0", b"key 0"])

    def test_what_was_there_before_the_cluster_is_told_first(self) -> None:
        """It is noted at the first start, and once."""
        old = self.store()
        old.add_user(user(), ALICE, token("a"), NO_PROOF)
        position = old.rows.begin()
        self.assertEqual(position, Position(0, b"", has_base=True))
        self.assertEqual(old.rows.begin(), position)
        files = Files(self.store(), old)
        files.tell(1)
        self.assertEqual(everything(files.stores[0]), everything(old))
        self.assertIsNone(old.rows.outside(10))

    def test_an_empty_file_has_no_accounts_from_before(self) -> None:
        """Its relay may take any."""
        self.assertEqual(self.store().rows.begin(), Position(0, b""))


class ImageTests(_Case):
    """A relay takes all rows of another one."""

    def test_all_rows_are_taken(self) -> None:
        """They replace what is there, and the file goes on from there."""
        files = self.files()
        for _, call in CALLS[:-2]:
            files.ask(call)
        newcomer = self.store()
        newcomer.rows.begin()
        newcomer.push.key(lambda: b"its own")
        newcomer.rows.install(Position(files.number, b"d", b"1"), [("r1", 7)], files.stores[0].rows.dump())
        self.assertEqual(everything(newcomer), everything(files.stores[0]))
        self.assertEqual(newcomer.rows.position(), Position(files.number, b"d", b"1"))
        self.assertEqual(newcomer.rows.calls(), {"r1": 7})
        self.assertIsNone(newcomer.rows.outside(10))
        files.stores = (*files.stores, newcomer)
        for _, call in CALLS[-2:]:
            files.ask(call, at=2)
        self.assertEqual(everything(newcomer), everything(files.stores[0]))

    def test_what_commands_have_changed_meanwhile_stays(self) -> None:
        """It is told to the others afterwards."""
        files = self.files()
        newcomer = self.store()
        newcomer.rows.begin()
        newcomer.devices.add(DEVICE, is_own_subject=True)
        newcomer.audit.add([ENTRY])
        newcomer.rows.install(Position(0, b""), [], files.stores[0].rows.dump())
        files.stores = (*files.stores, newcomer)
        self.assertEqual(len(newcomer.devices.all()), 1)
        files.tell(2)
        self.assertEqual([len(store.devices.all()) for store in files.stores], [1, 1, 1])
        self.assertEqual([len(store.audit.after(0, 10)) for store in files.stores], [1, 1, 1])


class FileTests(_Case):
    """What only a file can do."""

    def setUp(self) -> None:
        """Makes a file."""
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.path /= "users.db"

    def test_another_process_is_noted_also_while_no_relay_runs(self) -> None:
        """The file itself has it noted."""
        relay = SqliteUsers(self.path, keys_of)
        relay.rows.begin()
        with closing(SqliteUsers(self.path, keys_of)) as command:
            command.add_invite(b"one", NOW_S, None, 1)
        relay.close()
        with closing(SqliteUsers(self.path, keys_of)) as command:
            command.add_invite(b"two", NOW_S, None, 1)
        with closing(SqliteUsers(self.path, keys_of)) as relay:
            relay.rows.begin()
            outside = relay.rows.outside(10)
            assert outside is not None
            self.assertEqual([row.key for row in outside.rows], [(b"one",), (b"two",)])

    def test_a_file_that_is_held_is_said(self) -> None:
        """The attempt is made again later; nothing is left of it."""
        store = self.store(self.path)
        store.rows.begin()
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("BEGIN IMMEDIATE")

            def call() -> object:
                return store.revoke(b"", NOW_S)

            self.assertRaises(StoreBusy, store.rows.attempt, [call], (StoreRefusal,))
            self.assertRaises(StoreBusy, store.rows.follow, 1, b"", [], [])
        (attempt,) = store.rows.attempt([call], (StoreRefusal,))
        self.assertIsInstance(attempt.result, TokenGone)

    def test_audit_log_of_before_stays_and_goes_on(self) -> None:
        """Entries of the log are numbered behind it, in every file alike."""
        old = self.store(self.path)
        old.audit.add([ENTRY, ENTRY])
        other = self.store()
        files = Files(old, other)
        files.ask(lambda s: s.audit.add([ENTRY]))
        self.assertEqual([row.seq for row in old.audit.after(0, 10)], [1, 2, 3])
        self.assertEqual([row.seq for row in other.audit.after(0, 10)], [3])
