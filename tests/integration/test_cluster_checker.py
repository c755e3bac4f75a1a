"""The checker finds each kind of violation in a history that somebody broke, and none in one that is right."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import Ack, Error
from tests.integration.cluster_checker import Claim, Heard, History, Kind, Outcome, Rule, Sent, violations
from tests.integration.cluster_load import ROOT, Sender

A, B = "/a", "/b"


def write(number: int, *, revision: int | None = None, sender: str = "s", address: str = A, **more: object) -> Sent:
    """Returns a SET that was sent at its number and acknowledged half a second later."""
    fields = {"outcome": Outcome.DONE, "began_s": float(number), "ended_s": number + 0.5} | more
    return Sent(sender=sender, number=number, address=address, value=f"{sender}{number}", revision=revision, **fields)  # type: ignore[arg-type]


def unknown(number: int, **more: object) -> Sent:
    """Returns a SET without an answer."""
    return write(number, outcome=Outcome.UNKNOWN, ended_s=float("inf"), **more)  # type: ignore[arg-type]


def said(number: int, sender: str = "s", outcome: Outcome = Outcome.DONE) -> Sent:
    """Returns a PUBLISH."""
    return write(number, sender=sender, kind=Kind.PUBLISH, outcome=outcome)


def heard(sent: Sent, revision: int = 0, **more: object) -> Heard:
    """Returns what a subscriber hears of a message."""
    return Heard(
        kind=sent.kind,
        address=sent.address,
        value=sent.value,
        revision=revision or sent.revision or 0,
        **more,  # type: ignore[arg-type]
    )


def shown(sent: Sent, revision: int = 0, **more: object) -> Heard:
    """Returns what a SNAPSHOT shows of a write."""
    return replace(heard(sent, revision, **more), kind=Kind.SNAPSHOT)


def nothing(address: str = A, **more: object) -> Heard:
    """Returns what a SNAPSHOT shows where nothing is set."""
    return Heard(kind=Kind.SNAPSHOT, address=address, value="", **more)  # type: ignore[arg-type]


ONE, TWO, THREE = (write(number, revision=number) for number in (1, 2, 3))
OTHER = write(1, sender="t", revision=1, address=B)
PAIR = (write(1, bundle="x"), write(2, bundle="x", address=B, revision=1))
"""A bundle; its ACK has the last revision only."""
BAN = write(5, sender="admin", address="/ban/m", revision=1, bans="m")

GOOD: dict[str, History] = {
    "nothing happened": History(),
    "writes, heard and kept": History(
        [ONE, TWO, THREE], {"r": [shown(ONE), heard(TWO), heard(THREE)]}, {"x": {A: (3, "s3")}, "y": {A: (3, "s3")}}
    ),
    "an unknown write was done": History([ONE, unknown(2), THREE], {"r": [heard(ONE), heard(unknown(2), 2)]}),
    "an unknown write was done, and nobody saw it": History([ONE, unknown(2), THREE]),
    "an unknown write was not done": History([ONE, unknown(2), write(3, revision=2)]),
    "a subscriber that comes back is shown what it has": History([ONE], {"r": [heard(ONE), shown(ONE)]}),
    "compare-and-set": History(
        [ONE, write(2, revision=2, expected=1), write(3, expected=1, outcome=Outcome.CONFLICT), write(4, revision=3)]
    ),
    "a compare-and-set met another one": History(
        [write(1, revision=1, expected=0, ended_s=3.0), write(2, sender="t", expected=0, outcome=Outcome.CONFLICT)]
    ),
    "two that overlap may be in either order": History([write(1, revision=2, ended_s=9.0), write(2, revision=1)]),
    "an epoch for each decider": History(claims=[Claim(1, "a"), Claim(1, "a"), Claim(2, "b"), Claim(3, "a")]),
    "messages in order": History([said(1), said(2), ONE], {"r": [heard(said(1)), heard(said(2))]}),
    "a message without an answer is missing": History(
        [said(1), said(2, outcome=Outcome.UNKNOWN), said(3)], {"r": [heard(said(1)), heard(said(3))]}
    ),
    "a bundle": History(
        [*PAIR, write(3, revision=2)],
        {"r": [heard(PAIR[0], 1), heard(PAIR[1]), heard(write(3, revision=2))], "late": [heard(PAIR[0], 1)]},
        {"x": {A: (2, "s3"), B: (1, "s2")}},
    ),
    "a bundle is shown": History([*PAIR], {"r": [shown(PAIR[0], 1), shown(PAIR[1], is_settled=True)]}),
    "a bundle is not there yet": History([*PAIR], {"r": [nothing(is_settled=True)], "q": [heard(PAIR[0], 1)]}),
    "a member writes before the ban": History(
        [write(1, member="m", revision=1), BAN, write(6, member="m", outcome=Outcome.REFUSED)],
        {"r": [heard(ONE), heard(BAN)]},
    ),
    "a session reads what it wrote": History([ONE], {"s": [shown(ONE, asked_s=2.0)]}),
    "a session reads while it writes": History([ONE], {"s": [nothing(asked_s=1.2)]}),
}

BAD: list[tuple[str, Rule, History]] = [
    ("a revision is missing", Rule.NO_GAP, History([ONE, THREE])),
    ("two are missing, one is unknown", Rule.NO_GAP, History([unknown(1), write(2, revision=3)])),
    ("two values at a revision", Rule.ONE_VALUE, History([ONE, write(2, sender="t", revision=1)])),
    ("relays end apart", Rule.ONE_VALUE, History([ONE, TWO], {}, {"x": {A: (2, "s2")}, "y": {A: (1, "s1")}})),
    ("a relay ends without it", Rule.ONE_VALUE, History([ONE], {}, {"x": {A: (1, "s1")}, "y": {}})),
    ("a write happens twice", Rule.ONCE, History([ONE, TWO], {"r": [heard(ONE), heard(ONE, 3)]})),
    ("a message is heard twice", Rule.ONCE, History([said(1)], {"r": [heard(said(1)), heard(said(1))]})),
    (
        "again after another one",
        Rule.ONCE,
        History([said(1), said(2)], {"r": [*map(heard, (said(1), said(2), said(1)))]}),
    ),
    ("a SET is heard twice", Rule.ONCE, History([ONE], {"r": [heard(ONE), heard(ONE)]})),
    ("an acknowledged write is gone", Rule.NOTHING_LOST, History([ONE, TWO], {}, {"x": {A: (1, "s1")}})),
    ("a bundle's member is gone", Rule.NOTHING_LOST, History([write(1)], {}, {"x": {}})),
    (
        "a message is missing",
        Rule.NOTHING_LOST,
        History([*map(said, (1, 2, 3))], {"r": [heard(said(1)), heard(said(3))]}),
    ),
    (
        "a refused write is there",
        Rule.NOT_DONE,
        History([write(1, outcome=Outcome.REFUSED)], {"r": [heard(write(1), 1)]}),
    ),
    ("nobody sent it", Rule.NOT_DONE, History([], {"r": [heard(ONE)]})),
    ("nobody said it", Rule.NOT_DONE, History([], {"r": [heard(said(1))]})),
    ("it expected another revision", Rule.COMPARED, History([ONE, TWO, write(3, revision=3, expected=1)])),
    ("both of two", Rule.COMPARED, History([ONE, write(2, revision=2, expected=1), write(3, revision=3, expected=1)])),
    ("an unknown one", Rule.COMPARED, History([ONE, TWO, unknown(3, expected=0)], {"r": [heard(unknown(3), 3)]})),
    ("refused for nothing", Rule.COMPARED, History([ONE, write(2, expected=1, outcome=Outcome.CONFLICT)])),
    (
        "refused before the other came",
        Rule.COMPARED,
        History([ONE, write(2, expected=1, outcome=Outcome.CONFLICT), write(3, revision=2)]),
    ),
    ("the first refused", Rule.COMPARED, History([write(1, expected=0, outcome=Outcome.CONFLICT)])),
    ("the later one is below", Rule.REAL_TIME, History([write(1, revision=2), write(2, revision=1, sender="t")])),
    ("two deciders", Rule.ONE_DECIDER, History(claims=[Claim(1, "a"), Claim(2, "a"), Claim(2, "b")])),
    (
        "SETs change places",
        Rule.SENDER_ORDER,
        History([ONE, write(2, address=B, revision=1)], {"r": [heard(write(2, address=B, revision=1)), heard(ONE)]}),
    ),
    ("PUBLISH overtakes SET", Rule.SENDER_ORDER, History([ONE, said(2)], {"r": [heard(said(2)), heard(ONE)]})),
    ("an older SET", Rule.NEVER_OLDER, History([ONE, TWO], {"r": [heard(TWO), heard(ONE)]})),
    ("an older SNAPSHOT", Rule.NEVER_OLDER, History([ONE, TWO], {"r": [heard(TWO), shown(ONE)]})),
    ("gone again", Rule.NEVER_OLDER, History([ONE], {"r": [heard(ONE), nothing()]})),
    ("its own write is not there", Rule.OWN_WRITES, History([ONE], {"s": [nothing(asked_s=2.0)]})),
    ("half a bundle is kept", Rule.WHOLE, History([*PAIR], {}, {"x": {A: (0, ""), B: (1, "s2")}})),
    (
        "half a bundle is shown",
        Rule.WHOLE,
        History([*PAIR], {"q": [heard(PAIR[0], 1)], "r": [shown(PAIR[1], is_settled=True)]}),
    ),
    (
        "something within a bundle",
        Rule.WHOLE,
        History([*PAIR, OTHER], {"r": [heard(PAIR[0], 1), heard(write(1, sender="t", revision=2)), heard(PAIR[1])]}),
    ),
    (
        "a bundle without its end",
        Rule.WHOLE,
        History(
            [*PAIR, write(3, revision=2)],
            {"q": [heard(PAIR[0], 1)], "r": [heard(PAIR[0], 1), heard(write(3, revision=2))]},
        ),
    ),
    ("an answer comes twice", Rule.ONE_ANSWER, History([ONE], strays=["s hears ACK of /a twice"])),
    ("a banned member writes", Rule.BAN, History([BAN, write(6, member="m", revision=1)])),
    ("a refused one is there", Rule.BAN, History([BAN, unknown(6, member="m")], {"r": [heard(unknown(6), 1)]})),
    (
        "heard behind the ban",
        Rule.BAN,
        History([BAN, write(5, member="m", revision=1)], {"r": [heard(BAN), heard(write(5, member="m", revision=1))]}),
    ),
]


class HandMadeTests(SynchronousTestCase):
    """Histories that show one thing each."""

    def test_what_is_right_passes(self) -> None:
        """Nothing is found where nothing is wrong."""
        for name, history in GOOD.items():
            with self.subTest(name):
                self.assertEqual([str(each) for each in violations(history)], [])

    def test_what_is_wrong_is_found(self) -> None:
        """Under the rule that it breaks."""
        for name, rule, history in BAD:
            with self.subTest(name):
                self.assertIn(rule, {each.rule for each in violations(history)})

    def test_every_rule_has_a_history_that_breaks_it(self) -> None:
        """No rule is without a check."""
        self.assertEqual({rule for _, rule, _ in BAD}, set(Rule))

    def test_a_violation_says_what_and_where(self) -> None:
        """A sentence that names the rule, and one with the values."""
        (found,) = violations(History(claims=[Claim(7, "a"), Claim(7, "b")]))
        self.assertEqual(str(found), "an epoch has one decider: epoch 7 is claimed by a and b")


class Model:
    """A cluster that keeps its promises, and the clients that record what they see.

    Args:
        chance: draws what they do.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._now_s = 0.0
        self._numbers = dict.fromkeys(("s0", "s1", "s2"), 0)
        self._state: dict[str, tuple[int, str]] = {}
        self.history = History(heard={"r0": [], "r1": []})

    def run(self, steps: int) -> History:
        """Returns the history of some messages."""
        for step in range(steps):
            sender = self._chance.choice(list(self._numbers))
            match self._chance.randrange(4):
                case 0:
                    self._send(sender, "/events", kind=Kind.PUBLISH)
                case 1:
                    for address in ("/x", "/y"):
                        self._send(sender, address, bundle=f"bundle{step}")
                case 2:
                    revision = self._state.get("/cas", (0, ""))[0]
                    self._send(sender, "/cas", expected=revision - self._chance.randrange(min(2, revision + 1)))
                case 3:
                    self._send(sender, f"/plain/{self._chance.randrange(3)}", is_lossy=True)
        self.history.finals = {"one": dict(self._state), "two": dict(self._state)}
        return self.history

    def _send(
        self,
        sender: str,
        address: str,
        *,
        kind: Kind = Kind.SET,
        bundle: str = "",
        expected: int | None = None,
        is_lossy: bool = False,
    ) -> None:
        self._now_s += 1
        self._numbers[sender] += 1
        number = self._numbers[sender]
        before = self._state.get(address, (0, ""))[0]
        value = f"{sender}-{number}"
        outcome = Outcome.DONE
        if expected is not None and expected != before:
            outcome = Outcome.CONFLICT
        elif is_lossy:
            outcome = self._chance.choice((Outcome.DONE, Outcome.UNKNOWN, Outcome.REFUSED))
        is_done = outcome is Outcome.DONE or (outcome is Outcome.UNKNOWN and self._chance.random() < 0.5)
        revision = before + 1 if is_done and kind is Kind.SET else None
        if is_done:
            item = Heard(kind=kind, address=address, value=value, revision=revision or 0)
            for each in self.history.heard.values():
                each.append(item)
        if revision is not None:
            self._state[address] = (revision, value)
        self.history.sent.append(
            Sent(
                sender=sender,
                number=number,
                address=address,
                value=value,
                outcome=outcome,
                began_s=self._now_s,
                ended_s=float("inf") if outcome is Outcome.UNKNOWN else self._now_s + 0.5,
                kind=kind,
                revision=revision if outcome is Outcome.DONE and not bundle else None,
                expected=expected,
                bundle=bundle,
            )
        )


class DrawnTests(SynchronousTestCase):
    """Histories of a model that keeps its promises, as they are and with one thing changed."""

    @given(st.randoms(use_true_random=False), st.integers(0, 60))
    @settings(deadline=None, max_examples=60)
    def test_a_cluster_that_keeps_its_promises_passes(self, chance: random.Random, steps: int) -> None:
        """However many messages are refused or without an answer."""
        self.assertEqual([str(each) for each in violations(Model(chance).run(steps))], [])

    @given(st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=60)
    def test_one_change_is_found(self, chance: random.Random) -> None:
        """Something heard is moved, doubled or changed; an acknowledged write is taken from a relay."""
        history = Model(chance).run(60)
        heard_by = history.heard["r0"]
        live = [at for at, item in enumerate(heard_by) if item.kind is Kind.SET]
        assume(live)
        at = chance.choice(live)
        match chance.randrange(4):
            case 0:
                heard_by.insert(at, heard_by[at])
            case 1:
                heard_by[at] = replace(heard_by[at], value="invented")
            case 2:
                heard_by[at] = replace(heard_by[at], revision=heard_by[at].revision + 1_000)
            case 3:
                del history.finals["two"][heard_by[at].address]
        self.assertNotEqual(violations(history), [])


class SenderTests(SynchronousTestCase):
    """What the clients of a cluster under load make of answers."""

    def test_an_error_does_not_say_which_signal_it_is_about(self) -> None:
        """So none of those that nothing was answered behind counts as done."""
        sender = Sender([], "s", 1)
        for number in range(2):
            sender._note(f"{ROOT}/events", Kind.PUBLISH)
            self.assertEqual(len(sender._published), number + 1)
        error = Error(ErrorCode.OVERLOADED, "unknown whether it was done", f"{ROOT}/events")
        for _ in range(2):
            sender._settle(error)
        self.assertEqual(sender.strays, [])
        sender._note(f"{ROOT}/plain/1")
        sender._settle(error)
        self.assertEqual(len(sender.strays), 1)
        sender._settle(Ack(f"{ROOT}/plain/1", 7))
        self.assertEqual([each.outcome for each in sender.sent], [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.DONE])
