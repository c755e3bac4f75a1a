"""Tests of clasp_relay.core.session.limiter: the rate limit of a session."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import Ack, Bundle, Error, Get, Ping, Pong, Query, Result, Set, Snapshot, Sync
from clasp_relay.wire.values import encode_value
from tests.core.world import World, codes, value


class LimiterTests(SynchronousTestCase):
    def test_bucket_starts_full_and_fills_again(self) -> None:
        """With the given rate, up to the burst."""
        limiter = Limiter(10, 40, 0)
        self.assertEqual(sum(limiter.take(1, 0) for _ in range(100)), 40)
        self.assertEqual(sum(limiter.take(1, 1_000_000) for _ in range(100)), 10)
        self.assertEqual(sum(limiter.take(1, 3_600_000_000) for _ in range(100)), 40)

    def test_what_costs_too_much_takes_nothing(self) -> None:
        """A cheaper message is still accepted."""
        limiter = Limiter(10, 40, 0)
        self.assertFalse(limiter.take(41, 0))
        self.assertTrue(limiter.take(40, 0))

    def test_fractions_are_not_lost(self) -> None:
        """A session that sends faster than the rate is still held to the rate."""
        limiter = Limiter(30, 1, 0)
        self.assertIn(sum(limiter.take(1, now_us) for now_us in range(0, 10_000_000, 1_000)), range(290, 302))

    def test_error_is_sent_at_most_once_a_second(self) -> None:
        """An ERROR that was held back is owed until ``settle``."""
        limiter = Limiter(1, 1, 0)
        self.assertEqual([limiter.may_send_error(now_us) for now_us in (0, 1, 999_999)], [True, False, False])
        self.assertTrue(limiter.owes_error)
        limiter.settle(999_999)
        self.assertFalse(limiter.owes_error)
        self.assertFalse(limiter.may_send_error(1_000_000))
        self.assertTrue(limiter.may_send_error(2_000_000))
        self.assertFalse(limiter.owes_error)


class RateLimitTests(SynchronousTestCase):
    """The limit in a relay."""

    def setUp(self) -> None:
        """A relay with a limit of 30 messages a second and a burst of 120."""
        self.world = World(RelayOptions(message_rate=(30, 120)))
        self.client = self.world.join()

    def flood(self, count: int = 130) -> None:
        """Sends more messages than the burst."""
        for number in range(count):
            self.client.send(Set(f"/a/{number}", value(number)))

    def test_message_beyond_the_limit_is_dropped(self) -> None:
        """With one ERROR 429; earlier messages were handled, and the session goes on."""
        self.flood()
        self.assertEqual(codes(self.client.hear()), [ErrorCode.LIMIT])
        self.assertEqual(len(self.world.relay.params), 120)
        self.world.clock.clock.advance(1)
        self.flood()
        self.assertEqual(codes(self.client.hear()), [ErrorCode.LIMIT])
        self.assertIsNone(self.client.outbox.closed)

    def test_reading_is_paid_for_before(self) -> None:
        """By a door, apart from the message; a cost of 0 is always accepted, also without a limit."""
        relay = self.world.relay
        (session,) = relay.sessions.all()
        self.assertEqual([relay.pay(session, 100), relay.pay(session, 21), relay.pay(session, 0)], [True, False, True])
        self.assertEqual((codes(self.client.hear()), relay.counts.limited), ([ErrorCode.LIMIT], 1))
        self.assertTrue(relay.pay(session, 20))
        world = World()
        world.join()
        (session,) = world.relay.sessions.all()
        self.assertTrue(world.relay.pay(session, 1_000))

    def test_reading_alone_takes_no_full_bucket(self) -> None:
        """With a small burst, a message that is costly to decode is accepted once the bucket is full."""
        for burst, taken in ((120, 15), (4, 3), (2, 1), (1, 1)):
            with self.subTest(burst=burst):
                self.assertEqual(Limiter(1, burst, 0).reading_cost(15), taken)
        world = World(RelayOptions(message_rate=(1, 4)))
        world.join()
        (session,) = world.relay.sessions.all()
        world.clock.clock.advance(10)
        self.assertEqual([world.relay.pay(session, 15), world.relay.pay(session, 15)], [True, False])
        world.relay.accept(session, Set("/a", value(1)), 0)
        self.assertIsNotNone(world.relay.params.get("/a"))

    def test_held_back_error_comes_before_the_next_answer(self) -> None:
        """So a client that asks afterwards knows that messages were dropped."""
        for message, qos, answer in (
            (Ping(), 0, Pong),
            (Sync(1), 0, Sync),
            (Query("/a/*"), 0, Result),
            (Get("/a/1"), 0, Snapshot),
            (Set("/a/1", value(2)), 1, Ack),
        ):
            with self.subTest(message=message):
                self.setUp()
                self.flood()
                self.client.hear()
                self.world.clock.clock.advance(0.1)
                first, second = self.client.ask(message, qos)
                self.assertIsInstance(first, Error)
                self.assertEqual(codes([first]), [ErrorCode.LIMIT])
                self.assertIsInstance(second, answer)
                self.assertEqual(len(self.client.ask(message, qos)), 1)

    def test_bundle_costs_as_many_as_it_carries(self) -> None:
        """An empty one costs one."""
        self.client.send(Bundle(tuple(Set(f"/b/{number}", value(1)) for number in range(119))))
        self.world.settle()
        self.client.send(Bundle())
        self.assertEqual(codes(self.client.hear()), [])
        self.assertEqual(codes(self.client.ask(Bundle())), [ErrorCode.LIMIT])
        self.world.clock.clock.advance(0.5)
        sixteen = Bundle(tuple(Set(f"/c/{number}", value(1)) for number in range(16)))
        self.client.send(sixteen)
        self.assertIsNone(self.world.relay.params.get("/c/0"))
        self.client.send(Bundle(sixteen.messages[:15]))
        self.assertIsNotNone(self.world.relay.params.get("/c/14"))

    def test_bundle_over_the_burst_is_told_that_it_can_never_pass(self) -> None:
        """With the bound in the text."""
        (error,) = self.client.ask(Bundle(tuple(Set(f"/b/{number}", value(1)) for number in range(121))))
        assert isinstance(error, Error), error
        self.assertEqual(error.error, ErrorCode.LIMIT)
        self.assertIn("121", error.message)
        self.assertIn("120", error.message)

    def test_message_over_the_burst_is_told_so_too(self) -> None:
        """One that is not a bundle, but counts for many messages."""
        self.client.session.limiter = Limiter(1, 4, self.world.clock.now_us())
        (error,) = self.client.ask(Set("/a", encode_value([[]] * 4_000)))
        assert isinstance(error, Error), error
        self.assertEqual(error.error, ErrorCode.LIMIT)
        self.assertIn("this message counts as 8, at most 4 pass at once", error.message)

    def test_what_is_refused_is_not_decoded(self) -> None:
        """Invalid bytes are counted as limited, not as undecodable."""
        self.flood(120)
        self.client.send_bytes(b"S\x00\x00\x01\xff")
        self.assertEqual(codes(self.client.hear()), [ErrorCode.LIMIT])
        self.assertEqual(sum(self.world.relay.counts.undecodable.values()), 0)

    def test_messages_that_come_decoded_cost_the_same(self) -> None:
        """From any door."""
        relay, session = self.world.relay, self.client.session
        relay.accept(session, Bundle(tuple(Set(f"/b/{number}", value(1)) for number in range(119))), 0)
        self.world.settle()
        relay.accept(session, Bundle(), 0)
        self.assertEqual(codes(self.client.hear()), [])
        relay.accept(session, Set("/c", value(1)), 0)
        self.assertEqual(codes(self.client.hear()), [ErrorCode.LIMIT])
        self.assertIsNone(relay.params.get("/c"))

    def test_rate_below_one_message_lets_messages_pass(self) -> None:
        """One at a time, even with a smaller burst."""
        self.world = World(RelayOptions(message_rate=(0.2, 0.8)))
        self.client = self.world.join()
        self.assertEqual(self.client.ask(Ping()), [Pong()])
        self.assertEqual(codes(self.client.ask(Ping())), [ErrorCode.LIMIT])
        self.world.clock.clock.advance(5)
        self.assertEqual(self.client.ask(Ping()), [Pong()])

    def test_other_sessions_are_not_held_back(self) -> None:
        """Each session has its own bucket."""
        other = self.world.join()
        self.flood()
        self.assertEqual(other.ask(Ping()), [Pong()])

    def test_no_limit_without_a_rate(self) -> None:
        """As in open mode."""
        self.world = World()
        self.client = self.world.join()
        self.flood(1000)
        self.assertEqual(self.client.hear(), [])
