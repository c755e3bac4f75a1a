"""Tests of clasp_relay.core.session.schedule: scheduled bundles."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session import schedule as bundles
from clasp_relay.core.work import Pieces
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Ack, Bundle, Error, Publish, Set, Subscribe
from tests.core.guard import Guard
from tests.core.world import START_US, Client, World, codes, heard, value


class ScheduleTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A sender and a listener."""
        self.world = World()
        self.sender = self.world.join()
        self.listener = self.world.join()
        self.listener.send(Subscribe(1, "/**"))

    def send(self, after_s: float, *members: Set | Publish, by: Client | None = None) -> list[object]:
        """Sends a bundle with a time, and returns the codes of the ERRORs or the ACKs."""
        at_us = self.world.clock.now_us() + round(after_s * 1e6)
        answers = (by or self.sender).ask(Bundle(members, at_us), 1)
        return [answer.error if isinstance(answer, Error) else answer for answer in answers]

    def pass_time(self, seconds: float) -> list[tuple[str, object]]:
        """Advances the clock, and returns what the listener gets."""
        self.world.clock.clock.advance(seconds)
        return heard(self.listener.hear())

    def test_bundle_is_applied_at_its_time(self) -> None:
        """All members, in order; the ACK has no revision and is sent at once."""
        members = (Set("/a", value(1)), Publish("/e", Signal.EVENT, value=value(2)), Set("/b", value(3)))
        self.assertEqual(self.send(2, *members), [Ack()])
        self.assertEqual((len(self.world.relay.schedule), self.sender.session.pending_bundles), (1, 1))
        self.assertEqual(self.pass_time(1.999), [])
        self.assertEqual(self.pass_time(0.001), [("/a", 1), ("/e", 2), ("/b", 3)])
        self.assertEqual(self.sender.hear(), [])
        schedule = self.world.relay.schedule
        self.assertEqual((len(schedule), schedule.pending_bytes, self.sender.session.pending_bundles), (0, 0, 0))

    def test_time_that_has_come_is_now(self) -> None:
        """Like a bundle without a time, with the last revision in the ACK."""
        for at_us in (0, START_US - 1, START_US):
            self.setUp()
            self.assertEqual(self.sender.ask(Bundle((Set("/a", value(1)),), at_us), 1), [Ack(None, 1)])
            self.assertEqual(self.pass_time(0), [("/a", 1)])

    def test_bundle_is_checked_when_it_comes(self) -> None:
        """A bundle that is refused then is not scheduled."""
        self.assertEqual(self.send(2, Set("/a", value(1)), Set("bad", value(1))), [ErrorCode.ADDRESS])
        self.assertEqual(self.send(2, Set("/a", value(1), 5)), [ErrorCode.CONFLICT])
        self.assertEqual(self.pass_time(10), [])

    def test_bundle_is_checked_again_when_it_is_due(self) -> None:
        """If it is refused then, nothing changes, and its sender gets the ERROR."""
        self.send(2, Set("/a", value(1), 0), Set("/b", value(2)))
        self.listener.send(Set("/a", value("first")))
        self.assertEqual(self.pass_time(1), [("/a", "first")])
        self.assertEqual(self.pass_time(5), [])
        (error,) = self.sender.hear()
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.CONFLICT, "/a"))

    def test_bundle_outlives_its_session(self) -> None:
        """It was accepted; an ERROR reaches nobody."""
        self.send(1, Set("/a", value(1), lock=True))
        self.send(1, Set("/a", value(1), 0))
        self.sender.leave()
        self.assertEqual(self.pass_time(1), [("/a", 1)])
        self.assertIsNone(self.world.relay.params.holder("/a"))
        self.assertEqual((self.sender.hear(), self.world.faults), ([], []))

    def test_fault_when_it_is_due_is_reported(self) -> None:
        """The sender gets «internal error», and its session goes on."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        self.send(1, Set("/a", value(1)))
        self.world.relay.decider.set = fail  # type: ignore[method-assign, assignment]
        self.pass_time(1)
        (error,) = self.sender.hear()
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.message), (ErrorCode.INTERNAL, "internal error"))
        ((what, fault),) = self.world.faults
        self.assertIn(self.sender.session.id, what)
        self.assertIsInstance(fault, ZeroDivisionError)

    def test_more_than_an_hour_ahead_is_refused(self) -> None:
        """It is probably a wrong unit."""
        self.assertEqual(self.send(3600, Set("/a", value(1))), [Ack()])
        self.assertEqual(self.send(3600.000001, Set("/a", value(1))), [ErrorCode.VALUE])
        self.assertEqual(codes(self.sender.ask(Bundle((), 2**64 - 1))), [ErrorCode.VALUE])

    def test_so_many_may_wait_per_session(self) -> None:
        """Other sessions' bundles do not count; a bundle that was applied makes room."""
        for _ in range(bundles.MAX_PENDING):
            self.sender.send(Bundle((), START_US + 1_000_000))
        self.assertEqual(self.sender.hear(), [])
        self.assertEqual(self.send(1, Set("/a", value(1))), [ErrorCode.LIMIT])
        self.assertEqual(self.send(1, Set("/a", value(1)), by=self.listener), [Ack()])
        self.world.clock.clock.advance(1)
        self.assertEqual(self.send(1, Set("/a", value(1))), [Ack()])

    def test_memory_of_all_that_waits_is_bounded(self) -> None:
        """Bundles of ended sessions count; a bundle that was applied makes room."""
        self.patch(bundles, "MAX_PENDING_BYTES", 5_000)
        members = (Set("/é", value("x" * 500)), Publish("/b", Signal.STREAM, samples=bytes(80)))
        self.assertEqual(self.send(1, *members), [Ack()])
        size_bytes = bundles.BUNDLE_BYTES + 2 * bundles.MEMBER_BYTES + 3 + 503 + 2 + 80
        self.assertEqual(self.world.relay.schedule.pending_bytes, size_bytes)
        self.assertEqual(self.send(1, *members), [Ack()])
        self.sender.leave()
        self.assertEqual(self.send(1, *members, by=self.listener), [ErrorCode.OVERLOADED])
        self.world.clock.clock.advance(1)
        self.assertEqual(self.send(1, *members, by=self.listener), [Ack()])

    def test_many_bundles_that_are_due_at_once_run_in_bounded_turns(self) -> None:
        """Sessions in turn: one with few bundles does not wait for one with many."""
        for number in range(300):
            self.send(1, Set(f"/{number}", value(number)))
        other = self.world.join()
        self.send(1, Set("/other", value(1)), by=other)
        before = self.world.relay.work.turns
        ran = [address for address, _ in self.pass_time(1)]
        self.assertGreater(self.world.relay.work.turns - before, 5)
        self.assertLess(ran.index("/other"), 280)
        self.assertEqual([each for each in ran if each != "/other"], [f"/{number}" for number in range(300)])
        self.assertEqual(self.world.relay.params.last_revision("/299"), 1)
        self.assertEqual((len(self.world.relay.schedule), bool(self.world.relay.work)), (0, False))

    def test_bundles_that_are_due_are_found_in_pieces(self) -> None:
        """However many are due at once; none is applied while they are found."""
        for number in range(200):
            self.send(1, Set(f"/{number}", value(number)))
        relay = self.world.relay
        work: list[Pieces] = []
        self.patch(relay.work, "add", lambda _owner, pieces: work.append(pieces))
        self.world.clock.clock.advance(1)
        (finding,) = work
        found = []
        for cost_us in finding:
            found.append(len(work) - 1)
            self.assertLessEqual(cost_us, 1_000)
        self.assertEqual((found[0], found[-1]), (bundles.FOUND_AT_ONCE, 200))

    def test_bundle_follows_a_clock_that_is_set_back(self) -> None:
        """It is applied at its time by the new clock."""
        self.send(5, Set("/a", value(1)))
        now_us = self.world.clock.now_us
        self.patch(self.world.clock, "now_us", lambda: now_us() - 3_000_000)
        self.assertEqual(self.pass_time(5), [])
        self.assertEqual(self.pass_time(2.9), [])
        self.assertEqual(self.pass_time(0.2), [("/a", 1)])

    def test_bundles_of_a_revoked_token_are_dropped(self) -> None:
        """At once, also those of the token's ended sessions; another token's bundles stay."""
        world = World(permissions=Guard())
        alice, gone, bob = world.join("alice"), world.join("alice"), world.join("bob")
        for client in (alice, gone, bob):
            client.send(Bundle((Set("/a", value(1)), Set("/b", value(1))), START_US + 1_000_000))
        gone.leave()
        kept_bytes, schedule = world.relay.schedule.pending_bytes // 3, world.relay.schedule
        identity = alice.session.identity
        world.relay.end_token("alice", identity.token, Disconnect(CloseCode.POLICY_VIOLATION, "revoked"))
        self.assertEqual((len(schedule), schedule.pending_bytes), (1, kept_bytes))
        world.clock.clock.advance(1)
        self.assertEqual((len(schedule), world.relay.params.last_revision("/a")), (0, 1))

    def test_many_bundles_can_be_dropped_while_they_are_due(self) -> None:
        """Each is either applied or dropped, once, in any order."""
        for later_us in (0, -1):
            with self.subTest(later_us=later_us):
                world = World(permissions=Guard())
                alice = world.join("alice")
                identity, ended = alice.session.identity, Disconnect(CloseCode.POLICY_VIOLATION, "revoked")
                world.clock.call_later(1, lambda: world.relay.end_token("alice", identity.token, ended))  # noqa: B023
                for number in range(1_000):
                    alice.send(Bundle((Set(f"/{number}", value(1)),), START_US + 1_000_000 + later_us * number))
                world.clock.clock.advance(1)
                schedule = world.relay.schedule
                self.assertEqual((len(schedule), schedule.pending_bytes, bool(world.relay.work)), (0, 0, False))
                self.assertEqual(world.faults, [])
