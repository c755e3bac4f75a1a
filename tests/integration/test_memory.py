"""What is kept for sessions, held against the memory of a real relay."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    Ack,
    Announce,
    Error,
    Get,
    Hello,
    Message,
    Publish,
    Query,
    Set,
    SignalDefinition,
    Snapshot,
    Subscribe,
    Unsubscribe,
)
from clasp_relay.wire.osc.packets import UNIX_EPOCH_S, OscMessage, encode_message
from clasp_relay.wire.values import encode_value
from tests.doors import mqtt_packets
from tests.integration.accounts import WATCHED, AccountsRelay, AccountsTestCase, Person, put
from tests.integration.doors import door_port
from tests.integration.process import PATIENCE_S, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import RawClient
from tests.integration.test_health import ask, health_port
from tests.integration.test_sent_files import MIB, FilesApi

_ACCOUNTED = re.compile(r'^clasp_accounted_bytes\{kind="(\w+)"\} (\S+)$', re.MULTILINE)

LIMIT_BYTES = 4 * 1024 * 1024
"""What may be kept for a session."""

ROOM_BYTES = 20 * 1024 * 1024
"""What the process may grow by besides: the outbox of the attacker, pieces under way, and what its allocator keeps."""

BUNDLE_S = 2
"""How far ahead a timed bundle is due."""


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
        return accounted_by(self.health)

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


class RestartTests(RelayTestCase):
    """A start takes at most 1.5 times the memory of the relay that ran before, so that it needs no larger machine."""

    def fill(self) -> int:
        """Has a relay keep 60 MB in large values and 5,000 small ones; returns the memory that it runs with."""
        relay = self.start()
        writer = RawClient.live(relay.port)
        self.addCleanup(writer.close)
        large = encode_value("x" * 60_000)
        writes = [Set(f"/large/{number}", large) for number in range(1_000)]
        writes += [Set(f"/small/{number}", encode_value(number)) for number in range(5_000)]
        for start in range(0, len(writes), 100):
            writer.send(*writes[start : start + 100])
            self.assertEqual(writer.settle(), [])
        self.relay = relay
        return relay.rss_bytes

    def assert_starts_within(self, running_bytes: int) -> None:
        """Asserts how much a start on these files takes at most, and that all is there again."""
        relay = self.start()
        (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{relay.pid}/status").read_text("ascii"), re.MULTILINE)
        self.assertLess(int(peak) * 1024, 1.5 * running_bytes)
        self.assertGreater(int(peak) * 1024, 60_000_000)
        reader = RawClient.live(relay.port)
        self.addCleanup(reader.close)
        reader.settle()  # all of the state, which HELLO is answered with
        reader.send(Get("/large/999"), Get("/small/4999"))
        sizes = [len(reader.receive(Snapshot).params[0].value) for _ in range(2)]
        self.assertEqual(sizes, [60_003, len(encode_value(4_999))])

    def test_start_on_a_state_file(self) -> None:
        """After a stop in order."""
        running_bytes = self.fill()
        self.assertEqual(self.relay.stop(), 0)
        self.assert_starts_within(running_bytes)

    def test_start_on_a_journal(self) -> None:
        """After a kill, before the state was saved."""
        running_bytes = self.fill()
        self.relay.kill()
        self.assert_starts_within(running_bytes)


class CycleTests(AccountsTestCase):
    """Garbage collections do not look at what has lived long (``clasp_relay.event_loop``), so that must end without."""

    def ask_relay(self, relay: AccountsRelay, question: str, word: str) -> str:
        """Asks the program around the relay; returns what it says behind a word."""
        before = len(relay.lines)
        relay.say(question)

        def said() -> list[str]:
            return [line for line in relay.lines[before:] if line.startswith(word)]

        wait_until(said, f"the relay says {word}")
        return said()[0].removeprefix(word)

    def connections(self, relay: AccountsRelay, name: str) -> list[socket.socket]:
        """Opens connections of every kind, in the middle of what they are for."""
        token = relay.api.guest(name)
        person = Person.signed_in(relay.port, token)
        person.ask(
            put(f"/chat/user/{name}/x", 1), Subscribe(1, "/chat/room/*/meta"), Subscribe(2, "/chat/**", max_rate=1)
        )
        file = FilesApi(relay.auth_port).send(token, b"x" * MIB).body["id"]
        bearer = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
        requests = (
            f"GET /api/stream?pattern=/chat/room/*/meta HTTP/1.1\r\n{bearer}\r\n",
            f"GET /api/params?pattern=/chat/** HTTP/1.1\r\n{bearer}\r\n",
            f"POST /files HTTP/1.1\r\n{bearer}Content-Length: 2000000\r\n\r\n" + "x" * 1_000,
            f"GET /files/{file} HTTP/1.1\r\n{bearer}\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{",
            "GET /half HTTP/1.1\r\nHo",
        )
        opened = []
        for request in requests:
            opened.append(socket.create_connection(("127.0.0.1", relay.auth_port), timeout=PATIENCE_S))
            opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            opened[-1].sendall(request.encode())
        hello = encode_frame(encode(Hello(1, 0xF8, "board", token)))
        for door, data in (("CLASP over TCP", hello), ("MQTT", mqtt_packets.connect("board", password=token))):
            opened.append(socket.create_connection(("127.0.0.1", door_port(relay, door)), timeout=PATIENCE_S))
            opened[-1].sendall(data)
            self.assertTrue(opened[-1].recv(1))
        half = socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S)
        half.sendall(b"GET / HTTP/1.1\r\nUpgr")
        return [person.socket, *opened, half]

    def send_timed_bundle(self, relay: AccountsRelay) -> None:
        """Sends an OSC bundle over UDP that is due in ``BUNDLE_S``; returns once it waits for that."""
        element = encode_message(OscMessage("/lamp", (1,)))
        due = int((time.time() + BUNDLE_S + UNIX_EPOCH_S) * 2**32)
        packet = struct.pack(">8sQI", b"#bundle", due, len(element)) + element
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(packet, ("127.0.0.1", door_port(relay, "OSC")))
        wait_until(lambda: bundles_of(relay) > 0, "the bundle waits")

    def test_nothing_that_lives_long_ends_in_a_cycle(self) -> None:
        """Connections and requests of every kind, ended in order and torn off."""
        tokens = ("--admin-token", "admin.token", "--osc-token", str(self.folder / "admin.token"))
        ports = ("--tcp-port", "0", "--mqtt-port", "0", "--osc-port", "0", "--health-port", "0")
        relay = self.start_accounts(*tokens, *ports, command=WATCHED)
        idle = len(sockets_of(relay))
        for way in ("shutdown", "reset"):
            with self.subTest(way):
                opened = self.connections(relay, way)
                # What leads to them has happened.
                Person.signed_in(relay.port, relay.api.guest(f"later-{way}")).close()
                self.send_timed_bundle(relay)
                self.ask_relay(relay, "freeze", "frozen")
                for connection in opened:
                    if way == "reset":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                wait_until(lambda: not bundles_of(relay), "the bundle was applied")
                wait_until(lambda: len(sockets_of(relay)) <= idle, "the relay has closed its connections")
                found = json.loads(self.ask_relay(relay, "cycles", "cycles"))
                # Twisted's thread pool leaves half a kB with each call.
                ours = {name for name in found if not name.startswith(("builtins.", "twisted.python.threadpool."))}
                self.assertEqual(ours, set())
                self.assertLess(sum(found.values()), 200, found)


def accounted_by(health: int) -> dict[str, float]:
    """Returns what a relay keeps for sessions, by kind, from its metrics on a port."""
    return {kind: float(number) for kind, number in _ACCOUNTED.findall(ask(health, "/metrics")[1])}


def bundles_of(relay: RelayProcess) -> float:
    """Returns the bytes of the bundles that wait for their time at a relay with metrics."""
    return accounted_by(health_port(relay))["bundles"]


def sockets_of(relay: AccountsRelay) -> list[str]:
    """Returns the relay's open sockets: one that its client has reset is in no table of the system any more."""
    folder, found = f"/proc/{relay.pid}/fd", []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            link = os.readlink(f"{folder}/{name}")
            if link.startswith("socket:"):
                found.append(link)
    return found
