"""How a relay's part in its cluster is put together."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.assembly.cluster import NAME_FILE, ClusterParts, _made_name
from clasp_relay.cluster.accounts.account_records import Record, change_of
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.errors import StartError
from clasp_relay.service import make_service
from clasp_relay.settings import Contradiction, Settings
from clasp_relay.storage import users_file
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.journal.opening import open_journal
from clasp_relay.storage.users_rows import Row
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.values import encode_value
from tests.access.stack import InlineWorkers
from tests.cluster.account_world import MemoryOf
from tests.core.world import World
from tests.integration.process import environment

URLS = ("nats://127.0.0.1:4222",)


def settings(**more: Any) -> Settings:
    """Returns the settings of a relay in a cluster."""
    return Settings(**{"auth_port": 0, "port": 0, "cluster": URLS, **more})


class NameTests(SynchronousTestCase):
    """What a relay is called."""

    def test_a_name_is_made_once(self) -> None:
        """It stays with the folder."""
        folder = Path(self.mktemp())
        folder.mkdir()
        name = _made_name(folder)
        self.assertRegex(name, r"\A[A-Za-z0-9-]{1,20}-[0-9a-f]{6}\Z")
        self.assertEqual(_made_name(folder), name)
        self.assertEqual((folder / NAME_FILE).read_text("ascii"), name + "\n")

    def test_a_folder_that_cannot_be_written_is_said(self) -> None:
        """In one line."""
        self.assertRaisesRegex(StartError, "relay's name", _made_name, Path("/nowhere"))


class PartsTests(SynchronousTestCase):
    """What the journal says about the log."""

    def journal(self, *changes: Change) -> JournalLog:
        """Returns a journal that has some rows."""
        folder = Path(self.mktemp())
        folder.mkdir()
        log = JournalLog(Clock(), lambda _: False)
        file = open_journal(folder / "journal.db", syncs_each_commit=False)
        for number, change in enumerate(changes, 1):
            file.write([Entry(number, change)])
        log.open(file, len(changes))
        self.addCleanup(log.close)
        return log

    def test_position_is_found(self) -> None:
        """Number, digest, epoch and time of the last batch."""
        parts = ClusterParts(settings(), Clock(), self.journal(_position(7, b"digest")))
        position = parts._position()
        assert position is not None
        self.assertEqual(position, (7, b"digest", 3, 17))

    def test_a_journal_without_one_has_no_position(self) -> None:
        """The relay was never in a cluster."""
        self.assertIsNone(ClusterParts(settings(), Clock(), self.journal(_due()))._position())

    def test_a_folder_that_was_used_without_the_cluster_is_refused(self) -> None:
        """What was written then is not in the log."""
        parts = ClusterParts(settings(), Clock(), self.journal(_position(7, b"digest"), _due()))
        self.assertRaisesRegex(StartError, "without --cluster", parts._position)

    def test_a_relay_in_open_mode_leaves_a_cluster_that_has_accounts(self) -> None:
        """It would let everybody do everything."""
        parts = ClusterParts(settings(), Clock(), self.journal())
        lost: list[int] = []
        parts.when_lost = lambda: lost.append(1)
        world = World()
        parts.attach(world.relay, lambda *_: world.relay)
        about = no_param("", "", "", 17)._replace(value=encode_value([b""]))
        world.relay.committer.follow(Change(about, ChangeKind.ACCOUNTS, number=1))
        self.assertEqual(lost, [1])

    def test_accounts_that_cannot_follow_the_journal_stop_the_start(self) -> None:
        """Another process holds the file, or a command has given a name away that somebody else has in the log."""
        self.patch(users_file, "BUSY_TIMEOUT_S", 0.05)
        rows = (Row("users", ("u2",), ("Alice", "hash", 17)),)
        journal = self.journal(change_of(Record(1, b"", (), rows), 17))
        folder = Path(self.mktemp())
        folder.mkdir()
        parts = ClusterParts(settings(auth_port=7350, data_dir=folder), Clock(), journal)
        file = parts._settings.users_file
        store = SqliteUsers(file, name_keys)
        self.addCleanup(store.close)
        accounts = parts.accounts
        assert accounts is not None, "not in open mode"
        accounts.open(store, InlineWorkers(), MemoryOf())
        engine: Any = None
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assertRaisesRegex(StartError, "another process holds", parts._open_accounts, accounts, engine)
            other.execute("INSERT INTO users VALUES ('u1', 'Alice', 'hash', 17)")
            other.execute("COMMIT")
        accounts.replica._number, accounts.replica._digest = 0, b""
        self.assertRaisesRegex(StartError, "start with an empty data-dir", parts._open_accounts, accounts, engine)

    def test_before_it_is_opened_it_is_joining(self) -> None:
        """The health port answers from the start."""
        parts = ClusterParts(settings(), Clock(), self.journal())
        self.assertEqual(parts.status(), {"role": "joining", "epoch": 0, "behind_records": 0, "behind_ms": 0})
        self.assertEqual(parts.member(), ("", "joining"))
        self.assertFalse(parts.is_ready)
        self.assertEqual((parts.forwarded, parts.failovers, parts.alarms), (0, 0, 0))
        parts.sweep()
        parts.hand_over()
        self.successResultOf(parts.stop())


class OptionTests(SynchronousTestCase):
    """What goes together with a cluster."""

    def test_what_is_not_supported_is_refused(self) -> None:
        """By the name of the option."""
        for more in (
            {"durability": "snapshot"},
            {"journal_memory": True},
        ):
            with self.subTest(more=more):
                self.assertRaises(Contradiction, settings, **more)

    def test_accounts_and_files_are_the_cluster_s(self) -> None:
        """In open mode there are neither; what copies may take has a meaning in a cluster only."""
        self.assertTrue(settings(auth_port=7350).takes_files)
        self.assertFalse(settings(auth_port=7350, files="off").takes_files)
        self.assertFalse(settings().takes_files)
        settings(auth_port=7350, files_cache_bytes=1).check_together({"files", "files_cache_bytes"})
        self.assertRaises(Contradiction, Settings().check_together, {"files_cache_bytes"})

    def test_options_of_a_cluster_need_one(self) -> None:
        """Alone they would do nothing."""
        for more in ({"standby": True}, {"relay_name": "one"}, {"cluster_name": "two"}, {"cluster_creds": Path("c")}):
            with self.subTest(more=more):
                self.assertRaises(Contradiction, Settings, auth_port=0, **more)

    def test_nothing_of_a_cluster_is_imported_without_the_option(self) -> None:
        """A relay that is alone pays nothing."""
        code = (
            "import sys; from pathlib import Path; from twisted.internet import reactor;"
            "from clasp_relay.service import make_service; from clasp_relay.settings import Settings;"
            "make_service(Settings(auth_port=0, port=0), reactor);"
            "print([name for name in sys.modules if name.startswith(('nats', 'clasp_relay.cluster'))])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
        )
        self.assertEqual(done.stdout.strip(), "[]")

    def test_a_relay_of_a_cluster_is_not_ready_before_it_has_joined(self) -> None:
        """It listens all the same."""
        service = make_service(settings(data_dir=Path(self.mktemp())), Clock())
        self.assertFalse(service.is_ready)


def _position(number: int, digest: bytes) -> Change:
    about = no_param("", "", "", 17)._replace(value=encode_value(digest), revision=3)
    return Change(about, ChangeKind.POSITION, number=number)


def _due() -> Change:
    return Change(no_param("", "", "", 17), ChangeKind.DUE, number=1)
