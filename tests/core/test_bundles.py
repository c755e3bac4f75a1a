"""Tests of clasp_relay.core.bundles: all members or none, in pieces where they are many."""

from __future__ import annotations

import gc
import weakref

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core import bundles
from clasp_relay.core.bundles import CHECK_COST, DONE_AT_ONCE, MATCH_COST, Watched
from clasp_relay.core.records import Change, ChangeKind, Param
from clasp_relay.core.relay import MAX_BAD_FRAMES, MAX_HELD, RelayOptions
from clasp_relay.core.rights.port import Grant, State
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.shares import ShareLimits
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Bundle,
    Error,
    Get,
    Ping,
    Pong,
    Publish,
    Set,
    Snapshot,
    Subscribe,
    Value,
)
from tests.core.guard import Guard
from tests.core.world import Client, SlowLog, World, codes, heard, revisions, value, written

MANY = 160
"""Members that take two turns to decide and three to carry out."""


def members(start: str = "/b", count: int = MANY, obj: object = 1) -> tuple[Set, ...]:
    """Returns this many SETs at different addresses."""
    return tuple(Set(f"{start}/{number}", value(obj)) for number in range(count))


class LongBundleCase(SynchronousTestCase):
    def setUp(self) -> None:
        """A writer, another writer, and a listener."""
        self.begin()

    def begin(self, max_params: int = 10_000) -> None:
        """Begins with a new relay."""
        self.world = World(RelayOptions(params=ParamLimits(max_params=max_params)))
        self.params = self.world.relay.params
        self.writer, self.other, self.listener = (self.world.join() for _ in range(3))
        self.listener.send(Subscribe(1, "/**"))
        self.listener.hear()

    def until_accepted(self) -> None:
        """Runs turns until some of a bundle is applied; the first bundle is one of ``members``."""
        while "/b/0" not in [address for address, _ in heard(self.listener.hear())]:
            self.world.one_turn()

    def settle(self) -> None:
        """Runs turns until all work is done; there must be no fault."""
        self.world.settle()
        self.assertEqual((self.world.faults, self.params.reserved.is_used), ([], False))


class PiecesTests(LongBundleCase):
    """Long bundles are done over several turns; the result is the same."""

    def test_long_bundle_takes_turns(self) -> None:
        """Its members are told in their order, and its ACK has the revision of the last one."""
        self.writer.send(Bundle((*members(), Set("/b/0", value(2)))), 1)
        self.assertEqual((self.writer.hear(), self.listener.hear(), len(self.params)), ([], [], 0))
        self.settle()
        self.assertEqual(self.writer.hear(), [Ack(None, 2)])
        expected = [*((f"/b/{number}", 1) for number in range(MANY)), ("/b/0", 2)]
        self.assertEqual(heard(self.listener.hear()), expected)

    def test_signals_of_a_long_bundle_are_passed_on_in_their_place(self) -> None:
        """A bundle of signals alone has no revision."""
        signals = tuple(Publish(f"/s/{number}", Signal.EVENT, value=value(number)) for number in range(MANY))
        self.writer.send(Bundle((*signals, *members(count=1), *signals[:2])), 1)
        self.writer.send(Bundle(signals), 1)
        self.settle()
        told = [address for address, _ in heard(self.listener.hear())]
        alone = [one.address for one in signals]
        self.assertEqual(told, [*alone, "/b/0", "/s/0", "/s/1", *alone])
        self.assertEqual(self.writer.hear(), [Ack(None, 1), Ack(None, None)])

    def test_refused_member_refuses_all(self) -> None:
        """Whichever member it is: with a wrong address, or neither SET nor PUBLISH."""
        for last in (Set("no address", value(1)), Get("/a"), Set("/c", value(1), revision=7)):
            with self.subTest(last=last):
                self.writer.send(Bundle((*members(), last)), 1)
                self.settle()
                self.assertEqual([type(each) for each in self.writer.hear()], [Error])
                self.assertEqual((len(self.params), self.listener.hear()), (0, []))

    def test_what_comes_behind_it_waits(self) -> None:
        """Messages are handled in their order, also long ones and those that a door has decoded."""
        self.writer.send(Bundle(members()), 1)
        self.writer.send(Set("/b/0", value(2)), 1)
        self.world.relay.accept(self.writer.session, Get("/b/0"), 0)
        self.writer.send(Bundle(members(obj=3)), 1)
        self.writer.send(Ping())
        self.assertEqual(self.writer.hear(), [])
        self.settle()
        ack, second, shown, third, pong = self.writer.hear()
        self.assertEqual((ack, second, third, pong), (Ack(None, 1), Ack("/b/0", 2), Ack(None, 2), Pong()))
        self.assertIsInstance(shown, Snapshot)
        self.assertEqual(heard([shown]), [("/b/0", 2)])
        self.assertEqual(revisions(self.writer.ask(Set("/b/0", value(4)), 1)), [4])

    def test_others_are_served_meanwhile(self) -> None:
        """Also if they write."""
        self.writer.send(Bundle(members()), 1)
        self.assertEqual(revisions(self.other.ask(Set("/else", value(1)), 1)), [1])
        self.until_accepted()
        self.assertEqual(revisions(self.other.ask(Set("/else", value(1)), 1)), [2])
        self.assertEqual(revisions(self.other.ask(Bundle(members("/else", 2)), 1)), [])
        self.settle()
        self.assertEqual(self.other.hear(), [Ack(None, 1)])

    def test_session_that_sends_on_and_on_is_ended(self) -> None:
        """If its door cannot stop reading meanwhile."""
        self.writer.send(Bundle(members()), 1)
        for _ in range(MAX_HELD):
            self.writer.send(Ping())
        self.assertTrue(self.writer.session.is_live)
        self.writer.send(Ping())
        self.assertFalse(self.writer.session.is_live)
        self.settle()
        self.assertEqual(len(self.params), 0)

    def test_what_waits_is_counted_for_its_session(self) -> None:
        """Up to the limit; a message is no longer counted once it is handled, or when the session ends."""
        for leaves in (False, True):
            with self.subTest(leaves=leaves):
                self.world = World(RelayOptions(session_memory_bytes=200_000))
                relay, writer = self.world.relay, self.world.join()
                writer.send(Bundle(members()), 1)
                relay.accept(writer.session, Bundle((Publish("/e", value=value("x" * 50_000)), Publish("/e"))), 0)
                writer.send(Ping())
                self.assertGreater(relay.accounts.bytes[MemoryKind.MESSAGES], 50_000)
                for _ in range(3):
                    writer.send(Set("/large", value("x" * 50_000)), 1)
                (error,) = writer.hear()
                assert isinstance(error, Error), error
                self.assertEqual(error.error, ErrorCode.LIMIT)
                self.assertIn("with these messages; wait for the answers", error.message)
                if leaves:
                    writer.leave()
                self.world.settle()
                self.assertEqual((relay.accounts.bytes[MemoryKind.MESSAGES], writer.session.account.bytes), (0, 0))
                self.assertEqual(len(writer.hear()), 0 if leaves else 4)

    def test_session_that_is_ended_by_what_waited_keeps_nothing(self) -> None:
        """The messages behind are dropped, and no longer counted."""
        self.writer.send(Bundle(members()), 1)
        for _ in range(MAX_BAD_FRAMES + 5):
            self.writer.send_bytes(b"no CLASP")
        self.settle()
        self.assertFalse(self.writer.session.is_live)
        self.assertEqual(self.writer.session.account.bytes, 0)

    def test_mark_is_set_whenever_a_message_is_handled(self) -> None:
        """Also if it waited, and for each of its pieces; and not for the messages of others."""
        marked: list[tuple[str, list[str]]] = []
        now: list[str] = []

        class Mark:
            def __init__(self, name: str) -> None:
                self._name = name

            def __enter__(self) -> None:
                now.append(self._name)

            def __exit__(self, *_: object) -> None:
                now.pop()

        relay = self.world.relay
        write = relay.committer._write

        def noting(change: Change) -> None:
            marked.append((change.param.address, [*now]))
            write(change)

        self.patch(relay.committer, "_write", noting)
        relay.accept(self.writer.session, Bundle(members("/w", 40)), 0, Mark("a"))
        relay.accept(self.writer.session, Set("/w/behind", value(1)), 0, Mark("b"))
        relay.accept(self.other.session, Bundle(members("/o", 40)), 0)
        relay.accept(self.other.session, Set("/o/behind", value(1)), 0, Mark("c"))
        self.settle()
        names = {
            "/w": ["a"],
            "/o": [],
            "/w/behind": ["b"],
            "/o/behind": ["c"],
        }
        self.assertEqual(len(marked), 82)
        for address, found in marked:
            self.assertEqual(found, names.get(address, names[address[:2]]), address)

    def test_fault_of_ours_ends_nothing_else(self) -> None:
        """It is reported, the client gets an ERROR, and its next message is handled."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(self.world.relay.committer, "_write", fail)
        self.writer.send(Bundle(members()), 1)
        self.world.settle()
        self.assertEqual([type(fault) for _, fault in self.world.faults], [ZeroDivisionError])
        self.assertEqual(codes(self.writer.hear()), [ErrorCode.INTERNAL])
        self.assertFalse(self.params.reserved.is_used)
        self.assertEqual(self.writer.ask(Ping()), [Pong()])


class MeanwhileTests(LongBundleCase):
    """Changes between two pieces."""

    def test_what_changes_while_it_is_decided_counts(self) -> None:
        """It is decided again: with the revision that is current when it is accepted."""
        self.writer.send(Bundle(members()), 1)
        self.assertEqual(revisions(self.other.ask(Set("/b/3", value("mine")), 1)), [1])
        self.settle()
        self.assertEqual(self.writer.hear(), [Ack(None, 1)])
        param = self.params.get("/b/3")
        assert param is not None
        self.assertEqual(param.revision, 2)

    def test_conflict_that_arises_meanwhile_refuses_all(self) -> None:
        """By a revision, or by a lock."""
        for number, theirs in enumerate((Set("/b/3", value(1)), Set("/b/3", value(1), lock=True))):
            with self.subTest(theirs=theirs):
                expected = Set("/b/3", value(2), revision=0) if number == 0 else Set("/b/3", value(2))
                self.writer.send(Bundle((expected, *members())), 1)
                self.other.send(theirs)
                self.settle()
                self.assertEqual(codes(self.writer.hear()), [(ErrorCode.CONFLICT, ErrorCode.LOCKED)[number]])
                self.assertEqual(len(self.params), 1)

    def until_alone(self) -> None:
        """Sends a bundle of ``members``, and changes what it reads until that is reserved."""
        self.writer.send(Bundle(members()), 1)
        turns = 0
        while not self.params.reserved.is_read("/b/0"):
            self.other.send(Set("/b/0", value("again")))
            self.world.one_turn()
            turns += 1
            self.assertLess(turns, 100)

    def test_bundle_whose_ground_never_rests_is_decided_alone(self) -> None:
        """After a few attempts, so that it does not wait for ever: in pieces, while writes to what it reads wait."""
        self.until_alone()
        self.assertEqual(self.writer.hear(), [])
        self.assertEqual(self.other.ask(Set("/b/0", value("last")), 1), [])
        third = self.world.join()
        self.assertEqual(revisions(third.ask(Set("/else", value(1)), 1)), [1])
        self.listener.hear()
        self.settle()
        told = [obj for address, obj in heard(self.listener.hear()) if address == "/b/0"]
        self.assertEqual((told, self.writer.hear()), ([1, "last"], [Ack(None, 1)]))

    def test_bundles_are_decided_alone_one_after_the_other(self) -> None:
        """Also those that have not read anything yet."""
        self.patch(bundles, "ATTEMPTS", 0)
        signals = tuple(Publish(f"/s/{number}", Signal.EVENT, value=value(number)) for number in range(2 * MANY))
        senders = [self.world.join() for _ in "abc"]
        for sender, name in zip(senders, "abc", strict=True):
            sender.send(Bundle((*signals, Set("/b/0", value(name)), *signals, Set("/b/0", value(name)))), 1)
        self.settle()
        told = [obj for address, obj in heard(self.listener.hear()) if address == "/b/0"]
        self.assertEqual(told, [*"aabbcc"])
        self.assertEqual([sender.hear() for sender in senders], [[Ack(None, 2)], [Ack(None, 4)], [Ack(None, 6)]])

    def test_bundle_that_is_refused_alone_reserves_nothing_more(self) -> None:
        """Messages that waited are handled."""
        self.until_alone()
        self.patch(self.world.relay.decider, "set", self.refuse)
        self.other.send(Set("/b/0", value("last")), 1)
        self.settle()
        self.assertEqual(codes(self.writer.hear()), [ErrorCode.CONFLICT])
        self.assertEqual(codes(self.other.hear()), [ErrorCode.CONFLICT])

    def refuse(self, *_: object) -> Change:
        """Stands for a decision that refuses."""
        raise RequestError(ErrorCode.CONFLICT, "no")

    def test_param_does_not_end_while_a_bundle_rests_on_it(self) -> None:
        """It ends afterwards. A renewal of its life time need not wait."""
        self.other.send(Set("/b/3", value("old"), ttl=1))
        self.other.send(Set("/b/4", value("old"), ttl=5))
        self.until_alone()
        self.world.clock.clock.rightNow += 2
        self.world.relay.sweep()
        self.assertIsNotNone(self.params.get("/b/3"))
        renewed = self.params.image().expires_us["/b/4"]
        self.other.send(Get("/b/4"))
        self.assertGreater(self.params.image().expires_us["/b/4"], renewed)
        pieces = list(self.world.relay.committer.until_free(["/x"]))
        waiting = self.world.relay.committer.until_free(["/b/3"])
        self.assertEqual((pieces, next(waiting)), ([], 1))
        self.settle()
        self.assertEqual(list(waiting), [])
        self.assertEqual(revisions(self.writer.hear()), [1])

    def test_who_wants_to_write_where_it_will_waits(self) -> None:
        """A SET, a short bundle and a long one; they are applied after it."""
        self.writer.send(Bundle(members()), 1)
        self.until_accepted()
        last = f"/b/{MANY - 1}"
        self.assertIsNone(self.params.get(last))
        third = self.world.join()
        self.other.send(Set(last, value("set")), 1)
        third.send(Bundle((Set(last, value("bundle")),)), 1)
        self.listener.send(Bundle((*members("/c"), Set(last, value("long")))), 1)
        self.assertEqual((self.other.hear(), third.hear()), ([], []))
        self.settle()
        self.assertEqual(self.other.hear(), [Ack(last, 2)])
        told = [obj for address, obj in heard(self.listener.hear()) if address == last]
        self.assertEqual((told[:2], sorted(map(str, told[2:]))), ([1, "set"], ["bundle", "long"]))
        self.assertEqual(third.hear()[-1:], [Ack(None, 1 + told.index("bundle"))])

    def test_session_that_ends_before_it_is_accepted_leaves_nothing(self) -> None:
        """If the session ends later, all of the bundle stays."""
        self.writer.send(Bundle(members()), 1)
        self.writer.leave()
        self.settle()
        self.assertEqual(len(self.params), 0)
        self.other.send(Bundle(members()), 1)
        self.until_accepted()
        self.other.send(Set("/never", value(1)))
        self.other.leave()
        self.settle()
        self.assertEqual((len(self.params), self.params.get("/never")), (MANY, None))

    def test_set_of_a_session_that_ends_while_it_waits_is_dropped(self) -> None:
        """Like a message that was not sent."""
        self.writer.send(Bundle(members()), 1)
        self.until_accepted()
        last = f"/b/{MANY - 1}"
        self.other.send(Set(last, value("late")), 1)
        self.other.leave()
        self.settle()
        param = self.params.get(last)
        assert param is not None
        self.assertEqual(param.revision, 1)

    def test_param_that_ends_meanwhile_does_not_take_its_revision(self) -> None:
        """The param has expired, and the bundle writes there next."""
        last = f"/b/{MANY - 1}"
        self.other.send(Set(last, value("old"), ttl=1))
        self.listener.hear()
        self.writer.send(Bundle((*members(count=MANY - 1), Set(last, value(1), ttl=600)), None), 1)
        self.until_accepted()
        self.world.clock.clock.rightNow += 2
        self.world.relay.sweep()
        self.settle()
        told = [obj for address, obj in heard(self.listener.hear()) if address == last]
        self.assertEqual(told, [1])

    def test_write_that_needs_an_eviction_waits(self) -> None:
        """The param that would be evicted may be where the bundle writes next."""
        self.begin(max_params=MANY + 1)
        self.other.send(Bundle(tuple(Set(f"/b/{number}", value(0), ttl=600) for number in range(MANY)), None))
        self.settle()
        self.other.send(Set("/end", value(1)))
        self.listener.hear()
        self.writer.send(Bundle(members(), None), 1)
        while (param := self.params.get("/b/0")) is None or param.revision == 1:
            self.world.one_turn()
        self.assertEqual(self.other.ask(Set("/more", value(1)), 1), [])
        self.settle()
        self.assertEqual(self.other.hear(), [Ack("/more", 1)])
        self.assertEqual([number for number in range(MANY) if self.params.get(f"/b/{number}") is None], [0])

    def test_write_waits_for_the_room_that_a_bundle_takes(self) -> None:
        """In the state, and in a share: the accepted bundle has to fit."""
        for limits in (
            ParamLimits(max_params=MANY),
            ParamLimits(max_state_bytes=sum(len(f"/b/{number}") + 9 for number in range(MANY))),
            ParamLimits(subject=ShareLimits(max_params=MANY)),
            ParamLimits(subject=ShareLimits(max_bytes=sum(len(f"/b/{number}") + 9 for number in range(MANY)))),
        ):
            with self.subTest(limits=limits):
                self.world = World(RelayOptions(params=limits), permissions=Guard())
                self.params = self.world.relay.params
                writer, other = self.world.join("ann"), self.world.join("ann")
                writer.send(Bundle(members()), 1)
                while not self.params.reserved.writes:
                    self.world.one_turn()
                self.assertEqual(other.ask(Set("/more", value(1)), 1), [])
                self.world.settle()
                self.assertIn(len(self.params), (MANY, MANY - 1))
                self.assertLessEqual(self.params.state_bytes, limits.max_state_bytes)
                self.assertLessEqual(len(self.params), limits.max_params)
                self.assertEqual(len(other.hear()), 1)

    def test_bundle_that_does_not_fit_is_refused_whole(self) -> None:
        """If nothing can be evicted."""
        self.begin(max_params=MANY - 1)
        self.writer.send(Bundle(members()), 1)
        self.settle()
        self.assertEqual((codes(self.writer.hear()), len(self.params)), ([ErrorCode.OVERLOADED], 0))

    def test_picture_of_the_state_waits_until_a_bundle_is_whole(self) -> None:
        """It is captured at once if no bundle is being carried out, and before the next bundle begins."""
        taken: list[int] = []
        self.world.relay.bundles.when_whole(lambda: taken.append(len(self.params)))
        self.assertEqual(taken, [0])
        self.writer.send(Bundle(members()), 1)
        self.other.send(Bundle(members("/c")), 1)
        self.until_accepted()
        self.world.relay.bundles.when_whole(lambda: taken.append(len(self.params)))
        self.assertEqual(len(taken), 1)
        self.settle()
        self.assertEqual(taken, [0, MANY])

    def test_finished_bundle_is_whole(self) -> None:
        """For the last capture of the state, which does not wait; its session is told in a later turn."""
        self.world.relay.bundles.finish()
        self.writer.send(Bundle(members()), 1)
        self.until_accepted()
        self.assertLess(len(self.params), MANY)
        taken: list[int] = []
        self.world.relay.bundles.when_whole(lambda: taken.append(len(self.params)))
        self.world.relay.bundles.finish()
        self.assertEqual((len(self.params), taken), (MANY, [MANY]))
        self.settle()
        self.assertEqual(self.writer.hear(), [Ack(None, 1)])


class ReadTests(SynchronousTestCase):
    """A decision depends on all that it reads."""

    def check(self, read: str, begin: object, then: object) -> None:
        """Tests with a rule that reads something and refuses once that has changed."""
        guard = Guard()
        world = World(permissions=guard)
        writer, other = world.join("writer"), world.join("other")
        other.send(Set("/x/a", value(begin)))

        def grant(_who: Identity, address: str, _value: Value, _ttl: int | None, state: State) -> Grant | None:
            if (
                address == "/b/0"
                and not {
                    "ended": lambda: state.ended("/x/a") is None,
                    "match": lambda: all(param.value == value(begin) for param in state.match(Pattern.parse("/x/*"))),
                    "get": lambda: state.get("/x/a") is not None,
                }[read]()
            ):
                raise RequestError(ErrorCode.POLICY, "it has changed", address)
            return None

        guard.grant = grant
        writer.send(Bundle(members()), 1)
        other.send(Set("/x/a", NULL if then is None else value(then)))
        world.settle()
        self.assertEqual(codes(writer.hear()), [ErrorCode.POLICY])
        self.assertIsNone(world.relay.params.get("/b/0"))

    def test_decision_is_made_anew_when_what_it_read_has_changed(self) -> None:
        """By the value at an address, by what matches a pattern, or by how a param ended."""
        for read, then in (("get", None), ("match", 2), ("ended", None)):
            with self.subTest(read=read):
                self.check(read, 1, then)

    def test_right_that_is_there_for_a_moment_does_not_count(self) -> None:
        """If it was there only while the decision was made, and is gone when the bundle is accepted."""
        guard = Guard()
        world = World(permissions=guard)
        writer, other = world.join("writer"), world.join("other")

        decided: list[str] = []

        def grant(who: Identity, address: str, _value: Value, _ttl: int | None, state: State) -> Grant | None:
            is_there = state.get("/x/right") is not None
            if who.subject == "writer":
                decided.append(address)
                if address == last and not is_there:
                    raise RequestError(ErrorCode.POLICY, "no right", address)
            return None

        guard.grant = grant
        last = f"/b/{MANY - 1}"
        writer.send(Bundle((*members(), *members("/c"))), 1)
        other.send(Set("/x/right", value(1)))
        while last not in decided:
            world.one_turn()
        other.send(Set("/x/right", NULL))
        world.settle()
        self.assertEqual(codes(writer.hear()), [ErrorCode.POLICY])
        self.assertEqual(len(world.relay.params), 0)

    def test_fewer_are_decided_in_a_turn_where_permissions_are_asked(self) -> None:
        """A member then takes about 0.1 ms, and other sessions wait only for a few members."""
        guard = Guard()
        decided: list[str] = []
        world = World(permissions=guard)
        writer = world.join("writer")

        def grant(_who: Identity, address: str, *_: object) -> Grant | None:
            decided.append(address)
            return None

        guard.grant = grant
        writer.send(Bundle(members()), 1)
        self.assertEqual(len(decided), 2 * DONE_AT_ONCE)
        while world.relay.work:
            before = len(decided), len(world.relay.params)
            world.one_turn()
            self.assertLessEqual(len(decided) + len(world.relay.params) - sum(before), 4 * DONE_AT_ONCE)
        self.assertEqual(writer.hear(), [Ack(None, 1)])


class WatchedTests(SynchronousTestCase):
    """What was read is compared once more, if that is little work."""

    def test_much_that_was_read_counts_as_changed_once_anything_has(self) -> None:
        """Patterns count for more than addresses."""
        params = World().relay.params
        for patterns, is_too_much in ((CHECK_COST // MATCH_COST, False), (CHECK_COST // MATCH_COST + 1, True)):
            with self.subTest(patterns=patterns):
                watched = Watched(params)
                for number in range(patterns):
                    self.assertEqual(list(watched.match(Pattern.parse(f"/{number}/*"))), [])
                self.assertEqual((watched.is_too_much, watched.is_current()), (is_too_much, True))
                params.apply(written(params, Param("/else", value(1), patterns, "w", 1)))
                self.assertEqual(watched.is_current(), not is_too_much)

    def test_what_was_read_goes_with_its_bundle(self) -> None:
        """Without a reference cycle, which the garbage collector might not look at any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        watched = Watched(World().relay.params)
        list(watched.match(Pattern.parse("/a/*")))
        there = weakref.ref(watched)
        del watched
        self.assertIsNone(there())

    def test_bundle_that_reads_much_is_decided_twice_at_most(self) -> None:
        """Once while others may write, and once with reserved reads if anything has changed."""
        guard = Guard()
        decided: list[str] = []
        world = World(permissions=guard)
        writer, other = world.join("writer"), world.join("other")

        def grant(who: Identity, address: str, _value: Value, _ttl: int | None, state: State) -> Grant | None:
            if who.subject == "writer":
                decided.append(address)
                list(state.match(Pattern.parse(f"{address}/*")))
            return None

        guard.grant = grant
        writer.send(Bundle(members()), 1)
        other.send(Set("/else", value(1)))
        world.settle()
        self.assertEqual((writer.hear(), len(decided)), ([Ack(None, 1)], 2 * MANY))


class LogTests(SynchronousTestCase):
    """Tests with a log that records later."""

    def setUp(self) -> None:
        """A writer."""
        self.log = SlowLog()
        self.world = World(log=self.log)
        self.writer = self.world.join()

    def test_bundle_is_recorded_whole_before_anything_of_it_is_told(self) -> None:
        """So no record depends on half of it; its ACK waits for the record and for the rest of the bundle."""
        listener = self.world.join()
        listener.send(Subscribe(1, "/**"))
        listener.hear()
        self.writer.send(Bundle(members()), 1)
        while not listener.hear():
            self.assertEqual(self.log.changes, [])
            self.world.one_turn()
        self.assertEqual([change.param.address for change in self.log.changes], [one.address for one in members()])
        self.log.release()
        self.assertEqual(self.writer.hear(), [])
        self.world.settle()
        self.assertEqual(self.writer.hear(), [Ack(None, 1)])

    def test_life_time_is_not_renewed_where_a_bundle_writes_next(self) -> None:
        """The bundle's write has its own life time, also after a recovery."""
        last, other = f"/b/{MANY - 1}", self.world.join()
        other.send(Set(last, value(0), ttl=100))
        self.writer.send(Bundle((*members(count=MANY - 1), Set(last, value(1), ttl=0))))
        while not self.world.relay.params.reserved:
            self.world.one_turn()
        other.send(Get(last))
        self.world.settle()
        recovered = World()
        for change in self.log.changes:
            recovered.relay.committer.restore(change)
        recovered.advance(200)
        self.assertEqual(len(recovered.relay.params), MANY)

    def test_log_that_takes_nothing_refuses_what_is_new(self) -> None:
        """A bundle that was accepted before is carried out."""
        due_us = self.world.clock.now_us() + 1_000_000
        self.writer.send(Bundle(members("/due"), due_us), 1)
        self.world.settle()
        self.log.release()
        self.assertEqual(self.writer.hear(), [Ack(None, None)])
        self.log.refusal = RequestError(ErrorCode.OVERLOADED, "the disk is full")
        self.writer.send(Bundle(members()), 1)
        self.world.settle()
        self.assertEqual(codes(self.writer.hear()), [ErrorCode.OVERLOADED])
        self.world.clock.clock.advance(1)
        self.world.settle()
        self.assertEqual(len(self.world.relay.params), MANY)
        self.assertEqual(self.log.changes[1].kind, ChangeKind.DUE)


class Interleaved:
    """Writers whose messages arrive between any two turns, and the log of what was committed."""

    def __init__(self) -> None:
        self.log = SlowLog()
        self.world = World(log=self.log)
        self.listener = self.world.join()
        self.listener.send(Subscribe(1, "/**"))
        self.writers = [self.world.join() for _ in range(3)]
        self.sent: dict[Client, list[tuple[str, ...]]] = {writer: [] for writer in self.writers}

    def write(self, who: int, addresses: list[int]) -> None:
        """Sends a bundle whose members all have one value; one member is a SET."""
        writer = self.writers[who]
        told = self.sent[writer]
        mark = value(f"{who}.{len(told)}")
        sets = tuple(Set(f"/a/{number}", mark) for number in addresses)
        told.append(tuple(one.address for one in sets))
        writer.send(sets[0] if len(sets) == 1 else Bundle(sets), 1)

    def groups(self) -> list[tuple[str, list[str]]]:
        """Returns the runs of changes with one value in the log, each with its addresses."""
        found: list[tuple[str, list[str]]] = []
        for change in self.log.changes:
            mark = str(change.param.value)
            if not found or found[-1][0] != mark:
                found.append((mark, []))
            found[-1][1].append(change.param.address)
        return found


ADDRESSES = st.lists(st.integers(0, 60), min_size=1, max_size=60)


class InterleavingTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 2), ADDRESSES, st.integers(0, 3)), max_size=12))
    def test_bundles_happen_one_after_the_other(self, steps: list[tuple[int, list[int], int]]) -> None:
        """In the order of the log: each whole, with revisions that rise by one, and with the final state as result."""
        test = Interleaved()
        for who, addresses, turns in steps:
            test.write(who, addresses)
            for _ in range(turns):
                test.world.one_turn()
        test.world.settle()
        self.assertEqual(test.world.faults, [])
        told = [sent for writer in test.writers for sent in test.sent[writer]]
        self.assertEqual(sorted(tuple(addresses) for _, addresses in test.groups()), sorted(told))
        again = Params(ParamLimits())
        last: dict[str, int] = {}
        for change in test.log.changes:
            address, revision = change.param.address, change.param.revision
            self.assertEqual(revision, last.get(address, 0) + 1)
            last[address] = revision
            again.apply(Change(change.param))
        self.assertEqual(sorted(again.all()), sorted(test.world.relay.params.all()))
        heard_last = dict(heard(test.listener.hear()))
        self.assertEqual(heard_last, {param.address: heard_last[param.address] for param in again.all()})
        test.log.release()
        for writer in test.writers:
            self.assertEqual(len(writer.hear()), len(test.sent[writer]))
