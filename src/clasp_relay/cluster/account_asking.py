"""Requests of a relay about accounts to the decider: calls that write, and how far the log is.

Calls wait, client addresses in turn, while many are on their way. Then they are numbered within a run of the relay, and
kept until the log says that they are done. Each packet says which call came before it, so that the decider notices one
that is missing; then, and whenever another relay decides, all is sent again that is not done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
from twisted.internet.defer import Deferred, fail, succeed

from clasp_relay.cluster.account_calls import Failed, decode_outcome, pack, unpack, unpacked
from clasp_relay.cluster.account_records import Record
from clasp_relay.cluster.following import Following
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
"""How long a call waits for a decider."""

RESEND_S = 1.0
"""After so long without an outcome all that is not done is sent again."""

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""How much of what was asked may wait; beyond it calls are refused."""

MAX_WAITING_IN_LANE = 512
"""How many calls for requests of one client address may wait until they are sent; ``access.store_calls`` has the same
bound for calls that are made here."""

AT_ONCE = 256
"""How many calls are on their way to the decider at once, which attempts 64 together: the others wait here, where
client addresses take turns."""

MAX_ARGUMENTS_BYTES = 512 * 1024
"""How long the arguments of one call may be."""

CALL_BYTES = 200
"""About what a call takes beside its arguments."""

PACKET_BYTES = 256 * 1024
"""From this size on a packet is closed; NATS carries 1 MiB at most."""

NOT_DONE = "The relay has no connection to its cluster at the moment. Try again in a few seconds."
UNKNOWN = "The cluster did not answer in time; what was asked may be done all the same. Try again in a few seconds."
TOO_MUCH = "Too many requests wait for the cluster. Try again in a few seconds."


class Call(NamedTuple):
    """A call of a store, to be made by the decider."""

    number: int
    method: str
    arguments: bytes


class CallPacket(NamedTuple):
    """What one relay asks in one turn."""

    link: str
    epoch: int
    """Of the decider that it is meant for; another one leaves it out."""
    is_first: bool
    """Whether all that is not done begins here anew."""
    previous: int
    """The number of the call before these; 0 where they are the first ones."""
    calls: tuple[Call, ...]


def encode_packet(packet: CallPacket) -> bytes:
    """Encodes a packet."""
    data: bytes = msgpack.packb((VERSION, *(pack(each) for each in packet)))
    return data


def decode_packet(data: bytes) -> CallPacket:
    """Decodes a packet.

    Raises:
        DecodeError: it is none, or of another version.
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
        """About what it takes."""
        return CALL_BYTES + len(self.call.arguments)


class AccountCalls:
    """The calls of one run of a relay.

    Args:
        following: knows who decides, and whether that one can be reached.
        monotonic_s: seconds.
        call_later: the event loop's.
        send: takes a packet to whoever decides.
        busy: makes what a call fails with that was not or may not have been done, from a sentence.
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
        """Names this run of the relay; set before anything is asked."""
        self._following = following
        self._monotonic_s = monotonic_s
        self._call_later = call_later
        self._send = send
        self._busy = busy
        self._queued: Lanes[_Kept] = Lanes()
        """Those that are not sent yet, since others are on their way."""
        self._lane_of: dict[_Kept, str] = {}
        """Whose they are; the oldest first."""
        self._lanes: Counter[str] = Counter()
        """How many of each."""
        self._kept: dict[int, _Kept] = {}
        """Those that are on their way, by number."""
        self._turn: list[_Kept] = []
        self._number = self._sent_number = 0
        self._waiting_bytes = 0
        self._is_first = True
        self._is_flushing = self._is_over = False
        self._epoch = 0
        """Of the decider that all was sent to that is not done."""
        self._resent_s = 0.0

    def ask(self, method: str, arguments: bytes, lane: str = "") -> Deferred[Any]:
        """Asks a call of the decider.

        Args:
            method: its name.
            arguments: encoded.
            lane: the lane of the client address that it is for; empty where it is for none, and no lane's bound holds.

        Returns:
            a Deferred of what the method returns, once this relay's file has what the call has changed. It fails with
            a StoreRefusal, with Failed, or with what ``busy`` makes.
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
        """Numbers the next ones, and has them sent."""
        while self._queued and len(self._kept) < AT_ONCE:
            kept = self._queued.pop()
            self._left(kept)
            self._number += 1
            kept.call = kept.call._replace(number=self._number)
            self._kept[self._number] = kept
            self._turn.append(kept)
            self._flush_later()

    def _left(self, kept: _Kept) -> None:
        """Notes that one waits in no lane any more."""
        lane = self._lane_of.pop(kept)
        self._lanes[lane] -= 1
        if not self._lanes[lane]:
            del self._lanes[lane]

    def is_in(self, record: Record) -> bool:
        """Tells whether a record is the outcome of a call of this relay."""
        return any(done.link == self.link for done in record.done)

    def answer(self, record: Record) -> None:
        """Gives the outcomes of a record, whose rows are written, to whoever asked."""
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
        """Sends again what waits for an outcome, and gives up what has waited for too long."""
        for kept in [each for each in self._all() if now_s - each.since_s > WAITS_S]:
            self._give_up(kept)
        self._begin()
        if self._kept:
            oldest_s = max(self._resent_s, next(iter(self._kept.values())).since_s)
            if self._epoch != self._following.ledger.epoch or now_s - oldest_s > RESEND_S:
                self.resend()

    def resend(self) -> None:
        """Sends all again that is not done."""
        self._resent_s = self._monotonic_s()
        self._is_first = True
        self._flush_later()

    def stop(self) -> None:
        """Gives up what is not done, and takes nothing any more."""
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
        """Sends what was asked in this turn."""
        self._is_flushing = False
        turn, self._turn = self._turn, []
        following = self._following
        if self._is_over or not following.ledger.decider or following.is_cut_off:
            self._is_first = True  # all that is not done is sent to the next decider
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
    """Finds out whether all is here that somebody may have been told of: where the decider is, is written here, too.

    One question is on its way at a time; whoever asks meanwhile waits for the next one.

    Args:
        following: knows who decides, and whether that one can be reached.
        monotonic_s: seconds.
        send: asks the decider, with a number, up to which record the log is.
        busy: makes what a question fails with that is not answered, from a sentence.
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
        """Of the last question."""
        self._is_out = False
        """Whether it is not answered yet."""
        self._asked: list[tuple[int, float, Deferred[None]]] = []
        """Who waits for the answer to which question, and since when."""
        self._told: list[tuple[int, float, Deferred[None]]] = []
        """Who waits until which record is written here, and since when."""
        self._sent_s = 0.0
        self._is_over = False

    def ask(self) -> Deferred[None]:
        """Returns a Deferred that fires when all is written here that the decider had when it was asked."""
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
            number: of the question.
            record: up to which the decider has the log.
            written: up to which record this relay's file has it.
        """
        if number != self._number or not self._is_out:
            return  # asked twice, or given up
        self._is_out = False
        self._told += [(record, since_s, done) for asked, since_s, done in self._asked if asked <= number]
        self._asked = [each for each in self._asked if each[0] > number]
        if self._asked:
            self._send_next()
        self.written(written)

    def written(self, record: int) -> None:
        """Is told up to which record this relay's file has the log."""
        if not self._told:
            return
        fired = [done for wanted, _, done in self._told if wanted <= record]
        self._told = [each for each in self._told if each[0] > record]
        for done in fired:
            done.callback(None)

    def tick(self, now_s: float) -> None:
        """Asks again, and gives up what has waited for too long."""
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
        """Gives up all, and takes nothing any more."""
        self._is_over = True
        waiting, self._asked, self._told = [*self._asked, *self._told], [], []
        for _, _, done in waiting:
            done.errback(self._busy(NOT_DONE))
