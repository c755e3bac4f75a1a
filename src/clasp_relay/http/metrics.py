"""Metrics for Prometheus. They are read from the relay's counters at each request, so counting costs one addition.

A registry belongs to one relay and nothing is global, so several relays in one process have separate metrics.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clasp_relay.core.session.account import MemoryKind
from clasp_relay.errors import ErrorCode
from clasp_relay.event_loop import BOUNDS_S, LoopLag
from clasp_relay.storage.journal.journal_log import BOUNDS_S as COMMIT_BOUNDS_S
from clasp_relay.wire.constants import MessageCode, Signal
from clasp_relay.wire.messages import Message

if TYPE_CHECKING:
    from clasp_relay.access.files import Files
    from clasp_relay.core.history.replays import Replays
    from clasp_relay.core.relay import Relay
    from clasp_relay.doors.door import Counting
    from clasp_relay.net.websocket import ClaspFactory
    from clasp_relay.push.web_push import WebPush
    from clasp_relay.storage.journal.journal_log import JournalLog
    from clasp_relay.storage.state_saver import StateSaver

__all__ = ["Clustered", "Sources", "make_registry"]

_ANSWERS = (
    MessageCode.WELCOME,
    MessageCode.SNAPSHOT,
    MessageCode.SYNC,
    MessageCode.PONG,
    MessageCode.ACK,
    MessageCode.RESULT,
)


class Clustered(Protocol):
    """The status of a relay in its cluster."""

    def status(self) -> Mapping[str, object]:
        """Returns ``role``, ``epoch``, ``behind_records`` and ``behind_ms``."""

    @property
    def forwarded(self) -> int:
        """Number of writes that were sent to the decider."""

    @property
    def failovers(self) -> int:
        """Number of changes of the decider."""

    @property
    def alarms(self) -> int:
        """Number of alarms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The objects that have the counters.

    Args:
        relay: the core.
        factory: the connections.
        saver: returns the writer of the state file; None until the state is loaded.
        auth_outcomes: returns the number of calls of the auth API, by call and outcome.
        hash_queue: returns the number of passwords that wait to be hashed.
        loop_lag: the lag of the event loop.
        journal: the journal's log; None without a journal.
        doors: the doors for other protocols.
        files: returns the files that users send; None if the relay takes no files.
        push: sends push messages to browsers; None if the relay sends none.
        cluster: the status of the relay in its cluster; None without a cluster.
    """

    relay: Relay
    factory: ClaspFactory
    saver: Callable[[], StateSaver | None]
    auth_outcomes: Callable[[], dict[tuple[str, str], int]]
    hash_queue: Callable[[], int]
    loop_lag: LoopLag
    journal: JournalLog | None = None
    doors: Sequence[Counting] = ()
    files: Callable[[], Files | None] = lambda: None
    push: WebPush | None = None
    cluster: Clustered | None = None


def make_registry(sources: Sources) -> CollectorRegistry:
    """Returns a registry with the metrics of one relay and of its process."""
    registry = CollectorRegistry()
    registry.register(_RelayCollector(sources))
    registry.register(ProcessCollector())
    return registry


class _RelayCollector(Collector):
    """Reads the relay's counters."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        sources = self._sources
        yield from _messages(sources.relay)
        yield from _refusals(sources.relay, sources.factory)
        yield from _state(sources.relay)
        yield from _decisions(sources.relay)
        yield from _accounted(sources.relay)
        yield from _connections(sources.factory, sources.relay)
        yield from _left_out(sources.relay, sources.factory)
        yield from _doors(sources.doors)
        writer = sources.saver()
        if writer is not None:
            yield from _saving(writer)
        calls = ((*key, count) for key, count in sorted(sources.auth_outcomes().items()))
        yield _counts("clasp_auth", "Calls of the auth API.", ("call", "outcome"), calls)
        yield _gauge("clasp_hash_queue", "Passwords waiting to be hashed.", sources.hash_queue())
        if sources.push is not None:
            yield from _push(sources.push)
        yield _lag(sources.loop_lag)
        if sources.journal is not None:
            yield from _journal(sources.journal)
        if sources.relay.replays is not None:
            yield from _replays(sources.relay.replays)
        if sources.cluster is not None:
            yield from _cluster(sources.cluster)
        files = sources.files()
        if files is not None:
            yield from _files(files)


def _push(push: WebPush) -> Iterator[Metric]:
    outcomes = ((outcome, count) for outcome, count in sorted(push.outcomes.items()))
    yield _counts("clasp_push", "Push messages, by what became of them.", ("outcome",), outcomes)
    yield _gauge("clasp_push_waiting", "Push messages that wait or are on their way.", push.waiting)
    yield _gauge("clasp_push_subscriptions", "Browsers that want to be told.", len(push.subscriptions))


class ProcessCollector(Collector):
    """Reads memory, CPU time and open files of this process, under the names that every Prometheus client uses.

    Prometheus's own collector gives nothing if ``/proc`` has processes only (systemd's ``ProcSubset=pid``), because
    it reads the time of the boot from ``/proc/stat``.

    Args:
        proc: the folder of the process's files.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``; yields nothing if there is no /proc."""
        try:
            # Fields from 3 on, after the name, which is in brackets and may contain spaces (proc(5)).
            fields = (self._proc / "stat").read_bytes().rpartition(b")")[2].split()
            open_files = len(os.listdir(self._proc / "fd"))
        except OSError:
            return
        ticks = os.sysconf("SC_CLK_TCK")
        user, system, started, size_bytes, pages = (int(fields[number - 3]) for number in (14, 15, 22, 23, 24))
        boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        resident_bytes = pages * os.sysconf("SC_PAGE_SIZE")
        yield _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", size_bytes)
        yield _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident_bytes)
        started_s = boot_s + started / ticks
        yield _gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", started_s)
        cpu_s = (user + system) / ticks
        yield _counter("process_cpu_seconds", "Total user and system CPU time spent in seconds.", cpu_s)
        yield _gauge("process_open_fds", "Number of open file descriptors.", open_files)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield _gauge("process_max_fds", "Maximum number of open file descriptors.", soft)


def _messages(relay: Relay) -> Iterator[Metric]:
    counts, recipients = relay.counts, relay.recipients
    received = ((_name(kind), count) for kind, count in counts.received.items())
    yield _counts("clasp_messages_received", "Messages received, by type.", ("type",), received)
    sent = {code.name: counts.sent[code] for code in _ANSWERS}
    sent["SET"] = recipients.sent[Signal.PARAM]
    sent["PUBLISH"] = sum(recipients.sent) - sent["SET"]
    sent["ERROR"] = sum(counts.errors.values())
    yield _counts(
        "clasp_messages_sent",
        "Messages sent, by type; each counts once, however many sessions received it.",
        ("type",),
        sent.items(),
    )
    delivered = recipients.delivered + relay.throttles.sent
    yield _counter("clasp_deliveries", "SETs and PUBLISHes, counted for every session that received them.", delivered)


def _refusals(relay: Relay, factory: ClaspFactory) -> Iterator[Metric]:
    counts = relay.counts
    errors = ((str(int(code)), count) for code, count in counts.errors.items())
    yield _counts("clasp_errors", "ERRORs sent, by code.", ("code",), errors)
    undecodable = {
        "frame": counts.undecodable[ErrorCode.FRAME],
        "message": counts.undecodable[ErrorCode.MESSAGE],
        "text": factory.writer.counters.texts,
    }
    yield _counts("clasp_undecodable", "Undecodable input, by kind.", ("kind",), undecodable.items())
    yield _counter("clasp_rate_limited", "Messages dropped by the rate limit.", counts.limited)


def _state(relay: Relay) -> Iterator[Metric]:
    yield _gauge("clasp_params", "Params.", len(relay.params))
    yield _gauge("clasp_state_bytes", "Size of all addresses and values.", relay.params.state_bytes)
    yield _gauge("clasp_subscriptions", "Subscriptions of all sessions.", len(relay.subscriptions))


def _decisions(relay: Relay) -> Iterator[Metric]:
    memory = relay.permissions.memory
    yield _gauge("clasp_decisions", "Decisions about rights that are remembered.", len(memory))
    yield _gauge("clasp_decisions_bytes", "Memory that remembered decisions take, by estimate.", memory.bytes)
    yield _counter("clasp_decisions_made", "Decisions that were not remembered and had to be made.", memory.missed)
    ends = {"changed": memory.ended, "evicted": memory.evicted}
    yield _counts("clasp_decisions_ended", "Remembered decisions that ended, by reason.", ("reason",), ends.items())


def _accounted(relay: Relay) -> Iterator[Metric]:
    family = GaugeMetricFamily("clasp_accounted_bytes", "Memory that is kept for sessions, by kind.", labels=("kind",))
    for kind in MemoryKind:
        family.add_metric((kind.name.lower(),), relay.accounts.bytes[kind])
    family.add_metric(("signals",), relay.signals.bytes)
    family.add_metric(("decisions",), relay.permissions.memory.bytes)
    yield family


def _connections(factory: ClaspFactory, relay: Relay) -> Iterator[Metric]:
    counters = factory.writer.counters
    yield _gauge("clasp_sessions", "Sessions whose HELLO was accepted.", len(relay.sessions))
    yield _counter("clasp_sessions_begun", "Sessions whose HELLO was accepted, since the start.", relay.counts.began)
    yield _gauge(
        "clasp_connections", "TCP connections for CLASP and at doors, sessions included.", len(factory.connections)
    )
    yield _counter("clasp_turned_away", "Refused connections.", counters.turned_away)
    yield _counter("clasp_received_bytes", "Bytes received.", counters.received_bytes)
    yield _counter("clasp_sent_bytes", "Bytes of WebSocket messages sent.", counters.sent_bytes)
    yield _gauge("clasp_outbox_bytes", "Bytes that wait for slow sessions.", factory.waiting_bytes)
    yield _counter("clasp_slow_closes", "Sessions closed as too slow.", counters.slow_closes)


def _left_out(relay: Relay, factory: ClaspFactory) -> Iterator[Metric]:
    counters = factory.writer.counters
    coalesced = {"slow": counters.coalesced, "max_rate": relay.throttles.replaced, "gesture": relay.gestures.replaced}
    yield _counts("clasp_coalesced", "Frames replaced by a newer one, by reason.", ("reason",), coalesced.items())
    dropped = {"slow": counters.dropped, "epsilon": relay.throttles.skipped}
    yield _counts("clasp_dropped", "Frames left out, by reason.", ("reason",), dropped.items())


def _doors(doors: Sequence[Counting]) -> Iterator[Metric]:
    counts = [each for door in doors for each in door.counts]
    clients = GaugeMetricFamily("clasp_door_clients", "Clients at a door, by door.", labels=("door",))
    for each in counts:
        clients.add_metric((each.door,), each.clients)
    yield clients
    messages = ((each.door, each.messages) for each in counts)
    yield _counts("clasp_door_messages", "Messages received at a door, by door.", ("door",), messages)
    refused = ((each.door, each.refused) for each in counts)
    text = "Malformed or refused messages and clients that were turned away, by door."
    yield _counts("clasp_door_refused", text, ("door",), refused)


def _saving(writer: StateSaver) -> Iterator[Metric]:
    outcomes = (("written", writer.written), ("failed", writer.failed))
    yield _counts("clasp_snapshots", "Snapshots of the state, by outcome.", ("outcome",), outcomes)
    yield _gauge("clasp_snapshot_age_seconds", "Time since all changes were on disk.", writer.age_s)
    yield _gauge("clasp_snapshot_duration_seconds", "Duration of the last snapshot.", writer.last_duration_s)
    yield _gauge("clasp_snapshot_size_bytes", "Size of the last snapshot.", writer.last_size_bytes)


def _replays(replays: Replays) -> Iterator[Metric]:
    """Yields the metrics of REPLAYs."""
    yield _counter("clasp_replays", "REPLAYs that were accepted.", replays.asked)
    yield _counter("clasp_replayed_entries", "Entries that they were answered with.", replays.sent)
    yield _gauge("clasp_replays_waiting", "REPLAYs at work, and those behind them.", replays.waiting)


def _journal(log: JournalLog) -> Iterator[Metric]:
    bounds = (*(f"{bound:g}" for bound in COMMIT_BOUNDS_S), "+Inf")
    buckets = list(zip(bounds, map(float, accumulate(log.commit_counts)), strict=True))
    yield HistogramMetricFamily(
        "clasp_journal_commit_seconds", "Duration of commits.", buckets=buckets, sum_value=log.commit_sum_s
    )
    yield _counter(
        "clasp_journal_entries", "Changes recorded; divided by the commits, the size of a batch.", log.entries
    )
    yield _gauge("clasp_journal_queue", "Changes that wait to be recorded.", log.queued)
    yield _gauge("clasp_journal_size_bytes", "Size of the journal's rows and its WAL.", log.sizes.used_bytes)
    yield _gauge("clasp_journal_oldest_seconds", "Unix time of the oldest row; 0 for none.", log.sizes.oldest_us / 1e6)


def _cluster(cluster: Clustered) -> Iterator[Metric]:
    """Yields the metrics of the relay in its cluster."""
    status = cluster.status()
    family = GaugeMetricFamily("clasp_cluster_role", "1 for what the relay is in its cluster.", labels=("role",))
    for role in ("joining", "follower", "decider", "standby"):
        family.add_metric((role,), float(status["role"] == role))
    yield family
    yield _gauge("clasp_cluster_epoch", "Which decider's time it is.", float(str(status["epoch"])))
    behind = float(str(status["behind_records"]))
    yield _gauge("clasp_cluster_lag_records", "Batches of the log that are not applied yet.", behind)
    behind_s = float(str(status["behind_ms"])) / 1e3
    yield _gauge("clasp_cluster_lag_seconds", "For how long the decider was not heard.", behind_s)
    yield _counter("clasp_cluster_forwarded", "Messages that were sent to the decider.", cluster.forwarded)
    yield _counter("clasp_cluster_failovers", "Changes of the decider.", cluster.failovers)
    yield _counter("clasp_cluster_alarms", "Times that the log was not what it has to be.", cluster.alarms)


def _files(files: Files) -> Iterator[Metric]:
    """Yields the metrics of files that users send."""
    counts = files.counts
    yield _gauge("clasp_files", "Files.", files.stored)
    yield _gauge("clasp_files_bytes", "What files take, those that are arriving included.", files.used_bytes)
    yield _gauge("clasp_files_guest_bytes", "What the files of guests take of it.", files.used_by_guests_bytes)
    yield _gauge("clasp_files_arriving", "Files that are arriving.", files.quotas.arriving)
    outcomes = {"stored": counts.stored, "cut": counts.cut, "refused": counts.refused}
    yield _counts("clasp_file_uploads", "Uploads, by outcome.", ("outcome",), outcomes.items())
    yield _counter("clasp_file_reads", "Reads of files that were begun.", counts.read)
    yield _counter("clasp_files_removed", "Files that were deleted, or unread for long.", counts.removed)
    yield _counter("clasp_file_received_bytes", "Bytes of files received.", counts.received_bytes)
    yield _counter("clasp_file_sent_bytes", "Bytes of files sent.", counts.sent_bytes)
    if files.copies is not None:
        count, size_bytes = files.copies
        yield _gauge("clasp_file_copies", "Copies of files that are in the object store of the cluster.", count)
        yield _gauge("clasp_file_copies_bytes", "What these copies take.", size_bytes)
        yield _counter("clasp_file_fetches", "Files that were copied from the object store.", counts.fetched)


def _lag(lag: LoopLag) -> Metric:
    bounds = (*(f"{bound:g}" for bound in BOUNDS_S), "+Inf")
    buckets = list(zip(bounds, map(float, accumulate(lag.counts)), strict=True))
    return HistogramMetricFamily(
        "clasp_event_loop_lag_seconds", "How late the event loop made a call.", buckets=buckets, sum_value=lag.sum_s
    )


def _name(kind: type[Message]) -> str:
    return kind.__name__.upper()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _counts(name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Metric:
    """Returns a counter with labels; each row has the label values and the count."""
    family = CounterMetricFamily(name, text, labels=labels)
    for *values, count in rows:
        family.add_metric(values, count)
    return family
