"""Rules in files: both spellings, and what is wrong said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.rules.rule_file import (
    MAX_ACTIONS,
    MAX_RULES,
    Condition,
    Rule,
    RuleError,
    Rules,
    Transform,
    is_number,
    load_rules,
    parse_rules,
)
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.values import decode_value, encode_value

CHANGE = {"OnChange": {"pattern": "/a/**"}}
SET: dict[str, Any] = {"Set": {"address": "/b", "value": 1}}


def parse(*rules: dict[str, Any]) -> Rules:
    """Parses a list of rules."""
    return parse_rules(json.dumps(rules).encode())


def rule(**keys: Any) -> dict[str, Any]:
    """Returns a rule; keys replace those of a small one."""
    return {"id": "r", "trigger": CHANGE, "actions": [SET], **keys}


class ParseTests(SynchronousTestCase):
    """What is taken."""

    def one(self, **keys: Any) -> Rule:
        """Parses a rule."""
        (found,) = parse(rule(**keys)).rules
        return found

    def test_rule_has_its_parts(self) -> None:
        """With defaults where they are missing."""
        found = self.one(
            name="Follow",
            conditions=[{"address": "/on", "op": "Eq", "value": True}],
            actions=[SET, {"Publish": {"address": "/c"}}, {"Delay": {"milliseconds": 250}}],
            cooldown={"secs": 1, "nanos": 500_000_000},
        )
        self.assertEqual((found.id, found.name, found.cooldown_s), ("r", "Follow", 1.5))
        self.assertEqual(found.conditions, (Condition("/on", "Eq", True),))
        first, second, third = found.actions
        assert first.value is not None
        self.assertEqual((first.kind, first.address, decode_value(first.value)), ("Set", "/b", 1))
        self.assertEqual((second.kind, second.value, second.signal), ("Publish", None, Signal.EVENT))
        self.assertEqual((third.kind, third.delay_s), ("Delay", 0.25))
        plain = self.one(cooldown=2)
        self.assertEqual((plain.name, plain.conditions, plain.cooldown_s), ("r", (), 2))

    def test_both_spellings_of_a_variant_are_taken(self) -> None:
        """A key, as the Rust relay's code has it, or a type, as its documentation has it."""
        for key, type_ in (
            (CHANGE, {"type": "on_change", "pattern": "/a/**"}),
            ({"OnThreshold": {"address": "/a", "above": 1}}, {"type": "on_threshold", "address": "/a", "above": 1}),
            ({"OnEvent": {"pattern": "/a"}}, {"type": "OnEvent", "pattern": "/a"}),
            ({"OnInterval": {"seconds": 5}}, {"type": "on_interval", "seconds": 5}),
        ):
            with self.subTest(key):
                one, other = (self.one(trigger=trigger).trigger for trigger in (key, type_))
                self.assertEqual((one.kind, one.above, one.seconds), (other.kind, other.above, other.seconds))
        action = {"type": "set_from_trigger", "address": "/b", "transform": {"type": "scale", "factor": 2}}
        self.assertEqual(self.one(actions=[action]).actions[0].transform, Transform("Scale", 2, 0.0))
        self.assertEqual(self.one(conditions=[{"address": "/a", "op": ">=", "value": 1}]).conditions[0].op, "Gte")

    def test_file_is_a_list_or_an_object_with_scopes(self) -> None:
        """Rules that are disabled are checked, and not at work."""
        whole = {"scopes": ["read:/a/**"], "rules": [rule(), rule(id="off", enabled=False)]}
        found = parse_rules(json.dumps(whole).encode())
        self.assertEqual(([each.id for each in found.rules], found.disabled, found.scopes), (["r"], 1, ("read:/a/**",)))
        self.assertEqual(parse_rules(b"[]"), Rules())

    def test_what_is_wrong_is_said_with_its_place(self) -> None:
        """One sentence each."""
        several = [{"address": "/a", "op": "Eq", "value": 1}] * (MAX_ACTIONS + 1)
        for data, error in (
            (b"{", "not valid JSON"),
            (b"7", "neither a list of rules nor an object"),
            (b'{"rules": 7}', "the file.rules: not a list"),
            (b'{"rules": [], "scope": []}', "the file.scope: unknown key"),
            (b'{"rules": [], "scopes": [7]}', "scopes[0]: not a text"),
            (b"[7]", "rules[0]: not an object"),
            ([{**rule(), "id": str(number)} for number in range(MAX_RULES + 1)], "rules: at most 500"),
            ([rule(), rule()], "rules[1].id: 'r' is the id of an earlier rule"),
            ([rule(id="")], "rules[0].id: not a text"),
            ([rule(enabled="yes")], "rules[0].enabled: neither true nor false"),
            ([rule(cooldwon=1)], "rules[0].cooldwon: unknown key"),
            ([rule(cooldown=-1)], "rules[0].cooldown: not from 0 to 86400"),
            ([rule(cooldown={"nanos": 1e9})], "rules[0].cooldown.nanos: not from 0"),
            ([rule(conditions=several)], "rules[0].conditions: at most 100"),
            ([rule(trigger=None)], "rules[0].trigger: missing"),
            ([rule(trigger=7)], "rules[0].trigger: not one of OnChange"),
            ([rule(trigger="OnTime")], "rules[0].trigger: 'OnTime' is none of"),
            ([rule(trigger={"OnChange": {"pattern": "a"}})], "rules[0].trigger.OnChange.pattern: "),
            ([rule(trigger={"OnThreshold": {"address": "/a"}})], "neither «above» nor «below»"),
            ([rule(trigger={"OnThreshold": {"address": "/a", "above": True}})], "above: not a number"),
            ([rule(trigger={"OnThreshold": {"address": "/a/*", "above": 1}})], "OnThreshold.address: "),
            ([rule(trigger={"OnInterval": {"seconds": 0}})], "seconds: not from 0.1 to"),
            ([rule(conditions=[{"address": "/a", "op": "Is", "value": 1}])], "conditions[0].op: 'Is' is none of"),
            ([rule(conditions=[{"address": "/a", "op": "Eq"}])], "conditions[0].value: missing"),
            ([rule(actions=[{"Set": {"address": "/a", "value": 1 << 70}}])], "actions[0].Set.value: "),
            ([rule(actions=[{"Publish": {"address": "/a", "signal": "param"}}])], "signal: 'param' is none of"),
            (
                [rule(actions=[{"SetFromTrigger": {"address": "/a", "transform": {"Clamp": {"min": 2, "max": 1}}}}])],
                "transform.Clamp: min is more than max",
            ),
            (
                [rule(trigger={"OnInterval": {"seconds": 1}}, actions=[{"SetFromTrigger": {"address": "/a"}}])],
                "SetFromTrigger has no value",
            ),
        ):
            with self.subTest(error), self.assertRaises(RuleError) as caught:
                parse_rules(data if isinstance(data, bytes) else json.dumps(data).encode())
            self.assertIn(error, str(caught.exception))

    def test_file_that_cannot_be_used_stops_a_start(self) -> None:
        """With its path."""
        path = Path(self.mktemp())
        for write, error in ((lambda: None, "No such file"), (lambda: path.write_bytes(b"7"), f"{path}: neither a")):
            write()
            with self.assertRaises(StartError) as caught:
                load_rules(path)
            self.assertIn(error, str(caught.exception))


class JudgeTests(SynchronousTestCase):
    """Conditions, thresholds and transforms."""

    def test_numbers_are_compared_by_value_and_others_with_their_kind(self) -> None:
        """What cannot be compared does not hold, but is not equal either."""
        for found, op, value, holds in (
            (1, "Eq", 1.0, True),
            (True, "Eq", 1, False),
            (True, "Ne", 1, True),
            (True, "Eq", True, True),
            (None, "Eq", None, True),
            ([1], "Eq", [1], True),
            ("a", "Lt", "b", True),
            (b"b", "Gt", b"a", True),
            ("a", "Lt", 1, False),
            (2, "Gte", 2.0, True),
            (2, "Lte", 1, False),
            (2, "Gt", 1, True),
            ([1], "Gt", [0], False),
        ):
            with self.subTest(found=found, op=op, value=value):
                self.assertIs(Condition("/a", op, value).holds(found), holds)

    def test_transforms_change_numbers_only(self) -> None:
        """Integers stay integers where they can."""
        for transform, value, expected in (
            (Transform(), 7, 7),
            (Transform("Scale", 2, 1), 7, 15),
            (Transform("Scale", 0.5, 0), 7, 3.5),
            (Transform("Clamp", 0, 5), 7, 5),
            (Transform("Clamp", 0, 5), -7, 0),
            (Transform("Threshold", 7), 7, False),
            (Transform("Threshold", 7), 7.5, True),
            (Transform("Threshold", 8), 7, False),
            (Transform("Invert", 0, 10), 7, 3),
            (Transform("Scale", 2, 1), "text", "text"),
            (Transform("Scale", 2, 1), True, True),
        ):
            with self.subTest(transform=transform, value=value):
                self.assertEqual(repr(transform.transformed(value)), repr(expected))

    def test_what_counts_as_a_number(self) -> None:
        """Not what is infinite, or beyond what a value can be."""
        found = [is_number(value) for value in (1, 1.5, True, "1", None, float("nan"), float("inf"), 1 << 64)]
        self.assertEqual(found, [True, True, False, False, False, False, False, False])
        self.assertEqual(decode_value(encode_value(1)), 1)
