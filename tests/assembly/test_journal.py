"""Tests of clasp_relay.assembly.journal: a relay on a real event loop that is stopped, cut off, or loses its disk."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from clasp_relay.access.tokens import POLICY_SCOPES, digest_of
from clasp_relay.assembly.lifecycle import RelayService
from clasp_relay.core.history.replays import END_MARK
from clasp_relay.errors import CloseCode, ErrorCode, StartError
from clasp_relay.service import make_service
from clasp_relay.settings import Settings
from clasp_relay.storage.journal.journal_file import JournalFile
from clasp_relay.storage.users import TokenRecord
from clasp_relay.wire.messages import Bundle, Error, Publish, Replay, Set
from clasp_relay.wire.values import decode_value, encode_value
from tests.machine import Wire, live, say
from tests.ports import free_port
from tests.storage.journal.test_rust_journal import ENTRIES, make_rust_journal
from tests.storage.values import TIME_US

Steps = Generator[Deferred[Any], Any, None]
AWAY = "move it away"


class KeeperCase(TestCase):
    """Starts relays on the same files, one after the other."""

    timeout = 60

    def setUp(self) -> None:
        """Makes a folder."""
        self.folder = Path(self.mktemp())

    def start(self, **settings: Any) -> RelayService:
        """Starts a relay on the files of the one before it."""
        given: dict[str, Any] = {"port": 0, "auth_port": 0, "host": "127.0.0.1", "data_dir": self.folder} | settings
        service = make_service(Settings(**given), reactor)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    @inlineCallbacks
    def cut_off(self, service: RelayService) -> Steps:
        """Leaves the files as a loss of power would, once all is recorded."""
        yield service._journal.log.recorded()  # type: ignore[union-attr]
        copy = self.folder.with_name(self.folder.name + "-copy")
        shutil.copytree(self.folder, copy)
        yield service.stopService()
        self.folder = copy


class JournalKeeperTests(KeeperCase):
    """What the journal does for a relay."""

    def values(self, service: RelayService) -> dict[str, int]:
        """Returns the revision of each param."""
        return {param.address: param.revision for param in service.relay.params.all()}

    @inlineCallbacks
    def test_relay_goes_on_where_the_journal_ends(self) -> Steps:
        """Without a state file, and with one; bundles that wait are in either."""
        service = self.start()
        session = live(service)
        due_us = service.relay.clock.now_us() + 3_000_000_000
        say(session, service, Set("/a", encode_value(1)))
        say(session, service, Bundle((Set("/late", encode_value(1)),), due_us))
        yield self.cut_off(service)
        self.assertFalse((self.folder / "state.json").exists())
        for revision in (1, 2):
            service = self.start()
            self.assertEqual(self.values(service), {"/a": revision})
            self.assertEqual(len(service.relay.schedule.image()), 1)
            yield service._save()
            say(live(service), service, Set("/a", encode_value(revision + 1)))
            yield self.cut_off(service)
        service = self.start()
        self.assertEqual(self.values(service), {"/a": 3})

    @inlineCallbacks
    def test_snapshot_mode_reads_an_older_journal_once(self) -> Steps:
        """What it saves afterwards counts, in both modes."""
        service = self.start()
        say(live(service), service, Set("/a", encode_value(1)))
        yield self.cut_off(service)
        service = self.start(durability="snapshot")
        self.assertEqual(self.values(service), {"/a": 1})
        say(live(service), service, Set("/a", encode_value(2)))
        yield service.stopService()
        for durability in ("snapshot", "power"):
            service = self.start(durability=durability)
            self.assertEqual(self.values(service), {"/a": 2})
            yield service.stopService()

    @inlineCallbacks
    def test_journal_of_the_rust_relay_is_taken_over_once(self) -> Steps:
        """Its last SETs are set, without a state file; the log says how many entries there were."""
        self.folder.mkdir()
        make_rust_journal(self.folder / "journal.db", *ENTRIES, (10, "bad", "event", "1")).close()
        with capturedLogs() as logged:
            service = self.start(durability="snapshot")
        self.assertEqual(self.values(service), {"/a": 2, "/b": 7})
        warnings = [each["text"] for each in logged if each.get("event") == "journal.warning"]
        self.assertIn("a journal of the Rust relay, which stays as it is", warnings[0])
        self.assertIn("left out 1 entries", warnings[1])
        yield service.stopService()
        (self.folder / "state.json").unlink()
        with capturedLogs() as logged:
            service = self.start()
        (taken,) = [each for each in logged if each.get("event") == "journal.taken_over"]
        self.assertEqual((taken["entries"], taken["params"], taken["old"]), (11, 3, "journal.db.rust"))
        self.assertEqual(self.values(service), {"/a": 2, "/b": 7})
        say(live(service), service, Set("/b", encode_value(8)))
        yield self.cut_off(service)
        (self.folder / "state.json").unlink(missing_ok=True)
        with capturedLogs() as logged:
            service = self.start()
        self.assertEqual([each for each in logged if each.get("event") == "journal.taken_over"], [])
        self.assertEqual(self.values(service), {"/a": 2, "/b": 8})

    @inlineCallbacks
    def test_entries_of_the_rust_relay_are_answers_of_replay(self) -> Steps:
        """Where a history rule keeps them: here the one of ``--journal``, which keeps SETs, events and streams."""
        path = self.folder / "journal.db"
        self.folder.mkdir()
        make_rust_journal(path, *ENTRIES).close()
        with capturedLogs() as logged:
            service = self.start(journal_path=path)
        (taken,) = [each for each in logged if each.get("event") == "journal.taken_over"]
        self.assertEqual((taken["kept"], taken["params"]), (10, 3))
        self.assertEqual([each for each in logged if each.get("event") == "history.changed"], [])
        session = live(service)
        wire = session.outbox
        assert isinstance(wire, Wire)
        wire.frames.clear()
        say(session, service, Replay("/kept/**", limit=10))
        while not any(_ends(message) for message in wire.messages()):
            yield deferLater(reactor, 0.01)
        found = [message for message in wire.messages() if isinstance(message, Publish) and not _ends(message)]
        self.assertEqual([message.address for message in found], ["/kept/e", "/kept/s", "/kept/e"])
        self.assertEqual(
            [message.timestamp_us for message in found], [TIME_US + us for us in (3_000_000, 3_000_001, 8_000_000)]
        )

    @inlineCallbacks
    def test_journal_of_the_rust_relay_beside_a_state_file_is_history(self) -> Steps:
        """The state file has what is set."""
        service = self.start(durability="snapshot")
        say(live(service), service, Set("/a", encode_value(1)))
        yield service.stopService()
        make_rust_journal(self.folder / "journal.db", *ENTRIES).close()
        for durability in ("snapshot", "power", "power"):
            service = self.start(durability=durability)
            self.assertEqual(self.values(service), {"/a": 1})
            yield service.stopService()

    @inlineCallbacks
    def test_journal_elsewhere_is_one_relays_alone(self) -> Steps:
        """Its folder is made; another relay with other files does not start on it, and its error names the option."""
        path = self.folder / "elsewhere" / "deep" / "our-journal"
        service = self.start(journal_path=path)
        self.assertTrue(path.exists())
        with self.assertRaisesRegex(StartError, "^--journal: .+deep is in use by another relay .+ keeps our-journal"):
            self.start(journal_path=path, data_dir=self.folder / "other")
        with self.assertRaisesRegex(StartError, "^--data-dir: .+ which keeps journal.db there"):
            first = self.start(data_dir=self.folder / "shared")
            self.start(data_dir=self.folder / "shared", state_path=self.folder / "third" / "state.json")
        yield first.stopService()
        yield service.stopService()
        yield self.start(journal_path=path, data_dir=self.folder / "other").stopService()
        (self.folder / "file").touch()
        with self.assertRaisesRegex(StartError, "^--journal: cannot write to .+file"):
            self.start(journal_path=self.folder / "file" / "journal.db")

    @inlineCallbacks
    def test_path_of_a_journal_in_snapshot_mode_is_explained(self) -> Steps:
        """None is made; one that is there is read, as in its usual place."""
        path = self.folder / "our-journal"
        service = self.start(durability="snapshot", journal_path=path)
        yield service.stopService()
        self.assertFalse(path.exists())
        service = self.start(journal_path=path)
        say(live(service), service, Set("/a", encode_value(1)))
        yield self.cut_off(service)
        path = self.folder / "our-journal"
        with capturedLogs() as logged:
            service = self.start(durability="snapshot", journal_path=path)
        self.assertEqual(self.values(service), {"/a": 1})
        (warning,) = [each["text"] for each in logged if each.get("event") == "journal.warning"]
        self.assertIn(f"{path}: --durability snapshot writes no journal", warning)

    @inlineCallbacks
    def test_relay_whose_disk_is_almost_full_is_not_ready(self) -> Steps:
        """Until there is room again, and it says why."""
        service = self.start(min_free_bytes=1 << 60)
        self.assertEqual((service.is_ready, service.trouble), (False, "the disk of the journal is almost full"))
        assert service._journal.log is not None
        service._journal.log._min_free_bytes = 1
        yield service._journal.log.maintain()
        self.assertEqual((service.is_ready, service.trouble), (True, ""))

    @inlineCallbacks
    def test_failed_commit_stops_the_relay(self) -> Steps:
        """Sessions read 503, nothing is acknowledged, it is not ready, and no state file is written."""
        service = self.start()
        ended: list[tuple[bool, str]] = []
        done: Deferred[None] = Deferred()

        def end() -> None:
            ended.append((service.is_ready, service.trouble))
            done.callback(None)

        service.on_lost = end

        def commit(_file: JournalFile, _batch: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(JournalFile, "commit", commit)
        session = live(service)
        wire = session.outbox
        assert isinstance(wire, Wire)
        wire.frames.clear()
        say(session, service, Set("/a", encode_value(1)))
        yield done
        self.assertEqual(ended, [(False, "a commit of the journal failed")])
        (error,) = wire.messages()
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.OVERLOADED)
        assert wire.closed is not None
        self.assertEqual(wire.closed[0], CloseCode.TRY_AGAIN_LATER)
        yield service.stopService()
        self.assertFalse(service.is_saved)
        self.assertFalse((self.folder / "state.json").exists())

    def test_relay_does_not_start_on_a_foreign_journal(self) -> None:
        """One line that names the file and the cure; nothing is left open."""
        self.folder.mkdir()
        (self.folder / "journal.db").write_bytes(b"{" * 5_000)
        for durability in ("power", "snapshot"):
            with self.subTest(durability), self.assertRaisesRegex(StartError, AWAY):
                self.start(durability=durability)
        (self.folder / "journal.db").unlink()
        self.assertTrue(self.start().is_ready)

    @inlineCallbacks
    def test_journal_that_cannot_be_used_stays_as_it_is(self) -> Steps:
        """With the WAL of a relay that was killed: neither goes into the other, and no table is made anew."""
        service = self.start()
        session = live(service)
        for number in range(20):
            say(session, service, Set("/a", encode_value(number)))
        yield self.cut_off(service)
        wal = self.folder / "journal.db-wal"
        shutil.copytree(self.folder, kept := self.folder.with_name("kept"))
        # A file of the state that is older than what the journal begins with, then a row that is not as it was written.
        rows_gone = "DELETE FROM entries WHERE seq < 5"
        damage = "UPDATE entries SET body = substr(body, 2) WHERE seq = 17"
        for script, words in ((rows_gone, "rows 1 to 4 are missing"), (damage, "row 17 is damaged")):
            for durability in ("power", "kill", "snapshot"):
                with self.subTest(words, durability=durability):
                    shutil.rmtree(self.folder)
                    shutil.copytree(kept, self.folder)
                    leave_in_wal(self.folder / "journal.db", script)
                    before = [path.read_bytes() for path in (self.folder / "journal.db", wal)]
                    self.assertGreater(len(before[1]), 32)
                    with self.assertRaisesRegex(StartError, words):
                        self.start(durability=durability)
                    self.assertEqual([path.read_bytes() for path in (self.folder / "journal.db", wal)], before)
                    self.assertFalse((self.folder / "state.json").exists())


def leave_in_wal(path: Path, script: str) -> None:
    """Changes a database as a process does that is killed then."""
    process = (
        "import os, sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).executescript(sys.argv[2]);"
        " os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", process, str(path), script], check=True)


class HistoryTests(KeeperCase):
    """What is kept across starts; with other rules each time."""

    ROOM: ClassVar[dict[str, Any]] = {"path": "/r/{room}/m", "per": ["room"], "max_count": 3}

    def begin(self, *entries: dict[str, Any], **settings: Any) -> RelayService:
        """Starts a relay with accounts and a policy that has these history rules."""
        policy = Path(self.mktemp())
        document = {"scopes": ["read:/**", "write:/**"], "history": list(entries)}
        policy.write_text(json.dumps(document), encoding="utf-8")
        given = {"auth_port": free_port(), "app_config": str(policy), "web_root": "none"}
        return self.start(**given | settings)

    @inlineCallbacks
    def replay(self, service: RelayService, **asked: Any) -> Generator[Deferred[Any], Any, list[object]]:
        """Returns the values of what is kept, or the code of the ERROR."""
        session = live(service, self.token(service))
        outbox = session.outbox
        assert isinstance(outbox, Wire)
        say(session, service, Replay("/r/**", limit=100))
        while True:
            messages = outbox.messages()
            errors: list[object] = [each.error for each in messages if isinstance(each, Error)]
            if errors:
                return errors
            found = [each for each in messages if isinstance(each, Publish)]
            if found and found[-1].address == END_MARK:
                return [decode_value(each.value or b"") for each in found[:-1]]
            yield deferLater(reactor, 0.01, lambda: None)

    def token(self, service: RelayService) -> str:
        """Returns a token that is valid; empty in open mode."""
        if service.settings.is_open_mode:
            return ""
        assert service._auth is not None
        service._auth._tokens.add(TokenRecord(digest_of("t"), "ann", "ann", False, POLICY_SCOPES, 0, None))
        return "t"

    @inlineCallbacks
    def publish(self, service: RelayService, *numbers: int) -> Steps:
        """Publishes in a room, and waits until it is recorded."""
        session = live(service, self.token(service))
        for number in numbers:
            say(session, service, Publish("/r/a/m", value=encode_value(number)))
        if service._journal.log is not None:
            yield service._journal.log.recorded()

    @inlineCallbacks
    def test_history_outlives_its_relay(self) -> Steps:
        """A loss of power too; with other rules it is kept by these, and with «off» it is erased."""
        service = self.begin(self.ROOM)
        yield self.publish(service, *range(5))
        self.assertEqual((yield self.replay(service)), [2, 3, 4])
        yield self.cut_off(service)
        service = self.begin(self.ROOM)
        self.assertEqual((yield self.replay(service)), [2, 3, 4])
        yield self.publish(service, 5)
        yield service.stopService()
        other = {"path": "/r/**", "max_count": 2}
        with capturedLogs() as logged:
            service = self.begin({"path": "/x"}, other)
        said = [event["log_format"].format(**event) for event in logged if event["log_namespace"].startswith("clasp")]
        self.assertTrue(any("the history rules have changed; 1 entries" in line for line in said), said)
        self.assertEqual((yield self.replay(service)), [4, 5])
        yield service.stopService()
        service = self.begin(other, durability="snapshot")
        self.assertEqual((yield self.replay(service)), [ErrorCode.NOT_CONFIGURED])
        yield service.stopService()
        service = self.begin(other, history="off")
        self.assertEqual((yield self.replay(service)), [ErrorCode.NOT_CONFIGURED])
        yield service.stopService()
        service = self.begin(self.ROOM)
        self.assertEqual((yield self.replay(service)), [])

    @inlineCallbacks
    def test_times_go_on_after_a_clock_that_was_set_back(self) -> Steps:
        """An entry is behind those before it."""
        service = self.begin(self.ROOM)
        ahead_us = service.relay.clock.now_us() + 3_600_000_000
        assert service.relay.keeping is not None
        service.relay.keeping.begin(ahead_us)
        yield self.publish(service, 1)
        yield service.stopService()
        service = self.begin(self.ROOM)
        assert service.relay.keeping is not None
        self.assertEqual(service.relay.keeping.next_us(), ahead_us + 2)

    @inlineCallbacks
    def test_damaged_entry_ends_a_start_with_other_rules(self) -> Steps:
        """One line names the file; with the same rules nobody looks at it."""
        service = self.begin(self.ROOM)
        yield self.publish(service, 1)
        yield service._save()
        yield service.stopService()
        with closing(sqlite3.connect(self.folder / "journal.db")) as db, db:
            db.execute("UPDATE entries SET body = x'00' WHERE seq IN (SELECT seq FROM history)")
        service = self.begin(self.ROOM)
        yield service.stopService()
        with self.assertRaisesRegex(StartError, r"journal\.db: the journal is damaged \(row 1 is damaged"):
            self.begin({"path": "/r/**"})

    @inlineCallbacks
    def test_history_in_memory_ends_with_the_relay(self) -> Steps:
        """Nothing is written; in open mode everything is kept."""
        service = self.start(journal_memory=True)
        yield self.publish(service, 1, 2)
        self.assertEqual((yield self.replay(service)), [1, 2])
        yield service.stopService()
        self.assertFalse((self.folder / "journal.db").exists())
        service = self.start(journal_memory=True)
        self.assertEqual((yield self.replay(service)), [])
        yield service.stopService()
        service = self.start(journal_path=self.folder / "named.db")
        yield self.publish(service, 3)
        self.assertEqual((yield self.replay(service)), [3])
        yield service.stopService()
        service = self.start()
        self.assertEqual((yield self.replay(service)), [ErrorCode.NOT_CONFIGURED])


def _ends(message: object) -> bool:
    """Tells whether a message is a replay's end mark."""
    return isinstance(message, Publish) and message.address == END_MARK
