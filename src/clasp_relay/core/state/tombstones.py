"""What is remembered of addresses whose params have ended: revisions never go back."""

from __future__ import annotations

from itertools import islice

from clasp_relay.core.records import Ended, EndedSequence, text_bytes

FORGOTTEN_PART = 256
"""Of so many records one is forgotten together with each that there is too many: a dict finds its first key slower and
slower while it is emptied from the front, and an OrderedDict takes ten times as long to copy."""


class Tombstones:
    """A bounded table of what has ended.

    Args:
        max_records: how many are kept; those with a stamp do not count.
        max_bytes: how many bytes their addresses may take together.
    """

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._ended: dict[str, Ended] = {}
        """The oldest first."""
        self._stamped: dict[str, Ended] = {}
        self._bytes = 0

    @property
    def stamped(self) -> int:
        """How many records have a stamp: they count as params."""
        return len(self._stamped)

    def get(self, address: str) -> Ended | None:
        """Returns what is remembered of an address."""
        return self._ended.get(address) or self._stamped.get(address)

    def all(self) -> EndedSequence:
        """Captures all records, oldest first, those with a stamp last."""
        return EndedSequence([*self._ended, *self._stamped], [*self._ended.values(), *self._stamped.values()])

    def remember(self, address: str, ended: Ended) -> None:
        """Keeps a record; the oldest without a stamp go when there are too many."""
        self.forget(address)
        if ended.stamp is not None:
            self._stamped[address] = ended
            return
        self._ended[address] = ended
        self._bytes += text_bytes(address)
        while len(self._ended) > self._max_records or self._bytes > self._max_bytes:
            for oldest in list(islice(self._ended, 1 + len(self._ended) // FORGOTTEN_PART)):
                self._bytes -= text_bytes(oldest)
                del self._ended[oldest]

    def forget(self, address: str) -> Ended | None:
        """Drops the record of an address, which is set again, and returns it."""
        ended = self._ended.pop(address, None)
        if ended is not None:
            self._bytes -= text_bytes(address)
            return ended
        return self._stamped.pop(address, None)
