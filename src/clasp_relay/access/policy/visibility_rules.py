"""Visibility rules: compiled once, and decided for a reader, an address and sometimes a pattern.

The entry and the transforms of an address are its :class:`VisibilityRule`. It knows at once whether the verdict is the
same for all readers (``fixed``); only otherwise it looks params up, and reports everything that it reads.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple

from clasp_relay.access.policy.checks import holds_all, holds_any
from clasp_relay.access.policy.document import LIVE, SNAPSHOT, Document, Transform, VisibilityEntry
from clasp_relay.access.policy.language.captures import Captured, PathTable
from clasp_relay.access.policy.language.question import Question
from clasp_relay.core.rights.port import FULL, HIDDEN, State, Verdict
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern

_REMEMBERED_PARENTS = 4096
"""Number of parent addresses for which the rule of their children is cached. A session that subscribes to 100,000
params needs the rule of each once: 0.3 s with the cache, 2.4 s without (``python -m bench --only newcomer``)."""

_REMEMBERED_LENGTH = 256
"""Addresses longer than this are not cached, to bound the memory of the cache."""

_NO_WORDS = ("\0", "\1")
"""Two segments that occur in no path."""

_SHOWN = Verdict(FULL)
_NOT_SHOWN = Verdict(HIDDEN)


class Redaction(NamedTuple):
    """A transform, and what its path captured of an address."""

    transform: Transform
    captured: Captured


class VisibilityRule:
    """Decides who sees some addresses: an entry and transforms, with what their paths captured.

    Args:
        entry: the visibility entry; None when none matches.
        captured: what its path captured.
        redactions: the transforms that match.
        spans: the first and last segment of each capture that must stand literally in the reader's pattern.
    """

    __slots__ = ("__weakref__", "captured", "entry", "fixed", "key", "redactions", "spans")

    def __init__(
        self,
        entry: VisibilityEntry | None,
        captured: Captured,
        redactions: tuple[Redaction, ...],
        spans: tuple[tuple[int, int], ...],
    ) -> None:
        self.entry = entry
        self.captured = captured
        self.redactions = redactions
        self.spans = spans
        self.fixed = self._fixed()
        self.key: Hashable = (
            None if entry is None else (entry.number, captured),
            tuple((redaction.transform.number, redaction.captured) for redaction in redactions),
            spans,
        )
        """Equal for rules that decide alike."""

    @property
    def is_shown_to_all(self) -> bool:
        """Whether every reader sees the value as it is, whatever is stored."""
        return self.fixed is not None and self.fixed.hidden_keys == FULL

    @property
    def depends_on_pattern(self) -> bool:
        """Whether the verdict depends on the reader's pattern, too."""
        return bool(self.spans)

    @property
    def catch_up(self) -> bool:
        """Whether a reader to whom it becomes visible gets SNAPSHOTs for existing subscriptions."""
        return self.entry is not None and self.entry.catch_up

    def judge(self, subject: str, address: str, pattern: Pattern | None, state: State, now_us: int) -> Verdict:
        """Decides for one reader.

        Args:
            subject: the reader.
            address: where the value is.
            pattern: a subscription's, or the literal address of a GET; None for the HELLO snapshot.
            state: the params; for a null those before it.
            now_us: Unix µs.
        """
        if self.fixed is not None:
            return self.fixed
        question = Question(subject, self.captured, address, None, state, now_us)
        try:
            hidden_keys = redacted(self.redactions, question) if self.is_shown(question, pattern) else HIDDEN
        except RequestError:
            # See ``Question.match``: it would take too long to find out.
            hidden_keys = HIDDEN
        return Verdict(hidden_keys, question.reads)

    def is_shown(self, question: Question, pattern: Pattern | None) -> bool:
        """Tells whether a reader sees the value at all."""
        entry = self.entry
        if entry is None:
            return True
        if entry.owner is not None:
            shown = self._is_owner(entry, entry.owner, question)
        elif entry.checks:
            shown = (holds_any if entry.is_any else holds_all)(entry.checks, question)
        else:
            shown = entry.shown
        if not shown or not self.spans or self.stands_literally(pattern):
            return shown
        return bool(entry.unless) and holds_all(entry.unless, question)

    def stands_literally(self, pattern: Pattern | None) -> bool:
        """Tells whether the captures of ``literal`` stand in a pattern that matches the address."""
        if pattern is None:
            return False
        if pattern.is_literal:
            return True
        segments = pattern.segments
        for first, last in self.spans:
            if last >= len(segments) or "**" in segments[:last]:
                return False
            if any("*" in segment for segment in segments[first : last + 1]):
                return False
        return True

    def _is_owner(self, entry: VisibilityEntry, owner: int, question: Question) -> bool:
        if self.captured[owner] == question.subject:
            return True
        if entry.public_sub is None:
            return False
        address = question.address
        match = entry.path.bind(address)
        sub = "" if match is None else address[match.end(owner + 1) + 1 :]
        return f"{sub}/".startswith(f"{entry.public_sub}/")

    def _fixed(self) -> Verdict | None:
        entry = self.entry
        if entry is not None and not entry.shown:
            return _NOT_SHOWN
        if entry is not None and (entry.owner is not None or entry.checks or entry.literal):
            return None
        if any(redaction.transform.unless for redaction in self.redactions):
            return None
        fields = frozenset(field for redaction in self.redactions for field in redaction.transform.fields)
        return Verdict(fields) if fields else _SHOWN


def _literal_spans(entry: VisibilityEntry, address: str) -> tuple[tuple[int, int], ...]:
    """Returns the first and last segment of each capture that must stand literally."""
    match = entry.path.bind(address)
    if match is None:
        raise AssertionError("an entry was found for an address that it does not match")
    spans = []
    for place in entry.literal:
        start, end = match.span(place + 1)
        first = address.count("/", 0, start) - 1
        spans.append((first, first + address.count("/", start, end)))
    return tuple(spans)


def redacted(redactions: tuple[Redaction, ...], question: Question) -> frozenset[str]:
    """Returns the keys that are hidden from a reader."""
    if not redactions:
        return frozenset()
    hidden: set[str] = set()
    for transform, captured in redactions:
        if transform.fields <= hidden:
            continue
        question.about(captured)
        if not transform.unless or not holds_all(transform.unless, question):
            hidden |= transform.fields
    return frozenset(hidden)


class Visibility:
    """The visibility entries and transforms of a policy.

    Args:
        document: the policy.
    """

    def __init__(self, document: Document) -> None:
        listed: tuple[VisibilityEntry | Transform, ...] = (*document.visibility, *document.transforms)
        self.tells_live_apart = any(len(set(item.applies_to)) == 1 for item in listed)
        """Whether the rules for live messages differ from those for snapshots."""
        self._snapshot = _WayOut(document, SNAPSHOT)
        self._live = _WayOut(document, LIVE) if self.tells_live_apart else self._snapshot

    def rule(self, address: str, *, is_live: bool = False) -> VisibilityRule:
        """Returns the rule that decides who sees an address."""
        return (self._live if is_live else self._snapshot).rule(address)

    def redacted_for(self, address: str, question: Question) -> frozenset[str]:
        """Returns the keys that snapshots hide from a writer."""
        *captured, _ = question.words
        hidden = redacted(self.rule(address).redactions, question)
        question.about(tuple(captured))
        return hidden


class _WayOut:
    """The entries and transforms that hold for snapshots, or for what is sent live."""

    def __init__(self, document: Document, way: str) -> None:
        self._entries = [entry for entry in document.visibility if way in entry.applies_to]
        self._transforms = [transform for transform in document.transforms if way in transform.applies_to]
        self._entry_table = PathTable([entry.path for entry in self._entries])
        self._transform_table = PathTable([transform.path for transform in self._transforms])
        self._of_children = lru_cache(_REMEMBERED_PARENTS)(self._bind_children)
        paths = [entry.path for entry in self._entries] + [transform.path for transform in self._transforms]
        self._tells_children_apart = any(path.is_about_segment_parts for path in paths)
        self._words = frozenset(segment for path in paths for segment in path.text.split("/"))

    def rule(self, address: str) -> VisibilityRule:
        """Returns the rule that decides who sees an address."""
        if len(address) <= _REMEMBERED_LENGTH and not self._tells_children_apart:
            parent, _, name = address.rpartition("/")
            if name not in self._words:
                rule = self._of_children(parent)
                if rule is not None:
                    return rule
        return self._bind(address)

    def _bind_children(self, parent: str) -> VisibilityRule | None:
        """Returns the rule of every address directly below ``parent`` whose last segment is a segment of no path.

        Only wildcards and captures match such a segment. So if two of them have the same rule, all of them have it.

        Returns:
            None if the rules of two differ: the segment is captured.
        """
        one, other = (self._bind(f"{parent}/{name}") for name in _NO_WORDS)
        return one if one.key == other.key else None

    def _bind(self, address: str) -> VisibilityRule:
        """Finds the entry and the transforms of an address."""
        found = self._entry_table.find(address)
        redactions: tuple[Redaction, ...] = ()
        if self._transforms:
            redactions = tuple(
                Redaction(self._transforms[match.number], match.captured)
                for match in self._transform_table.find_all(address)
            )
        if found is None:
            return VisibilityRule(None, (), redactions, ())
        entry = self._entries[found.number]
        return VisibilityRule(
            entry, found.captured, redactions, _literal_spans(entry, address) if entry.literal else ()
        )
