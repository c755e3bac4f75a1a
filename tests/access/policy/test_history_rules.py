"""Tests of clasp_relay.access.policy.history_rules: what rules keep, under which key, and what erases it."""

from __future__ import annotations

from fnmatch import fnmatchcase

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Policy
from clasp_relay.access.policy.history_rules import HistoryRules, open_entries, with_max_age
from clasp_relay.core.history.rules import NOWHERE, Erasure, Limits
from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.core.rights.memory import Reads
from clasp_relay.errors import StartError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish
from clasp_relay.wire.values import PyValue, encode_value
from tests.access.policy.world import World

EVENTS = 1 << Signal.EVENT
MESSAGES: dict[str, PyValue] = {
    "path": "/r/{room}/messages",
    "per": ["room"],
    "max_count": 3,
    "max_age_secs": 86_400,
    "unless": [{"type": "state_field_equals", "lookup": "/r/{room}/meta", "field": "history", "value": False}],
    "erased_by": "/r/{room}/meta",
    "erases": {"type": "delete", "by": "targetId", "of": "msgId"},
}


def rules_of(*entries: PyValue, **document: PyValue) -> HistoryRules:
    """Returns the history rules of a policy."""
    return Policy.from_document({**document, "history": list(entries)}).history_rules()


def event(value: PyValue, by: str = "ann", address: str = "/r/a/messages") -> Change:
    """Returns an event that was published."""
    message = Publish(address, value=encode_value(value))
    return Change(no_param(address, "w", by, 1), ChangeKind.EVENT, message=message)


def write(address: str, value: PyValue, writer: str = "w") -> Change:
    """Returns a SET."""
    return Change(Param(address, encode_value(value), 1, writer, 1, None, "ann"))


class ParseTests(SynchronousTestCase):
    """What a policy may say."""

    def test_all_keys(self) -> None:
        """And their defaults."""
        rules = rules_of(MESSAGES, {"path": "/s/**", "signals": ["param", "stream"]}, {"path": "/t/{x}"})
        self.assertEqual(rules.limits, (Limits(3, 86_400_000_000), Limits(), Limits()))
        self.assertEqual([entry.signals for entry in rules.entries], [EVENTS, 0b101, EVENTS])
        said = [entry.describe() for entry in rules.entries]
        self.assertEqual(said, ["event; 3 per {room}; 1 days", "param, stream", "event"])
        longer = with_max_age(rules.entries, 5)
        self.assertEqual([entry.limits for entry in longer], [Limits(3, 5), Limits(None, 5), Limits(None, 5)])

    def test_mistake_is_named_with_its_path(self) -> None:
        """And says what to write instead."""
        cases: tuple[tuple[dict[str, PyValue], str], ...] = (
            ({"path": "/a/{"}, r"history\[0\]\.path: .* a capture is a whole segment"),
            ({"signals": ["events"]}, r"history\[0\]\.signals\[0\]: must be one of param, event, stream"),
            ({"max_count": 0}, "max_count: must be from 1 to 100000"),
            ({"max_count": 100_001}, "max_count: must be from 1 to 100000"),
            ({"max_age_secs": "30d"}, "max_age_secs: must be a whole number"),
            ({"per": ["rooms"]}, r"per\[0\]: 'rooms' is not captured by the path \(it captures room\)"),
            ({"per": ["room", "room"]}, r"per\[1\]: 'room' is there twice"),
            ({"erased_by": "/r/meta"}, "erased_by: /r/meta: must name {room}, as per does, and nothing else"),
            ({"erased_by": "/r/{who}/meta"}, "erased_by: {who} is not captured"),
            ({"erased_by": "/r/{session}/{room}"}, "history is the same for everybody"),
            ({"erases": {"type": "delete", "by": "x"}}, r"erases\.of: is missing"),
            ({"erases": {"type": "a", "by": "x", "of": "y", "to": "z"}}, r"erases\.to: is not known here"),
            ({"max_cuont": 3}, "max_cuont: is not known here; did you mean 'max_count'"),
            ({"unless": [{"type": "state_null", "lookup": "/r/meta"}]}, "unless: /r/meta: must name {room}"),
            ({"path": "/r/{room}/*/messages", "per": None}, "erased_by: needs per"),
        )
        for change, said in cases:
            entry = {key: value for key, value in {**MESSAGES, **change}.items() if value is not None}
            with self.subTest(change=change), self.assertRaisesRegex(StartError, said):
                rules_of(entry)
        for key in ("unless", "erased_by", "erases"):
            entry = {"path": "/r/{room}/messages", "per": ["room"], key: MESSAGES[key]}
            with self.subTest(key=key), self.assertRaisesRegex(StartError, f"{key}: needs max_count"):
                rules_of(entry)


class KeepsAllTests(SynchronousTestCase):
    """Whether all of a pattern is kept."""

    def test_pattern_has_to_be_covered(self) -> None:
        """By a rule without exceptions, and by no rule before it that keeps less."""
        params = {"path": "/a/**", "signals": ["param", "event"]}
        some = {"path": "/a/b/*", "signals": ["param"]}
        less = {"path": "/a/*/x", "signals": ["event"]}
        unless: dict[str, PyValue] = {**MESSAGES, "path": "/a/{room}/messages", "signals": ["param"]}
        for rules, pattern, expected in (
            ([params], "/a/**", True),
            ([params], "/a/b", True),
            ([params], "/**", False),
            ([some, params], "/a/**", True),
            ([some], "/a/b/*", True),
            ([some], "/a/b/**", False),
            ([less, params], "/a/**", False),
            ([less, params], "/a/*/y", True),
            ([unless, params], "/a/**", False),
            ([unless, params], "/a/b/y", True),
            ([], "/a/b", False),
        ):
            with self.subTest(rules=rules, pattern=pattern):
                self.assertIs(rules_of(*rules).keeps_all(Pattern.parse(pattern), Signal.PARAM), expected)
        self.assertTrue(HistoryRules(open_entries()).keeps_all(Pattern.parse("/**"), Signal.PARAM))


class SpotTests(SynchronousTestCase):
    """What is kept where."""

    def test_first_match_counts(self) -> None:
        """With one key for all that ``per`` names, else one for each address."""
        rules = rules_of({"path": "/r/{room}/{of**}", "signals": []}, MESSAGES)
        self.assertEqual(rules.spot("/r/a/messages"), NOWHERE._replace(erases=False))
        rules = rules_of(
            MESSAGES,
            {"path": "/{a}/{b**}/x", "per": ["b", "a"], "signals": ["param"]},
            {"path": "/**", "signals": ["stream", "gesture"]},
        )
        spot = rules.spot("/r/a/messages")
        self.assertEqual((spot.signals, spot.key, spot.rule), (EVENTS, "0:a", 0))
        self.assertEqual((spot.is_conditional, spot.erases), (True, True))
        self.assertEqual((rules.spot("/p/q/r/x").key, rules.spot("/p/q/r/x").signals), ("1:q/r//p", 1))
        self.assertEqual((rules.spot("/p").key, rules.spot("/p").signals), ("2:/p", 0b1100))
        self.assertTrue(rules.spot("/r/a/meta").erases)
        self.assertEqual(rules_of(MESSAGES).spot("/p"), NOWHERE)

    def test_protocols_own_addresses_are_never_kept(self) -> None:
        """Whatever a rule says."""
        rules = HistoryRules(open_entries())
        self.assertEqual(rules.spot("/clasp/p2p/signal/x"), NOWHERE)
        self.assertEqual(rules.spot("/clap/x").signals, 0b111)
        self.assertFalse(rules.may_match(Pattern.parse("/clasp/replay/end")))

    def test_pattern_finds_its_key(self) -> None:
        """A literal one has exactly one; others may have any that a path meets."""
        rules = rules_of(MESSAGES, {"path": "/s/*"})
        cases = (
            ("/r/a/messages", "0:a", True),
            ("/r/a/meta", None, False),
            ("/s/1", "1:/s/1", True),
            ("/s/1/2", None, False),
            ("/r/*/messages", None, True),
            ("/**", None, True),
            ("/t/**", None, False),
        )
        for text, key, may_match in cases:
            pattern = Pattern.parse(text)
            with self.subTest(pattern=text):
                self.assertEqual((rules.key_of(pattern), rules.may_match(pattern)), (key, may_match))
        self.assertFalse(rules_of({"path": "/**", "signals": []}).may_match(Pattern.parse("/**")))

    def test_key_tells_whether_a_pattern_may_match(self) -> None:
        """By its captures; what it does not name may be anything."""
        many: dict[str, PyValue] = {"path": "/d/{where**}/{n}/x", "per": ["n"]}
        all_: dict[str, PyValue] = {"path": "/e/{n}", "per": []}
        rules = rules_of(MESSAGES, {"path": "/s/*"}, many, all_)
        for key, text, may_match in (
            ("0:a", "/r/a/**", True),
            ("0:a", "/r/*/messages", True),
            ("0:a", "/r/b/**", False),
            ("1:/s/1", "/s/*", True),
            ("1:/s/1", "/s/2*", False),
            ("2:7", "/d/a/b/7/x", True),
            ("2:7", "/d/*/*/7/*", True),
            ("2:7", "/d/*/*/8/*", False),
            ("3:", "/e/*", True),
            ("3:", "/s/**", False),
        ):
            with self.subTest(key=key, pattern=text):
                pattern = Pattern.parse(text)
                self.assertIs(rules.key_may_match(key, pattern), may_match)
                fits = any(fnmatchcase(key, shape) for shape in rules.key_shapes(pattern))
                self.assertTrue(fits or not may_match)

    def test_keys_that_a_pattern_may_match_have_a_shape(self) -> None:
        """As narrow as the pattern's text allows; a rule that keeps nothing has none."""
        two: dict[str, PyValue] = {"path": "/d/{kind}/{where**}/{n}/x", "per": ["n", "kind"]}
        rules = rules_of({"path": "/nothing/**", "signals": []}, MESSAGES, {"path": "/s/**"}, two)
        for text, shapes in (
            ("/**", ["1:*", "2:*", "3:*//*"]),
            ("/r/a/**", ["1:a"]),
            ("/r/a*/**", ["1:*"]),
            ("/**/messages", ["1:*", "2:*/messages"]),
            ("/s/*/b/**/c", ["2:/s/*/b*/c"]),
            ("/d/light/**", ["3:*//light"]),
            ("/d/light/a/7/*", ["3:*//light"]),
            ("/nothing/*", []),
        ):
            with self.subTest(pattern=text):
                self.assertEqual(rules.key_shapes(Pattern.parse(text)), shapes)

    def test_fingerprint_tells_when_keys_change(self) -> None:
        """Or how many entries they may have; not when the age does, which is looked at all the time."""
        same = rules_of({**MESSAGES, "max_age_secs": 99})
        self.assertEqual(rules_of(MESSAGES).fingerprint, same.fingerprint)
        path: dict[str, PyValue] = {"path": "/rooms/{room}/messages"}
        for change in (path, {"signals": ["stream"]}, {"max_count": 9}):
            self.assertNotEqual(rules_of({**MESSAGES, **change}).fingerprint, same.fingerprint)


def is_waived(rules: HistoryRules, change: Change, world: World) -> bool:
    """Tells whether a change is not kept, as ``Keeping`` asks."""
    return rules.is_waived(change, rules.spot(change.param.address), world, 1, Reads())


def erasures(rules: HistoryRules, change: Change, world: World) -> tuple[Erasure, ...]:
    """Returns what a change erases, as ``Keeping`` asks."""
    return rules.erasures(change, rules.spot(change.param.address), world, 1)


class ErasureTests(SynchronousTestCase):
    """What goes, and when."""

    def setUp(self) -> None:
        """Rooms with settings."""
        self.world = World()
        self.rules = rules_of(MESSAGES)

    def erased(self, change: Change, rules: HistoryRules | None = None) -> list[str]:
        """Returns the keys that a change erases."""
        found = erasures(rules or self.rules, change, self.world)
        return [erasure.key for erasure in found if erasure.applies is None]

    def test_null_of_a_session_erases_the_room(self) -> None:
        """An expiry, another value or another address does not."""
        self.assertEqual(self.erased(write("/r/a/meta", None)), ["0:a"])
        for change in (write("/r/a/meta", None, ""), write("/r/a/meta", {"name": "x"}), write("/r/a/topic", None)):
            self.assertEqual(self.erased(change), [])
        renewal = write("/r/a/meta", None)._replace(kind=ChangeKind.RENEWAL)
        self.assertEqual(self.erased(renewal), [])

    def test_unless_waives_and_erases(self) -> None:
        """As long as it holds nothing is kept, and what was kept goes when it begins to hold."""
        self.assertFalse(is_waived(self.rules, event({"text": "x"}), self.world))
        self.assertFalse(rules_of({"path": "/r/**"}).spot("/r/a/messages").is_conditional)
        self.world.put("/r/a/meta", {"history": False})
        self.assertTrue(is_waived(self.rules, event({"text": "x"}), self.world))
        self.assertFalse(is_waived(self.rules, event({}, address="/r/b/messages"), self.world))
        self.assertEqual(self.erased(write("/r/a/meta", {"history": False})), ["0:a"])
        self.world.put("/r/a/meta", {"history": True})
        self.assertEqual(self.erased(write("/r/a/meta", {"history": True})), [])

    def test_unless_about_single_values_erases_nothing_else(self) -> None:
        """It is about the one that is written."""
        unless: PyValue = [{"type": "value_field_equals", "field": "type", "value": "typing"}]
        rules = rules_of({**MESSAGES, "unless": unless})
        self.assertTrue(is_waived(rules, event({"type": "typing"}), self.world))
        self.assertFalse(is_waived(rules, event({"type": "text"}), self.world))
        both: PyValue = [{"type": "any_of", "checks": [*unless, {"type": "state_null", "lookup": "/r/{room}/meta"}]}]
        rules = rules_of({**MESSAGES, "unless": both})
        self.assertEqual(self.erased(write("/r/a/meta", {"x": 1}), rules), [])
        param = write("/r/a/messages", {"type": "typing"})
        self.assertTrue(is_waived(rules, param, self.world))
        nothing = event(1)._replace(message=Publish("/r/a/messages"))
        self.world.put("/r/a/meta", {})
        self.assertFalse(is_waived(rules, nothing, self.world))

    def test_delete_erases_its_target_and_that_ones_edits(self) -> None:
        """Of its author; deletes stay."""
        (erasure,) = erasures(self.rules, event({"type": "delete", "msgId": "d", "targetId": "m"}), self.world)
        assert erasure.applies is not None
        self.assertEqual((erasure.key, erasure.word), ("0:a", encode_value("m")))
        cases = (
            (event({"msgId": "m"}), True),
            (event({"type": "edit", "msgId": "e", "targetId": "m"}), True),
            (event({"msgId": "m"}, by="bob"), False),
            (event({"type": "delete", "msgId": "d", "targetId": "m"}), False),
            (event({"msgId": "n", "text": "m"}), False),
            (event(None), False),
            (write("/r/a/messages", {"msgId": "m"}), True),
        )
        for kept, is_erased in cases:
            with self.subTest(kept=kept):
                self.assertIs(erasure.applies(kept), is_erased)

    def test_what_is_no_delete_erases_nothing(self) -> None:
        """Nor where the rule knows no deletes."""
        for value in ({"type": "text", "targetId": "m"}, {"type": "delete"}, {"type": "delete", "targetId": 7}, "x"):
            with self.subTest(value=value):
                self.assertEqual(erasures(self.rules, event(value), self.world), ())
        delete = event({"type": "delete", "targetId": "m"})
        self.assertEqual(erasures(rules_of({"path": "/r/**"}), delete, self.world), ())
        self.assertEqual(erasures(self.rules, event({}, address="/s"), self.world), ())
        nothing = delete._replace(message=Publish("/r/a/messages"))
        self.assertEqual(erasures(self.rules, nothing, self.world), ())

    def test_role_counts_where_the_relay_alone_sets_it(self) -> None:
        """Anybody could write it elsewhere."""
        stamp: PyValue = [
            {"field": "by", "value": "{session}", "publish": True},
            {
                "field": "role",
                "value": "creator",
                "publish": True,
                "when": [{"type": "state_field_equals_session", "lookup": "/r/{room}/meta", "field": "creator"}],
            },
        ]
        rule: PyValue = {"path": "/r/{room}/messages", "stamp": stamp}
        delete = event({"type": "delete", "targetId": "m", "role": "creator"}, by="cleo")
        for document, is_erased in (({"write_rules": [rule]}, True), ({}, False)):
            (erasure,) = erasures(rules_of(MESSAGES, **document), delete, self.world)
            assert erasure.applies is not None
            self.assertIs(erasure.applies(event({"msgId": "m"})), is_erased)

    def test_null_message_is_kept_like_any_other(self) -> None:
        """A signal without a value has none."""
        self.assertEqual(NULL, encode_value(None))
        self.assertEqual(rules_of(MESSAGES).spot("/r/a/messages").signals, EVENTS)
