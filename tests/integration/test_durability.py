"""What an ACK promises: a relay that is killed under load has everything that it acknowledged."""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import ClassVar

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import Ack, Bundle, Error, Set
from clasp_relay.wire.values import encode_value
from tests.integration.process import PATIENCE_S, TWISTD, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import Closed, RawClient
from tests.integration.test_process import newcomer

ROUNDS = int(os.environ.get("DURABILITY_ROUNDS", "5"))
"""How often the relay is killed; ``make durability`` does it 1,000 times."""

KINDS = ("power", "kill")
"""The kinds of journal, which the rounds have in turn on the same files."""

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
        self.acked = self.begin = begin
        """The last value that was acknowledged for all three."""

    @property
    def has_begun(self) -> bool:
        """Whether some writes were acknowledged."""
        return self.acked > self.begin + 3

    def run(self) -> None:
        """Writes until the connection ends."""
        one, two, three = (Set(f"/{name}/{self._number}", b"") for name in ("one", "two", "three"))
        try:
            for value in range(self.begin + 1, 1_000_000_000):
                data = encode_value(value)
                self._client.send(one._replace(value=data), qos=1)
                self._client.receive(Ack)
                self._client.send(Bundle((two._replace(value=data), three._replace(value=data))), qos=1)
                self._client.receive(Ack)
                self.acked = value
        except (Closed, OSError):
            self._client.close()


FILE_LIMIT = 300_000
"""How big a file of the relay may become where its journal is to fail: some pages of the WAL."""

LIMITED = (
    "-c",
    f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_LIMIT},) * 2); {TWISTD[1]}",
    *TWISTD[2:],
)
"""twistd with a limit of file sizes: a write beyond it fails as on a full disk."""


class LostTests(RelayTestCase):
    """A commit that fails under a real twistd."""

    def test_commit_that_fails_ends_the_process(self) -> None:
        """ERROR 503, one line with file and cause, exit status 1; all that was acknowledged is there afterwards."""
        for durability in ("power", "kill"):
            with self.subTest(durability):
                self.setUp()
                relay = self.start("--durability", durability, command=LIMITED)
                acked, error = self.write_until_refused(relay)
                self.assertEqual(error.error, ErrorCode.OVERLOADED)
                self.assertEqual(relay.wait(), 1, relay.log)
                (line,) = [line for line in relay.lines if "a commit failed" in line]
                self.assertRegex(line, r" error +storage: data/journal\.db: a commit failed \(.+\): nothing more is")
                self.assertIn("the last changes are NOT saved", relay.log)
                self.assertFalse(relay.state_file.exists())
                self.assertGreater(acked, 5)
                relay = self.start("--durability", durability)
                client, values = newcomer(relay)
                client.close()
                stored = values["/number"]
                assert isinstance(stored, int)
                self.assertGreaterEqual(stored, acked)
                self.assertEqual(relay.stop(), 0, relay.log)

    def write_until_refused(self, relay: RelayProcess) -> tuple[int, Error]:
        """Sets a number and something big in each bundle; returns the last number acknowledged, and the refusal."""
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        big = Set("/big", encode_value(bytes(2_000)))
        for number in range(1, 10_000):
            client.send(Bundle((Set("/number", encode_value(number)), big)), qos=1)
            answer = client.receive_any()
            if isinstance(answer, Error):
                return number - 1, answer
        raise AssertionError("nothing was refused")


class KillTests(RelayTestCase):
    """kill -9, again and again, on the same files."""

    options: ClassVar[tuple[str, ...]] = ("--persist-interval", "0.3")

    def test_nothing_that_was_acknowledged_is_lost(self) -> None:
        """No write is missing, no revision goes back, no bundle is half there; with both kinds of journal in turn."""
        acked, lost, halves = Counter[str](), 0, 0
        last = dict.fromkeys(range(WRITERS), 0)
        relay = self.start("--durability", KINDS[0], *self.options)
        for number in range(ROUNDS):
            durability = KINDS[number % 2]
            writers = [Writer(relay.port, each, last[each]) for each in range(WRITERS)]
            for writer in writers:
                writer.start()
            wait_until(lambda: all(writer.has_begun for writer in writers), "all write")  # noqa: B023
            threading.Event().wait(0.01 * (number % 7))
            relay.kill()
            for writer in writers:
                writer.join(PATIENCE_S)
                acked[durability] += 3 * (writer.acked - writer.begin)
            relay = self.start("--durability", KINDS[(number + 1) % 2], *self.options)
            client, values = newcomer(relay)
            client.close()
            for each, writer in enumerate(writers):
                found = [values.get(f"/{name}/{each}", 0) for name in ("one", "two", "three")]
                numbers = [value for value in found if isinstance(value, int)]
                lost += sum(value < writer.acked for value in numbers)
                halves += found[1] != found[2]
                last[each] = max(numbers)
        self.check_revisions(relay, last)
        counts = ", ".join(f"{acked[kind]} acknowledged writes with {kind}" for kind in KINDS)
        print(f"killed {ROUNDS} times: {counts}; {lost} lost, {halves} half bundles")
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
