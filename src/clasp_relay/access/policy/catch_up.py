"""Lookups in reverse: for an address, which decisions look it up, and which keys of the map there they read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from clasp_relay.access.policy.checks import Check
from clasp_relay.access.policy.document import Document, StoredText, VisibilityEntry
from clasp_relay.access.policy.history_rules import ROLE, TYPE
from clasp_relay.access.policy.language.captures import Path, PathTable
from clasp_relay.core.rights.port import CatchUp
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern

REMEMBERED_ADDRESSES = 4096
"""Number of addresses for which the keys that are read there are cached."""

REMEMBERED_LENGTH = 256
"""Addresses longer than this are not cached, to bound the memory of the cache."""


class _Opened(NamedTuple):
    """A visibility entry that a change at a looked-up address may open."""

    entry: VisibilityEntry
    existence_only: bool


class CatchUps:
    """The ``catch_up`` entries of a policy.

    Args:
        entries: all visibility entries.
    """

    def __init__(self, entries: tuple[VisibilityEntry, ...]) -> None:
        paths: dict[str, Path] = {}
        opens: dict[str, dict[int, _Opened]] = {}
        for entry in entries:
            if entry.catch_up:
                for check in (*entry.checks, *entry.unless):
                    for lookup in check.lookups:
                        path = lookup.template.reversed(entry.path)
                        paths.setdefault(path.text, path)
                        opened = opens.setdefault(path.text, {})
                        before = opened.get(entry.number)
                        existence_only = lookup.by.looks_at_existence and (before is None or before.existence_only)
                        opened[entry.number] = _Opened(entry, existence_only)
        self._table = PathTable(list(paths.values()))
        self._opens = [(path, _widest(path, list(opens[text].values()))) for text, path in paths.items()]

    def after(self, address: str) -> tuple[CatchUp, ...]:
        """Returns what a change or deletion at an address may open; for most addresses nothing."""
        found: dict[CatchUp, None] = {}
        for index, captured in self._table.find_all(address):
            path, opened = self._opens[index]
            words = dict(zip(path.names, captured, strict=True))
            for entry, existence_only in opened:
                try:
                    pattern = Pattern.parse(_filled(entry.path, words))
                except RequestError:
                    continue  # longer than any address can be
                found[CatchUp(words.get("_session"), pattern, existence_only)] = None
        return tuple(found)


def _widest(lookup: Path, opened: list[_Opened]) -> list[_Opened]:
    """Removes entries that are covered by another one that opens at the same changes."""
    words = {name: f"{n}" for n, name in enumerate(lookup.names)}
    patterns = [Pattern.parse(_filled(entry.path, words)) for entry, _ in opened]

    def is_among(n: int, m: int) -> bool:
        return patterns[m].covers(patterns[n]) and (opened[n].existence_only or not opened[m].existence_only)

    return [
        each
        for n, each in enumerate(opened)
        if not any(is_among(n, m) and (m < n or not is_among(m, n)) for m in range(len(opened)) if m != n)
    ]


def _filled(path: Path, words: dict[str, str]) -> str:
    if path.pattern is None:
        return "/**"

    def fill(match: re.Match[str]) -> str:
        return words.get(match[1], "*/**" if match[2] else "*")

    return re.sub(r"\{(\w+)(\*\*)?\}", fill, path.text)


class KeysRead:
    """The keys that rules, stamps and redactions read in the map at an address.

    Args:
        document: the policy.
    """

    def __init__(self, document: Document) -> None:
        found: dict[Path, set[bytes]] = {}

        def note(path: Path, keys: Iterable[bytes]) -> None:
            found.setdefault(path, set()).update(keys)

        for rule in document.write_rules:
            if rule.stamp is not None:
                note(rule.path, (rule.stamp.field,))
            for mark in rule.marks:
                note(rule.path, (mark.field,))
                if isinstance(mark.value, StoredText):
                    note(mark.value.lookup.reversed(rule.path), (mark.value.field,))
        for transform in document.transforms:
            note(transform.path, map(str.encode, transform.fields))
        for entry in document.history:
            if entry.erases is not None:
                note(entry.path, (TYPE, ROLE, entry.erases.by, entry.erases.of))
        for path, checks in _all_checks(document):
            for check in checks:
                note(path, check.value_keys)
                for lookup, key in check.state_keys:
                    note(lookup.reversed(path), (key,))
        entries = [(path, frozenset(keys)) for path, keys in found.items() if keys]
        self._table = PathTable([path for path, _ in entries])
        self._keys = [keys for _, keys in entries]
        self._of_short = lru_cache(REMEMBERED_ADDRESSES)(self._find)

    def at(self, address: str) -> frozenset[bytes]:
        """Returns the keys that are read in the map at an address, in UTF-8."""
        return self._of_short(address) if len(address) <= REMEMBERED_LENGTH else self._find(address)

    def _find(self, address: str) -> frozenset[bytes]:
        return frozenset().union(*(self._keys[found.number] for found in self._table.find_all(address)))


def _all_checks(document: Document) -> Iterable[tuple[Path, tuple[Check, ...]]]:
    for rule in document.write_rules:
        yield rule.path, rule.pre_checks + rule.checks
        for mark in rule.marks:
            yield rule.path, mark.when
    for entry in document.visibility:
        yield entry.path, entry.checks + entry.unless
    for transform in document.transforms:
        yield transform.path, transform.unless
    for kept in document.history:
        yield kept.path, kept.unless
