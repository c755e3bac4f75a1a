"""Addresses at which only one bundle may write for a moment (``core.bundles``).

A bundle of many members is decided and carried out in pieces. Meanwhile other writes wait at the addresses that it will
write, and at its last attempt also at those that its decisions read. Every SET asks, so the check is cheap. The class
has a file of its own because ``Params`` has it, ``core.bundles`` fills it, and every write asks it.
"""

from __future__ import annotations

from collections.abc import Iterable

from clasp_relay.core.records import Param, param_bytes
from clasp_relay.wire.address import Pattern

MAX_PATTERNS = 8
"""Patterns that a write is compared with. While a bundle depends on more of them, all writes wait."""


class Reserved:
    """The addresses that are reserved for one bundle; nearly always empty."""

    __slots__ = ("_is_all", "_patterns", "_reads", "is_used", "more_bytes", "more_params", "writes")

    def __init__(self) -> None:
        self.writes: set[str] = set()
        """The addresses that the accepted bundle will write; these writes have their revisions already."""
        self.more_params = self.more_bytes = 0
        """The params and bytes of state that these writes may take at most; other writers have less room by these, in
        the state and in every share."""
        self._reads: set[str] = set()
        self._patterns: dict[Pattern, None] = {}
        self._is_all = False
        self.is_used = False
        """Whether anything is reserved; an attribute, since every SET reads it."""

    def __contains__(self, address: str) -> bool:
        return address in self.writes or self.is_read(address)

    def is_read(self, address: str) -> bool:
        """Tells whether the bundle that is being decided depends on an address."""
        if address in self._reads or self._is_all:
            return True
        return any(pattern.matches(address) for pattern in self._patterns)

    def any_is_read(self, addresses: Iterable[str]) -> bool:
        """Tells whether the bundle that is being decided depends on any of some addresses."""
        return bool(self._reads or self._patterns) and any(map(self.is_read, addresses))

    def read(self, where: str | Pattern) -> None:
        """Notes that a decision depends on an address, or on all addresses that a pattern matches."""
        self.is_used = True
        if isinstance(where, str):
            self._reads.add(where)
        else:
            self._patterns[where] = None
            self._is_all = len(self._patterns) > MAX_PATTERNS

    def begin_writes(self, params: Iterable[Param]) -> None:
        """Reserves the addresses that an accepted bundle will write."""
        for param in params:
            self.writes.add(param.address)
            self.more_bytes += param_bytes(param)
        self.more_params = len(self.writes)
        self._note_use()

    def end_writes(self) -> None:
        """Frees the addresses of the accepted bundle; called when it is carried out."""
        self.writes.clear()
        self.more_params = self.more_bytes = 0
        self._note_use()

    def end_reads(self) -> None:
        """Frees what the decisions depend on; called when the bundle is decided."""
        self._reads.clear()
        self._patterns.clear()
        self._is_all = False
        self._note_use()

    def _note_use(self) -> None:
        self.is_used = bool(self.writes or self._reads or self._patterns)
