"""Tests of clasp_relay.core.session.account: the memory of sessions, and its limits."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.fanout import throttles
from clasp_relay.core.fanout.gestures import GESTURE_BYTES
from clasp_relay.core.fanout.throttles import HELD_BYTES, THROTTLE_BYTES
from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.session.account import SHARED_FACTOR, Accounts, MemoryKind
from clasp_relay.core.session.schedule import BUNDLE_BYTES, MEMBER_BYTES
from clasp_relay.core.session.sessions import NODE_BYTES, SUBSCRIPTION_BYTES
from clasp_relay.core.work import TURN_US
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.constants import ALL_TYPES, Phase, Signal
from clasp_relay.wire.messages import Ack, Bundle, Error, Publish, Set, Subscribe, Unsubscribe
from tests.core.world import START_US, World, heard, value


class AccountTests(SynchronousTestCase):
    """Sums and limits."""

    def test_nothing_may_be_counted_for_somebody_of_whom_nothing_is_kept(self) -> None:
        """For example when a client without waiting messages leaves."""
        accounts = Accounts(100)
        accounts.open("ann", "192.0.2.1").add(MemoryKind.MESSAGES, 0)
        self.assertEqual((accounts._by_subject, accounts._by_origin), ({}, {}))

    def test_what_is_kept_is_counted_by_kind(self) -> None:
        """Until it is freed."""
        accounts = Accounts()
        account = accounts.open("ann", "192.0.2.1")
        account.take(MemoryKind.BUNDLES, 5)
        account.add(MemoryKind.SNAPSHOTS, 7)
        self.assertEqual(
            (account.bytes, accounts.bytes[MemoryKind.BUNDLES], accounts.bytes[MemoryKind.SNAPSHOTS]), (12, 5, 7)
        )
        account.add(MemoryKind.BUNDLES, -5)
        account.add(MemoryKind.SNAPSHOTS, -7)
        self.assertEqual((account.bytes, set(accounts.bytes)), (0, {0}))
        self.assertEqual((accounts._by_subject, accounts._by_origin), ({}, {}))

    def test_session_user_and_client_address_are_limited(self) -> None:
        """Each refusal names the limit and what to do; a user and an address may have four times as much."""
        limit = 100
        for opened, whose in (
            ([("", "")], "100 bytes for this session (max-session-memory)"),
            ([("ann", str(n)) for n in range(5)], "400 bytes for the sessions of your user (4 times"),
            ([(str(n), "192.0.2.1") for n in range(5)], "400 bytes for the sessions of your client address (4 times"),
        ):
            with self.subTest(whose):
                accounts = Accounts(limit)
                *others, account = [accounts.open(subject, origin) for subject, origin in opened]
                for other in others[:SHARED_FACTOR]:
                    other.take(MemoryKind.SUBSCRIPTIONS, limit)
                if not others:
                    account.take(MemoryKind.SUBSCRIPTIONS, limit)
                self.assertFalse(account.is_over)
                error = self.assertRaises(RequestError, account.take, MemoryKind.SUBSCRIPTIONS, 1, "/a/*")
                self.assertEqual((error.code, error.address), (ErrorCode.LIMIT, "/a/*"))
                self.assertTrue(error.message.startswith(f"too much is kept for you: more than {whose}"), error.message)
                self.assertIn("with these subscriptions; end a subscription first", error.message)
                account.add(MemoryKind.THROTTLES, 1)
                self.assertTrue(account.is_over)

    def test_nothing_is_limited_without_a_limit(self) -> None:
        """It is still counted."""
        accounts = Accounts()
        account = accounts.open("ann", "192.0.2.1")
        account.take(MemoryKind.SUBSCRIPTIONS, 1 << 40)
        self.assertFalse(account.is_over)


class SessionMemoryTests(SynchronousTestCase):
    """Each kind of memory, in a session that may use 10,000 bytes."""

    def setUp(self) -> None:
        """Joins a writer and a reader."""
        self.world = World(RelayOptions(session_memory_bytes=10_000))
        self.writer = self.world.join()
        self.reader = self.world.join()

    def kept(self, kind: MemoryKind) -> int:
        """Returns the bytes of one kind."""
        return self.world.relay.accounts.bytes[kind]

    def assert_refused(self, answers: list[object], what: str) -> None:
        """Asserts that one message was refused because of the memory limit."""
        (error,) = answers
        assert isinstance(error, Error), error
        self.assertEqual(error.error, ErrorCode.LIMIT)
        self.assertIn("too much is kept for you", error.message)
        self.assertIn(what, error.message)

    def test_long_patterns_are_refused_beyond_the_limit(self) -> None:
        """An ended subscription makes room; one that replaces another counts only for the difference."""
        pattern = "/" + "/".join("s" * 10) + "/*"
        size_bytes = SUBSCRIPTION_BYTES + 4 * len(pattern) + 11 * NODE_BYTES
        self.assertEqual(self.reader.ask(Subscribe(1, pattern)), [])
        self.assertEqual(self.kept(MemoryKind.SUBSCRIPTIONS), size_bytes)
        self.assert_refused(list(self.reader.ask(Subscribe(2, pattern))), "end a subscription first")
        self.assertEqual(self.reader.ask(Subscribe(1, pattern)), [])
        self.reader.send(Unsubscribe(1))
        self.assertEqual(self.kept(MemoryKind.SUBSCRIPTIONS), 0)
        self.assertEqual(self.reader.ask(Subscribe(2, pattern)), [])
        self.reader.leave()
        self.assertEqual(self.kept(MemoryKind.SUBSCRIPTIONS), 0)

    def test_bundles_are_refused_beyond_the_limit(self) -> None:
        """A bundle that was applied makes room; those of an ended session still count."""
        bundle = Bundle((Set("/a", value("x" * 7_000)),), START_US + 1_000_000)
        self.assertEqual(self.writer.ask(bundle, 1), [Ack()])
        size_bytes = BUNDLE_BYTES + MEMBER_BYTES + 2 + 7_003
        self.assertEqual(self.kept(MemoryKind.BUNDLES), size_bytes)
        self.assert_refused(list(self.writer.ask(bundle, 1)), "wait until scheduled bundles are due")
        self.writer.leave()
        self.assertEqual(self.kept(MemoryKind.BUNDLES), size_bytes)
        self.world.clock.clock.advance(1)
        self.assertEqual(self.kept(MemoryKind.BUNDLES), 0)

    def test_held_values_are_sent_early_beyond_the_limit(self) -> None:
        """First that of the least recently updated address; none is lost."""
        self.reader.send(Subscribe(1, "/**", ALL_TYPES, 1))
        before = self.world.relay.accounts.bytes[MemoryKind.SUBSCRIPTIONS]
        for number in range(3):
            for text in ("first", "x" * 2_000):
                self.writer.send(Set(f"/{number}", value(text)))
        held = 2 * (THROTTLE_BYTES + 2 + HELD_BYTES + 2 + 2_003)
        self.assertEqual(self.kept(MemoryKind.THROTTLES), held)
        self.assertLess(held + before, 10_000)
        texts = heard(self.reader.hear())
        self.assertEqual([where for where, _ in texts], ["/0", "/1", "/2", "/0"])
        self.world.clock.clock.advance(1)
        self.assertEqual([where for where, _ in heard(self.reader.hear())], ["/1", "/2"])
        self.assertEqual(self.kept(MemoryKind.THROTTLES), 2 * (THROTTLE_BYTES + 2))
        self.reader.leave()
        self.assertEqual(self.kept(MemoryKind.THROTTLES), 0)

    def test_few_addresses_start_anew_in_one_turn(self) -> None:
        """The others in later turns; when the session ends, no work is left."""
        self.patch(throttles, "RELEASE_US", TURN_US)
        for leaves in (False, True):
            with self.subTest(leaves=leaves):
                self.setUp()
                self.reader.send(Subscribe(1, "/**", ALL_TYPES, 1))
                for number in range(3):
                    for text in ("first", "second"):
                        self.writer.send(Set(f"/{number}", value(text)))
                for text in ("first", "x" * 9_500):
                    self.writer.send(Set("/large", value(text)))
                sent = [("/0", "second")]
                self.assertEqual(heard(self.reader.hear())[4:], sent)
                if leaves:
                    self.reader.leave()
                self.world.settle()
                self.assertFalse(self.world.relay.throttles._crowded)
                if leaves:
                    self.assertEqual(self.kept(MemoryKind.THROTTLES), 0)
                else:
                    self.assertEqual([where for where, _ in heard(self.reader.hear())], ["/1", "/2", "/large"])

    def test_value_that_fits_nowhere_is_not_held(self) -> None:
        """It is sent at once."""
        self.reader.send(Subscribe(1, "/**", ALL_TYPES, 1))
        for text in ("first", "x" * 12_000):
            self.writer.send(Set("/a", value(text)))
        self.assertEqual(len(self.reader.hear()), 2)
        self.assertEqual(self.kept(MemoryKind.THROTTLES), 0)

    def test_held_moves_are_sent_early_beyond_the_limit(self) -> None:
        """The gesture that moved longest ago is forgotten with that."""
        self.reader.send(Subscribe(1, "/**"))
        for number in range(3):
            for size in (1, 3_000):
                move = Publish(f"/{number}", Signal.GESTURE, Phase.MOVE, value("x" * size), id=1)
                self.writer.send(move)
        self.assertEqual([where for where, _ in heard(self.reader.hear())], ["/0", "/1", "/2", "/0"])
        self.assertEqual(self.kept(MemoryKind.GESTURES), 2 * (GESTURE_BYTES + 2 + HELD_BYTES + 2 + 3_003))
        self.writer.leave()
        self.assertEqual(self.kept(MemoryKind.GESTURES), 0)

    def test_gesture_that_is_over_is_not_counted(self) -> None:
        """Its last move is sent before its end."""
        self.reader.send(Subscribe(1, "/**"))
        for phase in (Phase.MOVE, Phase.MOVE, Phase.END):
            self.writer.send(Publish("/a", Signal.GESTURE, phase, value(1), id=1))
        self.assertEqual(len(self.reader.hear()), 3)
        self.assertEqual(self.kept(MemoryKind.GESTURES), 0)
