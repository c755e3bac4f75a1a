"""What is sent to the decider, and what becomes of it."""

from __future__ import annotations

from clasp_relay.cluster.exchange.batches import Answered, Claimed, Ended
from clasp_relay.cluster.exchange.packets import Asked
from clasp_relay.cluster.following.requests import GIVEN_UP_AT_ONCE, MAX_WAITING_BYTES
from clasp_relay.core.session.account import Account, Accounts
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.messages import Ack, Error, Hello, Ping, Set
from tests.cluster.following_world import OneFollower
from tests.core.world import CODEC, MemoryOutbox, codes, value


class RequestsTests(OneFollower):
    """They are sent until they are done, or have waited too long."""

    def test_what_was_asked_in_a_turn_is_one_packet(self) -> None:
        """It is numbered within its session."""
        for number in range(3):
            self.send(Set("/a", value(number)), 1)
        self.turn()
        self.assertEqual(len(self.packets), 1)
        self.assertEqual([entry.number for entry in self.packets[0].entries], [2, 3, 4])
        self.assertEqual(self.hear(), [])

    def test_all_that_is_not_done_is_sent_to_the_next_decider(self) -> None:
        """And nothing else."""
        for number in range(3):
            self.send(Set("/a", value(number)), 1)
        self.turn()
        self.packets.clear()
        self.apply(Answered(self.session.id, 2, ((2, ("/a", 1, None, None)),)))
        self.apply(Claimed("three.1", "three", False, b""))
        self.assertEqual(self.asked(), [(3, int(Asked.MESSAGE)), (4, int(Asked.MESSAGE))])
        self.assertEqual(self.hear(), [Ack("/a", 1)])

    def test_a_write_that_waits_for_too_long_is_refused(self) -> None:
        """Whether it was done is not known, if it was sent; then reads go on."""
        self.send(Set("/a", value(1)), 1)
        self.send(Ping())
        self.turn()
        self.clock.advance(4.9)
        self.following.give_up_old(self.clock.seconds())
        self.assertEqual(self.hear(), [])
        self.clock.advance(0.2)
        self.following.give_up_old(self.clock.seconds())
        error, pong = self.hear()
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.OVERLOADED, "/a"))
        self.assertIn("unknown", error.message)
        self.assertEqual(type(pong).__name__, "Pong")

    def test_a_write_that_was_never_sent_was_surely_not_done(self) -> None:
        """There was nobody to send it to."""
        self.following.ledger.decider = ""
        self.send(Set("/a", value(1)), 1)
        self.turn()
        self.clock.advance(5.1)
        self.following.give_up_old(self.clock.seconds())
        (error,) = self.hear()
        assert isinstance(error, Error)
        self.assertIn("not done", error.message)
        self.apply(Claimed("three.1", "three", False, b""))
        self.assertEqual(self.asked(), [(1, int(Asked.BEGIN))])

    def test_writes_are_refused_at_once_where_nothing_can_reach_the_decider(self) -> None:
        """They were surely not done."""
        self.following.is_cut_off = True
        self.send(Set("/a", value(1)), 1)
        self.assertEqual(codes(self.hear()), [ErrorCode.OVERLOADED])
        self.assertEqual(self.asked(), [])

    def test_too_much_may_not_wait(self) -> None:
        """The memory is bounded."""
        for _ in range(MAX_WAITING_BYTES // 60_000 + 2):
            self.send(Set("/a", value("x" * 60_000)), 1)
        self.assertEqual(set(codes(self.hear())), {ErrorCode.OVERLOADED})
        self.turn()
        self.assertGreater(len(self.packets), 10)

    def limit(self, size_bytes: int) -> Account:
        """Has no more kept for the session than that; returns its account."""
        account = self.session.account = Accounts(size_bytes).open("", "")
        return account

    def test_one_session_may_not_have_too_much_wait(self) -> None:
        """Its memory is its own, and given back whatever becomes of what waits."""
        for way in ("done", "given up", "ended", "begun anew"):
            with self.subTest(way):
                self.setUp()
                account = self.limit(100_000)
                for _ in range(200):
                    self.send(Set("/a", value("x" * 1_000)), 1)
                refused = codes(self.hear())
                self.assertEqual(set(refused), {ErrorCode.LIMIT})
                self.assertGreater(len(refused), 100)
                self.assertGreater(account.bytes, 90_000)
                if way == "done":
                    self.apply(Answered(self.session.id, 1 + 200 - len(refused), ()))
                elif way == "given up":
                    self.clock.advance(5.1)
                    self.following.give_up_old(self.clock.seconds())
                elif way == "ended":
                    self.apply(Ended(self.session.id, int(CloseCode.POLICY_VIOLATION), "gone"))
                else:
                    self.following.begin_anew("one.2")
                self.assertEqual(account.bytes, 0)

    def test_many_writes_that_waited_for_too_long_are_refused_some_at_a_time(self) -> None:
        """Each tick refuses a few, of all sessions in turn: nobody waits until a flood is through."""
        count = 5_000
        for _ in range(count):
            self.send(Set("/a", value(1)), 1)
        self.turn()
        other, outbox = self.session, self.outbox
        self.outbox = MemoryOutbox()
        self.session = self.relay.connect(self.outbox, "192.0.2.2", CODEC)
        self.send(Hello(1, 0, "test", ""))
        self.send(Set("/b", value(1)), 1)
        self.turn()
        self.hear()
        self.clock.advance(5.1)
        for _ in range(2):
            self.following.give_up_old(self.clock.seconds())
        self.assertEqual(codes(self.hear()), [ErrorCode.OVERLOADED])
        self.session, self.outbox = other, outbox
        self.assertEqual(len(self.hear()), 2 * GIVEN_UP_AT_ONCE - 1)
        for _ in range(count // GIVEN_UP_AT_ONCE):
            self.following.give_up_old(self.clock.seconds())
        self.assertEqual(len(self.hear()), count - 2 * GIVEN_UP_AT_ONCE + 1)
        self.assertIsNotNone(self.following.requests.oldest_s, "that the session has begun is not known yet")
