"""Relays of a cluster with accounts, in memory: their files, a log, and a bus that loses what it is told to lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Busy
from clasp_relay.cluster.accounts.shared_accounts import SharedAccounts
from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.cluster.exchange.batches import Group
from clasp_relay.core.records import Change
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users import User
from clasp_relay.storage.users_rows import Row
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.access.stack import InlineWorkers
from tests.storage.test_users_rows import everything
from tests.storage.test_users_sqlite import NO_PROOF, NOW_S, keys_of, token

T = TypeVar("T", bound="Place")
KEY = b"k" * 32
ENTRY = AuditEntry(NOW_S, "admin.test", actor="root")


class MemoryOf:
    """Implements ``shared_accounts.Memory``: keeps what it is told."""

    def __init__(self, key: bytes = KEY) -> None:
        self.key = key
        self.followed: list[Row] = []
        self.in_file: list[Row] = []
        self.attempts: list[tuple[object, ...]] = []
        self.reloaded = 0

    def follow(self, rows: Sequence[Row]) -> None:
        """See ``Memory``."""
        self.followed += rows

    def written(self, rows: Sequence[Row]) -> None:
        """See ``Memory``."""
        self.in_file += rows

    def reload(self) -> Deferred[None]:
        """See ``Memory``."""
        self.reloaded += 1
        return succeed(None)

    def follow_attempts(self, what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
        """See ``Memory``."""
        self.attempts.append((what, *counts))

    def take_key(self, key: bytes) -> None:
        """See ``Memory``."""
        self.key = key


class Place:
    """One relay, as far as accounts are concerned, without its file."""

    def __init__(self, world: World, name: str) -> None:
        self.cluster = world
        self.name = name
        self.fatal: list[str] = []
        self.followed = 0
        """How much of the log it has taken."""
        self.is_dead = False
        ledger: Any = SimpleNamespace(decider="", epoch=0)
        following: Any = SimpleNamespace(ledger=ledger, is_cut_off=False, is_local=False, refuses=None)
        self.following = following
        self.accounts = SharedAccounts(
            self.following,
            world.clock.seconds,
            world.clock.callLater,
            self._publish,
            lambda sentence: Busy(sentence, 5),
            self.fatal.append,
        )
        self.log: BatchLog | None = None

    def hear(self, subject: str, payload: bytes) -> None:
        """Takes a message of the bus."""
        calls = {
            "accounts.ask": self.accounts.heard_calls,
            "accounts.resend": self.accounts.heard_resend,
            "accounts.where": self.accounts.heard_where,
            "accounts.here": self.accounts.heard_here,
            "accounts.attempts": self.accounts.heard_attempts,
        }
        if not self.is_dead and not self.following.is_cut_off:
            calls[subject](payload)

    def take_log(self) -> None:
        """Takes what the log has more."""
        while not self.is_dead and self.followed < len(self.cluster.log):
            change = self.cluster.log[self.followed]
            self.followed += 1
            self.accounts.replica.follow(change)

    def kill(self) -> None:
        """The process is gone from one moment to the next."""
        self.is_dead = True
        self.accounts._is_over = True
        self.accounts.replica.stop()
        self.accounts.stop_deciding()

    def _publish(self, subject: str, payload: bytes) -> None:
        if not self.is_dead:
            self.cluster.publish(subject, payload)


class Member(Place):
    """One relay with its file."""

    def __init__(self, world: World, name: str, store: SqliteUsers | None = None, sql: Any = None) -> None:
        super().__init__(world, name)
        self.store = SqliteUsers(None, keys_of) if store is None else store
        self.memory = MemoryOf()
        self.sql = InlineWorkers() if sql is None else sql
        self.accounts.open(self.store, self.sql, self.memory)

    def run(self, method: Callable[..., Any], *args: object, **kwargs: object) -> Deferred[Any]:
        """Calls a method of the store, as ``StoreCalls`` does."""
        return self.accounts.run("", lambda: None, method, *args, **kwargs)


class World:
    """Some relays, and what is between them.

    Args:
        clock: every message takes a turn of it; one of its own by default.
    """

    def __init__(self, clock: Any = None) -> None:
        self.clock: Any = Clock() if clock is None else clock
        self.log: list[Change] = []
        self.members: list[Any] = []
        self.lost = 0
        """How many of the next messages are lost."""
        self.is_stuck = False
        """Whether the log takes nothing."""
        self.epoch = 0

    def add(self, name: str, store: SqliteUsers | None = None, sql: Any = None) -> Member:
        """Starts a relay that has all of the log's past."""
        return self.begin(Member(self, name, store, sql))

    def begin(self, member: T) -> T:
        """Starts a relay whose file is open."""
        self.members.append(member)
        member.accounts.start(f"{member.name}.{len(self.members)}")
        if self.epoch:
            member.following.ledger.decider, member.following.ledger.epoch = "somebody", self.epoch
        member.take_log()
        return member

    def started(self, *names: str) -> list[Member]:
        """Starts relays of which the first one decides."""
        members = [self.add(name) for name in names]
        self.decide(members[0])
        self.turn()
        return members

    def decide(self, member: Place) -> None:
        """Has another relay decide: what the one before had in no log is gone."""
        self.epoch += 1
        for each in self.members:
            if each.log is not None:
                each.accounts.stop_deciding()
                each.log, each.following.is_local = None, False
            each.following.ledger.decider, each.following.ledger.epoch = member.name, self.epoch
        member.take_log()
        log = member.log = BatchLog(lambda change: change)
        log.when_filled = lambda: self._seal_later(member, log)
        member.following.is_local = True
        member.accounts.begin_deciding(self.epoch, log, lambda: round(self.clock.seconds() * 1e6))

    def _seal_later(self, member: Place, log: BatchLog) -> None:
        self.clock.callLater(0, self.seal, member, log)

    def seal(self, member: Place, log: BatchLog) -> None:
        """Brings what a decider has gathered into the log, if it still decides."""
        if member.log is not log or self.is_stuck or member.is_dead:
            return
        items, log.items = log.items, []
        log.rows.clear()
        for item in items:
            assert isinstance(item, Group), "only changes are gathered here"
            self.log += item.changes
        for each in self.members:
            self.clock.callLater(0, each.take_log)

    def publish(self, subject: str, payload: bytes) -> None:
        """Brings a message to all."""
        if self.lost:
            self.lost -= 1
            return
        for each in self.members:
            self.clock.callLater(0, each.hear, subject, payload)

    def turn(self) -> None:
        """Lets the loops turn until nothing is due now."""
        for _ in range(60):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.clock.advance(0)
        self.turn()


class AccountCase(SynchronousTestCase):
    """A few relays of which the first one decides."""

    def setUp(self) -> None:
        """Starts them."""
        self.world = World()
        self.one, self.two, self.three = self.world.started("one", "two", "three")

    def done(self, asked: Deferred[Any]) -> Any:
        """Lets the loops turn, and returns what came of a call."""
        self.world.turn()
        return self.successResultOf(asked)

    def register(self, at: Member, name: str = "Alice", number: int = 1) -> Deferred[Any]:
        """Asks for an account."""
        person = User(f"u{number}", name, "hash", NOW_S)
        made = token(f"t{number}", f"u{number}")
        return at.run(at.store.add_user, person, keys_of(name), made, NO_PROOF)

    def assert_alike(self) -> None:
        """Asserts that all that live have the same rows, and memory followed them."""
        alive = [each for each in self.world.members if not each.is_dead]
        for each in alive[1:]:
            self.assertEqual(everything(each.store), everything(alive[0].store))
        for each in alive:
            self.assertEqual(each.fatal, [])
            self.assertEqual(each.memory.followed, each.memory.in_file)


__all__ = ["ENTRY", "KEY", "AccountCase", "Member", "MemoryOf", "Place", "World"]
