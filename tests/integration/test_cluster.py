"""Relays of one cluster as processes, on a real nats-server."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.reading import POSITION
from clasp_relay.core.history.replays import END_MARK
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.messages import Ack, Error, Get, Hello, Publish, Replay, Set, Snapshot, Subscribe
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.cluster import Cluster, Member
from tests.integration.namespaces import HERE
from tests.integration.nats import Nats
from tests.integration.process import RelayProcess, wait_until
from tests.integration.raw import Closed, RawClient
from tests.ports import free_port

OPTIONS = ("--auth-port", "0", "--host", "127.0.0.1")
TWICE = "there is another relay with the name r1: give each its own --relay-name"


def live(member: Member) -> RawClient:
    """Returns a client whose HELLO was accepted, and that has heard all that follows it."""
    client = member.admitted("test")
    client.settle()
    return client


def write(client: RawClient, address: str, number: int) -> int | None:
    """Sets something and returns its revision."""
    client.send(Set(address, encode_value(number)), qos=1)
    (*_, answer) = client.receive_until(lambda message: isinstance(message, Ack | Error))
    assert isinstance(answer, Ack), answer
    return answer.revision


def read(member: Member, address: str) -> tuple[bytes, int]:
    """Returns value and revision of what a relay shows."""
    client = live(member)
    client.send(Get(address))
    (param,) = client.receive(Snapshot).params
    client.close()
    return param.value, param.revision


class ClusterTests(SynchronousTestCase):
    """Two relays and what may happen to them."""

    def setUp(self) -> None:
        """Starts them."""
        self.folder = Path(self.mktemp()).absolute()
        self.cluster = Cluster(self.folder, options=OPTIONS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def test_clients_see_one_relay_whatever_happens_to_the_decider(self) -> None:
        """Forwarded, told on both sides, handed over, killed, restarted, joined by a third one with an image."""
        first = self.cluster.decider
        (second,) = self.cluster.followers
        writer, watcher = live(second), live(first)
        watcher.send(Subscribe(1, "/a"))
        watcher.settle()
        self.assertEqual(write(writer, "/a", 1), 1)
        self.assertEqual(watcher.receive(Set).revision, 1)

        first.process.signal(signal.SIGUSR2)
        wait_until(lambda: self.cluster.decider is second, "the other one decides")
        self.assertEqual(write(watcher, "/a", 2), 2)

        first.process.signal(signal.SIGKILL)
        wait_until(lambda: not first.is_running, "it is gone")
        self.assertEqual(write(writer, "/a", 3), 3)
        first.start()
        self.cluster.wait()
        self.assertEqual(read(first, "/a"), (encode_value(3), 3))

        writer = live(first)
        second.kill()
        began_s = time.monotonic()
        self.assertEqual(write(writer, "/a", 4), 4)
        print(f"writes went on {time.monotonic() - began_s:.1f} s after the decider was killed")

        third = Member(self.folder / "third", "third", HERE, self.cluster.options)
        self.cluster.members.append(third)
        third.start()
        self.cluster.wait()
        self.assertEqual(read(third, "/a"), (encode_value(4), 4))
        self.assertEqual(write(live(third), "/a", 5), 5)

    def test_all_that_was_acknowledged_is_there_after_a_restart_of_everything(self) -> None:
        """In order or not."""
        writer = live(self.cluster.followers[0])
        for number in range(1, 51):
            self.assertEqual(write(writer, "/a", number), number)
        one, two = self.cluster.members
        self.assertEqual(one.stop(), 0)
        two.kill()
        for member in (two, one):
            member.start()
        self.cluster.wait()
        for member in (one, two):
            self.assertEqual(read(member, "/a"), (encode_value(50), 50))
        self.assertEqual(write(live(two), "/a", 51), 51)


class HistoryTests(SynchronousTestCase):
    """Relays that keep everything."""

    def test_a_relay_that_joins_gets_what_the_others_have_kept(self) -> None:
        """In several pages, while it goes on; a position of one relay is valid at the other."""
        folder = Path(self.mktemp()).absolute()
        cluster = Cluster(folder, options=(*OPTIONS, "--rate-limit", "0", "--journal", "data/journal.db"))
        self.addCleanup(cluster.close)
        cluster.start()
        writer = live(cluster.followers[0])
        for number in range(1_000):
            writer.send(Publish("/said", value=encode_value(f"{number} {'x' * 1_000}")))
            if number % 100 == 99:
                writer.settle()
        expected, mark = replayed(cluster.decider)
        self.assertEqual(len(expected), 1_000)
        self.assertTrue(mark["complete"])

        third = Member(folder / "third", "third", HERE, cluster.options)
        cluster.members.append(third)
        third.start()
        cluster.wait()
        wait_until(lambda: replayed(third)[1]["complete"], "all of the past")
        self.assertEqual(replayed(third)[0], expected)
        self.assertEqual(replayed(third, int(mark["next"]))[0], [])
        self.assertEqual(third.stop(), 0)
        third.start()
        cluster.wait()
        self.assertEqual(replayed(third)[0], expected)


def replayed(member: Member, begin: int = POSITION) -> tuple[list[object], dict[str, Any]]:
    """Returns what a relay's history has from a time or a position on, and its end mark."""
    client = live(member)
    client.send(Replay("/said", begin, None, 2_000))
    *entries, last = client.receive_until(lambda each: isinstance(each, Publish) and each.address == END_MARK)
    client.close()
    assert isinstance(last, Publish)
    mark = decode_value(last.value or b"")
    assert isinstance(mark, dict)
    return [decode_value(each.value or b"") for each in entries if isinstance(each, Publish)], mark


class StandbyTests(SynchronousTestCase):
    """A relay and a warm spare."""

    def test_standby_takes_clients_only_while_nobody_else_can(self) -> None:
        """It says so to them and to whoever asks the health port; it decides when the other one is lost."""
        folder = Path(self.mktemp()).absolute()
        cluster = Cluster(folder, relays=1, options=OPTIONS)
        self.addCleanup(cluster.close)
        cluster.start()
        (usual,) = cluster.members
        spare = Member(folder / "spare", "spare", HERE, (*cluster.options, "--standby"))
        cluster.members.append(spare)
        spare.start()
        wait_until(lambda: spare.readiness().get("role") == "standby", "the standby follows")
        self.assertFalse(spare.readiness()["ready"])
        self.assertEqual(write(live(usual), "/a", 1), 1)
        client = spare.connect()
        client.send(Hello(1, 0xF8, "test"))
        self.assertEqual(client.receive(Error).error, ErrorCode.OVERLOADED)
        self.assertEqual(self.close_code(client), CloseCode.TRY_AGAIN_LATER)

        usual.kill()
        wait_until(lambda: spare.role == "decider", f"the standby decides: {spare.log}")
        client = live(spare)
        self.assertEqual(write(client, "/a", 2), 2)
        usual.start()
        wait_until(lambda: usual.role == "decider", f"the usual relay decides again: {usual.log}")
        self.assertEqual(self.close_code(client), CloseCode.TRY_AGAIN_LATER)
        wait_until(lambda: spare.readiness().get("role") == "standby", "the standby follows")
        self.assertEqual(read(usual, "/a"), (encode_value(2), 2))

    def close_code(self, client: RawClient) -> int | None:
        """Returns with what the relay ends a session."""
        while True:
            try:
                client.receive_any()
            except Closed as closed:
                return closed.code


class CopyTests(SynchronousTestCase):
    """Somebody has copied a folder."""

    def test_relays_on_copies_of_one_folder_are_one_cluster(self) -> None:
        """One of them decides, whatever both of them were; that they have one name is said with the remedy."""
        folder = Path(self.mktemp()).absolute()
        cluster = Cluster(folder, relays=1, options=OPTIONS)
        self.addCleanup(cluster.close)
        cluster.start()
        (first,) = cluster.members
        self.assertEqual(write(live(first), "/a", 1), 1)
        self.assertEqual(first.stop(), 0)
        copy = Member(folder / "copy", "r1", HERE, cluster.options)
        shutil.copytree(first.folder / "data", copy.folder / "data")
        cluster.members.append(copy)
        for member in cluster.members:
            member.start()
        cluster.wait()
        for number, member in enumerate(cluster.members, 2):
            self.assertEqual(write(live(member), "/a", number), number)
            wait_until(lambda member=member: TWICE in member.log, "the line that says so")  # type: ignore[misc]


class BadInputTests(SynchronousTestCase):
    """What is wrong with the engine is said in one line."""

    def relay(self, name: str, *options: str) -> RelayProcess:
        """Starts a relay."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        process = RelayProcess(folder, "--relay-name", name, *OPTIONS, *options)
        self.addCleanup(process.kill)
        return process

    def test_an_engine_that_is_not_there_is_waited_for(self) -> None:
        """The relay is up and not ready; it joins when the engine comes."""
        nats = Nats(Path(self.mktemp()).absolute())
        self.addCleanup(nats.close)
        relay = self.relay("one", "--cluster", f"{nats.url},nats://127.0.0.1:{free_port()}")
        wait_until(lambda: "cannot be reached" in relay.log, "the line that says so")
        nats.start()
        wait_until(lambda: "one decides from now on" in relay.log, "the relay has joined")

    def test_an_engine_that_cannot_keep_the_log_ends_the_relay(self) -> None:
        """Without JetStream, or with a stream of another kind; with status 1 and one line."""
        for name, remedy in (("off", "start nats-server with -js"), ("orders", "with --cluster-name")):
            nats = Nats.with_password(Path(self.mktemp()).absolute())
            self.addCleanup(nats.close)
            (server,) = nats.servers
            if name == "off":
                server.turn_jetstream_off()
            nats.start()
            if name == "orders":
                client = nats.client()
                client.request("$JS.API.STREAM.CREATE.clasp", {"name": "clasp", "subjects": ["orders.*"]})
                client.close()
            relay = self.relay("one", "--cluster", nats.url)
            wait_until(lambda relay=relay: not relay.is_running, "the relay has ended")  # type: ignore[misc]
            with self.subTest(name):
                self.assertIn(remedy, relay.log)
                self.assertEqual(relay.stop(), 1)

    def test_wrong_credentials_end_the_relay(self) -> None:
        """With status 1 and one line."""
        nats = Nats.with_password(Path(self.mktemp()).absolute())
        self.addCleanup(nats.close)
        nats.start()
        relay = self.relay("one", "--cluster", f"nats://clasp:hunter2@{nats.servers[0].place}")
        wait_until(lambda: not relay.is_running, "the relay has ended")
        self.assertIn("NATS refuses the credentials", relay.log)
        self.assertNotIn("hunter2", relay.log)
        self.assertEqual(relay.stop(), 1)
