"""Tests of clasp_relay.core.history.keeping: which changes are kept, under which key and with which time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history import keeping as keeping_module
from clasp_relay.core.history.keeping import MAX_SPOT_CHARACTERS, MAX_SPOTS, Keeping
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.core.history.rules import UNKEPT, Spot
from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.core.rights.memory import Memory
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Bundle, Publish, Set, Subscribe
from tests.core.guard import Guard
from tests.core.world import KEPT, START_US, SlowLog, World, WorldClock, memory_session, rules_of, value, written

PARAMS = {"path": "/p/**", "signals": ["param"]}
UNLESS = {
    "path": "/r/{room}/m",
    "max_count": 9,
    "per": ["room"],
    "unless": [{"type": "state_field_equals", "lookup": "/r/{room}/meta", "field": "history", "value": False}],
}


class KeepingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Rules about signals, params, and rooms."""
        self.clock, self.params = WorldClock(), Params(ParamLimits())
        self.keeping = self.make()

    def make(self) -> Keeping:
        """Returns one without cached spots."""
        return Keeping(rules_of(KEPT, PARAMS, UNLESS), self.params, self.clock)

    def put(self, address: str, obj: object) -> None:
        """Sets something."""
        self.params.apply(written(self.params, Param(address, value(obj), 1, "w", START_US)))

    def test_change_is_kept_by_its_signal(self) -> None:
        """A change that is neither a write nor a signal is never kept."""
        about = no_param("/kept/a", "w", "", START_US)
        event = Change(about, ChangeKind.EVENT, message=Publish("/kept/a"))
        self.assertEqual(self.keeping.key_of(event), "0:/kept/a")
        self.assertIsNone(self.keeping.key_of(event._replace(message=Publish("/kept/a", Signal.TIMELINE))))
        self.assertIsNone(self.keeping.key_of(Change(about)))
        param = Change(Param("/p/a", NULL, 2, "", START_US))
        self.assertEqual(self.keeping.key_of(param), "1:/p/a")
        for kind in (ChangeKind.RENEWAL, ChangeKind.LOCK_RELEASE):
            self.assertIsNone(self.keeping.key_of(param._replace(kind=kind)))
        scheduled = param._replace(kind=ChangeKind.SCHEDULED, message=Bundle((Set("/p/a", NULL),)))
        self.assertIsNone(self.keeping.key_of(scheduled))
        self.assertIsNone(self.keeping.key_of(Change(no_param("/else", "w", "", START_US))))

    def test_times_rise(self) -> None:
        """Also if the clock stands still, or was set back before the start."""
        self.assertEqual([self.keeping.next_us() - START_US for _ in range(3)], [0, 1, 2])
        self.clock.clock.advance(1)
        self.assertEqual(self.keeping.next_us(), START_US + 1_000_000)
        self.keeping.begin(START_US + 9_000_000)
        self.keeping.begin(START_US)
        self.assertEqual(self.keeping.next_us(), START_US + 9_000_001)

    def test_position_is_up_to_where_all_was_told(self) -> None:
        """In a bundle up to the member that is told, also if other changes are told between two of them."""
        self.assertEqual(self.keeping.position_us, 0)
        self.keeping.next_us()
        self.assertEqual(self.keeping.position_us, START_US)
        members = [Publish("/kept/a"), Publish("/kept/b")]
        self.keeping.accepted([(each, self.keeping.next_us()) for each in members])
        self.assertEqual(self.keeping.position_us, START_US)
        self.keeping.next_us()
        self.keeping.tells(members[0])
        self.assertEqual(self.keeping.position_us, START_US + 1)
        self.keeping.tells(Publish("/kept/c"))
        self.keeping.tells(members[1])
        self.assertEqual(self.keeping.position_us, START_US + 3)
        with self.keeping.replaying(Change(no_param("/kept/a", "w", "", START_US + 1))):
            self.assertEqual(self.keeping.position_us, START_US + 1)
        self.assertEqual(self.keeping.position_us, START_US + 3)

    def test_position_follows_what_another_relay_has_decided(self) -> None:
        """Its kept changes; other changes may have been told ahead of an entry with the same time."""
        about = no_param("/kept/a", "w", "", START_US + 5)
        event = Change(about, ChangeKind.EVENT, message=Publish("/kept/a"))
        write = Change(Param("/p/a", NULL, 2, "", START_US + 7))
        for change, expected in (
            (event, 5),
            (write, 7),
            (Change(Param("/else", NULL, 2, "", START_US + 9)), 7),
            (write._replace(kind=ChangeKind.RENEWAL, param=write.param._replace(timestamp_us=START_US + 9)), 7),
            (event, 7),
        ):
            self.keeping.follows(change)
            self.assertEqual(self.keeping.position_us, START_US + expected)

    def test_signal_gets_its_time(self) -> None:
        """Unless the rule is waived: then the signal is unchanged."""
        session = memory_session(subject="ann")
        change = self.keeping.event(session, Publish("/r/a/m", timestamp_us=5))
        assert change is not None
        assert isinstance(change.message, Publish)
        self.assertEqual((change.param.timestamp_us, change.message.timestamp_us), (START_US, START_US))
        self.assertEqual((change.param.subject, self.keeping.key_of(change)), ("ann", "2:a"))
        self.put("/r/a/meta", {"history": False})
        self.assertIsNone(self.keeping.event(session, Publish("/r/a/m")))
        self.assertIsNone(self.keeping.key_of(change))

    def test_whether_a_rule_is_waived_is_remembered(self) -> None:
        """For each subject and room, until what was read changes; without a memory it is evaluated every time."""
        rules, asked = rules_of(UNLESS), []
        real = rules.is_waived

        def is_waived(change: Change, *rest: Any) -> bool:
            asked.append((change.param.subject, change.param.address))
            return real(change, *rest)

        self.patch(rules, "is_waived", is_waived)
        for memory, count in ((Memory(), 3), (None, 5)):
            with self.subTest(count=count):
                asked.clear()
                keeping = Keeping(rules, Params(ParamLimits()), self.clock, memory)
                for subject, room in (("ann", "a"), ("ann", "a"), ("bob", "a"), ("ann", "b"), ("ann", "a")):
                    change = keeping.event(memory_session(subject=subject), Publish(f"/r/{room}/m"))
                    assert change is not None
                    self.assertEqual(keeping.key_of(change), f"0:{room}")
                self.assertEqual(len(asked), count)

    def test_last_answers_are_bounded(self) -> None:
        """By their number, and the length of their addresses."""
        self.patch(keeping_module, "MAX_SPOTS", 3)
        keeping = Keeping(rules_of(UNLESS), self.params, self.clock, Memory())
        for number in range(5):
            keeping.event(memory_session(subject=f"user{number}"), Publish("/r/a/m"))
        self.assertEqual(list(keeping._last_answers), ["user2", "user3", "user4"])
        long = f"/r/{'a' * MAX_SPOT_CHARACTERS}/m"
        for _ in range(2):
            self.assertIsNotNone(keeping.event(memory_session(subject="ann"), Publish(long)))
        self.assertNotIn("ann", keeping._last_answers)

    def test_what_depends_on_the_value_is_asked_each_time(self) -> None:
        """Such an answer is not remembered."""
        secret = {**UNLESS, "unless": [{"type": "value_field_equals", "field": "off", "value": True}]}
        keeping = Keeping(rules_of(secret), self.params, self.clock, Memory())
        for off in (True, False, True):
            message = Publish("/r/a/m", value=value({"off": off}))
            self.assertIs(keeping.event(memory_session(subject="ann"), message) is None, off)

    def test_answer_ends_with_its_time(self) -> None:
        """Presence that has just ended waives the rule for its grace."""
        graced = {**UNLESS, "unless": [{"type": "present", "lookup": "/r/{room}/here", "grace_secs": 5}]}
        keeping = Keeping(rules_of(graced), self.params, self.clock, Memory())
        self.put("/r/a/here", 1)
        self.params.apply(written(self.params, Param("/r/a/here", NULL, 2, "w", self.clock.now_us(), subject="ann")))
        session = memory_session(subject="ann")
        for _ in range(2):
            self.assertIsNone(keeping.event(session, Publish("/r/a/m")))
        self.clock.clock.advance(6)
        self.assertIsNotNone(keeping.event(session, Publish("/r/a/m")))

    def test_remembered_answer_ends_with_what_it_rests_on(self) -> None:
        """The settings of a room; for a bundle that is not applied yet, the rule is evaluated again."""
        world = World(permissions=Guard(), log=SlowLog(), history=rules_of(UNLESS))
        client, keeping = world.join("ann"), world.relay.keeping
        assert keeping is not None
        for is_kept in (None, True, False, True, None, False, None):
            client.send(Set("/r/a/meta", NULL if is_kept is None else value({"history": is_kept})))
            for _ in range(2):
                change = keeping.event(client.session, Publish("/r/a/m"))
                self.assertIs(change is None, is_kept is False)
        change = Change(no_param("/r/a/m", "w", "ann", START_US), ChangeKind.EVENT, message=Publish("/r/a/m"))
        self.assertEqual(keeping.key_of(change), "0:a")
        with keeping.ahead_of([Change(Param("/r/a/meta", value({"history": False}), 9, "w", START_US))]):
            self.assertIsNone(keeping.key_of(change))
        self.assertEqual((keeping.key_of(change), world.faults), ("0:a", []))

    def test_change_tells_what_it_erases(self) -> None:
        """Most changes erase nothing, and the rules are not asked."""
        self.put("/r/a/meta", {"history": False})
        meta = Change(Param("/r/a/meta", value({"history": False}), 1, "w", START_US))
        self.assertEqual([erasure.key for erasure in self.keeping.judge(meta)[1]], ["2:a"])
        self.assertEqual(self.keeping.judge(Change(Param("/r/a", NULL, 1, "w", START_US))), UNKEPT)

    def test_address_is_looked_up_once(self) -> None:
        """Up to a number of addresses, and a length."""
        found: list[str] = []
        rules = self.keeping.rules
        real = rules.spot

        def spot(address: str) -> Spot:
            found.append(address)
            return real(address)

        self.patch(rules, "spot", spot)
        for _ in range(3):
            self.keeping.spot("/p/a")
        self.assertEqual(found, ["/p/a"])
        long = "/p/" + "a" * MAX_SPOT_CHARACTERS
        for _ in range(2):
            self.keeping.spot(long)
        self.assertEqual(found[1:], [long, long])
        for number in range(MAX_SPOTS):
            self.keeping.spot(f"/q/{number}")
        self.assertLessEqual(len(self.keeping._spots), MAX_SPOTS)
        found.clear()
        self.keeping.spot("/p/a")
        self.assertEqual(found, ["/p/a"])


class WriteTests(SynchronousTestCase):
    def test_writes_of_a_kept_address_have_times_of_their_own(self) -> None:
        """Also the relay's own nulls; writes at other addresses have the time of the clock."""
        world = World(history=rules_of(PARAMS))
        client = world.join()
        for _ in range(2):
            client.send(Set("/p/a", value(1), ttl=1))
            client.send(Set("/else", value(1)))
        self.assertEqual([world.relay.params.get(each).timestamp_us - START_US for each in ("/p/a", "/else")], [1, 0])  # type: ignore[union-attr]
        world.advance(2)
        self.assertEqual(world.relay.params.get("/p/a"), None)
        self.assertEqual(world.faults, [])

    def test_signal_of_a_waived_rule_is_passed_on_as_it_was_sent(self) -> None:
        """Without a change."""
        log = SlowLog()
        world = World(log=log, history=rules_of(UNLESS))
        sender, listener = world.join(), world.join()
        listener.send(Subscribe(1, "/r/**"))
        sender.send(Set("/r/a/meta", value({"history": False})))
        listener.hear()
        message = Publish("/r/a/m", value=value(1), timestamp_us=5)
        sender.send(message)
        self.assertEqual((listener.hear(), len(log.changes)), ([message], 1))

    def test_bundle_that_begins_to_waive_a_rule_erases(self) -> None:
        """It is recorded before it is applied; rules read the state that it will leave."""
        memory = World(history=rules_of(UNLESS))
        client = memory.join()
        client.send(Publish("/r/a/m", value=value(1)))
        client.send(Bundle((Publish("/r/a/m", value=value(2)), Set("/r/a/meta", value({"history": False})))))
        reader = memory.relay.replays.reader  # type: ignore[union-attr]
        assert isinstance(reader, MemoryHistory)
        self.assertEqual(reader.count, 0)
        client.send(Bundle((Set("/r/a/meta", value({"history": True})), Publish("/r/a/m", value=value(3)))))
        self.assertEqual((reader.count, memory.faults), (0, []))

    def test_times_rise_in_the_order_of_the_log(self) -> None:
        """Also those of a long bundle, which is decided in pieces while others write."""
        log = SlowLog()
        world = World(log=log, history=rules_of(PARAMS))
        slow, fast = world.join(), world.join()
        slow.send(Bundle(tuple(Set(f"/p/{number}", value(number)) for number in range(200))))
        fast.send(Set("/p/fast", value(1)))
        world.turn()
        times = [change.param.timestamp_us for change in log.changes]
        self.assertEqual(len(times), 201)
        self.assertNotEqual(log.changes[-1].param.address, "/p/fast")
        self.assertEqual(sorted(set(times)), times)
        for change in log.changes:
            self.assertEqual(world.relay.params.get(change.param.address), change.param)
