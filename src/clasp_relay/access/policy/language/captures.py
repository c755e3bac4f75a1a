"""Paths that capture parts of an address, and templates that put those parts into another one.

``/chat/room/{roomId}/meta`` captures one segment, ``/chat/registry/ns/{path**}/{roomId}`` one or more and then
one. Besides captures a path has the wildcards of every pattern, with the same meaning. Captured text goes
into a template as it is and is never expanded again (``docs/policy.md``, Paths).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern, check_address, intersects

SESSION = "session"
"""The name by which templates use the subject: the writer, or the reader."""

Captured = tuple[str, ...]
"""The segments that a path captured, in the order of its names."""

_EVERYTHING = ".*"

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\*\*)?\}")


@lru_cache(4096)
def _compiled(regex: str) -> re.Pattern[str]:
    """Returns a path's compiled expression; ``re`` itself forgets them above 512, and a policy may have more."""
    return re.compile(regex, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Path:
    """A path as it stands in a policy. Make one with :meth:`parse` or :meth:`containing`.

    Args:
        text: as written.
        names: the names of its captures, in order.
        regex: matches a whole valid address, with one group for each name.
        pattern: the path with wildcards for its captures; None for a path that is not written as one.
        is_costly: whether the regex may backtrack over many combinations, so that ``pattern`` is tried first.
    """

    text: str
    names: tuple[str, ...]
    regex: str
    pattern: Pattern | None = None
    is_costly: bool = False

    @classmethod
    def parse(cls, text: str) -> Path:
        """Parses a path.

        Raises:
            ValueError: it is malformed, or uses a name twice or the reserved ``{session}``.
        """
        plain = [_plain(segment) for segment in text.split("/")]
        try:
            pattern = Pattern.parse("/".join(plain))
        except RequestError as error:
            raise ValueError(error.message) from None
        segments = text[1:].split("/")
        names = [found[1] for segment in segments if (found := _CAPTURE.fullmatch(segment))]
        for n, name in enumerate(names):
            if name in names[:n]:
                raise ValueError(f"captures {{{name}}} twice")
        if SESSION in names:
            raise ValueError("{session} is who reads or writes; capture the segment by another name and compare it")
        many = sum(segment.endswith("**}") or segment == "**" for segment in segments)
        is_costly = many > 1 or any(len(re.findall(r"\*+", segment)) > 1 for segment in segments)
        lazy = "?" if is_costly else ""
        regex = "".join(_segment_regex(segment, lazy) for segment in segments)
        return cls(text, tuple(names), regex, pattern, is_costly)

    @property
    def many(self) -> frozenset[str]:
        """The names that capture more than one segment."""
        return frozenset(name for name, many in _CAPTURE.findall(self.text) if many and name in self.names)

    @property
    def is_about_segment_parts(self) -> bool:
        """Whether it matches parts of segments (``zone*``, ``path_contains``), and not whole segments only."""
        if self.pattern is None:
            return self.regex != _EVERYTHING
        return any("*" in segment and segment not in ("*", "**") for segment in self.pattern.segments)

    @classmethod
    def containing(cls, needle: str) -> Path:
        """Makes a path that matches every address with ``needle`` anywhere in it."""
        return cls(needle, (), f".*{re.escape(needle)}.*")

    @classmethod
    def everything(cls) -> Path:
        """Makes a path that matches every address."""
        return cls("/**", (), _EVERYTHING)

    def bind(self, address: str) -> re.Match[str] | None:
        """Matches one address; the groups are what was captured."""
        if self.is_costly and self.pattern is not None and not self.pattern.matches(address):
            return None
        return _compiled(self.regex).fullmatch(address)


def _plain(segment: str) -> str:
    found = _CAPTURE.fullmatch(segment)
    if found:
        return "*/**" if found[2] else "*"
    if "{" in segment or "}" in segment:
        raise ValueError(f"{segment!r}: a capture is a whole segment, {{name}} or {{name**}}")
    return segment


def _segment_regex(segment: str, lazy: str) -> str:
    found = _CAPTURE.fullmatch(segment)
    if found:
        return f"/(.+{lazy})" if found[2] else "/([^/]++)"
    if segment == "**":
        return f"(?:/.+{lazy})?{lazy}"
    if segment == "*":
        return "/[^/]++"
    return "/" + f"[^/]*{lazy}".join(re.escape(piece) for piece in re.split(r"\*+", segment))


class Found(NamedTuple):
    """The first path of a table that matches."""

    number: int
    captured: Captured


class PathTable:
    """Finds the first of several paths that matches, in one step.

    Args:
        paths: in the order of their precedence.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._by_marker: dict[int, tuple[int, int]] = {}
        self._later: dict[int, list[tuple[int, Path]]] = {}
        """For paths that ``find_all`` found first: the later ones that can match the same address, which are few."""
        self._one_by_one = any(path.is_costly for path in paths)
        alternatives = []
        group = 0
        for index, path in enumerate(paths):
            # The empty group at the end of each alternative tells which one matched.
            marker = group + len(path.names) + 1
            self._by_marker[marker] = (index, group)
            group = marker
            alternatives.append(f"{path.regex}()")
        self._regex = re.compile("|".join(alternatives) or "(?!)", re.DOTALL)

    def find(self, address: str) -> Found | None:
        """Returns the first match; its captures in the order of the path's names."""
        if self._one_by_one:
            return self._find_one_by_one(address)
        match = self._regex.fullmatch(address)
        if match is None or match.lastindex is None:
            return None
        index, before = self._by_marker[match.lastindex]
        return Found(index, match.groups()[before : match.lastindex - 1])

    def find_all(self, address: str) -> list[Found]:
        """Returns every match, in order."""
        first = self.find(address)
        if first is None:
            return []
        later = self._later.get(first.number)
        if later is None:
            later = self._later[first.number] = self._meeting(first.number)
        if not later:
            return [first]
        bound = ((index, path.bind(address)) for index, path in later)
        return [first, *(Found(index, match.groups()) for index, match in bound if match is not None)]

    def _meeting(self, number: int) -> list[tuple[int, Path]]:
        """Returns the later paths, with their numbers, that can match an address that this path matches."""
        own = self._paths[number].pattern
        return [
            (index, path)
            for index, path in enumerate(self._paths)
            if index > number and (own is None or path.pattern is None or intersects(own, path.pattern))
        ]

    def _find_one_by_one(self, address: str) -> Found | None:
        for index, path in enumerate(self._paths):
            match = path.bind(address)
            if match is not None:
                return Found(index, match.groups())
        return None


@dataclass(frozen=True, slots=True)
class Template:
    """Text with placeholders for captures. Make one with :meth:`parse`.

    Args:
        text: as written.
        parts: the literal text between the captures.
        places: the index of the capture that follows each part but the last.
    """

    text: str
    parts: tuple[str, ...]
    places: tuple[int, ...]
    _format: str

    @classmethod
    def parse(cls, text: str, names: Sequence[str]) -> Template:
        """Parses a template.

        Args:
            text: as written.
            names: the captures of the path; ``session`` may always be used.

        Raises:
            ValueError: it uses a name that is not captured.
        """
        known = (*names, SESSION)
        parts: list[str] = []
        places: list[int] = []
        end = 0
        for found in re.finditer(r"\{([^{}]*)\}", text):
            if found[1] not in known:
                raise ValueError(f"{{{found[1]}}} is not captured (known: {', '.join(known)})")
            parts.append(text[end : found.start()])
            places.append(known.index(found[1]))
            end = found.end()
        parts.append(text[end:])
        if any("{" in part or "}" in part for part in parts):
            raise ValueError("has a brace that belongs to no {name}")
        return cls(text, tuple(parts), tuple(places), "%s".join(part.replace("%", "%%") for part in parts))

    def expand(self, words: Captured) -> str:
        """Replaces the placeholders by the captures, the subject last; captured text is not expanded again."""
        return self._format % tuple([words[place] for place in self.places])

    def check_address(self, wildcards: bool) -> None:
        """Checks that the template makes a valid address for any captures.

        Args:
            wildcards: whether it may make a pattern, too.

        Raises:
            ValueError: it does not.
        """
        sample = "x".join(self.parts)
        try:
            if wildcards:
                Pattern.parse(sample)
            else:
                check_address(sample)
        except RequestError as error:
            raise ValueError(error.message) from None

    def reversed(self, path: Path) -> Path:
        """Returns the path that matches all addresses that this template can make, and captures what was filled in.

        Args:
            path: whose captures the template uses; the subject is captured as ``_session``.
        """
        known = (*path.names, "_session")
        seen: set[str] = set()
        segments = []
        for segment in self._segments():
            if isinstance(segment, str):
                segments.append(segment)
                continue
            name, many = known[segment], known[segment] in path.many
            if name in seen:
                segments.append("*/**" if many else "*")
            else:
                seen.add(name)
                segments.append(f"{{{name}**}}" if many else f"{{{name}}}")
        return Path.parse("/" + "/".join(segments))

    def _segments(self) -> list[str | int]:
        """Returns the segments: the index of a capture that is a whole segment, else text with ``*`` for captures."""
        marked = "".join(f"{part}\0{place}\0" for part, place in zip(self.parts, self.places, strict=False))
        segments: list[str | int] = []
        for segment in (marked + self.parts[-1])[1:].split("/"):
            whole = re.fullmatch("\0(\\d+)\0", segment)
            segments.append(int(whole[1]) if whole else re.sub("\0\\d+\0", "*", segment))
        return segments
