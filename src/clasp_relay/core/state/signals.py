"""The signals that clients announced, for those who ask what there is (``docs/protocol.md``, Signals)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from clasp_relay.core.sizes import text_bytes
from clasp_relay.core.state.tree import AddressTree
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import SignalDefinition

SIGNAL_TTL_US = 3_600_000_000
"""A definition is forgotten an hour after it was last announced; a device announces when it connects."""

MAX_SIGNALS = 100_000
"""In all. Without a limit, one client could fill the memory."""

MAX_SIGNAL_BYTES = 32 * 1024 * 1024
"""The texts of all definitions together; a hundred thousand of the longest would be gigabytes."""


class Signals:
    """The registry of announced signals."""

    def __init__(self) -> None:
        self._definitions: OrderedDict[str, tuple[SignalDefinition, int]] = OrderedDict()
        self._tree = AddressTree()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._definitions)

    def announce(self, definitions: tuple[SignalDefinition, ...], now_us: int) -> None:
        """Registers definitions, all or none; a definition replaces the one at the same address.

        Args:
            definitions: with valid addresses.
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
        self._bytes += more_bytes
        for address, definition in latest.items():
            if address not in self._definitions:
                self._tree.add(address)
            self._definitions[address] = (definition, now_us)
            self._definitions.move_to_end(address)

    def match(self, pattern: Pattern, now_us: int) -> Iterator[SignalDefinition]:
        """Yields the definitions whose address matches."""
        self.sweep(now_us)
        if pattern.is_literal:
            entry = self._definitions.get(pattern.text)
            return iter(() if entry is None else (entry[0],))
        return (self._definitions[address][0] for address in self._tree.match(pattern))

    def sweep(self, now_us: int) -> None:
        """Forgets the definitions whose time is over."""
        while self._definitions:
            address, (definition, announced_us) = next(iter(self._definitions.items()))
            if announced_us + SIGNAL_TTL_US > now_us:
                return
            del self._definitions[address]
            self._tree.discard(address)
            self._bytes -= _size(definition)


def _size(definition: SignalDefinition) -> int:
    texts = (definition.address, definition.datatype, definition.access, definition.unit, definition.description)
    return sum(text_bytes(text) for text in texts if text is not None) + len(definition.default or b"")
