"""Tests of clasp_relay.http.metrics: every metric moves when its cause happens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client import ProcessCollector as PrometheusCollector
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.ports import Kind
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.session.identity import Identity
from clasp_relay.doors.tcp import TcpDoor
from clasp_relay.event_loop import LoopLag
from clasp_relay.http.metrics import ProcessCollector, Sources, make_registry
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.listening import TcpPlace
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.push.web_push import WebPush
from clasp_relay.settings import Settings
from clasp_relay.storage.journal.journal_file import Sizes
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_saver import StateSaver
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.frame import encode_frame
from tests.access.stack import InlineWorkers
from tests.access.test_shared_files import World as SharedWorld
from tests.core.world import KEPT, World, WorldClock, rules_of, value
from tests.net.helpers import ENDLESS, UPGRADE, Client, Pipe, client_frame, param

ROOT = Path(__file__).parent.parent.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "clasp-relay.json"


class Follower:
    """A relay's part in a cluster where another one decides."""

    forwarded, failovers, alarms = 12, 2, 1

    def status(self) -> Mapping[str, object]:
        """Returns how far it is."""
        return {"role": "follower", "epoch": 3, "behind_records": 5, "behind_ms": 250}


class Machine:
    """A relay over connections in memory, with its metrics."""

    def __init__(self, folder: Path) -> None:
        self.reactor = MemoryReactorClock()
        clock = WorldClock()
        clock.clock = self.reactor
        self.writer = TurnWriter(self.reactor)
        ids = iter(f"{number:036d}" for number in range(1000))
        options = RelayOptions(message_rate=(1.0, 40.0))
        self.relay = Relay(options, HANDLERS, clock, lambda: next(ids), self.writer, lambda _what, _fault: None)
        limits = NetLimits(max_sessions=4, outbox_bytes=200_000)
        self.factory = ClaspFactory(self.relay, self.writer, self.reactor, limits)
        folder.mkdir()
        state_file = StateFile(folder / "state.json")
        state_file.load()
        params = self.relay.params
        self.saver = StateSaver(
            state_file,
            params.image,
            lambda: params.changes,
            self._in_a_thread,
            Logger(observer=LogPublisher()),
            monotonic=self.reactor.seconds,
            sleep=lambda _s: None,
        )
        self.broken_disk = False
        self.outcomes: dict[tuple[str, str], int] = {}
        self.hash_queue = 0
        self.lag = LoopLag(self.reactor, self.reactor.seconds)
        door = TcpDoor(self.reactor, TcpPlace("127.0.0.1", 0), self.factory)
        (self.door,) = door.counts
        self.sources = Sources(
            relay=self.relay,
            factory=self.factory,
            saver=lambda: self.saver,
            auth_outcomes=lambda: self.outcomes,
            hash_queue=lambda: self.hash_queue,
            loop_lag=self.lag,
            doors=(door,),
        )
        self.registry: CollectorRegistry = make_registry(self.sources)

    def _in_a_thread(self, function: Callable[[], int]) -> Deferred[int]:
        if self.broken_disk:
            raise OSError(28, "no space left")
        self.reactor.advance(0.5)
        return succeed(function())

    def connect(self, room_bytes: int = ENDLESS) -> Client:
        """Returns a client that has asked for the upgrade."""
        protocol = self.factory.buildProtocol(None)
        client = Client(self, protocol, Pipe(self.reactor, room_bytes))  # type: ignore[arg-type]  # a site, to it
        client.send(UPGRADE)
        return client

    def join(self, room_bytes: int = ENDLESS) -> Client:
        """Returns a client past HELLO."""
        client = self.connect(room_bytes)
        self.say(client, m.Hello(1, 0, "test"))
        return client

    def say(self, client: Client, *messages: m.Message, qos: int = 0) -> None:
        """Sends messages, and lets the event loop turn."""
        client.send(*(client_frame(encode_frame(encode(message), qos)) for message in messages))
        client.turn()

    def read(self) -> dict[str, float]:
        """Returns all values, by name and labels."""
        found = {}
        for family in self.registry.collect():
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found


def sets(machine: Machine, client: Client) -> None:
    """A value that two get, and an ACK."""
    listeners = [machine.join(), machine.join()]
    for listener in listeners:
        machine.say(listener, m.Subscribe(1, "/a/**"))
    machine.say(client, m.Set("/a/b", value("x")), qos=1)


def signals(machine: Machine, client: Client) -> None:
    """An event."""
    machine.say(client, m.Publish("/a", Signal.EVENT, value=value(1)))


def refuses(machine: Machine, client: Client) -> None:
    """What is no CLASP, what is no address, text, and too many messages."""
    client.send(client_frame(b"\x00"), client_frame(encode_frame(b"\x20")))
    machine.say(client, m.Get("no address"), *[m.Ping()] * 60)
    client.send(client_frame(b"text", 1))
    client.turn()


def filters(machine: Machine, client: Client) -> None:
    """maxRate, epsilon and gestures."""
    machine.say(client, m.Subscribe(1, "/rate", 255, 1), m.Subscribe(2, "/epsilon", 255, None, 9.0))
    for number in (1.0, 2.0, 3.0):
        machine.say(client, m.Set("/rate", value(number)), m.Set("/epsilon", value(number)))
    for phase in (Phase.START, Phase.MOVE, Phase.MOVE, Phase.MOVE, Phase.MOVE):
        machine.say(client, m.Publish("/g", Signal.GESTURE, phase, value(1), id=1))


def is_slow(machine: Machine, client: Client) -> None:
    """Three readers that do not read: one misses values, one a stream, one events."""
    client.pipe.lose()
    for kind in (Kind.PARAM, Kind.DROP, Kind.KEEP):
        reader = machine.join(room_bytes=600)
        outbox = reader.protocol.outbox
        assert outbox is not None
        for _ in range(16):
            outbox.send(param("/a", bytes(20_000))._replace(kind=kind))
            reader.turn()


def is_full(machine: Machine, _client: Client) -> None:
    """More sessions than there may be."""
    for _ in range(5):
        machine.connect()


def saves(machine: Machine, client: Client) -> None:
    """A snapshot, and one that fails, a while later."""
    machine.say(client, m.Set("/a", value(1)))
    machine.saver.save_if_changed()
    machine.reactor.advance(9)
    machine.say(client, m.Set("/a", value(2)))
    machine.broken_disk = True
    machine.saver.save_if_changed()


def signs_in(machine: Machine, _client: Client) -> None:
    """Somebody who may, somebody who may not, and passwords that wait."""
    machine.outcomes.update({("login", "ok"): 1, ("login", "Unauthenticated"): 2})
    machine.hash_queue = 3


def lags(machine: Machine, _client: Client) -> None:
    """A call that is late."""
    machine.lag.startService()
    machine.reactor.advance(0.5)
    machine.lag.stopService()


def decides(machine: Machine, _client: Client) -> None:
    """Two decisions are remembered; a change ends one, and a subject that leaves takes none of the other's."""
    memory = machine.relay.permissions.memory
    for address in ("/a", "/b"):
        reads = Reads()
        reads.lookups[address] = True
        memory.keep(memory.pool("ann"), ("question", address), address, True, reads)
    memory.changed("/a", True, False)


def comes_by_a_door(machine: Machine, _client: Client) -> None:
    """A client that sends three messages, one of which is refused."""
    machine.door.clients, machine.door.messages, machine.door.refused = 1, 3, 1


CAUSES: list[tuple[Callable[[Machine, Client], None], dict[str, float]]] = [
    (
        sets,
        {
            "clasp_messages_received_total{type=HELLO}": 2,
            "clasp_messages_received_total{type=SUBSCRIBE}": 2,
            "clasp_messages_received_total{type=SET}": 1,
            "clasp_messages_sent_total{type=WELCOME}": 2,
            "clasp_messages_sent_total{type=SNAPSHOT}": 2,
            "clasp_messages_sent_total{type=SET}": 1,
            "clasp_messages_sent_total{type=ACK}": 1,
            "clasp_deliveries_total": 2,
            "clasp_params": 1,
            "clasp_state_bytes": 8,
            "clasp_subscriptions": 2,
            "clasp_sessions": 2,
            "clasp_sessions_begun_total": 2,
            "clasp_connections": 2,
        },
    ),
    (signals, {"clasp_messages_received_total{type=PUBLISH}": 1, "clasp_messages_sent_total{type=PUBLISH}": 1}),
    (
        refuses,
        {
            "clasp_undecodable_total{kind=frame}": 1,
            "clasp_undecodable_total{kind=message}": 1,
            "clasp_undecodable_total{kind=text}": 1,
            "clasp_errors_total{code=100}": 1,
            "clasp_errors_total{code=101}": 1,
            "clasp_errors_total{code=200}": 1,
            "clasp_errors_total{code=429}": 1,
            "clasp_messages_sent_total{type=ERROR}": 4,
            "clasp_rate_limited_total": 23,
        },
    ),
    (
        filters,
        {
            "clasp_coalesced_total{reason=max_rate}": 1,
            "clasp_dropped_total{reason=epsilon}": 2,
            "clasp_coalesced_total{reason=gesture}": 2,
            "clasp_deliveries_total": 2,
        },
    ),
    (
        decides,
        {
            "clasp_decisions": 1,
            "clasp_decisions_made_total": 2,
            "clasp_decisions_ended_total{reason=changed}": 1,
        },
    ),
    (
        comes_by_a_door,
        {
            "clasp_door_clients{door=tcp}": 1,
            "clasp_door_messages_total{door=tcp}": 3,
            "clasp_door_refused_total{door=tcp}": 1,
        },
    ),
    (is_slow, {"clasp_slow_closes_total": 1}),
    (is_full, {"clasp_turned_away_total": 2, "clasp_connections": 5}),
    (
        saves,
        {
            "clasp_snapshots_total{outcome=written}": 1,
            "clasp_snapshots_total{outcome=failed}": 1,
            "clasp_snapshot_age_seconds": 9.5,
            "clasp_snapshot_duration_seconds": 0.5,
        },
    ),
    (
        signs_in,
        {
            "clasp_auth_total{call=login,outcome=ok}": 1,
            "clasp_auth_total{call=login,outcome=Unauthenticated}": 2,
            "clasp_hash_queue": 3,
        },
    ),
    (
        lags,
        {
            "clasp_event_loop_lag_seconds_count": 1,
            "clasp_event_loop_lag_seconds_sum": 0.25,
            "clasp_event_loop_lag_seconds_bucket{le=0.5}": 1,
            "clasp_event_loop_lag_seconds_bucket{le=+Inf}": 1,
        },
    ),
]
"""What happens, and by how much it moves which metrics."""

MORE: dict[Callable[[Machine, Client], None], tuple[str, ...]] = {
    sets: ("clasp_received_bytes_total", "clasp_sent_bytes_total", "clasp_accounted_bytes{kind=subscriptions}"),
    is_slow: ("clasp_coalesced_total{reason=slow}", "clasp_dropped_total{reason=slow}", "clasp_outbox_bytes"),
    decides: ("clasp_decisions_bytes", "clasp_accounted_bytes{kind=decisions}"),
    saves: ("clasp_snapshot_size_bytes",),
}
"""And which it moves by an amount that is not for this test to say."""


class MetricsTests(SynchronousTestCase):
    def machine(self) -> Machine:
        """Returns a relay."""
        return Machine(Path(self.mktemp()))

    def moved(self, cause: Callable[[Machine, Client], None]) -> dict[str, float]:
        """Returns by how much every metric moves with a cause."""
        machine = self.machine()
        client = machine.join()
        before = machine.read()
        cause(machine, client)
        after = machine.read()
        return {name: number - before.get(name, 0) for name, number in after.items() if number != before.get(name, 0)}

    def test_metrics_move_with_their_causes(self) -> None:
        """By as much as happened."""
        for cause, expected in CAUSES:
            with self.subTest(cause.__name__):
                moved = self.moved(cause)
                self.assertEqual({name: moved.get(name, 0) for name in expected}, expected)
                for name in MORE.get(cause, ()):
                    self.assertGreater(moved.get(name, 0), 0, name)

    def test_every_metric_is_moved_by_a_cause(self) -> None:
        """A new one has a test."""
        moved = {name for _, expected in CAUSES for name in expected} | {one for many in MORE.values() for one in many}
        families = {name.partition("{")[0].removesuffix("_count").removesuffix("_sum") for name in moved}
        families = {name.removesuffix("_bucket") for name in families}
        self.assertEqual(set(self.names()) - families, set())

    def names(self) -> Iterator[str]:
        """Yields the names of all metrics of ours, as Prometheus knows them."""
        for family in self.machine().registry.collect():
            if family.name.startswith("clasp_"):
                yield family.name + ("_total" if family.type == "counter" else "")

    def test_registries_do_not_mix(self) -> None:
        """Two relays of one process have numbers of their own."""
        one, other = self.machine(), self.machine()
        one.join()
        self.assertEqual((one.read()["clasp_sessions"], other.read()["clasp_sessions"]), (1, 0))

    def test_there_are_no_snapshots_before_the_state_is_loaded(self) -> None:
        """The metrics of it come with it; those of the process are there."""
        machine = self.machine()
        sources: dict[str, Any] = {
            "relay": machine.relay,
            "factory": machine.factory,
            "auth_outcomes": dict,
            "hash_queue": lambda: 0,
            "loop_lag": machine.lag,
        }
        registry = make_registry(Sources(saver=lambda: None, **sources))
        names = {family.name for family in registry.collect()}
        self.assertNotIn("clasp_snapshots", names)
        self.assertIn("process_resident_memory_bytes", names)

    def test_journal_is_measured_where_there_is_one(self) -> None:
        """Its commits by how long they took; of what it has recorded, how much waits."""
        machine = self.machine()
        log = JournalLog(None, lambda _: False)
        log.commits, log.entries, log.commit_sum_s, log.appended_seq, log.recorded_seq = 3, 20, 0.5, 27, 20
        log.commit_counts[0], log.commit_counts[-1] = 2, 1
        log.sizes = Sizes(4_096, 0, 1_500_000)
        found = {
            (sample.name, sample.labels.get("le", "")): sample.value
            for family in make_registry(replace(machine.sources, journal=log)).collect()
            for sample in family.samples
            if sample.name.startswith("clasp_journal")
        }
        self.assertEqual(
            {key: value for key, value in found.items() if key[1] in ("", "0.0005", "+Inf")},
            {
                ("clasp_journal_commit_seconds_bucket", "0.0005"): 2,
                ("clasp_journal_commit_seconds_bucket", "+Inf"): 3,
                ("clasp_journal_commit_seconds_count", ""): 3,
                ("clasp_journal_commit_seconds_sum", ""): 0.5,
                ("clasp_journal_entries_total", ""): 20,
                ("clasp_journal_queue", ""): 7,
                ("clasp_journal_size_bytes", ""): 4_096,
                ("clasp_journal_oldest_seconds", ""): 1.5,
            },
        )

    def test_replays_are_counted_where_there_is_history(self) -> None:
        """Those that were accepted, what they were answered with, and how many wait."""
        world = World(history=rules_of(KEPT))
        client = world.join()
        for _ in range(2):
            client.send(m.Publish("/kept/a"))
        client.send(m.Replay("/kept/a"))
        sources = replace(self.machine().sources, relay=world.relay)

        def found() -> dict[str, float]:
            samples = (sample for family in make_registry(sources).collect() for sample in family.samples)
            return {sample.name: sample.value for sample in samples if sample.name.startswith("clasp_replay")}

        names = ("clasp_replays_total", "clasp_replayed_entries_total", "clasp_replays_waiting")
        self.assertEqual(found(), dict(zip(names, (1, 2, 1), strict=True)))
        world.turn()
        self.assertEqual(found()["clasp_replays_waiting"], 0)

    def test_push_is_measured_where_it_is_on(self) -> None:
        """What became of messages, how many wait, and who wants them."""
        sources = replace(self.machine().sources, push=self.push())
        samples = (sample for family in make_registry(sources).collect() for sample in family.samples)
        found = {
            (each.name, *each.labels.values()): each.value for each in samples if each.name.startswith("clasp_push")
        }
        self.assertEqual(
            found,
            {
                ("clasp_push_total", "gone"): 1,
                ("clasp_push_total", "sent"): 2,
                ("clasp_push_waiting",): 0,
                ("clasp_push_subscriptions",): 1,
            },
        )

    def push(self) -> WebPush:
        """Returns one with a browser, that has sent some messages."""
        push = WebPush(Settings(), Clock(), World().relay, Identity(), lambda *_: True)
        users = SqliteUsers(None, name_keys)
        self.addCleanup(users.close)
        users.push.add(Subscription("https://push.example/1", "ann", b"", b"", b"", 0))
        push.open(users.push, InlineWorkers())
        push.outcomes.update({"sent": 2, "gone": 1})
        return push

    def test_cluster_is_measured_where_there_is_one(self) -> None:
        """What the relay is in it, and how far it is behind; nothing of it without ``--cluster``."""
        machine = self.machine()
        self.assertEqual([name for name in machine.read() if "cluster" in name], [])
        registry = make_registry(replace(machine.sources, cluster=Follower()))
        found = {
            "/".join((sample.name, *sample.labels.values())): sample.value
            for family in registry.collect()
            if family.name.startswith("clasp_cluster")
            for sample in family.samples
        }
        self.assertEqual(
            found,
            {
                "clasp_cluster_role/joining": 0,
                "clasp_cluster_role/follower": 1,
                "clasp_cluster_role/decider": 0,
                "clasp_cluster_role/standby": 0,
                "clasp_cluster_epoch": 3,
                "clasp_cluster_lag_records": 5,
                "clasp_cluster_lag_seconds": 0.25,
                "clasp_cluster_forwarded_total": 12,
                "clasp_cluster_failovers_total": 2,
                "clasp_cluster_alarms_total": 1,
            },
        )

    def test_process_is_measured_where_proc_has_processes_only(self) -> None:
        """As under systemd's ProcSubset=pid: no /proc/stat, and the same numbers as Prometheus's own collector."""
        proc = Path(self.mktemp())
        proc.mkdir()
        (proc / "self").symlink_to("/proc/self")
        ours = {family.name: family.samples[0].value for family in ProcessCollector(proc / "self").collect()}
        theirs = {family.name: family.samples[0].value for family in PrometheusCollector(registry=None).collect()}
        self.assertEqual(set(ours), set(theirs))
        for name, number in theirs.items():
            self.assertLess(abs(ours[name] / number - 1), 0.2, name)

    def test_process_is_not_measured_without_proc(self) -> None:
        """Elsewhere than on Linux."""
        self.assertEqual(list(ProcessCollector(Path(self.mktemp())).collect()), [])

    def test_dashboard_shows_metrics_that_exist(self) -> None:
        """Each name in its queries is one of ours or of the process; all of ours are shown."""
        panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        self.assertEqual((len({panel["id"] for panel in panels}), len(places)), (len(panels), len(panels)))
        queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
        shown = {name for query in queries for name in re.findall(r"\b(?:clasp|process)_\w+", query)}
        known = {family + ending for family in self.names() for ending in ("", "_bucket", "_sum", "_count")}
        with_all = self.with_all()
        ours = {family.name for family in with_all.collect() if family.name.startswith("clasp_")}
        known |= {sample.name for family in with_all.collect() for sample in family.samples}
        self.assertEqual(shown - known, set())
        self.assertEqual(ours - {name.removesuffix("_bucket").removesuffix("_total") for name in shown}, set())

    def test_documentation_lists_every_metric(self) -> None:
        """docs/operations.md has each of ours once, and no other."""
        text = (ROOT / "docs" / "operations.md").read_text("utf-8")
        table = text.partition("\n| metric | labels |")[2].partition("\n\n")[0]
        listed = [name for row in table.splitlines() for name in re.findall(r"`(clasp_\w+)`", row.split(" | ")[0])]
        families = (family for family in self.with_all().collect() if family.name.startswith("clasp_"))
        ours = [family.name + ("_total" if family.type == "counter" else "") for family in families]
        self.assertEqual(sorted(listed), sorted(ours))

    def with_all(self) -> CollectorRegistry:
        """Returns the metrics of a relay that has everything: history, push, files, a cluster."""
        relay, journal = World(history=rules_of(KEPT)).relay, JournalLog(None, lambda _: False)
        folder = Path(self.mktemp())
        folder.mkdir()
        files = SharedWorld(folder).one
        sources = replace(self.machine().sources, relay=relay, journal=journal, push=self.push(), files=lambda: files)
        return make_registry(replace(sources, cluster=Follower()))
