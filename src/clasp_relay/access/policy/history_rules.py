"""History rules: what is kept of the past, for how long, and what erases it (``docs/policy.md``, History).

Parsed strictly and once; :class:`HistoryRules` implements ``core.history.rules.HistoryRules``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from clasp_relay.access.policy.checks import Check, holds_all, parse_check, parse_checks
from clasp_relay.access.policy.language.captures import SESSION, Captured, Path, PathTable, Template
from clasp_relay.access.policy.language.json_keys import Keys
from clasp_relay.access.policy.language.maps import encode_text, find_field, text_of
from clasp_relay.access.policy.language.question import Question
from clasp_relay.core.history.rules import MAX_COUNT, NOWHERE, Erasure, Limits, Spot, rule_of
from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import State
from clasp_relay.wire.address import Pattern, intersects
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish, Value

SIGNALS = {signal.name.lower(): signal for signal in Signal}
"""The words of ``signals``."""

OWN_ADDRESSES = "/clasp/"
"""The start of the protocol's own addresses, of which nothing is ever kept."""

TYPE = b"type"
"""The field that tells deletes from other messages."""

ROLE = b"role"
"""The field of a delete in which a write rule stamps that its author may delete what others wrote."""

ROLES = (encode_text(b"creator"), encode_text(b"admin"))

MAX_AGE_S = 100 * 366 * 86_400
"""A hundred years."""

_JOINT = "//"
"""The separator of the captures in a key; no segment is empty, so no capture contains it."""


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Describes the messages that delete others.

    Args:
        type: their value of the field ``type``.
        by: their field with the id of the deleted message.
        of: the field in which the deleted message has that id.
    """

    type: Value
    by: bytes
    of: bytes


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Keeps changes at addresses that match ``path`` and the path of no earlier entry.

    Args:
        number: its index in the list.
        path: the addresses.
        signals: mask of the signals that are kept.
        limits: how much is kept for each key.
        per: the captures that make a key; None for each address on its own.
        unless: checks; where all of them pass a change is not kept. Empty for none.
        erased_by: the address at which a null erases all entries of the key; None for none.
        erases: the messages that delete single entries; None for none.
    """

    number: int
    path: Path
    signals: int
    limits: Limits
    per: tuple[str, ...] | None
    unless: tuple[Check, ...]
    erased_by: Template | None
    erases: DeleteMessage | None

    def describe(self) -> str:
        """Describes what it keeps, for people."""
        words = [name for name, signal in SIGNALS.items() if self.signals >> signal & 1]
        count, age_us = self.limits
        per = "each address" if self.per is None else ", ".join(f"{{{name}}}" for name in self.per) or "all together"
        parts = [", ".join(words) if words else "nothing"]
        if words and count is not None:
            parts.append(f"{count} per {per}")
        if words and age_us is not None:
            parts.append(f"{age_us / 86_400_000_000:g} days")
        return "; ".join(parts)


def parse_history(keys: Keys, number: int) -> HistoryEntry:
    """Parses one of ``history``.

    Raises:
        StartError: a key is unknown, missing or wrong.
    """
    try:
        path = Path.parse(keys.text("path"))
    except ValueError as error:
        keys.fail("path", str(error))
    names = path.names
    per = _per(keys, names)
    entry = HistoryEntry(
        number=number,
        path=path,
        signals=_signals(keys),
        limits=_limits(keys),
        per=per,
        unless=parse_checks(keys, "unless", names, parse_check) if keys.taken_if_given("unless") else (),
        erased_by=_erased_by(keys, path, per) if keys.taken_if_given("erased_by") else None,
        erases=_erases(keys.below("erases")) if keys.taken_if_given("erases") else None,
    )
    for check in entry.unless:
        for lookup in check.lookups:
            _check_lookup(keys, "unless", lookup.template, path, per)
    keys.done()
    for key in ("unless", "erased_by", "erases"):
        if keys.has(key) and entry.limits.max_count is None:
            keys.fail(key, "needs max_count, since what is erased at once has to be bounded")
    return entry


def _signals(keys: Keys) -> int:
    mask = 0
    for n, word in enumerate(keys.texts("signals", ["event"])):
        if word not in SIGNALS:
            keys.fail(f"signals[{n}]", f"must be one of {', '.join(SIGNALS)}")
        mask |= 1 << SIGNALS[word]
    return mask


def _limits(keys: Keys) -> Limits:
    count = keys.whole("max_count", most=MAX_COUNT) if keys.taken_if_given("max_count") else None
    age_s = keys.whole("max_age_secs", most=MAX_AGE_S) if keys.taken_if_given("max_age_secs") else None
    return Limits(count, None if age_s is None else age_s * 1_000_000)


def _per(keys: Keys, names: tuple[str, ...]) -> tuple[str, ...] | None:
    if not keys.taken_if_given("per"):
        return None
    per = keys.texts("per")
    for n, name in enumerate(per):
        if name not in names:
            known = ", ".join(names) or "nothing"
            keys.fail(f"per[{n}]", f"{name!r} is not captured by the path (it captures {known})")
        if name in per[:n]:
            keys.fail(f"per[{n}]", f"{name!r} is there twice")
    return tuple(per)


def _erased_by(keys: Keys, path: Path, per: tuple[str, ...] | None) -> Template:
    try:
        template = Template.parse(keys.text("erased_by"), path.names)
        template.check_address(wildcards=False)
    except ValueError as error:
        keys.fail("erased_by", str(error))
    _check_lookup(keys, "erased_by", template, path, per)
    return template


def _check_lookup(keys: Keys, key: str, template: Template, path: Path, per: tuple[str, ...] | None) -> None:
    """Checks that a looked-up address names exactly the captures of a key, so that a change there is about one key."""
    known = (*path.names, SESSION)
    named = {known[place] for place in template.places}
    if SESSION in named:
        keys.fail(key, f"{template.text}: history is the same for everybody, so {{session}} cannot be looked up")
    if per is None and not _is_one_address(path):
        keys.fail(key, "needs per: without it each address counts on its own, and the path has wildcards")
    wanted = set(path.names if per is None else per)
    if named != wanted:
        said = ", ".join(f"{{{name}}}" for name in sorted(wanted)) or "no capture"
        keys.fail(key, f"{template.text}: must name {said}, as per does, and nothing else")


def _is_one_address(path: Path) -> bool:
    return "*" not in re.sub(r"\{\w+(\*\*)?\}", "", path.text)


def _erases(keys: Keys) -> DeleteMessage:
    found = DeleteMessage(encode_text(keys.text("type").encode()), keys.text("by").encode(), keys.text("of").encode())
    keys.done()
    return found


OPEN_HISTORY: tuple[dict[str, object], ...] = ({"path": "/**", "signals": ["param", "event", "stream"]},)
"""What history keeps without a policy if a journal was asked for, as in the Rust relay."""


def open_entries() -> tuple[HistoryEntry, ...]:
    """Returns the rules of ``OPEN_HISTORY``."""
    return tuple(parse_history(Keys(rule, f"history[{n}]", "--journal"), n) for n, rule in enumerate(OPEN_HISTORY))


def with_max_age(entries: Sequence[HistoryEntry], max_age_us: int) -> tuple[HistoryEntry, ...]:
    """Returns rules that keep everything for the same time."""
    return tuple(replace(entry, limits=entry.limits._replace(max_age_us=max_age_us)) for entry in entries)


class HistoryRules:
    """The history rules of a policy.

    Args:
        entries: the rules.
        is_stamped: tells whether the relay alone sets a field (UTF-8) in what is published at an address.
    """

    def __init__(
        self, entries: Sequence[HistoryEntry], is_stamped: Callable[[str, bytes], bool] = lambda _address, _field: False
    ) -> None:
        self.entries = tuple(entries)
        self._is_stamped = is_stamped
        self.limits = tuple(entry.limits for entry in entries)
        """See ``core.history.rules``."""
        self.signals = 0
        """Likewise."""
        for entry in entries:
            self.signals |= entry.signals
        self._table = PathTable([entry.path for entry in entries])
        looks = [(entry, entry.erased_by, True) for entry in entries if entry.erased_by is not None]
        looks += [
            (entry, lookup.template, False) for entry in entries for check in entry.unless for lookup in check.lookups
        ]
        self._looks = [(entry, template.reversed(entry.path), is_null) for entry, template, is_null in looks]
        """Rules, each with the path of an address that it looks up: True for ``erased_by``, False for ``unless``."""
        self._looks_table = PathTable([path for _, path, _ in self._looks])

    @property
    def fingerprint(self) -> str:
        """See ``core.history.rules``."""
        return json.dumps([(each.path.text, each.signals, each.per, each.limits.max_count) for each in self.entries])

    def find(self, address: str) -> tuple[HistoryEntry, Captured] | None:
        """Returns the rule of an address and what its path captures."""
        found = None if address.startswith(OWN_ADDRESSES) else self._table.find(address)
        return None if found is None else (self.entries[found.number], found.captured)

    def spot(self, address: str) -> Spot:
        """See ``core.history.rules``."""
        found = self.find(address)
        is_looked_at = self._looks_table.find(address) is not None
        if found is None or not found[0].signals:
            return Spot(erases=True) if is_looked_at else NOWHERE
        entry, captured = found
        key = _key(entry, address, dict(zip(entry.path.names, captured, strict=True)))
        erases = is_looked_at or entry.erases is not None
        word = b"" if entry.erases is None else entry.erases.type
        return Spot(entry.signals, key, entry.number, bool(entry.unless), erases, tuple(captured), word)

    def is_waived(self, change: Change, spot: Spot, state: State, now_us: int, reads: Reads) -> bool:
        """See ``core.history.rules``."""
        question = Question(change.param.subject, spot.captured, change.param.address, _value_of(change), state, now_us)
        question.reads = reads
        return holds_all(self.entries[spot.rule].unless, question)

    def erasures(self, change: Change, spot: Spot, state: State, now_us: int) -> tuple[Erasure, ...]:
        """See ``core.history.rules``."""
        if change.kind is ChangeKind.EVENT:
            return self._deleted(change, spot)
        if change.kind is not ChangeKind.WRITE:
            return ()
        address, is_null = change.param.address, change.param.value == NULL
        found: dict[str, Erasure] = {}
        for number, words in self._looks_table.find_all(address):
            entry, path, by_null = self._looks[number]
            captured = dict(zip(path.names, words, strict=True))
            # A null that the relay makes itself, at an expiry, erases nothing.
            if (by_null and is_null and change.param.writer) or (
                not by_null and self._waives_all(entry, captured, state, now_us)
            ):
                key = _key(entry, _filled(entry.path, captured), captured)
                found[key] = Erasure(key)
        return tuple(found.values())

    def _waives_all(self, entry: HistoryEntry, captured: Mapping[str, str], state: State, now_us: int) -> bool:
        """Tells whether ``unless`` holds now for all writes of a key, whatever their subject and value."""
        words = tuple(captured.get(name, "") for name in entry.path.names)
        question = Question("", words, _filled(entry.path, captured), NULL, state, now_us)
        holds = holds_all(entry.unless, question)
        return holds and not question.reads.reads_value

    def _deleted(self, change: Change, spot: Spot) -> tuple[Erasure, ...]:
        """Returns the erasure of a message that deletes others; nothing for any other message."""
        message, erases = change.message, None if spot.rule < 0 else self.entries[spot.rule].erases
        if erases is None or not isinstance(message, Publish) or message.value is None:
            return ()
        value = message.value
        # The first test is quick, and rules out nearly every message.
        if erases.type not in value or find_field(value, TYPE) != erases.type:
            return ()
        target = find_field(value, erases.by)
        if not text_of(target):
            return ()
        assert target is not None, "a text that is none"
        may_delete_all = find_field(value, ROLE) in ROLES and self._is_stamped(change.param.address, ROLE)
        subject = None if may_delete_all else change.param.subject
        return (Erasure(spot.key, target, partial(_is_deleted, erases, target, subject)),)

    def key_of(self, pattern: Pattern) -> str | None:
        """See ``core.history.rules``."""
        if not pattern.is_literal:
            return None
        found = self.find(pattern.text)
        if found is None:
            return None
        entry, captured = found
        return _key(entry, pattern.text, dict(zip(entry.path.names, captured, strict=True)))

    def key_shapes(self, pattern: Pattern) -> Sequence[str]:
        """See ``core.history.rules``."""
        return [
            f"{entry.number}:{_shape(entry, pattern)}"
            for entry in self.entries
            if entry.signals and entry.path.pattern is not None and intersects(entry.path.pattern, pattern)
        ]

    def key_may_match(self, key: str, pattern: Pattern) -> bool:
        """See ``core.history.rules``."""
        about = key.partition(":")[2]
        entry = self.entries[rule_of(key)]
        if entry.per is None:
            return pattern.matches(about)
        # The captures of a key come from an address, so with wildcards for all others they make a valid pattern.
        captured = dict(zip(entry.per, about.split(_JOINT), strict=False))
        return intersects(Pattern.parse(_filled(entry.path, captured)), pattern)

    def may_match(self, pattern: Pattern) -> bool:
        """See ``core.history.rules``."""
        if pattern.is_literal:
            found = self.find(pattern.text)
            return found is not None and bool(found[0].signals)
        return any(
            entry.signals and entry.path.pattern is not None and intersects(entry.path.pattern, pattern)
            for entry in self.entries
        )

    def keeps_all(self, pattern: Pattern, signal: Signal) -> bool:
        """See ``core.history.rules``."""
        for entry in self.entries:
            own = entry.path.pattern
            if own is None or intersects(own, pattern):
                if not entry.signals >> signal & 1 or entry.unless:
                    return False
                if own is not None and own.covers(pattern):
                    return True
        return False


def _is_deleted(erases: DeleteMessage, target: Value, subject: str | None, change: Change) -> bool:
    """Tells whether a delete erases an entry: its target, or an edit of that. Deletes stay."""
    if subject is not None and change.param.subject != subject:
        return False
    value = _value_of(change)
    if find_field(value, TYPE) == erases.type:
        return False
    return target in (find_field(value, erases.of), find_field(value, erases.by))


def _value_of(change: Change) -> Value:
    if isinstance(change.message, Publish):
        return NULL if change.message.value is None else change.message.value
    return change.param.value


def _key(entry: HistoryEntry, address: str, captured: Mapping[str, str]) -> str:
    about = address if entry.per is None else _JOINT.join(captured[name] for name in entry.per)
    return f"{entry.number}:{about}"


def _shape(entry: HistoryEntry, pattern: Pattern) -> str:
    """Returns a text with ``*`` for any characters that fits all keys of a rule that a pattern may match."""
    if entry.per is None:
        return pattern.text.replace("/**", "*")
    # Before the first «**» of path and pattern, a capture equals the segment of the pattern with the same index.
    known: dict[str, str] = {}
    for own, asked in zip(entry.path.text[1:].split("/"), pattern.segments, strict=False):
        if "**" in own or asked == "**":
            break
        if own.startswith("{") and "*" not in asked:
            known[own[1:-1]] = asked
    return _JOINT.join(known.get(name, "*") for name in entry.per)


def _filled(path: Path, captured: Mapping[str, str]) -> str:
    """Returns the path with its captures filled in; wildcards for those that are not known."""

    def fill(match: re.Match[str]) -> str:
        return captured.get(match[1], "*/**" if match[2] else "*")

    return re.sub(r"\{(\w+)(\*\*)?\}", fill, path.text)
