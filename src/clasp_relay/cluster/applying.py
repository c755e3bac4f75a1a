"""Applies the batches of the log in order: as they come over the bus, and from the log if one is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from clasp_relay.cluster import image as images
from clasp_relay.cluster.batches import Batch, Claimed, HandedOver, NewerVersion, decode_batch, digest_of
from clasp_relay.cluster.ledger import Contradiction
from clasp_relay.cluster.membership import READ_AT_ONCE, Membership, Role, position_row
from clasp_relay.cluster.peers import Peers
from clasp_relay.cluster.ports import Bounds
from clasp_relay.core.relay import Relay
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events

__all__ = ["Applying", "Ring"]

RING_BYTES = 16 * 1024 * 1024
"""How much of the last batches is kept, in case the log should lose them."""

TURN_S = 0.003
"""How long batches that were read from the log are applied in one turn, at least one. All of ``READ_AT_ONCE`` take a
tenth of a second where they are full."""

MAX_AHEAD = READ_AT_ONCE * 16
"""How many batches that came over the bus wait for one that is missing."""


class Ring:
    """The last batches, in case the log should lose them."""

    def __init__(self) -> None:
        self._batches: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, seq: int, payload: bytes) -> None:
        """Takes the next batch."""
        self._batches[seq] = payload
        self._bytes += len(payload)
        while self._bytes > RING_BYTES:
            self._bytes -= len(self._batches.pop(next(iter(self._batches))))

    def get(self, seq: int) -> bytes | None:
        """Returns a batch; None where it is not kept."""
        return self._batches.get(seq)

    def clear(self) -> None:
        """Forgets all."""
        self._batches.clear()
        self._bytes = 0


class Applying:
    """See the module.

    Args:
        membership: this relay's.
        peers: who was heard.
        relay: the core that serves this relay's sessions.
        when_other_base: called when a batch begins with a state that this relay does not have, and that it can get.
    """

    def __init__(self, membership: Membership, peers: Peers, relay: Relay, when_other_base: Callable[[], None]) -> None:
        self.ring = Ring()
        self.failovers = 0
        """How often another relay has come to decide, after the first."""
        self._membership = membership
        self._peers = peers
        self._relay = relay
        self._when_other_base = when_other_base
        self._live: dict[int, bytes] = {}
        """Batches that came over the bus ahead of their time."""
        self.is_reading = False
        """Whether something is being read from the log."""

    @property
    def _can_apply(self) -> bool:
        """Whether nothing of this relay's own is on its way into its journal, which has to be applied before."""
        return not self._membership.releasing and not self._membership.is_over

    # Over the bus

    def hear_live(self, seq: int, payload: bytes) -> None:
        """Takes a batch that has left the decider."""
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
        """Applies what is there, and reads what is missing."""
        self._apply_live()
        if self._membership.ledger.seq < self._membership.known_seq:
            self.read_gap()

    def begin_anew(self) -> None:
        """Forgets what came of a log that is not this relay's any more."""
        self._membership.known_seq = 0
        self._live.clear()

    def _apply_live(self) -> None:
        """Applies the batches that came over the bus, as far as none is missing."""
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
        """Reads from the log what did not come over the bus; does nothing while that is at work."""
        if self.is_reading or not self._can_apply:
            return
        self.is_reading = True
        seq = self._membership.ledger.seq + 1
        self._membership.engine.read(seq, READ_AT_ONCE, lambda payloads: self._read(seq, payloads))

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
            # What has not left the decider yet is not its followers' to tell.
            if seq > membership.known_seq or membership.is_over:
                break
            # Meanwhile it may have come over the bus.
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
                membership.engine.bounds(self._check_reach)

    def _check_reach(self, bounds: Bounds | None) -> None:
        """Stops where the log has let go of what this relay has not read."""
        membership = self._membership
        missing = membership.ledger.seq + 1
        if bounds is not None and bounds.first > missing and membership.role is Role.FOLLOWER:
            membership.fatal(
                f"the stream {membership.stream} has dropped batch {missing} before this relay has read it: "
                "start it with an empty data-dir"
            )

    # One batch

    def apply_next(self, seq: int, payload: bytes) -> None:
        """Checks and applies the next batch of another decider, or of this one's past."""
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
        """Tells whether a batch begins with a state that this relay does not have; then it is not to be applied."""
        membership = self._membership
        claim = next((item for item in batch.items if isinstance(item, Claimed)), None)
        if claim is None or claim.base == membership.base or not (claim.base or membership.is_cold):
            return False
        # Where nothing is lost here, another relay gives an image; else it tells what the log does not have.
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
            if isinstance(item, Claimed):
                membership.base = b""
                membership.is_cold = membership.is_cold and not item.is_cold
                self.failovers += bool(decider) and decider != item.link
                events.CLUSTER_DECIDER.log(relay=item.relay, epoch=batch.epoch, seq=seq)
            elif isinstance(item, HandedOver) and is_recorded:
                # Whoever is first takes over; the one that handed over waits.
                self._peers.hear_decider()
            elif isinstance(item, HandedOver):
                self._peers.expect_decider()
