"""backup.sh and restore.sh, on the files of a real relay under load."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from shlex import quote

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.core.records import Change
from clasp_relay.storage.files import FileStore, StoredFile
from clasp_relay.storage.folder import FileLock
from clasp_relay.storage.journal.journal_file import Entry, JournalFile
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.storage.journal.recovery import recover
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import Bundle, Get, Set, Snapshot
from clasp_relay.wire.values import decode_value, encode_value
from tests.deploy import tools
from tests.deploy.processes import PATIENCE_S, Background, plain_environment, start_relay, wait_until
from tests.integration.raw import RawClient
from tests.ports import free_port
from tests.storage.journal.test_journal_file import write_of
from tests.storage.test_users_sqlite import NO_PROOF, token, user

SCRIPTS = tools.DEPLOY / "droplet"
BACKUPS_UNDER_LOAD = 4
PAIRS = 20
"""Params that are set in pairs, by one BUNDLE each time: whole or not at all."""

DAMAGES: tuple[tuple[str, Callable[[dict[str, bytes]], object], str], ...] = (
    ("a changed state", lambda files: files.update({"state.json": b"{}"}), "damaged"),
    ("a missing file", lambda files: files.pop("users.db"), "damaged"),
    ("a foreign name", lambda files: files.update({"../evil.db": b""}), "../evil.db"),
    ("no checksums", lambda files: files.pop("SHA256SUMS"), "damaged"),
)


KINDS: tuple[tuple[str, Callable[[Path, Path], object]], ...] = (
    ("link", lambda path, secret: path.symlink_to(secret)),
    ("link to nowhere", lambda path, _: path.symlink_to("nowhere")),
    ("pipe", lambda path, _: os.mkfifo(path)),
    ("folder", lambda path, _: path.mkdir()),
)
"""What is no plain file."""


Params = dict[str, tuple[object, int]]
"""Value and revision by address."""


class BackupTestCase(SynchronousTestCase):
    """Has a data folder."""

    def setUp(self) -> None:
        """Makes it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # With what a shell takes apart, in every path.
        self.folder = Path(folder.name) / "a b's $HOME"
        self.folder.mkdir()
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        self.backups = self.folder / "backups"

    def script(self, name: str, *arguments: str | Path, answer: str = "") -> subprocess.CompletedProcess[str]:
        """Runs one of the two scripts on the data folder."""
        return subprocess.run(
            [SCRIPTS / name, "--data-dir", self.data, *arguments],
            input=answer,
            env=plain_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def back_up(self, *arguments: str) -> Path:
        """Makes a backup and returns the archive."""
        result = self.script("backup.sh", "--to", self.backups, *arguments)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return Path(result.stdout.removesuffix("\n"))

    def restore(self, archive: Path) -> subprocess.CompletedProcess[str]:
        """Restores one, the relay being stopped."""
        return self.script("restore.sh", "--with", "nothing", "--yes", archive)

    def add_user(self, users: SqliteUsers, number: int) -> None:
        """Adds a user with a token, as a registration does."""
        made = user(f"u{number}", f"User{number}")
        users.add_user(made, name_keys(made.username), token(f"t{number}", made.user_id), NO_PROOF)

    def some_files(self) -> None:
        """Makes small files of a relay that is stopped."""
        (self.data / "state.json").write_text('{"params":[]}')
        with closing(SqliteUsers(self.data / "users.db", name_keys)) as users:
            self.add_user(users, 1)

    def send_files(self, *numbers: int) -> FileStore:
        """Stores files, as uploads do; the store is closed with the test."""
        store = FileStore(self.data / "files", self.data / "files.db")
        self.addCleanup(store.close)
        for number in numbers:
            writer = store.writer(f"{number:032x}", 5)
            writer.write(b"%05d" % number)
            writer.sync()
            store.add(StoredFile(f"{number:032x}", "ann", b"", 5, 4096, number, number))
            writer.publish()
        return store

    def journal(self, path: Path, rows: int) -> JournalFile:
        """Opens a journal, and writes rows behind its last one; closed with the test."""
        journal = open_journal(path, syncs_each_commit=False)
        self.addCleanup(journal.close)
        journal.write([Entry(seq, write_of(seq)) for seq in range(journal.last_seq + 1, journal.last_seq + 1 + rows)])
        return journal

    def rows_of(self, archive: Path) -> list[int]:
        """Returns the seqs of the journal in an archive."""
        copy = self.folder / "rows.db"
        copy.write_bytes(self.contents(archive)["journal.db"])
        with closing(sqlite3.connect(copy)) as database:
            return [seq for (seq,) in database.execute("SELECT seq FROM entries ORDER BY seq")]

    def contents(self, archive: Path) -> dict[str, bytes]:
        """Returns the files of an archive."""
        with tarfile.open(archive) as tar:
            members = [(member.name, tar.extractfile(member)) for member in tar.getmembers()]
            return {name: file.read() for name, file in members if file is not None}


class LoadTests(BackupTestCase):
    """While the relay writes."""

    def test_backup_under_load_restores_to_one_moment(self) -> None:
        """No pair of params is half there, no user lacks its token, and what the archive says is what is served."""
        port = free_port()
        relay = self.start_relay(port)
        ended = threading.Event()
        threads = [threading.Thread(target=work, args=(ended,)) for work in (self.set_pairs(port), self.register())]
        self.addCleanup(ended.set)
        for thread in threads:
            thread.start()
        wait_until((self.data / "state.json").exists, "a first snapshot")
        archives = [self.back_up_later(number) for number in range(BACKUPS_UNDER_LOAD)]
        ended.set()
        for thread in threads:
            thread.join()
        self.assertEqual(relay.stop(), 0, relay.said)

        users = [self.check(archive) for archive in archives]
        self.assertEqual(users, sorted(users))
        self.assertLess(users[0], users[-1], "nothing happened between the backups")
        result = self.restore(archives[0])
        self.assertEqual(result.returncode, 0, result.stderr)
        (before,) = self.data.glob("before-restore-*")
        self.assertTrue({"state.json", "journal.db", "users.db"} <= {path.name for path in before.iterdir()})
        self.serves(port, self.params_of(archives[0]))

    def start_relay(self, port: int) -> Background:
        """Starts a relay that writes its state all the time."""
        options = ("--host=127.0.0.1", f"--port={port}", "--auth-port=0", "--persist-interval=0.05")
        relay = start_relay(self.folder, f"--data-dir={self.data}", *options)
        self.addCleanup(relay.stop)
        relay.wait_for_port(port)
        return relay

    def set_pairs(self, port: int) -> Callable[[threading.Event], None]:
        """Returns work that sets pairs of params to the same number, until it is told to end."""

        def work(ended: threading.Event) -> None:
            client = RawClient.live(port)
            number = 0
            while not ended.is_set():
                number += 1
                value = encode_value(number)
                for pair in range(PAIRS):
                    client.send(Bundle((Set(f"/load/{pair}/a", value), Set(f"/load/{pair}/b", value))))
                client.settle()
            client.close()

        return work

    def register(self) -> Callable[[threading.Event], None]:
        """Returns work that registers users."""

        def work(ended: threading.Event) -> None:
            with closing(SqliteUsers(self.data / "users.db", name_keys)) as users:
                number = 0
                while not ended.is_set():
                    number += 1
                    self.add_user(users, number)

        return work

    def back_up_later(self, number: int) -> Path:
        """Makes a backup under a name of its own: several in one second have the same."""
        archive = self.back_up()
        return archive.rename(archive.with_name(f"{number}.tar.gz"))

    def check(self, archive: Path) -> int:
        """Checks that an archive shows one moment; returns how many users it has."""
        files = self.contents(archive)
        self.assertEqual(set(files), {"state.json", "journal.db", "users.db", "SHA256SUMS"})
        params = self.params_of(archive)
        for pair in range(PAIRS):
            self.assertEqual(params.get(f"/load/{pair}/a"), params.get(f"/load/{pair}/b"))
        copy = self.folder / "copy.db"
        copy.write_bytes(files["users.db"])
        with closing(sqlite3.connect(copy)) as database:
            counts = {
                table: database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608  names from here
                for table in ("users", "user_facts", "tokens")
            }
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertEqual(database.execute("PRAGMA foreign_key_check").fetchall(), [])
        self.assertEqual(len(set(counts.values())), 1, counts)
        users: int = counts["users"]
        return users

    def params_of(self, archive: Path) -> Params:
        """Returns value and revision of every param in an archive: of the state, and what the journal has beyond it."""
        files = self.contents(archive)
        state = json.loads(files["state.json"])
        params: Params = {each["address"]: (each["value"], each["revision"]) for each in state["params"]}
        copy = self.folder / "journal-copy" / "journal.db"
        copy.parent.mkdir()
        copy.write_bytes(files["journal.db"])
        with closing(open_journal(copy, syncs_each_commit=False)) as journal:

            def take(change: Change) -> None:
                param = change.param
                params[param.address] = (decode_value(param.value), param.revision)

            found = recover(journal, state["journal_seq"], take, has_state=True)
        self.assertEqual(found.last_seq, max(journal.last_seq, state["journal_seq"]))
        for path in copy.parent.iterdir():
            path.unlink()
        copy.parent.rmdir()
        return params

    def serves(self, port: int, params: Params) -> None:
        """Checks that a relay on the restored files serves these params, with their revisions."""
        relay = self.start_relay(port)
        client = RawClient.live(port)
        self.addCleanup(client.close)
        for address, expected in params.items():
            client.send(Get(address))
            (served,) = client.receive(Snapshot).params
            self.assertEqual((decode_value(served.value), served.revision), expected)
        self.assertEqual(relay.stop(), 0, relay.said)


class BackupTests(BackupTestCase):
    """What backup.sh makes."""

    def test_archive_is_for_its_owner_only(self) -> None:
        """It holds password hashes; no file of its making is left over."""
        self.some_files()
        archive = self.back_up()
        self.assertEqual(stat.S_IMODE(archive.stat().st_mode), 0o600)
        self.assertEqual(list(self.backups.iterdir()), [archive])
        self.assertRegex(archive.name, r"^clasp-relay-\d{8}T\d{6}Z\.tar\.gz$")

    def test_backup_leaves_the_files_as_they_are(self) -> None:
        """A relay that is stopped, even one that was killed with a journal, finds what it left."""
        self.some_files()
        with closing(SqliteUsers(self.data / "users.db", name_keys)) as users:
            self.add_user(users, 2)
            self.back_up()
            self.assertIsNotNone(users.user("u2"))
        self.assertEqual((self.data / "state.json").read_text(), '{"params":[]}')

    def test_database_of_the_rust_relay_is_copied_under_its_name(self) -> None:
        """Whatever ends in .db."""
        with closing(SqliteUsers(self.data / "chat-auth.db", name_keys)) as users:
            self.add_user(users, 1)
        self.assertEqual(set(self.contents(self.back_up("--state", "none"))), {"chat-auth.db", "SHA256SUMS"})

    def test_journal_is_copied_with_what_its_wal_has(self) -> None:
        """The relay goes on with its connection, and the copy checkpoints nothing."""
        self.some_files()
        journal = self.journal(self.data / "journal.db", 5)
        wal = (self.data / "journal.db-wal").read_bytes()
        main = journal.path.read_bytes()
        self.assertEqual(self.rows_of(self.back_up()), [1, 2, 3, 4, 5])
        self.assertEqual(((self.data / "journal.db-wal").read_bytes(), journal.path.read_bytes()), (wal, main))
        journal.write([Entry(6, write_of(6))])
        journal.close()
        (archive,) = self.backups.iterdir()
        archive.unlink()
        self.assertEqual(self.rows_of(self.back_up()), [1, 2, 3, 4, 5, 6])
        self.journal(journal.path, 1)

    def test_missing_journal_is_named_where_the_state_has_one(self) -> None:
        """What was acknowledged after the state would be missing."""
        self.some_files()
        (self.data / "state.json").write_text('{"version":1,"journal_seq":7,"params":[]}')
        result = self.script("backup.sh", "--to", self.backups)
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (0, 1), result.stderr)
        self.assertIn("--journal", result.stderr)
        self.assertEqual(self.script("backup.sh", "--to", self.backups, "--journal", "none").stderr, "")

    def test_state_that_is_older_than_the_journal_is_no_backup(self) -> None:
        """As an old file in the folder, where --persist names another one: a relay would not start on it."""
        self.some_files()
        journal = self.journal(self.data / "journal.db", 9)
        journal.trim(7, 0)
        state = self.data / "state.json"
        for seq, is_old in (
            ("", True),
            ('"journal_seq":6,', True),
            ('"journal_seq":7,', False),
            ('"journal_seq":9,', False),
        ):
            state.write_text(f'{{"version":1,{seq}"params":[]}}')
            result = self.script("backup.sh", "--to", self.backups)
            if is_old:
                self.assertEqual((result.returncode, result.stdout), (1, ""))
                told = f"backup.sh: {state} is older than the oldest change in {journal.path};"
                self.assertEqual(result.stderr, f"{told} give the file that --persist of the relay names to --state\n")
                self.assertEqual(list(self.backups.iterdir()), [])
            else:
                self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_state_of_another_relay_is_as_new_as_the_journal_that_was_taken_over_with_it(self) -> None:
        """It names no change of this journal, and the journal's rows are history."""
        self.some_files()
        (self.data / "state.json").write_text('{"version":1,"params":[]}')
        journal = self.journal(self.data / "journal.db", 9)
        journal.begin_after(9, needs_state=True)
        self.assertEqual(journal.trimmed_seq, 9)
        result = self.script("backup.sh", "--to", self.backups)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        journal.write([Entry(seq, write_of(seq)) for seq in range(10, 20)])
        journal.trim(12, 0)
        self.assertEqual(self.script("backup.sh", "--to", self.backups).returncode, 1)

    def test_missing_part_is_named(self) -> None:
        """An archive without the state, or without accounts, is made, and the operator hears what to do."""
        self.some_files()
        for name, told in (("state.json", "--state"), ("users.db", "--users")):
            with self.subTest(name):
                aside = (self.data / name).rename(self.folder / name)
                result = self.script("backup.sh", "--to", self.backups)
                self.assertEqual((result.returncode, len(result.stderr.splitlines())), (0, 1), result.stderr)
                self.assertIn(told, result.stderr)
                quiet = self.script("backup.sh", "--to", self.backups, told, "none")
                self.assertEqual((quiet.returncode, quiet.stderr), (0, ""))
                aside.rename(self.data / name)

    def test_files_that_the_options_of_the_relay_put_elsewhere_are_copied(self) -> None:
        """And restored to where they were."""
        self.some_files()
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        state = (self.data / "state.json").rename(elsewhere / "our-state")
        users = (self.data / "users.db").rename(elsewhere / "our.accounts")
        journal = elsewhere / "our-journal"
        self.journal(journal, 3).close()
        self.journal(self.data / "journal.db", 9).close()
        where = ("--state", str(state), "--journal", str(journal), "--users", str(users))
        archive = self.back_up(*where)
        self.assertEqual(set(self.contents(archive)), {"state.json", "journal.db", "users.db", "SHA256SUMS"})
        self.journal(journal, 1).close()
        state.write_text('{"params":[],"newer":1}')
        users.unlink()
        result = self.script("restore.sh", "--with", "nothing", "--yes", *where, archive)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(state.read_text(), '{"params":[]}')
        with closing(SqliteUsers(users, name_keys)) as restored:
            self.assertIsNotNone(restored.user("u1"))
        self.assertEqual(self.journal(journal, 1).last_seq, 4)
        (before,) = self.data.glob("before-restore-*")
        kept = {path.name.removesuffix("-wal").removesuffix("-shm") for path in before.iterdir()}
        self.assertEqual(kept, {"our-state", "our-journal"})
        for option in ("--state", "--journal", "--users"):
            self.assertIn("is missing", self.script("backup.sh", "--to", self.backups, option, "nowhere").stderr)

    def test_what_is_no_plain_file_is_not_copied(self) -> None:
        """The relay's user could lead root to any file by a link, and hold it up by a pipe."""
        secret = self.folder / "secret"
        secret.write_text("secret")
        for name in ("state.json", "journal.db", "journal.db-wal", "users.db", "users.db-wal"):
            for kind, make in KINDS:
                with self.subTest(name=name, kind=kind):
                    for path in self.data.iterdir():
                        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
                    self.some_files()
                    self.journal(self.data / "journal.db", 1).close()
                    (self.data / name).unlink(missing_ok=True)
                    make(self.data / name, secret)
                    result = self.script("backup.sh", "--to", self.backups)
                    self.assertEqual(result.returncode, 1, result.stderr)
                    self.assertIn(f"{self.data / name}: not a plain file", result.stderr)
        self.assertEqual(list(self.backups.glob("*")), [])

    def test_sent_files_are_copied_with_their_record(self) -> None:
        """Those that the record knows, not those that are arriving. Restored, they are what they were."""
        self.some_files()
        store = self.send_files(1, 2)
        store.writer(f"{3:032x}", 5).write(b"half")
        (self.data / "files" / f"{4:032x}").write_bytes(b"stranger")
        (self.data / "files" / f"{2:032x}").unlink()  # deleted while the copy is made
        without = self.contents(self.back_up("--files", "none"))
        self.assertEqual(set(without), {"state.json", "users.db", "SHA256SUMS"})
        archive = self.back_up()
        names = {"state.json", "users.db", "SHA256SUMS", "files.db", f"files/{1:032x}"}
        self.assertEqual(set(self.contents(archive)), names)
        self.assertEqual(self.contents(archive)[f"files/{1:032x}"], b"00001")
        store.remove(f"{1:032x}")
        store.close()
        self.send_files(5).close()
        result = self.restore(archive)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        restored = self.send_files()
        self.assertEqual(restored.sweep(), (0, 1, 0))
        self.assertEqual(os.listdir(self.data / "files"), [f"{1:032x}"])
        reader = restored.reader(f"{1:032x}")
        assert reader is not None
        self.assertEqual(reader.read(0, 9), b"00001")
        reader.close()
        before = next(self.data.glob("before-restore-*"))
        self.assertIn(f"{5:032x}", os.listdir(before / "files"))
        modes = [stat.S_IMODE((self.data / name).stat().st_mode) for name in ("files", f"files/{1:032x}", "files.db")]
        self.assertEqual(modes, [0o700, 0o600, 0o600])

    def test_archive_without_sent_files_takes_none_away(self) -> None:
        """As one that was made without them."""
        self.some_files()
        self.send_files(1).close()
        result = self.restore(self.back_up("--files", "none"))
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(os.listdir(self.data / "files"), [f"{1:032x}"])
        self.assertEqual(self.send_files().sweep(), (0, 0, 0))

    def test_sent_file_that_is_no_plain_file_is_not_copied(self) -> None:
        """The relay's user may put anything there, and the script may be root."""
        secret = self.folder / "secret"
        secret.write_bytes(b"secret")
        for kind, make in KINDS:
            with self.subTest(kind=kind):
                self.some_files()
                self.send_files(1).close()
                path = self.data / "files" / f"{1:032x}"
                path.unlink()
                make(path, secret)
                result = self.script("backup.sh", "--to", self.backups)
                self.assertEqual((result.returncode, result.stdout), (1, ""))
                self.assertIn("not a plain file", result.stderr)
                path.rmdir() if kind == "folder" else path.unlink()
                for name in ("users.db", "files.db"):
                    (self.data / name).unlink()

    def test_backup_keeps_as_many_archives_as_it_is_told(self) -> None:
        """The oldest go."""
        self.some_files()
        self.backups.mkdir()
        for day in (1, 2, 3):
            (self.backups / f"clasp-relay-2020010{day}T000000Z.tar.gz").write_bytes(b"")
        other = self.backups / "notes.txt"
        other.write_text("mine")
        archive = self.back_up("--keep", "2")
        kept = self.backups / "clasp-relay-20200103T000000Z.tar.gz"
        self.assertEqual(set(self.backups.iterdir()), {other, kept, archive})

    def test_backup_says_what_it_cannot_do(self) -> None:
        """One line, exit status 1, and nothing left behind."""
        for arguments in (("--keep", "0"), ("--keep",), ("--what",), ()):
            with self.subTest(arguments=arguments):
                result = self.script("backup.sh", "--to", self.backups, *arguments)
                self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stderr)
        self.assertEqual(list(self.backups.glob("*")) + list(self.backups.glob(".*")), [])

    def test_damaged_database_is_no_backup(self) -> None:
        """It is said at once, and not found out when it is needed."""
        self.some_files()
        with (self.data / "users.db").open("r+b") as file:
            file.seek(4_096)
            file.write(b"\xff" * 8_192)
        result = self.script("backup.sh", "--to", self.backups)
        self.assertEqual(result.returncode, 1)
        self.assertIn("users.db", result.stderr)
        self.assertEqual(list(self.backups.glob("*.tar.gz")), [])


class RestoreTests(BackupTestCase):
    """What restore.sh takes and does."""

    def test_restored_files_belong_to_the_relay(self) -> None:
        """Whoever runs the script; nobody else may read them."""
        if os.getuid() == 0:
            os.chown(self.data, 999, 999)
        self.some_files()
        archive = self.back_up()
        self.assertEqual(self.restore(archive).returncode, 0)
        owner = self.data.stat().st_uid
        for name in ("state.json", "users.db"):
            found = (self.data / name).stat()
            self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (owner, 0o600), name)

    def test_newer_journal_does_not_meet_the_restored_database(self) -> None:
        """SQLite would play it back into a file that it is not about."""
        self.some_files()
        archive = self.back_up()
        newer = ("journal.db", "journal.db-wal", "users.db-wal", "users.db-shm", "state.json.1", "state.json.tmp")
        for name in newer:
            (self.data / name).write_bytes(b"newer")
        self.assertEqual(self.restore(archive).returncode, 0)
        names = {path.name for path in self.data.iterdir() if path.is_file()}
        self.assertEqual(names, {"state.json", "users.db"})
        with closing(SqliteUsers(self.data / "users.db", name_keys)) as users:
            self.assertIsNotNone(users.user("u1"))

    def test_damaged_archive_changes_nothing(self) -> None:
        """It is checked before the relay is stopped."""
        self.some_files()
        archive = self.back_up()
        files = self.contents(archive)
        present = sorted(self.data.iterdir())
        for name, damage, word in DAMAGES:
            with self.subTest(name):
                damaged = dict(files)
                damage(damaged)
                result = self.restore(self.archive_of(damaged))
                self.assertEqual(result.returncode, 1)
                self.assertIn(word, result.stderr)
                self.assertEqual(sorted(self.data.iterdir()), present)

    def test_archive_with_anything_but_plain_files_changes_nothing(self) -> None:
        """A link would have root give away, and overwrite, what it leads to."""
        self.some_files()
        files = self.contents(self.back_up())
        secret = self.folder / "secret"
        secret.write_text('{"params":[]}')
        secret.chmod(0o644)
        present = sorted(self.data.iterdir())
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            with self.subTest(kind=kind):
                path = self.archive_of({name: content for name, content in files.items() if name != "state.json"})
                with tarfile.open(path) as tar:
                    members = [(member, tar.extractfile(member)) for member in tar.getmembers()]
                    copies = [(member, file.read()) for member, file in members if file is not None]
                with tarfile.open(path, "w:gz") as tar:
                    odd = tarfile.TarInfo("state.json")
                    odd.type, odd.linkname = kind, str(secret)
                    tar.addfile(odd)
                    for member, content in copies:
                        tar.addfile(member, BytesIO(content))
                result = self.restore(path)
                self.assertEqual(result.returncode, 1)
                self.assertIn("something other than plain files", result.stderr)
                self.assertEqual(sorted(self.data.iterdir()), present)
                self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o644)

    def test_files_of_a_relay_that_runs_are_not_replaced(self) -> None:
        """Where the operator was to stop it, and has not."""
        self.some_files()
        archive = self.back_up()
        present = sorted(self.data.iterdir())
        for name in ("state.json", "journal.db", "users.db"):
            lock = FileLock("--data-dir", self.data / name)
            self.addCleanup(lock.release)
            result = self.restore(archive)
            self.assertEqual(result.returncode, 1)
            self.assertIn("a relay still uses these files", result.stderr)
            self.assertEqual(sorted(self.data.iterdir()), sorted([*present, lock.path]))
            lock.release()
            lock.path.unlink()
        self.assertEqual(self.restore(archive).returncode, 0)

    def archive_of(self, files: dict[str, bytes]) -> Path:
        """Makes an archive of files."""
        path = self.folder / "made.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                place = self.folder / "member"
                place.write_bytes(content)
                tar.add(place, name)
        return path

    def test_restore_asks_first(self) -> None:
        """Anything but yes changes nothing."""
        self.some_files()
        archive = self.back_up()
        (self.data / "state.json").write_text('{"params":[],"newer":1}')
        for answer, kept in (("no\n", True), ("", True), ("yes\n", False)):
            with self.subTest(answer=answer):
                result = self.script("restore.sh", "--with", "nothing", archive, answer=answer)
                self.assertEqual(result.returncode, 1 if kept else 0, result.stderr)
                self.assertEqual("newer" in (self.data / "state.json").read_text(), kept)

    def test_restore_stops_and_starts_the_relay(self) -> None:
        """Through Compose or systemd, in this order, around the change."""
        self.some_files()
        archive = self.back_up()
        said = self.folder / "said"
        programs = self.folder / "bin"
        programs.mkdir()
        state = quote(str(self.data / "state.json"))
        look = f"state=older; if grep -q newer {state}; then state=newer; fi"
        for name in ("docker", "systemctl"):
            stub = programs / name
            stub.write_text(f'#!/bin/sh\n{look}\necho "{name} $* $state" >>{quote(str(said))}\n')
            stub.chmod(0o755)
        self.patch(os, "environ", os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"})
        compose = f"docker compose --project-directory {SCRIPTS} --file {SCRIPTS}/docker-compose.yml"
        for runner, stop, start in (
            ("docker", f"{compose} stop relay", f"{compose} up --detach --wait --wait-timeout 120 relay"),
            ("systemd", "systemctl stop clasp-relay", "systemctl start clasp-relay"),
        ):
            with self.subTest(runner):
                said.write_text("")
                (self.data / "state.json").write_text('{"params":[],"newer":1}')
                result = self.script("restore.sh", "--with", runner, "--yes", archive)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(said.read_text().splitlines(), [f"{stop} newer", f"{start} older"])
