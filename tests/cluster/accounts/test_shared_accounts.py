"""Tests of clasp_relay.cluster.accounts.shared_accounts: what one relay is asked, all have, also after losses."""

from __future__ import annotations

import random
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Busy
from clasp_relay.cluster.exchange.packets import encode_fields
from clasp_relay.errors import StartError
from clasp_relay.storage.users import InviteGone, NameTaken, StoreBusy
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.cluster.account_world import ENTRY, AccountCase, World
from tests.storage.test_users_rows import CALLS, everything
from tests.storage.test_users_sqlite import ALICE, BOB, DAY_S, NO_PROOF, NOW_S, keys_of, token, user


class CallTests(AccountCase):
    """Calls that write."""

    def test_every_call_is_done_everywhere(self) -> None:
        """Whoever is asked, with what the same call does at a relay that is alone."""
        alone = SqliteUsers(None, keys_of)
        self.addCleanup(alone.close)
        members = self.world.members
        for place, (name, call) in enumerate(CALLS):
            member = members[0 if "purged" in name else place % 3]
            asked: list[Deferred[Any]] = []

            class Store:
                """Sends what is called to the cluster."""

                def __init__(self, part: Any) -> None:
                    self._part = part

                def __getattr__(self, method: str) -> Any:
                    found = getattr(self._part, method)
                    if not callable(found):
                        return Store(found)
                    return lambda *args, **kwargs: asked.append(member.run(found, *args, **kwargs))  # noqa: B023

            with self.subTest(call=name):
                if name.startswith(("a device", "a webhook", "entries", "id", "an id")):  # not asked, but told
                    call(member.store)
                    self.world.advance(1)
                    call(alone)
                    continue
                call(Store(member.store))  # type: ignore[arg-type]
                self.assertEqual(self.done(asked[0]), call(alone))
        self.assert_alike()
        self.assertEqual(everything(self.one.store), everything(alone))

    def test_the_same_name_on_two_relays_goes_to_one(self) -> None:
        """The other one is told that it is taken."""
        asked = [self.register(self.two, "Alice", 1), self.register(self.three, "Alice", 2)]
        self.world.turn()
        self.successResultOf(asked[0])
        self.failureResultOf(asked[1], NameTaken)
        self.assert_alike()

    def test_an_invite_is_used_once(self) -> None:
        """Over all relays."""
        self.done(self.two.run(self.two.store.add_invite, b"i", NOW_S, None, 1))
        asked = [
            self.two.run(self.two.store.add_user, user(), ALICE, token("a"), NO_PROOF, b"i"),
            self.three.run(self.three.store.add_user, user("u2", "Bob"), BOB, token("b", "u2"), NO_PROOF, b"i"),
        ]
        self.world.turn()
        self.successResultOf(asked[0])
        self.failureResultOf(asked[1], InviteGone)

    def test_many_calls_share_a_record(self) -> None:
        """What is asked while one is on its way goes together."""
        asked = [self.register(self.two, f"name{number}", number) for number in range(40)]
        self.world.turn()
        for each in asked:
            self.successResultOf(each)
        self.assertLess(len(self.world.log), 5)
        self.assert_alike()

    def test_a_fault_of_one_call_is_no_other_s(self) -> None:
        """Those that were attempted with it are done."""
        asked = [
            self.register(self.two, "a", 1),
            self.two.run(self.two.store.revoke_invite, "\ud800"[:0] + "nothing"),
            self.register(self.two, "b", 2),
        ]
        self.one.store.add_guest_token = lambda *_: 1 // 0  # type: ignore[method-assign,assignment]
        guest = token("g", "g1", guest=True)
        asked.append(self.two.run(self.two.store.add_guest_token, guest, keys_of("gina"), NO_PROOF))
        self.world.advance(1)
        self.successResultOf(asked[0])
        self.failureResultOf(asked[1], InviteGone)
        self.successResultOf(asked[2])
        self.failureResultOf(asked[3])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_only_the_relay_that_asked_purges(self) -> None:
        """Another one that decides meanwhile was not told which tokens are still needed."""
        self.done(self.register(self.one))
        late_s = NOW_S + 1_000 * DAY_S
        self.world.is_stuck = True
        asked = self.one.run(self.one.store.purge, late_s, 10)
        self.world.turn()
        self.assertNoResult(asked)
        self.world.is_stuck = False
        self.world.decide(self.two)
        self.world.advance(2)
        self.assertEqual(self.successResultOf(asked), 0)
        self.world.decide(self.one)
        self.assertEqual(self.done(self.one.run(self.one.store.purge, late_s, 10)), 1)
        self.assert_alike()

    def test_nothing_is_asked_that_cannot_be_answered(self) -> None:
        """Where the engine is not heard."""
        self.two.following.is_cut_off = True
        failure = self.failureResultOf(self.register(self.two), Busy)
        self.assertIn("no connection to its cluster", failure.getErrorMessage())

    def test_what_is_read_is_read_here(self) -> None:
        """Nothing is sent for what is found."""
        self.done(self.register(self.two))
        self.world.lost = 1_000
        self.assertEqual(self.successResultOf(self.two.run(self.two.store.user, "u1")).username, "Alice")
        self.assertEqual(self.world.lost, 1_000)


class LossTests(AccountCase):
    """Messages, deciders and processes are lost."""

    def test_a_lost_packet_is_noticed(self) -> None:
        """The decider wants all again that is not done; the order stays."""
        self.world.lost = 1
        first = self.register(self.two, "a", 1)
        self.world.turn()
        self.assertEqual(self.world.log, [])
        second = self.register(self.two, "b", 2)
        self.world.turn()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assert_alike()

    def test_what_nobody_answers_is_sent_again(self) -> None:
        """Once a second."""
        self.world.lost = 1
        asked = self.register(self.two)
        self.world.advance(2)
        self.successResultOf(asked)
        self.assertEqual(len(self.world.log), 1)

    def test_what_waits_for_too_long_fails(self) -> None:
        """With a sentence that says what is known."""
        self.world.is_stuck = True
        asked = self.register(self.two)
        self.world.advance(6)
        failure = self.failureResultOf(asked, Busy)
        self.assertIn("may be done all the same", failure.getErrorMessage())
        self.world.is_stuck = False
        assert self.one.log is not None
        self.world.seal(self.one, self.one.log)
        self.world.turn()
        self.assertIsNotNone(self.two.store.user("u1"))
        self.assert_alike()

    def test_without_a_decider_nothing_was_sent(self) -> None:
        """And the sentence says so."""
        for each in self.world.members:
            each.following.ledger.decider = ""
        asked = self.register(self.two)
        self.world.advance(6)
        self.assertIn("no connection", self.failureResultOf(asked, Busy).getErrorMessage())

    def test_what_the_log_has_is_not_done_twice(self) -> None:
        """The decider was lost before it could tell; the next one knows from the log that it was done."""
        asked = self.two.run(self.two.store.administration.choose, {"a": "1"}, ENTRY)
        self.world.clock.advance(0)
        for _ in range(20):
            if self.world.log:
                break
            self.world.clock.advance(0)
        self.one.kill()
        self.world.decide(self.three)
        self.world.advance(3)
        self.successResultOf(asked)
        self.assertEqual(len(self.two.store.audit.after(0, 10)), 1)
        self.assert_alike()

    def test_what_the_log_does_not_have_is_done_by_the_next_decider(self) -> None:
        """What the one before has attempted was never there."""
        self.world.is_stuck = True
        asked = self.register(self.two)
        self.world.turn()
        self.world.is_stuck = False
        self.world.decide(self.three)
        self.world.advance(2)
        self.successResultOf(asked)
        self.assertEqual(len(self.world.log), 1)
        self.assert_alike()

    def test_a_file_that_is_held_is_waited_for(self) -> None:
        """Both where calls are attempted and where rows are written."""
        attempt, follow = self.one.store.rows.attempt, self.one.store.rows.follow
        refused = []

        def held(*_args: Any) -> Any:
            refused.append(1)
            if len(refused) < 3:
                raise StoreBusy("users.db")
            self.one.store.rows.attempt, self.one.store.rows.follow = attempt, follow  # type: ignore[method-assign]
            raise StoreBusy("users.db")

        self.one.store.rows.attempt = self.one.store.rows.follow = held  # type: ignore[method-assign,assignment]
        asked = self.register(self.two)
        self.world.advance(2)
        self.successResultOf(asked)
        self.assertEqual(len(refused), 3)
        self.assert_alike()

    def test_whoever_asks_a_relay_that_cannot_go_on_is_told_at_once(self) -> None:
        """Also who waits already; and it decides nothing any more."""
        self.three.take_log = lambda: None  # type: ignore[method-assign]
        self.done(self.register(self.two))
        waiting = self.three.run(self.three.store.user, "nobody")
        self.world.turn()
        self.assertNoResult(waiting)
        self.three.memory.key = b"2" * 32

        def full(_key: bytes) -> None:
            raise StartError("the disk is full")

        self.three.memory.take_key = full  # type: ignore[method-assign,assignment]
        self.three.accounts._has_key = False
        self.world.advance(1)
        self.assertEqual(self.three.fatal, ["the disk is full"])
        self.failureResultOf(waiting, Busy)
        self.failureResultOf(self.three.run(self.three.store.user, "nobody"), Busy)
        self.failureResultOf(self.register(self.three, "Bob", 2), Busy)
        self.world.decide(self.three)
        self.assertFalse(self.three.accounts.is_decider)
        self.failureResultOf(self.three.run(self.three.store.user, "nobody"), Busy)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32))
    def test_nothing_is_lost_or_doubled(self, seed: int) -> None:
        """Whatever is lost on the way, and however often another relay decides."""
        draw = random.Random(seed)
        self.setUp()
        asked: list[tuple[int, Deferred[Any]]] = []
        for number in range(30):
            member = draw.choice(self.world.members)
            asked.append((number, self.register(member, f"name{number}", number)))
            what = draw.random()
            if what < 0.2:
                self.world.lost = draw.randrange(3)
            elif what < 0.35:
                self.world.decide(draw.choice(self.world.members))
            for _ in range(draw.randrange(6)):
                self.world.clock.advance(0)
            if draw.random() < 0.3:
                self.world.clock.advance(0.3)
        self.world.lost = 0
        self.world.advance(4)
        for number, each in asked:
            results: list[Any] = []
            each.addBoth(results.append)
            if results == [None]:
                self.assertIsNotNone(self.one.store.user(f"u{number}"))
            else:
                self.assertTrue(results and results[0].check(Busy), results)
        self.assertGreater(sum(self.one.store.user(f"u{number}") is not None for number in range(30)), 20)
        self.assert_alike()


class LookUpTests(AccountCase):
    """Who is not known here may be known elsewhere."""

    def setUp(self) -> None:
        """One of them is behind."""
        super().setUp()
        self.late = self.two
        self.held: list[Any] = []
        self.late.take_log = lambda: None  # type: ignore[method-assign]
        self.done(self.register(self.three))

    def test_an_unknown_name_is_looked_for_again(self) -> None:
        """Once this relay has what the decider has."""
        asked = self.late.run(self.late.store.find_user, ["Alice"], "alice")
        self.world.turn()
        self.assertNoResult(asked)
        del self.late.take_log
        self.late.take_log()
        self.assertEqual(self.done(asked).user_id, "u1")

    def test_who_is_really_unknown_is_not_found(self) -> None:
        """After one question."""
        del self.late.take_log
        self.late.take_log()
        self.assertIsNone(self.done(self.late.run(self.late.store.find_user, ["Bob"], "bob")))
        asked = self.late.run(self.late.store.check_invite, b"x", NOW_S)
        self.world.turn()
        self.failureResultOf(asked, InviteGone)

    def test_the_decider_asks_nobody(self) -> None:
        """It has all that anybody was told of."""
        self.assertIsNone(self.successResultOf(self.one.run(self.one.store.find_user, ["Bob"], "bob")))

    def test_a_question_that_is_lost_is_asked_again(self) -> None:
        """And in the end it fails."""
        self.world.lost = 1
        asked = self.late.run(self.late.store.find_user, ["Bob"], "bob")
        self.world.advance(1.5)
        del self.late.take_log
        self.late.take_log()
        self.assertIsNone(self.done(asked))
        self.world.lost = 1_000
        asked = self.late.run(self.late.store.find_user, ["Bob"], "bob")
        self.world.advance(7)
        self.failureResultOf(asked, Busy)


class AttemptTests(AccountCase):
    """What is counted of attempts to sign in."""

    def test_others_count_what_one_counts(self) -> None:
        """It does not itself; what is no count is left out."""
        self.two.accounts.share_attempts(0, [(0, b"d", "192.0.2.1"), (1, b"", "192.0.2.1")])
        self.world.turn()
        expected = [(0, (0, b"d", "192.0.2.1"), (1, b"", "192.0.2.1"))]
        found = [each.memory.attempts for each in self.world.members]
        self.assertEqual(found, [expected, [], expected])
        other_version = msgpack.packb((2, "x", 0, [(0, b"d", "192.0.2.1")]))
        for payload in (b"\xc1", b"\x05", encode_fields("x", 0, (5,)), encode_fields("x", 0), other_version):
            self.one.accounts.heard_attempts(payload)
        self.assertEqual(self.one.memory.attempts, expected)


class LifeTests(SynchronousTestCase):
    """The beginning and the end of a relay."""

    def test_all_have_the_decider_s_key(self) -> None:
        """It is never in the log."""
        world = World()
        one, two = world.add("one"), world.add("two")
        one.memory.key, two.memory.key = b"1" * 32, b"2" * 32
        world.decide(one)
        self.assertFalse(two.accounts.is_ready)
        world.advance(1)
        self.assertEqual(two.memory.key, b"1" * 32)
        self.assertTrue(two.accounts.is_ready)
        self.assertNotIn(b"1" * 32, b"".join(change.param.value for change in world.log))

    def test_a_key_that_cannot_be_kept_ends_the_relay(self) -> None:
        """It would count addresses differently after its next start."""
        world = World()
        one, two = world.add("one"), world.add("two")
        two.memory.key = b"2" * 32

        def full(_key: bytes) -> None:
            raise StartError("the disk is full")

        two.memory.take_key = full  # type: ignore[method-assign,assignment]
        world.decide(one)
        world.advance(1)
        self.assertEqual(two.fatal, ["the disk is full"])

    def test_a_stop_ends_what_waits(self) -> None:
        """And takes nothing any more."""
        world = World()
        one, two = world.started("one", "two")
        world.is_stuck = True
        asked = two.run(two.store.administration.choose, {"a": "1"}, ENTRY)
        looked = two.run(two.store.user, "nobody")
        two.accounts.stop()
        self.failureResultOf(asked, Busy)
        self.failureResultOf(looked, Busy)
        self.failureResultOf(two.run(two.store.administration.choose, {"a": "1"}, ENTRY), Busy)
        world.turn()
        self.assertTrue(one.accounts.is_decider)
        one.accounts.stop()
        self.assertFalse(one.accounts.is_decider)
