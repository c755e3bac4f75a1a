"""The requests that wait at the decider: which one is handled next, in which turn, and when it is done.

In each turn there is time for some requests only: one of each session after the other, so that the flood of one does
not delay the others. A session's requests are handled in their order; those behind a long one wait until it is done.
"""

from __future__ import annotations

from collections.abc import Callable

from clasp_relay.cluster.deciding.batch_log import MAX_BATCH_BYTES, BatchLog
from clasp_relay.cluster.deciding.remote_sessions import RemoteSession
from clasp_relay.cluster.exchange.packets import Entry
from clasp_relay.core.relay import Relay

__all__ = ["TURN_US", "RequestTurns"]

TURN_US = 3_000
"""How long messages of sessions are decided in one turn. A packet may have hundreds, and the flood of one follower must
not block the sessions of others."""


class RequestTurns:
    """See the module.

    Args:
        relay: the decider's core.
        log: the batch that the requests fill.
        call_later: makes a call in a later turn.
        handle: handles a request of a session, and sets the session's ``at_work`` to its number unless it is the end.
        touch: called with a session of which a request is done, and 0; see ``RemoteSessions.touch``.
    """

    def __init__(
        self,
        relay: Relay,
        log: BatchLog,
        call_later: Callable[[float, Callable[[], None]], object],
        handle: Callable[[RemoteSession, Entry], None],
        touch: Callable[[RemoteSession, int], None],
    ) -> None:
        self._relay = relay
        self._log = log
        self._call_later = call_later
        self._handle = handle
        self._touch = touch
        self._ready: dict[RemoteSession, None] = {}
        """Sessions with a request that can be decided now; the next one comes first."""
        self._busy: dict[RemoteSession, None] = {}
        """Sessions whose request is being handled in pieces."""
        self._turn_end_us: int | None = None
        """When this turn's time for messages ends; None before the first message."""
        self._is_looking = False
        self.is_over = False
        """Whether nothing is decided in later turns any more."""

    def stop(self) -> None:
        """Decides nothing in later turns."""
        self.is_over = True

    def add(self, remote: RemoteSession, entry: Entry) -> None:
        """Has a request wait for its turn; ``decide`` handles it if there is time."""
        remote.queue.append(entry)
        if not remote.at_work:
            self._ready[remote] = None

    def drop(self, remote: RemoteSession) -> None:
        """Forgets a session that has ended."""
        self._busy.pop(remote, None)
        self._ready.pop(remote, None)

    def decide(self) -> None:
        """Decides requests, one of each session in turn, as long as there is time in this turn."""
        now_us = self._relay.clock.now_us
        if self._turn_end_us is None:
            self._turn_end_us = now_us() + TURN_US
            self._call_later(0, self._next_turn)
        ready, log = self._ready, self._log
        # A batch that is not full is held by nothing, so ``is_held`` need not be asked.
        while ready and now_us() < self._turn_end_us and (log.size_bytes <= MAX_BATCH_BYTES or not self.is_held):
            remote = next(iter(ready))
            del ready[remote]
            self._handle(remote, remote.queue.popleft())
            self._settle(remote)
            if log.size_bytes > MAX_BATCH_BYTES:  # as ``BatchLog.close_if_full``, without another call
                log.when_full()
            if remote.queue and not remote.at_work:
                ready[remote] = None

    def _next_turn(self) -> None:
        self._turn_end_us = None
        if self._ready and not self.is_over:
            self.decide()

    @property
    def is_held(self) -> bool:
        """Whether the batch is full and waits for a bundle, which is never split; then all other requests wait, too.

        Otherwise the batch would become longer than the engine accepts.
        """
        return self._log.size_bytes > MAX_BATCH_BYTES and not self._relay.bundles.is_whole

    # Requests that are handled in pieces

    def settle_all(self) -> None:
        """Notes which of the requests in work are done."""
        for remote in list(self._busy):
            self._settle(remote)

    def _settle(self, remote: RemoteSession) -> None:
        """Notes that the request in work is done, if it is."""
        if not remote.at_work:
            return
        if remote.session.is_busy:
            self._busy[remote] = None
            self._look_later()
            return
        remote.done, remote.at_work = remote.at_work, 0
        self._touch(remote, 0)

    def _look_later(self) -> None:
        if not self._is_looking and not self.is_over:
            self._is_looking = True
            self._call_later(0, self._look)

    def _look(self) -> None:
        """Continues sessions whose message was handled in pieces and is done."""
        self._is_looking = False
        if self.is_over:
            return
        busy, self._busy = self._busy, {}
        for remote in busy:
            self._settle(remote)
            if remote.queue and not remote.at_work:
                self._ready[remote] = None
        self.decide()
