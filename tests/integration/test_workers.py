"""``--workers``: relays behind one port, on a nats-server of their own, as an operator starts them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

from clasp_relay.wire.messages import Ack, Get, Hello, Set, Snapshot, Welcome
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.process import RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import Closed, RawClient

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
        return [int(each) for each in children if b"clasp_relay" in Path(f"/proc/{each}/cmdline").read_bytes()]

    def test_workers_are_one_relay_behind_one_port(self) -> None:
        """What one has acknowledged all show, also after one was killed; a stop ends all of them, and saves."""
        relay = self.start_workers()
        self.write_everywhere(relay, 1)
        first = self.workers(relay)[0]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(self.workers(relay)) == 2 and first not in self.workers(relay), "it starts again")
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
            reader.send(Get(address))
            (param,) = reader.receive(Snapshot).params
            # A follower may be a moment behind; none is a second.
            wait_until(lambda found=param: decode_value(found.value) == number, "it is there")  # type: ignore[misc]
            reader.close()
        writer.close()

    def live(self, relay: RelayProcess) -> RawClient:
        """Returns a client past its first SNAPSHOT."""
        client = RawClient(relay.port)
        client.send(Hello(1, 0xF8, "client"))
        client.receive(Welcome)
        client.receive(Snapshot)
        return client

    def test_workers_end_with_the_process_that_started_them(self) -> None:
        """Also where that is killed: nobody is left behind on the port and the folders."""
        relay = self.start_workers()
        children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text("ascii").split()
        self.assertEqual(len(children), 3)
        relay._process.kill()
        wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in children), "all have ended")
