"""All that goes out in one turn of the event loop, written with one system call per session.

A *run* holds the messages in a row that went to the same audience. It costs the same whether ten
sessions or a thousand get it; only at the end of the turn is its one piece of bytes handed to each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from clasp_relay.core.ports import Audience, Frame
from clasp_relay.core.ports import Outbox as AnyOutbox
from clasp_relay.net.backlog import Close, Counters, Snapshot
from clasp_relay.net.framing import Batch, Item, wire_bytes

if TYPE_CHECKING:
    from clasp_relay.net.outbox import Outbox

_log = Logger(namespace="clasp_relay.net")

RUN_BYTES = 32 * 1024
"""A longer run is cut, so that what waits for a slow session can be handed over in small pieces."""

MAX_RUNS = 8
"""More runs than this are handed to their sessions before the end of the turn, so that the search for
the runs that a session is in stays short."""

SNAPSHOT_BYTES = 256 * 1024
"""How much of snapshots is encoded in one turn, for all sessions together: about 3 ms of work."""

SNAPSHOT_SHARE_BYTES = 64 * 1024
"""How much of that one session gets before the next one's turn."""

_Edit: TypeAlias = tuple[int, Frame | Snapshot | Close | None]
"""A place in a run, and what one session gets before it, or None: the session does not get that frame."""


class Run:
    """Frames in a row for one audience.

    Attributes:
        audience: who gets them.
        frames: the frames.
        wires: their WebSocket messages.
        size_bytes: the sum of these.
        private: what is different for some of the sessions, in the order of its places; None for nothing.
    """

    __slots__ = ("audience", "frames", "private", "size_bytes", "wires")

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.frames: list[Frame] = []
        self.wires: list[bytes] = []
        self.size_bytes = 0
        self.private: dict[Outbox, list[_Edit]] | None = None

    def edit(self, outbox: Outbox, item: Frame | Snapshot | Close | None) -> None:
        """Notes an edit at the run's present end."""
        if self.private is None:
            self.private = {}
        self.private.setdefault(outbox, []).append((len(self.frames), item))

    def whole(self) -> Batch:
        """Returns all of the run as one piece."""
        return Batch(self.frames, b"".join(self.wires))

    def edited(self, edits: list[_Edit]) -> list[Item | Snapshot | Close]:
        """Returns the run as one session gets it."""
        items: list[Item | Snapshot | Close] = []
        start = 0
        for place, item in edits:
            if place > start:
                items.append(self._piece(start, place))
            start = place
            if item is None:
                start += 1
            else:
                items.append(item)
        if start < len(self.frames):
            items.append(self._piece(start, len(self.frames)))
        return items

    def _piece(self, start: int, end: int) -> Item:
        if end - start == 1:
            return self.frames[start]
        return Batch(self.frames[start:end], b"".join(self.wires[start:end]))


class TurnWriter:
    """Implements ``core.ports.FanOut``, and writes to every session at the end of the turn.

    Args:
        reactor: calls back at the end of the turn.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._is_scheduled = False
        self._dirty: list[Outbox] = []
        self._fed: dict[Outbox, None] = {}
        self.runs: list[Run] = []
        """Runs that are not handed to their sessions yet; read by the outboxes."""
        self.counters = Counters()
        """What slow sessions missed."""

    def fan_out(self, audience: Audience, frame: Frame, exclude: AnyOutbox | None = None) -> None:
        """See ``core.ports.FanOut.fan_out``."""
        runs = self.runs
        run = runs[-1] if runs else None
        if run is None or run.audience is not audience or run.size_bytes >= RUN_BYTES:
            if not audience.outboxes:
                return
            run = self._new_run(audience)
        if exclude is not None and exclude in audience.members:
            run.edit(cast("Outbox", exclude), None)
        wire = wire_bytes(frame.data)
        run.frames.append(frame)
        run.wires.append(wire)
        run.size_bytes += len(wire)

    def attach(self, outbox: Outbox, item: Frame | Snapshot | Close) -> bool:
        """Puts something for one session into the last run that the session is in.

        Returns:
            Whether there is such a run; else it stands behind what the session has already.
        """
        for run in reversed(self.runs):
            if outbox in run.audience.members:
                run.edit(outbox, item)
                return True
        return False

    def wake(self, outbox: Outbox) -> None:
        """Has what is pending for an outbox written at the end of the turn."""
        self._dirty.append(outbox)
        if not self._is_scheduled:
            self._schedule()

    def feed(self, outbox: Outbox) -> None:
        """Has what waits for an outbox written, a bounded piece of its snapshots per turn."""
        self._fed[outbox] = None
        if not self._is_scheduled:
            self._schedule()

    def materialise(self) -> None:
        """Hands all runs to their sessions."""
        runs, self.runs = self.runs, []
        for run in runs:
            self._hand_over(run)

    def flush(self) -> None:
        """Writes all that is to be written; an error of one session is that session's end only."""
        runs, self.runs = self.runs, []
        try:
            if runs:
                last = runs.pop()
                for run in runs:
                    self._hand_over(run)
                # Who sent something goes on while the others get it.
                self._flush_dirty(later=last.audience.members)
                self._write(last)
        finally:
            self._is_scheduled = False
        self._flush_dirty()
        if self._fed:
            self._pump()
        if self.runs and not self._is_scheduled:
            # The end of a session that could not be written to was told to others.
            self._schedule()

    def _flush_dirty(self, later: frozenset[AnyOutbox] = frozenset()) -> None:
        dirty, self._dirty = self._dirty, []
        for outbox in dirty:
            if outbox in later:
                self._dirty.append(outbox)
                continue
            try:
                outbox.flush()
            except Exception as error:
                _end(outbox, error)

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._reactor.callLater(0, self.flush)

    def _new_run(self, audience: Audience) -> Run:
        if len(self.runs) >= MAX_RUNS:
            self.materialise()
        if not self._is_scheduled:
            self._schedule()
        run = Run(audience)
        self.runs.append(run)
        return run

    def _hand_over(self, run: Run) -> None:
        """Puts a run behind what its sessions have."""
        outboxes = self._without_edits(run)
        whole = run.whole()
        dirty = self._dirty
        for outbox in outboxes:
            if outbox.backlog is None:
                pending = outbox.pending
                if not pending:
                    dirty.append(outbox)
                pending.append(whole)
            else:
                outbox.put(whole)

    def _write(self, run: Run) -> None:
        """Writes the turn's last run: for most of its sessions it is all there is."""
        outboxes = self._without_edits(run)
        whole = run.whole()
        wire = whole.wire
        written = 0
        for outbox in outboxes:
            if outbox.pending or outbox.backlog is not None:
                outbox.put(whole)
                continue
            written += 1
            try:
                outbox.sink.pass_on(wire)
            except Exception as error:
                _end(outbox, error)
        self.counters.sent_bytes += written * len(wire)

    def _without_edits(self, run: Run) -> tuple[Outbox, ...]:
        """Gives those sessions theirs for whom a run is different, and returns the others."""
        outboxes = cast("tuple[Outbox, ...]", run.audience.outboxes)
        private = run.private
        if private is None:
            return outboxes
        for outbox, edits in private.items():
            for item in run.edited(edits):
                outbox.put(item)
        return tuple(outbox for outbox in outboxes if outbox not in private)

    def _pump(self) -> None:
        fed, self._fed = self._fed, {}
        left_bytes = SNAPSHOT_BYTES
        served: list[Outbox] = []
        for outbox in fed:
            try:
                used = outbox.pump(min(left_bytes, SNAPSHOT_SHARE_BYTES))
            except Exception as error:
                _end(outbox, error)
                continue
            left_bytes -= used
            if used and outbox in self._fed:
                served.append(outbox)
        # Those that got nothing stand before those that got something.
        for outbox in served:
            del self._fed[outbox]
            self._fed[outbox] = None


def _end(outbox: Outbox, error: Exception) -> None:
    _log.failure("A session could not be written to", Failure(error))
    outbox.fail()
