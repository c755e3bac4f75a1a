"""When and how a follower claims to be the decider: it appends a claim of the next epoch after the last batch."""

from __future__ import annotations

from collections.abc import Callable

from clasp_relay.cluster.appending import Appending, Sent
from clasp_relay.cluster.applying import Applying
from clasp_relay.cluster.exchange.batches import Batch, Claimed
from clasp_relay.cluster.exchange.ports import Appended, Bounds, Outcome
from clasp_relay.cluster.membership import Membership, Role
from clasp_relay.cluster.peers import SILENCE_S, Peers

__all__ = ["Claiming"]

STANDBY_S = 2.0
"""How much later a standby claims."""


class Claiming:
    """See the module.

    Args:
        membership: the membership of this relay.
        peers: the other relays.
        applying: applies the batches before the claim.
        appending: records the claim.
        when_decider: called when the claim is in the log and in the journal.
    """

    def __init__(
        self,
        membership: Membership,
        peers: Peers,
        applying: Applying,
        appending: Appending,
        when_decider: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._peers = peers
        self._applying = applying
        self._appending = appending
        self._when_decider = when_decider
        self._is_claiming = False

    @property
    def is_claiming(self) -> bool:
        """Whether a claim has no outcome yet."""
        return self._is_claiming

    def cancel(self) -> None:
        """Drops a claim that has no outcome yet, since the relay joins again."""
        self._is_claiming = False

    def go_on(self, now_s: float) -> None:
        """Reads missing batches, and claims if the decider is silent."""
        membership, peers = self._membership, self._peers
        if self._is_claiming or membership.releasing or not peers.is_in_touch:
            return
        if membership.ledger.seq < membership.known_seq:
            self._applying.read_gap()
            return
        late_s = STANDBY_S if membership.options.is_standby else 0.0
        is_silent = now_s - peers.decider_s > SILENCE_S + late_s + peers.spread_s
        if is_silent and not self._applying.is_reading and not peers.is_outdone(by_joined=True):
            self._claim()

    def _claim(self) -> None:
        self._is_claiming = True
        self._membership.engine.bounds(self._claim_behind)

    def _claim_behind(self, bounds: Bounds | None) -> None:
        """Claims behind the last batch of the log, once that is applied."""
        membership, ledger = self._membership, self._membership.ledger
        if membership.is_over or bounds is None or membership.role is not Role.FOLLOWER:
            self._is_claiming = False
            return
        if bounds.last > ledger.seq:
            self._is_claiming = False
            membership.known_seq = max(membership.known_seq, bounds.last)
            self._applying.read_gap()
            return
        if bounds.last < ledger.seq:
            self._appending.repair(bounds.last, self._claim)
            return
        claim = Claimed(membership.following.link, membership.options.relay, membership.is_cold, membership.base)
        now_us = max(self._peers.deciders_now_us, ledger.time_us)
        sent = Sent.of(Batch(ledger.epoch + 1, ledger.digest, now_us, membership.journal.appended_seq, (claim,)))

        def done(answer: Appended) -> None:
            self._is_claiming = False
            if membership.is_over or membership.role is not Role.FOLLOWER:
                return
            if answer.outcome is Outcome.DONE and ledger.seq + 1 == answer.seq:
                self._appending.record(answer.seq, sent, self._when_decider)
            else:
                # Another relay was faster, or the outcome is not known: the log will have it.
                membership.hear("decide", False)
                self._peers.decider_s = membership.monotonic_s() - SILENCE_S / 2
                membership.engine.bounds(self._look_at_log)

        # Before another relay reads the claim and sends requests here.
        membership.hear("decide", True)
        membership.engine.append(sent.payload, ledger.seq, done)

    def _look_at_log(self, bounds: Bounds | None) -> None:
        if bounds is not None and self._membership.role is Role.FOLLOWER:
            self._membership.known_seq = max(self._membership.known_seq, bounds.last)
