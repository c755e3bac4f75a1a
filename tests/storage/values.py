"""Values and states for the tests of storage."""

from __future__ import annotations

import struct
import tempfile
from io import BytesIO
from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Ended, Param, StateImage
from clasp_relay.storage.state_reading import Restored, read_state

WRITER = "0d1f6f54-6a43-4d4e-a2fb-6a8ba7b2d1a9"
TIME_US = 1_700_000_000_000_000


def make_folder(case: SynchronousTestCase) -> Path:
    """Makes a folder that is gone after the test."""
    folder = tempfile.TemporaryDirectory()
    case.addCleanup(folder.cleanup)
    return Path(folder.name)


def decode(document: bytes) -> Restored:
    """Reads a state."""
    return read_state(BytesIO(document))


def string(text: str) -> bytes:
    """Encodes a string without its type byte."""
    return struct.pack(">H", len(text.encode())) + text.encode()


def param(address: str, value: bytes = b"\x07" + struct.pack(">d", 1.0), revision: int = 1) -> Param:
    """Makes a param of which only a few things matter."""
    return Param(address, value, revision, WRITER, TIME_US, None, "")


def image(*params: Param, ended: list[tuple[str, Ended]] | None = None) -> StateImage:
    """Makes a state."""
    return StateImage(list(params), ended or [], {})


def _array(items: list[bytes]) -> bytes:
    return b"\x0a" + struct.pack(">H", len(items)) + b"".join(items)


def _map(entries: list[tuple[str, bytes]]) -> bytes:
    return b"\x0b" + struct.pack(">H", len(entries)) + b"".join(string(key) + item for key, item in entries)


def _raw(kind: int, size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).map(lambda data: bytes([kind]) + data)


_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_special = st.sampled_from(
    [b"\x07" + struct.pack(">d", number) for number in (0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf"))]
    + [b"\x06" + struct.pack(">f", number) for number in (-0.0, 0.1, float("nan"))]
    + [b"\x05" + struct.pack(">q", number) for number in (0, 2**53 + 1, 2**63 - 1, -(2**63))]
)
_leaves = st.one_of(
    _special,
    st.just(b"\x00"),
    st.sampled_from([b"\x01\x00", b"\x01\x01"]),
    _raw(0x02, 1),
    _raw(0x03, 2),
    _raw(0x04, 4),
    _raw(0x05, 8),
    _raw(0x06, 4),
    _raw(0x07, 8),
    _texts.map(lambda text: b"\x08" + string(text)),
    st.binary(max_size=8).map(lambda data: b"\x09" + struct.pack(">H", len(data)) + data),
)
_nested = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4).map(_array) | st.lists(st.tuples(_texts, inner), max_size=4).map(_map),
    max_leaves=12,
)

encoded_values = _nested.filter(lambda value: value != b"\x00")
"""Every value that a param can have, as its sender may have encoded it; maps may have a key twice."""
