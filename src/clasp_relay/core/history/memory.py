"""History in memory: a log that records at once and keeps the last entries, for ``--journal-memory`` and for tests."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence

from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.history.reading import PAGE_BYTES, PAGE_ROWS, Asked, HistoryEntry, Page
from clasp_relay.core.history.rules import Erasure, is_too_old, rule_of
from clasp_relay.core.records import Change, param_bytes
from clasp_relay.wire.messages import Publish

MAX_ENTRIES = 10_000
"""Entries that are kept in memory: the number of the Rust relay."""


class MemoryHistory:
    """Implements ``core.ports.Log`` and ``HistoryReader``.

    Args:
        now_us: returns the time in Unix µs.
        max_entries: entries that are kept at most; beyond it the oldest one is removed.
    """

    is_immediate = False
    page_us = 2_000
    """See ``HistoryReader``: a page may have to examine all entries."""

    def __init__(self, now_us: Callable[[], int], max_entries: int = MAX_ENTRIES) -> None:
        self._now_us = now_us
        self._max_entries = max_entries
        self._keeping: Keeping | None = None
        self._entries: OrderedDict[int, tuple[str, Change]] = OrderedDict()
        self._of_key: dict[str, list[int]] = {}
        self._last_seq = 0

    def attach(self, keeping: Keeping) -> None:
        """Sets the rules of what is kept; before this call nothing is kept."""
        self._keeping = keeping

    @property
    def count(self) -> int:
        """How many entries are kept."""
        return len(self._entries)

    # core.ports.Log

    def append(self, changes: Sequence[Change]) -> int:
        """See ``Log.append``."""
        keeping = self._keeping
        if keeping is not None:
            for change in changes:
                self._last_seq += 1
                key, erasures = keeping.judge(change)
                for erasure in erasures:
                    self._erase(erasure)
                if key is not None:
                    self._keep(keeping, key, change)
        return 0

    def watch(self, recorded: Callable[[int], None]) -> None:
        """Does nothing: every batch is recorded when ``append`` returns."""

    def check(self) -> None:
        """Does nothing: nothing is written to a disk, so no change is refused."""

    # HistoryReader

    def settle(self, done: Callable[[int | None], None]) -> None:
        """See ``HistoryReader``."""
        done(self._last_seq)

    def read(self, asked: Asked, done: Callable[[Page | None], None]) -> None:
        """See ``HistoryReader``."""
        entries: list[HistoryEntry] = []
        size = 0
        end_seq = asked.after_seq if asked.is_backwards else asked.before_seq - 1
        limits = () if self._keeping is None else self._keeping.rules.limits
        for seq in self._seqs(asked):
            key, change = self._entries[seq]
            time_us = change.param.timestamp_us
            if time_us < asked.from_us if asked.is_backwards else time_us > asked.to_us:
                end_seq = seq if asked.is_backwards else seq - 1
                break
            address = change.param.address
            is_asked = asked.pattern.matches(address) and asked.wants(change)
            if is_asked and not is_too_old(limits, key, time_us, self._now_us()):
                kept = HistoryEntry(seq, address, _bytes_of(change), None if asked.is_backwards else change)
                entries.append(kept)
                size += kept.bytes
                if len(entries) >= min(asked.page_rows, PAGE_ROWS) or size >= PAGE_BYTES:
                    done(Page(entries, seq, size, False))
                    return
        done(Page(entries, end_seq, size, True))

    def erase_of(self, subject: str, done: Callable[[int | None], None]) -> None:
        """See ``HistoryReader``."""
        seqs = [seq for seq, (_, change) in self._entries.items() if change.param.subject == subject]
        for seq in seqs:
            self._forget(seq)
        done(len(seqs))

    def _seqs(self, asked: Asked) -> Iterator[int]:
        key = None if self._keeping is None else self._keeping.rules.key_of(asked.pattern)
        seqs = list(self._entries) if key is None else self._of_key.get(key, [])
        seqs = seqs[bisect_right(seqs, asked.after_seq) : bisect_left(seqs, asked.before_seq)]
        return reversed(seqs) if asked.is_backwards else iter(seqs)

    # Removal

    def _keep(self, keeping: Keeping, key: str, change: Change) -> None:
        self._entries[self._last_seq] = key, change
        seqs = self._of_key.setdefault(key, [])
        seqs.append(self._last_seq)
        limit = keeping.rules.limits[rule_of(key)].max_count
        if limit is not None and len(seqs) > limit:
            self._forget(victim([(seq, self._entries[seq][1].param.subject) for seq in seqs]))
        if len(self._entries) > self._max_entries:
            self._forget(next(iter(self._entries)))

    def _erase(self, erasure: Erasure) -> None:
        for seq in list(self._of_key.get(erasure.key, ())):
            if erasure.applies is None or erasure.applies(self._entries[seq][1]):
                self._forget(seq)

    def _forget(self, seq: int) -> None:
        key, _ = self._entries.pop(seq)
        seqs = self._of_key[key]
        seqs.remove(seq)
        if not seqs:
            del self._of_key[key]


def victim(entries: Sequence[tuple[int, str]]) -> int:
    """Returns the seq of the entry to remove when a key has too many.

    It is the oldest entry of the subject with the most entries, so that no subject can displace the entries of others.
    If several subjects have that many, it is the oldest entry of all of theirs.

    Args:
        entries: the seq and the subject of each, in order.
    """
    counts = Counter(subject for _, subject in entries)
    most = max(counts.values())
    return next(seq for seq, subject in entries if counts[subject] == most)


def _bytes_of(change: Change) -> int:
    value = change.message.value if isinstance(change.message, Publish) else None
    return param_bytes(change.param) + len(value or b"") + 64
