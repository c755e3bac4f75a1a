"""Rules at work: what triggers them, what they do, and how loops end."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.permissions import Bearer
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import ANYBODY
from clasp_relay.errors import CloseCode, Disconnect, StartError
from clasp_relay.rules import rule_door
from clasp_relay.rules.rule_door import MAX_DEPTH, RuleDoor
from clasp_relay.wire.codec import decode
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import NULL, Bundle, Message, Publish, Set, Subscribe
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.cluster.world import Client, Cluster, Member
from tests.core.world import heard, one_turn
from tests.doors.site import Site


def put(address: str, value: Any) -> Set:
    """Returns a SET."""
    return Set(address, encode_value(value))


def rule(trigger: object, *actions: object, **keys: Any) -> dict[str, Any]:
    """Returns a rule."""
    return {"id": "r", "trigger": trigger, "actions": list(actions), **keys}


def change(pattern: str = "/a/**") -> dict[str, Any]:
    """Returns a trigger."""
    return {"OnChange": {"pattern": pattern}}


def copy(address: str, transform: object = "Identity") -> dict[str, Any]:
    """Returns an action."""
    return {"SetFromTrigger": {"address": address, "transform": transform}}


class RuleTestCase(SynchronousTestCase):
    """A relay, somebody who writes, and somebody who listens."""

    def setUp(self) -> None:
        """Without rules."""
        self.begin(Site())

    def begin(self, site: Site) -> None:
        """Makes the clients."""
        self.site = site
        self.left_out: list[tuple[str, str]] = []
        self.path = Path(self.mktemp())
        self.writer = site.clasp("owner")
        self.listener = site.clasp("admin")
        site.say(self.listener, Subscribe(1, "/out/**"))

    def rules(self, *rules: object, scopes: list[str] | None = None) -> RuleDoor:
        """Has rules at work."""
        self.path.write_text(json.dumps({"rules": rules, "scopes": scopes}), "utf-8")
        door = RuleDoor(
            self.site.reactor,
            self.site.relay,
            self.path,
            self.identity,
            lambda rule, reason: self.left_out.append((rule, reason)),
        )
        door.begin()
        door.open(None)
        self.addCleanup(door.close)
        return door

    def identity(self, _scopes: tuple[str, ...] | None) -> Identity:
        """Everybody may do everything."""
        return ANYBODY

    def say(self, *messages: Message) -> list[tuple[str, object]]:
        """Has the writer send messages, and returns what the listener hears of it."""
        self.site.say(self.writer, *messages)
        return self.heard()

    def heard(self) -> list[tuple[str, object]]:
        """Returns what the listener has heard, once all that is at work is done."""
        for _ in range(4 * MAX_DEPTH):
            self.site.turn()
        self.listener.pipe.drain(0)
        messages = [decode(decode_frame(data).payload) for opcode, data in self.listener.frames if opcode == 2]
        self.listener.clear()
        return heard(messages)


class TriggerTests(RuleTestCase):
    """When a rule acts."""

    def test_change_triggers_from_sets_bundles_and_deletes(self) -> None:
        """And with the value of the change; what was set before triggers nothing."""
        self.site.say(self.writer, put("/a/x", 0))
        self.rules(rule(change(), copy("/out/x")))
        self.assertEqual(self.heard(), [])
        self.assertEqual(self.say(put("/a/x", 1)), [("/out/x", 1)])
        self.assertEqual(self.say(Bundle((put("/a/x", 2), put("/b", 1)))), [("/out/x", 2)])
        self.assertEqual(self.say(Set("/a/x", NULL)), [("/out/x", None)])
        self.assertEqual(self.say(Publish("/a/x", value=encode_value(3)), put("/b", 3)), [])

    def test_event_triggers_with_its_value(self) -> None:
        """One without a value has none to set; a SET is no event."""
        self.rules(rule({"OnEvent": {"pattern": "/a/*"}}, copy("/out/x"), {"Publish": {"address": "/out/go"}}))
        self.assertEqual(self.say(Publish("/a/x", value=encode_value(1))), [("/out/x", 1), ("/out/go", None)])
        self.assertEqual(self.say(Publish("/a/x")), [("/out/go", None)])
        self.assertEqual(self.say(put("/a/x", 1)), [])

    def test_threshold_triggers_when_it_is_crossed(self) -> None:
        """Not by values beyond it, not by what is no number, and not by the first value there is."""
        self.rules(rule({"OnThreshold": {"address": "/a/x", "above": 10, "below": 2}}, copy("/out/x")))
        crossed = [self.say(put("/a/x", value)) != [] for value in (11, 12, 5, 10, 11.5, "text", 12, 1, 0, 20)]
        self.assertEqual(crossed, [False, False, False, False, True, False, False, True, False, True])

    def test_threshold_knows_what_was_set_when_the_relay_started(self) -> None:
        """The next value may cross it."""
        self.site.say(self.writer, put("/a/x", 1))
        self.rules(rule({"OnThreshold": {"address": "/a/x", "above": 10}}, copy("/out/x")))
        self.assertEqual(self.say(put("/a/x", 11)), [("/out/x", 11)])

    def test_interval_triggers_again_and_again(self) -> None:
        """Until the relay stops."""
        door = self.rules(rule({"OnInterval": {"seconds": 5}}, {"Publish": {"address": "/out/tick", "value": 1}}))
        self.site.turn(11)
        self.assertEqual(self.heard(), [("/out/tick", 1)] * 2)
        self.successResultOf(door.close())
        self.site.turn(11)
        self.assertEqual(self.heard(), [])

    def test_conditions_must_hold(self) -> None:
        """All of them; a missing param fails."""
        conditions = [{"address": "/on", "op": "Eq", "value": True}, {"address": "/level", "op": ">", "value": 3}]
        self.rules(rule(change(), copy("/out/x"), conditions=conditions))
        told = [self.say(*writes, put("/a/x", 1)) != [] for writes in ([], [put("/on", True)], [put("/level", 4)])]
        self.assertEqual(told, [False, False, True])

    def test_cooldown_lets_one_pass(self) -> None:
        """Until its time is over."""
        self.rules(rule(change(), copy("/out/x"), cooldown=10))
        self.assertEqual(self.say(put("/a/x", 1), put("/a/x", 2)), [("/out/x", 1)])
        self.site.turn(11)
        self.assertEqual(self.say(put("/a/x", 3)), [("/out/x", 3)])


class ActionTests(RuleTestCase):
    """What a rule does."""

    def test_actions_are_done_in_their_order_and_behind_a_delay(self) -> None:
        """With the value of their trigger."""
        door = self.rules(
            rule(
                change(),
                {"Set": {"address": "/out/first", "value": {"on": True}}},
                {"Delay": {"milliseconds": 500}},
                copy("/out/x", {"Scale": {"scale": 100, "offset": 1}}),
            )
        )
        self.assertEqual(self.say(put("/a/x", 2)), [("/out/first", {"on": True})])
        self.site.reactor.advance(0.6)
        self.assertEqual(self.heard(), [("/out/x", 201)])
        self.assertEqual(door.counts[0].messages, 1)
        self.say(put("/a/x", 2))
        self.successResultOf(door.close())
        self.site.turn(1)
        self.assertEqual(self.heard(), [])

    def test_delay_that_is_over_is_kept_by_nothing(self) -> None:
        """Nor is its value, by a reference cycle, which the garbage collector might not look at any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        door = self.rules(rule(change(), {"Delay": {"milliseconds": 500}}, copy("/out/x")))
        self.say(put("/a/x", 2))
        there = weakref.ref(next(iter(door._delayed)))
        self.site.reactor.advance(0.6)
        self.assertEqual(self.heard(), [("/out/x", 2)])
        self.assertIsNone(there())

    def test_rules_that_trigger_each_other_are_cut(self) -> None:
        """Once for a chain, with the rule that was to be next; the relay goes on."""
        self.rules(rule(change("/out/x"), copy("/out/x", {"Scale": {"scale": 1, "offset": 1}})))
        self.assertEqual(self.say(put("/out/x", 0)), [("/out/x", number) for number in range(MAX_DEPTH + 1)])
        (left_out,) = self.left_out
        self.assertEqual(left_out[0], "r")
        self.assertIn("trigger each other", left_out[1])

    def test_loop_is_cut_that_waits_for_a_long_bundle(self) -> None:
        """What a rule writes at an address of the bundle is done later, and still known as a rule's."""
        self.rules(rule(change("/out/x"), copy("/out/x", {"Scale": {"scale": 1, "offset": 1}})))
        many = (put("/out/x", 0), *(put(f"/b/{number}", 0) for number in range(400)))
        self.assertEqual(self.say(Bundle(many)), [("/out/x", number) for number in range(MAX_DEPTH + 1)])
        self.assertEqual([name for name, _ in self.left_out], ["r"])

    def test_rules_live_on_however_much_waits_for_a_long_bundle(self) -> None:
        """More than may wait in a session."""
        self.rules(*(rule(change("/in/*"), copy("/b/0"), id=name) for name in "rs"))
        relay = self.site.relay
        writer, other, *_ = (session for session in relay.sessions.all() if session.name != "rules")
        relay.accept(writer, Bundle(tuple(put(f"/b/{number}", 0) for number in range(400))), 0)
        for _ in range(40):
            if not relay.params.reserved.is_used:
                one_turn(self.site.reactor)
        for number in range(600):
            relay.accept(other, put(f"/in/{number}", 0), 0)
        self.heard()
        self.assertEqual(self.left_out, [])
        param = relay.params.get("/b/0")
        assert param is not None
        self.assertEqual(param.revision, 1 + 2 * 600)

    def test_events_of_rules_trigger_rules(self) -> None:
        """Those of their own session, too, and a loop of them ends."""
        self.rules(
            rule({"OnEvent": {"pattern": "/a/x"}}, {"Publish": {"address": "/a/y"}}),
            rule({"OnEvent": {"pattern": "/a/y"}}, {"Publish": {"address": "/out/x"}}, {"Publish": {"address": "/a/x"}})
            | {"id": "s"},
        )
        self.assertEqual(len(self.say(Publish("/a/x"))), MAX_DEPTH // 2)
        self.assertEqual(len(self.left_out), 1)

    def test_actions_are_bounded_in_a_second(self) -> None:
        """Each rule's for itself."""
        self.patch(rule_door, "ACTIONS_PER_SECOND", 3)
        self.rules(rule(change(), copy("/out/x")), rule(change(), copy("/out/y")) | {"id": "s"})
        self.assertEqual(len(self.say(*(put("/a/x", number) for number in range(5)))), 6)
        self.assertEqual({each for each, _ in self.left_out}, {"r", "s"})

    def test_what_waits_is_bounded(self) -> None:
        """Changes, and delays."""
        self.patch(rule_door, "MAX_WAITING", 2)
        self.patch(rule_door, "MAX_DELAYED", 1)
        self.rules(rule(change(), {"Delay": {"milliseconds": 100}}, copy("/out/x")))
        self.say(Bundle(tuple(put(f"/a/{number}", number) for number in range(3))))
        self.site.reactor.advance(0.2)
        self.assertEqual(self.heard(), [("/out/x", 0)])
        self.assertEqual([each for each, _ in self.left_out], ["all", "r"])

    def test_value_that_does_not_fit_is_left_out(self) -> None:
        """An integer beyond 64 bits."""
        self.rules(rule(change(), copy("/out/x", {"Scale": {"scale": 1 << 40, "offset": 0}})))
        self.assertEqual(self.say(put("/a/x", 1 << 40)), [])
        self.assertEqual(len(self.left_out), 1)

    def test_many_rules_do_not_hold_the_others_up(self) -> None:
        """They act a few milliseconds in each turn."""
        seconds = iter(number * 0.001 for number in range(100_000))
        self.patch(self.site.reactor, "seconds", lambda: next(seconds))
        door = self.rules(*(rule(change(), copy("/out/x")) | {"id": str(number)} for number in range(50)))
        self.site.writer.flush()
        self.site.relay.accept(self.site.relay.sessions.all()[0], put("/a/x", 1), 0)
        self.site.writer.flush()
        door._turn()
        self.assertLess(door.counts[0].messages, 10)
        for _ in range(60):
            door._turn()
        self.assertEqual(door.counts[0].messages, 50)

    def test_address_is_looked_up_once_and_few_are_remembered(self) -> None:
        """The memory is emptied when it is full."""
        self.patch(rule_door, "MAX_KNOWN", 2)
        self.rules(rule(change(), copy("/out/x")))
        for number in range(5):
            self.assertEqual(self.say(put(f"/a/{number}", number)), [("/out/x", number)])


class RightTests(RuleTestCase):
    """Who rules are, under a policy."""

    def setUp(self) -> None:
        """With rules of the policy that nobody passes."""
        policy = {
            "scopes": ["read:/**", "write:/**"],
            "write_rules": [{"path": "/out/map", "checks": [{"type": "value_is_map"}]}],
        }
        self.begin(Site(permissions=AuthWorld(policy).relay.permissions))

    def identity(self, scopes: tuple[str, ...] | None) -> Identity:
        """As the service makes them."""
        return Bearer("clasp.rules", scopes=Scopes.parse(("admin:/**",) if scopes is None else scopes))

    def test_rules_may_do_everything_unless_their_file_says_less(self) -> None:
        """With scopes the policy's rules hold for them; what is refused is told."""
        self.rules(rule(change(), copy("/out/map")))
        self.assertEqual(self.say(put("/a/x", 1)), [("/out/map", 1)])
        param = self.site.relay.params.get("/out/map")
        assert param is not None
        self.assertEqual(param.subject, "clasp.rules")

    def test_scopes_limit_rules(self) -> None:
        """To what they read, and to what they write."""
        scopes = ["read:/a/**", "write:/out/**"]
        self.rules(rule(change(), copy("/out/map"), copy("/b"), copy("/out/x")), scopes=scopes)
        self.assertEqual(self.say(put("/a/x", 1)), [("/out/x", 1)])
        self.assertEqual([each for each, _ in self.left_out], ["r", "r"])
        self.left_out.clear()
        self.rules(rule(change("/secret/**"), copy("/out/x")), scopes=scopes)
        self.assertEqual([each for each, _ in self.left_out], ["the subscription"])
        with self.assertRaises(StartError) as caught:
            self.rules(scopes=["everything"])
        self.assertIn("scopes", str(caught.exception))


class DoorTests(RuleTestCase):
    """Reading the file again, and the end of the session."""

    def test_file_is_read_again(self) -> None:
        """A bad one changes nothing; the old session is gone."""
        door = self.rules(rule(change(), copy("/out/x")), rule({"OnInterval": {"seconds": 1}}) | {"id": "tick"})
        sessions = len(self.site.relay.sessions)
        door.started(None)
        self.path.write_text("{", "utf-8")
        door.reload()
        self.assertEqual(self.say(put("/a/x", 1)), [("/out/x", 1)])
        self.path.write_text(json.dumps([rule(change(), copy("/out/y"))]), "utf-8")
        door.reload()
        self.assertEqual(self.say(put("/a/x", 2)), [("/out/y", 2)])
        self.assertEqual(len(self.site.relay.sessions), sessions)
        door.begin()
        self.assertEqual(len(self.site.relay.sessions), sessions)

    def test_end_of_the_session_is_told(self) -> None:
        """By the core, or after a fault of ours; then nothing is done any more."""
        for end in (
            lambda session: self.site.relay.end(session, Disconnect(CloseCode.INTERNAL, "internal error")),
            lambda session: session.outbox.abort(),
        ):
            self.left_out.clear()
            self.rules(rule(change(), copy("/out/x")))
            (session,) = [each for each in self.site.relay.sessions.all() if each.door == "rules"]
            end(session)
            self.assertEqual([each for each, _ in self.left_out], ["all"])
            self.assertEqual(self.say(put("/a/x", 1)), [])

    def test_fault_of_a_rule_ends_that_rule_only(self) -> None:
        """It is logged with its traceback."""
        door = self.rules(rule(change(), copy("/out/x")), rule(change(), copy("/out/y")) | {"id": "s"})
        do = door._do

        def fail(each: Any, *rest: Any) -> None:
            if each.id == "r":
                raise ZeroDivisionError
            do(each, *rest)

        self.patch(door, "_do", fail)
        self.say(put("/a/x", 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ClusterTests(SynchronousTestCase):
    """Of the relays of a cluster the one that decides has its rules act."""

    def setUp(self) -> None:
        """Three relays."""
        self.cluster = Cluster()
        self.left_out: list[tuple[str, str]] = []

    def begin(self, *rules: object) -> None:
        """Has all relays have the same rules; somebody listens at a relay that follows."""
        path = Path(self.mktemp())
        path.write_text(json.dumps(rules), "utf-8")
        self.doors = {self.cluster.add(name): self.door(path) for name in ("one", "two", "three")}
        for member, door in self.doors.items():
            member.at_decider.append(door)
        self.cluster.advance(4)
        assert self.cluster.decider is not None
        self.decider, (self.first, self.second) = self.cluster.decider, self.cluster.followers
        self.listener = self.listen(self.first)

    def door(self, path: Path) -> RuleDoor:
        """Returns rules that have read their file."""
        door = RuleDoor(
            self.cluster.clock, None, path, lambda _: ANYBODY, lambda rule, why: self.left_out.append((rule, why))
        )
        door.begin()
        door.begin()
        return door

    def tearDown(self) -> None:
        """No relay had a fault."""
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])

    def listen(self, member: Member) -> Client:
        """Returns somebody who hears what rules write."""
        client = member.join()
        client.ask(Subscribe(1, "/out/**"))
        return client

    def heard(self) -> list[tuple[str, object]]:
        """Returns what the listener has heard, once all that is at work is done."""
        self.cluster.turn()
        return heard(self.listener.hear())

    def test_rules_act_once_wherever_it_was_written(self) -> None:
        """On SETs and events, of bundles too."""
        self.begin(rule(change(), copy("/out/x")), rule({"OnEvent": {"pattern": "/e/**"}}, copy("/out/e"), id="e"))
        for writer in (self.second.join(), self.decider.join()):
            writer.send(put("/a/x", 1))
            self.assertEqual(self.heard(), [("/out/x", 1)])
            writer.send(Publish("/e/x", value=encode_value(2)))
            self.assertEqual(self.heard(), [("/out/e", 2)])
            writer.send(Bundle((put("/a/x", 3), Publish("/e/x", value=encode_value(4)))))
            self.assertEqual(self.heard(), [("/out/x", 3), ("/out/e", 4)])
        acted = [door.counts[0].messages for member, door in self.doors.items() if member is not self.decider]
        self.assertEqual((acted, self.doors[self.decider].counts[0].messages), ([0, 0], 8))

    def test_what_a_rule_does_is_in_the_batch_that_led_to_it(self) -> None:
        """So a relay that is lost leaves both or none."""
        self.begin(rule(change(), copy("/out/x")))
        writer = self.first.join()
        self.cluster.turn()
        before = len(self.cluster.bus.log)
        writer.send(put("/a/x", 1))
        self.assertEqual(self.heard(), [("/out/x", 1)])
        self.assertEqual(len(self.cluster.bus.log) - before, 1)

    def test_loop_is_cut(self) -> None:
        """As at a relay that is alone."""
        self.begin(rule(change(), copy("/a/y")), rule(change("/a/y"), copy("/out/y"), id="out"))
        self.first.join().send(put("/a/x", 1))
        self.assertEqual(len(self.heard()), MAX_DEPTH - 1)
        self.assertIn("trigger each other", self.left_out[0][1])

    def test_rules_go_on_at_the_next_decider(self) -> None:
        """Which knows on which side of a threshold a param was; the one before acts no more."""
        self.begin(rule({"OnThreshold": {"address": "/t", "above": 10}}, copy("/out/t")))
        writer = self.first.join()
        writer.send(put("/t", 5))
        self.assertEqual(self.heard(), [])
        self.decider.kill()
        self.cluster.advance(4)
        writer.send(put("/t", 11))
        self.assertEqual(self.heard(), [("/out/t", 11)])
        decider = self.cluster.decider
        assert decider is not None
        self.assertTrue(decider.node.hand_over())
        self.cluster.advance(2)
        self.assertIsNot(self.cluster.decider, decider)
        writer.send(put("/t", 12))
        writer.send(put("/t", 1))
        writer.send(put("/t", 13))
        self.assertEqual(self.heard(), [("/out/t", 13)])
        self.assertEqual(sum(door.counts[0].messages for door in self.doors.values()), 2)

    def test_intervals_are_the_deciders(self) -> None:
        """All relays together act once in each."""
        self.begin(rule({"OnInterval": {"seconds": 10}}, {"Publish": {"address": "/out/tick", "signal": "event"}}))
        self.cluster.advance(30)
        self.assertEqual(len(self.heard()), 3)

    def test_file_is_read_again_also_where_its_rules_rest(self) -> None:
        """They count once that relay decides."""
        self.begin(rule(change(), copy("/out/x")))
        for door in self.doors.values():
            door._path.write_text(json.dumps([rule(change(), copy("/out/y"))]), "utf-8")
            door.reload()
        writer = self.first.join()
        writer.send(put("/a/x", 1))
        self.assertEqual(self.heard(), [("/out/y", 1)])
        self.decider.node.hand_over()
        self.cluster.advance(2)
        writer.send(put("/a/x", 2))
        self.assertEqual(self.heard(), [("/out/y", 2)])

    def test_closed_rules_act_no_more(self) -> None:
        """Also where their relay comes to decide while it stops."""
        self.begin(rule(change(), copy("/out/x")))
        for door in self.doors.values():
            self.successResultOf(door.close())
        self.decider.node.hand_over()
        self.cluster.advance(2)
        self.first.join().send(put("/a/x", 1))
        self.assertEqual(self.heard(), [])
