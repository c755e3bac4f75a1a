"""The interface of history rules: which changes are kept, under which key, and which entries a change erases.

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
"""The largest ``max_count`` of a rule. It bounds how many entries are erased at once."""


class Limits(NamedTuple):
    """How much one rule keeps for each key; None for no limit."""

    max_count: int | None = None
    max_age_us: int | None = None


class Erasure(NamedTuple):
    """Which earlier entries of one key a change erases."""

    key: str
    word: bytes = b""
    """Bytes that the value of every erased entry contains: a quick test before ``applies``."""
    applies: Callable[[Change], bool] | None = None
    """Tells whether an entry is erased; a pure function, called in another thread. None for all entries of the key."""


Judgement: TypeAlias = "tuple[str | None, tuple[Erasure, ...]]"
"""What history does with a change: the key under which it is kept (None: not kept), and what it erases."""

UNKEPT: Judgement = (None, ())
"""For a change that is not kept and erases nothing."""


class Spot(NamedTuple):
    """What the rules say about one address. It does not depend on what is set there."""

    signals: int = 0
    """Mask of the signals that are kept (bit n = ``Signal`` n)."""
    key: str = ""
    rule: int = -1
    """The rule's index in the policy's list; -1 where no rule keeps anything."""
    is_conditional: bool = False
    """Whether the rule has ``unless``, so that it has to be evaluated for each change (``is_waived``)."""
    erases: bool = False
    """Whether a change there may erase something."""
    captured: tuple[str, ...] = ()
    """The captures of the rule's path in the address."""
    word: bytes = b""
    """Bytes that the value of every PUBLISH contains that erases something: a quick test. Empty where there is no
    such test."""


NOWHERE = Spot()
"""For an address where nothing is kept and nothing erases anything."""


class HistoryRules(Protocol):
    """The rules in force. All methods are fast and change nothing."""

    @property
    def limits(self) -> Sequence[Limits]:
        """The limits of each rule, in order; a key begins with the index of its rule and a colon."""

    @property
    def signals(self) -> int:
        """Mask of all signals that some rule keeps."""

    @property
    def fingerprint(self) -> str:
        """A text that changes with the rules when entries need other keys, or when fewer entries are to be kept."""

    def spot(self, address: str, /) -> Spot:
        """Returns what the rules say about an address."""

    def is_waived(self, change: Change, spot: Spot, state: State, now_us: int, reads: Reads, /) -> bool:
        """Tells whether a rule's ``unless`` holds, so that a change at a conditional spot is not kept.

        Args:
            change: the change.
            spot: what the rules say about its address.
            state: the params.
            now_us: Unix µs.
            reads: gets notes of what is read for the answer, beyond rule, captures and subject.
        """

    def erasures(self, change: Change, spot: Spot, state: State, now_us: int, /) -> tuple[Erasure, ...]:
        """Returns what a change erases when it is applied; called only where ``Spot.erases`` is true."""

    def key_of(self, pattern: Pattern, /) -> str | None:
        """Returns the key of all entries that a pattern matches; None where they may have several keys."""

    def key_shapes(self, pattern: Pattern, /) -> Sequence[str]:
        """Returns texts with ``*`` for any characters; each key for which ``key_may_match`` holds fits one of them."""

    def key_may_match(self, key: str, pattern: Pattern, /) -> bool:
        """Tells whether a pattern may match an entry under a key; cheaper than matching the entry's address."""

    def may_match(self, pattern: Pattern, /) -> bool:
        """Tells whether anything that a pattern matches may be kept."""

    def keeps_all(self, pattern: Pattern, signal: Signal, /) -> bool:
        """Tells whether all of a signal is certainly kept at all addresses of a pattern, apart from ``/clasp/**``."""


def rule_of(key: str) -> int:
    """Returns the index of the rule that a key names."""
    return int(key.partition(":")[0])


def is_too_old(limits: Sequence[Limits], key: str, time_us: int, now_us: int) -> bool:
    """Tells whether an entry is older than its rule allows, even if it has not been deleted yet.

    Args:
        limits: the limits of all rules.
        key: the entry's key.
        time_us: the entry's time, Unix µs.
        now_us: Unix µs.
    """
    age_us = limits[rule_of(key)].max_age_us
    return age_us is not None and time_us < now_us - age_us
