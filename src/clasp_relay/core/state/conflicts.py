"""What a SET meets at its address: a lock, another revision, a life time (``docs/protocol.md``, Params)."""

from __future__ import annotations

from typing import Protocol

from clasp_relay.core.records import Param
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Set

# Skips the argument handling of the generated constructor: one is made for every SET.
_new = tuple.__new__


class Current(Protocol):
    """What a SET is decided against: the params, or the params as the members of a bundle would leave them."""

    def last_revision(self, address: str) -> int:
        """Returns the last revision of an address, also of a deleted one; 0 when none is known."""

    def holder(self, address: str, /) -> str | None:
        """Returns the session that holds the lock of an address."""


def decide(current: Current, before: Param | None, message: Set, writer: str, subject: str, now_us: int) -> Param:
    """Applies the conflict rules to one SET.

    Args:
        current: the state it is decided against.
        before: what is set at its address there.
        message: the SET; address and value are valid.
        writer: the writing session's id.
        subject: whose token it carries.
        now_us: Unix µs.

    Returns:
        the change, not yet applied.

    Raises:
        RequestError: LOCKED when another session holds the lock, CONFLICT when the revision is not the current one.
    """
    address, value, expected, _, _, ttl = message
    holder = current.holder(address)
    if holder is not None and holder != writer:
        raise RequestError(ErrorCode.LOCKED, f"locked by session {holder}", address)
    if expected is not None:
        known = 0 if before is None else before.revision
        if expected != known:
            text = f"revision conflict: you wrote against revision {expected}, the current one is {known}"
            raise RequestError(ErrorCode.CONFLICT, text, address)
    if before is None:
        revision = current.last_revision(address)
    else:
        revision = before.revision
        if ttl is None:
            ttl = before.ttl
    return _new(Param, (address, value, revision + 1, writer, now_us, ttl, subject))
