"""Addresses at which only one bundle may write for a moment (``core.bundles``).

A bundle of many members is decided and carried out in pieces. Where it will write, and at its last attempt whatever
its decisions rest on, nobody else's write gets in between: it waits. That is a question of every SET, so it is a
small one; the class is a file because ``Params`` has it, ``core.bundles`` fills it, and whoever writes asks it.
"""

from __future__ import annotations

from collections.abc import Iterable

from clasp_relay.core.records import Param, param_bytes
from clasp_relay.wire.address import Pattern

MAX_PATTERNS = 8
"""How many patterns a write is compared with. A bundle that rests on more of them has all writes wait."""


class Reserved:
    """What is reserved for one bundle; empty nearly always."""

    __slots__ = ("_is_all", "_patterns", "_reads", "is_used", "more_bytes", "more_params", "writes")

    def __init__(self) -> None:
        self.writes: set[str] = set()
        """Where a bundle that was accepted writes in a moment. What it writes there has its revision already."""
        self.more_params = self.more_bytes = 0
        """How much room that may take at most, of the state and of any share: for others there is so much less."""
        self._reads: set[str] = set()
        self._patterns: dict[Pattern, None] = {}
        self._is_all = False
        self.is_used = False
        """Whether anything is reserved: kept, and not worked out, since every SET asks."""

    def __contains__(self, address: str) -> bool:
        return address in self.writes or self.is_read(address)

    def is_read(self, address: str) -> bool:
        """Tells whether a bundle that is being decided rests on what is at an address."""
        if address in self._reads or self._is_all:
            return True
        return any(pattern.matches(address) for pattern in self._patterns)

    def any_is_read(self, addresses: Iterable[str]) -> bool:
        """Tells the same of some addresses."""
        return bool(self._reads or self._patterns) and any(map(self.is_read, addresses))

    def read(self, where: str | Pattern) -> None:
        """Notes that a decision rests on what is at an address, or at all that match a pattern."""
        self.is_used = True
        if isinstance(where, str):
            self._reads.add(where)
        else:
            self._patterns[where] = None
            self._is_all = len(self._patterns) > MAX_PATTERNS

    def begin_writes(self, params: Iterable[Param]) -> None:
        """A bundle was accepted that writes these in a moment."""
        for param in params:
            self.writes.add(param.address)
            self.more_bytes += param_bytes(param)
        self.more_params = len(self.writes)
        self._note_use()

    def end_writes(self) -> None:
        """The bundle is carried out."""
        self.writes.clear()
        self.more_params = self.more_bytes = 0
        self._note_use()

    def end_reads(self) -> None:
        """The bundle is decided."""
        self._reads.clear()
        self._patterns.clear()
        self._is_all = False
        self._note_use()

    def _note_use(self) -> None:
        self.is_used = bool(self.writes or self._reads or self._patterns)
