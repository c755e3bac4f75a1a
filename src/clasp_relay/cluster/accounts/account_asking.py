"""Requests of a relay about accounts to the decider: calls that write, and the number of the last record.

While many calls are on their way to the decider, others are queued, in lanes of client addresses. A call that is sent
gets a number, counted within the link, and is kept until the log has its outcome. Each packet names the call before it,
so that the decider notices a missing one; then, and whenever another relay becomes the decider, all calls that are not
done are sent again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
from twisted.internet.defer import Deferred, fail, succeed

from clasp_relay.cluster.accounts.account_calls import Failed, decode_outcome, pack, unpack, unpacked
from clasp_relay.cluster.accounts.account_records import Record
from clasp_relay.cluster.following.following import Following
from clasp_relay.core.lanes import Lanes
from clasp_relay.errors import DecodeError
from clasp_relay.storage.users import StoreRefusal

__all__ = [
    "NOT_DONE",
    "TOO_MUCH",
    "UNKNOWN",
    "AccountCalls",
    "Call",
    "CallPacket",
    "LookingBehind",
    "decode_packet",
    "encode_packet",
]

VERSION = 1

WAITS_S = 5.0
"""How long a call waits for its outcome before it fails."""

RESEND_S = 1.0
"""How long after the last attempt calls that are not done are sent again."""

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Memory limit of the calls that are not done; beyond it calls are refused."""

MAX_WAITING_IN_LANE = 512
"""How many calls of one lane may be queued; ``access.store_calls`` has the same limit for calls that are made here."""

AT_ONCE = 256
"""How many calls are on their way to the decider at once, which attempts 64 together. The others are queued here, where
the lanes take turns."""

MAX_ARGUMENTS_BYTES = 512 * 1024
"""Size limit of the arguments of one call."""

CALL_BYTES = 200
"""Approximate memory of a call besides its arguments."""

PACKET_BYTES = 256 * 1024
"""A packet of this size gets no more calls; a message of NATS may have 1 MiB."""

NOT_DONE = "The relay has no connection to its cluster at the moment. Try again in a few seconds."
UNKNOWN = "The cluster did not answer in time; what was asked may be done all the same. Try again in a few seconds."
TOO_MUCH = "Too many requests wait for the cluster. Try again in a few seconds."


class Call(NamedTuple):
    """A call of a store, to be made by the decider."""

    number: int
    method: str
    arguments: bytes


class CallPacket(NamedTuple):
    """The calls that a relay sends in one turn."""

    link: str
    epoch: int
    """The epoch of the decider that it is for; any other one ignores it."""
    is_first: bool
    """Whether all calls that are not done are sent again, from the first one in this packet on."""
    previous: int
    """The number of the call before these; 0 if they are the first ones."""
    calls: tuple[Call, ...]


def encode_packet(packet: CallPacket) -> bytes:
    """Encodes a packet."""
    data: bytes = msgpack.packb((VERSION, *(pack(each) for each in packet)))
    return data


def decode_packet(data: bytes) -> CallPacket:
    """Decodes a packet.

    Raises:
        DecodeError: it is no packet, or of another version.
    """
    packet: CallPacket = unpack(CallPacket, unpacked(data, "calls", VERSION))
    return packet


class _Kept:
    """A call that is not done yet; it gets its number when it is sent."""

    __slots__ = ("call", "done", "is_sent", "since_s")

    def __init__(self, call: Call, since_s: float) -> None:
        self.call = call
        self.since_s = since_s
        self.is_sent = False
        self.done: Deferred[Any] = Deferred()

    @property
    def size_bytes(self) -> int:
        """Approximate memory of the call."""
        return CALL_BYTES + len(self.call.arguments)


class AccountCalls:
    """The calls of one link.

    Args:
        following: knows the decider, and whether it can be reached.
        monotonic_s: returns seconds.
        call_later: the event loop's.
        send: sends a packet to the decider.
        busy: makes the exception of a call that was not done, or perhaps not, from a sentence.
    """

    def __init__(
        self,
        following: Following,
        monotonic_s: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        send: Callable[[CallPacket], None],
        busy: Callable[[str], Exception],
    ) -> None:
        self.link = ""
        """The id of the link; set before the first call."""
        self._following = following
        self._monotonic_s = monotonic_s
        self._call_later = call_later
        self._send = send
        self._busy = busy
        self._queued: Lanes[_Kept] = Lanes()
        """Calls that are not sent yet, while others are on their way."""
        self._lane_of: dict[_Kept, str] = {}
        """The lane of each queued call; the oldest first."""
        self._lanes: Counter[str] = Counter()
        """Number of queued calls of each lane."""
        self._kept: dict[int, _Kept] = {}
        """Calls that are on their way, by number."""
        self._turn: list[_Kept] = []
        self._number = self._sent_number = 0
        self._waiting_bytes = 0
        self._is_first = True
        self._is_flushing = self._is_over = False
        self._epoch = 0
        """The epoch of the decider that the calls on their way were sent to."""
        self._resent_s = 0.0

    def ask(self, method: str, arguments: bytes, lane: str = "") -> Deferred[Any]:
        """Asks the decider to make a call.

        Args:
            method: the name of the method.
            arguments: its encoded arguments.
            lane: the lane of the client address that the call is for; empty for none, which has no limit.

        Returns:
            a Deferred of the method's result; it fires once the changes of the call are in this relay's file. It fails
            with a StoreRefusal, with Failed, or with the exception of ``busy``.
        """
        if self._is_over or self._following.is_cut_off:
            return fail(self._busy(NOT_DONE))
        if self._waiting_bytes > MAX_WAITING_BYTES or (lane and self._lanes[lane] >= MAX_WAITING_IN_LANE):
            return fail(self._busy(TOO_MUCH))
        if len(arguments) > MAX_ARGUMENTS_BYTES:
            return fail(Failed(f"a call of {method} has {len(arguments)} bytes"))
        kept = _Kept(Call(0, method, arguments), self._monotonic_s())
        self._waiting_bytes += kept.size_bytes
        self._queued.add(kept, lane)
        self._lane_of[kept] = lane
        self._lanes[lane] += 1
        self._begin()
        return kept.done

    def _begin(self) -> None:
        """Numbers the next queued calls, and schedules their sending."""
        while self._queued and len(self._kept) < AT_ONCE:
            kept = self._queued.pop()
            self._left(kept)
            self._number += 1
            kept.call = kept.call._replace(number=self._number)
            self._kept[self._number] = kept
            self._turn.append(kept)
            self._flush_later()

    def _left(self, kept: _Kept) -> None:
        """Removes a call from the counts of its lane."""
        lane = self._lane_of.pop(kept)
        self._lanes[lane] -= 1
        if not self._lanes[lane]:
            del self._lanes[lane]

    def is_in(self, record: Record) -> bool:
        """Tells whether a record has the outcome of a call of this link."""
        return any(done.link == self.link for done in record.done)

    def answer(self, record: Record) -> None:
        """Fires the Deferreds of the calls whose outcomes a record has; its rows are written already."""
        for done in record.done:
            kept = self._kept.pop(done.number, None) if done.link == self.link else None
            if kept is None:
                continue
            self._waiting_bytes -= kept.size_bytes
            try:
                result = decode_outcome(kept.call.method, done.outcome)
            except (StoreRefusal, Failed, DecodeError) as error:
                kept.done.errback(error)
            else:
                kept.done.callback(result)
        self._begin()

    def tick(self, now_s: float) -> None:
        """Sends calls without an outcome again, and fails those that have waited for too long."""
        for kept in [each for each in self._all() if now_s - each.since_s > WAITS_S]:
            self._give_up(kept)
        self._begin()
        if self._kept:
            oldest_s = max(self._resent_s, next(iter(self._kept.values())).since_s)
            if self._epoch != self._following.ledger.epoch or now_s - oldest_s > RESEND_S:
                self.resend()

    def resend(self) -> None:
        """Sends all calls on their way again."""
        self._resent_s = self._monotonic_s()
        self._is_first = True
        self._flush_later()

    def stop(self) -> None:
        """Fails all calls that are not done, and later ones."""
        self._is_over = True
        for kept in self._all():
            self._give_up(kept)

    def _all(self) -> list[_Kept]:
        return [*self._kept.values(), *self._lane_of]

    def _give_up(self, kept: _Kept) -> None:
        if kept.call.number:
            del self._kept[kept.call.number]
            self._turn = [each for each in self._turn if each is not kept]
        else:
            self._queued.discard(kept)
            self._left(kept)
        self._waiting_bytes -= kept.size_bytes
        kept.done.errback(self._busy(UNKNOWN if kept.is_sent else NOT_DONE))

    def _flush_later(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._call_later(0, self._flush)

    def _flush(self) -> None:
        """Sends the calls of this turn."""
        self._is_flushing = False
        turn, self._turn = self._turn, []
        following = self._following
        if self._is_over or not following.ledger.decider or following.is_cut_off:
            self._is_first = True  # all calls that are not done are sent to the next decider
            return
        if self._epoch != following.ledger.epoch:
            self._epoch, self._is_first = following.ledger.epoch, True
        if self._is_first:
            turn = list(self._kept.values())
        calls: list[Call] = []
        size_bytes = 0
        for kept in turn:
            kept.is_sent = True
            calls.append(kept.call)
            size_bytes += kept.size_bytes
            if size_bytes >= PACKET_BYTES:
                self._send_calls(calls)
                calls, size_bytes = [], 0
        if calls:
            self._send_calls(calls)

    def _send_calls(self, calls: list[Call]) -> None:
        is_first, self._is_first = self._is_first, False
        previous, self._sent_number = self._sent_number, calls[-1].number
        self._send(CallPacket(self.link, self._epoch, is_first, 0 if is_first else previous, tuple(calls)))


class LookingBehind:
    """Waits until this relay's file has all changes that a client may know of: all records that the decider has.

    The decider is asked for the number of its last record, one question at a time. A caller that comes while a question
    is on its way waits for the next one.

    Args:
        following: knows the decider, and whether it can be reached.
        monotonic_s: returns seconds.
        send: sends the decider a question with this number.
        busy: makes the exception of a question without an answer, from a sentence.
    """

    def __init__(
        self,
        following: Following,
        monotonic_s: Callable[[], float],
        send: Callable[[int], None],
        busy: Callable[[str], Exception],
    ) -> None:
        self._following = following
        self._monotonic_s = monotonic_s
        self._send = send
        self._busy = busy
        self._number = 0
        """The number of the last question."""
        self._is_out = False
        """Whether it is not answered yet."""
        self._asked: list[tuple[int, float, Deferred[None]]] = []
        """Callers that wait for an answer: the number of the question, since when, and their Deferred."""
        self._told: list[tuple[int, float, Deferred[None]]] = []
        """Callers that wait for a record to be written here: its number, since when, and their Deferred."""
        self._sent_s = 0.0
        self._is_over = False

    def ask(self) -> Deferred[None]:
        """Returns a Deferred that fires when this relay's file has all records that the decider has at the question."""
        if self._following.is_local and not self._is_over:
            return succeed(None)
        if self._following.is_cut_off or self._is_over:
            return fail(self._busy(NOT_DONE))
        done: Deferred[None] = Deferred()
        self._asked.append((self._number + 1, self._monotonic_s(), done))
        if not self._is_out:
            self._send_next()
        return done

    def _send_next(self) -> None:
        self._number += 1
        self._is_out = True
        self._resend()

    def _resend(self) -> None:
        self._sent_s = self._monotonic_s()
        self._send(self._number)

    def answered(self, number: int, record: int, written: int) -> None:
        """Takes an answer.

        Args:
            number: the number of the question.
            record: the last record that the decider has.
            written: the last record that this relay's file has.
        """
        if number != self._number or not self._is_out:
            return  # the answer came twice, or the callers have timed out
        self._is_out = False
        self._told += [(record, since_s, done) for asked, since_s, done in self._asked if asked <= number]
        self._asked = [each for each in self._asked if each[0] > number]
        if self._asked:
            self._send_next()
        self.written(written)

    def written(self, record: int) -> None:
        """Fires the Deferreds that wait for records up to this one, the last that this relay's file has."""
        if not self._told:
            return
        fired = [done for wanted, _, done in self._told if wanted <= record]
        self._told = [each for each in self._told if each[0] > record]
        for done in fired:
            done.callback(None)

    def tick(self, now_s: float) -> None:
        """Asks again, and fails callers that have waited for too long."""
        old = [each for each in (*self._asked, *self._told) if now_s - each[1] > WAITS_S]
        self._asked = [each for each in self._asked if now_s - each[1] <= WAITS_S]
        self._told = [each for each in self._told if now_s - each[1] <= WAITS_S]
        self._is_out = self._is_out and bool(self._asked)
        for _, _, done in old:
            done.errback(self._busy(NOT_DONE))
        if self._asked and self._following.is_local:
            self._is_out = False
            asked, self._asked = self._asked, []
            for _, _, done in asked:
                done.callback(None)
        elif self._is_out and now_s - self._sent_s > RESEND_S:
            self._resend()

    def stop(self) -> None:
        """Fails all callers, and later ones."""
        self._is_over = True
        waiting, self._asked, self._told = [*self._asked, *self._told], [], []
        for _, _, done in waiting:
            done.errback(self._busy(NOT_DONE))
