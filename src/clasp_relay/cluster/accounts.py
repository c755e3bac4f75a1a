"""The accounts of a cluster: every relay writes the records of the log to its ``users.db``, in the log's order.

A call that writes is asked of the decider, like requests of sessions: it is numbered, kept until the log has its
outcome, and sent again if another relay becomes the decider. The decider attempts the call on its own file and rolls it
back; the changed rows and the outcome are a record of the log. Every relay, also the decider, writes the rows that it
reads there, and the relay that asked then answers its client. So no file ever has changes that the log does not have,
and no call is lost or done twice.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from clasp_relay.cluster.account_asking import (
    NOT_DONE,
    AccountCalls,
    CallPacket,
    LookingBehind,
    decode_packet,
    encode_packet,
)
from clasp_relay.cluster.account_calls import Methods, method_of, unpack
from clasp_relay.cluster.account_deciding import AccountDecider
from clasp_relay.cluster.account_images import decode_pieces, encode_head, encode_rows
from clasp_relay.cluster.account_records import Record, record_of
from clasp_relay.cluster.batch_log import BatchLog
from clasp_relay.cluster.following import NOT_READY, Following
from clasp_relay.cluster.packets import decode_fields, encode_fields
from clasp_relay.core.ports import Timer
from clasp_relay.core.records import Change
from clasp_relay.errors import ClaspError, DecodeError, StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.users import StoreBusy, StoreRefusal
from clasp_relay.storage.users_rows import OtherAccounts, Outside, Row, Snapshot
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["Memory", "SharedAccounts", "Workers"]

P = ParamSpec("P")
T = TypeVar("T")

TICK_S = 0.25
"""The interval of checks for calls that have waited too long, and for changes of commands, which are in force within a
second."""

AGAIN_S = 0.2
"""After how long writing is repeated if another process holds the file."""

NOTES_AT_ONCE = 400
"""How many rows that commands have changed are sent in one call at most."""

TOLD_BYTES = 256 * 1024
"""Size limit of such a call; a single row is shorter."""

WRITTEN_AT_ONCE = 64
"""How many records are given to the store's thread at once; each is a transaction of its own."""


class Workers(Protocol):
    """Runs blocking work elsewhere; ``access.threads.Workers``."""

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Runs a function."""


class Memory(Protocol):
    """The parts of the accounts that the relay has in memory."""

    def follow(self, rows: Sequence[Row]) -> None:
        """Applies changed rows, in the log's order."""

    def written(self, rows: Sequence[Row]) -> None:
        """Notes that rows are in the file."""

    def reload(self) -> Deferred[None]:
        """Loads everything from the file; memory is empty before."""

    def follow_attempts(self, what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
        """Adds another relay's counts of attempts to sign in."""

    @property
    def key(self) -> bytes:
        """The key of the hash of client addresses."""

    def take_key(self, key: bytes) -> None:
        """Replaces the key by that of the other relays."""


class _Read(NamedTuple):
    """A record of the log that is not written yet."""

    record: Record
    digest: bytes


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
        self._decider: AccountDecider | None = None
        self._number = 0
        """The number of the last record that was read here."""
        self._digest = self._origin = b""
        self._written = 0
        """The number of the last record that is in the file."""
        self._unwritten: deque[_Read] = deque()
        self._notes = NOTES_AT_ONCE
        """How many rows that commands have changed the next call has at most."""
        self._captures: list[Callable[[], None]] = []
        """Functions that begin images, called when the file has more records."""
        self._timer: Timer | None = None
        self._retry: Timer | None = None
        self._is_writing = self._is_telling = self._is_over = self._has_key = False
        self.has_base = False
        """Whether the file has accounts from before the cluster that the cluster does not have yet."""

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
        position = store.rows.begin()
        self._number = self._written = position.number
        self._digest, self._origin = position.digest, position.origin
        self.has_base = position.has_base and not position.number

    def catch_up(self, changes: Sequence[Change]) -> None:
        """Writes the records that the journal has and the file has not, before the event loop runs.

        Args:
            changes: the records after ``number``, in order.

        Raises:
            StartError: journal and file do not belong together.
            StoreBusy: another process holds the file.
        """
        for change in changes:
            try:
                read = self._next(change)
                if read is not None:
                    self._write_one(read)
            except StoreBusy:
                raise
            except (ClaspError, sqlite3.IntegrityError) as error:
                raise StartError(
                    f"the journal does not go on where users.db is ({error}): start with an empty data-dir"
                ) from None
            if read is not None:
                self._written = read.record.number
                self._memory.follow(read.record.rows)
                self._memory.written(read.record.rows)

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
        timers, self._timer, self._retry = (self._timer, self._retry), None, None
        for timer in timers:
            if timer is not None:
                timer.cancel()
        self._captures = []
        self.stop_deciding()
        self._calls.stop()
        self._behind.stop()

    @property
    def number(self) -> int:
        """The number of the last record that was read here."""
        return self._number

    @property
    def is_decider(self) -> bool:
        """Whether this relay decides."""
        return self._decider is not None

    @property
    def is_ready(self) -> bool:
        """Whether calls can be answered: the relay has the cluster's accounts and its key."""
        return not self.has_base and (self._has_key or self.is_decider)

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
        if self.has_base:
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
            self._publish("accounts.here", encode_fields(*found, self._number, self._memory.key))

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
        self._behind.answered(number, record, self._written)

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

    # The log

    def follow(self, change: Change) -> None:
        """Applies the next record of the log: to memory at once, to the file a moment later."""
        if self._is_over:
            return
        try:
            read = self._next(change)
        except ClaspError as error:
            self._fatal(f"the log of the cluster does not go on where users.db is ({error})")
            return
        if read is None:
            return
        if self.has_base and read.record.number == 1 and not self._calls.is_in(read.record):
            self._fatal_base()
            return
        self._memory.follow(read.record.rows)
        self._unwritten.append(read)
        self._write()

    def _next(self, change: Change) -> _Read | None:
        """Returns a record if it is the next one; None if it is here already.

        Raises:
            ClaspError: records are missing before it, or it is of another log.
        """
        if change.number < self._number:
            return None
        if change.number == self._number:
            if self._number and record_of(change)[1] != self._digest:
                raise ClaspError(f"record {change.number} is another one than the record {self._number} that is here")
            return None
        if change.number != self._number + 1:
            raise ClaspError(f"record {change.number} comes behind record {self._number}")
        record, digest = record_of(change)
        if record.previous != self._digest:
            raise ClaspError(f"record {change.number} does not follow the record {self._number} that is here")
        self._number, self._digest = record.number, digest
        self._origin = self._origin or digest
        return _Read(record, digest)

    def _write(self) -> None:
        """Has the store's thread write the next records."""
        self._retry = None
        if self._is_writing or self._is_over:
            return
        if not self._unwritten:
            self._decide()
            return
        self._is_writing = True
        reads = [self._unwritten[place] for place in range(min(len(self._unwritten), WRITTEN_AT_ONCE))]
        done = self._sql.run("", _nothing, self._write_all, reads)
        done.addCallbacks(lambda _: self._have_written(reads), self._not_written).addErrback(
            events.CLUSTER_FAULT.failure
        )

    def _write_all(self, reads: Sequence[_Read]) -> None:
        for read in reads:
            self._write_one(read)

    def _write_one(self, read: _Read) -> None:
        record = read.record
        calls = [(done.link, done.number) for done in record.done]
        self._store.rows.follow(record.number, read.digest, record.rows, calls, record.told)

    def _have_written(self, reads: Sequence[_Read]) -> None:
        self._is_writing = False
        for read in reads:
            self._unwritten.popleft()
            self._written = read.record.number
            self._memory.written(read.record.rows)
            if self._decider is not None:
                self._decider.recorded()
            self._calls.answer(read.record)
        self._behind.written(self._written)
        captures, self._captures = self._captures, []
        for begin in captures:
            begin()
        self._write()

    def _not_written(self, failure: Failure) -> None:
        self._is_writing = False
        if failure.check(StoreBusy, self._busy_kind) is not None:
            if not self._is_over:
                self._retry = self._call_later(AGAIN_S, self._write)
        else:
            self._fatal(f"users.db cannot be written: {cause_text(failure.value)}")

    # Images

    def capture(self, done: Callable[[list[bytes]], None], still: Callable[[], None]) -> None:
        """See ``account_images.AccountImages``."""
        number = self._number

        def begin() -> None:
            # The image may have later records, too: its reader ignores them when it finds them in the log.
            if self._written < number:
                self._captures.append(begin)
                return
            begun = self._sql.run("", _nothing, self._store.rows.snapshot)
            begun.addCallback(self._read_all, done, still).addErrback(self._not_captured)

        begin()

    def _read_all(self, snapshot: Snapshot, done: Callable[[list[bytes]], None], still: Callable[[], None]) -> None:
        pieces = [encode_head(snapshot.position, snapshot.calls)]

        def go_on() -> None:
            still()
            found = self._sql.run("", _nothing, snapshot.next_rows)
            found.addCallback(took).addErrback(left).addErrback(self._not_captured)

        def took(rows: list[Row]) -> None:
            if rows:
                pieces.append(encode_rows(rows))
                go_on()
            else:
                done(pieces)

        def left(failure: Failure) -> Deferred[None]:
            self._not_captured(failure)
            return self._sql.run("", _nothing, snapshot.close)

        go_on()

    def _not_captured(self, failure: Failure) -> None:
        """Logs the failure; the relay that waits for the image asks again."""
        if failure.check(StoreBusy, self._busy_kind) is None:
            events.CLUSTER_FAULT.failure(failure)

    def install(self, pieces: Sequence[bytes], done: Callable[[], None]) -> None:
        """See ``account_images.AccountImages``."""
        try:
            position, calls, _ = decode_pieces(pieces)
        except (DecodeError, IndexError):
            self._fatal("the relay that decides has no accounts for this one")
            return
        if not (position.number or self._number):
            done()  # the cluster has none yet
            return
        if self.has_base or self._number > position.number or self._origin not in (b"", position.origin):
            self._fatal_base()
            return

        def write() -> Deferred[None]:
            # Decoded for each attempt, since the iterator of rows can be read only once.
            _, _, rows = decode_pieces(pieces)
            return self._sql.run("", _nothing, self._store.rows.install, position, calls.items(), rows)

        def written() -> None:
            self._number = self._written = position.number
            self._digest, self._origin = position.digest, position.origin
            self._install(self._memory.reload, known)

        def known() -> None:
            self._behind.written(self._written)
            done()

        self._install(write, written)

    def _install(self, step: Callable[[], Deferred[None]], done: Callable[[], None]) -> None:
        """Makes a step of the installation; repeats it while another process holds the file."""
        self._retry = None

        def did(_: None) -> None:
            if not self._is_over:
                done()

        def failed(failure: Failure) -> None:
            if failure.check(StoreBusy, self._busy_kind) is None:
                self._fatal(f"the accounts of the cluster cannot be written to users.db ({cause_text(failure.value)})")
            elif not self._is_over:
                self._retry = self._call_later(AGAIN_S, lambda: self._install(step, done))

        step().addCallbacks(did, failed).addErrback(events.CLUSTER_FAULT.failure)

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
            lambda work: self._sql.run("", _nothing, work).addErrback(self._as_held),
            self._methods,
            lambda: (self._number, self._digest),
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

    def _decide(self) -> None:
        if self._decider is not None and not self._unwritten and not self._is_writing:
            self._decider.go_on()

    # Changes of commands

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
        self._look()

    def _look(self) -> None:
        """Reads whether a command has changed the file, and sends the changes to the decider."""
        if self._is_telling or self._unwritten:
            return
        self._is_telling = True
        done = self._sql.run("", _nothing, self._store.rows.outside, self._notes)
        done.addCallback(self._tell).addErrback(self._not_told).addErrback(events.CLUSTER_FAULT.failure)

    def _tell(self, outside: Outside | None) -> Deferred[None] | None:
        if outside is None:
            self._is_telling = False
            self.has_base = False
            return None
        name = "rows.put_base" if self.has_base else "rows.put"
        arguments = method_of(name).encode_arguments((outside.rows, outside.told), {})
        if len(arguments) > TOLD_BYTES and self._notes > 1:
            self._is_telling = False
            self._notes //= 2
            self._look()
            return None
        done: Deferred[None] = self._calls.ask(name, arguments)
        return done.addCallback(self._told)

    def _told(self, _: None) -> None:
        self._is_telling = False
        self._notes = NOTES_AT_ONCE
        self._look()

    def _not_told(self, failure: Failure) -> None:
        """Handles a failure. The changes are sent again later; rows that arrive twice lead to the same result."""
        self._is_telling = False
        if failure.check(OtherAccounts) is not None:
            self._fatal_base()
        elif failure.check(StoreBusy, self._busy_kind) is None:
            events.CLUSTER_FAULT.failure(failure)

    def _fatal_base(self) -> None:
        self._fatal("this relay's users.db has accounts that are not those of the cluster")

    def _fatal(self, text: str) -> None:
        self._end(f"{text}: start this relay with an empty data-dir, or give the cluster another name")

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
