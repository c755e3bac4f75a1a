"""Several relays on one machine as one: ``--workers N`` runs a nats-server and N relays that share a port.

Each worker is a relay with this command line, a folder of its own and ``--cluster``. This process only starts the
others, and starts them again when they end. nats-server listens on the loopback, with a random password for each start;
what it stores is bounded, since the workers' journals have all of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from clasp_relay.errors import StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.settings import Settings
from clasp_relay.storage.folder import prepare_folder

__all__ = ["WorkerSet", "nats_program"]

MAX_MEMORY_BYTES = 64 * 1024 * 1024
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
"""Limits of nats-server in bytes: of what it keeps in memory, and on disk beside the files that users send."""

RESTART_S = 1.0
"""Delay before a process that has ended is started again, in seconds."""

SHORT_S = 30.0
"""A process that ends three times within this time (in seconds) is not started again: all stop, with status 1."""

MOST_ENDS = 3

_CONFIG = """\
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}/store", max_memory_store: {memory}, max_file_store: {disk} }}
authorization {{ user: "clasp", password: "{password}" }}
"""

_LAUNCH = (
    "import ctypes, os, sys\n"
    "libc = ctypes.CDLL(None)\n"
    "if hasattr(libc, 'prctl'): libc.prctl(1, 15)\n"  # PR_SET_PDEATHSIG, SIGTERM
    "if os.getppid() != int(sys.argv[1]): sys.exit(0)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)
"""Starts a program that gets SIGTERM when this process ends, however it ends."""


def nats_program(path: str | None = None) -> str:
    """Returns nats-server: the one that the extra ``workers`` has put beside Python, else one of the PATH.

    Args:
        path: the PATH; None for the process's own.

    Raises:
        StartError: there is none.
    """
    own = Path(sys.executable).with_name("nats-server")
    found = str(own) if own.exists() else shutil.which("nats-server", path=path)
    if found is None:
        raise StartError(
            "--workers: nats-server is not installed; install clasp-relay[workers], or put nats-server 2.12 or later "
            "on the PATH"
        )
    return found


class WorkerSet(Service):
    """Runs nats-server and the workers, as a service in the place of a relay.

    Args:
        settings: the settings of the workers and their number.
        arguments: the command line of this process, without the program.
        reactor: runs the processes.
        environment: the environment of the processes; None for this process's own.
    """

    is_saved = True
    """Whether every worker has saved all of its changes, once all have stopped."""

    def __init__(
        self, settings: Settings, arguments: Sequence[str], reactor: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._arguments = arguments
        self._reactor = reactor
        self._environment = dict(os.environ if environment is None else environment)
        self._engine: _Child | None = None
        self._workers: list[_Child] = []
        self._reserved: list[socket.socket] = []
        self.on_lost: Callable[[], object] = self.stopService
        """Called when a process ends again and again; by default all processes stop."""

    def privilegedStartService(self) -> None:
        """Checks what a start needs, before any process is started.

        Raises:
            StartError: nats-server is missing, a port is in use, or the folder has files of a relay without workers.
        """
        program = nats_program()
        folder = self._settings.data_dir
        for name in ("state.json", "journal.db", "users.db"):
            if (folder / name).exists():
                raise StartError(
                    f"--workers: {folder / name} is of a relay without workers; move the files of {folder} into "
                    f"{folder / 'worker-1'}, or name another --data-dir"
                )
        prepare_folder("--data-dir", folder)
        port = self._reserve(self._settings.host, self._settings.port, is_shared=True)
        engine_port = self._reserve("127.0.0.1", 0, is_shared=False)
        password = secrets.token_hex(24)
        config = self._write_config(folder / "engine", engine_port, password)
        self._engine = _Child(self, "nats-server", (program, "--config", str(config)), self._environment)
        url = f"nats://clasp:{password}@127.0.0.1:{engine_port}"
        for number in range(1, self._settings.workers + 1):
            command = (sys.executable, "-m", "clasp_relay", *self._arguments, *self._options_of(number, port))
            # Not on the command line, where everybody on the machine could read the password.
            environment = self._environment | {"CLASP_CLUSTER": url}
            self._workers.append(_Child(self, f"worker-{number}", command, environment))

    def startService(self) -> None:
        """Starts nats-server and the workers, which wait for it."""
        if self._engine is None:
            self.privilegedStartService()
        Service.startService(self)
        for child in self._children:
            child.start()

    def stopService(self) -> Deferred[Any]:
        """Stops the workers in order, then nats-server.

        Returns:
            A Deferred that fires when all have ended.
        """
        Service.stopService(self)
        stopped: Deferred[Any] = DeferredList([worker.stop() for worker in self._workers])
        stopped.addCallback(lambda _: None if self._engine is None else self._engine.stop())
        return stopped.addCallback(self._release)

    def reload(self) -> None:
        """Has every worker read the files again that may change while it runs."""
        for worker in self._workers:
            worker.signal("HUP")

    @property
    def _children(self) -> list[_Child]:
        assert self._engine is not None, "nothing was prepared"
        return [self._engine, *self._workers]

    def _options_of(self, number: int, port: int) -> list[str]:
        """Returns a worker's own options; behind the command line's, since an option's last occurrence counts."""
        settings = self._settings
        options = ["--workers=1", "--share-port", f"--port={port}", f"--relay-name=worker-{number}"]
        options.append(f"--data-dir={settings.data_dir / f'worker-{number}'}")
        for name, first in (("health-port", settings.health_port), ("metrics-port", settings.metrics_port)):
            if first:
                options.append(f"--{name}={first + number - 1}")
        return options

    def _write_config(self, folder: Path, port: int, password: str) -> Path:
        folder.mkdir(mode=0o700, exist_ok=True)
        disk_bytes = MAX_FILE_BYTES + (self._settings.files_bucket_bytes if self._settings.takes_files else 0)
        text = _CONFIG.format(
            port=port, folder=folder.absolute(), memory=MAX_MEMORY_BYTES, disk=disk_bytes, password=password
        )
        path = folder / "nats.conf"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _reserve(self, host: str, port: int, *, is_shared: bool) -> int:
        """Returns a free port: the given one, or any if that is 0."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            if is_shared:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host, port))
            found: int = holder.getsockname()[1]
        except OSError as error:
            holder.close()
            raise StartError(
                f"--port: cannot listen on {host}:{port} ({cause_text(error)}); give another --port or --host"
            ) from error
        if is_shared:
            self._reserved.append(holder)  # it never listens, so no connection comes to it
        else:
            holder.close()
        return found

    def _release(self, _result: object) -> None:
        while self._reserved:
            self._reserved.pop().close()


class _Child(ProcessProtocol):
    """A process that is started again when it ends.

    Args:
        owner: the set that it belongs to.
        name: its name in log lines.
        command: its command line.
        environment: its environment.
    """

    def __init__(self, owner: WorkerSet, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._owner = owner
        self._reactor = owner._reactor
        self._name = name
        self._command = command
        self._environment = environment
        self._process: Any = None
        self._restart: IDelayedCall | None = None
        self._ends_s: list[float] = []
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Starts the process."""
        self._restart = None
        launch = (sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._command)
        # Its stdin is closed at once; its stdout and stderr are this process's.
        self._process = self._reactor.spawnProcess(
            self, sys.executable, launch, self._environment, childFDs={0: "w", 1: 1, 2: 2}
        )
        self._process.closeStdin()
        events.WORKER_STARTED.log(worker=self._name, process=self._process.pid)

    def stop(self) -> Deferred[None]:
        """Tells the process to stop; the Deferred fires when it has ended."""
        stopped = self._stopped = Deferred()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._process is None:
            stopped.callback(None)
        else:
            self.signal("TERM")
        return stopped

    def signal(self, name: str) -> None:
        """Sends a signal to the process, if it runs."""
        if self._process is not None:
            self._process.signalProcess(name)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802  Twisted's name
        """Starts it again, unless it is told to stop or ends again and again."""
        self._process = None
        status = getattr(reason.value, "exitCode", None)
        if self._stopped is not None:
            if status:
                self._owner.is_saved = False
            self._stopped.callback(None)
            return
        now_s = self._reactor.seconds()
        self._ends_s = [each for each in self._ends_s if each > now_s - SHORT_S] + [now_s]
        text = f"status {status}" if status is not None else f"signal {getattr(reason.value, 'signal', '?')}"
        if len(self._ends_s) >= MOST_ENDS:
            events.WORKERS_LOST.log(worker=self._name, count=len(self._ends_s), seconds=int(SHORT_S))
            self._owner.is_saved = False
            self._owner.on_lost()
        else:
            events.WORKER_ENDED.log(worker=self._name, status=text)
            self._restart = self._reactor.callLater(RESTART_S, self.start)
