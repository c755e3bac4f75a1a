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

    def get(self, address: str, /) -> Param | None:
        """Returns what is set at an address."""

    def last_revision(self, address: str) -> int:
        """Returns the last revision of an address, also of a deleted one; 0 when none is known."""

    def holder(self, address: str, /) -> str | None:
        """Returns the session that holds the lock of an address."""


def decide(current: Current, message: Set, writer: str, subject: str, now_us: int) -> Param:
    """Applies the conflict rules to one SET.

    Args:
        current: the state it is decided against.
        message: the SET; address and value are valid.
        writer: the writing session's id.
        subject: whose token it carries.
        now_us: Unix µs.

    Returns:
        the change, not yet applied.

    Raises:
        RequestError: LOCKED when another session holds the lock, CONFLICT when the revision is not the current one.
    """
    address = message.address
    holder = current.holder(address)
    if holder is not None and holder != writer:
        raise RequestError(ErrorCode.LOCKED, f"locked by session {holder}", address)
    param = current.get(address)
    if message.revision is not None:
        revision = 0 if param is None else param.revision
        if message.revision != revision:
            text = f"revision conflict: you wrote against revision {message.revision}, the current one is {revision}"
            raise RequestError(ErrorCode.CONFLICT, text, address)
    ttl = message.ttl
    if param is None:
        revision = current.last_revision(address)
    else:
        revision = param.revision
        if ttl is None:
            ttl = param.ttl
    return _new(Param, (address, message.value, revision + 1, writer, now_us, ttl, subject))
