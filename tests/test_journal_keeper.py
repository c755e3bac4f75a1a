"""Tests of clasp_relay.journal_keeper: a relay on a real event loop that is stopped, cut off, or loses its disk."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from clasp_relay.errors import CloseCode, ErrorCode, StartError
from clasp_relay.lifecycle import RelayService
from clasp_relay.service import make_service
from clasp_relay.settings import Settings
from clasp_relay.storage.journal.journal_file import JournalFile
from clasp_relay.wire.messages import Bundle, Error, Set
from clasp_relay.wire.values import encode_value
from tests.machine import Wire, live, say
from tests.storage.journal.test_rust_journal import ENTRIES, make_rust_journal

Steps = Generator[Deferred[Any], Any, None]
AWAY = "move it away"


class JournalKeeperTests(TestCase):
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
    def test_failed_commit_stops_the_relay(self) -> Steps:
        """Sessions read 503, nothing is acknowledged, it is not ready, and no state file is written."""
        service = self.start()
        ended: list[bool] = []
        done: Deferred[None] = Deferred()

        def end() -> None:
            ended.append(service.is_ready)
            done.callback(None)

        service.on_lost = end

        def write(_file: JournalFile, _entries: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(JournalFile, "write", write)
        session = live(service)
        wire = session.outbox
        assert isinstance(wire, Wire)
        wire.frames.clear()
        say(session, service, Set("/a", encode_value(1)))
        yield done
        self.assertEqual(ended, [False])
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
