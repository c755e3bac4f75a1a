"""Tests of clasp_relay.core.fanout.throttles: maxRate and epsilon."""

import math
import struct

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.fanout import throttles as throttle
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.work import TURN_US
from clasp_relay.wire.constants import ALL_TYPES, Phase, Signal
from clasp_relay.wire.messages import NULL, Publish, Set, Subscribe, Unsubscribe
from tests.core.world import Client, World, heard, revisions, value


class ThrottleCase(SynchronousTestCase):
    """A writer, and a reader with maxRate or epsilon."""

    def setUp(self) -> None:
        """Joins both."""
        self.world = World()
        self.writer = self.world.join()
        self.reader = self.world.join()

    def subscribe(
        self,
        pattern: str = "/a/**",
        max_rate: int | None = None,
        epsilon: float | None = None,
        sub_id: int = 1,
        types: int = ALL_TYPES,
    ) -> None:
        """Subscribes the reader, and drops what it gets at that."""
        self.reader.ask(Subscribe(sub_id, pattern, types, max_rate, epsilon))

    def write(self, *objects: object, address: str = "/a/x") -> None:
        """Sets some values, one after the other."""
        for one in objects:
            self.writer.send(Set(address, value(one)))

    def values(self) -> list[object]:
        """Returns the values that the reader got since the last call."""
        return [found for _, found in heard(self.reader.hear())]

    def wait(self, seconds: float) -> list[object]:
        """Advances the clock, and returns the values that the reader gets meanwhile."""
        self.world.clock.clock.advance(seconds)
        return self.values()

    def pending(self) -> int:
        """Returns the number of delayed calls."""
        return len(self.world.clock.clock.getDelayedCalls())


class MaxRateTests(ThrottleCase):
    """At most this many a second and address, and the last one always."""

    def test_reader_hears_first_and_last_of_a_burst(self) -> None:
        """The values in between are dropped; the last one is sent as soon as the rate allows."""
        self.subscribe(max_rate=10)
        self.write(*range(50))
        self.assertEqual(self.values(), [0])
        self.assertEqual(self.wait(0.0999), [])
        self.assertEqual(self.wait(0.0001), [49])
        self.assertEqual(self.wait(10), [])

    def test_reader_hears_at_once_what_is_slower_than_the_rate(self) -> None:
        """A value waits only if another one was sent shortly before."""
        self.subscribe(max_rate=10)
        for number in range(3):
            self.write(number)
            self.assertEqual(self.values(), [number])
            self.world.clock.clock.advance(0.1)

    def test_no_second_has_more_than_the_rate(self) -> None:
        """Three a second are three, however the interval is rounded."""
        self.subscribe(max_rate=3)
        times: list[float] = []
        for number in range(3000):
            self.write(number)
            times += [self.world.clock.clock.seconds() for _ in self.values()]
            times += [self.world.clock.clock.seconds() for _ in self.wait(0.001)]
        most = max(sum(start <= time < start + 1 for time in times) for start in times)
        self.assertEqual(most, 3)
        self.assertGreaterEqual(len(times), 9)

    def test_rates_of_addresses_are_apart(self) -> None:
        """Messages at one address do not delay those at another."""
        self.subscribe(max_rate=1)
        self.write(1, 2, address="/a/x")
        self.write(3, 4, address="/a/y")
        self.assertEqual(self.values(), [1, 3])
        self.assertEqual(self.wait(1), [2, 4])

    def test_rate_beyond_the_clock_holds_nothing_for_long(self) -> None:
        """Every u32 is a valid rate."""
        for rate in (1_000_000, 1_000_001, 0xFFFF_FFFF):
            with self.subTest(rate=rate):
                self.setUp()
                self.subscribe(max_rate=rate)
                self.write(1, 2)
                self.assertEqual(self.values() + self.wait(0.000_002), [1, 2])

    def test_rate_of_zero_is_none(self) -> None:
        """It means no limit: no client uses it for «never»."""
        self.subscribe(max_rate=0)
        self.write(1, 2, 3)
        self.assertEqual(self.values(), [1, 2, 3])
        self.assertEqual(self.pending(), 0)

    def test_deletion_is_the_last_value(self) -> None:
        """A null replaces a held value."""
        self.subscribe(max_rate=1)
        self.write(1, 2)
        self.writer.send(Set("/a/x", NULL))
        self.assertEqual(self.values() + self.wait(1), [1, None])

    def test_streams_are_held_back_and_never_sent_to_their_sender(self) -> None:
        """A stream is limited like a param."""
        self.subscribe(max_rate=1)
        self.writer.send(Subscribe(1, "/a/**", ALL_TYPES, 1))
        for number in range(5):
            self.writer.send(Publish("/a/x", Signal.STREAM, value=value(number)))
        self.assertEqual(self.values() + self.wait(1), [0, 4])
        self.assertEqual(heard(self.writer.hear()), [])

    def test_param_and_stream_of_one_address_are_apart(self) -> None:
        """The last value is kept per kind of signal."""
        self.subscribe(max_rate=1)
        self.write(1)
        self.writer.send(Publish("/a/x", Signal.STREAM, value=value(2)))
        self.assertEqual(self.values(), [1, 2])

    def test_events_gestures_and_timelines_pass(self) -> None:
        """They are not states, so none is dropped."""
        self.subscribe(max_rate=1, epsilon=100.0)
        messages = [
            Publish("/a/x", Signal.EVENT, value=value(1)),
            Publish("/a/x", Signal.EVENT, value=value(1)),
            Publish("/a/x", Signal.TIMELINE, value=value([])),
            Publish("/a/x", Signal.TIMELINE, value=value([])),
            Publish("/a/x", Signal.GESTURE, Phase.START, value(1), id=1),
            Publish("/a/x", Signal.GESTURE, Phase.END, value(1), id=1),
        ]
        for message in messages:
            self.writer.send(message)
        self.assertEqual(self.reader.hear(), messages)

    def test_one_subscription_without_a_rate_lets_all_pass(self) -> None:
        """A session gets what any of its subscriptions allows, once."""
        self.subscribe(max_rate=1)
        self.subscribe("/a/x", sub_id=2)
        self.write(1, 2, 3)
        self.assertEqual(self.values(), [1, 2, 3])

    def test_fastest_of_several_subscriptions_counts(self) -> None:
        """A value is sent as soon as one of them allows."""
        self.subscribe(max_rate=1)
        self.subscribe("/a/x", max_rate=10, sub_id=2)
        self.write(1, 2)
        self.assertEqual(self.values() + self.wait(0.1), [1, 2])

    def test_large_change_does_not_wait_for_the_slow_subscription(self) -> None:
        """A held value is replaced by a newer one that another subscription allows now."""
        self.subscribe(max_rate=1)
        self.subscribe("/a/x", epsilon=10.0, sub_id=2)
        self.write(0, 1)
        self.assertEqual(self.values(), [0])
        self.write(50)
        self.assertEqual(self.values(), [50])
        self.assertEqual(self.wait(5), [])
        self.assertEqual(self.pending(), 0)

    def test_large_change_comes_when_the_faster_subscription_lets_it(self) -> None:
        """A held value is sent at the earliest time that any subscription allows."""
        self.subscribe(max_rate=1)
        self.subscribe("/a/x", max_rate=10, epsilon=10.0, sub_id=2)
        self.write(0, 1, 50)
        self.assertEqual(self.values(), [0])
        self.assertEqual(self.wait(0.1), [50])
        self.assertEqual(self.wait(5), [])

    def test_held_value_gives_way_to_a_newer_one_that_nobody_waits_for(self) -> None:
        """The last value arrives, even where it is close to the one sent before."""
        self.subscribe(max_rate=1, epsilon=10.0)
        self.write(0, 50, 1)
        self.assertEqual(self.values() + self.wait(1), [0, 1])


class EpsilonTests(ThrottleCase):
    """Numeric changes that are too small are dropped."""

    def test_reader_hears_changes_of_epsilon_and_more(self) -> None:
        """The change is measured from the last value sent, so a slow drift is heard in the end."""
        self.subscribe(epsilon=1.0)
        self.write(0.0, 0.4, 0.9, 1.0, 1.9, 2.5, 1.5)
        self.assertEqual(self.values(), [0.0, 1.0, 2.5, 1.5])
        self.assertEqual(self.pending(), 0)

    def test_every_numeric_type_is_compared(self) -> None:
        """A client may change the type from one value to the next."""
        self.subscribe(epsilon=10.0)
        encoded = (b"\x02\x01", b"\x03\x00\x02", b"\x04\x00\x00\x00\x03", value(4), b"\x06" + struct.pack(">f", 5))
        for one in (*encoded, value(6.0), value(11)):
            self.writer.send(Set("/a/x", one))
        self.assertEqual(self.values(), [1, 11])

    def test_large_integers_are_compared_exactly(self) -> None:
        """A float cannot tell 2**60 and 2**60 + 1 apart."""
        self.subscribe(epsilon=1.0)
        self.write(2**60, 2**60 + 1)
        self.assertEqual(self.values(), [2**60, 2**60 + 1])

    def test_what_is_no_number_passes(self) -> None:
        """There is no distance between texts; a number after a text is news."""
        self.subscribe(epsilon=1000.0)
        objects: list[object] = ["a", "b", True, False, [1], 5, None, 6, {"k": 1}, b"raw"]
        self.write(*objects)
        self.assertEqual(self.values(), objects)

    def test_stream_without_a_value_passes(self) -> None:
        """Samples are not compared."""
        self.subscribe(epsilon=1000.0)
        for _ in range(2):
            self.writer.send(Publish("/a/x", Signal.STREAM, samples=bytes(16)))
        self.assertEqual(len(self.reader.hear()), 2)

    def test_nan_is_news(self) -> None:
        """Nobody can say how far NaN is from anything; inf from inf likewise."""
        self.subscribe(epsilon=1000.0)
        self.write(1.0, math.nan, 2.0, math.inf, math.inf)
        self.assertEqual(list(map(str, self.values())), ["1.0", "nan", "2.0", "inf", "inf"])

    def test_epsilon_that_means_nothing_drops_nothing(self) -> None:
        """NaN, zero and negative distances filter nothing, and cost nothing."""
        for epsilon in (math.nan, 0.0, -1.0, -math.inf):
            with self.subTest(epsilon=epsilon):
                self.setUp()
                self.subscribe(epsilon=epsilon)
                self.write(1, 1, 1)
                self.assertEqual(self.values(), [1, 1, 1])
                self.assertFalse(self.world.relay.throttles._sessions)


class LifeTests(ThrottleCase):
    """What is held back ends with what asked for it."""

    def test_unsubscribe_drops_what_is_held(self) -> None:
        """Nothing comes for a subscription that has ended, and no call stays due."""
        self.subscribe(max_rate=1)
        self.write(1, 2)
        self.reader.send(Unsubscribe(1))
        self.assertEqual(self.pending(), 0)
        self.assertEqual(self.values() + self.wait(5), [1])
        self.assertFalse(self.world.relay.throttles._sessions)

    def test_unsubscribe_keeps_what_another_subscription_waits_for(self) -> None:
        """The last value arrives as long as anybody in the session asks for it."""
        self.subscribe(max_rate=1)
        self.subscribe("/a/x", max_rate=1, sub_id=2)
        self.subscribe("/b", max_rate=1, sub_id=3)
        self.subscribe("/b", sub_id=4)
        self.write(1, 2)
        self.reader.send(Unsubscribe(4))
        self.reader.send(Unsubscribe(1))
        self.assertEqual(self.values() + self.wait(1), [1, 2])
        self.write(3)
        self.reader.send(Unsubscribe(2))
        self.assertEqual(self.pending(), 0)
        self.assertEqual(self.values() + self.wait(5), [])

    def test_unsubscribe_of_what_was_never_used_is_nothing(self) -> None:
        """One throttled subscription ends before anything came for the session."""
        self.subscribe(max_rate=1)
        self.subscribe("/b", max_rate=1, sub_id=2)
        self.reader.send(Unsubscribe(2))
        self.write(1)
        self.assertEqual(self.values(), [1])

    def test_disconnect_drops_what_is_held(self) -> None:
        """No call stays due for a session that has gone."""
        self.subscribe(max_rate=1)
        self.write(1, 2)
        self.reader.leave()
        self.world.clock.clock.advance(0)
        self.assertEqual(self.pending(), 0)
        self.assertFalse(self.world.relay.throttles._sessions)

    def test_new_subscription_never_makes_an_older_value_come_last(self) -> None:
        """What is held goes out before what a faster subscription brings: revisions never go down."""
        self.subscribe(max_rate=1)
        self.write(1, 2)
        self.assertEqual(self.values(), [1])
        self.reader.send(Subscribe(2, "/a/x"))
        self.write(3)
        self.world.clock.clock.advance(5)
        messages = self.reader.hear()
        self.assertEqual([found for _, found in heard(messages)], [2, 2, 3])
        self.assertEqual(revisions(messages), [2, 3])
        self.assertEqual(self.pending(), 0)

    def test_same_subscription_again_keeps_the_last_stream_value(self) -> None:
        """A client that asks for another rate loses nothing on the way."""
        self.subscribe(max_rate=1)
        for number in range(3):
            self.writer.send(Publish("/a/x", Signal.STREAM, value=value(number)))
        self.reader.send(Subscribe(1, "/a/**", ALL_TYPES, 2))
        self.assertEqual(self.values(), [0, 2])

    def test_new_subscription_elsewhere_leaves_what_is_held(self) -> None:
        """Only where it matches, and only the signals that it asks for, anything starts anew."""
        self.subscribe(max_rate=1)
        self.write(1, 2)
        self.reader.send(Subscribe(2, "/b"))
        self.reader.send(Subscribe(3, "/a/x", 1 << Signal.EVENT))
        self.assertEqual(self.values(), [1])
        self.assertEqual(self.wait(1), [2])

    def test_epsilon_counts_from_what_the_new_snapshot_showed(self) -> None:
        """A change that the client has not seen yet is never taken for known."""
        self.subscribe(epsilon=1.0)
        self.subscribe("/b", epsilon=1.0, sub_id=2)
        self.write(10.0)
        self.reader.send(Unsubscribe(1))
        self.write(20.0)
        self.assertEqual(heard(self.reader.ask(Subscribe(1, "/a/**", ALL_TYPES, None, 1.0))), [("/a/x", 20.0)])
        self.write(10.5)
        self.assertEqual(self.values(), [10.5])

    def test_addresses_beyond_the_limit_start_anew(self) -> None:
        """The one heard of longest ago goes, and what is held for it arrives before."""
        self.patch(throttle, "MAX_ADDRESSES", 2)
        self.subscribe(max_rate=1)
        self.write(1, 2, address="/a/x")
        self.write(3, address="/a/y")
        self.assertEqual(self.values(), [1, 3])
        self.write(4, address="/a/z")
        self.assertEqual(self.values(), [2, 4])
        self.write(5, address="/a/x")
        self.assertEqual(self.values(), [5])


class InPiecesTests(ThrottleCase):
    """What takes long is done in several turns."""

    MANY = 300

    def hold(self) -> None:
        """Has a value held back at each of many addresses."""
        self.subscribe(max_rate=1)
        for number in range(self.MANY):
            self.write(1, 2, address=f"/a/{number}")
        self.assertEqual(len(self.values()), self.MANY)

    def one_turn(self, seconds: float = 0.0) -> list[tuple[str, object]]:
        """Returns what the reader hears in one turn, some time later."""
        self.world.clock.clock.rightNow += seconds
        self.world.one_turn()
        return heard(self.reader.hear())

    def settle(self) -> list[tuple[str, object]]:
        """Returns what the reader hears until nothing is left to be done."""
        self.world.settle()
        return heard(self.reader.hear())

    def test_what_is_due_at_one_instant_goes_out_in_several_turns(self) -> None:
        """Each once, and what has become old meanwhile not at all."""
        self.hold()
        first = self.one_turn(1)
        self.assertLess(len(first), self.MANY // 3)
        last = f"/a/{self.MANY - 1}"
        self.write(3, address=last)
        found = [*first, *self.settle()]
        self.assertEqual(len(found), self.MANY)
        self.assertEqual({told for _, told in found}, {2, 3})
        self.assertEqual([told for where, told in found if where == last], [3])
        self.assertEqual(self.settle(), [])

    def test_value_that_is_held_anew_waits_for_its_time(self) -> None:
        """Though the one before it was due and had not had its turn."""
        self.hold()
        self.one_turn(1)
        last = f"/a/{self.MANY - 1}"
        self.write(3, 4, address=last)
        self.assertEqual([told for where, told in self.settle() if where == last], [3])
        self.assertEqual(self.wait(1), [4])

    def test_session_with_many_addresses_starts_anew_at_all_of_them(self) -> None:
        """With its next subscription, whatever that matches: to compare it with all of them would take long."""
        self.hold()
        self.write(1, address="/a/where nothing is held")
        self.values()
        self.reader.send(Subscribe(2, "/b"))
        now = heard(self.reader.hear())
        self.assertLess(len(now), self.MANY // 3)
        last = f"/a/{self.MANY - 1}"
        self.write(3, address=last)
        found = [*now, *self.settle()]
        self.assertEqual(len(found), self.MANY)
        self.assertEqual([told for where, told in found if where == last], [3], "nothing older follows")
        self.reader.send(Unsubscribe(1))
        self.assertEqual(self.world.relay.accounts.bytes[MemoryKind.THROTTLES], 0)

    def test_much_that_is_held_is_dropped_in_several_turns(self) -> None:
        """None of it is sent any more, though its time comes meanwhile."""
        self.patch(throttle, "FORGET_US", TURN_US)
        for leaves in (False, True):
            with self.subTest(leaves=leaves):
                self.setUp()
                self.hold()
                if leaves:
                    self.reader.leave()
                else:
                    self.reader.send(Unsubscribe(1))
                self.assertTrue(self.world.relay.work)
                self.assertEqual(self.one_turn(1), [])
                self.assertEqual(self.settle(), [])
                self.world.one_turn()
                self.assertEqual((self.pending(), self.world.relay.accounts.bytes[MemoryKind.THROTTLES]), (0, 0))


class ManyReadersTests(SynchronousTestCase):
    """Each session has its own rate."""

    def test_readers_are_limited_apart(self) -> None:
        """One that asked for all gets all, whatever the others asked for."""
        world = World()
        writer = world.join()
        readers: list[Client] = [world.join() for _ in range(3)]
        for reader, rate in zip(readers, (None, 1, 1000), strict=True):
            reader.send(Subscribe(1, "/a", ALL_TYPES, rate))
        for number in range(4):
            writer.send(Set("/a", value(number)))
            world.clock.clock.advance(0.001)
        world.clock.clock.advance(1)
        found = [[one for _, one in heard(reader.hear())] for reader in readers]
        self.assertEqual(found, [[0, 1, 2, 3], [0, 3], [0, 1, 2, 3]])
