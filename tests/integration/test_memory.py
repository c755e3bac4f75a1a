"""What is kept for sessions, held against the memory of a real relay."""

from __future__ import annotations

import re
from collections.abc import Callable

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.messages import (
    Ack,
    Announce,
    Error,
    Message,
    Publish,
    Query,
    Set,
    SignalDefinition,
    Subscribe,
    Unsubscribe,
)
from clasp_relay.wire.values import encode_value
from tests.integration.process import RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import RawClient
from tests.integration.test_health import ask, health_port

_ACCOUNTED = re.compile(r'^clasp_accounted_bytes\{kind="(\w+)"\} (\S+)$', re.MULTILINE)

LIMIT_BYTES = 4 * 1024 * 1024
"""What may be kept for a session."""

ROOM_BYTES = 20 * 1024 * 1024
"""What the process may grow by besides: the outbox of the attacker, pieces under way, and what its allocator keeps."""


class AccountedMemoryTests(RelayTestCase):
    """One client makes the relay keep as much as it can, and reads nothing."""

    def setUp(self) -> None:
        """Starts a relay with metrics, a writer, and an attacker."""
        super().setUp()
        self.relay: RelayProcess = self.start("--health-port", "0")
        self.health = health_port(self.relay)
        self.writer = self.client()
        self.attacker = self.client(receive_buffer=4_096)
        self.values = 60
        for number in range(self.values):
            self.write(number, "0")
        self.before_bytes = self.relay.rss_bytes

    def client(self, receive_buffer: int = 0) -> RawClient:
        """Returns a session."""
        client = RawClient.live(self.relay.port, receive_buffer=receive_buffer)
        self.addCleanup(client.close)
        return client

    def write(self, number: int, letter: str, size: int = 20_000) -> None:
        """Sets a value, and waits until that is done."""
        self.writer.send(Set(f"/value/{number}", encode_value(letter * size)), qos=1)
        self.writer.receive(Ack)

    def accounted(self) -> dict[str, float]:
        """Returns what is kept, by kind."""
        return {kind: float(number) for kind, number in _ACCOUNTED.findall(ask(self.health, "/metrics")[1])}

    def assert_bounded(self, kind: str) -> float:
        """Asserts that neither the account nor the process exceeds what may be kept; returns what is."""
        kept = self.accounted()
        grown_bytes = self.relay.rss_bytes - self.before_bytes
        self.assertLessEqual(sum(kept.values()), LIMIT_BYTES + 100_000)
        self.assertLess(grown_bytes, sum(kept.values()) + ROOM_BYTES, kept)
        return kept[kind]

    def assert_freed(self) -> None:
        """Asserts that nothing is kept once the attacker has gone."""
        self.attacker.reset()
        wait_until(lambda: not any(self.accounted().values()), "all is freed")

    def fill(self, make: Callable[[int], Message], count: int) -> None:
        """Has the attacker send messages."""
        for number in range(count):
            self.attacker.send(make(number))

    def test_snapshots_that_nobody_reads_while_the_state_is_rewritten(self) -> None:
        """120 SUBSCRIBEs and UNSUBSCRIBEs, and a state that is another one each time."""
        for number in range(120):
            self.attacker.send(Subscribe(number, "/value/*"), Unsubscribe(number))
            for half in range(2):
                self.write((2 * number + half) % self.values, chr(97 + number % 26), 60_000)
        self.assertGreater(self.assert_bounded("snapshots"), 10_000)
        self.assert_freed()

    def test_subscriptions_with_long_patterns(self) -> None:
        """200 patterns of 120 segments: most are refused."""
        self.fill(lambda number: Subscribe(number, f"/{number}" + "/a" * 118 + "/*"), 200)
        codes = [self.attacker.receive(Error).error for _ in range(100)]
        self.assertEqual(set(codes), {ErrorCode.LIMIT})
        self.assertGreater(self.assert_bounded("subscriptions"), LIMIT_BYTES * 0.9)
        self.assert_freed()

    def test_throttles_with_large_values(self) -> None:
        """One value a second of each of 1,000 addresses, 60 kB each."""
        self.attacker.send(Subscribe(1, "/stream/**", ALL_TYPES, 1))
        self.attacker.settle()
        for number in range(1_000):
            for size in (1, 60_000):
                value = encode_value(f"{number}" * (size // len(f"{number}") + 1))
                self.writer.send(Publish(f"/stream/{number}", Signal.STREAM, value=value))
        self.writer.settle()
        self.assert_bounded("throttles")
        self.assert_freed()

    def test_results_that_nobody_reads(self) -> None:
        """Each of 20,000 signals, with defaults that no RESULT shows."""
        for start in range(0, 20_000, 500):
            found = tuple(
                SignalDefinition(f"/signal/{number}", Signal.PARAM, default=encode_value("x" * 50))
                for number in range(start, start + 500)
            )
            self.writer.send(Announce("signals", found), qos=1)
            self.writer.receive(Ack)
        announced = self.accounted()["signals"]
        self.before_bytes = self.relay.rss_bytes
        self.fill(lambda _: Query("/signal/**"), 2_000)
        self.writer.settle()
        kept = self.accounted()
        self.assertLess(kept["snapshots"], LIMIT_BYTES)
        self.assertLess(self.relay.rss_bytes - self.before_bytes, kept["snapshots"] + ROOM_BYTES)
        self.attacker.reset()
        wait_until(lambda: sum(self.accounted().values()) == announced, "all but the signals is freed")
