"""A cluster in memory for the tests of its parts: relays, a log and a bus that fail when they are told to."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.clocks import DecidersClock
from clasp_relay.cluster.deciding.batch_log import BatchLog, Row
from clasp_relay.cluster.deciding.deciders_core import DecidersRelay, RulesFanOut, deciders_handlers
from clasp_relay.cluster.deciding.deciding import Deciding
from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.ports import Appended, Bounds, Outcome
from clasp_relay.cluster.following.following import Following
from clasp_relay.cluster.membership import Membership, NodeOptions, Position, Role, position_of
from clasp_relay.cluster.node import Node
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.ports import FanOut, Timer
from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.rights.port import OpenPermissions, Permissions
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import AtDecider
from clasp_relay.storage.journal.journal_file import RECORDED_KINDS
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Hello, Message, Set, Snapshot, Welcome
from tests.core.world import CODEC, START_US, MemoryFanOut, MemoryOutbox, value

STEP_S = 0.05


def put(address: str, obj: object, **more: object) -> Set:
    """Returns a SET."""
    return Set(address, value(obj), **more)  # type: ignore[arg-type]


class Bus:
    """The log and the subjects of one NATS, in memory.

    Args:
        clock: every message takes a turn of it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log: list[bytes] = []
        self.engines: list[MemoryEngine] = []
        self.deleted: set[int] = set()
        """The numbers of batches that the log has lost from its middle."""
        self.lost = 0
        """How many of the next messages on the bus are lost."""
        self.is_down = False

    def read(self, seq: int, at_most: int) -> list[bytes]:
        """Returns batches of the log from a number on, up to the first that it does not have."""
        numbers = itertools.takewhile(lambda number: number not in self.deleted, range(seq, seq + at_most))
        return [self.log[number - 1] for number in numbers if number <= len(self.log)]

    def deliver(self, subject: str, payload: bytes) -> None:
        """Brings a message to all who listen and can be reached."""
        if self.lost:
            self.lost -= 1
            return
        for engine in self.engines:
            if engine.is_connected:
                self.clock.callLater(0, engine.receive, subject, payload)


class MemoryEngine:
    """Implements ``ports.Engine`` over a ``Bus``."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.is_connected = False
        self.is_paused = False
        """Whether it answers nothing, as a connection that leads nowhere."""
        self.loses_answers = False
        """Whether appends happen, and nobody learns of it."""
        self.max_bytes = 1 << 20
        """How long a batch may be."""
        self.held: deque[Callable[[], None]] | None = None
        """What waits for a process that stands still; None while it does not."""
        self._calls: dict[str, list[Callable[[bytes], None]]] = {}
        self._unheard: set[str] = set()
        self.heard: Counter[str] = Counter()
        """How many messages of each subject have come."""
        self._when_connected: Callable[[bool], None] = lambda _: None

    def start(self, when_connected: Callable[[bool], None], when_fatal: Callable[[str], None]) -> None:
        """See ``Engine``."""
        self._when_connected = when_connected
        self.bus.engines.append(self)
        self.bus.clock.callLater(0, self.connect)

    def connect(self) -> None:
        """The connection is there."""
        self.is_connected = True
        self._when_connected(True)

    def cut(self) -> None:
        """The connection is lost."""
        self.is_connected = False
        self._when_connected(False)

    def stop(self, done: Callable[[], None]) -> None:
        """See ``Engine``."""
        self.is_connected = False
        self.bus.engines.remove(self)
        done()

    def subscribe(self, subject: str, call: Callable[[bytes], None]) -> None:
        """See ``Engine``."""
        self._calls.setdefault(subject, []).append(call)

    def hear(self, subject: str, is_heard: bool) -> None:
        """See ``Engine``."""
        (self._unheard.discard if is_heard else self._unheard.add)(subject)

    def receive(self, subject: str, payload: bytes) -> None:
        """A message has come."""
        if self.held is not None:
            self.held.append(lambda: self.receive(subject, payload))
            return
        if self.is_connected and not self.is_paused and subject not in self._unheard:
            self.heard[subject] += 1
            for call in self._calls.get(subject, ()):
                call(payload)

    def publish(self, subject: str, payload: bytes) -> None:
        """See ``Engine``."""
        if self.is_connected and not self.is_paused:
            self.bus.deliver(subject, payload)

    def in_one_write(self) -> AbstractContextManager[None]:
        """See ``Engine``; every call goes by itself."""
        return nullcontext()

    def append(self, payload: bytes, expected: int, done: Callable[[Appended], None]) -> None:
        """See ``Engine``."""
        log = self.bus.log
        if not self.is_connected or self.is_paused:
            answer = Appended(Outcome.FAILED)
        elif len(payload) > self.max_bytes:
            answer = Appended(Outcome.TOO_LONG)
        elif len(log) != expected:
            answer = Appended(Outcome.FENCED)
        else:
            log.append(payload)
            answer = Appended(Outcome.FAILED) if self.loses_answers else Appended(Outcome.DONE, len(log))
        self._answer(lambda: done(answer))

    def read(self, seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
        """See ``Engine``."""
        # As nats-server, which refuses a request for message 0.
        found = self.bus.read(seq, at_most) if self.is_connected and not self.is_paused and seq > 0 else None
        self._answer(lambda: done(found))

    def bounds(self, done: Callable[[Bounds | None], None]) -> None:
        """See ``Engine``."""
        found = Bounds(1, len(self.bus.log)) if self.is_connected and not self.is_paused else None
        self._answer(lambda: done(found))

    def _answer(self, call: Callable[[], None]) -> None:
        def come() -> None:
            if self.held is None:
                call()
            else:
                self.held.append(call)

        self.bus.clock.callLater(0, come)


class MemoryJournal:
    """What a relay's disk has: rows, and which of them are synced. Also a ``core.ports.Log``."""

    is_immediate = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: list[Change] = []
        self.appended_seq = 0
        self.is_slow = False
        """Whether nothing is recorded until ``sync``."""
        self._waiting: list[Callable[[], None]] = []

    def append(self, changes: Iterable[Change]) -> int:
        """See ``Log.append``."""
        self.append_judged([(change, None, (), b"") for change in changes if change.kind in RECORDED_KINDS])
        return 0

    def watch(self, recorded: Callable[[int], None]) -> None:
        """See ``Log.watch``."""

    def check(self) -> None:
        """See ``Log.check``."""

    def append_judged(self, entries: Sequence[Row], *, is_last: bool = False) -> None:
        """See ``membership.Journal``."""
        self.rows += [change for change, *_ in entries]
        self.appended_seq += len(entries)

    def when_recorded(self, call: Callable[[], None]) -> None:
        """See ``membership.Journal``."""
        self._waiting.append(call)
        if not self.is_slow:
            self.clock.callLater(0, self.sync)

    def linger(self, delay_s: float) -> None:
        """See ``membership.Journal``."""

    def hang(self, is_slow: bool) -> None:
        """The disk records nothing any more, or goes on."""
        self.is_slow = is_slow
        if not is_slow:
            self.sync()

    def sync(self) -> None:
        """What was appended is recorded."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def find_position(self, number: int, call: Callable[[Change | None], None]) -> None:
        """See ``membership.Journal``."""
        found = [row for row in self.rows if row.kind is ChangeKind.POSITION and row.number == number]
        self.clock.callLater(0, call, found[-1] if found else None)

    def read_tail(self, seq: int, last_seq: int, call: Callable[[Sequence[Change] | None], None]) -> None:
        """See ``membership.Journal``."""
        first = self.appended_seq - len(self.rows) + 1
        rows = self.rows[seq - first : last_seq - first + 1] if seq >= first else None
        self.clock.callLater(0, call, rows)

    def rows_after(self, seq: int) -> list[Change]:
        """Returns the last rows."""
        return self.rows[len(self.rows) - (self.appended_seq - seq) :]

    def restart_at(self, seq: int) -> None:
        """See ``membership.Journal``."""
        self.appended_seq = seq


class Client:
    """A session of some relay, and what it hears."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.outbox = MemoryOutbox()
        self.session: Session = member.relay.connect(self.outbox, "192.0.2.1", CODEC)

    def send(self, message: Message, qos: int = 0) -> None:
        """Sends a message as its client would: encoded."""
        self.member.relay.receive(self.session, encode_frame(encode(message), qos))

    def hear(self) -> list[Message]:
        """Returns the messages that came since the last call."""
        messages = [CODEC.decode(frame.wire)[0] for frame in self.outbox.frames]
        self.outbox.frames.clear()
        return messages

    def ask(self, message: Message, qos: int = 0) -> list[Message]:
        """Sends a message, lets time pass, and returns what came."""
        self.hear()
        self.send(message, qos)
        self.member.cluster.turn()
        return self.hear()


class Member:
    """One relay of a cluster, from its start to its end."""

    def __init__(
        self, cluster: Cluster, name: str, position: Position | None = None, *, is_standby: bool = False
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.clock = cluster.clock
        self.faults: list[tuple[str, Exception]] = []
        self.fatal: list[str] = []
        self._due: deque[Callable[[], None]] = deque()
        """What became due while it stood still."""
        self.imaged = 0
        self.engine = MemoryEngine(cluster.bus)
        self.journal = MemoryJournal(self.clock)
        self.ledger = Ledger()
        self.following = Following(
            cluster.new_link(name), name, self.ledger, self.clock.seconds, self._send, self.clock.callLater
        )
        self.at_decider: list[AtDecider] = []
        """What acts only while this relay decides."""
        self.fan_out = cluster.make_fan_out()
        self.relay = self._make_relay(self.following.handlers(HANDLERS), self, self.fan_out, self.journal)
        self.following.attach(self.relay)
        self.node = Node(
            Membership(
                NodeOptions("test", name, is_standby),
                self.engine,
                self.following,
                self.journal,
                position,
                self.clock.seconds,
                self._call_later,
            ),
            self.relay,
            self._deciding,
            self.now_us,
            lambda: cluster.new_link(name),
            lambda _session, _why: None,
            self.fatal.append,
            self._imaged,
        )
        self.is_dead = False

    def now_us(self) -> int:
        """See ``core.ports.Clock``."""
        return START_US + round(self.clock.seconds() * 1e6)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """See ``core.ports.Clock``."""
        return self.clock.callLater(delay_s, call)

    def start(self) -> Member:
        """Begins to join."""
        self.node.start()
        return self

    def again(self) -> Member:
        """Starts a relay on the files that this one has left: the state, and the rows of the journal after it."""
        state, journal = self.relay.params.image(), self.journal
        unapplied = journal.rows_after(self.node.membership.applied_journal_seq)
        positions = [position_of(row) for row in unapplied if row.kind is ChangeKind.POSITION]
        member = type(self)(self.cluster, self.name, positions[-1] if positions else self.position)
        member.relay.params.load(state)
        for change in unapplied:
            member.relay.committer.follow(change)
        member.journal.rows = list(journal.rows)
        member.journal.appended_seq = member.node.membership.applied_journal_seq = journal.appended_seq
        self.cluster.members.append(member)
        return member.start()

    def kill(self) -> None:
        """The process is gone from one moment to the next."""
        self.is_dead = True
        self.engine.is_connected = False
        self.cluster.bus.engines.remove(self.engine)
        self.node.membership.is_over = True

    @property
    def is_still(self) -> bool:
        """Whether the process stands still."""
        return self.engine.held is not None

    def stand_still(self) -> None:
        """The process is stopped where it is, with SIGSTOP say."""
        self.engine.held = deque()

    def go_on(self) -> None:
        """It runs again: what became due comes before what has come, and both in their order."""
        came, self.engine.held = self.engine.held or deque(), None
        due, self._due = self._due, deque()
        for call in (*due, *came):
            call()

    def join(self, token: str = "") -> Client:
        """Connects, says HELLO and hears the welcome."""
        client = Client(self)
        client.send(Hello(1, 0xE0, "test", token))
        first, *rest = client.hear()
        assert isinstance(first, Welcome), first
        assert all(isinstance(message, Snapshot) for message in rest), rest
        return client

    @property
    def position(self) -> Position:
        """How far the log is in its files."""
        applied = Position(self.ledger.seq, self.ledger.digest, self.ledger.epoch, self.ledger.time_us)
        # Until it has joined, they are as at its start.
        begun = self.node.membership.position
        return applied if begun is None or begun.seq <= applied.seq else begun

    def _imaged(self) -> None:
        self.imaged += 1

    def _send(self, packet: object) -> None:
        self.node.send_packet(packet)  # type: ignore[arg-type]

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> object:
        return self.clock.callLater(delay_s, self._call, call)

    def _call(self, call: Callable[[], None]) -> None:
        if self.is_still:
            self._due.append(call)
        else:
            call()

    def _deciding(self, epoch: int, from_us: int) -> Deciding:
        log = BatchLog(lambda change: change)
        clock = DecidersClock(from_us, self.clock.seconds, self.clock.callLater)
        relay = self._make_relay(deciders_handlers(HANDLERS, log), clock, RulesFanOut(), log, DecidersRelay)

        def stop() -> None:
            for each in self.at_decider:
                each.rest()
            clock.stop()

        return Deciding(relay, log, epoch, self.clock.callLater, stop, self.begun)

    def begun(self, core: Relay) -> None:
        """Is told of each core of this relay that decides."""
        for each in self.at_decider:
            each.act_in(core)

    def permissions_of(self, _now_us: Callable[[], int]) -> Permissions:
        """Returns the permissions of one of this relay's cores."""
        return OpenPermissions()

    def _make_relay(
        self, handlers: object, clock: object, fan_out: object, log: object, kind: type[Relay] = Relay
    ) -> Relay:
        return kind(
            RelayOptions(),
            handlers,  # type: ignore[arg-type]
            clock,  # type: ignore[arg-type]
            self.cluster.new_id,
            fan_out,  # type: ignore[arg-type]
            lambda what, fault: self.faults.append((what, fault)),
            self.permissions_of(clock.now_us),  # type: ignore[attr-defined]
            log=log,  # type: ignore[arg-type]
        )


class Cluster:
    """Some relays and what is between them.

    Args:
        clock: what they take for the time.
        make_fan_out: makes the way out to each relay's sessions.
    """

    member: type[Member] = Member
    """What its relays are."""

    def __init__(self, clock: Clock | None = None, make_fan_out: Callable[[], FanOut] = MemoryFanOut) -> None:
        self.clock = clock or Clock()
        self.make_fan_out = make_fan_out
        self.bus = Bus(self.clock)
        self.members: list[Member] = []
        self._made = 0

    def add(self, name: str, position: Position | None = None, *, is_standby: bool = False) -> Member:
        """Starts a relay."""
        member = self.member(self, name, position, is_standby=is_standby).start()
        self.members.append(member)
        return member

    def started(self, *names: str) -> list[Member]:
        """Starts relays and waits until they are one."""
        members = [self.add(name) for name in names]
        self.advance(4)
        assert self.decider is not None, "nobody decides"
        return members

    @property
    def decider(self) -> Member | None:
        """The relay that decides, as far as it knows."""
        found = [each for each in self.members if not each.is_dead and each.node.role is Role.DECIDER]
        return max(found, key=lambda member: member.node.epoch) if found else None

    @property
    def followers(self) -> list[Member]:
        """The relays that live and do not decide."""
        return [each for each in self.members if not each.is_dead and each is not self.decider]

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        steps = round(seconds / STEP_S)
        for number in range(steps):
            self.clock.advance(STEP_S)
            if number % 10 == 0:
                self.sweep()

    def sweep(self) -> None:
        """Does what the service does twice a second."""
        for member in self.members:
            if not member.is_dead:
                member.relay.sweep()
                member.node.sweep()

    def turn(self) -> None:
        """Lets the loops turn until nothing is due now."""
        for _ in range(200):
            self.clock.advance(0)

    def new_link(self, name: str) -> str:
        """Names a run of a relay."""
        self._made += 1
        return f"{name}.{self._made}"

    def new_id(self) -> str:
        """Names a session."""
        self._made += 1
        return f"00000000-0000-4000-8000-{self._made:012d}"


class TwoRelays(SynchronousTestCase):
    """Tests that have two relays, one of which decides."""

    def setUp(self) -> None:
        """Makes them."""
        self.cluster = Cluster()
        self.cluster.started("one", "two")
        assert self.cluster.decider is not None
        self.decider = self.cluster.decider
        (self.follower,) = self.cluster.followers

    def tearDown(self) -> None:
        """No relay had a fault."""
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])


class ThreeRelays(SynchronousTestCase):
    """Tests that have three relays, one of which decides."""

    def setUp(self) -> None:
        """Makes them."""
        self.cluster = Cluster()
        self.cluster.started("one", "two", "three")
        assert self.cluster.decider is not None
        self.decider = self.cluster.decider
        self.first, self.second = self.cluster.followers


__all__ = ["Bus", "Client", "Cluster", "Member", "MemoryEngine", "MemoryJournal", "ThreeRelays", "TwoRelays", "put"]
