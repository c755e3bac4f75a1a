"""The record of one accepted change: what the table of params, fan-out and the state file all take."""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.core.state.tombstones import Ended
from clasp_relay.wire.messages import Value


class Param(NamedTuple):
    """One accepted change. A ``value`` of null means that the address was deleted."""

    address: str
    value: Value
    revision: int
    writer: str
    """The session that wrote it."""
    timestamp_us: int
    ttl: int | None = None
    """As on the wire: 0 never, bit 31 from the write, else sliding, in seconds; None the server's default."""
    subject: str = ""
    """Whose token wrote it; empty in open mode."""


class Outcome(NamedTuple):
    """What is to become of an address."""

    change: Param
    """The last change there."""
    stamp: str | None = None
    """The subject that a policy's stamp names, where it outlives a null."""


class StateImage(NamedTuple):
    """All that survives a restart, captured by reference in one step."""

    params: list[Param]
    ended: list[tuple[str, Ended]]
    """Oldest first."""
    expires_us: dict[str, int]
