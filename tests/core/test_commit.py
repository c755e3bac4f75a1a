"""Tests of clasp_relay.core.commit: changes are applied, told and recorded, and answers released."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import clasp_relay
from clasp_relay.core.ports import Frame, ImmediateLog
from clasp_relay.core.records import Change, ChangeKind, Param, decode_change, encode_change, no_param
from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.rights.port import Grant
from clasp_relay.core.session.sessions import LongAnswer
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.shares import ShareLimits
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.wire.constants import ALL_TYPES, TTL_ABSOLUTE, Phase, Signal
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Bundle,
    Error,
    Get,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Set,
    Snapshot,
    Subscribe,
    Sync,
)
from clasp_relay.wire.values import decode_value
from tests.core.guard import Guard, Rule, members_of
from tests.core.world import KEPT, START_US, Client, SlowLog, World, codes, heard, revisions, rules_of, value


class SetCase(SynchronousTestCase):
    """SETs with an ACK."""

    def setUp(self) -> None:
        """A writer, another writer, and a listener."""
        self.begin(ParamLimits())

    def begin(self, limits: ParamLimits) -> None:
        """Begins with a new relay."""
        self.world = World(RelayOptions(params=limits))
        self.writer, self.other, self.listener = (self.world.join() for _ in range(3))
        self.listener.send(Subscribe(1, "/**"))

    def set(self, obj: object, address: str = "/a", *, by: str = "writer", **options: object) -> list[object]:
        """Sets a value, and returns the codes of the ERRORs, or the revision of the ACK."""
        client = self.writer if by == "writer" else self.other
        answers = client.ask(Set(address, value(obj), **options), 1)  # type: ignore[arg-type]
        return [*codes(answers), *(f"r{one}" for one in revisions(answers))]


class SetTests(SetCase):
    """Effects of a SET."""

    def test_revision_never_goes_back(self) -> None:
        """Through deletion, expiry, eviction and a restart."""
        self.begin(ParamLimits(max_params=2))
        self.assertEqual(self.set(1), ["r1"])
        self.assertEqual(self.set(None), ["r2"])
        self.assertEqual(self.set(None), ["r3"])
        self.assertEqual(self.set(2, ttl=1), ["r4"])
        self.world.advance(2)
        self.assertEqual(self.set(3, ttl=60), ["r6"])
        self.assertEqual(self.set(1, "/b") + self.set(1, "/c"), ["r1", "r1"])
        self.assertIsNone(self.world.relay.params.get("/a"))
        image = self.world.relay.params.image()
        self.begin(ParamLimits())
        self.world.relay.params.load(image)
        self.assertEqual(self.set(4), ["r8"])

    def test_wrong_revision_is_refused(self) -> None:
        """After a deletion there is no value, so revision 0 is accepted."""
        self.assertEqual(self.set(1, revision=1), [ErrorCode.CONFLICT])
        self.assertEqual(self.set(1, revision=0), ["r1"])
        self.assertEqual(self.set(2, revision=0), [ErrorCode.CONFLICT])
        self.assertEqual(self.set(2, revision=1), ["r2"])
        self.assertEqual(self.set(None, revision=2), ["r3"])
        self.assertEqual(self.set(1, revision=3), [ErrorCode.CONFLICT])
        self.assertEqual(self.set(1, revision=0), ["r4"])
        self.assertEqual(heard(self.listener.hear()), [("/a", 1), ("/a", 2), ("/a", None), ("/a", 1)])

    def test_deleted_param_leaves_snapshots(self) -> None:
        """Subscribers get the null with its revision; new sessions get nothing."""
        self.set(1)
        self.listener.hear()
        self.set(None)
        self.assertEqual(self.listener.hear(), [Set("/a", NULL, 2)])
        self.assertEqual(self.other.ask(Subscribe(1, "/a")), [])
        newcomer = self.world.connect()
        self.assertEqual(heard(newcomer.ask(Hello(1, 0, "newcomer"))), [])

    def test_invalid_address_is_refused(self) -> None:
        """Nothing is stored there."""
        for address in ("", "a", "/", "/a/", "/a//b", "/a/*"):
            with self.subTest(address=address):
                self.assertEqual(self.set(1, address), [ErrorCode.ADDRESS])
        self.assertEqual(len(self.world.relay.params), 0)

    def test_value_that_no_snapshot_carries_is_refused(self) -> None:
        """The writer gets an ERROR; nobody gets a part of the value."""
        self.assertEqual(self.set(bytes(65_450)), ["r1"])
        self.listener.hear()
        self.assertEqual(self.set(bytes(65_490)), [ErrorCode.VALUE])
        self.assertEqual(self.listener.hear(), [])
        (snapshot,) = self.other.ask(Get("/a"))
        self.assertEqual(heard([snapshot]), [("/a", bytes(65_450))])

    def test_lock_keeps_others_out(self) -> None:
        """Until its holder releases it; the ERROR names the holder."""
        (ack,) = self.writer.ask(Set("/a", value(1), lock=True), 1)
        self.assertEqual(ack, Ack("/a", 1, True, self.writer.session.id))
        for message in (Set("/a", value(2)), Set("/a", value(2), unlock=True), Set("/a", NULL)):
            (error,) = self.other.ask(message)
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (ErrorCode.LOCKED, "/a"))
            self.assertIn(self.writer.session.id, error.message)
        self.assertEqual(self.set(2), ["r2"])
        self.assertEqual(self.set(3, unlock=True), ["r3"])
        self.assertEqual(self.set(4, by="other", lock=True), ["r4"])
        self.assertEqual(self.set(5), [ErrorCode.LOCKED])

    def test_lock_and_unlock_together_hold_nothing(self) -> None:
        """The ACK says so."""
        (ack,) = self.writer.ask(Set("/a", value(1), lock=True, unlock=True), 1)
        self.assertEqual(ack, Ack("/a", 1, False, None))

    def test_deletion_ends_the_lock(self) -> None:
        """There is no value to lock, even if the SET asked for a lock."""
        self.set(1, lock=True)
        (ack,) = self.writer.ask(Set("/a", NULL, lock=True), 1)
        self.assertEqual(ack, Ack("/a", 2, False, None))
        self.assertEqual(self.set(2, by="other"), ["r3"])

    def test_lock_ends_with_its_session(self) -> None:
        """Locks of other sessions stay."""
        self.set(1, lock=True)
        self.set(1, "/b", by="other", lock=True)
        self.writer.leave()
        self.assertEqual(self.set(2, by="other"), ["r2"])
        self.assertEqual(self.world.relay.params.holder("/b"), self.other.session.id)

    def test_lock_ends_an_hour_after_it_was_taken_last(self) -> None:
        """A session that stays does not hold a lock for ever; a SET with lock begins the hour again."""
        log = SlowLog()
        self.world = World(log=log)
        self.writer, self.other = self.world.join(), self.world.join()
        for _ in range(2):
            self.writer.send(Set("/a", value(1), lock=True))
            self.world.advance(3599)
        self.writer.send(Set("/a", value(2)))
        self.assertEqual(self.set(3, by="other"), [ErrorCode.LOCKED])
        self.world.advance(1)
        self.assertIsNone(self.world.relay.params.holder("/a"))
        self.other.send(Set("/a", value(3)))
        self.assertEqual(self.world.relay.params.get("/a").value, value(3))  # type: ignore[union-attr]
        released = [change.param for change in log.changes if change.kind is ChangeKind.LOCK_RELEASE]
        self.assertEqual([(param.address, param.writer) for param in released], [("/a", self.writer.session.id)])

    def test_lock_ends_with_its_param(self) -> None:
        """The lock of an expired param is free."""
        self.set(1, lock=True, ttl=1)
        self.world.advance(2)
        self.assertEqual(self.set(2, by="other"), ["r3"])

    def test_nothing_is_left_of_locks(self) -> None:
        """Neither for deleted addresses nor for ended sessions."""
        for number in range(10):
            self.set(1, f"/{number}", lock=True)
            self.set(None, f"/{number}")
        self.set(1, lock=True)
        self.writer.leave()
        self.assertEqual(len(self.world.relay.params.locks), 0)


class LifeTests(SetCase):
    """Params that end by themselves."""

    def test_expired_param_is_told_as_a_null(self) -> None:
        """Within a second, with the next revision; then it is gone."""
        self.set(1, ttl=5)
        self.listener.hear()
        self.world.advance(4.5)
        self.assertEqual(self.listener.hear(), [])
        self.world.advance(1)
        self.assertEqual(self.listener.hear(), [Set("/a", NULL, 2)])
        self.assertIsNone(self.world.relay.params.get("/a"))
        self.world.advance(10)
        self.assertEqual(self.listener.hear(), [])

    def test_many_that_end_together_end_in_bounded_turns(self) -> None:
        """A hundred thousand at the same time do not delay the event loop."""
        for number in range(300):
            self.set(1, f"/{number}", ttl=1)
        self.listener.hear()
        self.world.clock.clock.advance(1)
        self.world.relay.sweep()
        ended = len(self.listener.hear())
        self.assertTrue(0 < ended <= 96, ended)
        self.assertEqual(len(self.world.relay.params), 300 - ended)
        self.world.relay.sweep()
        self.assertEqual(self.listener.hear(), [])
        self.world.clock.clock.pump([0] * 10)
        self.assertEqual((len(self.listener.hear()), len(self.world.relay.params)), (300 - ended, 0))

    def test_end_of_a_session_with_many_locks_takes_bounded_turns(self) -> None:
        """Another session can write at these addresses before the locks are released."""
        for number in range(1_000):
            self.set(1, f"/{number}", lock=True)
        self.writer.leave()
        left = len(self.world.relay.params.locks)
        self.assertTrue(500 <= left < 1_000, left)
        self.assertEqual(self.set(2, "/999", by="other", lock=True), ["r2"])
        self.world.clock.clock.pump([0] * 10)
        self.assertEqual(len(self.world.relay.params.locks), 1)

    def test_only_get_and_set_renew(self) -> None:
        """A SNAPSHOT and a delivery do not."""
        self.set(1, ttl=5)
        self.set(1, "/b", ttl=5)
        self.set(1, "/c", ttl=5 | TTL_ABSOLUTE)
        self.world.advance(4)
        self.other.send(Get("/a"))
        self.other.send(Get("/c"))
        self.other.send(Subscribe(1, "/b"))
        self.world.join()
        self.listener.hear()
        self.world.advance(2)
        self.assertEqual(sorted(heard(self.listener.hear())), [("/b", None), ("/c", None)])
        self.world.advance(3.5)
        self.assertEqual(heard(self.listener.hear()), [("/a", None)])

    def test_life_time_is_kept_by_a_set_without_one(self) -> None:
        """And begins again with it; «never» removes it; a deletion forgets it."""
        self.set(1, ttl=5)
        self.world.advance(4)
        self.set(2)
        self.world.advance(4)
        self.set(3)
        self.listener.hear()
        self.world.advance(6)
        self.assertEqual(heard(self.listener.hear()), [("/a", None)])
        self.set(4)
        self.world.advance(100)
        self.set(5, ttl=5)
        self.set(6, ttl=0)
        self.listener.hear()
        self.world.advance(100)
        self.assertEqual(self.listener.hear(), [])

    def test_server_wide_life_time_is_for_params_without_one(self) -> None:
        """It counts from the last access."""
        self.begin(ParamLimits(default_ttl_s=10))
        self.set(1)
        self.set(1, "/long", ttl=100)
        self.set(1, "/never", ttl=0)
        self.world.advance(8)
        self.other.send(Get("/a"))
        self.listener.hear()
        self.world.advance(8)
        self.assertEqual(self.listener.hear(), [])
        self.world.advance(3)
        self.assertEqual(heard(self.listener.hear()), [("/a", None)])
        self.world.advance(200)
        self.assertEqual(heard(self.listener.hear()), [("/long", None)])

    def test_full_relay_ends_what_may_end(self) -> None:
        """As a null before the new value; params without a life time stay, and then the SET is refused."""
        self.begin(ParamLimits(max_params=3))
        for address, ttl in (("/good", None), ("/old", 60), ("/young", 60)):
            self.set(1, address, ttl=ttl)
        self.other.send(Get("/old"))
        self.listener.hear()
        self.assertEqual(self.set(1, "/new"), ["r1"])
        self.assertEqual(heard(self.listener.hear()), [("/young", None), ("/new", 1)])
        self.assertEqual(self.set(1, "/newer"), ["r1"])
        self.listener.hear()
        (error,) = self.writer.ask(Set("/more", value(1)))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.OVERLOADED, "/more"))
        self.assertIn("max-params", error.message)
        self.assertEqual(self.listener.hear(), [])
        self.assertEqual(self.set(2, "/good"), ["r2"])
        self.assertEqual(self.set(None, "/good") + self.set(1, "/more"), ["r3", "r1"])


class GuardedTests(SynchronousTestCase):
    """Tests with permissions."""

    def setUp(self) -> None:
        """A relay with permissions."""
        self.guard = Guard()
        self.begin(ParamLimits(subject=ShareLimits(3)))

    def begin(self, limits: ParamLimits) -> None:
        """Begins with a new relay."""
        self.world = World(RelayOptions(params=limits), self.guard)
        self.alice, self.bob = self.world.join("alice"), self.world.join("bob")
        self.bob.send(Subscribe(1, "/**", ALL_TYPES))

    def test_refused_write_changes_nothing(self) -> None:
        """If it is out of scope."""
        self.assertEqual(codes(self.alice.ask(Set("/secret", value(1)))), [ErrorCode.SCOPE])
        self.assertEqual((len(self.world.relay.params), self.bob.hear()), (0, []))

    def test_granted_value_is_stored_and_told(self) -> None:
        """With the granted life time, whatever the sender asked for."""
        self.guard.grant = lambda *_: Grant(value("stamped"), 5)
        self.assertEqual(codes(self.alice.ask(Set("/a", value("plain"), ttl=100))), [])
        self.assertEqual(heard(self.bob.hear()), [("/a", "stamped")])
        self.world.advance(6)
        self.assertEqual(heard(self.bob.hear()), [("/a", None)])

    def test_granted_value_must_fit_too(self) -> None:
        """A stamp can make it too long."""
        self.guard.grant = lambda *_: Grant(value(bytes(65_500)), None)
        self.assertEqual(codes(self.alice.ask(Set("/a", value(1)))), [ErrorCode.VALUE])

    def test_stamp_stays_when_its_param_ends(self) -> None:
        """By a null, by expiry and by eviction for its bytes; it counts as a param."""
        self.guard.grant = lambda who, _address, stored, ttl, _state: Grant(stored, ttl, who.subject)
        self.guard.stamps = {"/b": "alice", "/c": "alice"}
        self.begin(ParamLimits(max_params=4, max_state_bytes=20))
        params = self.world.relay.params
        self.alice.send(Set("/a", value(1)))
        self.alice.send(Set("/a", NULL))
        self.alice.send(Set("/b", value(1), ttl=1))
        self.world.advance(2)
        self.alice.send(Set("/c", value(1), ttl=60))
        found = [params.ended(address) for address in ("/a", "/b")]
        self.assertEqual([ended and ended.stamp for ended in found], ["alice", "alice"])
        self.assertEqual([ended and ended.subject for ended in found], ["alice", ""])
        self.assertEqual(codes(self.alice.ask(Set("/d", value(1)))), [])
        ended = params.ended("/c")
        self.assertEqual(ended and ended.stamp, "alice")
        self.assertEqual(codes(self.alice.ask(Set("/e", value(1)))), [ErrorCode.OVERLOADED])

    def test_users_share_is_bounded(self) -> None:
        """With an ERROR that names the limit; other users, and existing params, are not affected."""
        for number in range(3):
            self.assertEqual(codes(self.alice.ask(Set(f"/{number}", value(1)))), [])
        (error,) = self.alice.ask(Set("/more", value(1)))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.OVERLOADED, "/more"))
        self.assertIn("max-params-per-subject", error.message)
        self.assertEqual(codes(self.alice.ask(Set("/1", value(2)))), [])
        self.assertEqual(codes(self.bob.ask(Set("/more", value(1)))), [])
        self.alice.send(Set("/1", NULL))
        self.assertEqual(codes(self.alice.ask(Set("/mine", value(1)))), [])

    def test_session_that_has_ended_leaves_no_lock_by_what_it_planned(self) -> None:
        """The bundle is applied nevertheless."""
        params = self.world.relay.params
        planned = Bundle((Set("/here/a", value(1), lock=True),), self.world.clock.now_us() + 1_000_000)
        self.assertEqual(codes(self.alice.ask(planned)), [])
        self.alice.leave()
        self.world.advance(1)
        self.assertIsNotNone(params.get("/here/a"))
        self.assertIsNone(params.holder("/here/a"))

    def test_record_says_who_wrote_it(self) -> None:
        """Session, subject and time, as a SNAPSHOT shows the first and the last."""
        self.alice.send(Set("/a", value(1)))
        param = self.world.relay.params.get("/a")
        assert param is not None
        self.assertEqual((param.writer, param.subject, param.timestamp_us), (self.alice.session.id, "alice", START_US))
        (snapshot,) = self.bob.ask(Get("/a"))
        assert isinstance(snapshot, Snapshot)
        self.assertEqual(
            (snapshot.params[0].writer, snapshot.params[0].timestamp_us), (self.alice.session.id, START_US)
        )

    def test_answers_that_are_remembered_for_a_user_go_with_the_last_session(self) -> None:
        """So users who have left take no memory."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.bob.ask(Get("/members"))
        second = self.world.join("bob")
        self.alice.send(Set("/a", value(1)))
        memory = self.world.relay.permissions.memory
        self.assertEqual(set(memory._pools), {"bob"})
        second.leave()
        self.assertEqual(set(memory._pools), {"bob"})
        self.bob.leave()
        self.assertEqual(memory._pools, {})


class RelayNullTests(SetCase):
    """The relay's own nulls."""

    def test_null_of_the_relay_has_no_writer(self) -> None:
        """Neither of an expired param nor of an evicted one: no session wrote it."""
        log = SlowLog()
        self.world = World(RelayOptions(params=ParamLimits(max_params=1)), log=log)
        self.writer = self.world.join()
        self.set(1, "/a", ttl=5)
        self.set(1, "/b", ttl=5)
        self.world.advance(6)
        nulls = [one.param for one in log.changes if one.param.value == NULL]
        self.assertEqual(
            [(null.address, null.writer, null.subject) for null in nulls], [("/a", "", ""), ("/b", "", "")]
        )
        self.assertEqual([null.revision for null in nulls], [2, 2])


class WaitingAnswersTests(SynchronousTestCase):
    """Tests with a log that records later."""

    def setUp(self) -> None:
        """A writer and a listener."""
        self.log = SlowLog()
        self.world = World(log=self.log)
        self.writer, self.listener = self.world.join(), self.world.join()
        self.listener.ask(Subscribe(1, "/**"))

    def test_ack_waits_until_its_change_is_recorded(self) -> None:
        """Subscribers are told at once; the ACK comes later."""
        self.assertEqual(self.writer.ask(Set("/a", value(1)), 1), [])
        self.assertEqual(heard(self.listener.hear()), [("/a", 1)])
        self.log.release()
        self.assertEqual(self.writer.hear(), [Ack("/a", 1)])
        self.assertIsNone(self.writer.session.answers)

    def test_errors_and_pongs_stand_behind_it(self) -> None:
        """So a client can rely on its PONG; SYNC and SNAPSHOT do not wait."""
        self.writer.send(Set("/a", value(1)), 1)
        self.writer.send(Set("bad", value(1)))
        self.writer.send(Ping())
        self.writer.send(Bundle((Set("/a", value(2)), Set("/b", value(1)))), 1)
        self.writer.send(Ping())
        sync, snapshot = self.writer.ask(Sync(1)) + self.writer.ask(Get("/a"))
        self.assertIsInstance(sync, Sync)
        self.assertEqual(heard([snapshot]), [("/a", 2)])
        self.log.release(1)
        first, error, pong = self.writer.hear()
        self.assertEqual((first, codes([error]), pong), (Ack("/a", 1), [ErrorCode.ADDRESS], Pong()))
        self.log.release(1)
        self.assertEqual(self.writer.hear(), [Ack(None, 1), Pong()])

    def test_changes_that_are_recorded_together_are_answered_together(self) -> None:
        """Each answer stays behind its change; one whose change is recorded later waits; nothing remains."""
        self.log.together = True
        for number in range(3):
            self.writer.send(Set("/a", value(number)), 1)
        self.writer.send(Ping())
        self.log.batch += 1
        self.writer.send(Set("/a", value(3)), 1)
        self.assertEqual(self.writer.hear(), [])
        self.log.release(1)
        self.assertEqual(self.writer.hear(), [Ack("/a", 1), Ack("/a", 2), Ack("/a", 3), Pong()])
        self.log.release(1)
        self.assertEqual(self.writer.hear(), [Ack("/a", 4)])
        self.assertEqual(self.world.relay.committer._held, {})

    def test_answer_that_comes_while_others_are_released_stands_behind_them(self) -> None:
        """Also if releasing an answer causes one to another session."""
        self.log.together = True
        other = self.world.join()
        for client in (self.writer, other):
            client.send(Set("/a", value(1)), 1)
        send = self.writer.outbox.send

        def send_and_ping(frame: Frame) -> None:
            send(frame)
            other.send(Ping())

        self.patch(self.writer.outbox, "send", send_and_ping)
        self.log.release()
        self.assertEqual((self.writer.hear(), other.hear()), ([Ack("/a", 1)], [Ack("/a", 2), Pong()]))
        self.assertEqual((self.world.relay.committer._held, other.ask(Ping())), ({}, [Pong()]))

    def test_change_without_an_ack_is_waited_for_too(self) -> None:
        """A PONG means that the earlier changes are recorded."""
        self.assertEqual(self.writer.ask(Set("/a", value(1))), [])
        self.assertEqual(self.writer.ask(Ping()), [])
        self.log.release()
        self.assertEqual(self.writer.hear(), [Pong()])

    def test_scheduled_bundle_is_acknowledged_when_it_is_recorded(self) -> None:
        """There is no second ACK when it is due; both changes are recorded."""
        at_us = self.world.clock.now_us() + 1_000_000
        self.assertEqual(self.writer.ask(Bundle((Set("/a", value(1)),), at_us), 1), [])
        self.log.release()
        self.assertEqual(self.writer.hear(), [Ack()])
        self.world.advance(1)
        self.log.release()
        self.assertEqual(self.writer.hear(), [])
        kinds = [change.kind for change in self.log.changes]
        self.assertEqual(kinds, [ChangeKind.SCHEDULED, ChangeKind.DUE, ChangeKind.WRITE])

    def test_what_no_session_did_keeps_nobody_waiting(self) -> None:
        """A renewal, an expiry, and the release of a lock at the end of a session."""
        self.writer.send(Set("/a", value(1), lock=True, ttl=5))
        self.log.release()
        self.listener.send(Get("/a"))
        self.assertEqual(self.listener.ask(Ping()), [Pong()])
        self.world.advance(6)
        self.assertEqual(self.writer.ask(Ping()), [Pong()])
        self.writer.send(Set("/b", value(1), lock=True))
        self.log.release()
        self.writer.leave()
        self.assertEqual(self.listener.ask(Ping())[-1], Pong())
        kinds = [change.kind for change in self.log.changes]
        write = ChangeKind.WRITE
        self.assertEqual(kinds, [write, ChangeKind.RENEWAL, write, write, ChangeKind.LOCK_RELEASE])
        self.log.release()
        self.assertEqual(self.world.faults, [])

    def test_message_that_changes_nothing_is_not_recorded(self) -> None:
        """A signal that is not kept, a refused message, and a bundle of nothing else."""
        self.writer.send(Publish("/a", Signal.EVENT))
        self.writer.send(Set("bad", value(1)))
        self.assertEqual(self.writer.ask(Bundle((Publish("/a", Signal.EVENT),)), 1), [Ack()])
        self.assertEqual(self.log.changes, [])

    def test_signal_that_is_kept_is_recorded(self) -> None:
        """Alone, or in its place among the members of a bundle."""
        self.world = World(permissions=Guard(), log=self.log, history=rules_of(KEPT))
        sender, listener = self.world.join("alice"), self.world.join("bob")
        listener.send(Subscribe(1, "/kept/**"))
        kept, other = Publish("/kept/a", Signal.EVENT, value=value(1)), Publish("/a", Signal.EVENT)
        move = Publish("/kept/g", Signal.GESTURE, Phase.MOVE, id=1)
        for message in (kept, other, Bundle((Set("/a", value(1)), kept, other)), move):
            sender.send(message)
        messages = [change.message for change in self.log.changes]
        told = [kept._replace(timestamp_us=START_US), kept._replace(timestamp_us=START_US + 1)]
        self.assertEqual(messages, [told[0], None, told[1], move._replace(timestamp_us=START_US + 2)])
        self.assertEqual([change.param.timestamp_us - START_US for change in self.log.changes], [0, 0, 1, 2])
        self.assertEqual(listener.hear(), [*told, move._replace(timestamp_us=START_US + 2)])
        about = self.log.changes[0].param
        self.assertEqual((about.address, about.writer, about.subject), ("/kept/a", sender.session.id, "alice"))
        self.assertEqual(sender.ask(Ping()), [])
        self.log.release()
        self.assertEqual(sender.hear(), [Pong()])

    def test_session_that_ends_meanwhile_is_promised_nothing(self) -> None:
        """Whether it left or was ended; in the latter case it gets the reason, but no ACK of an unrecorded change."""
        ended = self.world.join()
        for client in (self.writer, ended):
            client.send(Set("/a", value(1)), 1)
            client.send(Ping())
        self.writer.leave()
        reason = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked", ErrorCode.TOKEN_EXPIRED)
        self.world.relay.end(ended.session, reason)
        self.assertEqual(codes(ended.hear()), [ErrorCode.TOKEN_EXPIRED])
        self.log.release()
        self.assertEqual((self.writer.hear(), ended.hear(), self.world.faults), ([], [], []))

    def test_log_may_be_done_at_once(self) -> None:
        """With such a log no answer waits."""

        def append(changes: Sequence[Change]) -> int:
            batch = SlowLog.append(self.log, changes)
            self.log.release()
            return batch

        self.patch(self.log, "append", append)
        self.assertEqual(self.writer.ask(Set("/a", value(1)), 1), [Ack("/a", 1)])
        self.assertEqual(self.writer.ask(Ping()), [Pong()])

    def test_long_answer_has_its_place(self) -> None:
        """It begins when all answers before it are sent; later ones wait for it and for their changes."""
        committer, session, begun = self.world.relay.committer, self.writer.session, list[int]()
        self.writer.send(Set("/a", value(1)), 1)
        places = [committer.hold(session, lambda number=number: begun.append(number)) for number in range(2)]  # type: ignore[misc]
        self.writer.send(Set("/a", value(2)), 1)
        self.writer.send(Ping())
        self.writer.send(Set("/a", value(3)), 1)
        committer.release(session)
        self.assertEqual((self.writer.hear(), begun), ([], []))
        self.log.release(1)
        self.assertEqual((self.writer.hear(), begun), ([Ack("/a", 1)], [0]))
        self.log.release(1)
        places[0].is_done = True
        committer.release(session)
        self.assertEqual((self.writer.hear(), begun), ([], [0, 1]))
        places[1].is_done = True
        committer.release(session)
        self.assertEqual(self.writer.hear(), [Ack("/a", 2), Pong()])
        self.log.release(1)
        self.assertEqual((self.writer.hear(), session.answers), ([Ack("/a", 3)], None))

    def test_long_answer_of_a_session_that_ended_does_not_begin(self) -> None:
        """It waited for a change that is recorded later."""
        begun = list[bool]()
        self.writer.send(Set("/a", value(1)), 1)
        place = self.world.relay.committer.hold(self.writer.session, lambda: begun.append(True))
        self.writer.leave()
        self.log.release()
        self.assertEqual((self.writer.hear(), begun, self.world.faults), ([], [], []))
        self.assertIsNone(place.begin, "whoever has the place would be held by it")

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2), st.sampled_from(("set", "acked set", "bad", "ping", "bundle", "get", "long", "end"))
            )
            | st.tuples(st.just(-1), st.integers(0, 3)),
            max_size=40,
        )
    )
    def test_answers_come_in_order_as_soon_as_their_changes_are_recorded(
        self, steps: list[tuple[int, str | int]]
    ) -> None:
        """For any writes, records and long answers in any order: no answer waits for the change of another session."""
        self.setUp()
        clients = [self.world.join() for _ in range(3)]
        expected: list[list[tuple[int, object]]] = [[] for _ in clients]
        needed = [0] * len(clients)
        """The number of changes that have to be recorded before the next answer of each session."""
        came: list[list[object]] = [[] for _ in clients]
        for who, what in steps:
            if what == 0:
                self.log.together = not self.log.together
            elif isinstance(what, int):
                self.log.release(what)
            elif what == "long":
                place = self.world.relay.committer.hold(clients[who].session, _nothing)
                self.world.relay.committer.release(clients[who].session)
                expected[who].append((needed[who], place))
            elif what == "end":
                self.end_first(clients[who], expected[who])
            else:
                message, answer = self.step(what)
                clients[who].send(message, what in ("acked set", "bundle"))
                if what in ("set", "acked set", "bundle"):
                    needed[who] = len(self.log.changes)
                if answer is not None:
                    expected[who].append((needed[who], answer))
            for client, found in zip(clients, came, strict=True):
                found += [type(message) for message in client.hear() if not isinstance(message, Snapshot)]
            self.assertEqual(came, [self.due(each) for each in expected])
        self.log.release()
        for client, found, each in zip(clients, came, expected, strict=True):
            while client.session.answers:
                self.end_first(client, each)
            found += [type(message) for message in client.hear()]
            self.assertEqual(found, [answer for _, answer in each if not isinstance(answer, LongAnswer)])
            self.assertIsNone(client.session.answers)
        self.assertEqual(self.world.relay.committer._held, {})

    def end_first(self, client: Client, expected: list[tuple[int, object]]) -> None:
        """Ends the first long answer of a client, if one is at work."""
        places = [each for _, each in expected if isinstance(each, LongAnswer) and not each.is_done]
        if places and places[0].begin is None:
            places[0].is_done = True
            self.world.relay.committer.release(client.session)

    def due(self, expected: list[tuple[int, object]]) -> list[object]:
        """Returns the answers that a client should have by now; none behind a long answer at work."""
        due: list[object] = []
        is_held = False
        for after, answer in expected:
            is_held = is_held or after > self.log.recorded
            if isinstance(answer, LongAnswer):
                self.assertEqual(answer.begin is None, not is_held)
                is_held = is_held or not answer.is_done
            elif not is_held:
                due.append(answer)
        return due

    def step(self, what: object) -> tuple[Message, type[Message] | None]:
        """Returns a message, and the kind of its answer."""
        one = Set("/a", value(1))
        steps: dict[object, tuple[Message, type[Message] | None]] = {
            "set": (one, None),
            "acked set": (one, Ack),
            "bad": (Set("bad", value(1)), Error),
            "ping": (Ping(), Pong),
            "bundle": (Bundle((one, Set("/b", value(1)))), Ack),
            "get": (Get("/a"), None),
        }
        return steps[what]


def _nothing() -> None:
    """Does nothing: a long answer is at work until a test ends it."""


class ImmediateLogTests(SynchronousTestCase):
    """The log of a relay that keeps no journal."""

    def test_change_is_recorded_at_once(self) -> None:
        """So no answer waits for it, and it need not be checked."""
        log = ImmediateLog()
        self.assertEqual((log.is_immediate, log.append((Change(Param("/a", value(1), 1, "w", 1)),))), (True, 0))


class RecoveryTests(SynchronousTestCase):
    """A relay that continues from a log."""

    def setUp(self) -> None:
        """A relay with a log, and a session in it."""
        self.guard, self.log = Guard(), SlowLog()
        self.world = World(permissions=self.guard, log=self.log)
        self.client = self.world.join("alice")
        self.unheard: list[tuple[str, str]] = []

    def schedule(self, seconds: float, *messages: Set) -> None:
        """Schedules a bundle."""
        self.client.send(Bundle(messages, self.world.clock.now_us() + round(seconds * 1e6)), 1)

    def again(self, after_s: float = 0) -> World:
        """Returns a relay that was restored from the log, some time later."""
        world = World(permissions=self.guard, clock=self.world.clock, log=SlowLog())
        self.world.clock.clock.rightNow += after_s
        for change in map(decode_change, map(encode_change, self.log.changes)):
            world.relay.committer.restore(change)
        world.relay.resume(lambda session, why: self.unheard.append((session, why)))
        return world

    def values(self, world: World) -> dict[str, object]:
        """Returns what is set."""
        return {param.address: decode_value(param.value) for param in world.relay.params.all()}

    def test_locks_end_with_the_process(self) -> None:
        """Params stay; a renewal of a param that has ended does nothing."""
        self.client.send(Set("/here/a", value(1), lock=True, ttl=60))
        self.world.advance(1)
        self.client.send(Get("/here/a"))
        self.client.send(Set("/here/b", value(1), ttl=60))
        renewal = self.log.changes[-2]
        self.client.send(Set("/here/b", NULL))
        self.log.changes.append(renewal._replace(param=renewal.param._replace(address="/here/b")))
        params = self.again().relay.params
        self.assertIsNone(params.holder("/here/a"))
        self.assertEqual(params.image().expires_us, {"/here/a": START_US + 61_000_000})

    def test_bundle_that_waits_runs_at_its_time(self) -> None:
        """Once, with the rights of its user; its number is not used again."""
        self.schedule(10, Set("/late", value(1)))
        world = self.again(4)
        self.assertEqual((self.values(world), len(world.relay.schedule.image())), ({}, 1))
        alice = world.join("alice")
        alice.send(Bundle((Set("/own", value(2)),), world.clock.now_us() + 1_000_000))
        self.assertEqual([change.number for change in world.relay.schedule.image()], [1, 2])
        world.advance(7)
        self.assertEqual(self.values(world), {"/late": 1, "/own": 2})
        param = world.relay.params.get("/late")
        assert param is not None
        self.assertEqual((param.subject, param.writer), ("alice", self.client.session.id))
        self.assertEqual([change.kind for change in world.relay.schedule.image()], [])

    def test_bundle_that_ran_does_not_run_again(self) -> None:
        """That it was due is recorded with its writes."""
        self.schedule(1, Set("/late", value(1)))
        self.world.advance(2)
        self.client.send(Set("/late", value(2)))
        self.assertEqual(self.values(self.again()), {"/late": 2})

    def test_bundles_that_were_due_run_in_order_with_expiries(self) -> None:
        """Each is applied to the state at its time."""
        self.schedule(9, Set("/order", value("second")), Set("/short", value(2), revision=0))
        self.schedule(3, Set("/order", value("first")), Set("/seen", value(1)))
        self.schedule(4, Set("/short", value(3), revision=0))
        self.client.send(Set("/short", value(1), ttl=5 | TTL_ABSOLUTE))
        world = self.again(20)
        self.assertEqual(self.values(world), {"/order": "second", "/short": 2, "/seen": 1})
        self.assertEqual([why.partition(":")[0] for _, why in self.unheard], ["400"])
        self.assertEqual(self.world.faults + world.faults, [])

    def test_bundle_of_a_token_that_ended_does_not_run(self) -> None:
        """Whether it ended before the restart or after it; this is reported."""
        self.schedule(10, Set("/late", value(1)))
        self.guard.ended_tokens.add(b"alice")
        world = self.again(4)
        self.assertEqual(world.relay.schedule.image(), ())
        self.guard.ended_tokens.clear()
        world = self.again()
        self.guard.ended_tokens.add(b"alice")
        world.advance(20)
        self.assertEqual(self.values(world), {})
        why = "its token is not valid any more"
        self.assertEqual(self.unheard, [(self.client.session.id, why)] * 2)

    def test_bundle_without_a_token_runs(self) -> None:
        """As in open mode; its signals go to the sessions that are connected then."""
        self.world = World(log=self.log)
        self.client = self.world.join()
        self.schedule(1, Set("/late", value(1)))
        world = World(clock=self.world.clock)
        for change in self.log.changes:
            world.relay.committer.restore(change)
        world.relay.resume(lambda *_: self.fail("refused"))
        world.advance(2)
        self.assertEqual(self.values(world), {"/late": 1})

    def test_event_of_the_log_restores_nothing(self) -> None:
        """It belongs to history."""
        self.world = World(permissions=self.guard, log=self.log, history=rules_of(KEPT))
        self.client = self.world.join("alice")
        self.client.send(Publish("/kept/e"))
        self.assertEqual(len(self.log.changes), 1)
        self.assertEqual(self.values(self.again()), {})


class RefusingLogTests(SynchronousTestCase):
    """A log that cannot record anything more."""

    def test_writes_are_refused_and_the_rest_goes_on(self) -> None:
        """Reads, signals that are not recorded, expiries, and bundles that were accepted before."""
        log = SlowLog()
        world = World(permissions=Guard(), log=log, history=rules_of(KEPT))
        client, listener = world.join("alice"), world.join("bob")
        listener.send(Subscribe(1, "/**", ALL_TYPES))
        client.send(Set("/a", value(1), ttl=1 | TTL_ABSOLUTE))
        now_us = world.clock.now_us()
        client.send(Bundle((Set("/late", value(1)),), now_us + 1_000_000))
        log.release()
        listener.hear()
        log.refusal = RequestError(ErrorCode.OVERLOADED, "full")
        for message in (
            Set("/b", value(1)),
            Set("/a", NULL),
            Bundle((Set("/b", value(1)),)),
            Bundle((Set("/b", value(1)),), now_us + 5_000_000),
            Publish("/kept/e"),
        ):
            with self.subTest(message=message):
                self.assertEqual(codes(client.ask(message)), [ErrorCode.OVERLOADED])
        self.assertEqual(listener.hear(), [])
        client.send(Publish("/else"))
        (snapshot,) = client.ask(Get("/a"))
        self.assertEqual(heard([snapshot]), [("/a", 1)])
        world.advance(2)
        self.assertEqual(heard(listener.hear()), [("/else", None), ("/late", 1), ("/a", None)])
        log.refusal = None
        self.assertEqual(client.ask(Set("/b", value(1))), [])


class CrashTests(SynchronousTestCase):
    """The relay compared with a model, with a log that delays, fails, or is cut off at any step."""

    def setUp(self) -> None:
        """Begins with nothing recorded."""
        self.state: dict[str, tuple[object, int]] = {}
        """What the model says is set: value and revision by address; a value of None was deleted."""
        self.states = {0: self.state}
        """What was set once so many changes had been applied, at each point at which the log may end."""
        self.begin([])

    def begin(self, changes: Sequence[Change]) -> None:
        """Starts a relay from what is recorded."""
        self.log = SlowLog()
        self.world = World(log=self.log)
        for change in changes:
            self.world.relay.committer.restore(decode_change(encode_change(change)))
        self.world.relay.resume(lambda *_: None)
        self.log.changes, self.log.recorded = list(changes), len(changes)
        self.state = self.states[len(changes)]
        self.states = {length: state for length, state in self.states.items() if length <= len(changes)}
        self.clients = [self.world.join() for _ in range(2)]
        self.expected: list[list[tuple[int, object]]] = [[] for _ in self.clients]
        """What each session is to be answered, in order, and how many changes have to be recorded before."""
        self.needed = [0] * len(self.clients)
        self.came: list[list[object]] = [[] for _ in self.clients]

    @given(
        st.lists(
            st.tuples(st.sampled_from(("set", "quiet", "null", "bundle", "bad", "ping")), st.integers(0, 1))
            | st.tuples(st.just("record"), st.integers(1, 3))
            | st.tuples(st.just("together"), st.integers(0, 1))
            | st.tuples(st.just("fail"), st.just(0))
            | st.tuples(st.just("crash"), st.integers(0, 4)),
            max_size=30,
        )
    )
    def test_what_was_acknowledged_is_there_after_a_crash(self, steps: list[tuple[str, int]]) -> None:
        """An ACK is in the log, answers keep their order, and the recovered state equals that of the model."""
        self.setUp()
        for what, number in [*steps, ("crash", 0)]:
            if what == "record":
                if self.log.refusal is None:  # after a failed commit nothing is recorded any more
                    self.log.release(number)
            elif what == "fail":
                self.log.refusal = RequestError(ErrorCode.OVERLOADED, "stopping")
            elif what == "together":
                self.log.together = bool(number)
            elif what == "crash":
                self.crash(number)
            else:
                self.send(what, number)
            self.check()

    def send(self, what: str, who: int) -> None:
        """Sends a message, and notes its result in the model."""
        written: dict[str, object] = {}
        answer: object = None
        number = len(self.log.changes)
        if what in ("set", "quiet", "null"):
            written = {"/a": None if what == "null" else number}
        elif what == "bundle":
            written = {"/a": number, "/b": -number}
        is_refused = bool(written) and self.log.refusal is not None
        sets = [Set(address, NULL if new is None else value(new)) for address, new in written.items()]
        message: Message = Bundle(tuple(sets)) if what == "bundle" else sets[0] if sets else Ping()
        if what == "bad":
            message, answer = Set("bad", value(1)), Error
        elif what == "ping":
            answer = Pong
        elif is_refused:
            answer = Error
        else:
            self.state = self.state | {
                address: (new, self.state.get(address, (None, 0))[1] + 1) for address, new in written.items()
            }
            answer = {"quiet": None, "bundle": Ack}.get(what, self.state["/a"][1])
        self.clients[who].send(message, what not in ("quiet", "ping"))
        if written and not is_refused:
            self.needed[who] = len(self.log.changes)
            self.states[self.needed[who]] = self.state
        if answer is not None:
            self.expected[who].append((self.needed[who], answer))

    def check(self) -> None:
        """Checks that each session has read exactly the answers whose changes are recorded."""
        for client, found in zip(self.clients, self.came, strict=True):
            for message in client.hear():
                if isinstance(message, Ack):
                    found.append(message.revision or Ack)
                elif not isinstance(message, Snapshot):
                    found.append(type(message))
        due = [[answer for after, answer in each if after <= self.log.recorded] for each in self.expected]
        self.assertEqual(self.came, due)

    def crash(self, beyond: int) -> None:
        """Restarts the relay from its log, which may have more whole batches than were reported as recorded."""
        ends = sorted(length for length in self.states if length >= self.log.recorded)
        self.begin(self.log.changes[: ends[min(beyond, len(ends) - 1)]])
        found = {param.address: (decode_value(param.value), param.revision) for param in self.world.relay.params.all()}
        self.assertEqual(found, {address: each for address, each in self.state.items() if each[0] is not None})


class ClusterTests(SynchronousTestCase):
    """A cluster's log: it has signals, and changes that another relay has decided."""

    def setUp(self) -> None:
        """Makes a relay that keeps signals below /kept, and whose log carries all others."""
        self.log = SlowLog()
        self.world = World(log=self.log, history=rules_of(KEPT))
        self.committer = self.world.relay.committer
        self.listener, self.client = self.world.join(), self.world.join()
        self.listener.ask(Subscribe(1, "/**"))
        self.log.changes.clear()

    def recorded(self) -> list[ChangeKind]:
        """Returns the changes that were appended since the last call, and records them."""
        self.log.release()
        kinds = [change.kind for change in self.log.changes]
        self.log.changes.clear()
        return kinds

    def test_signals_are_recorded(self) -> None:
        """One record each; a gesture that is kept has one more, since its moves may become fewer.

        Who listens here is told, too, but never of a signal to one session.
        """
        self.committer.carries_signals = True
        event, signal = ChangeKind.EVENT, ChangeKind.SIGNAL
        gesture = Publish("/kept/g", Signal.GESTURE, id=1, phase=Phase.START, value=value(1))
        for message, expected in (
            (Publish("/a", Signal.EVENT, value=value(1)), [signal]),
            (Publish("/kept/a", Signal.EVENT, value=value(1)), [event]),
            (gesture, [event, signal]),
            (Bundle((Set("/p", value(1)), Publish("/a", Signal.EVENT, value=value(1)))), [ChangeKind.WRITE, signal]),
            (Bundle((Publish("/kept/a", Signal.EVENT, value=value(1)),)), [event]),
            (Bundle((gesture,)), [event, signal]),
            (Publish(f"/clasp/p2p/signal/{self.listener.session.id}", Signal.EVENT, value=value(2)), [signal]),
        ):
            with self.subTest(message=message):
                self.client.send(message)
                self.assertEqual(self.recorded(), expected)
        told = ["/a", "/kept/a", "/kept/g", "/p", "/a", "/kept/a", "/kept/g"]
        self.assertEqual(heard(self.listener.hear()), [(address, 1) for address in told])

    def test_bundles_without_history_carry_their_signals(self) -> None:
        """In order with the writes."""
        log = SlowLog()
        world = World(log=log)
        world.relay.committer.carries_signals = True
        world.join().send(Bundle((Publish("/a", Signal.EVENT, value=value(1)), Set("/p", value(1)))))
        self.assertEqual([change.kind for change in log.changes], [ChangeKind.SIGNAL, ChangeKind.WRITE])

    def test_what_another_relay_has_decided_is_recorded_and_told(self) -> None:
        """Except a gesture that is kept, which comes once more."""
        self.committer.is_following = True
        about = no_param("/kept/a", self.client.session.id, "", START_US)
        told = Publish("/kept/a", Signal.EVENT, value=value(1))
        moved = Publish("/kept/a", Signal.GESTURE, id=1, phase=Phase.START, value=value(2))
        self.client.ask(Subscribe(1, "/**"))
        for change in (
            Change(about, ChangeKind.EVENT, message=told),
            Change(about, ChangeKind.EVENT, message=moved),
            Change(about, ChangeKind.SIGNAL, message=moved),
            Change(about._replace(value=value(3), revision=1)),
        ):
            self.committer.record((change,))
            self.committer.follow(change)
        self.assertEqual(heard(self.listener.hear()), [("/kept/a", 1), ("/kept/a", 2), ("/kept/a", 3)])
        self.assertEqual(heard(self.client.hear()), [("/kept/a", 3)])
        self.assertEqual(self.recorded(), [ChangeKind.EVENT, ChangeKind.EVENT, ChangeKind.SIGNAL, ChangeKind.WRITE])

    def test_changes_of_accounts_are_told_in_their_place(self) -> None:
        """They are not in the state."""
        seen: list[object] = []
        accounts = Change(no_param("", "", "", START_US), ChangeKind.ACCOUNTS, number=1)
        self.committer.follow(accounts)
        self.committer.when_accounts = lambda change: seen.append(
            (change, self.world.relay.params.get("/a") is not None)
        )
        self.committer.follow(Change(Param("/a", value(1), 1, "w", START_US)))
        self.committer.follow(accounts)
        self.assertEqual(seen, [(accounts, True)])

    def test_a_relay_that_follows_ends_nothing_by_itself(self) -> None:
        """Life times and locks end by the changes of the log."""
        self.client.send(Set("/a", value(1), ttl=1, lock=True))
        self.committer.is_following = True
        self.client.leave()
        self.world.advance(5)
        self.assertEqual(len(self.world.relay.params), 1)
        self.assertIsNotNone(self.world.relay.params.holder("/a"))
        self.committer.follow(Change(no_param("/a", "", "", START_US), ChangeKind.LOCK_RELEASE))
        self.assertIsNone(self.world.relay.params.holder("/a"))

    def test_a_message_that_was_put_off_is_done_before_those_behind_it(self) -> None:
        """Unless its session has ended meanwhile."""
        relay, session = self.world.relay, self.client.session
        done: list[str] = []

        def pieces() -> Iterator[int]:
            done.append("first")
            yield 1

        self.client.hear()
        relay.put_off(session)
        self.client.send(Ping())
        self.assertEqual(self.client.hear(), [])
        relay.go_on(session, pieces())
        self.world.settle()
        self.assertEqual((done, self.client.hear()), (["first"], [Pong()]))
        relay.put_off(session)
        self.client.leave()
        relay.go_on(session, pieces())
        self.world.settle()
        self.assertEqual(done, ["first"])


class OneWayTests(SynchronousTestCase):
    """Everything that alters what the relay keeps is a recorded change."""

    def test_nothing_but_the_commit_applies_changes(self) -> None:
        """And only the table uses its own parts."""
        package = Path(clasp_relay.__file__).parent
        found: dict[str, set[str]] = {}
        for path in package.rglob("*.py"):
            name = path.relative_to(package).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    called = f"{ast.unparse(node.func.value).split('.')[-1].lstrip('_')}.{node.func.attr}"
                    found.setdefault(called, set()).add(name)
        applying = {called: names for called, names in found.items() if called.endswith(".apply")}
        self.assertEqual(applying, {"params.apply": {"core/commit.py"}, "schedule.apply": {"core/commit.py"}})
        for called in ("locks.take", "locks.release", "expiry.set"):
            with self.subTest(called=called):
                self.assertEqual(found[called], {"core/state/params.py"})

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99)), min_size=15, max_size=60), st.booleans())
    def test_recorded_changes_make_the_same_state_again(self, steps: list[tuple[int, int]], is_small: bool) -> None:
        """After any actions of several sessions, from the recorded changes, encoded and decoded."""
        guard, log = Guard(), SlowLog()
        guard.grant = lambda who, address, stored, ttl, _state: (
            Grant(stored, ttl, who.subject) if address == "/stamped" else None
        )
        guard.stamps = {"/stamped": "alice"}
        limits = ParamLimits(3, 200, 7, ShareLimits(2, 150), ShareLimits(3, 180)) if is_small else ParamLimits()
        world = World(RelayOptions(params=limits), guard, log=log, history=rules_of(KEPT))
        clients = [world.join(name) for name in ("alice", "alice", "bob")]
        for who, number in steps:
            self.live(world, clients, who, number)
        self.assertEqual(world.faults, [])
        again, waiting = Params(limits), set[int]()
        for change in map(decode_change, map(encode_change, log.changes)):
            if change.kind is ChangeKind.SCHEDULED:
                waiting.add(change.number)
            elif change.kind is ChangeKind.DUE:
                waiting.remove(change.number)
            elif change.kind is not ChangeKind.EVENT:
                again.apply(change)
        params = world.relay.params
        self.assertEqual(self.all_of(again), self.all_of(params))
        self.assertEqual(waiting, set(world.relay.schedule._waiting))

    def all_of(self, params: Params) -> tuple[object, ...]:
        """Returns everything that a table keeps, except the order of evictions."""
        return (
            params.image(),
            params.state_bytes,
            params.changes,
            params.locks._holders,
            *(vars(shares) for shares in (params._by_subject, params._by_origin)),
        )

    def live(self, world: World, clients: list[Client], who: int, number: int) -> None:
        """Does one action, chosen by the number."""
        client, what, detail = clients[who], number // 10, number % 10
        address = ("/a", "/b", "/here/a", "/stamped", "/é")[detail % 5]
        set_it = Set(address, value("x" * detail), ttl=(None, 3, 3 | TTL_ABSOLUTE, 0)[detail % 4])
        messages: dict[int, Message] = {
            0: set_it,
            1: set_it._replace(lock=True),
            2: set_it._replace(unlock=True),
            3: Set(address, NULL),
            4: Get(address),
            5: Bundle((set_it, Set("/b", value(detail)), Publish("/kept/e"), Set(address, NULL))),
            6: Bundle((set_it, Set("/here/b", value(1), lock=True)), world.clock.now_us() + detail * 400_000),
            7: Publish("/kept/e", Signal.EVENT, value=value(detail)),
        }
        if what in messages:
            client.send(messages[what])
        elif what == 8:
            world.advance(detail / 2)
        else:
            client.leave()
            clients[who] = world.join(client.session.identity.subject)


class ClearTests(SetCase):
    """The relay's own deletions."""

    def test_what_is_set_ends_whoever_has_a_lock_there(self) -> None:
        """In pieces, by nulls without a writer; addresses without a value are skipped."""
        for number in range(40):
            self.set(number, f"/a/{number}", lock=True)
        self.listener.hear()
        addresses = [f"/a/{number}" for number in range(38)]
        pieces = list(self.world.relay.committer.clear([*addresses, "/not/set"]))
        self.assertEqual(len(pieces), 3)
        self.assertEqual([each.address for each in self.listener.hear() if isinstance(each, Set)], addresses)
        self.assertEqual([param.address for param in self.world.relay.params.all()], ["/a/38", "/a/39"])
        ended = self.world.relay.params.ended("/a/0")
        assert ended is not None
        self.assertEqual(ended.subject, "")

    def test_what_a_bundle_rests_on_ends_after_it(self) -> None:
        """Only once the bundle is decided: it has read the value."""
        self.set(0, "/a")
        was_set = self.world.read_in_a_bundle("/a")
        self.world.relay.work.add(self, self.world.relay.committer.clear(["/a"]))
        self.world.advance(1)
        self.assertEqual((was_set, self.world.relay.params.get("/a")), ([True], None))
