"""What an ACK promises: a relay that is killed under load has everything that it acknowledged."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import NULL, Ack, Bundle, Error, Hello, Set, Snapshot, SnapshotParam
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.nursery import ForkedRelay, Nursery
from tests.integration.process import PATIENCE_S, TWISTD, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import Closed, RawClient
from tests.integration.test_process import newcomer

ROUNDS = int(os.environ.get("DURABILITY_ROUNDS", "30"))
"""How often the relay is killed; ``make durability`` does it 1,000 times."""

KINDS = ("power", "kill")
"""The kinds of journal, which the rounds have in turn on the same files."""

WRITERS = 4

NAMES = ("one", "two", "three")
"""What a writer sets: one param, and then two in a bundle."""

TURNS = 50
"""A writer sets the params of so many places in turn, so that of as many writes each one is looked for."""


def place(name: str, writer: int, value: int) -> str:
    """Returns where a writer sets a value."""
    return f"/{name}/{writer}/{value % TURNS}"


def revision_of(value: int) -> int:
    """Returns the revision that a value has at its place."""
    return (value - 1) // TURNS + 1


class Writer(threading.Thread):
    """Sets a param, and two in a bundle, as fast as they are acknowledged; values are counted from 1.

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
        try:
            for value in range(self.begin + 1, 1_000_000_000):
                one, *others = (Set(place(name, self._number, value), encode_value(value)) for name in NAMES)
                self._client.send(one, qos=1)
                self._client.receive(Ack)
                self._client.send(Bundle(tuple(others)), qos=1)
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


DUE_S = (0.02, 0.2, 0.6)
"""How far ahead the scheduled bundles of each round are."""


class Plan:
    """Scheduled bundles of two SETs each, at addresses of their own: what ran twice is at a revision above 1."""

    def __init__(self) -> None:
        self._due_us: dict[int, int] = {}
        self.accepted = self.missing = self.twice = self.halves = 0

    def schedule(self, client: RawClient) -> None:
        """Has some bundles accepted."""
        for ahead_s in DUE_S:
            number, due_us = self.accepted + 1, time.time_ns() // 1_000 + round(ahead_s * 1e6)
            members = tuple(Set(address, encode_value(number)) for address in self._addresses(number))
            client.send(Bundle(members, due_us), qos=1)
            client.receive(Ack)
            self.accepted = number
            self._due_us[number] = due_us

    def check(self, client: RawClient, params: Mapping[str, SnapshotParam], now_us: int) -> None:
        """Checks the bundles that were due at a time, and deletes what they have set."""
        for number in [number for number, due_us in self._due_us.items() if due_us <= now_us]:
            found = [params[address] for address in self._addresses(number) if address in params]
            self.missing += not found
            self.halves += len(found) == 1
            self.twice += any(param.revision != 1 for param in found)
            del self._due_us[number]
            client.send(Bundle(tuple(Set(address, NULL) for address in self._addresses(number))), qos=1)
            client.receive(Ack)

    @property
    def all_due_us(self) -> int:
        """When the last one is due."""
        return max(self._due_us.values(), default=0)

    @staticmethod
    def _addresses(number: int) -> tuple[str, str]:
        return f"/due/{number}/a", f"/due/{number}/b"


class KillTests(SynchronousTestCase):
    """kill -9, again and again, on the same files."""

    def setUp(self) -> None:
        """Nothing was written yet."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.nursery = Nursery(folder)
        self.addCleanup(self.nursery.close)
        self.plan = Plan()
        self.acked = Counter[str]()
        self.lost = self.halves = self.killed_at_start = 0
        self.last = dict.fromkeys(range(WRITERS), 0)

    def test_nothing_that_was_acknowledged_is_lost(self) -> None:
        """No write is missing, no revision goes back, no bundle is half there, no scheduled bundle runs twice."""
        self.start(0)
        for number in range(ROUNDS):
            writers = self.write_and_kill(number)
            now_us = time.time_ns() // 1_000
            self.start(number + 1)
            self.check(writers, now_us)
        wait_until(lambda: time.time_ns() // 1_000 > self.plan.all_due_us, "all bundles are due")
        self.relay.kill()
        now_us = time.time_ns() // 1_000
        self.start(0)
        self.check([], now_us)
        self.check_revisions()
        client, params = shown(self.port)
        client.close()
        # All were deleted: what is there was set again.
        self.plan.twice += sum(address.startswith("/due/") and address.endswith("/a") for address in params)
        self.report()
        self.assertEqual(self.relay.signal(signal.SIGTERM), 0)
        self.assertNotIn("Traceback", self.nursery.log)

    @property
    def relay(self) -> ForkedRelay:
        """The one that runs."""
        assert self.nursery.relay is not None, "none was started"
        return self.nursery.relay

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.relay.listens()

    def start(self, number: int) -> None:
        """Starts the relay of a round; in every third one it is killed while it starts, and started again."""
        options = ("--durability", KINDS[number % 2], "--persist-interval", "0.3")
        relay = self.nursery.start(*options)
        if number % 3 == 2:
            threading.Event().wait(0.01 * (number % 11))
            relay.kill()
            self.killed_at_start += 1
            self.nursery.start(*options)

    def write_and_kill(self, number: int) -> list[Writer]:
        """Writes for a while, and kills the relay."""
        client = RawClient.live(self.port)
        self.plan.schedule(client)
        writers = [Writer(self.port, each, self.last[each]) for each in range(WRITERS)]
        for writer in writers:
            writer.start()
        wait_until(lambda: all(writer.has_begun for writer in writers), "all write")
        threading.Event().wait(0.01 * (number % 7))
        self.relay.kill()
        client.close()
        for writer in writers:
            writer.join(PATIENCE_S)
            self.acked[KINDS[number % 2]] += 3 * (writer.acked - writer.begin)
        return writers

    def check(self, writers: Sequence[Writer], now_us: int) -> None:
        """Compares what is there with what was acknowledged; what was due at a time has run."""
        client, params = shown(self.port)
        for each, writer in enumerate(writers):
            # The one behind those that were acknowledged may be there, too, but not half of its bundle.
            for value in range(max(writer.begin, writer.acked + 1 - TURNS) + 1, writer.acked + 2):
                found = [params.get(place(name, each, value)) for name in NAMES]
                numbers = [0 if param is None else decode_value(param.value) for param in found]
                self.last[each] = max(self.last[each], *numbers)
                self.halves += numbers[1] != numbers[2]
                if value <= writer.acked:
                    self.lost += sum(number != value for number in numbers)
                    self.lost += found[0] is None or found[0].revision < revision_of(value)
        self.plan.check(client, params, now_us)
        client.close()

    def check_revisions(self) -> None:
        """Every write that is there was counted: the next revision is above all before."""
        client = RawClient.live(self.port)
        for each, value in self.last.items():
            client.send(Set(place("one", each, value + 1), encode_value(value + 1)), qos=1)
            revision = client.receive(Ack).revision
            assert revision is not None
            self.assertGreaterEqual(revision, revision_of(value + 1))
        client.close()

    def report(self) -> None:
        """Prints the counts, and fails where one is not as it should be."""
        plan = self.plan
        counts = ", ".join(f"{self.acked[kind]} acknowledged writes with {kind}" for kind in KINDS)
        print(f"killed {ROUNDS} times, and {self.killed_at_start} times during the start: {counts};", end=" ")
        print(f"{self.lost} lost, {self.halves + plan.halves} half bundles; {plan.accepted} scheduled", end=" ")
        print(f"bundles: {plan.missing} missing, {plan.twice} run twice")
        wrong = (self.lost, self.halves + plan.halves, plan.missing, plan.twice)
        self.assertEqual(wrong, (0, 0, 0, 0))


def shown(port: int) -> tuple[RawClient, dict[str, SnapshotParam]]:
    """Returns a live client and the params that it was shown."""
    client = RawClient(port)
    client.send(Hello(1, 0xF8, "newcomer"))
    snapshots = [message for message in client.settle() if isinstance(message, Snapshot)]
    return client, {param.address: param for each in snapshots for param in each.params}
