"""Tests of clasp_relay.cluster.accounts.account_asking: what waits for the decider is bounded, and in order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Busy
from clasp_relay.cluster.accounts import account_asking as module
from clasp_relay.cluster.accounts.account_asking import (
    AccountCalls,
    Call,
    CallPacket,
    LookingBehind,
    decode_packet,
    encode_packet,
)
from clasp_relay.cluster.accounts.account_calls import Failed, encode_outcome
from clasp_relay.cluster.accounts.account_records import Done, Record
from clasp_relay.errors import DecodeError


class PacketTests(SynchronousTestCase):
    """What one relay asks in one turn."""

    def test_a_packet_is_read_as_it_was_written(self) -> None:
        """With all of its calls."""
        packet = CallPacket("r1", 3, True, 0, (Call(1, "users.revoke", b"x"), Call(2, "users.add_invite", b"")))
        self.assertEqual(decode_packet(encode_packet(packet)), packet)

    @given(st.binary(max_size=100))
    def test_any_bytes_are_a_packet_or_refused(self, data: bytes) -> None:
        """Nothing else happens."""
        try:
            decode_packet(data)
        except DecodeError:
            return

    def test_another_version_is_refused(self) -> None:
        """By name."""
        self.assertRaisesRegex(DecodeError, "version 2", decode_packet, msgpack.packb((2, "r1")))


class CallTests(SynchronousTestCase):
    """The calls of one relay."""

    def setUp(self) -> None:
        """Makes them."""
        self.clock = Clock()
        self.sent: list[CallPacket] = []
        ledger: Any = SimpleNamespace(decider="d", epoch=1)
        following: Any = SimpleNamespace(ledger=ledger, is_cut_off=False, is_local=False)
        self.following = following
        self.calls = AccountCalls(
            self.following, self.clock.seconds, self.clock.callLater, self.sent.append, lambda text: Busy(text, 5)
        )
        self.calls.link = "r1"

    def outcome(self, number: int) -> Record:
        """Returns a record that says that a call is done."""
        return Record(number, b"", (Done("r1", number, encode_outcome(None, is_refused=False)),), ())

    def test_calls_of_a_turn_are_one_packet(self) -> None:
        """Each names the call before it."""
        for _ in range(3):
            self.calls.ask("users.add_invite", b"")
        self.clock.advance(0)
        self.calls.ask("users.add_invite", b"")
        self.clock.advance(0)
        found = [(packet.is_first, packet.previous, [call.number for call in packet.calls]) for packet in self.sent]
        self.assertEqual(found, [(True, 0, [1, 2, 3]), (False, 3, [4])])

    def test_long_calls_are_several_packets(self) -> None:
        """In order."""
        for _ in range(3):
            self.calls.ask("users.add_invite", bytes(200_000))
        self.clock.advance(0)
        self.assertEqual([[call.number for call in packet.calls] for packet in self.sent], [[1, 2], [3]])
        self.assertEqual([packet.previous for packet in self.sent], [0, 2])

    def test_what_waits_is_bounded(self) -> None:
        """Beyond it calls are refused, and room is made by what is done."""
        self.patch(module, "MAX_WAITING_BYTES", 4_000)
        piece = bytes(1_000)
        asked = [self.calls.ask("users.add_invite", piece) for _ in range(5)]
        self.assertIn("Too many requests wait", self.failureResultOf(asked[4], Busy).getErrorMessage())
        self.calls.answer(self.outcome(1))
        self.successResultOf(asked[0])
        again = self.calls.ask("users.add_invite", piece)
        self.assertNoResult(again)
        self.calls.stop()
        for each in (*asked[1:4], again):
            self.failureResultOf(each, Busy)

    def test_client_addresses_take_turns(self) -> None:
        """While others are on their way; an address may have only so many that wait."""
        self.patch(module, "AT_ONCE", 2)
        self.patch(module, "MAX_WAITING_IN_LANE", 4)
        crowd = [self.calls.ask("users.add_invite", b"crowd", "192.0.2.66") for _ in range(7)]
        self.assertIn("Too many requests wait", self.failureResultOf(crowd.pop(), Busy).getErrorMessage())
        own = [self.calls.ask("users.add_invite", b"own") for _ in range(5)]
        other = self.calls.ask("users.add_invite", b"other", "192.0.2.1")
        self.clock.advance(0)
        self.assertEqual([call.number for packet in self.sent for call in packet.calls], [1, 2])
        for number in range(1, 5):
            self.calls.answer(self.outcome(number))
            self.clock.advance(0)
        sent = [call.arguments for packet in self.sent for call in packet.calls]
        self.assertEqual(sent, [b"crowd"] * 3 + [b"own", b"other", b"crowd"])
        self.calls.answer(self.outcome(5))
        self.successResultOf(other)
        self.calls.tick(module.WAITS_S + 1)
        for each in (*crowd[3:], *own[1:]):
            self.failureResultOf(each, Busy)
        again = [self.calls.ask("users.add_invite", b"again", "192.0.2.66") for _ in range(6)]
        self.calls.stop()
        for each in again:
            self.failureResultOf(each, Busy)
        self.assertEqual((len(self.calls._queued), self.calls._lane_of, self.calls._lanes), (0, {}, {}))
        self.assertEqual((self.calls._kept, self.calls._waiting_bytes), ({}, 0))

    def test_a_call_that_no_message_can_carry_fails(self) -> None:
        """At once: it would be sent again and again."""
        self.failureResultOf(self.calls.ask("users.add_invite", bytes(600_000)), Failed)

    def test_another_decider_gets_all_that_is_not_done(self) -> None:
        """As soon as this relay knows of it."""
        first, second = self.calls.ask("users.add_invite", b"1"), self.calls.ask("users.add_invite", b"2")
        self.clock.advance(0)
        self.calls.answer(self.outcome(1))
        self.successResultOf(first)
        self.following.ledger.epoch = 2
        self.calls.tick(0.1)
        self.clock.advance(0)
        packet = self.sent[-1]
        self.assertEqual((packet.epoch, packet.is_first, [call.number for call in packet.calls]), (2, True, [2]))
        self.assertNoResult(second)

    def test_an_outcome_that_cannot_be_read_is_a_failure(self) -> None:
        """Whoever asked is told."""
        asked = self.calls.ask("users.purge", b"")
        self.calls.answer(Record(1, b"", (Done("other", 1, b""), Done("r1", 1, b"\xc1")), ()))
        self.failureResultOf(asked, DecodeError)


class LookingTests(SynchronousTestCase):
    """How far the log is."""

    def test_who_asks_waits_for_what_was_there_then(self) -> None:
        """And for nothing that came later."""
        clock = Clock()
        sent: list[int] = []
        following: Any = SimpleNamespace(is_cut_off=False, is_local=False)
        looking = LookingBehind(following, clock.seconds, sent.append, lambda text: Busy(text, 5))
        first = looking.ask()
        second = looking.ask()
        self.assertEqual(sent, [1])
        looking.answered(1, 10, 9)
        looking.answered(1, 10, 9)
        self.assertEqual(sent, [1, 2])
        self.assertNoResult(first)
        looking.written(10)
        self.successResultOf(first)
        self.assertNoResult(second)
        looking.answered(2, 12, 12)
        self.successResultOf(second)
        third = looking.ask()
        clock.advance(1.5)
        looking.tick(clock.seconds())
        self.assertEqual(sent, [1, 2, 3, 3])
        following.is_local = True
        looking.tick(clock.seconds())
        self.successResultOf(third)
        following.is_local = False
        late = looking.ask()
        looking.answered(3, 13, 13)
        self.assertNoResult(late)
        clock.advance(6)
        looking.tick(clock.seconds())
        self.failureResultOf(late, Busy)
        last = looking.ask()
        looking.answered(5, 13, 13)
        self.successResultOf(last)
        following.is_cut_off = True
        self.failureResultOf(looking.ask(), Busy)

    def test_nobody_waits_for_ever(self) -> None:
        """Neither for what is written too late, nor once it is over."""
        clock = Clock()
        following: Any = SimpleNamespace(is_cut_off=False, is_local=False)
        looking = LookingBehind(following, clock.seconds, lambda _: None, lambda text: Busy(text, 5))
        late = looking.ask()
        clock.advance(4)
        looking.answered(1, 10, 9)
        clock.advance(1.5)
        looking.tick(clock.seconds())
        self.failureResultOf(late, Busy)
        told, asked = looking.ask(), looking.ask()
        looking.answered(2, 10, 9)
        self.assertNoResult(told)
        looking.stop()
        self.failureResultOf(told, Busy)
        self.failureResultOf(asked, Busy)
        for following.is_local in (False, True):
            self.failureResultOf(looking.ask(), Busy)
