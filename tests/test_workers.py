"""A set of workers: what each is told, and what becomes of those that end."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.options import Options
from clasp_relay.errors import StartError
from clasp_relay.workers import MOST_ENDS, RESTART_S, SHORT_S, WorkerSet, nats_program


class Process:
    """A process that was started.

    Args:
        protocol: is told of its end.
        command: what runs.
        environment: its variables.
    """

    def __init__(self, protocol: Any, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.protocol = protocol
        self.command = list(command)
        self.environment = environment
        self.signals: list[str] = []
        self.pid = 1
        self.is_stdin_open = True

    def closeStdin(self) -> None:  # noqa: N802  Twisted's name
        """Closes its input."""
        self.is_stdin_open = False

    def signalProcess(self, name: str) -> None:  # noqa: N802  Twisted's name
        """Is sent a signal."""
        self.signals.append(name)

    def end(self, status: int | None = 0, number: int | None = None) -> None:
        """Ends."""
        reason = ProcessTerminated(status, number) if status or number else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))


class Machine(MemoryReactorClock):
    """A reactor that starts no processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Process] = []

    def spawnProcess(  # noqa: N802  Twisted's name
        self, protocol: Any, executable: str, args: Sequence[str], env: Mapping[str, str], **more: object
    ) -> Process:
        """Notes what was to be started."""
        assert executable == sys.executable
        assert more == {"childFDs": {0: "w", 1: 1, 2: 2}}, more
        # Python, its switches, the program that starts it, and the number of this process stand before the command.
        self.started.append(Process(protocol, args[args.index(str(os.getpid())) + 1 :], env))
        return self.started[-1]


class WorkersTestCase(SynchronousTestCase):
    """Makes sets of workers."""

    def setUp(self) -> None:
        """Has a folder."""
        self.folder = Path(self.mktemp()).absolute()
        self.machine = Machine()

    def made(self, *arguments: str) -> WorkerSet:
        """Returns a set that is not started."""
        given = ["--auth-port=0", "--host=127.0.0.1", "--port=0", f"--data-dir={self.folder}", *arguments]
        options = Options({})
        options.parseOptions(given)
        made = WorkerSet(options.settings, given, self.machine, {"PATH": "/nowhere"})
        self.addCleanup(made._release, None)
        return made

    def started(self, *arguments: str) -> WorkerSet:
        """Returns a set that runs."""
        made = self.made(*arguments)
        made.startService()
        return made

    def refusal(self, *arguments: str) -> str:
        """Returns why a set cannot be started."""
        text = str(self.assertRaises(StartError, self.made(*arguments).privilegedStartService))
        self.assertEqual(len(text.splitlines()), 1)
        return text


class StartTests(WorkersTestCase):
    """What is started."""

    def test_nats_server_and_workers_are_started(self) -> None:
        """Each worker has a folder and a name of its own, and the same port; nobody can read the password."""
        self.started("--workers=3")
        engine, *found = self.machine.started
        self.assertEqual(engine.command[:2], [nats_program(), "--config"])
        config = Path(engine.command[2])
        self.assertEqual(stat.S_IMODE(config.stat().st_mode), 0o600)
        self.assertEqual(len(found), 3)
        ports = set()
        for number, worker in enumerate(found, 1):
            self.assertEqual(worker.command[:3], [sys.executable, "-m", "clasp_relay"])
            options = Options(dict(worker.environment))
            options.parseOptions(worker.command[3:])
            settings = options.settings
            self.assertEqual(settings.data_dir, self.folder / f"worker-{number}")
            self.assertEqual((settings.relay_name, settings.workers), (f"worker-{number}", 1))
            self.assertTrue(settings.share_port)
            ports.add(settings.port)
            (url,) = settings.cluster
            password = url.removeprefix("nats://clasp:").partition("@")[0]
            self.assertIn(password, config.read_text("utf-8"))
            self.assertNotIn(password, " ".join(worker.command))
            self.assertFalse(worker.is_stdin_open)
        self.assertEqual(len(ports), 1)
        self.assertNotIn(0, ports)

    def test_nats_server_has_room_for_files(self) -> None:
        """Where users may send any; the log of the workers has its own."""
        rooms = []
        for options in (("--files=off",), ("--files-max-bytes=1073741824",)):
            self.started("--workers=2", "--auth-port=7350", *options)
            config = Path([each.command for each in self.machine.started if "--config" in each.command][-1][2])
            rooms.append(int(config.read_text("utf-8").partition("max_file_store: ")[2].split()[0]))
        self.assertEqual(rooms[0], 2 << 30)
        self.assertGreater(rooms[1], 3.2 * (1 << 30))

    def test_workers_have_health_ports_one_after_the_other(self) -> None:
        """So that each can be asked; a port 0 stays 0."""
        self.started("--workers=2", "--health-port=7360", "--metrics-port=0")
        found = [each.command for each in self.machine.started[1:]]
        self.assertEqual(
            [[word for word in each if "7" in word and "health" in word][-1] for each in found],
            [
                "--health-port=7360",
                "--health-port=7361",
            ],
        )
        self.assertEqual([word for word in found[1] if "metrics" in word], ["--metrics-port=0"])

    def test_port_that_is_taken_is_said(self) -> None:
        """Before anything is started."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.assertIn(f"--port: cannot listen on 127.0.0.1:{port}", self.refusal("--workers=2", f"--port={port}"))
        self.assertEqual(self.machine.started, [])

    def test_files_of_a_relay_without_workers_are_not_passed_over(self) -> None:
        """The operator reads where to move them."""
        self.folder.mkdir()
        (self.folder / "state.json").write_text("{}")
        text = self.refusal("--workers=2")
        self.assertIn(f"{self.folder / 'state.json'} is of a relay without workers", text)
        self.assertIn(str(self.folder / "worker-1"), text)

    def test_missing_nats_server_is_said(self) -> None:
        """With what to install; one of the PATH is as good."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.patch(sys, "executable", str(folder / "python"))
        self.assertIn("install clasp-relay[workers]", str(self.assertRaises(StartError, nats_program, "/nowhere")))
        program = folder / "nats-server"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.assertEqual(nats_program("/nowhere"), str(program))
        self.patch(sys, "executable", "/nowhere/python")
        self.assertEqual(nats_program(str(folder)), str(program))


class EndTests(WorkersTestCase):
    """What ends."""

    def test_worker_that_ends_is_started_again(self) -> None:
        """After a moment, as it was; the log says with what it ended."""
        self.started("--workers=2")
        with capturedLogs() as seen:
            self.machine.started[1].end(None, 9)
            self.assertEqual(len(self.machine.started), 3)
            self.machine.advance(RESTART_S)
        self.assertEqual(self.machine.started[3].command, self.machine.started[1].command)
        self.assertEqual([each["event"] for each in seen], ["worker.ended", "worker.started"])
        self.assertEqual(seen[0]["status"], "signal 9")

    def test_worker_that_ends_again_and_again_stops_all(self) -> None:
        """The process then ends with status 1."""
        made = self.started("--workers=2")
        lost: list[bool] = []
        made.on_lost = lambda: lost.append(True)
        for _ in range(MOST_ENDS):
            self.machine.started[-1].end(1)
            self.machine.advance(RESTART_S)
        self.assertEqual((lost, made.is_saved), ([True], False))
        self.assertEqual(len(self.machine.started), 3 + MOST_ENDS - 1)

    def test_worker_that_ends_now_and_then_is_started_each_time(self) -> None:
        """What was long ago does not count."""
        made = self.started("--workers=2")
        made.on_lost = lambda: self.fail("all stop")
        for _ in range(2 * MOST_ENDS):
            self.machine.started[-1].end(1)
            self.machine.advance(SHORT_S)
        self.assertEqual(len(self.machine.started), 3 + 2 * MOST_ENDS)

    def test_stop_ends_the_workers_and_then_nats_server(self) -> None:
        """So that they can say goodbye; the port is free at the end."""
        made = self.started("--workers=2")
        engine, *found = self.machine.started
        stopped: list[object] = []
        made.stopService().addCallback(stopped.append)
        self.assertEqual([each.signals for each in (engine, *found)], [[], ["TERM"], ["TERM"]])
        found[0].end()
        self.assertEqual(engine.signals, [])
        found[1].end()
        self.assertEqual((engine.signals, stopped), (["TERM"], []))
        engine.end()
        self.assertEqual((len(stopped), made.is_saved, made._reserved), (1, True, []))

    def test_stop_waits_for_nobody_who_has_ended(self) -> None:
        """Who was about to be started again is not."""
        made = self.started("--workers=2")
        engine, first, second = self.machine.started
        first.end(1)
        stopped: list[object] = []
        made.stopService().addCallback(stopped.append)
        second.end(1)
        engine.end()
        self.machine.advance(2 * RESTART_S)
        self.assertEqual((len(stopped), len(self.machine.started)), (1, 3))
        self.assertFalse(made.is_saved, "a worker could not save")

    def test_reload_is_passed_on(self) -> None:
        """To all workers."""
        made = self.started("--workers=2")
        self.machine.started[2].end(1)
        made.reload()
        self.assertEqual([each.signals for each in self.machine.started], [[], ["HUP"], []])


class OptionTests(SynchronousTestCase):
    """What goes together with ``--workers``."""

    def refusal(self, *arguments: str) -> str:
        """Returns what is said to a command line."""
        said: list[str] = []
        self.patch(sys, "__stderr__", type("Stderr", (), {"write": lambda _self, text: said.append(text)})())
        self.assertRaises(SystemExit, Options({}).parseOptions, ["--workers=2", *arguments])
        return "".join(said)

    def test_options_that_workers_cannot_share_are_refused(self) -> None:
        """Each would be the same for all of them."""
        for option in (
            "--cluster=nats://a:1",
            "--journal=x",
            "--persist=x",
            "--auth-db=x",
            "--endpoint=tcp:1",
            "--auth-endpoint=tcp:1",
            "--announce",
        ):
            with self.subTest(option):
                said = self.refusal(option)
                self.assertIn(f"{option.partition('=')[0]}: conflicts with --workers; leave it out", said)

    def test_ports_of_health_and_metrics_do_not_meet(self) -> None:
        """Each worker has its own, from the given one on: here both ask for 7361."""
        for ports in (("7360", "7361"), ("7361", "7360")):
            said = self.refusal("--auth-port=0", *map("--{}-port={}".format, ("health", "metrics"), ports))
            self.assertIn(
                "--metrics-port: the workers have one port each from here on, and from --health-port on", said
            )

    def test_what_a_cluster_does_not_have_workers_do_not_have(self) -> None:
        """And it is said of the option that was given."""
        said = self.refusal("--auth-port=0", "--durability=snapshot")
        self.assertIn("--workers: needs a journal", said)
