"""SNAPSHOTs and RESULTs that wait for their session's socket, and the memory that they take meanwhile.

A waiting SNAPSHOT holds params as they were captured. A param that was overwritten since then is in memory only for
these. So captures are searched in pieces, twice a second and whenever much was written, and such params are released: a
subscriber was told of the newer value, which waits behind the SNAPSHOT. The answer to a GET has to keep its param,
which is counted for its session; a session over its memory limit is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias
from weakref import ref

from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Param
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.params import Params

WAITING_BYTES = 1_200
"""Memory of a waiting SNAPSHOT in bytes, without what it captured: its generators and its place in the queue."""

ENTRY_BYTES = 8
"""Memory in bytes of a captured param while it is still current: a reference."""

MUCH_BYTES = 4 * 1024 * 1024
"""Overwritten bytes after which captures are searched at the next SNAPSHOT instead of the next sweep."""

LOOKED_AT_ONCE = 1_024
"""Captured params that are searched in one turn: about a quarter of a millisecond."""

PAUSE_S = 0.0025
"""The time in s between two such turns, so that the search takes at most a tenth of the time."""

Entry: TypeAlias = "Param | str"
"""A captured param; only its address once the param was overwritten."""


class Capture:
    """Params as they were at one time, for all SNAPSHOTs made of them.

    Args:
        params: the captured params.
        changes: ``Params.changes`` at that time.
        is_shared: whether the list is shared, so that it must not be altered.
        must_answer: whether it is for the answer to a GET, so that no param may be released.
    """

    __slots__ = ("__weakref__", "_is_shared", "changes", "entries", "must_answer", "payer", "readers", "stale_bytes")

    def __init__(
        self, params: list[Param], changes: int, *, is_shared: bool = False, must_answer: bool = False
    ) -> None:
        self.entries: list[Entry] = params  # type: ignore[assignment]  # only a list of our own is altered
        self.changes = changes
        self._is_shared = is_shared
        self.must_answer = must_answer
        self.readers: dict[Waiting, None] = {}
        self.payer: Waiting | None = None
        """The SNAPSHOT whose session it is counted for."""
        self.stale_bytes = 0
        """Bytes of overwritten params that only this capture keeps, if none may be released."""

    @property
    def own_bytes(self) -> int:
        """The bytes that are counted for its payer."""
        return WAITING_BYTES + ENTRY_BYTES * len(self.entries)

    def look_through(self, params: Params) -> Iterator[None]:
        """Releases overwritten params; yields where it should pause."""
        get = params.get
        start = 0
        while self.readers and start < len(self.entries):
            some = self.entries[start : start + LOOKED_AT_ONCE]
            left = [entry if isinstance(entry, str) or _is_set(get, entry) else entry.address for entry in some]
            if left != some:
                self._replace(start, some, left)
            start += LOOKED_AT_ONCE
            yield

    def _replace(self, start: int, some: list[Entry], left: list[Entry]) -> None:
        if self.must_answer:
            self.stale_bytes = sum(len(entry.value) for entry in some if not isinstance(entry, str))
            return
        if self._is_shared:
            self.entries, self._is_shared = list(self.entries), False
        self.entries[start : start + len(left)] = left


def _is_set(get: Callable[[str], Param | None], param: Param) -> bool:
    now = get(param.address)
    return now is not None and now.revision == param.revision


class Waiting:
    """The frames of one SNAPSHOT or RESULT, until they are sent or dropped. An iterator.

    Args:
        table: all waiting SNAPSHOTs and RESULTs.
        session: its recipient.
        capture: what it was made from; None for a RESULT.
        frames: yields the frames.
    """

    __slots__ = ("_bytes", "_frames", "_table", "capture", "session")

    def __init__(self, table: WaitingTable, session: Session, capture: Capture | None, frames: Iterator[bytes]) -> None:
        self._table = table
        self._frames = frames
        self._bytes = 0
        self.session = session
        self.capture = capture

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._frames)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Releases everything. May be called again."""
        self._table.forget(self)
        self.capture = None
        self._frames = iter(())

    def count(self, size_bytes: int) -> None:
        """Sets the bytes that are counted for it."""
        self.session.account.add(MemoryKind.SNAPSHOTS, size_bytes - self._bytes)
        self._bytes = size_bytes


class WaitingTable:
    """All waiting SNAPSHOTs and RESULTs.

    Args:
        params: the state.
        clock: the timers.
    """

    def __init__(self, params: Params, clock: Clock) -> None:
        self._params = params
        self._clock = clock
        self._waiting: dict[Waiting, None] = {}
        self._latest: Callable[[], Capture | None] = _nothing
        self._work: Iterator[None] | None = None
        self._looked_bytes = 0
        self.too_slow: Callable[[Session], None] = _ignore
        """Ends a session over its memory limit; set by the relay."""

    def __len__(self) -> int:
        return len(self._waiting)

    def capture_all(self) -> Capture:
        """Captures all params; until the next change all callers share one capture."""
        capture = self._latest()
        if capture is None or capture.changes != self._params.changes or not capture.readers:
            capture = Capture(self._params.all(), self._params.changes, is_shared=True)
            self._latest = ref(capture)
        return capture

    def check(self, session: Session, capture: Capture | None, about: str | None = None) -> None:
        """Refuses another SNAPSHOT to a session over its memory limit.

        Raises:
            RequestError: LIMIT.
        """
        session.account.check(MemoryKind.SNAPSHOTS, _bytes_of(capture), about)

    def add(self, session: Session, capture: Capture | None, frames: Iterator[bytes]) -> Waiting:
        """Counts frames that begin to wait."""
        waiting = Waiting(self, session, capture, frames)
        waiting.count(_bytes_of(capture))
        self._waiting[waiting] = None
        if capture is not None:
            capture.readers[waiting] = None
            capture.payer = capture.payer or waiting
        if self._params.replaced_bytes - self._looked_bytes > MUCH_BYTES:
            self.look_through()
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """Stops counting frames that were sent or dropped; a capture that others need counts for one of them."""
        if waiting not in self._waiting:
            return
        del self._waiting[waiting]
        waiting.count(0)
        capture = waiting.capture
        if capture is None:
            return
        del capture.readers[waiting]
        if capture.payer is waiting:
            capture.payer = next(iter(capture.readers), None)
            if capture.payer is not None:
                capture.payer.count(capture.own_bytes)

    def look_through(self) -> None:
        """Begins to release overwritten params, if there are any and no search is under way."""
        if self._work is None and self._waiting and self._params.replaced_bytes != self._looked_bytes:
            self._looked_bytes = self._params.replaced_bytes
            self._work = self._look_through()
            self._clock.call_later(0, self._go_on)

    def _go_on(self) -> None:
        work = self._work
        assert work is not None, "went on with nothing"
        try:
            next(work)
        except StopIteration:
            self._work = None
        else:
            self._clock.call_later(PAUSE_S, self._go_on)

    def _look_through(self) -> Iterator[None]:
        seen: set[Capture] = set()
        looked_at = 0
        for waiting in list(self._waiting):
            capture = waiting.capture
            if capture is None or capture in seen:
                continue
            seen.add(capture)
            for _ in capture.look_through(self._params):
                looked_at += min(LOOKED_AT_ONCE, len(capture.entries)) + 8
                if looked_at >= LOOKED_AT_ONCE:
                    looked_at = 0
                    yield
            if capture.stale_bytes and capture.readers:
                waiting.count(capture.own_bytes + capture.stale_bytes)
                if waiting.session.account.is_over:
                    self.too_slow(waiting.session)


def _bytes_of(capture: Capture | None) -> int:
    """Returns the bytes that a further reader of a capture is counted for; the list counts for the first one."""
    if capture is None or capture.payer is not None:
        return WAITING_BYTES
    return capture.own_bytes


def _nothing() -> None:
    return None


def _ignore(_session: Session) -> None:
    """Does nothing."""
