"""Writes all messages of one turn of the event loop, with one system call per session."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from collections.abc import Set as AbstractSet
from time import thread_time
from typing import TypeAlias, cast

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from clasp_relay.core.lanes import in_turn
from clasp_relay.core.ports import Audience, Frame
from clasp_relay.core.ports import Outbox as AnyOutbox
from clasp_relay.logs import events
from clasp_relay.net.backlog import Batch, Close, Snapshot
from clasp_relay.net.observer import Counters
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.reading import share_end_s

SNAPSHOT_BYTES = 256 * 1024
"""Bytes of snapshots that are encoded in one turn at most, for all sessions together; ``PUMP_S`` limits the time."""

MAX_DELAY_S = 0.03
"""Longest delay of a flush while there is more to read or handle than a turn has time for, in CPU time of this thread.
Measured by the clock, a busy machine would flush after a third of a thousand senders, and so write to each three
times."""

DELAY_PER_SESSION_S = 0.00003
"""Delay of a flush in s for each session that it writes to: about four times the duration of a write to one. So writes
take at most a fifth of the time, and a message for few sessions waits no longer than a turn or two."""

PUMP_S = 0.002
"""Time in s for encoding snapshots in one turn, for all sessions together; a piece that is begun is finished."""

SNAPSHOT_SHARE_BYTES = 64 * 1024
"""Bytes of snapshots that are encoded for one session before it is the next one's turn."""

RUN_BYTES = 32 * 1024
"""Bytes at which a run ends, so that what waits for a slow session can be handed over in small pieces."""

_Edit: TypeAlias = tuple[int, Frame | Snapshot | Close | None]
"""An index in a run's frames, and the item that one session gets before that frame; None: it does not get the frame."""


class Run:
    """Messages for the same audience, with nothing in between for any of its sessions.

    It costs the same for ten sessions and for a thousand: its bytes are joined once, and handed to each session only at
    the end of the turn.

    Attributes:
        audience: the recipients.
        frames: the frames.
        wires: the bytes of each. In a room in which every member sends they are joined again for each sender, who does
            not get its own: asking each frame for its bytes again took a tenth of the cost of a message there.
        size_bytes: the bytes of all frames together.
        private: the edits for sessions that do not get the run as it is, in the order of their indexes.
        starts: the index at which the run begins for sessions whose earlier part of it was discarded.
    """

    __slots__ = ("audience", "frames", "private", "size_bytes", "starts", "wires")

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.frames: list[Frame] = []
        self.wires: list[bytes] = []
        self.size_bytes = 0
        self.private: dict[AnyOutbox, list[_Edit]] = {}
        self.starts: dict[AnyOutbox, int] = {}

    def edit(self, outbox: AnyOutbox, item: Frame | Snapshot | Close | None) -> None:
        """Adds an edit for a session at the current end of the run."""
        edits = self.private.get(outbox)
        if edits is None:
            edits = self.private[outbox] = []
        edits.append((len(self.frames), item))

    def discard(self, outbox: AnyOutbox) -> None:
        """Drops a session's part of the run up to its current end."""
        for _, item in self.private.get(outbox, ()):
            if isinstance(item, Snapshot):
                item.give_up()
        self.private[outbox] = []
        self.starts[outbox] = len(self.frames)

    def others(self) -> Sequence[AnyOutbox]:
        """Returns the sessions that get the run without edits."""
        private, outboxes = self.private, self.audience.outboxes
        return [outbox for outbox in outboxes if outbox not in private] if private else outboxes

    def whole(self) -> Batch:
        """Returns the run without edits, as one piece."""
        return Batch(self.frames, b"".join(self.wires))

    def own_bytes(self, outbox: AnyOutbox) -> bytes | None:
        """Returns the bytes that one session gets of the run; None if it also gets a SNAPSHOT or a Close (``edited``).

        For a session whose socket takes everything, this is all that is needed, and less work than ``edited``: in a
        room in which every member sends it is done for each message.
        """
        wires: list[bytes] = []
        start = self.starts.get(outbox, 0)
        for place, item in self.private[outbox]:
            wires += self.wires[start:place]
            start = place
            if item is None:
                start += 1
            elif isinstance(item, Frame):
                wires.append(item.wire)
            else:
                return None
        wires += self.wires[start:]
        return b"".join(wires)

    def edited(self, outbox: AnyOutbox) -> list[Batch | Snapshot | Close]:
        """Returns the run with the edits for one session, in as few pieces as possible."""
        items: list[Batch | Snapshot | Close] = []
        frames: list[Frame] = []
        wires: list[bytes] = []
        start = self.starts.get(outbox, 0)
        for place, item in self.private[outbox]:
            frames += self.frames[start:place]
            wires += self.wires[start:place]
            start = place
            if item is None:
                start += 1
            elif isinstance(item, Frame):
                frames.append(item)
                wires.append(item.wire)
            else:
                if frames:
                    items.append(Batch(frames, b"".join(wires)))
                    frames, wires = [], []
                items.append(item)
        frames += self.frames[start:]
        wires += self.wires[start:]
        if frames:
            items.append(Batch(frames, b"".join(wires)))
        return items


class TurnWriter:
    """Implements ``core.ports.FanOut``, and writes to every session at the end of the turn.

    Args:
        reactor: calls back at the end of the turn.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._is_scheduled = False
        self._dirty: list[Outbox] = []
        self._to_pump: dict[Outbox, None] = {}
        self._pump_end_s = 0.0
        self._behind_since_s: float | None = None
        """When the delay of the flush began, in CPU time of this thread; None if it is not delayed."""
        self.runs: list[Run] = []
        """Runs that are not handed to their sessions yet, in the order in which a session gets its own; read by the
        outboxes."""
        self._open: dict[Audience, Run] = {}
        # The last run of each session; empty while there is only one run, as in most turns.
        self._latest: dict[AnyOutbox, Run] = {}
        self.counters = Counters()
        """The counters of the net layer."""
        self.unhandled: Sized = ()
        """Connections whose received messages wait for a later turn; set by the factory."""

    def fan_out(self, audience: Audience, frame: Frame, exclude: AnyOutbox | None = None) -> None:
        """See ``core.ports.FanOut.fan_out``."""
        run = self._open.get(audience)
        if run is None:
            if not audience.outboxes:
                return
            run = self._new_run(audience)
        if exclude is not None and exclude in audience.members:
            run.edit(exclude, None)
        wire = frame.wire
        run.frames.append(frame)
        run.wires.append(wire)
        run.size_bytes += len(wire)
        if run.size_bytes >= RUN_BYTES:
            del self._open[audience]

    def attach(self, outbox: Outbox, item: Frame | Snapshot | Close) -> bool:
        """Adds an item for one session to the last run of the session. There must be a run.

        Returns:
            Whether a run includes the session; if none does, the caller adds the item to the session's own queue.
        """
        run = self._latest.get(outbox) if self._latest else self.runs[0]
        if run is None or outbox not in run.audience.members:
            return False
        run.edit(outbox, item)
        return True

    def mark_dirty(self, outbox: Outbox) -> None:
        """Has an outbox flushed at the end of the turn."""
        self._dirty.append(outbox)
        if not self._is_scheduled:
            self._schedule()

    def queue_pump(self, outbox: Outbox) -> None:
        """Has the backlog of an outbox written, with a bounded piece of its snapshots per turn."""
        self._to_pump[outbox] = None
        if not self._is_scheduled:
            self._schedule()

    def is_pump_over(self) -> bool:
        """Tells whether the time of this turn for snapshots is over."""
        return self._reactor.seconds() >= self._pump_end_s

    def flush_runs(self) -> None:
        """Hands all runs to their sessions."""
        for run in self._take_runs():
            self._hand_over(run)

    def discard(self, outbox: Outbox) -> None:
        """Drops an outbox's part of all runs so far."""
        for run in self.runs:
            if outbox in run.audience.members:
                run.discard(outbox)

    def flush(self) -> None:
        """Writes everything of this turn; an error of one session ends only that session."""
        last_runs = set(self._open.values())
        try:
            direct = []
            for run in self._take_runs():
                if run in last_runs:
                    direct.append(run)
                else:
                    self._hand_over(run)
            if direct:
                # Senders that are in none of these runs get their answers first, so that they can go on meanwhile.
                self._flush_dirty(later=_members(direct))
                for run in direct:
                    self._write(run)
        finally:
            self._is_scheduled = False
        self._flush_dirty()
        if self._to_pump:
            self._pump()
        if self.runs and not self._is_scheduled:
            # A session to which a write failed has ended, and other sessions were told of that.
            self._schedule()

    def _take_runs(self) -> list[Run]:
        runs, self.runs = self.runs, []
        self._open = {}
        self._latest = {}
        return runs

    def _flush_dirty(self, later: AbstractSet[AnyOutbox] = frozenset()) -> None:
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
        self._reactor.callLater(0, self._flush_in_time)

    def _flush_in_time(self) -> None:
        """Flushes once all that was ready to be read is handled, or after a bounded delay, so that writes are joined.

        When a thousand sessions send at once, their messages take several turns, and a write to everybody in each of
        these costs four times as much. When few messages are to be written and the relay is busy with something else, a
        delay gains next to nothing, so it grows with the number of sessions to write to.
        """
        if self.unhandled or getattr(self._reactor, "is_behind", False):
            now_s = thread_time()
            if self._behind_since_s is None:
                self._behind_since_s = now_s
            sessions = sum([len(run.audience.outboxes) for run in self.runs]) + len(self._dirty)
            if now_s - self._behind_since_s < min(sessions * DELAY_PER_SESSION_S, MAX_DELAY_S):
                self._schedule()
                return
        self._behind_since_s = None
        self.flush()

    def _new_run(self, audience: Audience) -> Run:
        if not self._is_scheduled:
            self._schedule()
        if self.runs:
            self._end_runs_of(audience.members)
        run = self._open[audience] = Run(audience)
        if self._latest:
            self._latest.update(dict.fromkeys(audience.members, run))
        self.runs.append(run)
        return run

    def _end_runs_of(self, members: frozenset[AnyOutbox]) -> None:
        """Ends the open runs of some sessions, so that these sessions get the next run behind all of them."""
        if not self._latest:
            self._latest = dict.fromkeys(self.runs[0].audience.members, self.runs[0])
        if self._latest.keys().isdisjoint(members):
            return
        if len(self._open) == 1:
            # It nearly always has one of them; looking up each session would take as long as writing to it.
            self._open.clear()
            return
        for run in set(map(self._latest.get, members)):
            if run is not None:
                self._open.pop(run.audience, None)

    def _hand_over(self, run: Run) -> None:
        """Adds a run behind everything that its sessions were sent before."""
        for outbox in run.private:
            for item in run.edited(outbox):
                cast("Outbox", outbox).put(item)
        whole = run.whole()
        dirty = self._dirty
        for outbox in cast("Sequence[Outbox]", run.others()):
            if outbox.backlog is None:
                pending = outbox.pending
                if not pending:
                    dirty.append(outbox)
                pending.append(whole)
            else:
                outbox.put(whole)

    def _write(self, run: Run) -> None:
        """Writes a run that is the last one for all of its sessions; most of them have nothing else in this turn."""
        for outbox in cast("dict[Outbox, list[_Edit]]", run.private):
            own = None if outbox.pending or outbox.backlog is not None else run.own_bytes(outbox)
            if own is None:
                for item in run.edited(outbox):
                    outbox.put(item)
            elif own:
                try:
                    outbox.sink.write(own)
                except Exception as error:
                    _end(outbox, error)
        others = run.others()
        if others:
            self._write_to(others, run.whole())

    def _write_to(self, outboxes: Sequence[AnyOutbox], piece: Batch) -> None:
        wire = piece.wire
        written = 0
        for outbox in cast("Sequence[Outbox]", outboxes):
            if outbox.pending or outbox.backlog is not None:
                outbox.put(piece)
                continue
            written += 1
            try:
                outbox.sink.write_uncounted(wire)
            except Exception as error:
                _end(outbox, error)
        self.counters.sent_bytes += written * len(wire)

    def _pump(self) -> None:
        queue, self._to_pump = self._to_pump, {}
        left_bytes = SNAPSHOT_BYTES
        self._pump_end_s = share_end_s(self._reactor, PUMP_S)
        served: list[Outbox] = []
        for outbox in in_turn(queue, _lane_of) if len(queue) > 1 else queue:
            try:
                used = outbox.pump(min(left_bytes, SNAPSHOT_SHARE_BYTES))
            except Exception as error:
                _end(outbox, error)
                continue
            left_bytes -= used
            if used and outbox in self._to_pump:
                served.append(outbox)
        # The next turn serves those first that got nothing; client addresses in turn.
        for outbox in served:
            del self._to_pump[outbox]
            self._to_pump[outbox] = None


def _members(runs: list[Run]) -> AbstractSet[AnyOutbox]:
    if len(runs) == 1:
        return runs[0].audience.members
    return frozenset().union(*(run.audience.members for run in runs))


def _lane_of(outbox: Outbox) -> str:
    return outbox.lane


def _end(outbox: Outbox, error: Exception) -> None:
    events.CONNECTION_FAULT.failure(Failure(error), action="wrote to a session")
    outbox.abort()
