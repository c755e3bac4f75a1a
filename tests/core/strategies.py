"""Hypothesis strategies for addresses and patterns that often match."""

from hypothesis import strategies as st

_SEGMENT = st.sampled_from(("a", "b", "ab", "zone1", "é"))
_PIECE = st.sampled_from(("a", "b", "ab", "é", "*", "**", "*", "**", "a*", "*b", "zone*", "**1", "*n*1"))


def _join(segments: list[str]) -> str:
    return "/" + "/".join(segments)


ADDRESSES: st.SearchStrategy[str] = st.lists(_SEGMENT, min_size=1, max_size=5).map(_join)
"""Valid addresses of a few short segments."""

PATTERNS: st.SearchStrategy[str] = st.lists(_PIECE, min_size=1, max_size=5).map(_join)
"""Valid patterns, with wildcards of every kind, that match them now and then."""
