"""The registry of announced signals, for QUERY (``docs/protocol.md``, Signals)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from clasp_relay.core.records import text_bytes
from clasp_relay.core.state.tree import AddressTree, search_cost
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern, intersects
from clasp_relay.wire.messages import SignalDefinition

SIGNAL_TTL_US = 3_600_000_000
"""A definition is forgotten an hour after it was last announced; a device announces when it connects."""

MAX_SIGNALS = 100_000
"""Definitions in all: without a limit, one client could fill the memory."""

MAX_SIGNAL_BYTES = 25 * 1024 * 1024
"""Bytes of all definitions together: a hundred thousand of the longest would take gigabytes; as many small ones
fit."""

SIGNAL_BYTES = 200
"""Memory of a definition in bytes, without its texts and its default."""

SHARE = 4
"""One subject may have a quarter of the bytes, and of the definitions with wildcards."""

ADDRESS_SHARE = 2
"""One client address may have half of them, whatever the number of its subjects."""

MAX_WILDCARDS = 1_000
"""Definitions with wildcards: a QUERY compares its pattern with each of them."""

SWEPT_AT_ONCE = 1_000
"""Definitions that are forgotten in one turn: all may have been announced at the same time."""

LOOKED_AT_ONCE = 512
"""Definitions that are compared with a pattern in one turn; long addresses and patterns count for more."""


_USER = "user"

_Owner: TypeAlias = "tuple[str, str]"
"""Whose share it is: a kind of owner, for refusals, and which one."""


class _Entry(NamedTuple):
    """A definition, when it was announced (Unix µs), the subject that announced it, and whose shares it counts for."""

    definition: SignalDefinition
    announced_us: int
    subject: str
    owners: tuple[_Owner, ...]


class _Share(NamedTuple):
    """What an owner has: bytes, and definitions with wildcards."""

    bytes: int
    wildcards: int


_NO_SHARE = _Share(0, 0)


class Signals:
    """The registry of announced signals. A definition whose address has wildcards defines all matching addresses.

    Args:
        exempt_subject: the subject whose definitions are not counted (the operator's own token).
        ttl_us: µs after which a definition that was not announced again is forgotten; 0 for never.
    """

    def __init__(self, exempt_subject: str = "", ttl_us: int = SIGNAL_TTL_US) -> None:
        self._ttl_us = ttl_us
        self._exempt_subject = exempt_subject
        self._definitions: dict[str, _Entry] = {}
        self._shares: dict[_Owner, _Share] = {}
        self._oldest: OrderedDict[str, None] = OrderedDict()
        """The same addresses in order of their times; a separate table, since copying an OrderedDict takes ten times as
        long."""
        self._tree = AddressTree()
        self._wildcards: dict[str, Pattern] = {}
        self.bytes = 0
        """The bytes of all definitions."""

    def __len__(self) -> int:
        return len(self._definitions)

    def all(self) -> list[tuple[SignalDefinition, int, str]]:
        """Returns all definitions with their times (Unix µs) and subjects, the oldest first."""
        entries = (self._definitions[address] for address in self._oldest)
        return [(entry.definition, entry.announced_us, entry.subject) for entry in entries]

    def announce(
        self, definitions: tuple[SignalDefinition, ...], now_us: int, subject: str = "", origin: str = ""
    ) -> None:
        """Registers definitions, all or none; see ``check`` and ``register``."""
        self.check(definitions, now_us, subject, origin)
        self.register(definitions, now_us, subject, origin)

    def check(
        self, definitions: tuple[SignalDefinition, ...], now_us: int, subject: str = "", origin: str = ""
    ) -> None:
        """Refuses definitions over the limits.

        Args:
            definitions: the definitions, with valid addresses or patterns.
            now_us: Unix µs.
            subject: the announcing subject, which the definitions count for; empty in open mode.
            origin: the origin of its client address, which they count for, too; empty if addresses are not counted.

        Raises:
            RequestError: OVERLOADED if there are too many; LIMIT if the subject, or its client address, has too many.
        """
        self.sweep(now_us)
        latest = {definition.address: definition for definition in definitions}
        known = [self._definitions[address] for address in latest if address in self._definitions]
        size_bytes = sum(map(_size, latest.values()))
        more_bytes = size_bytes - sum(_size(entry.definition) for entry in known)
        if (
            len(self._definitions) + len(latest) - len(known) > MAX_SIGNALS
            or self.bytes + more_bytes > MAX_SIGNAL_BYTES
        ):
            text = f"the relay knows as many signals as it can ({MAX_SIGNALS}, or {MAX_SIGNAL_BYTES} bytes)"
            raise RequestError(ErrorCode.OVERLOADED, text, definitions[0].address)
        wildcards = {address for address in latest if "*" in address}
        if len(self._wildcards.keys() | wildcards) > MAX_WILDCARDS:
            text = f"the relay knows as many signals with wildcards as it can ({MAX_WILDCARDS})"
            raise RequestError(ErrorCode.OVERLOADED, text, next(iter(wildcards)))
        for owner in self._owners(subject, origin):
            own = [entry for entry in known if owner in entry.owners]
            self._check_share(owner, size_bytes, len(wildcards), own)

    def register(
        self, definitions: Iterable[SignalDefinition], now_us: int, subject: str = "", origin: str = ""
    ) -> None:
        """Registers definitions that ``check`` accepted; each replaces the one at the same address."""
        owners = self._owners(subject, origin)
        for definition in definitions:
            address = definition.address
            before = self._definitions.get(address)
            if before is not None:
                self._count(before, -1)
            elif "*" in address:
                self._wildcards[address] = Pattern.parse(address)
            else:
                self._tree.add(address)
            entry = self._definitions[address] = _Entry(definition, now_us, subject, owners)
            self._count(entry, 1)
            self._oldest[address] = None
            self._oldest.move_to_end(address)

    def _owners(self, subject: str, origin: str) -> tuple[_Owner, ...]:
        if subject == self._exempt_subject:
            return ()
        return tuple(owner for owner in ((_USER, subject), ("client address", origin)) if owner[1])

    def _check_share(self, owner: _Owner, size_bytes: int, wildcards: int, replaced: list[_Entry]) -> None:
        """Refuses definitions over the share of one owner.

        Args:
            owner: whose share it is.
            size_bytes: the bytes of the announced definitions.
            wildcards: the number of those with wildcards.
            replaced: the owner's definitions that are replaced.
        """
        share = self._shares.get(owner, _NO_SHARE)
        size_bytes += share.bytes - sum(_size(entry.definition) for entry in replaced)
        wildcards += share.wildcards - sum("*" in entry.definition.address for entry in replaced)
        part = SHARE if owner[0] == _USER else ADDRESS_SHARE
        for is_over, what in (
            (size_bytes > MAX_SIGNAL_BYTES // part, f"{MAX_SIGNAL_BYTES // part} bytes of signals"),
            (wildcards > MAX_WILDCARDS // part, f"{MAX_WILDCARDS // part} signals with wildcards"),
        ):
            if is_over:
                which = f"one {owner[0]} may have announced {what}"
                text = f"too much is kept for you: {which}; they are forgotten after an hour"
                raise RequestError(ErrorCode.LIMIT, text)

    def _count(self, entry: _Entry, by: int) -> None:
        """Adds a definition to the counts (1), or subtracts it (-1)."""
        definition, _, _, owners = entry
        size_bytes = by * _size(definition)
        self.bytes += size_bytes
        for owner in owners:
            share = self._shares.get(owner, _NO_SHARE)
            left = _Share(share.bytes + size_bytes, share.wildcards + by * ("*" in definition.address))
            if left.bytes:
                self._shares[owner] = left
            else:
                del self._shares[owner]

    def match(self, pattern: Pattern, now_us: int) -> Iterator[SignalDefinition | None]:
        """Yields the definitions that match a pattern, and None where it should pause.

        It may be continued in a later turn: then newer definitions may be missing, and removed ones are left out.
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
        """Returns the definition at an address; it may have expired without being forgotten yet."""
        entry = self._definitions.get(address)
        return None if entry is None or self._is_over(entry.announced_us, now_us) else entry.definition

    def _is_over(self, announced_us: int, now_us: int) -> bool:
        return self._ttl_us != 0 and announced_us + self._ttl_us <= now_us

    def _search(self, pattern: Pattern) -> Iterator[str | None]:
        """Compares all addresses with a pattern whose search would take too long for one turn; pauses as ``match``."""
        cost, each = 0, search_cost(pattern)
        for address in list(self._definitions):
            cost += each * (1 + address.count("/") // 4)
            if cost >= LOOKED_AT_ONCE:
                cost = 0
                yield None
            if "*" not in address and pattern.matches(address):
                yield address

    def sweep(self, now_us: int) -> None:
        """Forgets expired definitions, a bounded number in one turn."""
        for _ in range(min(len(self._definitions), SWEPT_AT_ONCE)):
            address = next(iter(self._oldest))
            entry = self._definitions[address]
            if not self._is_over(entry.announced_us, now_us):
                return
            del self._definitions[address], self._oldest[address]
            if self._wildcards.pop(address, None) is None:
                self._tree.discard(address)
            self._count(entry, -1)


def _size(definition: SignalDefinition) -> int:
    texts = (definition.address, definition.datatype, definition.access, definition.unit, definition.description)
    return SIGNAL_BYTES + sum(text_bytes(text) for text in texts if text is not None) + len(definition.default or b"")
