"""The accounts of a cluster: which calls of the stores go to the decider, and what relays send each other about them.

A call that writes is asked of the decider, like requests of sessions: it is numbered, kept until the log has its
outcome, and sent again if another relay becomes the decider (``account_asking``). The decider attempts the call on its
own file and rolls it back (``account_deciding``); the changed rows and the outcome are a record of the log. Every
relay, also the decider, writes the rows that it reads there (``account_replica``), and the relay that asked then
answers its client. So no file ever has changes that the log does not have, and no call is lost or done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from clasp_relay.cluster.accounts.account_asking import (
    NOT_DONE,
    AccountCalls,
    CallPacket,
    LookingBehind,
    decode_packet,
    encode_packet,
)
from clasp_relay.cluster.accounts.account_calls import Methods, method_of, unpack
from clasp_relay.cluster.accounts.account_deciding import AccountDecider
from clasp_relay.cluster.accounts.account_replica import AccountReplica, RowsInMemory
from clasp_relay.cluster.accounts.outside_changes import OutsideChanges
from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.cluster.exchange.packets import decode_fields, encode_fields
from clasp_relay.cluster.following.following import NOT_READY, Following
from clasp_relay.core.ports import Timer
from clasp_relay.errors import DecodeError, StartError
from clasp_relay.logs import events
from clasp_relay.storage.users import StoreBusy, StoreRefusal
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["Memory", "SharedAccounts", "Workers"]

P = ParamSpec("P")
T = TypeVar("T")

TICK_S = 0.25
"""The interval of checks for calls that have waited too long, and for changes of commands, which are in force within a
second."""


class Workers(Protocol):
    """Runs blocking work elsewhere; ``access.threads.Workers``."""

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Runs a function."""


class Memory(RowsInMemory, Protocol):
    """The parts of the accounts that the relay has in memory."""

    def follow_attempts(self, what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
        """Adds another relay's counts of attempts to sign in."""

    @property
    def key(self) -> bytes:
        """The key of the hash of client addresses."""

    def take_key(self, key: bytes) -> None:
        """Replaces the key by that of the other relays."""


class SharedAccounts:
    """See the module. Implements ``access.threads.Workers`` for the callers of the stores.

    Args:
        following: the relay's part that follows the log.
        monotonic_s: returns seconds.
        call_later: the event loop's.
        publish: sends a message to all relays, under a subject.
        busy: makes the exception of a call that was not done, or perhaps not, from a sentence.
        when_fatal: called with one line for the operator when the relay cannot go on.
    """

    def __init__(
        self,
        following: Following,
        monotonic_s: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
        publish: Callable[[str, bytes], None],
        busy: Callable[[str], Exception],
        when_fatal: Callable[[str], None],
    ) -> None:
        self._following = following
        self._monotonic_s = monotonic_s
        self._call_later = call_later
        self._publish = publish
        self._busy = busy
        self._busy_kind = type(busy(NOT_DONE))
        self._when_fatal = when_fatal
        self._calls = AccountCalls(following, monotonic_s, call_later, self._send, busy)
        self._behind = LookingBehind(following, monotonic_s, self._ask_head, busy)
        self.replica = AccountReplica(
            self._calls,
            self._behind,
            self._on_thread,
            call_later,
            self._busy_kind,
            self._recorded,
            self._decide,
            self._end,
        )
        """This relay's copy of the accounts."""
        self._decider: AccountDecider | None = None
        self._timer: Timer | None = None
        self._is_over = self._has_key = False

    # Life

    def open(self, store: SqliteUsers, sql: Workers, memory: Memory) -> None:
        """Begins to note changes of the file. It calls the store on this thread, so before the event loop runs.

        Args:
            store: the store of the file.
            sql: the thread on which the store is called later.
            memory: the memory that follows the rows.
        """
        self._store, self._sql, self._memory = store, sql, memory
        self._methods = Methods(store)
        self._outside = OutsideChanges(store.rows, self._on_thread, self.replica, self._calls, self._busy_kind)
        self.replica.open(store.rows, memory)

    def start(self, link: str) -> None:
        """Begins to send and answer requests.

        Args:
            link: the id of this relay's link.
        """
        self._calls.link = link
        self._tick()

    def stop(self) -> None:
        """Fails the calls that are not done; writes nothing any more."""
        self._is_over = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self.replica.stop()
        self.stop_deciding()
        self._calls.stop()
        self._behind.stop()

    @property
    def is_decider(self) -> bool:
        """Whether this relay decides."""
        return self._decider is not None

    @property
    def is_ready(self) -> bool:
        """Whether calls can be answered: the relay has the cluster's accounts and its key."""
        return not self.replica.has_base and (self._has_key or self.is_decider)

    # Calls

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Calls a method of the store, here or at the decider; see ``Workers.run``."""
        name = self._methods.name_of(work)
        if name is None:
            done = self._sql.run(lane, admit, work, *args, **kwargs)
            if not self._methods.looks_up(work):
                return done
            return done.addBoth(lambda found: self._found(found, lane, work, *args, **kwargs))
        if self.replica.has_base:
            return fail(self._busy(NOT_DONE))
        arguments = method_of(name).encode_arguments(args, kwargs)
        return maybeDeferred(admit).addCallback(lambda _: self._calls.ask(name, arguments, lane))

    def _found(
        self, found: T | Failure, lane: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | Failure | Deferred[T]:
        """Repeats a look-up that found nothing, once all records that a client may know of are here."""
        if isinstance(found, Failure):
            if found.check(StoreBusy) is not None or found.check(StoreRefusal) is None:
                return found
        elif found is not None:
            return found
        return self.catch_up_with_decider().addCallback(lambda _: self._sql.run(lane, _nothing, work, *args, **kwargs))

    def catch_up_with_decider(self) -> Deferred[None]:
        """Returns a Deferred that fires when all records that a client may know of are in this relay's file."""
        return self._behind.ask()

    def _send(self, packet: CallPacket) -> None:
        if self._decider is None:
            self._publish("accounts.ask", encode_packet(packet))
        else:
            self._take(packet)

    def heard_calls(self, payload: bytes) -> None:
        """Takes calls of another relay, if this one is the decider."""
        if self._decider is None:
            return
        try:
            packet = decode_packet(payload)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        self._take(packet)

    def _take(self, packet: CallPacket) -> None:
        if self._decider is not None:
            self._decider.receive(packet)
            self._decide()

    def heard_resend(self, payload: bytes) -> None:
        """Sends all calls that are not done again, since the decider lacks some."""
        if payload.decode("utf-8", "replace") == self._calls.link:
            self._calls.resend()

    # The number of the last record

    def _ask_head(self, number: int) -> None:
        self._publish("accounts.where", encode_fields(self._calls.link, number))

    def heard_where(self, payload: bytes) -> None:
        """Sends another relay the number of the last record, if this one is the decider."""
        found = _fields(payload, str, int)
        if found is not None and self._decider is not None:
            self._publish("accounts.here", encode_fields(*found, self.replica.number, self._memory.key))

    def heard_here(self, payload: bytes) -> None:
        """Takes the decider's answer."""
        found = _fields(payload, str, int, int, bytes)
        if found is None or found[0] != self._calls.link:
            return
        _, number, record, key = found
        if not self._has_key:
            self._has_key = True
            if key != self._memory.key:
                self._take_key(key)
        self._behind.answered(number, record, self.replica.written)

    def _take_key(self, key: bytes) -> None:
        try:
            self._memory.take_key(key)
        except StartError as error:
            self._end(str(error))
        else:
            events.CLUSTER_KEY_TAKEN.log()

    # Attempts to sign in

    def share_attempts(self, what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
        """Sends other relays this one's counts of attempts to sign in; the message may be lost.

        Args:
            what: what was done with the counts.
            counts: the counts.
        """
        self._publish("accounts.attempts", encode_fields(self._calls.link, what, counts))

    def heard_attempts(self, payload: bytes) -> None:
        """Takes the counts of another relay."""
        found = _fields(payload, str, int, tuple)
        if found is None or found[0] == self._calls.link:
            return
        try:
            counts = unpack(tuple[tuple[int, bytes, str], ...], found[2])
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        self._memory.follow_attempts(found[1], counts)

    # Decide

    def begin_deciding(self, epoch: int, log: BatchLog, now_us: Callable[[], int]) -> None:
        """Makes this relay the decider for accounts.

        Args:
            epoch: the epoch of this decider.
            log: gathers changes for the next batch.
            now_us: the decider's clock, Unix µs.
        """
        if self._is_over:
            return
        self._decider = AccountDecider(
            epoch,
            log,
            now_us,
            self._store,
            lambda work: self._on_thread(work).addErrback(self._as_held),
            self._methods,
            lambda: self.replica.head,
            lambda link: self._publish("accounts.resend", link.encode()),
            self._call_later,
            lambda link: link == self._calls.link,
        )
        self._decide()

    def _as_held(self, failure: Failure) -> Failure:
        """Raises ``StoreBusy`` if the thread is overloaded or stopping, as if another process held the file."""
        if failure.check(self._busy_kind) is not None:
            raise StoreBusy(str(failure.value))
        return failure

    def stop_deciding(self) -> None:
        """Ends this relay's part as the decider."""
        decider, self._decider = self._decider, None
        if decider is not None:
            decider.stop()

    def _recorded(self) -> None:
        if self._decider is not None:
            self._decider.recorded()

    def _decide(self) -> None:
        if self._decider is not None and self.replica.is_current:
            self._decider.go_on()

    # Time and threads

    def _on_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """Calls a function on the store's thread."""
        return self._sql.run("", _nothing, work)

    def _tick(self) -> None:
        self._timer = None
        if self._is_over:
            return
        self._timer = self._call_later(TICK_S, self._tick)
        now_s = self._monotonic_s()
        self._calls.tick(now_s)
        self._behind.tick(now_s)
        following = self._following
        if following.refuses is NOT_READY or following.is_cut_off or not following.ledger.decider:
            return
        if not self._has_key and not self.is_decider:
            self._behind.ask().addErrback(_given_up)
        self._outside.look()

    def _end(self, text: str) -> None:
        """Stops, and reports why the relay cannot go on; later failures are not reported."""
        if not self._is_over:
            self.stop()
            self._when_fatal(text)


def _fields(payload: bytes, *kinds: type[Any]) -> tuple[Any, ...] | None:
    """Returns the fields of a message; logs an invalid one and returns None."""
    try:
        return decode_fields(payload, kinds)
    except DecodeError as error:
        events.CLUSTER_MESSAGE_BAD.log(error=error.message)
        return None


def _given_up(_: Failure) -> None:
    """Does nothing: the next tick asks again."""


def _nothing() -> None:
    """Does nothing: admits every call."""
