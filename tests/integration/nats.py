"""nats-server with JetStream, as processes: one, or three that make a quorum."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.deploy import tools
from tests.integration.namespaces import HERE, Host
from tests.integration.process import PATIENCE_S, wait_until
from tests.ports import free_port

_CONFIG = """\
server_name: "{name}"
listen: "{address}:{ports.clients}"
http: "{address}:{ports.monitor}"
jetstream {{ store_dir: "{folder}/store", max_memory_store: 67108864, max_file_store: 2147483648 }}
{rest}
"""
_QUORUM = """\
cluster {{ name: "clasp-test", listen: "{address}:{ports.routes}", routes: [{routes}] }}
"""
_USER = """\
authorization {{ user: "{user}", password: "{password}" }}
"""


class Ports(NamedTuple):
    """The ports of a server."""

    clients: int
    routes: int
    monitor: int

    @classmethod
    def free(cls) -> Ports:
        """Returns ports that nobody uses."""
        return cls(free_port(), free_port(), free_port())


class Login(NamedTuple):
    """Who may use a server."""

    user: str
    password: str


class NatsServer:
    """A server that keeps its streams in a folder of its own; it does not run until ``start``.

    Args:
        folder: for its files.
        name: unique among those of a quorum.
        host: where it runs.
        ports: where it listens.
        routes: the addresses of the servers of its quorum, itself included; none where it is alone.
        login: who may use it; None for everybody.
    """

    def __init__(
        self, folder: Path, name: str, host: Host, ports: Ports, routes: Sequence[str] = (), login: Login | None = None
    ) -> None:
        self.name = name
        self.host = host
        self.ports = ports
        self.login = login
        self.store = folder / "store"
        self.log = folder / "log"
        folder.mkdir(parents=True)
        self._config = folder / "nats.conf"
        rest = _USER.format(**login._asdict()) if login else ""
        if routes:
            listed = ", ".join(f'"nats-route://{each}"' for each in routes)
            rest += _QUORUM.format(address=host.address, ports=ports, routes=listed)
        self._config.write_text(
            _CONFIG.format(name=name, address=host.address, ports=ports, folder=folder, rest=rest), encoding="utf-8"
        )
        self._program = tools.required(tools.nats_server)
        self._process: subprocess.Popen[bytes] | None = None

    def turn_jetstream_off(self) -> None:
        """Has it keep nothing, from its next start on."""
        lines = self._config.read_text("utf-8").splitlines()
        self._config.write_text("\n".join(each for each in lines if not each.startswith("jetstream")), "utf-8")

    @property
    def place(self) -> str:
        """Address and port for clients."""
        return f"{self.host.address}:{self.ports.clients}"

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "was never started"
        return self._process.pid

    def start(self) -> None:
        """Starts it, on the files that it left."""
        assert not self.is_running, "runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.host.prefix, self._program, "-c", self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Waits until it and its quorum have JetStream ready.

        Raises:
            AssertionError: that does not happen.
        """
        wait_until(lambda: self.is_ready or not self.is_running, f"{self.name} is ready")
        if not self.is_running:
            raise AssertionError(f"{self.name} did not start: {self.log.read_text('utf-8', 'replace')}")

    @property
    def is_ready(self) -> bool:
        """Whether its JetStream works."""
        found = self.monitor("/healthz")
        if found is None or found.get("status") != "ok":
            return False
        jetstream = self.monitor("/jsz") or {}
        return "meta_cluster" not in jetstream or bool(jetstream["meta_cluster"].get("leader"))

    def monitor(self, path: str) -> dict[str, Any] | None:
        """Returns what its HTTP monitoring answers; None where it does not."""

        def ask() -> dict[str, Any] | None:
            connection = http.client.HTTPConnection(self.host.address, self.ports.monitor, timeout=PATIENCE_S)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                connection.request("GET", path)
                answer: dict[str, Any] = json.loads(connection.getresponse().read())
                return answer
            return None

        return self.host.call(ask)

    def stop(self) -> None:
        """Stops it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stops the process where it is; its connections stay. Afterwards none of its threads runs any more."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None, "was never started"
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Lets the process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "was never started"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(PATIENCE_S)


class Nats:
    """One server, or a quorum of some.

    Args:
        folder: for their files.
        hosts: where each runs; one server for one host.
        login: who may use it; None for everybody.
    """

    def __init__(self, folder: Path, hosts: Sequence[Host] = (HERE,), login: Login | None = None) -> None:
        ports = [Ports.free() for _ in hosts]
        routes = [f"{host.address}:{port.routes}" for host, port in zip(hosts, ports, strict=True)]
        self.servers = [
            NatsServer(folder / f"n{number}", f"n{number}", host, port, routes if len(hosts) > 1 else (), login)
            for number, (host, port) in enumerate(zip(hosts, ports, strict=True), 1)
        ]

    @classmethod
    def with_password(cls, folder: Path, hosts: Sequence[Host] = (HERE,)) -> Nats:
        """Returns servers that only who knows the password may use."""
        return cls(folder, hosts, Login("clasp", secrets.token_hex(16)))

    def start(self) -> None:
        """Starts all, and waits until they are ready."""
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait()

    @property
    def url(self) -> str:
        """What ``--cluster`` is told: the addresses of all, with the password where there is one."""
        login = self.servers[0].login
        user = f"{login.user}:{login.password}@" if login else ""
        return ",".join(f"nats://{user}{server.place}" for server in self.servers)

    def client(self) -> NatsClient:
        """Returns a connection to the first server that runs."""
        server = next(each for each in self.servers if each.is_running)
        return server.host.call(lambda: NatsClient(server.host.address, server.ports.clients, server.login))

    def leader(self, stream: str) -> NatsServer | None:
        """Returns the server that leads a stream; None while no one does."""
        for server in self.servers:
            found = server.monitor("/jsz?accounts=true&streams=true") if server.is_running else None
            for account in (found or {}).get("account_details", ()):
                for each in account.get("stream_detail", ()):
                    if each["name"] == stream:
                        name = each.get("cluster", {}).get("leader", self.servers[0].name)
                        return next((one for one in self.servers if one.name == name), None)
        return None

    def close(self) -> None:
        """Ends all."""
        for server in self.servers:
            server.kill()


def set_back(server: NatsServer, copy: Path) -> None:
    """Gives a server that does not run the streams of an earlier time, as a disk that lied about a sync does.

    Args:
        server: which.
        copy: a copy of its ``store`` of then.
    """
    assert not server.is_running, "would write what it has in memory"
    shutil.rmtree(server.store)
    shutil.copytree(copy, server.store)


class NatsError(Exception):
    """A server has refused a request."""


class NatsClient:
    """A connection that makes requests: what a test asks the engine, not what a relay uses.

    Args:
        address: of the server.
        port: of the server.
        login: whose it is.
    """

    def __init__(self, address: str, port: int, login: Login | None = None) -> None:
        self._socket = socket.create_connection((address, port), PATIENCE_S)
        self._file = self._socket.makefile("rb")
        self._last = 0
        options = {"verbose": False, "headers": True, "no_responders": True, "lang": "test", "version": "1"}
        if login:
            options |= {"user": login.user, "pass": login.password}
        self._send(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
        while self._line() != b"PONG":
            pass

    def close(self) -> None:
        """Ends it."""
        self._file.close()
        self._socket.close()

    def request(self, subject: str, payload: object = None) -> dict[str, Any]:
        """Returns the answer to a request, both as JSON; None for an empty one.

        Raises:
            NatsError: the answer is an error, or nobody answers.
        """
        data = b"" if payload is None else json.dumps(payload).encode()
        self._last += 1
        inbox = f"_INBOX.{secrets.token_hex(8)}"
        head = f"SUB {inbox} {self._last}\r\nUNSUB {self._last} 1\r\nPUB {subject} {inbox} {len(data)}\r\n"
        self._send(head.encode() + data + b"\r\n")
        answer: dict[str, Any] = json.loads(self._message())
        if "error" in answer:
            raise NatsError(str(answer["error"]))
        return answer

    def streams(self) -> list[str]:
        """Returns the names of all streams."""
        return list(self.request("$JS.API.STREAM.NAMES", {}).get("streams") or ())

    def last_sequence(self, stream: str) -> int:
        """Returns the sequence of the last message of a stream."""
        return int(self.request(f"$JS.API.STREAM.INFO.{stream}")["state"]["last_seq"])

    def delete(self, stream: str, sequence: int) -> None:
        """Deletes a message of a stream; its sequence is not given again."""
        self.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})

    def _message(self) -> bytes:
        while True:
            words = self._line().split()
            if words[0] in (b"MSG", b"HMSG"):
                body = self._file.read(int(words[-1]))
                self._file.read(2)
                if words[0] == b"HMSG":
                    raise NatsError(body.splitlines()[0].decode())
                return body

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise NatsError("the server has ended the connection")
        line = line.rstrip()
        if line == b"PING":
            self._send(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise NatsError(line.decode())
        return line

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
