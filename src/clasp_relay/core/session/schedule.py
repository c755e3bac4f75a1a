"""Bundles whose time has not come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from clasp_relay.core.ports import Clock
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.sizes import text_bytes
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Bundle, Publish, Set

MAX_AHEAD_US = 3_600_000_000
"""An hour: further ahead is more likely a wrong clock or unit than a plan."""

MAX_PENDING = 1_000
"""How many bundles of one session may wait."""

MAX_PENDING_BYTES = 64 * 1024 * 1024
"""What all that wait may take in memory, those of sessions that have gone included."""

MEMBER_BYTES = 400
"""What a member of a bundle takes in memory besides its address and its value."""

RunDue: TypeAlias = Callable[[Session, Bundle], None]


class Schedule:
    """Runs bundles at their time, whether their session still lives or not: they were accepted.

    Args:
        clock: when is now, and who calls later.
        run_due: checks and applies a bundle whose time has come.
    """

    def __init__(self, clock: Clock, run_due: RunDue) -> None:
        self._clock = clock
        self._run_due = run_due
        self.pending_bytes = 0

    def check(self, session: Session, bundle: Bundle, due_us: int) -> None:
        """Refuses a bundle that cannot wait.

        Args:
            session: whose it is.
            bundle: its members are SETs and PUBLISHes.
            due_us: its Unix time in µs, in the future.

        Raises:
            RequestError: VALUE when it is too far ahead, LIMIT when too many wait, OVERLOADED when those of all
                sessions together are too many.
        """
        if due_us - self._clock.now_us() > MAX_AHEAD_US:
            raise RequestError(ErrorCode.VALUE, "a bundle may be at most 1 hour ahead (its timestamp is in µs)")
        if session.pending_bundles >= MAX_PENDING:
            raise RequestError(ErrorCode.LIMIT, f"{MAX_PENDING} bundles of this session are waiting already")
        if self.pending_bytes + _size(bundle) > MAX_PENDING_BYTES:
            raise RequestError(ErrorCode.OVERLOADED, "as many bundles are waiting as the relay can keep")

    def add(self, session: Session, bundle: Bundle, due_us: int) -> None:
        """Lets a bundle wait; it must have been checked."""
        session.pending_bundles += 1
        size = _size(bundle)
        self.pending_bytes += size
        now = Bundle(bundle.messages)

        def run() -> None:
            session.pending_bundles -= 1
            self.pending_bytes -= size
            self._run_due(session, now)

        self._clock.call_later(max(0, due_us - self._clock.now_us()) / 1e6, run)


def _size(bundle: Bundle) -> int:
    size = 0
    for member in bundle.messages:
        assert isinstance(member, Set | Publish), "a bundle that waits has been checked"
        samples = member.samples if isinstance(member, Publish) else None
        size += MEMBER_BYTES + text_bytes(member.address) + len(member.value or b"") + len(samples or b"")
    return size
