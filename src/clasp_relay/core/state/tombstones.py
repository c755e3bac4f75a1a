"""Tombstones: the last revisions of addresses whose params have ended, since revisions never go back."""

from __future__ import annotations

from itertools import islice

from clasp_relay.core.records import Ended, EndedSequence, text_bytes

FORGOTTEN_PART = 256
"""Records that are removed together when there are too many: removing the first key of a dict gets slower with each
removal, and an OrderedDict takes ten times as long to copy."""


class Tombstones:
    """A bounded table of ended params.

    Args:
        max_records: limit of the records; those with a stamp do not count.
        max_bytes: limit of the bytes of their addresses together.
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
        """Number of records with a stamp: they count as params."""
        return len(self._stamped)

    def get(self, address: str) -> Ended | None:
        """Returns the record of an address."""
        return self._ended.get(address) or self._stamped.get(address)

    def all(self) -> EndedSequence:
        """Captures all records, oldest first, those with a stamp last."""
        return EndedSequence([*self._ended, *self._stamped], [*self._ended.values(), *self._stamped.values()])

    def remember(self, address: str, ended: Ended) -> None:
        """Adds a record; removes the oldest ones without a stamp if there are too many."""
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
        """Removes and returns the record of an address, which is set again."""
        ended = self._ended.pop(address, None)
        if ended is not None:
            self._bytes -= text_bytes(address)
            return ended
        return self._stamped.pop(address, None)
