"""Addresses and patterns (``docs/protocol.md``, Addresses and patterns).

One matcher serves subscriptions, snapshots, QUERY, scopes and policy paths. It walks the address once
and keeps the set of all places in the pattern where it could be as bits of one integer, so that no
pattern, however many wildcards it has, can make it try one combination after another.
"""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.errors import ErrorCode, RequestError

MAX_ADDRESS_BYTES = 0xFFFF
"""A string's length is an unsigned 16-bit number on the wire."""

MAX_PATTERN_SEGMENTS = 128
"""Segments of a pattern with wildcards. What matching costs and keeps grows with them; real patterns have ten."""


def check_address(address: str) -> None:
    """Checks that something can be stored at, or sent to, an address.

    Args:
        address: what a client sent.

    Raises:
        RequestError: code 200; it does not start with a slash, has an empty segment or a ``*``, is too
            long, or cannot be said in UTF-8.
    """
    if (
        address
        and address[0] == "/"
        and address[-1] != "/"
        and "//" not in address
        and "*" not in address
        and address.isascii()
        and len(address) <= MAX_ADDRESS_BYTES
    ):
        return
    problem = "contains the wildcard '*'" if "*" in address else _problem(address)
    if problem:
        raise RequestError(ErrorCode.ADDRESS, f"the address {problem}", _for_error(address))


def _problem(text: str) -> str | None:
    """Says what keeps a text from being an address or pattern, or None."""
    if not text.startswith("/"):
        return "does not start with '/'"
    if text.endswith("/") or "//" in text:
        return "has an empty segment"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is longer than {MAX_ADDRESS_BYTES} bytes" if size > MAX_ADDRESS_BYTES else None


def _for_error(text: str) -> str | None:
    """An ERROR names what it is about, when that can be said on the wire and leaves room for the rest."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return None
    return text if size <= MAX_ADDRESS_BYTES // 2 else None


def match_segment(pattern: str, segment: str) -> bool:
    """Says whether one segment of a pattern (not ``**``) matches one segment of an address.

    Args:
        pattern: a literal, ``*``, or a partial segment such as ``zone*``.
        segment: not empty.
    """
    return _match_pieces(tuple(pattern.split("*")), segment)


def _match_pieces(pieces: tuple[str, ...], segment: str) -> bool:
    """Matches a segment against literal pieces with anything, or nothing, between them.

    The first place where a piece fits is always a good one, so nothing is tried twice.
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
    """A pattern as sets of places; bit n is the place before its n-th segment, in normal order.

    ``normal``: the segments in that order; ``single``: a ``*`` stands there; ``many``: a ``**``; ``elastic``: in a row
    of wildcards that has a ``**``; ``particular``: anything else; ``literals``: the places of each literal;
    ``partials``: place and pieces; ``final``: the end.
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
            if _match_pieces(pieces, segment):
                fitting |= place
        return self.after_any(places, fitting)

    def after_any(self, places: int, fitting: int) -> int:
        moved = (places & fitting) << 1 | places & self.many
        return moved | (moved & self.many) << 1


def _normal_order(segments: tuple[str, ...]) -> list[str]:
    """Moves the ``*`` of a row of wildcards before its ``**``, of which it keeps one: the meaning is the same."""
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
    partials: list[tuple[int, tuple[str, ...]]] = []
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
                partials.append((place, tuple(segment.split("*"))))
            else:
                literals[segment] = literals.get(segment, 0) | place
        row = 0
    return _Places(tuple(segments), single, many, elastic, particular, literals, tuple(partials), 1 << len(segments))


class Pattern:
    """A pattern that was found valid. Equal when written equally; never changed.

    Make one with ``Pattern.parse``. What matching needs is worked out when it is first needed: of the scopes that a
    token carries most are never asked.

    Attributes:
        is_literal: there is no wildcard, so that it matches the one address that reads like it.
    """

    __slots__ = ("_places", "_prefix", "_text", "is_literal")

    def __init__(self, text: str) -> None:
        self._text = text
        self.is_literal = "*" not in text
        is_subtree = text.endswith("/**") and "*" not in text[:-2]
        self._prefix = text[:-2] if is_subtree else None
        self._places: _Places | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Checks a pattern and prepares it for matching.

        Args:
            text: what a client or a policy wrote.

        Raises:
            RequestError: code 202; it is no pattern, or one with wildcards and more than
                ``MAX_PATTERN_SEGMENTS`` segments.
        """
        problem = _problem(text)
        if not problem and "*" in text and text.count("/") > MAX_PATTERN_SEGMENTS:
            problem = f"has wildcards and more than {MAX_PATTERN_SEGMENTS} segments"
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
        """Returns the places; only a pattern with wildcards has them, however long a literal one is."""
        places = self._places
        if places is None:
            places = self._places = _places(_normal_order(self.segments))
        return places

    def matches(self, address: str) -> bool:
        """Says whether a valid address matches; time grows with its length, not with its combinations."""
        if self.is_literal:
            return address == self._text
        prefix = self._prefix
        if prefix is not None:
            return address.startswith(prefix) or address == prefix[:-1]
        table = self._table()
        places = table.start()
        for segment in address[1:].split("/"):
            places = table.after(places, segment)
            if not places:
                return False
        return bool(places & table.final)

    @property
    def start(self) -> int:
        """The set of places before the first segment; for walking a tree of addresses segment by segment.

        Only a pattern with wildcards has places; a literal one needs no walk.
        """
        return self._table().start()

    def step(self, places: int, segment: str) -> int:
        """Returns the set of places after one more segment of an address; 0 when nothing can match any more."""
        return self._table().after(places, segment)

    def step_any(self, places: int) -> int | None:
        """Returns the set of places after one more segment, where that is the same for all segments; else None."""
        table = self._table()
        return None if places & table.particular else table.after_any(places, table.single)

    def accepts(self, places: int) -> bool:
        """Says whether an address that ends at one of these places matches."""
        return bool(places & self._table().final)

    def literals(self, places: int) -> list[str] | None:
        """Returns the only segments that can come next, or None when others can."""
        table = self._table()
        if places & (table.single | table.many) or any(places & place for place, _ in table.partials):
            return None
        return [segment for segment, at in table.literals.items() if places & at]

    def covers(self, other: Pattern) -> bool:
        """Says whether every address that ``other`` can match is matched by this pattern too.

        Exact as long as no partial wildcards meet; where they do, a yes is right and a no may be
        too careful.

        Args:
            other: for instance what a client wants to subscribe to, when this is a scope.
        """
        if other.is_literal:
            return self.matches(other._text)
        if self.is_literal:
            return False
        table = self._table()
        places = table.start()
        normal = other._table().normal
        # There is no address without segments, so '/**' alone says no more than '/*/**'.
        for segment in ("*", "**") if normal == ("**",) else normal:
            if segment == "**":
                places &= table.elastic
                places |= (places & table.many) << 1
            elif segment == "*":
                places = table.after_any(places, table.single)
            else:
                # Its own '*' is a character that no piece of ours contains, so only a '*' of ours takes it in.
                places = table.after(places, segment)
            if not places:
                return False
        return bool(places & table.final)


def intersects(one: Pattern, other: Pattern) -> bool:
    """Tells whether some address matches both of two patterns.

    The cost is at most the product of their segments; of nearly all pairs the first segments tell.
    """
    # Which segments of ``other`` can stand next, for each prefix of ``one`` that was walked.
    columns = _skip_globstars({0}, other.segments)
    for segment in one.segments:
        if segment == "**":
            columns = set(range(min(columns), len(other.segments) + 1))
            continue
        after: set[int] = set()
        for column in columns:
            if column < len(other.segments):
                theirs = other.segments[column]
                if theirs == "**":
                    after.add(column)
                elif _segments_intersect(segment, theirs):
                    after.add(column + 1)
        columns = _skip_globstars(after, other.segments)
        if not columns:
            return False
    return len(other.segments) in columns


def _skip_globstars(columns: set[int], segments: tuple[str, ...]) -> set[int]:
    """Adds the places behind a ``**`` that matches no segment at all."""
    found = set(columns)
    for column in columns:
        at = column
        while at < len(segments) and segments[at] == "**":
            at += 1
            found.add(at)
    return found


def _segments_intersect(one: str, other: str) -> bool:
    """Tells whether some segment matches both of two segments of patterns."""
    if "*" not in other:
        return match_segment(one, other) if "*" in one else one == other
    if "*" not in one:
        return match_segment(other, one)
    # What stands before the first and behind the last wildcard has to agree; what is between is always possible.
    heads = (one[: one.index("*")], other[: other.index("*")])
    tails = (one[one.rindex("*") + 1 :], other[other.rindex("*") + 1 :])
    return (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])) and (
        tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])
    )
