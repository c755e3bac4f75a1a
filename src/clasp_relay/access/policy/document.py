"""A policy document: its parts as frozen data (``docs/policy.md``); ``parsing`` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from clasp_relay.access.policy.checks import Check
from clasp_relay.access.policy.checks.base import Scalar
from clasp_relay.access.policy.history_rules import HistoryEntry
from clasp_relay.access.policy.language.captures import Path, Template
from clasp_relay.access.policy.language.maps import find_field, text_of
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Value

LIVE = "live"
SNAPSHOT = "snapshot"
WAYS_OUT = (SNAPSHOT, LIVE)
"""Values of ``applies_to``: ``snapshot`` for answers to requests, ``live`` for SETs and PUBLISHes to subscribers."""

SUBJECT_MARK = "{session}"
"""The placeholder for the writer in a path of ``clear_on_disconnect``."""

_TEXT_HEAD_BYTES = 3
"""Bytes before the characters of an encoded string: its type and its length."""


class GuestIds(Enum):
    """Who may use the id of a guest."""

    BEARER = "bearer"
    """Whoever presents one of its tokens."""

    OPEN = "open"
    """Anybody who names it, unless it belongs to a registered user."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A field that the relay sets at the first write and keeps.

    Args:
        field: the key, UTF-8.
        value: the template of its value.
        outlives_null: whether it is kept after a delete, so that only the stamped subject may write again.
        publish: whether it names the author of each single SET and PUBLISH; then nothing is kept for later writes.
    """

    field: bytes
    value: Template
    outlives_null: bool
    publish: bool = False


@dataclass(frozen=True, slots=True)
class StoredText:
    """The text in a field of a stored map, such as the name in a user's profile.

    Args:
        lookup: the address of the map.
        field: the key, UTF-8.
    """

    lookup: Template
    field: bytes

    def describe(self, words: tuple[str, ...]) -> str:
        """Returns a description for people: the field and the address."""
        return f"{self.field.decode()!r} of {self.lookup.expand(words)}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A stamp with ``when``: a field of each single SET and PUBLISH that the relay alone sets.

    Args:
        field: the key, UTF-8. Where no mark of this field holds, the sender's own field is removed.
        value: its value: text with captures, true or false; or a stored text.
        when: the checks that must hold.
        words: texts that a value must contain for ``when`` to hold; to search for them is quicker than the checks.
    """

    field: bytes
    value: Scalar | StoredText
    when: tuple[Check, ...]
    words: tuple[bytes, ...]

    def may_hold(self, value: Value) -> bool:
        """Tells whether it may set or remove its field in a value; cheap, and True when in doubt."""
        if self.field in value:
            return True
        for word in self.words:  # noqa: SIM110 - a generator takes longer than the search
            if word not in value:
                return False
        return True


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """The number of refused writes that one subject may make with the same captures within a time window."""

    most: int
    window_us: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The size limits of a value. They are cheap to check, and checked for each write.

    Args:
        most_bytes: the limit of the encoded value; None for that of a frame only.
        characters: fields, each with the most characters that a text there may have; any other value there may take as
            many bytes.
    """

    most_bytes: int | None
    characters: tuple[tuple[bytes, int], ...]

    def describe(self) -> str:
        """Describes the limits, for people."""
        parts = [] if self.most_bytes is None else [f"{self.most_bytes} bytes"]
        return ", ".join([*parts, *(f"{most} characters in {field.decode()!r}" for field, most in self.characters)])

    def problem(self, value: Value) -> str | None:
        """Returns a text for the writer that says what is too large; None if nothing is."""
        size = len(value)
        if self.most_bytes is not None and size > self.most_bytes:
            return f"the value may take {self.most_bytes} bytes at most, and has {size}"
        for field, most in self.characters:
            if size <= most:
                continue
            found = find_field(value, field)
            if found is None or len(found) - _TEXT_HEAD_BYTES <= most:
                continue
            text = text_of(found)
            count = len(found) if text is None else len(text)
            if count > most:
                return f"{field.decode()!r} in the value may have {most} characters at most, and has {count}"
        return None


@dataclass(frozen=True, slots=True)
class WriteRule:
    """Decides SETs and PUBLISHes whose address matches ``path`` and the path of no earlier rule."""

    number: int
    path: Path
    checks: tuple[Check, ...]
    is_any: bool
    pre_checks: tuple[Check, ...]
    allow_null_write: bool
    stamp: Stamp | None
    marks: tuple[Mark, ...]
    keep_hidden: bool
    failures: FailureLimit | None
    message: str | None
    within: Bounds | None
    lock: bool
    """Whether a writer may take the lock."""
    owner: Template | None
    """The subject that gets past a lock, besides the one that ``stamp`` names; None for nobody."""


@dataclass(frozen=True, slots=True)
class VisibilityEntry:
    """Decides who sees a value whose address matches ``path`` and the path of no earlier entry.

    Args:
        number: its index in the list.
        path: the addresses.
        shown: whether it is shown where there are no ``checks``.
        owner: the index of the capture that must be the reader; None when there is none.
        public_sub: the first segment below the owner's that everybody may see.
        checks: what must hold for the reader; empty when ``shown`` or ``owner`` decides.
        is_any: one of them is enough.
        literal: indices of the captures that must stand literally in the reader's pattern.
        unless: checks that waive ``literal`` when all of them pass; empty for none.
        catch_up: whether a reader to whom it becomes visible gets SNAPSHOTs for existing subscriptions.
        applies_to: whether it holds for snapshots, for live messages, or for both.
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
    """Removes keys from maps at ``path``, unless there are ``unless`` checks and all of them pass."""

    number: int
    path: Path
    fields: frozenset[str]
    unless: tuple[Check, ...]
    applies_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of sign-in and registration."""

    login_max_attempts: int = 5
    login_window_s: float = 900
    register_max_attempts: int = 10
    register_window_s: float = 900


@dataclass(frozen=True, slots=True)
class MessageRate:
    """The message limit of a session: a token bucket."""

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Anonymous:
    """What sessions without a token may do; ``message_rate`` None for the rate of all sessions."""

    scopes: tuple[str, ...]
    message_rate: MessageRate | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A whole policy."""

    source: str
    rate_limits: RateLimits
    scopes: tuple[str, ...] = ()
    message_rate: MessageRate | None = None
    ttl: tuple[tuple[Path, int], ...] = ()
    max_ttl: tuple[tuple[Path, int], ...] = ()
    guest_ttl_days: tuple[tuple[Path, int], ...] = ()
    """Paths that capture a guest's id, each with the days after which what that guest wrote there ends."""
    clear_on_disconnect: tuple[str, ...] = ()
    """Paths of params that end with their writer's last session; ``{session}`` stands for the subject."""
    calls: tuple[Pattern, ...] = ()
    """Patterns of places in calls: params that end with the session that wrote them, and let their writers use TURN."""
    hello_snapshot: bool = True
    guest_ids: GuestIds = GuestIds.BEARER
    anonymous: Anonymous | None = None
    """None: every session needs a token."""
    lock: bool = True
    """Whether a writer may take the lock where no write rule says otherwise."""
    write_rules: tuple[WriteRule, ...] = ()
    visibility: tuple[VisibilityEntry, ...] = ()
    transforms: tuple[Transform, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    notices: tuple[str, ...] = ()
    """Warnings for the operator's log."""


def will_pattern(text: str, subject: str) -> Pattern:
    """Returns the pattern of a path of ``clear_on_disconnect`` for one subject; with ``*`` for all subjects.

    Raises:
        RequestError: the result is no valid pattern.
    """
    return Pattern.parse(text.replace(SUBJECT_MARK, subject))
