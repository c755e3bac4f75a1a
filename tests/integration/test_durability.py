"""What an ACK promises: a relay that is killed under load has everything that it acknowledged."""

from __future__ import annotations

import os
import threading
from typing import ClassVar

from clasp_relay.wire.messages import Ack, Bundle, Set
from clasp_relay.wire.values import encode_value
from tests.integration.process import PATIENCE_S, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import Closed, RawClient
from tests.integration.test_process import newcomer

ROUNDS = int(os.environ.get("DURABILITY_ROUNDS", "5"))
"""How often the relay is killed; ``make durability`` does it 1,000 times."""

WRITERS = 4


class Writer(threading.Thread):
    """Sets a param, and two in a bundle, as fast as they are acknowledged; the value is the revision to come.

    Args:
        port: where the relay listens.
        number: of the writer.
        begin: the value to begin with.
    """

    def __init__(self, port: int, number: int, begin: int) -> None:
        super().__init__(daemon=True)
        self._client = RawClient.live(port)
        self._number = number
        self.acked = self._begin = begin
        """The last value that was acknowledged for all three."""

    def run(self) -> None:
        """Writes until the connection ends."""
        one, two, three = (Set(f"/{name}/{self._number}", b"") for name in ("one", "two", "three"))
        try:
            for value in range(self._begin + 1, 1_000_000):
                data = encode_value(value)
                self._client.send(one._replace(value=data), qos=1)
                self._client.receive(Ack)
                self._client.send(Bundle((two._replace(value=data), three._replace(value=data))), qos=1)
                self._client.receive(Ack)
                self.acked = value
        except (Closed, OSError):
            self._client.close()


class KillTests(RelayTestCase):
    """kill -9, again and again, on the same files."""

    options: ClassVar[tuple[str, ...]] = ("--persist-interval", "0.3")

    def test_nothing_that_was_acknowledged_is_lost(self) -> None:
        """No write is missing, no revision goes back, no bundle is half there; for both kinds of journal."""
        for durability in ("power", "kill"):
            with self.subTest(durability):
                self.setUp()
                self.kill_again_and_again(durability)

    def kill_again_and_again(self, durability: str) -> None:
        """Kills the relay while it is written to, and looks what the next one has."""
        acked, lost, halves, last = 0, 0, 0, dict.fromkeys(range(WRITERS), 0)
        relay = self.start("--durability", durability, *self.options)
        for number in range(ROUNDS):
            writers = [Writer(relay.port, each, last[each]) for each in range(WRITERS)]
            for writer in writers:
                writer.start()
            wait_until(lambda: all(writer.acked > writer._begin + 5 for writer in writers), "all write")  # noqa: B023
            threading.Event().wait(0.02 * (number % 7))
            relay.kill()
            for writer in writers:
                writer.join(PATIENCE_S)
                acked += writer.acked - writer._begin
            relay = self.start("--durability", durability, *self.options)
            client, values = newcomer(relay)
            client.close()
            for each, writer in enumerate(writers):
                found = [values.get(f"/{name}/{each}", 0) for name in ("one", "two", "three")]
                numbers = [value for value in found if isinstance(value, int)]
                lost += sum(value < writer.acked for value in numbers)
                halves += found[1] != found[2]
                last[each] = max(numbers)
        self.check_revisions(relay, last)
        print(
            f"{durability}: killed {ROUNDS} times, {3 * acked} acknowledged writes, {lost} lost, {halves} half bundles"
        )
        self.assertEqual((lost, halves), (0, 0))
        self.assertEqual(relay.stop(), 0, relay.log)

    def check_revisions(self, relay: RelayProcess, last: dict[int, int]) -> None:
        """Every write that is there was counted: the next revision is above all before."""
        client = RawClient.live(relay.port)
        for each, value in last.items():
            client.send(Set(f"/one/{each}", encode_value(value + 1)), qos=1)
            revision = client.receive(Ack).revision
            assert revision is not None
            self.assertGreaterEqual(revision, value + 1)
        client.close()
