"""Applies the batches of the log in order: as they arrive on the bus, or read from the log if one is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from clasp_relay.cluster import image as images
from clasp_relay.cluster.exchange.batches import (
    Batch,
    Claimed,
    Group,
    HandedOver,
    NewerVersion,
    decode_batch,
    digest_of,
)
from clasp_relay.cluster.exchange.ledger import Contradiction
from clasp_relay.cluster.exchange.ports import Bounds
from clasp_relay.cluster.membership import READ_AT_ONCE, Membership, Role, position_row
from clasp_relay.cluster.peers import Peers
from clasp_relay.core.relay import Relay
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events

__all__ = ["Applying", "Ring"]

RING_BYTES = 16 * 1024 * 1024
"""Memory limit of the last batches, which are kept in case the log loses them."""

TURN_S = 0.003
"""How long batches from the log are applied in one turn, at least one. ``READ_AT_ONCE`` full ones take a tenth of a
second."""

GAP_S = 1.0
"""How often the log is asked for a batch that it has lost."""

MAX_AHEAD = READ_AT_ONCE * 16
"""How many batches from the bus may wait for a missing one."""


class Ring:
    """The last batches, in case the log loses them."""

    def __init__(self) -> None:
        self._batches: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, seq: int, payload: bytes) -> None:
        """Adds the next batch."""
        self._batches[seq] = payload
        self._bytes += len(payload)
        while self._bytes > RING_BYTES:
            self._bytes -= len(self._batches.pop(next(iter(self._batches))))

    def get(self, seq: int) -> bytes | None:
        """Returns a batch; None if it is not here any more."""
        return self._batches.get(seq)

    def clear(self) -> None:
        """Removes all batches."""
        self._batches.clear()
        self._bytes = 0


class Applying:
    """See the module.

    Args:
        membership: the membership of this relay.
        peers: the other relays.
        relay: the serving core.
        when_other_base: called when a batch begins with a state that this relay does not have, but can get.
        when_gap: called when the log has lost the next batch and another relay has it, or when the log has begun again
            from another relay's journal.
    """

    def __init__(
        self,
        membership: Membership,
        peers: Peers,
        relay: Relay,
        when_other_base: Callable[[], None],
        when_gap: Callable[[], None],
    ) -> None:
        self.ring = Ring()
        self.failovers = 0
        """Number of changes of the decider, after the first one."""
        self._membership = membership
        self._peers = peers
        self._relay = relay
        self._when_other_base = when_other_base
        self._when_gap = when_gap
        self._live: dict[int, bytes] = {}
        """Batches from the bus that wait for a missing one."""
        self.is_reading = False
        """Whether batches are being read from the log."""
        self._missing_seq, self._missed_s = 0, 0.0
        """The batch that the log did not have when this relay looked last, and when that was; 0 if it has always had
        the next one."""
        self._logged_gap_seq = 0
        """The missing batch that was logged last."""

    @property
    def _can_apply(self) -> bool:
        """Whether no batch of this relay's own is on its way into its journal: such a batch is applied first."""
        return not self._membership.releasing and not self._membership.is_over

    # Over the bus

    def hear_live(self, seq: int, payload: bytes) -> None:
        """Takes a batch from the bus, which the decider has sent."""
        membership = self._membership
        if membership.role is Role.DECIDER or seq <= membership.ledger.seq:
            return
        self._peers.hear_decider()
        membership.known_seq = max(membership.known_seq, seq)
        self._live[seq] = payload
        if len(self._live) > MAX_AHEAD:
            del self._live[min(self._live)]
        if membership.role is Role.FOLLOWER:
            self._apply_live()
            if self._live:
                self.read_gap()

    def go_on(self) -> None:
        """Applies the batches that are here, and reads missing ones."""
        self._apply_live()
        if self._membership.ledger.seq < self._membership.known_seq:
            self.read_gap()

    def begin_anew(self) -> None:
        """Drops the batches that wait: they belong to a log that is not this relay's any more."""
        self._membership.known_seq = self._missing_seq = 0
        self._live.clear()

    def _apply_live(self) -> None:
        """Applies the batches from the bus up to the first missing one."""
        live, ledger = self._live, self._membership.ledger
        if not self._can_apply:
            return
        while live and not self._membership.is_over:
            payload = live.pop(ledger.seq + 1, None)
            if payload is None:
                break
            self.apply_next(ledger.seq + 1, payload)
        for seq in [seq for seq in live if seq <= ledger.seq]:
            del live[seq]

    # From the log

    def read_gap(self) -> None:
        """Reads batches that did not arrive on the bus from the log; does nothing while that is under way."""
        if self.is_reading or not self._can_apply:
            return
        seq = self._membership.ledger.seq + 1
        if self._missing_seq != seq or self._membership.monotonic_s() - self._missed_s >= GAP_S:
            self._read_from(seq)

    def _read_from(self, seq: int) -> None:
        self.is_reading = True
        at_most = 1 if self._missing_seq == seq else READ_AT_ONCE
        self._membership.engine.read(seq, at_most, lambda payloads: self._read(seq, payloads))

    def _read(self, first: int, payloads: Sequence[bytes] | None) -> None:
        self.is_reading = False
        membership = self._membership
        ledger = membership.ledger
        if membership.role is not Role.FOLLOWER or not self._can_apply:
            return
        end_s = membership.monotonic_s() + TURN_S
        left = deque(payloads or ())
        for seq in range(first, first + len(left)):
            payload = left.popleft()
            # Followers must not apply a batch that the decider has not sent yet.
            if seq > membership.known_seq or membership.is_over:
                break
            # It may have arrived on the bus meanwhile.
            if seq == ledger.seq + 1:
                self.apply_next(seq, payload)
                if left and membership.monotonic_s() >= end_s:
                    self.is_reading = True
                    membership.call_later(0, partial(self._read, seq + 1, tuple(left)))
                    return
        self._apply_live()
        if ledger.seq < membership.known_seq:
            if payloads:
                self.read_gap()
            elif payloads is not None:
                membership.engine.bounds(self._check_gap)

    def _check_gap(self, bounds: Bounds | None) -> None:
        """Joins again if the log has lost batches that this relay has not read, and another relay has them.

        The first finding counts for nothing: the decider appends a lost end again with its next batch.
        """
        membership = self._membership
        missing, now_s = membership.ledger.seq + 1, membership.monotonic_s()
        if bounds is None or membership.role is not Role.FOLLOWER or not self._can_apply:
            return
        if self._missing_seq != missing:
            self._missing_seq, self._missed_s = missing, now_s
            if bounds.last >= missing:
                self._read_from(missing)
            return
        self._missed_s = now_s
        if self._logged_gap_seq != missing:
            self._logged_gap_seq = missing
            events.CLUSTER_GAP.log(seq=missing)
        if any(beat.seq >= missing for beat in self._peers.living()):
            self._when_gap()

    # One batch

    def apply_next(self, seq: int, payload: bytes) -> None:
        """Checks and applies the next batch, of another decider or from this relay's own time as the decider."""
        membership = self._membership
        digest = digest_of(payload)
        try:
            batch = decode_batch(payload)
            membership.ledger.check(seq, batch)
        except NewerVersion as error:
            membership.fatal(f"batch {seq} of the stream {membership.stream}: {error.message}; update this relay")
            return
        except DecodeError as error:
            membership.fatal(f"batch {seq} of the stream {membership.stream}: {error.message}")
            return
        except Contradiction as error:
            membership.alarm(str(error))
            membership.fatal(f"the stream {membership.stream} contradicts what this relay has: {error}")
            return
        if not self._is_of_other_base(batch):
            self.take(seq, digest, payload, batch, is_recorded=False)

    def _is_of_other_base(self, batch: Batch) -> bool:
        """Tells whether a batch begins with a state that this relay does not have; then it must not be applied."""
        membership = self._membership
        claim = next((item for item in batch.items if isinstance(item, Claimed)), None)
        if claim is None or claim.base == membership.base or not (claim.base or membership.is_cold):
            return False
        if membership.role is Role.FOLLOWER and claim.base and membership.ledger.seq and not membership.base:
            # The log has begun again from another relay's journal, which may only have more than this one's.
            self._when_gap()
            return True
        # If this relay has no state to lose, it can get an image of another one.
        has_nothing = not membership.ledger.seq and images.is_empty(self._relay.params)
        if membership.role is Role.JOINING or has_nothing:
            self._when_other_base()
        else:
            membership.fatal(
                f"the relay {claim.relay} has begun the log of the cluster {membership.stream} with another state "
                "than this relay has: start this relay with an empty data-dir"
            )
        return True

    def take(self, seq: int, digest: bytes, payload: bytes, batch: Batch, *, is_recorded: bool) -> None:
        """Applies a batch that is the next one.

        Args:
            seq: its number.
            digest: its digest.
            payload: its bytes.
            batch: the batch.
            is_recorded: whether this relay's journal has its changes.
        """
        membership = self._membership
        decider = membership.ledger.decider
        membership.following.take_batch(seq, digest, batch, is_recorded=is_recorded)
        if not is_recorded:
            membership.journal.append_judged((position_row(seq, digest, batch),))
            membership.applied_journal_seq = membership.journal.appended_seq
        self.ring.add(seq, payload)
        for item in batch.items:
            if type(item) is Group:  # nearly all of them
                continue
            if isinstance(item, Claimed):
                membership.base = b""
                membership.is_cold = membership.is_cold and not item.is_cold
                self.failovers += bool(decider) and decider != item.link
                events.CLUSTER_DECIDER.log(relay=item.relay, epoch=batch.epoch, seq=seq)
            elif isinstance(item, HandedOver) and is_recorded:
                # The first relay to claim takes over; the one that handed over waits.
                self._peers.hear_decider()
            elif isinstance(item, HandedOver):
                self._peers.expect_decider()
