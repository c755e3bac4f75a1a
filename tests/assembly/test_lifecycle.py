"""The relay's life on a reactor in memory: load, listen, save, end in order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.assembly.lifecycle import SWEEP_INTERVAL_S, RelayService
from clasp_relay.core.records import Ended, Param, StateImage
from clasp_relay.errors import StartError
from clasp_relay.service import make_service
from clasp_relay.settings import Settings
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_writing import encode
from clasp_relay.wire.messages import Bundle, Set
from clasp_relay.wire.values import encode_value
from tests.machine import Machine, live, say


class RelayServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a machine, and reads its log."""
        self.machine = Machine()
        self.folder = Path(self.mktemp())
        self.events: list[LogEvent] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def service(self, **settings: Any) -> RelayService:
        """Returns a relay that is not started."""
        return make_service(
            Settings(port=7330, auth_port=0, data_dir=self.folder, durability="snapshot", **settings), self.machine
        )

    def said(self) -> list[str]:
        """Returns the warnings and errors in the log."""
        return [str(event["log_format"]) for event in self.events if event["log_level"].name in ("warn", "error")]

    def stop(self, service: RelayService) -> None:
        """Stops a relay that has no sessions."""
        stopped: Deferred[None] = service.stopService()
        self.machine.pump([0.1, 0.1])
        self.successResultOf(stopped)

    def test_nothing_is_opened_before_the_start(self) -> None:
        """Neither folder nor port."""
        service = self.service()
        self.assertFalse(self.folder.exists())
        self.assertEqual(self.machine.tcpServers, [])
        self.assertFalse(service.is_ready)

    def test_service_listens_where_it_is_told(self) -> None:
        """Once, although twistd starts it in two steps; ready from then on."""
        service = self.service(host="127.0.0.1")
        service.privilegedStartService()
        self.assertTrue(service.is_ready)
        service.startService()
        self.assertEqual(
            [(each[0], each[1], each[3]) for each in self.machine.tcpServers], [(7330, service.factory, "127.0.0.1")]
        )
        self.stop(service)
        self.assertFalse(service.is_ready)
        self.assertEqual(self.machine.stopped_ports, 1)

    def test_service_warns_that_everybody_may_do_everything(self) -> None:
        """In the open mode, at every start."""
        service = self.service()
        service.startService()
        self.assertEqual(len([line for line in self.said() if line.startswith("open mode")]), 1)
        self.stop(service)

    def test_service_that_runs_is_not_started_again(self) -> None:
        """A program that embeds it may say so twice."""
        service = self.service()
        for _ in range(2):
            service.startService()
        self.assertEqual(len(self.machine.tcpServers), 1)
        self.stop(service)

    def test_service_that_was_stopped_says_that_it_does_not_start_again(self) -> None:
        """With what to do instead."""
        service = self.service()
        service.startService()
        self.stop(service)
        for start in (service.privilegedStartService, service.startService):
            with self.assertRaises(StartError) as caught:
                start()
            self.assertIn("make another one with make_service", str(caught.exception))

    def test_nothing_changes_after_the_last_save(self) -> None:
        """A bundle that is due later is not run on the reactor of the program that embeds the relay."""
        service = self.service()
        service.startService()
        due_us = service.relay.clock.now_us() + 30_000_000
        say(live(service), service, Bundle((Set("/late", encode_value(1)),), due_us))
        self.stop(service)
        self.machine.advance(60)
        self.assertEqual((len(service.relay.params), service.is_saved), (0, True))
        lost = [event["count"] for event in self.events if event.get("event") == "bundles.lost"]
        self.assertEqual(lost, [1])
        self.assertEqual(self.machine.getDelayedCalls(), [])

    def test_service_is_not_ready_while_it_cannot_save(self) -> None:
        """From the attempt that failed until one succeeds."""
        service = self.service(persist_interval_s=30)
        service.startService()
        obstacle = self.folder / "state.json.tmp"
        obstacle.mkdir()
        say(live(service), service, Set("/a", encode_value(1)))
        self.assertTrue(service.is_ready)
        self.machine.advance(30)
        self.assertFalse(service.is_ready)
        self.assertEqual(service.trouble, "the state file could not be written")
        obstacle.rmdir()
        self.machine.advance(30)
        self.assertTrue(service.is_ready)
        self.stop(service)

    def test_service_tells_whether_all_is_saved(self) -> None:
        """Also in the log."""
        for broken in (False, True):
            with self.subTest(broken):
                self.folder = Path(self.mktemp())
                service = self.service()
                service.startService()
                say(live(service), service, Set("/a", encode_value(1)))
                if broken:
                    (self.folder / "state.json.tmp").mkdir()
                self.stop(service)
                self.assertIs(service.is_saved, not broken)
                (outcome,) = [event["outcome"] for event in self.events if event.get("event") == "relay.stopped"]
                self.events.clear()
                self.assertTrue(outcome.endswith("NOT saved" if broken else "are saved"), outcome)

    def test_service_saves_every_interval_and_loads_it_again(self) -> None:
        """What changed, and only then."""
        service = self.service(persist_interval_s=30)
        service.startService()
        state_file = self.folder / "state.json"
        self.machine.advance(30)
        self.assertFalse(state_file.exists())
        say(live(service), service, Set("/a", encode_value(1)))
        self.machine.advance(29)
        self.assertFalse(state_file.exists())
        self.machine.advance(1)
        self.assertEqual([param["address"] for param in json.loads(state_file.read_text())["params"]], ["/a"])
        self.stop(service)
        again = self.service()
        again.startService()
        self.assertEqual(len(again.relay.params), 1)
        self.stop(again)

    def test_service_saves_when_it_stops(self) -> None:
        """All that was accepted."""
        service = self.service()
        service.startService()
        say(live(service), service, Set("/a", encode_value(1)))
        self.stop(service)
        self.assertTrue((self.folder / "state.json").exists())

    def test_service_ends_params_whose_time_is_over(self) -> None:
        """At most a second late."""
        service = self.service()
        service.startService()
        say(live(service), service, Set("/a", encode_value(1), ttl=1 | 0x8000_0000))
        self.assertEqual(len(service.relay.params), 1)
        self.patch(service.relay.clock, "_last_us", service.relay.clock.now_us() + 1_000_000)
        self.machine.advance(SWEEP_INTERVAL_S)
        self.assertEqual(len(service.relay.params), 0)
        self.stop(service)

    def test_service_that_is_not_started_stops_at_once(self) -> None:
        """As one that could not start does."""
        self.successResultOf(self.service().stopService())

    def test_service_says_which_port_it_cannot_have(self) -> None:
        """With the cause and the cure; it is not ready, and has written nothing."""
        self.machine.taken = True
        service = self.service(host="127.0.0.1")
        with self.assertRaises(StartError) as caught:
            service.startService()
        self.assertEqual(
            str(caught.exception),
            "--port: cannot listen on 127.0.0.1:7330 (Address already in use); give another --port or --host",
        )
        self.assertFalse(service.is_ready)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["state.json.lock"])

    def test_service_that_cannot_start_leaves_no_file_open(self) -> None:
        """The program that embeds it goes on, and may try again."""
        self.machine.taken = True
        service = make_service(Settings(data_dir=self.folder, durability="snapshot"), self.machine)
        for _ in range(2):
            with self.assertRaises(StartError):
                service.startService()
            # SQLite has this file beside the database for as long as it is open.
            self.assertEqual(
                {file.name for file in self.folder.iterdir()},
                {"state.json.lock", "users.db", "users.db.key", "users.db.lock", "files", "files.db", "files.db.lock"},
            )

    def test_presence_that_a_wrong_clock_left_in_the_future_ends_soon(self) -> None:
        """Whoever it let into a room for hours is outside after its life time, as is whoever left that late."""
        service = self.service()
        now_us = service.relay.clock.now_us()
        late_us = now_us + 86_400_000_000
        params = [Param("/here", encode_value(1), 1, "s", late_us, 60, "ann")]
        image = StateImage(params, [("/gone", Ended(2, late_us, "ann"))], {"/here": late_us + 60_000_000})
        self.folder.mkdir()
        file = StateFile(self.folder / "state.json")
        file.load()
        file.save(encode(image))
        service.startService()
        due_us = service.relay.params.image().expires_us["/here"]
        self.assertLess(abs(due_us - now_us - 60_000_000), 30_000_000)
        ended = service.relay.params.ended("/gone")
        assert ended is not None
        self.assertLess(ended.when_us, now_us + 30_000_000)
        self.stop(service)

    def test_second_service_on_the_same_files_does_not_start(self) -> None:
        """While the first one lives; afterwards it does. Accounts are files, too."""
        shared = {"data_dir": self.folder, "port": 7330, "durability": "snapshot"}
        first = make_service(Settings(**shared), self.machine)  # type: ignore[arg-type]
        first.startService()
        others: tuple[dict[str, Path], ...] = (
            {},
            {"state_path": self.folder / "other.json"},
            {"auth_db": self.folder / "other.db"},
        )
        for more, name in zip(others, ("state.json", "users.db", "state.json"), strict=True):
            with self.subTest(**more):
                second = make_service(Settings(**shared, **more), self.machine)  # type: ignore[arg-type]
                with self.assertRaises(StartError) as caught:
                    second.startService()
                self.assertIn(f"is in use by another relay (process {os.getpid()} on ", str(caught.exception))
                self.assertIn(f"which keeps {name} there", str(caught.exception))
        self.stop(first)
        second = make_service(Settings(**shared), self.machine)  # type: ignore[arg-type]
        second.startService()
        self.stop(second)

    def test_service_does_not_start_where_it_could_not_save(self) -> None:
        """It reads nothing and does not listen."""
        (self.folder / "state.json.tmp").mkdir(parents=True)
        with self.assertRaises(StartError) as caught:
            self.service().startService()
        self.assertIn("--data-dir: cannot write to ", str(caught.exception))
        self.assertEqual(self.machine.tcpServers, [])

    def test_service_tries_again_as_the_user_that_it_has_become(self) -> None:
        """Under twistd's --uid root loads, and another one saves."""
        service = self.service()
        service.privilegedStartService()
        (self.folder / "state.json.tmp").mkdir()
        self.patch(os, "geteuid", lambda: 999)
        with self.assertRaises(StartError) as caught:
            service.startService()
        self.assertIn("--data-dir: cannot write to ", str(caught.exception))
        self.stop(service)

    def test_service_does_not_start_on_a_broken_state(self) -> None:
        """And does not listen."""
        self.folder.mkdir()
        (self.folder / "state.json").write_text("{")
        with self.assertRaises(StartError):
            self.service().startService()
        self.assertEqual(self.machine.tcpServers, [])

    def test_service_names_the_option_that_named_the_folder(self) -> None:
        """``--persist`` where that is given."""
        file = Path(self.mktemp())
        file.write_text("")
        for settings, option in (({"data_dir": file}, "--data-dir"), ({"state_path": file / "s.json"}, "--persist")):
            with self.subTest(option):
                with self.assertRaises(StartError) as caught:
                    make_service(Settings(auth_port=0, **settings), self.machine).startService()  # type: ignore[arg-type]
                self.assertTrue(str(caught.exception).startswith(f"{option}: "), caught.exception)

    def test_service_warns_of_what_was_left_out_of_the_state(self) -> None:
        """And of a state file that is missing where an older one is there."""
        self.folder.mkdir()
        (self.folder / "state.json.1").write_text("{}")
        service = self.service()
        service.startService()
        warnings = [str(event["text"]) for event in self.events if event.get("event") == "state.warning"]
        self.assertEqual(len(warnings), 1)
        self.assertIn("state.json.1", warnings[0])
        self.stop(service)
