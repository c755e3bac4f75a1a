"""The signals that clients announced, for those who ask what there is (``docs/protocol.md``, Signals)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from clasp_relay.core.records import text_bytes
from clasp_relay.core.state.tree import AddressTree, search_cost
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern, intersects
from clasp_relay.wire.messages import SignalDefinition

SIGNAL_TTL_US = 3_600_000_000
"""A definition is forgotten an hour after it was last announced; a device announces when it connects."""

MAX_SIGNALS = 100_000
"""In all. Without a limit, one client could fill the memory."""

MAX_SIGNAL_BYTES = 32 * 1024 * 1024
"""The texts of all definitions together; a hundred thousand of the longest would be gigabytes."""

MAX_WILDCARDS = 1_000
"""How many definitions may have wildcards: a QUERY compares its pattern with each of them."""

SWEPT_AT_ONCE = 1_000
"""How many definitions are forgotten in one turn: all can have been announced at the same time."""

LOOKED_AT_ONCE = 512
"""How many definitions are compared with a pattern in one turn, long addresses and patterns counting for more."""


class Signals:
    """The registry of announced signals. The address of one may hold wildcards: it defines all that match.

    Args:
        ttl_us: µs after which a definition that was not announced again is forgotten; 0 for never.
    """

    def __init__(self, ttl_us: int = SIGNAL_TTL_US) -> None:
        self._ttl_us = ttl_us
        self._definitions: dict[str, tuple[SignalDefinition, int]] = {}
        self._oldest: OrderedDict[str, None] = OrderedDict()
        """The same addresses in order of their times; apart, since copying it takes ten times as long."""
        self._tree = AddressTree()
        self._wildcards: dict[str, Pattern] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._definitions)

    def announce(self, definitions: tuple[SignalDefinition, ...], now_us: int) -> None:
        """Registers definitions, all or none; a definition replaces the one at the same address.

        Args:
            definitions: with valid addresses or patterns.
            now_us: Unix µs.

        Raises:
            RequestError: OVERLOADED when there are too many.
        """
        self.sweep(now_us)
        latest = {definition.address: definition for definition in definitions}
        known = [self._definitions[address][0] for address in latest if address in self._definitions]
        more_bytes = sum(map(_size, latest.values())) - sum(map(_size, known))
        if (
            len(self._definitions) + len(latest) - len(known) > MAX_SIGNALS
            or self._bytes + more_bytes > MAX_SIGNAL_BYTES
        ):
            text = f"the relay knows as many signals as it can ({MAX_SIGNALS}, or {MAX_SIGNAL_BYTES} bytes)"
            raise RequestError(ErrorCode.OVERLOADED, text, definitions[0].address)
        wildcards = {address: Pattern.parse(address) for address in latest if "*" in address}
        if len(self._wildcards.keys() | wildcards.keys()) > MAX_WILDCARDS:
            text = f"the relay knows as many signals with wildcards as it can ({MAX_WILDCARDS})"
            raise RequestError(ErrorCode.OVERLOADED, text, next(iter(wildcards)))
        self._wildcards.update(wildcards)
        self._bytes += more_bytes
        for address, definition in latest.items():
            if address not in self._definitions and address not in wildcards:
                self._tree.add(address)
            self._definitions[address] = (definition, now_us)
            self._oldest[address] = None
            self._oldest.move_to_end(address)

    def match(self, pattern: Pattern, now_us: int) -> Iterator[SignalDefinition | None]:
        """Yields the definitions of which an address matches, and None where others should have their turn.

        It may be continued in a later turn: definitions that have come since may be left out, those that have gone are.
        """
        found = [pattern.text] if pattern.is_literal else self._tree.find(pattern)
        for address in self._search(pattern) if found is None else found:
            definition = None if address is None else self._current(address, now_us)
            if address is None or definition is not None:
                yield definition
        cost, segments = 0, 1 + pattern.text.count("/")
        for address, wildcard in list(self._wildcards.items()):
            cost += 1 + address.count("/") * segments // 16
            if cost >= LOOKED_AT_ONCE:
                cost = 0
                yield None
            definition = self._current(address, now_us)
            if definition is not None and intersects(wildcard, pattern):
                yield definition

    def _current(self, address: str, now_us: int) -> SignalDefinition | None:
        """Returns the definition at an address, whose time may be over though it is not forgotten yet."""
        entry = self._definitions.get(address)
        return None if entry is None or self._is_over(entry[1], now_us) else entry[0]

    def _is_over(self, announced_us: int, now_us: int) -> bool:
        return self._ttl_us != 0 and announced_us + self._ttl_us <= now_us

    def _search(self, pattern: Pattern) -> Iterator[str | None]:
        """Goes through all addresses, since finding what matches takes too long for one turn; see ``match``."""
        cost, each = 0, search_cost(pattern)
        for address in list(self._definitions):
            cost += each * (1 + address.count("/") // 4)
            if cost >= LOOKED_AT_ONCE:
                cost = 0
                yield None
            if "*" not in address and pattern.matches(address):
                yield address

    def sweep(self, now_us: int) -> None:
        """Forgets the definitions whose time is over, a bounded number in one turn."""
        for _ in range(min(len(self._definitions), SWEPT_AT_ONCE)):
            address = next(iter(self._oldest))
            definition, announced_us = self._definitions[address]
            if not self._is_over(announced_us, now_us):
                return
            del self._definitions[address], self._oldest[address]
            if self._wildcards.pop(address, None) is None:
                self._tree.discard(address)
            self._bytes -= _size(definition)


def _size(definition: SignalDefinition) -> int:
    texts = (definition.address, definition.datatype, definition.access, definition.unit, definition.description)
    return sum(text_bytes(text) for text in texts if text is not None) + len(definition.default or b"")
