"""Who may newly see what when something changes: the lookups of ``catch_up`` entries, read backwards."""

from __future__ import annotations

import re
from typing import NamedTuple

from clasp_relay.access.policy.captures import Path, PathTable
from clasp_relay.access.policy.document import VisibilityEntry
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern


class CatchUp(NamedTuple):
    """What somebody may newly see. Whether it is so, two verdicts tell: before and after the change."""

    subject: str | None
    """The one who may; None for everybody."""

    pattern: Pattern
    """All that may open is at addresses that this matches; each must have an entry with ``catch_up``."""


class CatchUps:
    """The ``catch_up`` entries of a policy.

    Args:
        entries: all visibility entries.
    """

    def __init__(self, entries: tuple[VisibilityEntry, ...]) -> None:
        opens: dict[str, tuple[Path, list[VisibilityEntry]]] = {}
        for entry in entries:
            if entry.catch_up:
                for check in (*entry.checks, *entry.unless):
                    for lookup in check.lookups:
                        path = lookup.reversed(entry.path)
                        opened = opens.setdefault(path.text, (path, []))[1]
                        if entry not in opened:
                            opened.append(entry)
        self._table = PathTable([path for path, _ in opens.values()])
        self._opens = [(path, _widest(path, opened)) for path, opened in opens.values()]

    def after(self, address: str) -> tuple[CatchUp, ...]:
        """Returns what a change at an address (also its end) may open; nothing for nearly all addresses."""
        if self._table.find(address) is None:
            return ()
        found: dict[CatchUp, None] = {}
        for index, captured in self._table.find_all(address):
            path, entries = self._opens[index]
            words = dict(zip(path.names, captured, strict=True))
            for entry in entries:
                try:
                    pattern = Pattern.parse(_filled(entry.path, words))
                except RequestError:
                    continue  # longer than any address can be
                found[CatchUp(words.get("_session"), pattern)] = None
        return tuple(found)


def _widest(lookup: Path, entries: list[VisibilityEntry]) -> list[VisibilityEntry]:
    """Leaves out entries whose addresses are all among another's, whatever the lookup captures."""
    words = {name: f"{n}" for n, name in enumerate(lookup.names)}
    patterns = [Pattern.parse(_filled(entry.path, words)) for entry in entries]
    return [
        entry
        for n, entry in enumerate(entries)
        if not any(
            patterns[m].covers(patterns[n]) and (m < n or not patterns[n].covers(patterns[m]))
            for m in range(len(entries))
            if m != n
        )
    ]


def _filled(path: Path, words: dict[str, str]) -> str:
    if path.pattern is None:
        return "/**"

    def fill(match: re.Match[str]) -> str:
        return words.get(match[1], "*/**" if match[2] else "*")

    return re.sub(r"\{(\w+)(\*\*)?\}", fill, path.text)
