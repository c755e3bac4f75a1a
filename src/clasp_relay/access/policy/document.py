"""A policy document as frozen data. The keys, and what they mean, are in ``docs/policy.md``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from clasp_relay.access.limits import RateLimits
from clasp_relay.access.policy.captures import Path, Template
from clasp_relay.access.policy.checks import Check

LIVE = "live"
SNAPSHOT = "snapshot"
WAYS_OUT = (SNAPSHOT, LIVE)
"""What ``applies_to`` may name: what is sent because somebody asked, and what is sent because somebody wrote."""


class GuestIds(Enum):
    """Whose a guest's id is."""

    BEARER = "bearer"
    """Theirs who present one of its tokens."""

    OPEN = "open"
    """Anybody's who names it, unless it is a registered user's."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A field that the relay sets at the first write and keeps.

    Args:
        field: the key, UTF-8.
        value: what it says.
        outlives_null: whether it stays past a null, and the stamped one alone may write again.
    """

    field: bytes
    value: Template
    outlives_null: bool


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many refused writes one subject may make, for equal captures, within a time."""

    most: int
    window_us: int


@dataclass(frozen=True, slots=True)
class WriteRule:
    """What decides a SET or PUBLISH whose address matches ``path`` and no earlier rule's."""

    number: int
    path: Path
    checks: tuple[Check, ...]
    is_any: bool
    pre_checks: tuple[Check, ...]
    allow_null_write: bool
    stamp: Stamp | None
    keep_hidden: bool
    failures: FailureLimit | None
    message: str | None


@dataclass(frozen=True, slots=True)
class VisibilityEntry:
    """What decides who sees a value whose address matches ``path`` and no earlier entry's.

    Args:
        number: its place in the list.
        path: what it is about.
        shown: whether it is shown where there are no ``checks``.
        owner: the index of the capture that must be the reader; None when there is none.
        public_sub: what below the owner's segment everybody may see.
        checks: what must hold for the reader; empty when ``shown`` or ``owner`` decides.
        is_any: one of them is enough.
        literal: indices of the captures that must stand literally in the reader's pattern.
        unless: the checks that waive ``literal``, all of them; empty when nothing does.
        catch_up: whether who newly sees it gets SNAPSHOTs for subscriptions made before.
        applies_to: the ways out that it is about.
    """

    number: int
    path: Path
    shown: bool
    owner: int | None
    public_sub: str | None
    checks: tuple[Check, ...]
    is_any: bool
    literal: tuple[int, ...]
    unless: tuple[Check, ...]
    catch_up: bool
    applies_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transform:
    """Keys that are removed from maps at ``path``, unless all checks of ``unless`` (when there are any) hold."""

    number: int
    path: Path
    fields: frozenset[str]
    unless: tuple[Check, ...]
    applies_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MessageRate:
    """The message limit of a session: a token bucket."""

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Document:
    """A whole policy."""

    source: str
    rate_limits: RateLimits
    scopes: tuple[str, ...] = ()
    message_rate: MessageRate | None = None
    ttl: tuple[tuple[Path, int], ...] = ()
    hello_snapshot: bool = True
    guest_ids: GuestIds = GuestIds.BEARER
    write_rules: tuple[WriteRule, ...] = ()
    visibility: tuple[VisibilityEntry, ...] = ()
    transforms: tuple[Transform, ...] = ()
    notices: tuple[str, ...] = ()
    """What the operator should read in the log."""
