"""``--workers``: relays behind one port, on a nats-server of their own, as an operator starts them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any

from clasp_relay.wire.messages import Ack, Get, Hello, Set, Snapshot, Welcome
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.accounts import PASSWORD, Api
from tests.integration.process import PATIENCE_S, RelayProcess, RelayTestCase, environment, wait_until
from tests.integration.raw import Closed, RawClient
from tests.ports import free_port

COMMAND = ("-m", "clasp_relay")


class WorkersTests(RelayTestCase):
    """Two of them."""

    def start_workers(self) -> RelayProcess:
        """Starts them, and waits until both take clients."""
        relay = self.start("--workers", "2", "--max-sessions-per-address", "0", command=COMMAND)
        wait_until(lambda: len(self.names(relay)) == 2, f"both take clients: {relay.log}")
        return relay

    def names(self, relay: RelayProcess) -> Counter[str]:
        """Returns which workers have admitted some newcomers, by the sessions that they log."""
        before = len(relay.lines)
        clients = [RawClient(relay.port) for _ in range(16)]
        for client in clients:
            client.send(Hello(1, 0xF8, "newcomer"))
        places = Counter(self.owner(client) for client in clients if self.is_admitted(client))
        for client in clients:
            client.close()
        assert len(relay.lines) >= before
        return places

    @staticmethod
    def is_admitted(client: RawClient) -> bool:
        """Tells whether a worker has let a client in."""
        try:
            return isinstance(client.receive_any(), Welcome)
        except Closed:
            return False

    @staticmethod
    def owner(client: RawClient) -> str:
        """Returns the number of the process at the other end of a connection."""
        port = client.socket.getsockname()[1]
        found = subprocess.run(["ss", "-Htnp", f"dport = :{port}"], capture_output=True, text=True, check=True).stdout
        return found.rpartition("pid=")[2].partition(",")[0]

    def workers(self, relay: RelayProcess) -> list[int]:
        """Returns the processes that a set has started and that are there."""
        children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text("ascii").split()
        found: list[int] = []
        for each in children:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if b"clasp_relay" in Path(f"/proc/{each}/cmdline").read_bytes():
                    found.append(int(each))
        return found

    def has_restarted(self, relay: RelayProcess, killed: int) -> bool:
        """Tells whether another process is in the place of a killed one: only then is that one's socket closed."""
        workers = self.workers(relay)
        return len(workers) == 2 and killed not in workers

    def test_workers_are_one_relay_behind_one_port(self) -> None:
        """What one has acknowledged all show, also after one was killed; a stop ends all of them, and saves."""
        relay = self.start_workers()
        self.write_everywhere(relay, 1)
        first = self.workers(relay)[0]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: self.has_restarted(relay, first), "it starts again")
        wait_until(lambda: len(self.names(relay)) == 2, f"both take clients: {relay.log}")
        self.write_everywhere(relay, 2)
        self.assertEqual(relay.stop(), 0, relay.log)
        for name in ("worker-1", "worker-2"):
            self.assertIn("/w/2", (self.folder / "data" / name / "state.json").read_text("utf-8"))

    def write_everywhere(self, relay: RelayProcess, number: int) -> None:
        """Sets something, and reads it from many connections."""
        address = f"/w/{number}"
        writer = self.live(relay)
        writer.send(Set(address, encode_value(number)), qos=1)
        writer.receive(Ack)
        for _ in range(8):
            reader = self.live(relay)
            # A follower may be a moment behind the one that has acknowledged.
            wait_until(lambda of=reader: self.read(of, address) == number, "it is there")  # type: ignore[misc]
            reader.close()
        writer.close()

    @staticmethod
    def read(client: RawClient, address: str) -> object:
        """Returns the value that a worker has now; None if it has none."""
        client.send(Get(address))
        (param,) = client.receive(Snapshot).params
        return decode_value(param.value)

    def live(self, relay: RelayProcess) -> RawClient:
        """Returns a client past its first SNAPSHOT."""
        client = RawClient(relay.port)
        client.send(Hello(1, 0xF8, "client"))
        client.receive(Welcome)
        client.receive(Snapshot)
        return client

    def test_workers_have_the_same_accounts_and_one_console(self) -> None:
        """Each connection may come to another one; an account is made at one, and an administrator at another."""
        port = free_port()
        relay = self.start("--workers", "2", "--auth-port", str(port), command=COMMAND)
        wait_until(lambda: relay.log.count("follows the log of its cluster") == 2, "both have joined")
        wait_until(lambda: "decides from now on" in relay.log, "one decides")
        api = Api(port)
        body = {"username": "Root", "password": PASSWORD}
        wait_until(lambda: api.call("register", body).status in (200, 409), "the account is made")
        command = (sys.executable, *COMMAND, "admin", "grant", "Root", "--data-dir", "data/worker-2")
        subprocess.run(command, cwd=self.folder, env=environment(), check=True, capture_output=True)
        tokens: list[str] = []

        def is_let_in() -> bool:
            answer = api.call("admin", body)
            tokens.append(answer.body.get("token", ""))
            return answer.status == HTTPStatus.OK

        wait_until(is_let_in, "the administrator is known")
        for _ in range(12):
            self.assertEqual(api.call("login", body).status, HTTPStatus.OK)
            self.assertEqual(self.overview(port, tokens[-1])["users"], 1)
        self.assertEqual(relay.stop(), 0, relay.log)

    def overview(self, port: int, token: str) -> dict[str, Any]:
        """Returns what the console shows first, asked over a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/api/admin/overview", headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            self.assertEqual(response.status, HTTPStatus.OK)
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def test_workers_end_with_the_process_that_started_them(self) -> None:
        """Also where that is killed: nobody is left behind on the port and the folders."""
        relay = self.start_workers()
        children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text("ascii").split()
        self.assertEqual(len(children), 3)
        relay._process.kill()
        wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in children), "all have ended")
