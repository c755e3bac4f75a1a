"""Hypothesis strategies for values and messages that have an encoding."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from clasp_relay.wire import messages as m
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.values import encode_value

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
TEXT = st.text(max_size=12)
I64 = st.integers(-(2**63), 2**63 - 1)

_TEMPTING = st.sampled_from(("__proto__", "\ufeff", "\ufeffuserId", "userId", "_", "x__proto__"))
"""Strings that may not be keys, and some that are like them."""

ANY_OBJECTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | I64 | st.floats() | TEXT | _TEMPTING | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | _TEMPTING, inner, max_size=4),
    max_leaves=12,
)
"""Python objects that have an encoding, refused keys included."""


def has_refused_key(obj: Any) -> bool:
    """Returns whether a map in an object has a key that starts with U+FEFF or is ``__proto__``."""
    if isinstance(obj, dict):
        return any(key == "__proto__" or key.startswith("\ufeff") or has_refused_key(obj[key]) for key in obj)
    return isinstance(obj, list) and any(map(has_refused_key, obj))


OBJECTS = ANY_OBJECTS.filter(lambda obj: not has_refused_key(obj))
"""Python objects that are values."""

# The encoded forms that encode_value never writes are added by hand.
VALUES: st.SearchStrategy[bytes] = OBJECTS.map(encode_value) | st.sampled_from(
    (b"\x02\x80", b"\x03\x80\x00", b"\x04\x80\x00\x00\x00", b"\x06\x7f\xc0\x00\x00")
)
"""Encoded values of every type."""

_FLOATS = st.floats(allow_nan=False)
_SIGNAL, _PHASE = st.sampled_from(Signal), st.sampled_from(Phase)


def _optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_BARE_DEFINITION = st.builds(m.SignalDefinition, TEXT, _SIGNAL, _optional(TEXT), _optional(TEXT))
_DEFINITION = st.builds(
    m.SignalDefinition,
    TEXT,
    _SIGNAL,
    _optional(TEXT),
    _optional(TEXT),
    _optional(TEXT),
    _optional(st.tuples(_FLOATS, _FLOATS)),
    _optional(VALUES),
    _optional(TEXT),
)
_PARAM = st.builds(m.SnapshotParam, TEXT, VALUES, U64, _optional(TEXT), _optional(U64))
_MASK = st.integers(1, 0xFF)
_SAMPLES = st.binary(max_size=4).map(lambda raw: raw * 8)

_BUNDLED: tuple[st.SearchStrategy[Any], ...] = (
    st.builds(
        m.Publish, TEXT, _SIGNAL, _PHASE, _optional(VALUES), st.none(), _optional(U64), _optional(U32), _optional(U32)
    ),
    st.builds(
        m.Publish,
        TEXT,
        _SIGNAL,
        _PHASE,
        st.none(),
        st.binary(max_size=4).map(lambda raw: raw * 8),
        st.none(),
        st.none(),
        st.none(),
    ),
    st.builds(m.Set, TEXT, VALUES, _optional(U64), st.booleans(), st.booleans(), _optional(U32)),
)
_FLAT: tuple[st.SearchStrategy[Any], ...] = (
    st.builds(m.Hello, U8, U8, TEXT, TEXT),
    st.builds(m.Welcome, U8, U8, U64, TEXT, TEXT, TEXT),
    st.builds(m.Announce, TEXT, st.lists(_DEFINITION, max_size=3).map(tuple)),
    st.builds(m.Subscribe, U32, TEXT, _MASK, _optional(U32), _optional(_FLOATS)),
    st.builds(m.Unsubscribe, U32),
    *_BUNDLED,
    st.builds(m.Get, TEXT),
    st.builds(m.Snapshot, st.lists(_PARAM, max_size=3).map(tuple)),
    st.builds(m.Replay, TEXT, _optional(U64), _optional(U64), _optional(U32), _MASK),
    st.builds(m.Sync, U64, _optional(U64), _optional(U64)),
    st.just(m.Ping()),
    st.just(m.Pong()),
    st.builds(m.Ack, _optional(TEXT), _optional(U64), _optional(st.booleans()), _optional(TEXT), _optional(U32)),
    st.builds(m.Error, U16, TEXT, _optional(TEXT), _optional(U32)),
    st.builds(m.Query, TEXT),
    st.builds(m.Result, st.lists(_BARE_DEFINITION, max_size=3).map(tuple)),
)

MESSAGES: st.SearchStrategy[Any] = st.one_of(
    *_FLAT, st.builds(m.Bundle, st.lists(st.one_of(*_BUNDLED), max_size=3).map(tuple), _optional(U64))
)
"""Messages of every kind."""
