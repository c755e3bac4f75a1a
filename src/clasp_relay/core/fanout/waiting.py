"""SNAPSHOTs and RESULTs that wait until their session takes them, and what they keep in memory meanwhile.

Who waits holds params as they were captured. One that was written again since is kept for those who wait only. So
captures are looked through in pieces, twice a second and whenever much was written, and let go of such params: a
subscriber was told of the newer value, which waits behind the SNAPSHOT. The answer to a GET cannot do without its
param; it counts for its session, and ends a session for which too much is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias
from weakref import ref

from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Param
from clasp_relay.core.session.account import Kept
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.params import Params

WAITING_BYTES = 1_200
"""What a SNAPSHOT takes that waits, beside what it captured: its generators, and its place in the queue."""

ENTRY_BYTES = 8
"""What a captured param takes while it is still what is set: a reference."""

MUCH_BYTES = 4 * 1024 * 1024
"""After so much was written again, what waits is looked through at the next capture, and not at the next sweep."""

LOOKED_AT_ONCE = 1_024
"""How many captured params are looked at in one turn: about a quarter of a millisecond."""

PAUSE_S = 0.0025
"""The time between two of these turns: with the work it takes a tenth of the time at most."""

Entry: TypeAlias = "Param | str"
"""A captured param; the address alone once the param was written again."""


class Capture:
    """Params as they were at one time, for all that wait for the same.

    Args:
        params: what was captured.
        changes: after how many changes (``Params.changes``).
        is_shared: whether others have the same list, so that it must not be altered.
        must_answer: whether nothing of it may be let go of.
    """

    __slots__ = ("__weakref__", "_is_shared", "changes", "entries", "must_answer", "payer", "readers", "stale_bytes")

    def __init__(
        self, params: list[Param], changes: int, *, is_shared: bool = False, must_answer: bool = False
    ) -> None:
        self.entries: list[Entry] = params  # type: ignore[assignment]  # a list that is altered is our own
        self.changes = changes
        self._is_shared = is_shared
        self.must_answer = must_answer
        self.readers: dict[Waiting, None] = {}
        self.payer: Waiting | None = None
        """The one for which it is counted."""
        self.stale_bytes = 0
        """What is kept for its readers only, where nothing may be let go of."""

    @property
    def own_bytes(self) -> int:
        """What its payer is counted for."""
        return WAITING_BYTES + ENTRY_BYTES * len(self.entries)

    def look_through(self, params: Params) -> Iterator[None]:
        """Lets go of what was written again; yields where others should have their turn."""
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
    """The frames of one SNAPSHOT or RESULT, until they are taken or given up. An iterator.

    Args:
        table: all that wait.
        session: whose it is.
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
        """Lets go of everything. May be repeated."""
        self._table.forget(self)
        self.capture = None
        self._frames = iter(())

    def count(self, size_bytes: int) -> None:
        """Counts what is kept for it now."""
        self.session.account.add(Kept.SNAPSHOTS, size_bytes - self._bytes)
        self._bytes = size_bytes


class WaitingTable:
    """All SNAPSHOTs and RESULTs that wait.

    Args:
        params: what is set.
        clock: calls later.
    """

    def __init__(self, params: Params, clock: Clock) -> None:
        self._params = params
        self._clock = clock
        self._waiting: dict[Waiting, None] = {}
        self._latest: Callable[[], Capture | None] = _nothing
        self._work: Iterator[None] | None = None
        self._looked_bytes = 0
        self.too_slow: Callable[[Session], None] = _ignore
        """Ends a session for which too much is kept; set by the relay."""

    def __len__(self) -> int:
        return len(self._waiting)

    def capture_all(self) -> Capture:
        """Captures everything; while nothing changes, all share one capture."""
        capture = self._latest()
        if capture is None or capture.changes != self._params.changes or not capture.readers:
            capture = Capture(self._params.all(), self._params.changes, is_shared=True)
            self._latest = ref(capture)
        return capture

    def check(self, session: Session, capture: Capture | None, about: str | None = None) -> None:
        """Refuses another one to a session for which too much is kept.

        Raises:
            RequestError: LIMIT.
        """
        session.account.check(Kept.SNAPSHOTS, _bytes_of(capture), about)

    def add(self, session: Session, capture: Capture | None, frames: Iterator[bytes]) -> Waiting:
        """Counts frames that wait from now on."""
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
        """Counts no longer what was taken or given up; what others still need counts for one of them."""
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
        """Begins to let go of what was written again, if anything was and that is not under way."""
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
    """Returns what another reader of a capture is counted for; the list counts for the first one."""
    if capture is None or capture.payer is not None:
        return WAITING_BYTES
    return capture.own_bytes


def _nothing() -> None:
    return None


def _ignore(_session: Session) -> None:
    """Nobody is ended."""
