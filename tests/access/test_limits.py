"""Sliding windows and what they count."""

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import limits as module
from clasp_relay.access.limits import AttemptLimiter, KnownAddresses, RateLimits, SlidingWindow
from clasp_relay.access.refusals import Limited
from clasp_relay.storage.users import ADDRESS_KEPT_S
from tests.access.stack import hash_of


class SlidingWindowTests(SynchronousTestCase):
    """One window."""

    def setUp(self) -> None:
        """Makes a window of two tries in ten seconds, for at most three keys."""
        self.clock = Clock()
        self.window = SlidingWindow(2, 10, self.clock.seconds, max_keys=3)

    def test_key_waits_until_its_oldest_try_is_out_of_the_window(self) -> None:
        """Each try counts for ten seconds from its own moment, and not until some full minute."""
        self.window.add("a")
        self.clock.advance(4)
        self.assertEqual(self.window.wait_s("a"), 0)
        self.window.add("a")
        self.clock.advance(1)
        self.assertEqual(self.window.wait_s("a"), 5)
        self.assertEqual(self.window.wait_s("b"), 0)
        self.clock.advance(5)
        self.assertEqual(self.window.wait_s("a"), 0)
        self.window.add("a")
        self.assertEqual(self.window.wait_s("a"), 4)

    def test_key_waits_longer_when_more_tries_were_counted_than_it_has(self) -> None:
        """As many have to leave the window as are too many."""
        for _ in range(4):
            self.window.add("a")
            self.clock.advance(1)
        self.assertEqual(self.window.wait_s("a"), 8)

    def test_try_is_taken_back(self) -> None:
        """That one only; one that is forgotten by now does no harm."""
        self.window.add("a")
        self.clock.advance(1)
        time_s = self.window.add("a")
        self.window.take_back("a", time_s)
        self.assertEqual(self.window.wait_s("a"), 0)
        self.window.take_back("a", time_s)
        self.window.take_back("b", time_s)
        self.window.add("a")
        self.assertEqual(self.window.wait_s("a"), 9)
        self.window.take_back("a", 0)
        self.window.take_back("a", 1)
        self.assertEqual(len(self.window), 0)

    def test_memory_is_bounded(self) -> None:
        """Keys whose tries have left the window go; if there are too many still, those that tried least recently."""
        for key in "abc":
            self.window.add(key)
            self.clock.advance(1)
        self.window.add("a")
        self.window.add("d")
        self.assertEqual(len(self.window), 3)
        self.window.add("b")
        self.assertEqual(self.window.wait_s("a"), 7)
        self.clock.advance(10)
        self.window.add("e")
        self.assertEqual(len(self.window), 1)

    def test_limit_of_nothing_allows_nothing(self) -> None:
        """Nobody has a try left, not even a first one."""
        self.assertEqual(SlidingWindow(0, 10, self.clock.seconds).wait_s("a"), 10)


class AttemptLimiterTests(SynchronousTestCase):
    """Who is limited by what."""

    def setUp(self) -> None:
        """Makes a limiter with the default numbers."""
        self.clock = Clock()
        self.known = KnownAddresses(self.clock.seconds)
        self.limiter = AttemptLimiter(RateLimits(), self.clock.seconds, self.known, hash_of)

    def fail_login(self, address: str, name: str, times: int = 1) -> None:
        """Fails to sign in."""
        for _ in range(times):
            self.limiter.login(address, name).start()

    def assert_limited(self, call: Callable[[], object], wait_s: float, words: str = "") -> None:
        """Asserts that something is refused for so long."""
        error = self.assertRaises(Limited, call)
        self.assertEqual(error.retry_after_s, wait_s)
        self.assertIn(words, error.sentence)

    def test_address_may_fail_five_times_per_username(self) -> None:
        """Then it waits for a quarter of an hour; other names and other addresses do not."""
        self.fail_login("a", "alice", 5)
        self.clock.advance(600)
        self.assert_limited(lambda: self.limiter.login("a", "alice"), 300, "Try again in 5 minutes.")
        self.limiter.login("a", "bob")
        self.limiter.login("b", "alice")
        self.clock.advance(299)
        self.assert_limited(lambda: self.limiter.login("a", "alice"), 1, "Try again in a second.")
        self.clock.advance(1)
        self.limiter.login("a", "alice")

    def test_address_may_fail_twenty_times_in_all(self) -> None:
        """Trying one password on many names is slow, too; an IPv6 subscriber has one address."""
        for count in range(20):
            self.fail_login(f"2001:db8::{count:x}", f"user {count}")
        self.assert_limited(lambda: self.limiter.login("2001:db8::ff", "somebody"), 900)
        self.limiter.login("2001:db8:0:1::", "somebody")

    def test_username_may_be_failed_for_fifty_times(self) -> None:
        """From all addresses together."""
        for count in range(50):
            self.fail_login(f"10.0.0.{count}", "alice")
        self.assert_limited(lambda: self.limiter.login("10.0.1.1", "alice"), 900)
        self.limiter.login("10.0.1.1", "bob")

    def test_known_address_has_a_counter_of_its_own(self) -> None:
        """Neither strangers' failures for the name nor those of others at the address lock the user out there."""
        self.known.add(hash_of("home"), "alice")
        for count in range(50):
            self.fail_login(f"10.0.0.{count}", "alice")
        for count in range(20):
            self.fail_login("home", f"user {count}")
        self.assert_limited(lambda: self.limiter.login("10.0.1.1", "alice"), 900)
        self.assert_limited(lambda: self.limiter.login("home", "bob"), 900)
        self.limiter.check_address("home")
        self.fail_login("home", "alice", 5)
        self.assert_limited(lambda: self.limiter.login("home", "alice"), 900)

    def test_address_is_known_for_30_days(self) -> None:
        """Of an IPv6 subscriber every address is; a later sign-in renews it."""
        self.known.add(hash_of("2001:db8::1"), "alice")
        self.known.add(hash_of("2001:db8::1"), "bob")
        there = hash_of("2001:db8::2")
        self.clock.advance(ADDRESS_KEPT_S - 1)
        self.assertEqual([self.known.knows(there, name) for name in ("alice", "bob", "carol")], [True, True, False])
        self.known.add(there, "bob")
        self.clock.advance(1)
        self.assertEqual([self.known.knows(there, name) for name in ("alice", "bob")], [False, True])
        self.assertEqual([self.known.has_users(hash_of(each)) for each in ("2001:db8::3", "10.0.0.1")], [True, False])
        self.clock.advance(ADDRESS_KEPT_S)
        self.assertFalse(self.known.has_users(there))
        self.assertEqual(len(self.known), 0)

    def test_memory_of_known_addresses_is_bounded(self) -> None:
        """Those used longest ago are forgotten."""
        self.patch(module, "MAX_KEYS", 2)
        for name in "abac":
            self.known.add(b"there", name)
        self.assertEqual([self.known.knows(b"there", name) for name in "abc"], [True, False, True])

    def test_success_clears_the_counters_of_that_username_only(self) -> None:
        """Somebody who knows one password gets no more tries at others by it."""
        self.fail_login("a", "alice", 4)
        self.fail_login("a", "bob", 5)
        attempt = self.limiter.login("a", "alice")
        attempt.start()
        attempt.succeed()
        self.fail_login("a", "alice", 5)
        self.assert_limited(lambda: self.limiter.login("a", "alice"), 900)
        self.assert_limited(lambda: self.limiter.login("a", "bob"), 900)
        self.fail_login("a", "carol", 5)
        self.fail_login("a", "dave", 1)
        self.assert_limited(lambda: self.limiter.login("a", "erin"), 900)

    def test_success_elsewhere_does_not_clear_an_attackers_counter(self) -> None:
        """The one of the attacker's address and that username goes on."""
        self.fail_login("bad", "alice", 5)
        attempt = self.limiter.login("home", "alice")
        attempt.start()
        attempt.succeed()
        self.assert_limited(lambda: self.limiter.login("bad", "alice"), 900)

    def test_attempts_at_the_same_time_count(self) -> None:
        """Each counts from its start: a burst does not find the counters low."""
        attempts = [self.limiter.login("a", "alice") for _ in range(6)]
        for attempt in attempts[:5]:
            attempt.start()
        self.assert_limited(attempts[5].start, 900)

    def test_cancelled_attempt_does_not_count(self) -> None:
        """Whether it was started or not; nothing was learnt from it."""
        for _ in range(60):
            attempt = self.limiter.login("a", "alice")
            attempt.cancel()
            attempt.start()
            attempt.cancel()
        self.limiter.login("a", "alice")

    def test_registrations_and_guests_are_counted_apart(self) -> None:
        """Ten each per address."""
        for _ in range(10):
            self.limiter.count_registration("a")
            self.limiter.count_guest("a")
        self.assert_limited(lambda: self.limiter.count_registration("a"), 900, "too many registrations")
        self.assert_limited(lambda: self.limiter.count_guest("a"), 900, "too many guests")
        self.limiter.count_registration("b")
        self.clock.advance(900)
        self.limiter.count_registration("a")

    def test_numbers_are_the_policys(self) -> None:
        """Limits and windows come from it."""
        limiter = AttemptLimiter(RateLimits(1, 10, 2, 20), self.clock.seconds, self.known, hash_of)
        limiter.login("a", "alice").start()
        self.assert_limited(lambda: limiter.login("a", "alice"), 10, "Try again in 10 seconds.")
        for _ in range(2):
            limiter.count_guest("a")
        self.assert_limited(lambda: limiter.count_guest("a"), 20)

    def test_relays_that_share_their_counts_limit_as_one(self) -> None:
        """Failures at one count at the other, and what succeeds there resets the counters here, too."""
        here = self.limiter
        there = AttemptLimiter(RateLimits(), self.clock.seconds, self.known, hash_of)
        here.share, there.share = there.follow, here.follow
        for place in range(5):
            (here, there)[place % 2].login("a", "alice").start()
        for limiter in (here, there):
            with self.subTest(limiter=limiter):
                self.assert_limited(partial(limiter.login, "a", "alice"), 900)
        self.clock.advance(900)
        attempt = here.login("a", "alice")
        for _ in range(3):
            there.login("a", "alice").start()
        attempt.start()
        told: list[int] = []

        def share(what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
            told.append(what)
            there.follow(what, counts)

        here.share = share
        attempt.succeed()
        self.assertEqual(len(told), 1)
        self.assertEqual([len(each.by_pair) for each in (here, there)], [0, 0])
        self.assertEqual([len(each.by_username) for each in (here, there)], [0, 0])
        self.assertEqual([len(each.by_address._tries["a"]) for each in (here, there)], [3, 3])
        attempt = here.login("a", "bob")
        attempt.start()
        attempt.cancel()
        self.assertEqual([len(each.by_pair) for each in (here, there)], [0, 0])
        for place in range(10):
            (here, there)[place % 2].count_registration("a")
        self.assert_limited(partial(there.count_registration, "a"), 900)
        here.follow(0, [(99, b"", "a")])
