"""Answers REPLAYs from history, in pages, with each entry as the session may see it now.

A REPLAY has a place in the queue of its session's answers. When it is at the front, it reads a page, sends it at the
pace of the socket, reads the next one, and so on, and ends with the end mark. The answers behind it wait; live messages
do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from clasp_relay.core.fanout.snapshots import as_sent
from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.history.reading import (
    COUNTED_ROWS,
    MAX_SEQ,
    NEWEST,
    PAGE_BYTES,
    POSITION,
    Asked,
    HistoryEntry,
    HistoryReader,
    Page,
)
from clasp_relay.core.lanes import Lanes
from clasp_relay.core.ports import NOT_YET, Clock, Frame
from clasp_relay.core.records import no_param, text_bytes
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import FULL, HiddenKeys, Permissions, VisibilityRule
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import LongAnswer, Session
from clasp_relay.core.state.params import Params
from clasp_relay.core.work import Pieces, Work
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES
from clasp_relay.wire.messages import Publish, Replay
from clasp_relay.wire.values import PyValue, encode_value

END_MARK = "/clasp/replay/end"
"""The address of the end mark; a client's PUBLISH there is refused (``core.decide``)."""

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
"""Entries in the answer to one REPLAY: without a ``limit``, and at most."""

MAX_WAITING = 4
"""REPLAYs of one session that may wait behind the one at work."""

READS_AT_ONCE = 2
"""Pages that are read at the same time: one and the next. The others wait in lanes, by client address."""

MAX_READ_BYTES = 64 * 1024 * 1024
"""Bytes that one REPLAY reads at most."""

TIMES_BYTES = 1024 * 1024
"""Bytes that a REPLAY keeps about the SETs that it sent, for ``times`` in its end mark; beyond it the answer ends."""

TIME_BYTES = 40
"""Bytes of one SET in ``times``, without its address."""

MARK_BYTES = 48 * 1024
"""Bytes of ``times`` in one end mark at most; the rest goes into another one."""

LOOKED_AT_ONCE = 16
"""Entries in a page that is read to find one that the session sees; mostly it sees the first one."""

JUDGED_AT_ONCE = 64
"""Hidden entries, or addresses whose current value is looked up, after which other sessions get their turn."""


LOOKED_AT_US, SEEN_US, VIEW_US = 240, 1, 15
"""Time in µs: of one piece of work that examines entries without sending them; to examine an entry that every session
sees; and to decide whether a session sees an entry. The last two are estimates."""


class EndKey:
    """The outbox key of the last frames of a REPLAY that sent SETs: SNAPSHOTs of the current values, and the end marks.

    An outbox that holds back live messages until the end mark can leave out these SNAPSHOTs.
    """


class Ways(NamedTuple):
    """The relay's functions that a REPLAY needs."""

    hold: Callable[[Session, Callable[[], None]], LongAnswer]
    """Adds a place to the queue of a session's answers; calls the function when the place is at the front."""
    release: Callable[[Session], None]
    """Sends the answers of a session that need not wait any longer."""
    refuse: Callable[[Session, RequestError], None]
    """Sends an ERROR."""


class Replays:
    """All REPLAYs at work.

    Args:
        keeping: the history rules.
        reader: reads history.
        permissions: tell whether visibility has to be decided at all.
        visibility: decides what a session sees.
        params: the current values.
        clock: schedules calls.
        work: does long work in pieces.
        ways: the relay's functions.
    """

    def __init__(
        self,
        keeping: Keeping,
        reader: HistoryReader,
        permissions: Permissions,
        visibility: Visibility,
        params: Params,
        clock: Clock,
        work: Work,
        ways: Ways,
    ) -> None:
        self.work = work
        self.keeping = keeping
        self.reader = reader
        self.permissions = permissions
        self.visibility = visibility
        self.params = params
        self.clock = clock
        self.ways = ways
        self._of_session: dict[Session, int] = {}
        self._to_read: Lanes[_Answer] = Lanes()
        """Answers that wait for a page."""
        self._reads: dict[_Answer, tuple[Asked, Callable[[Page | None], None]]] = {}
        """What each of them asks for, and the function that is called with the page."""
        self._at_work = 0
        """Number of pages that are being read."""
        self.begins_seq = 0
        """Other relays of a cluster may have entries before this seq that this one lacks; 0 if it lacks none."""
        self.asked = 0
        """Number of accepted REPLAYs."""
        self.sent = 0
        """Number of entries sent."""

    @property
    def waiting(self) -> int:
        """Number of REPLAYs that are at work or wait."""
        return sum(self._of_session.values())

    def ask(self, session: Session, pattern: Pattern, message: Replay) -> None:
        """Begins the answer to a REPLAY, behind the session's earlier answers.

        Raises:
            RequestError: LIMIT if too many REPLAYs of the session wait, or too many bytes are kept for it.
        """
        count = self._of_session.get(session, 0)
        if count > MAX_WAITING:
            text = f"a session may have {MAX_WAITING} REPLAYs waiting behind the one at work"
            raise RequestError(ErrorCode.LIMIT, text, pattern.text)
        session.account.check(MemoryKind.SNAPSHOTS, PAGE_BYTES, pattern.text)
        session.account.add(MemoryKind.SNAPSHOTS, PAGE_BYTES)
        self._of_session[session] = count + 1
        self.asked += 1
        _Answer(self, session, pattern, message).ask()

    def forget(self, session: Session) -> None:
        """Forgets the REPLAYs of a session that has ended; those at work stop, since it is no longer live."""
        count = self._of_session.pop(session, 0)
        if count:
            session.account.add(MemoryKind.SNAPSHOTS, -PAGE_BYTES * count)

    def done(self, session: Session) -> None:
        """Removes an answered REPLAY from the session's count and account."""
        count = self._of_session.pop(session)
        session.account.add(MemoryKind.SNAPSHOTS, -PAGE_BYTES)
        if count > 1:
            self._of_session[session] = count - 1

    def read(self, answer: _Answer, asked: Asked, then: Callable[[Page | None], None]) -> None:
        """Reads a page when it is the turn of the session's lane.

        Args:
            answer: the answer that needs the page; it reads one page at a time.
            asked: which entries.
            then: called with the page; with None if it cannot be read. Not called if the session has ended.
        """
        self._reads[answer] = asked, then
        self._to_read.add(answer, answer.lane or answer)
        self._read_next()

    def _read_next(self) -> None:
        while self._to_read and self._at_work < READS_AT_ONCE:
            answer = self._to_read.pop()
            asked, then = self._reads.pop(answer)
            if answer.is_wanted:
                self._at_work += 1
                self.reader.read(asked, partial(self._was_read, answer, then))

    def _was_read(self, answer: _Answer, then: Callable[[Page | None], None], page: Page | None) -> None:
        self._at_work -= 1
        try:
            if answer.is_wanted:
                then(page)
        finally:
            self._read_next()

    def view(self, session: Session, pattern: Pattern, address: str) -> tuple[HiddenKeys, object]:
        """Returns how a session sees an address now, and a key that addresses with the same decision share."""
        rule: VisibilityRule | None = None if self.permissions.is_open else self.visibility.place(address).shown
        if rule is None:
            return FULL, None
        reads = Reads()
        hidden = self.visibility.view(rule, session, address, pattern, reads)
        return hidden, (rule, address if reads.reads_address else None)


class _Answer:
    """The answer to one REPLAY.

    Args:
        replays: all REPLAYs at work.
        session: the session that asked.
        pattern: the pattern of the REPLAY.
        message: the REPLAY.
    """

    def __init__(self, replays: Replays, session: Session, pattern: Pattern, message: Replay) -> None:
        self._replays = replays
        self._session = session
        self.lane = session.lane
        """The owner that its work counts for; see ``core.work``."""
        self._pattern = pattern
        self._limit = min(message.limit or DEFAULT_LIMIT, MAX_LIMIT)
        self._is_newest = message.from_us == NEWEST
        self._since_us: int | None = None
        self._has_mark = message.types != ALL_TYPES or any(
            each is not None for each in (message.from_us, message.to_us, message.limit)
        )
        asked = Asked(pattern, message.types)
        if message.from_us is not None and not self._is_newest:
            if message.from_us & POSITION:
                asked = asked._replace(after_seq=message.from_us & MAX_SEQ)
            else:
                self._since_us = message.from_us
                asked = asked._replace(from_us=message.from_us)
        if message.to_us is not None:
            bound = message.to_us & MAX_SEQ
            asked = asked._replace(before_seq=bound) if message.to_us & POSITION else asked._replace(to_us=bound)
        self._asked = asked
        self._read_bytes = 0
        self._count = 0
        self._first_seq: int | None = None
        self._last_seq: int | None = None
        self._oldest_us: int | None = None
        self._from_seq = asked.after_seq
        self._is_complete = True
        self._shown: set[object] = set()
        self._times: list[tuple[str, int, int]] = []
        self._times_bytes = 0

    @property
    def is_wanted(self) -> bool:
        """Whether its session has not ended."""
        return self._session.is_live

    def ask(self) -> None:
        """Takes a place behind the session's earlier answers."""
        self._place = self._replays.ways.hold(self._session, self._begin)
        self._replays.ways.release(self._session)

    def _begin(self) -> None:
        """Begins, once the answers before it are sent: waits until all changes so far are recorded."""
        self._replays.reader.settle(self._settled)

    def _settled(self, last_seq: int | None) -> None:
        if last_seq is None:
            self._fail()
            return
        asked = self._asked
        asked = self._asked = asked._replace(before_seq=min(asked.before_seq, last_seq + 1))
        self._next_seq = asked.before_seq if self._is_newest else asked.before_seq - 1
        if not self._replays.keeping.rules.may_match(self._pattern):
            self._finish()
        elif self._is_newest:
            self._in_turn(lambda: self._count_back(asked.before_seq))
        else:
            self._in_turn(lambda: self._read(asked, self._send))

    def _read(self, asked: Asked, then: Callable[[Page], None]) -> None:
        """Reads a page; refuses the REPLAY if it cannot be read."""

        def got(page: Page | None) -> None:
            if page is None:
                self._fail()
            else:
                then(page)

        self._replays.read(self, asked, got)

    def _later(self, call: Callable[[], None]) -> None:
        """Goes on in a later turn."""
        self._replays.clock.call_later(0, lambda: self._in_turn(call))

    def _in_turn(self, call: Callable[[], None]) -> None:
        """Calls a function that reads a page, in a turn that has time, so that many REPLAYs are served in turn."""

        def piece() -> Pieces:
            call()
            yield self._replays.reader.page_us

        self._replays.work.add(self, piece())

    def _look_through(self, page: Page, is_it: Callable[[HistoryEntry], bool], then: Callable[[bool], None]) -> None:
        """Looks for an entry among those that the session sees of a page, in pieces: a new decision takes 0.1 ms.

        Args:
            page: the page.
            is_it: tells whether an entry is the wanted one; called with each entry that the session sees.
            then: called with whether it was found.
        """

        def pieces() -> Pieces:
            cost_us = 0
            for entry in page.entries:
                hidden, alike = self._replays.view(self._session, self._pattern, entry.address)
                if hidden is not None and is_it(entry):
                    then(True)
                    return
                cost_us += SEEN_US if alike is None else VIEW_US
                if cost_us >= LOOKED_AT_US:
                    yield cost_us
                    cost_us = 0
                    if not self._session.is_live:
                        return
            then(False)

        self._replays.work.add(self, pieces())

    # The newest entries: pages are first read backwards, to find where these entries begin.

    def _count_back(self, before_seq: int) -> None:
        """Reads a page backwards from a seq."""
        self._read(
            self._asked._replace(is_backwards=True, before_seq=before_seq, page_rows=COUNTED_ROWS), self._counted
        )

    def _counted(self, page: Page) -> None:
        """Counts the entries that the session sees, up to one more than the limit."""
        self._read_bytes += page.examined_bytes

        def is_one_more(entry: HistoryEntry) -> bool:
            if self._count == self._limit:
                return True
            self._count += 1
            self._first_seq = entry.seq
            return False

        self._look_through(page, is_one_more, lambda is_full: self._go_back(page, is_full=is_full))

    def _go_back(self, page: Page, *, is_full: bool) -> None:
        """Reads the page before, or begins to send."""
        if not (is_full or page.is_end or self._read_bytes >= MAX_READ_BYTES):
            self._later(lambda: self._count_back(page.examined_seq))
            return
        self._is_complete = page.is_end and not is_full
        if self._first_seq is None:
            if not page.is_end:
                self._next_seq = page.examined_seq
            elif self._asked.to_us < MAX_SEQ:
                self._later(lambda: self._find_next(self._asked.after_seq))
                return
            self._later(self._find_oldest)
            return
        self._count = self._read_bytes = 0
        self._asked = self._asked._replace(after_seq=self._first_seq - 1)
        self._later(lambda: self._read(self._asked, self._send))

    # Sending

    def _send(self, page: Page) -> None:
        self._session.outbox.send_snapshot(object(), self._frames(page))

    def _frames(self, page: Page) -> Iterator[bytes]:
        """Yields the entries of a page as the session sees them; after the last one reads the next page."""
        hidden_count = 0
        is_full = False
        for entry in page.entries:
            wire = self._wire(entry)
            if wire is None:
                hidden_count += 1
                if hidden_count % JUDGED_AT_ONCE == 0:
                    yield NOT_YET
            elif self._count == self._limit or self._times_bytes > TIMES_BYTES:
                is_full = True
                break
            else:
                self._note(entry)
                yield wire
        self._read_bytes += page.examined_bytes
        is_full = is_full or (self._read_bytes >= MAX_READ_BYTES and not page.is_end)
        if is_full:
            self._is_complete = False
        if not (is_full or page.is_end):
            self._asked = self._asked._replace(after_seq=page.examined_seq)
            self._later(lambda: self._read(self._asked, self._send))
            return
        if self._last_seq is None and page.is_end and self._asked.to_us < MAX_SEQ and not self._is_newest:
            # No entry was sent: ``next`` must not tell where hidden entries are, so it is made from a visible one.
            self._later(lambda: self._find_next(page.examined_seq))
            return
        if not self._is_newest:
            self._next_seq = page.examined_seq
        self._later(self._find_oldest)

    def _find_next(self, after_seq: int) -> None:
        """Finds the first entry that the session sees after the requested time range; ``next`` is before that entry."""
        asked = self._asked._replace(after_seq=after_seq, from_us=0, to_us=MAX_SEQ, page_rows=LOOKED_AT_ONCE)
        self._read(asked, self._look_for_next)

    def _look_for_next(self, page: Page) -> None:
        self._read_bytes += page.examined_bytes

        def note(entry: HistoryEntry) -> bool:
            self._goes_on_before(entry.seq)
            return True

        def go_on(is_found: bool) -> None:
            if not is_found:
                if not page.is_end and self._read_bytes < MAX_READ_BYTES:
                    self._later(lambda: self._find_next(page.examined_seq))
                    return
                self._goes_on_before(self._asked.before_seq if page.is_end else page.examined_seq + 1)
            self._later(self._find_oldest)

        self._look_through(page, note, go_on)

    def _goes_on_before(self, seq: int) -> None:
        """Sets ``next`` to the position before an entry: positions are excluded, as ``from`` and as ``to``."""
        self._next_seq = seq if self._is_newest else seq - 1

    def _wire(self, entry: HistoryEntry) -> bytes | None:
        """Encodes an entry as the session sees it now; None if it is hidden."""
        change, session = entry.change, self._session
        assert change is not None, "an entry without its change"
        hidden, alike = self._replays.view(session, self._pattern, entry.address)
        if hidden is None:
            if alike in self._shown:
                # The session has lost the right to see it since an earlier entry was sent.
                self._is_complete = False
            return None
        self._shown.add(alike)
        redact = self._replays.permissions.redact
        message = change.message
        with self._replays.keeping.replaying(change):
            if isinstance(message, Publish):
                if hidden and message.value is not None:
                    message = message._replace(value=redact(message.value, hidden))
                return session.codec.publish(message)
            param = change.param
            value = redact(param.value, hidden) if hidden else param.value
            return session.codec.set(param.address, value, param.revision, change.lock, change.unlock, change.ttl)

    def _note(self, entry: HistoryEntry) -> None:
        """Notes what the end mark needs of an entry that is sent."""
        self._count += 1
        self._replays.sent += 1
        self._last_seq = entry.seq
        if self._first_seq is None:
            self._first_seq = entry.seq
        change = entry.change
        assert change is not None, "an entry without its change"
        if not isinstance(change.message, Publish):
            self._times.append((entry.address, change.param.revision, change.param.timestamp_us))
            self._times_bytes += TIME_BYTES + text_bytes(entry.address)

    # The end

    def _find_oldest(self, after_seq: int = 0) -> None:
        """Finds the oldest entry that the session sees, for the end mark."""
        if not self._has_mark:
            self._finish()
            return
        asked = Asked(self._pattern, self._asked.types, after_seq, page_rows=LOOKED_AT_ONCE)
        self._read(asked, self._look_for_oldest)

    def _look_for_oldest(self, page: Page) -> None:
        self._read_bytes += page.examined_bytes

        def note(entry: HistoryEntry) -> bool:
            assert entry.change is not None, "an entry without its change"
            self._oldest_us = entry.change.param.timestamp_us
            return True

        def go_on(is_found: bool) -> None:
            if not is_found and not page.is_end and self._read_bytes < 2 * MAX_READ_BYTES:
                self._later(lambda: self._find_oldest(page.examined_seq))
            else:
                self._finish()

        self._look_through(page, note, go_on)

    def _finish(self) -> None:
        if not self._session.is_live:
            return
        if self._has_mark:
            session = self._session
            marks = (session.codec.publish(mark) for mark in self._marks())
            if self._times:
                # At the pace of the socket: encoding the times of thousands of SETs takes longer than a turn may.
                current = self._current([address for address, _, _ in self._times])
                session.outbox.send_snapshot(EndKey(), (wire for part in (current, marks) for wire in part))
            else:
                for wire in marks:
                    session.outbox.send(Frame(wire))
        self._leave()

    def _fail(self) -> None:
        """Refuses the REPLAY: history cannot be read now."""
        if self._session.is_live:
            text = "the relay cannot read its history now; try again later"
            self._replays.ways.refuse(self._session, RequestError(ErrorCode.OVERLOADED, text, self._pattern.text))
            self._leave()

    def _leave(self) -> None:
        self._replays.done(self._session)
        self._place.is_done = True
        self._replays.ways.release(self._session)

    def _current(self, addresses: list[str]) -> Iterator[bytes]:
        """Yields SNAPSHOTs of the current values at some addresses; a client might take the older ones for current."""
        replays, session = self._replays, self._session
        distinct = list(dict.fromkeys(addresses))
        for start in range(0, len(distinct), JUDGED_AT_ONCE):
            found = []
            for address in distinct[start : start + JUDGED_AT_ONCE]:
                param = replays.params.get(address)
                shown = [] if param is None else replays.visibility.show([param], session, self._pattern)
                found += shown or [no_param(address, "", "", replays.clock.now_us())]
            yield from session.codec.snapshot(as_sent(found))

    @property
    def _begins_before_what_is_kept(self) -> bool:
        return self._since_us is not None and self._oldest_us is not None and self._since_us < self._oldest_us

    @property
    def _may_be_elsewhere(self) -> bool:
        """Whether other relays may have some of the entries; False for the newest entries, which do not tell."""
        begins_seq = self._replays.begins_seq
        if not begins_seq or self._is_newest:
            return False
        return self._oldest_us is None if self._since_us is not None else self._from_seq + 1 < begins_seq

    def _marks(self) -> Iterator[Publish]:
        """Yields the end mark; several if ``times`` does not fit into one."""
        is_complete = self._is_complete and not (self._begins_before_what_is_kept or self._may_be_elsewhere)
        seq = self._first_seq if self._is_newest else self._last_seq
        mark: dict[str, PyValue] = {
            "pattern": self._pattern.text,
            "count": self._count,
            "complete": is_complete,
            "next": str(POSITION | (self._next_seq if seq is None else seq)),
            "oldest": self._oldest_us,
        }
        times: list[PyValue] = []
        size = 0
        now_us = self._replays.clock.now_us()
        for address, revision, time_us in self._times:
            size += TIME_BYTES + text_bytes(address)
            if size > MARK_BYTES:
                value = encode_value({**mark, "times": times, "more": True})
                yield Publish(END_MARK, value=value, timestamp_us=now_us)
                times, size = [], TIME_BYTES + text_bytes(address)
            times.append([address, revision, time_us])
        yield Publish(END_MARK, value=encode_value({**mark, "times": times}), timestamp_us=now_us)
