"""Opening users.db, whoever made it."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.storage import users_file as module
from clasp_relay.storage.users import Claim, KeptToken, NameConfusable, SignIn, TokenRecord, User
from clasp_relay.storage.users_file import SCHEMA_VERSION, open_users_file
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_users_sqlite import keys_of

NOBODY = 65_534
OPEN = Claim(None, True, 1)
RUST_TABLE = (
    "CREATE TABLE users (id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL,"
    " password_hash TEXT NOT NULL, created_at INTEGER NOT NULL)"
)
RUST_USERS = [
    ("u-2", "alice", "hash 2", 2),
    ("u-1", "Alice", "hash 1", 1),
    ("id with spaces", "", "hash 3", 3),
    ("u-4", "x" * 300, "hash 4", 4),
    ("u-5", "ctrl\x01\u200b", "hash 5", 5),
    ("u-6", " Straße ", "hash 6", 6),
]


@contextmanager
def unprivileged(*paths: Path) -> Iterator[None]:
    """Acts as an ordinary user, the owner of some paths."""
    if os.geteuid() != 0:
        yield
        return
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


class UsersFileTests(SynchronousTestCase):
    """Files that are there, or not, or are no such files."""

    def setUp(self) -> None:
        """Makes a folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "users.db"

    def use_public_folder(self) -> None:
        """Makes a folder that every user can get to."""
        self.folder = Path(mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.path = self.folder / "users.db"

    def make_rust_file(self) -> None:
        """Makes a file as the Rust relay does."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute(RUST_TABLE)
            db.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", RUST_USERS)

    def open(self) -> sqlite3.Connection:
        """Opens the file until the end of the test."""
        connection = open_users_file(self.path, keys_of)
        self.addCleanup(connection.close)
        return connection

    def copies(self) -> list[str]:
        """Returns the names of the copies that were made."""
        return sorted(path.name for path in self.folder.glob("*.bak"))

    def test_missing_file_is_made_for_its_owner_only(self) -> None:
        """It has the schema of today and holds nobody; there was nothing to copy."""
        db = self.open()
        self.assertEqual(db.execute("PRAGMA user_version").fetchone(), (SCHEMA_VERSION,))
        self.assertEqual(db.execute("SELECT COUNT(*) FROM users").fetchone(), (0,))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(self.copies(), [])

    def test_file_is_written_durably(self) -> None:
        """Write-ahead log, synced at every commit, foreign keys checked."""
        db = self.open()
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        self.assertEqual([db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas], ["wal", 2, 1])

    def test_rust_file_is_taken_over_with_all_its_users(self) -> None:
        """Two spellings of one name, and names that are refused today, stay as they are."""
        self.make_rust_file()
        store = SqliteUsers(self.path, keys_of)
        self.addCleanup(store.close)
        for row in RUST_USERS:
            with self.subTest(name=row[1]):
                self.assertEqual(store.find_user([row[1]], "-"), User(*row))
        self.assertEqual(store.find_user(["ALICE"], "alice"), User("u-1", "Alice", "hash 1", 1))
        self.assertEqual(store.find_user(["-"], " strasse "), User("u-6", " Straße ", "hash 6", 6))

    def test_rust_file_is_copied_before_it_is_changed(self) -> None:
        """The copy is the file as it was, for its owner only; a second opening makes none."""
        self.make_rust_file()
        self.open()
        self.open()
        self.assertEqual(self.copies(), ["users.db.v0.bak"])
        copy = self.folder / "users.db.v0.bak"
        self.assertEqual(stat.S_IMODE(copy.stat().st_mode), 0o600)
        with closing(sqlite3.connect(copy)) as db:
            self.assertEqual(db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall(), [("users",)])
            self.assertEqual(db.execute("SELECT * FROM users").fetchall(), RUST_USERS)

    def make_version_1(self) -> None:
        """Makes a file as the version before this one did, with two users who look alike and a guest."""
        schema = (files("clasp_relay.storage") / "schema" / "users-1.sql").read_text("utf-8")
        with closing(sqlite3.connect(self.path)) as db, db:
            db.executescript(schema + "PRAGMA user_version = 1;")
            for user_id, name in (("u1", "Alice"), ("u2", "A1ice")):
                db.execute("INSERT INTO users VALUES (?, ?, ?, 1)", (user_id, name, f"hash of {name}"))
                db.execute("INSERT INTO user_facts VALUES (?, ?, 3)", (user_id, name.casefold()))
            for digest, subject, guest in ((b"u", "u1", 0), (b"g", "g1", 1)):
                row = (digest, subject, f"name of {subject}", guest, "policy", 1, 1001, None)
                db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def test_file_of_the_version_before_is_brought_up_to_date(self) -> None:
        """Users sign in and tokens are valid as before, and each token is a sign-in of its own; it is copied first."""
        self.make_version_1()
        store = SqliteUsers(self.path, keys_of)
        self.addCleanup(store.close)
        for user_id, name in (("u1", "Alice"), ("u2", "A1ice")):
            self.assertEqual(store.find_user([name], "-"), User(user_id, name, f"hash of {name}", 1, 3))
        guest = TokenRecord(b"g", "g1", "name of g1", True, "policy", 1, 1001)
        user = TokenRecord(b"u", "u1", "name of u1", False, "policy", 1, 1001)
        self.assertEqual({record.digest: record for record in store.valid_tokens(1000)}, {b"g": guest, b"u": user})
        self.assertEqual(store.find_token(b"g"), KeptToken(guest, None, 1001))
        self.assertEqual(store.sign_ins("u1", 5), [SignIn(b"u", "", 1, 1, (b"u",))])
        self.assertEqual(store.revoke(b"u", 5), [b"u"])
        self.assertRaises(NameConfusable, store.check_new_user, "u3", keys_of("Alice")._replace(folded="-"), OPEN)
        self.assertEqual(self.copies(), ["users.db.v1.bak"])
        with closing(sqlite3.connect(self.folder / "users.db.v1.bak")) as db:
            self.assertEqual(db.execute("PRAGMA user_version").fetchone(), (1,))
            self.assertEqual(db.execute("SELECT COUNT(*) FROM tokens").fetchone(), (2,))

    def test_upgrade_that_fails_leaves_the_file_as_it_was(self) -> None:
        """In the middle of the step, too."""
        self.make_version_1()
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("CREATE TABLE sign_in_addresses (a)")
        self.assertRaises(StartError, self.open)
        with closing(sqlite3.connect(self.path)) as db:
            self.assertEqual(db.execute("PRAGMA user_version").fetchone(), (1,))
            self.assertEqual(len(db.execute("PRAGMA table_info(user_facts)").fetchall()), 3)

    def test_file_that_another_process_holds_stops_the_start(self) -> None:
        """The line says so, and does not advise to move the file away."""
        self.patch(module, "BUSY_TIMEOUT_S", 0.05)
        for make in (self.make_rust_file, self.make_version_1):
            with self.subTest(make=make):
                self.setUp()
                make()
                with closing(sqlite3.connect(self.path)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    error = self.assertRaises(StartError, self.open)
                self.assertIn(f"{self.path}: another process holds the users' database; end it", str(error))
                self.open()

    def test_companion_that_cannot_be_written_stops_the_start(self) -> None:
        """It is named with its owner; moved away it would take the latest changes along."""
        for suffix in ("-wal", "-shm"):
            with self.subTest(suffix=suffix):
                self.use_public_folder()
                self.open().close()
                companion = self.folder / f"users.db{suffix}"
                companion.touch(0o400)
                with unprivileged(self.folder, self.path):
                    error = self.assertRaises(StartError, self.open)
                self.assertIn(f"{companion}: the relay (user ", str(error))
                self.assertIn(f"belongs to user {companion.owner()}: Permission denied", str(error))
                self.assertIn("do not move it away", str(error))

    def test_copy_that_cannot_be_made_stops_the_start(self) -> None:
        """Nothing is changed then, and nothing half done is left."""
        self.use_public_folder()
        self.make_version_1()
        before = self.path.read_bytes()
        self.folder.chmod(0o555)
        with unprivileged(self.path):
            error = self.assertRaises(StartError, self.open)
        self.folder.chmod(0o755)
        self.assertIn("users.db.v1.bak: the users' database has to be copied before it is changed", str(error))
        self.assertIn("Permission denied", str(error))
        self.assertEqual((self.path.read_bytes(), self.copies()), (before, []))

    def test_copy_never_replaces_an_earlier_one(self) -> None:
        """An upgrade that failed half-way may have left the only good one."""
        self.make_rust_file()
        for name in ("users.db.v0.bak", "users.db.v0.2.bak"):
            (self.folder / name).write_bytes(name.encode())
        self.open()
        self.assertEqual(self.copies(), ["users.db.v0.2.bak", "users.db.v0.3.bak", "users.db.v0.bak"])
        self.assertEqual((self.folder / "users.db.v0.bak").read_bytes(), b"users.db.v0.bak")

    def test_file_goes_back_to_the_rust_relay_and_returns(self) -> None:
        """Its table is untouched, and a user who was added there signs in here."""
        self.open()
        with closing(sqlite3.connect(self.path)) as db, db:
            self.assertEqual(
                [row[1] for row in db.execute("PRAGMA table_info(users)")],
                ["id", "username", "password_hash", "created_at"],
            )
            db.execute("INSERT INTO users VALUES ('u-9', 'Zoe', 'hash', 9)")
        store = SqliteUsers(self.path, keys_of)
        self.addCleanup(store.close)
        self.assertEqual(store.find_user(["ZOE"], "zoe"), User("u-9", "Zoe", "hash", 9))

    def test_failed_upgrade_leaves_the_file_as_it_was(self) -> None:
        """All of it or nothing; the next start tries again."""
        self.make_rust_file()
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("CREATE TABLE tokens_by_subject (a)")
        self.assertRaises(StartError, self.open)
        with closing(sqlite3.connect(self.path)) as db:
            self.assertEqual(db.execute("PRAGMA user_version").fetchone(), (0,))
            tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            self.assertEqual(tables, [("tokens_by_subject",), ("users",)])

    def test_value_of_another_type_stops_the_start(self) -> None:
        """In whichever column of whichever table of this relay: SQLite takes any value."""
        open_users_file(self.path, keys_of).close()
        whole = self.path.read_bytes()
        right = {"INTEGER": 1, "TEXT": "text", "BLOB": b"blob"}
        wrong = {"INTEGER": "soon", "TEXT": b"blob", "BLOB": "text"}
        with closing(sqlite3.connect(self.path)) as db:
            tables = [
                name
                for (name,) in db.execute(
                    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                )
            ]
            columns = {table: db.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
        checked = 0
        for table, rows in columns.items():
            for bad in rows:
                if not bad[2]:
                    continue  # a column of keys, of any type
                with self.subTest(table=table, column=bad[1]):
                    self.path.write_bytes(whole)
                    values = [(wrong if row is bad else right).get(row[2]) for row in rows]
                    with closing(sqlite3.connect(self.path)) as db:
                        try:
                            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows))})", values)  # noqa: S608
                        except sqlite3.IntegrityError:
                            continue  # the number of a row can be nothing else
                        db.commit()
                    if table in ("users", "audit"):
                        open_users_file(self.path, keys_of).close()
                        continue
                    error = self.assertRaises(StartError, open_users_file, self.path, keys_of)
                    self.assertIn(f"a value in its table «{table}» is of another type than its column", str(error))
                    checked += 1
        self.assertGreater(checked, 60)

    def test_unusable_file_stops_the_start(self) -> None:
        """One line names the file and what to do; the file is not touched."""

        def other_table() -> None:
            with closing(sqlite3.connect(self.path)) as db, db:
                db.execute("CREATE TABLE users (id TEXT, name TEXT)")

        def folder() -> None:
            self.path.mkdir()

        def newer() -> None:
            with closing(sqlite3.connect(self.path)) as db, db:
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

        cases = [
            (lambda: self.path.write_bytes(b"no database, " * 100), "put back a copy of it, or move it away"),
            (other_table, "its table «users» lacks created_at, password_hash, username"),
            (newer, f"made by a newer relay (version {SCHEMA_VERSION + 1}; this one knows up to {SCHEMA_VERSION})"),
            (folder, "cannot be opened: Is a directory"),
        ]
        for make, expected in cases:
            with self.subTest(expected=expected):
                self.setUp()
                make()
                before = self.path.read_bytes() if self.path.is_file() else b""
                error = self.assertRaises(StartError, self.open)
                self.assertIn(str(self.path), str(error))
                self.assertIn(expected, str(error))
                self.assertNotIn("\n", str(error))
                self.assertEqual(self.path.read_bytes() if self.path.is_file() else b"", before)
