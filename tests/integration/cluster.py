"""Relays on one engine as processes, each on a host of its own where the network between them is to be cut."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clasp_relay.wire.messages import Hello, Welcome
from tests.integration.cluster_checker import Claim
from tests.integration.namespaces import HERE, Host, Network
from tests.integration.nats import Nats, NatsServer
from tests.integration.process import PATIENCE_S, TWISTD, RelayProcess, wait_until
from tests.integration.raw import Closed, RawClient
from tests.ports import free_port

WATCHED = ("-m", "tests.integration.watched_relay")
"""The relay inside a program that can move its clock."""


class Member:
    """One relay of a cluster: its folder, name and ports, which stay when its process ends and another one begins.

    Args:
        folder: its working folder.
        name: its ``--relay-name``.
        host: where it runs.
        options: of the relay, beside those that say where it is.
        command: how Python starts it.
    """

    def __init__(
        self, folder: Path, name: str, host: Host, options: Sequence[str], command: Sequence[str] = TWISTD
    ) -> None:
        self.folder = folder
        self.name = name
        self.host = host
        self.port, self.health_port = free_port(), free_port()
        self.logs: list[str] = []
        """Of the processes that have ended."""
        self.variables: dict[str, str] = {}
        """More of the environment, from the next start on."""
        folder.mkdir(parents=True)
        where = ("--port", str(self.port), "--health-port", str(self.health_port), "--relay-name", name)
        self._options = (*where, *options)
        self._command = command
        self._process: RelayProcess | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.is_running

    @property
    def process(self) -> RelayProcess:
        """The process."""
        assert self._process is not None, "was never started"
        return self._process

    @property
    def log(self) -> str:
        """What all of its processes have logged."""
        return "".join((*self.logs, self._process.log if self._process is not None else ""))

    def start(self) -> None:
        """Starts it, on the files that it left."""
        assert not self.is_running, "runs already"
        if self._process is not None:
            self.logs.append(self._process.log)
        self._process = RelayProcess(
            self.folder, *self._options, command=self._command, variables=self.variables, host=self.host
        )

    def readiness(self) -> dict[str, Any]:
        """Returns what ``/readyz`` says; nothing where it does not answer."""

        def ask() -> dict[str, Any]:
            connection = http.client.HTTPConnection(self.host.address, self.health_port, timeout=2)
            with contextlib.closing(connection), contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                connection.request("GET", "/readyz")
                answer: dict[str, Any] = json.loads(connection.getresponse().read())
                return answer
            return {}

        return self.host.call(ask)

    def metric(self, name: str) -> float:
        """Returns the sum of a metric over its labels.

        Raises:
            AssertionError: it has none of that name.
        """

        def ask() -> str:
            connection = http.client.HTTPConnection(self.host.address, self.health_port, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                connection.request("GET", "/metrics")
                return connection.getresponse().read().decode()

        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.host.call(ask), re.MULTILINE)
        assert found, f"{self.name} has no metric {name}"
        return sum(map(float, found))

    @property
    def role(self) -> str:
        """``decider`` or ``follower`` where it is ready, else nothing."""
        said = self.readiness() if self.is_running else {}
        return str(said["role"]) if said.get("ready") else ""

    def connect(self, patience_s: float = PATIENCE_S) -> RawClient:
        """Returns an upgraded client."""
        return self.host.call(lambda: RawClient(self.port, host=self.host.address, patience_s=patience_s))

    def admitted(self, name: str) -> RawClient:
        """Returns a client past WELCOME; a relay that is about to notice that it is not ready refuses some before."""
        admitted: list[RawClient] = []

        def is_admitted() -> bool:
            client = self.connect()
            client.send(Hello(1, 0xF8, name))
            with contextlib.suppress(Closed):
                if isinstance(client.receive_any(), Welcome):
                    admitted.append(client)
                    return True
            client.close()
            return False

        wait_until(is_admitted, f"{self.name} admits {name}")
        return admitted[0]

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self.process.kill()

    def stop(self) -> int:
        """Stops it in order and returns its exit status."""
        return self.process.stop()

    def pause(self) -> None:
        """Stops the process where it is."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets the process go on."""
        self.process.signal(signal.SIGCONT)

    def move_clock(self, seconds: float) -> None:
        """Moves the machine's clock as the process sees it; only where its command is :data:`WATCHED`."""
        before = self.process.log.count("moved\n")
        self.process.say(f"clock {seconds}")
        wait_until(lambda: self.process.log.count("moved\n") > before, "the clock is moved")


class Cluster:
    """Servers of the engine, and relays.

    Args:
        folder: for all of their files.
        servers: how many of the engine; one or three.
        relays: how many.
        has_network: whether each is on a host of its own.
        options: of every relay.
        command: how Python starts each relay.
    """

    def __init__(
        self,
        folder: Path,
        *,
        servers: int = 1,
        relays: int = 2,
        has_network: bool = False,
        options: Sequence[str] = (),
        command: Sequence[str] = TWISTD,
    ) -> None:
        self.network: Network | None = None
        names = [f"n{number}" for number in range(1, servers + 1)], [f"r{number}" for number in range(1, relays + 1)]
        hosts: dict[str, Host] = dict.fromkeys((*names[0], *names[1]), HERE)
        if has_network:
            self.network = Network(hosts)
            hosts = dict(self.network.hosts)
        self.nats = Nats.with_password(folder / "engine", [hosts[name] for name in names[0]])
        self.options = ("--cluster", self.nats.url, *options)
        self.members = [Member(folder / name, name, hosts[name], self.options, command) for name in names[1]]
        self.watch = Watch(self.members)
        self._stream = ""

    def start(self) -> None:
        """Starts all, and waits until one relay decides and the others follow."""
        self.nats.start()
        for member in self.members:
            member.start()
        self.wait()
        self._stream = self.stream()
        self.watch.start()

    def wait(self) -> None:
        """Waits until every relay that runs is ready, and one of them decides."""
        wait_until(self.is_whole, f"a decider and followers: {self}")

    def is_whole(self) -> bool:
        """Tells whether every relay that runs is ready, and one of them decides."""
        return self._only_decider() is not None

    def _only_decider(self) -> Member | None:
        """Returns the relay that decides, each asked once; None unless all are ready and just one decides."""
        roles = {member: member.role for member in self.members if member.is_running}
        deciders = [member for member, role in roles.items() if role == "decider"]
        return deciders[0] if all(roles.values()) and len(deciders) == 1 else None

    @property
    def decider(self) -> Member:
        """The relay that decides."""
        found: list[Member] = []

        def is_found() -> bool:
            member = self._only_decider()
            found.extend(() if member is None else (member,))
            return bool(found)

        wait_until(is_found, f"a decider: {self}")
        return found[0]

    @property
    def followers(self) -> list[Member]:
        """The relays that follow."""
        return [member for member in self.members if member.role == "follower"]

    @property
    def hosts(self) -> list[Host]:
        """Where all of it runs."""
        return [*(server.host for server in self.nats.servers), *(member.host for member in self.members)]

    def stream(self) -> str:
        """Returns the name of the stream of records."""
        client = self.nats.client()
        try:
            (name,) = [each for each in client.streams() if not each.startswith(("KV_", "OBJ_"))]
        finally:
            client.close()
        return name

    def leader(self) -> NatsServer | None:
        """Returns the server that leads the stream; None while no one does."""
        return self.nats.leader(self._stream)

    def close(self) -> None:
        """Ends all."""
        self.watch.stop()
        for member in self.members:
            if member.is_running:
                member.resume()
                member.kill()
        self.nats.close()
        if self.network is not None:
            self.network.close()

    def __str__(self) -> str:
        return ", ".join(f"{member.name} {member.readiness()}" for member in self.members)


class Watch(threading.Thread):
    """Notes who says that it decides, several times a second.

    Args:
        members: whom it asks.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__(daemon=True)
        self.claims: list[Claim] = []
        self._members = members
        self._is_over = threading.Event()

    def run(self) -> None:
        """Asks until it is stopped."""
        while not self._is_over.wait(0.2):
            for member in self._members:
                said = member.readiness() if member.is_running else {}
                claim = Claim(int(said.get("epoch", 0)), member.name)
                if said.get("role") == "decider" and claim not in self.claims:
                    self.claims.append(claim)

    def stop(self) -> None:
        """Ends it."""
        self._is_over.set()
        if self.is_alive():
            self.join(PATIENCE_S)
