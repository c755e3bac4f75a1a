"""Appends the decider's batches to the log, and sends them to all relays once they are there.

One batch at a time is on its way into the log and then into the decider's own journal, and leaves the decider when both
have it; changes that are decided meanwhile are gathered for the next one. So batches grow with the load, and nothing
waits for a timer. Only a full batch does not wait for the journal, which takes several at once. If an append is
refused, another relay is the decider, or the log has lost its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clasp_relay.cluster.applying import Applying
from clasp_relay.cluster.deciding.batch_log import MAX_BATCH_BYTES, Row, Sealed
from clasp_relay.cluster.deciding.deciding import Deciding
from clasp_relay.cluster.exchange.batches import Batch, HandedOver, Item, digest_of, encode_batch
from clasp_relay.cluster.exchange.ports import Appended, Bounds, Outcome
from clasp_relay.cluster.membership import RETRY_S, Membership, Role, position_row
from clasp_relay.cluster.peers import Peers
from clasp_relay.core.relay import Relay
from clasp_relay.logs import events

__all__ = ["Appending", "Sent"]


class Sent(NamedTuple):
    """A batch on its way into the log."""

    payload: bytes
    batch: Batch
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, batch: Batch, rows: tuple[Row, ...] = ()) -> Sent:
        """Encodes a batch; ``rows`` are its changes for the journal."""
        return cls(encode_batch(batch), batch, rows)


class Appending:
    """See the module.

    Args:
        membership: the membership of this relay.
        peers: the other relays.
        applying: applies batches that have left the decider.
        relay: the serving core.
        make_deciding: makes the decider's core, given its epoch and the Unix time in µs at which its clock begins.
        report: called for each scheduled bundle that is refused.
        when_lost: called when the log has lost batches that no relay has in memory.
    """

    def __init__(
        self,
        membership: Membership,
        peers: Peers,
        applying: Applying,
        relay: Relay,
        make_deciding: Callable[[int, int], Deciding],
        report: Callable[[str, str], None],
        when_lost: Callable[[], None],
    ) -> None:
        self.deciding: Deciding | None = None
        """The decider's core; None if another relay is the decider."""
        self._membership = membership
        self._peers = peers
        self._applying = applying
        self._relay = relay
        self._make_deciding = make_deciding
        self._report = report
        self._when_lost = when_lost
        self._sealed: deque[Sealed] = deque()
        """Batches that were closed and are not on their way yet."""
        self._sealed_bytes = 0
        self._has_turn = False
        self._sending: Sent | None = None
        self._log_seq = 0
        """The last batch that the log has acknowledged to this decider."""
        self._log_digest = b""
        self._when_handed_over: Callable[[], None] | None = None
        """Called once this relay has handed over; None if it does not hand over."""

    @property
    def is_handing_over(self) -> bool:
        """Whether this relay takes no more requests, since another one is to become the decider."""
        return self._when_handed_over is not None

    # Begin and end

    def decide(self) -> None:
        """Makes this relay the decider; called when its claim is recorded."""
        membership = self._membership
        if membership.is_over:
            return
        membership.be(Role.DECIDER)
        self._peers.forget()
        deciding = self._make_deciding(membership.ledger.epoch, membership.ledger.time_us)
        deciding.log.when_filled = self._append_later
        deciding.log.when_full = self._close_batch
        self.deciding = deciding
        membership.following.is_local = True
        deciding.begin(self._relay, membership.ledger, self._report)
        membership.following.requests.resend()
        self.append()

    def step_down(self) -> None:
        """Ends deciding. Changes that the log does not have are discarded: no client has seen them."""
        self._end_deciding()
        self._sealed.clear()
        self._sealed_bytes = 0
        self._sending = None
        self._when_handed_over = None
        if self._membership.role is Role.DECIDER:
            self._membership.be(Role.FOLLOWER)
        self._peers.hear_decider()

    def depose(self, known_seq: int) -> None:
        """Steps down for another relay, which has appended to the log; ``known_seq`` is the log's last batch."""
        membership = self._membership
        events.CLUSTER_DEPOSED.log(epoch=membership.ledger.epoch)
        membership.known_seq = max(membership.known_seq, known_seq)
        self.step_down()

    def hand_over(self, then: Callable[[], None]) -> None:
        """Hands over to another relay once all that was decided is in the log; then makes a call."""
        events.CLUSTER_HANDS_OVER.log(epoch=self._membership.ledger.epoch)
        self._seal()
        self._when_handed_over = then
        self.append()

    def _end_hand_over(self, deciding: Deciding) -> None:
        """Appends that this relay is no longer the decider, once all that it has decided is in the log."""
        then = self._when_handed_over
        if then is None or self._sending is not None:
            return
        sent = self._next(deciding, (HandedOver(),))

        def done(answer: Appended) -> None:
            if answer.outcome is Outcome.DONE and answer.seq == self._log_seq + 1:
                self.record(answer.seq, sent, then)
            self.step_down()

        self._when_handed_over = None
        self._end_deciding()
        self._membership.engine.append(sent.payload, self._log_seq, done)

    def _end_deciding(self) -> None:
        deciding, self.deciding = self.deciding, None
        self._membership.following.is_local = False
        if deciding is not None:
            deciding.stop()

    # Decided changes

    def _append_later(self) -> None:
        """Schedules an append of all that this turn decides, if no batch is on its way or the gathered one is full."""
        if not self._has_turn and (self._is_full or (self._sending is None and not self._is_held)):
            self._has_turn = True
            self._membership.call_later(0, self._append_now)

    def append_behind(self, decide: Callable[[], None]) -> None:
        """Appends what a call decides, a turn's messages together, as one batch at once if none is on its way."""
        has_turn, self._has_turn = self._has_turn, True
        try:
            decide()
        finally:
            self._has_turn = has_turn
            self.append()

    def _append_now(self) -> None:
        self._has_turn = False
        self.append()

    def _close_batch(self) -> None:
        """Closes the gathered batch, within a turn that decides more."""
        self._seal()
        self.append()

    def _seal(self) -> None:
        deciding = self.deciding
        if deciding is None:
            return
        for sealed in deciding.seal():
            self._sealed.append(sealed)
            self._sealed_bytes += sealed.size_bytes
        deciding.log.waiting_bytes = self._sealed_bytes

    # Into the log

    def append(self) -> None:
        """Sends the next batch to the log; one at a time, so that no batch ever comes after a missing one."""
        deciding = self.deciding
        if deciding is None:
            return
        if self._is_full:
            self._seal()
        if self._sending is not None or not self._membership.engine.is_connected:
            return
        if not self._sealed:
            if self._is_held:
                return
            self._seal()
        if not self._sealed:
            self._end_hand_over(deciding)
            return
        sealed = self._sealed.popleft()
        self._sealed_bytes -= sealed.size_bytes
        deciding.log.waiting_bytes = self._sealed_bytes
        self._sending = self._next(deciding, sealed.items, sealed.rows)
        self._try_append()

    @property
    def _is_full(self) -> bool:
        """Whether so much was gathered that the batch is closed even while another one is on its way."""
        return self.deciding is not None and self.deciding.log.size_bytes > MAX_BATCH_BYTES

    @property
    def _is_held(self) -> bool:
        """Whether changes are gathered until the batch before has left.

        As a batch of their own they would leave no earlier: the journal syncs once for all that was appended meanwhile.
        And each batch costs all relays and the engine as much as some writes.
        """
        return bool(self._membership.releasing) and not self.is_handing_over

    def _next(self, deciding: Deciding, items: tuple[Item, ...], rows: tuple[Row, ...] = ()) -> Sent:
        now_us = deciding.relay.clock.now_us()
        journal_seq = self._membership.journal.appended_seq
        return Sent.of(Batch(deciding.epoch, self._log_digest, now_us, journal_seq, items), rows)

    def _try_append(self) -> None:
        sent = self._sending
        if sent is not None and not self._membership.is_over:
            self._membership.engine.append(sent.payload, self._log_seq, lambda answer: self._appended(sent, answer))

    def _try_later(self) -> None:
        self._membership.call_later(RETRY_S, self._try_append)

    def _appended(self, sent: Sent, answer: Appended) -> None:
        if self._sending is not sent:
            return
        if answer.outcome is Outcome.FAILED:
            self._try_later()
        elif answer.outcome is Outcome.TOO_LONG:
            self._decide_anew(sent)
        elif answer.outcome is Outcome.DONE and answer.seq == self._log_seq + 1:
            self._in_log(sent)
        else:
            # An earlier attempt may have succeeded, or another relay is the decider.
            self._membership.engine.bounds(lambda bounds: self._refused(sent, bounds))

    def _decide_anew(self, sent: Sent) -> None:
        """Steps down, which discards what was decided, since the log does not take a batch as long as this one.

        The requests are decided again by the next decider; those that wait too long are answered with an error.
        """
        events.CLUSTER_TOO_LONG.log(count=len(sent.payload))
        self.step_down()
        self._peers.expect_decider()

    def _in_log(self, sent: Sent) -> None:
        self._sending = None
        self.record(self._log_seq + 1, sent, _nothing)
        self.append()

    def _refused(self, sent: Sent, bounds: Bounds | None) -> None:
        """Finds out why an append was refused."""
        if self._sending is not sent or self._membership.is_over:
            return
        if bounds is None or bounds.last == self._log_seq:
            self._try_later()
            return
        if bounds.last < self._log_seq:
            self.repair(bounds.last, self._try_append)
            return

        def found(payloads: Sequence[bytes] | None) -> None:
            if self._sending is not sent or self._membership.is_over:
                return
            if payloads is None:
                self._try_later()
            elif payloads and payloads[0] == sent.payload:
                self._in_log(sent)
            else:
                self.depose(bounds.last)

        self._membership.engine.read(self._log_seq + 1, 1, found)

    # Out of the log

    def record(self, seq: int, sent: Sent, then: Callable[[], None]) -> None:
        """Records a batch of the log in this relay's journal; then sends it to all relays, and makes a call."""
        membership = self._membership
        digest = digest_of(sent.payload)
        self._log_seq, self._log_digest = seq, digest
        membership.journal.append_judged((*sent.rows, position_row(seq, digest, sent.batch)), is_last=True)
        journal_seq = membership.journal.appended_seq
        membership.releasing += 1

        def recorded() -> None:
            membership.releasing -= 1
            if membership.is_over and membership.role is not Role.DECIDER and not membership.engine.is_connected:
                return
            with membership.engine.in_one_write():
                membership.publish("live", seq.to_bytes(8, "big") + sent.payload)
                if not self.is_handing_over:
                    # The log can take the next batch while this relay applies this one.
                    self.append()
            membership.known_seq = max(membership.known_seq, seq)
            self._applying.take(seq, digest, sent.payload, sent.batch, is_recorded=True)
            membership.applied_journal_seq = journal_seq
            then()
            self.append()

        membership.journal.when_recorded(recorded)

    # A log that has lost its end

    def repair(self, last: int, then: Callable[[], None]) -> None:
        """Appends again the batches after ``last`` that the log had acknowledged and has lost; then makes a call."""
        self._membership.alarm(f"the stream {self._membership.stream} ends at batch {last}, not at {self._end_of_log}")
        self._append_again(last, then)

    def _append_again(self, last: int, then: Callable[[], None]) -> None:
        payload = self._applying.ring.get(last + 1)
        if payload is None:
            self._when_lost()
            return

        def done(answer: Appended) -> None:
            if self._membership.is_over:
                return
            if answer.outcome is Outcome.DONE and last + 1 < self._end_of_log:
                self._append_again(last + 1, then)
            else:
                then()

        self._membership.engine.append(payload, last, done)

    @property
    def _end_of_log(self) -> int:
        """The last batch that the log has acknowledged, as far as this relay knows."""
        return self._log_seq if self._membership.role is Role.DECIDER else self._membership.ledger.seq


def _nothing() -> None:
    """Does nothing."""
