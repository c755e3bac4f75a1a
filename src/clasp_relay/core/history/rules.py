"""What the core asks about history: which changes are kept, under which key, and what is erased with a change.

``access.policy.history_rules`` implements :class:`HistoryRules` with a policy's rules. A *key* names a rule and what
its ``per`` captures of an address; the limits of the rule count for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from clasp_relay.core.records import Change
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import State
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal

MAX_COUNT = 100_000
"""The largest ``max_count``: what is erased at once is bounded by it."""


class Limits(NamedTuple):
    """How much one rule keeps for each key; None for no limit."""

    max_count: int | None = None
    max_age_us: int | None = None


class Erasure(NamedTuple):
    """What a change erases of the history before it, under one key."""

    key: str
    word: bytes = b""
    """What is in the value of all that it erases; a quick test."""
    applies: Callable[[Change], bool] | None = None
    """Tells whether it erases an entry; a pure function, asked in another thread. None for all entries."""


Judgement: TypeAlias = "tuple[str | None, tuple[Erasure, ...]]"
"""What history does with a change: under which key it is kept, None where it is not, and what it erases."""

UNKEPT: Judgement = (None, ())
"""It is not kept and erases nothing."""


class Spot(NamedTuple):
    """What the rules say about one address, whatever is set there."""

    signals: int = 0
    """Mask of the signals that are kept (bit n = ``Signal`` n)."""
    key: str = ""
    rule: int = -1
    """The rule's place in the list; -1 where none keeps anything."""
    is_conditional: bool = False
    """Whether the rule has ``unless``, so that each change is asked about."""
    erases: bool = False
    """Whether a change there may erase something."""
    captured: tuple[str, ...] = ()
    """What the rule's path captures of the address."""
    word: bytes = b""
    """What is in the value of every signal there that erases something; a quick test. Empty where there is no such
    test."""


NOWHERE = Spot()
"""Nothing is kept there, and nothing there erases anything."""


class HistoryRules(Protocol):
    """The rules in force. All methods are fast and change nothing."""

    @property
    def limits(self) -> Sequence[Limits]:
        """The limits of each rule, in order; a key begins with the place of its rule and a colon."""

    @property
    def signals(self) -> int:
        """Mask of all signals that some rule keeps."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when entries have to be kept under other keys, or fewer of them."""

    def spot(self, address: str, /) -> Spot:
        """Returns what the rules say about an address."""

    def is_waived(self, change: Change, spot: Spot, state: State, now_us: int, reads: Reads, /) -> bool:
        """Tells whether a rule's ``unless`` holds, so that a change at a conditional spot is not kept all the same.

        Args:
            change: the change.
            spot: what the rules say about its address.
            state: the params.
            now_us: Unix µs.
            reads: where it is noted what the answer was found from, beyond rule, captures and subject.
        """

    def erasures(self, change: Change, spot: Spot, state: State, now_us: int, /) -> tuple[Erasure, ...]:
        """Returns what a change at a spot erases, once it is applied; asked where ``Spot.erases`` says so."""

    def key_of(self, pattern: Pattern, /) -> str | None:
        """Returns the one key that all entries have which a pattern matches; None where there may be several."""

    def key_shapes(self, pattern: Pattern, /) -> Sequence[str]:
        """Returns texts in which ``*`` stands for any characters: each key that ``key_may_match`` fits one of them."""

    def key_may_match(self, key: str, pattern: Pattern, /) -> bool:
        """Tells whether a pattern may match an entry under a key; cheaper than to look at the entry."""

    def may_match(self, pattern: Pattern, /) -> bool:
        """Tells whether anything that a pattern matches may be kept."""

    def keeps_all(self, pattern: Pattern, signal: Signal, /) -> bool:
        """Tells whether surely all of a signal is kept, at whatever address of a pattern; not below ``/clasp``."""


def rule_of(key: str) -> int:
    """Returns the place of the rule that a key names."""
    return int(key.partition(":")[0])


def is_too_old(limits: Sequence[Limits], key: str, time_us: int, now_us: int) -> bool:
    """Tells whether an entry is older than its rule allows, whether it was deleted or not.

    Args:
        limits: those of all rules.
        key: the entry's.
        time_us: the entry's, Unix µs.
        now_us: Unix µs.
    """
    age_us = limits[rule_of(key)].max_age_us
    return age_us is not None and time_us < now_us - age_us
