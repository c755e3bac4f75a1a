"""Addresses and patterns (``docs/protocol.md``, Addresses and patterns).

One matcher serves subscriptions, snapshots, QUERY, scopes and policy paths. It reads the address once, segment by
segment, and keeps the set of the places in the pattern that the segments so far can have reached, as the bits of one
integer. So the cost is at most the segments of the address times the partial segments of the pattern.
"""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.constants import MAX_ADDRESS_BYTES

MAX_SEGMENTS = 128
"""Segments of an address or a pattern. The cost of matching grows with them; real ones have ten."""

MAX_SEGMENT_WILDCARDS = 8
"""Wildcards in one segment of a pattern; each is a search through the segment of the address."""

MAX_WILDCARDS = 32
"""Wildcards in a pattern, where ``**`` as a whole segment counts as one."""

_SURELY_SHORT = 2 * MAX_SEGMENTS
"""Characters that cannot be more than ``MAX_SEGMENTS`` segments, since each has a slash and a character."""


def check_address(address: str) -> None:
    """Checks that a text is a valid address.

    Args:
        address: the text that a client sent.

    Raises:
        RequestError: code 200; it does not start with a slash, has an empty segment or a ``*``, has more than
            ``MAX_SEGMENTS`` segments or ``MAX_ADDRESS_BYTES`` bytes, or has no encoding in UTF-8.
    """
    problem = "contains the wildcard '*'" if "*" in address else _problem(address)
    if problem:
        raise RequestError(ErrorCode.ADDRESS, f"the address {problem}", _for_error(address))


def _problem(text: str) -> str | None:
    """Returns why a text is neither an address nor a pattern, as the end of a sentence; None if it may be one."""
    if text[:1] == "/" and text[-1] != "/" and "//" not in text and len(text) <= _SURELY_SHORT and text.isascii():
        return None
    if len(text) > MAX_ADDRESS_BYTES:
        return f"is longer than {MAX_ADDRESS_BYTES} bytes"
    if not text.startswith("/"):
        return "does not start with '/'"
    if text.endswith("/") or "//" in text:
        return "has an empty segment"
    if len(text) > _SURELY_SHORT and text.count("/") > MAX_SEGMENTS:
        return f"has more than {MAX_SEGMENTS} segments"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is longer than {MAX_ADDRESS_BYTES} bytes" if size > MAX_ADDRESS_BYTES else None


def _wildcard_problem(pattern: str) -> str | None:
    """Returns the limit of wildcards that a pattern exceeds, as the end of a sentence, or None."""
    if pattern.count("*") <= MAX_SEGMENT_WILDCARDS:
        return None
    counts = [1 if segment == "**" else segment.count("*") for segment in pattern.split("/")]
    if max(counts) > MAX_SEGMENT_WILDCARDS:
        return f"has more than {MAX_SEGMENT_WILDCARDS} wildcards in one segment"
    return f"has more than {MAX_WILDCARDS} wildcards" if sum(counts) > MAX_WILDCARDS else None


def _for_error(text: str) -> str | None:
    """Returns the address or pattern for an ERROR to name; None if it is too long or has no encoding."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return None
    return text if size <= MAX_ADDRESS_BYTES else None


def match_segment(pattern: str, segment: str) -> bool:
    """Tells whether one segment of a pattern (not ``**``) matches one segment of an address.

    Args:
        pattern: a literal, ``*``, or a partial segment such as ``zone*``.
        segment: not empty.
    """
    return match_pieces(tuple(pattern.split("*")), segment)


def match_pieces(pieces: tuple[str, ...], segment: str) -> bool:
    """Tells whether a segment consists of literal pieces with zero or more characters between them.

    If there is a match, there is one with the first occurrence of each piece, so each is searched for once.
    """
    if len(pieces) == 1:
        return pieces[0] == segment
    first, last = pieces[0], pieces[-1]
    at, end = len(first), len(segment) - len(last)
    if at > end or not segment.startswith(first) or not segment.endswith(last):
        return False
    for piece in pieces[1:-1]:
        at = segment.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


class _Places(NamedTuple):
    """A pattern as sets of places, each an integer whose bit n is the place before the pattern's n-th segment.

    Attributes:
        normal: the segments in normal order (``_normal_order``), which the bits count.
        single: the places of ``*``.
        many: the places of ``**``.
        elastic: the places in a row of wildcards that contains a ``**``.
        particular: the places of all other segments.
        literals: the places of each literal segment.
        partials: the places and the pieces of each different partial segment.
        final: the place after the last segment.
    """

    normal: tuple[str, ...]
    single: int
    many: int
    elastic: int
    particular: int
    literals: dict[str, int]
    partials: tuple[tuple[int, tuple[str, ...]], ...]
    final: int

    def start(self) -> int:
        return 1 | (1 & self.many) << 1

    def after(self, places: int, segment: str) -> int:
        """Returns the places after one more segment, a literal or a partial one (never ``**``)."""
        fitting = self.single | self.literals.get(segment, 0)
        for place, pieces in self.partials:
            if places & place and match_pieces(pieces, segment):
                fitting |= place
        return self.after_any(places, fitting)

    def after_partial(self, places: int, segment: str) -> int:
        """Returns the places after one more segment that a partial segment of another pattern matches."""
        fitting, pieces = self.single, tuple(segment.split("*"))
        for literal, place in self.literals.items():
            if places & place and match_pieces(pieces, literal):
                fitting |= place
        for place, theirs in self.partials:
            if places & place and _pieces_intersect(pieces, theirs):
                fitting |= place
        return self.after_any(places, fitting)

    def after_any(self, places: int, fitting: int) -> int:
        moved = (places & fitting) << 1 | places & self.many
        return moved | (moved & self.many) << 1


def _normal_order(segments: tuple[str, ...]) -> list[str]:
    """Moves each ``*`` of a row of wildcards before its ``**`` and keeps one ``**``; the meaning is the same."""
    ordered: list[str] = []
    pending = False
    for segment in segments:
        if segment == "**":
            pending = True
            continue
        if pending and segment != "*":
            ordered.append("**")
            pending = False
        ordered.append(segment)
    return [*ordered, "**"] if pending else ordered


def _places(segments: list[str]) -> _Places:
    single = many = elastic = particular = row = 0
    literals: dict[str, int] = {}
    partials: dict[tuple[str, ...], int] = {}
    for n, segment in enumerate(segments):
        place = 1 << n
        if segment == "*":
            single, row = single | place, row | place
            continue
        if segment == "**":
            many, elastic = many | place, elastic | row | place
        else:
            particular |= place
            if "*" in segment:
                pieces = tuple(segment.split("*"))
                partials[pieces] = partials.get(pieces, 0) | place
            else:
                literals[segment] = literals.get(segment, 0) | place
        row = 0
    by_places = tuple((at, pieces) for pieces, at in partials.items())
    return _Places(tuple(segments), single, many, elastic, particular, literals, by_places, 1 << len(segments))


class Pattern:
    """A valid pattern, immutable. Two patterns are equal when their texts are.

    Made by ``Pattern.parse``. The table for matching is built when it is first needed, because most scopes of a token
    are never used.

    Attributes:
        is_literal: it has no wildcard and matches only the address with the same text.
    """

    __slots__ = ("_head", "_is_subtree", "_places", "_text", "is_literal")

    def __init__(self, text: str) -> None:
        self._text = text
        head, wildcard, rest = text.partition("*")
        self.is_literal = not wildcard
        self._head = head
        self._is_subtree = rest == "*" and head[-1] == "/"
        self._places: _Places | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Checks a pattern.

        Args:
            text: the text of a client or a policy.

        Raises:
            RequestError: code 202; it does not start with a slash, has an empty segment, more than
                ``MAX_SEGMENTS`` segments, ``MAX_ADDRESS_BYTES`` bytes, ``MAX_SEGMENT_WILDCARDS`` wildcards in a
                segment or ``MAX_WILDCARDS`` in all, or has no encoding in UTF-8.
        """
        problem = _problem(text) or _wildcard_problem(text)
        if problem:
            raise RequestError(ErrorCode.PATTERN, f"the pattern {problem}", _for_error(text))
        return cls(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Pattern({self._text!r})"

    @property
    def text(self) -> str:
        """The pattern as written."""
        return self._text

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments as written."""
        return tuple(self._text[1:].split("/"))

    def _table(self) -> _Places:
        """Returns the table for matching. Only patterns with wildcards need one."""
        places = self._places
        if places is None:
            places = self._places = _places(_normal_order(self.segments))
        return places

    def matches(self, address: str) -> bool:
        """Tells whether a valid address matches."""
        if self.is_literal:
            return address == self._text
        head = self._head
        # Wildcards that match no segment also leave out the slash before them.
        if not address.startswith(head) and address != head[:-1]:
            return False
        if self._is_subtree:
            return True
        table = self._table()
        places = table.start()
        for segment in address[1:].split("/"):
            places = table.after(places, segment)
            if not places:
                return False
        return bool(places & table.final)

    @property
    def start(self) -> int:
        """The set of places before the first segment, to walk a tree of addresses segment by segment.

        For patterns with wildcards only; a literal one is looked up.
        """
        return self._table().start()

    def step(self, places: int, segment: str) -> int:
        """Returns the set of places after one more segment of an address; 0 if no continuation can match."""
        return self._table().after(places, segment)

    def step_any(self, places: int) -> int | None:
        """Returns the set of places after one more segment if it is the same for every segment; else None."""
        table = self._table()
        return None if places & table.particular else table.after_any(places, table.single)

    def accepts(self, places: int) -> bool:
        """Tells whether an address that ends at these places matches."""
        return bool(places & self._table().final)

    def literals(self, places: int) -> list[str] | None:
        """Returns the segments that can come next if all of them are literals; else None."""
        table = self._table()
        if places & (table.single | table.many) or any(places & place for place, _ in table.partials):
            return None
        return [segment for segment, at in table.literals.items() if places & at]

    def covers(self, other: Pattern) -> bool:
        """Tells whether this pattern matches every address that ``other`` matches.

        Where partial segments of both are compared, False may be wrong: this pattern may cover ``other`` nevertheless.
        True is always right, and in all other cases the answer is exact.

        Args:
            other: for example the pattern of a SUBSCRIBE, when this one is a scope.
        """
        if other.is_literal:
            return self.matches(other._text)
        # The other one's wildcards also match what does not go on as this one begins.
        if self.is_literal or not other._head.startswith(self._head):
            return False
        if self._is_subtree:
            return True
        table = self._table()
        places = table.start()
        normal = other._table().normal
        # No address is without segments, so '/**' means '/*/**'.
        for segment in ("*", "**") if normal == ("**",) else normal:
            if segment == "**":
                places &= table.elastic
                places |= (places & table.many) << 1
            elif segment == "*":
                places = table.after_any(places, table.single)
            else:
                # The '*' of a partial segment is in none of our pieces, so only a '*' of ours can match it.
                places = table.after(places, segment)
            if not places:
                return False
        return bool(places & table.final)


def intersects(one: Pattern, other: Pattern) -> bool:
    """Tells whether some address matches both of two patterns.

    The first pattern is read segment by segment, like an address, with the set of the places in the second one that its
    segments so far can have reached. Two of the costliest patterns take about 2 ms; nearly all pairs are decided by
    their first segments.
    """
    if one.is_literal:
        return other.matches(one.text)
    if other.is_literal:
        return one.matches(other.text)
    table = other._table()
    every = (table.final << 1) - 1
    places = table.start()
    for segment in one._table().normal:
        if segment == "**":
            # ``**`` can match any segments of the other pattern, so all places from the first one on can be reached.
            places = every & -(places & -places)
        elif segment == "*":
            places = table.after_any(places, every)
        elif "*" in segment:
            places = table.after_partial(places, segment)
        else:
            places = table.after(places, segment)
        if not places:
            return False
    return bool(places & table.final)


def _pieces_intersect(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tells whether some segment matches both of two partial segments, each given as the pieces between its wildcards.

    The pieces before the first wildcard have to agree, and those behind the last one; what is between always fits.
    """
    heads, tails = (one[0], other[0]), (one[-1], other[-1])
    return (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])) and (
        tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])
    )
