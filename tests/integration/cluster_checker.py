"""Checks what clients saw of a cluster against what it promises, whatever happened to relays and engine meanwhile.

Clients record what they sent with its answer, and what they heard in its order. Every value is sent once in a history,
so a value that is heard names the message that it comes from. An answer that never came, or that says so, leaves a
write *unknown*: it may or may not have happened.

The revisions are the order that the cluster claims for the writes of an address, so nothing has to be searched for:
writes and compare-and-sets are linearizable if that order has each write once, without gaps, agrees with real time, and
every compare-and-set found the revision that it expected.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """What a sender knows of its message."""

    DONE = "done"
    """A SET was acknowledged; a PUBLISH was sent on a connection that answered something sent behind it."""
    REFUSED = "refused"
    """An ERROR says that it was not done."""
    CONFLICT = "conflict"
    """A compare-and-set was refused: another revision is current."""
    UNKNOWN = "unknown"
    """No answer came, or one that says that it may have been done."""


class Kind(Enum):
    """How a message was sent or heard."""

    SET = "SET"
    PUBLISH = "PUBLISH"
    SNAPSHOT = "SNAPSHOT"


class Rule(Enum):
    """What a cluster promises; each violation names one."""

    NO_GAP = "revisions of an address have no gap"
    ONE_VALUE = "a revision has one value, on every relay"
    ONCE = "a message happens once, and is heard once"
    NOTHING_LOST = "what was acknowledged is there"
    NOT_DONE = "what was refused, or never sent, is not there"
    COMPARED = "a compare-and-set finds the revision that it expects"
    REAL_TIME = "what was acknowledged comes before what was sent later"
    ONE_DECIDER = "an epoch has one decider"
    SENDER_ORDER = "a sender's messages are heard in the order sent"
    NEVER_OLDER = "no older revision comes after a newer one in a session"
    OWN_WRITES = "a session reads its own acknowledged writes"
    WHOLE = "a bundle is there as a whole or not at all"
    BAN = "nobody writes behind their ban"
    ONE_ANSWER = "a message has one answer"


class Violation(NamedTuple):
    """What does not hold, and where."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule.value}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A SET or PUBLISH.

    Args:
        sender: the session that sent it.
        number: rises with every message of the sender.
        address: where to.
        value: unique in a history.
        outcome: what the sender knows.
        began_s: when it was sent.
        ended_s: when the answer was there; infinite where none came.
        kind: SET or PUBLISH.
        revision: as acknowledged; None for all but the last SET of a bundle.
        expected: the revision of a compare-and-set.
        bundle: what all members of a bundle have in common; empty for what is in none.
        member: for whom it was written; empty where nobody is banned.
        bans: whose ban it is.
    """

    sender: str
    number: int
    address: str
    value: str
    outcome: Outcome
    began_s: float
    ended_s: float = math.inf
    kind: Kind = Kind.SET
    revision: int | None = None
    expected: int | None = None
    bundle: str = ""
    member: str = ""
    bans: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a session read.

    Args:
        kind: a SNAPSHOT counts once for each param.
        address: of it.
        value: of it; empty where nothing is set.
        revision: of it; 0 for a PUBLISH, and where nothing is set.
        asked_s: for the answer to a GET, when that was sent.
        is_settled: whether all that a SUBSCRIBE shows has come with it.
    """

    kind: Kind
    address: str
    value: str
    revision: int = 0
    asked_s: float | None = None
    is_settled: bool = False


class Claim(NamedTuple):
    """A relay says that it decides."""

    epoch: int
    relay: str


@dataclass
class History:
    """What clients saw.

    Args:
        sent: by all senders.
        heard: by session, in its order. Every session listens to every address.
        finals: by relay, what is set at the end, when all is quiet: revision and value by address.
        claims: of relays.
        strays: answers that nobody asked for, in words.
    """

    sent: list[Sent] = field(default_factory=list)
    heard: dict[str, list[Heard]] = field(default_factory=dict)
    finals: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


class _Order:
    """The writes of a history by address and revision, as everybody saw them."""

    def __init__(self, history: History) -> None:
        self.by_value = {each.value: each for each in history.sent}
        self.values: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.revisions: dict[str, set[int]] = defaultdict(set)
        """By value."""
        self.highest: dict[str, int] = defaultdict(int)
        for each in history.sent:
            if each.revision is not None:
                self._place(each.address, each.revision, each.value)
        for heard in history.heard.values():
            for item in heard:
                if item.kind is not Kind.PUBLISH:
                    self._place(item.address, item.revision, item.value)
        for final in history.finals.values():
            for address, (revision, value) in final.items():
                self._place(address, revision, value)
        self.unplaced: dict[str, list[Sent]] = defaultdict(list)
        """By address: the SETs that nobody saw, and that may have been done."""
        for each in history.sent:
            if each.kind is Kind.SET and each.value not in self.revisions and may_be_done(each):
                self.unplaced[each.address].append(each)

    def _place(self, address: str, revision: int, value: str) -> None:
        if revision > 0:
            self.values[address, revision].add(value)
            self.revisions[value].add(revision)
            self.highest[address] = max(self.highest[address], revision)

    def missing(self, address: str) -> list[int]:
        """Returns the revisions whose value nobody saw."""
        return [each for each in range(1, self.highest[address] + 1) if (address, each) not in self.values]

    def revision(self, sent: Sent) -> int | None:
        """Returns the revision that a write was seen at; the lowest where there are more."""
        return min(self.revisions[sent.value], default=None) if sent.value in self.revisions else None


def may_be_done(sent: Sent) -> bool:
    """Tells whether a message may have happened, for all that its sender knows."""
    return sent.outcome in (Outcome.DONE, Outcome.UNKNOWN)


def violations(history: History) -> list[Violation]:
    """Returns what does not hold in a history; nothing if all does."""
    order = _Order(history)
    checks: Sequence[Callable[[History, _Order], Iterator[Violation]]] = (
        _places,
        _gaps,
        _finals,
        _compared,
        _real_time,
        _deciders,
        _sessions,
        _published,
        _bundles,
        _bans,
    )
    found = [each for check in checks for each in check(history, order)]
    return found + [Violation(Rule.ONE_ANSWER, text) for text in history.strays]


def _places(history: History, order: _Order) -> Iterator[Violation]:
    for (address, revision), values in order.values.items():
        if len(values) > 1:
            yield Violation(Rule.ONE_VALUE, f"{address} revision {revision} is {' and '.join(sorted(values))}")
    for value, revisions in order.revisions.items():
        if len(revisions) > 1:
            yield Violation(Rule.ONCE, f"{value} has the revisions {', '.join(map(str, sorted(revisions)))}")
        sent = order.by_value.get(value)
        if sent is None or not may_be_done(sent):
            why = "was never sent" if sent is None else f"was answered with {sent.outcome.value}"
            yield Violation(Rule.NOT_DONE, f"{value} has revision {min(revisions)}, and {why}")
    for session, heard in history.heard.items():
        for item in heard:
            if item.kind is Kind.PUBLISH and item.value not in order.by_value:
                yield Violation(Rule.NOT_DONE, f"{item.value} was heard by {session}, and was never sent")


def _gaps(_history: History, order: _Order) -> Iterator[Violation]:
    for address in {*order.highest, *order.unplaced}:
        missing = order.missing(address)
        unplaced = order.unplaced[address]
        if len(missing) > len(unplaced):
            revisions = ", ".join(map(str, missing))
            yield Violation(Rule.NO_GAP, f"{address} has no value at {revisions}; {len(unplaced)} writes are unknown")
        done = [each.value for each in unplaced if each.outcome is Outcome.DONE]
        if len(done) > len(missing):
            yield Violation(Rule.NOTHING_LOST, f"{address}: {', '.join(done)} was acknowledged and nobody saw it")


def _finals(history: History, order: _Order) -> Iterator[Violation]:
    for relay, final in history.finals.items():
        for sent in history.sent:
            revision = order.revision(sent)
            found = final.get(sent.address, (0, ""))[0]
            if sent.outcome is Outcome.DONE and revision is not None and found < revision:
                text = f"{sent.value} has revision {revision}, and {relay} ends with {found} at {sent.address}"
                yield Violation(Rule.NOTHING_LOST, text)
    shown = list(history.finals.items())
    for (one, first), (other, second) in itertools.pairwise(shown):
        for address in sorted({*first, *second}):
            if first.get(address) != second.get(address):
                text = f"{address} ends with {first.get(address)} on {one} and {second.get(address)} on {other}"
                yield Violation(Rule.ONE_VALUE, text)


def _compared(history: History, order: _Order) -> Iterator[Violation]:
    at = {
        (sent.address, revision): sent
        for sent in history.sent
        if sent.kind is Kind.SET and (revision := order.revision(sent)) is not None
    }
    for sent in history.sent:
        if sent.expected is None:
            continue
        revision = order.revision(sent)
        if revision is not None and revision != sent.expected + 1:
            yield Violation(Rule.COMPARED, f"{sent.value} expected {sent.expected} and has revision {revision}")
        if sent.outcome is Outcome.CONFLICT and _was_current(sent, at, order):
            text = f"{sent.value} expected {sent.expected}, which was current all the while, and was refused"
            yield Violation(Rule.COMPARED, text)


def _was_current(sent: Sent, at: Mapping[tuple[str, int], Sent], order: _Order) -> bool:
    """Tells whether the expected revision was surely the current one from the request to its answer."""
    expected = sent.expected or 0
    before, after = at.get((sent.address, expected)), at.get((sent.address, expected + 1))
    is_set = expected == 0 or (before is not None and before.ended_s < sent.began_s)
    if after is not None:
        return is_set and after.began_s > sent.ended_s
    return is_set and order.highest[sent.address] <= expected and not order.unplaced[sent.address]


def _real_time(history: History, order: _Order) -> Iterator[Violation]:
    by_address: dict[str, list[tuple[int, Sent]]] = defaultdict(list)
    for sent in history.sent:
        revision = order.revision(sent) if sent.kind is Kind.SET else None
        if revision is not None:
            by_address[sent.address].append((revision, sent))
    for writes in by_address.values():
        earliest: Sent | None = None
        for _, sent in sorted(writes, key=lambda pair: -pair[0]):
            if earliest is not None and sent.began_s > earliest.ended_s:
                text = f"{sent.value} was sent after {earliest.value} was acknowledged, and has a lower revision"
                yield Violation(Rule.REAL_TIME, text)
            if sent.outcome is Outcome.DONE and (earliest is None or sent.ended_s < earliest.ended_s):
                earliest = sent


def _deciders(history: History, _order: _Order) -> Iterator[Violation]:
    relays: dict[int, set[str]] = defaultdict(set)
    for claim in history.claims:
        relays[claim.epoch].add(claim.relay)
    for epoch, names in sorted(relays.items()):
        if len(names) > 1:
            yield Violation(Rule.ONE_DECIDER, f"epoch {epoch} is claimed by {' and '.join(sorted(names))}")


def _sessions(history: History, order: _Order) -> Iterator[Violation]:
    """What a session hears, one item after the other."""
    for session, heard in history.heard.items():
        own = [each for each in history.sent if each.sender == session and each.revision is not None]
        numbers: dict[str, Sent] = {}
        revisions: dict[str, int] = defaultdict(int)
        for item in heard:
            before = revisions[item.address]
            if item.kind is not Kind.PUBLISH:
                if item.revision < before:
                    text = f"{session} hears {item.address} revision {item.revision} after {before}"
                    yield Violation(Rule.NEVER_OLDER, text)
                revisions[item.address] = max(before, item.revision)
            sent = order.by_value.get(item.value)
            if item.kind is not Kind.SNAPSHOT and sent is not None:
                last = numbers.get(sent.sender)
                if last is not None and sent.number <= last.number:
                    again = sent.number == last.number or (item.kind is Kind.SET and item.revision == before)
                    rule = Rule.ONCE if again else Rule.SENDER_ORDER
                    yield Violation(rule, f"{session} hears {sent.value} after {last.value}")
                numbers[sent.sender] = sent
            yield from _own_writes(session, item, own)


def _own_writes(session: str, item: Heard, own: Sequence[Sent]) -> Iterator[Violation]:
    if item.asked_s is None:
        return
    for write in own:
        revision = write.revision or 0
        if write.address == item.address and write.ended_s < item.asked_s and revision > item.revision:
            text = f"{session} reads {item.address} revision {item.revision} after it wrote {revision}"
            yield Violation(Rule.OWN_WRITES, text)


def _published(history: History, _order: _Order) -> Iterator[Violation]:
    """A session that hears a sender's PUBLISHes hears all between the first and the last, each once."""
    by_sender: dict[str, list[Sent]] = defaultdict(list)
    for sent in history.sent:
        if sent.kind is Kind.PUBLISH:
            by_sender[sent.sender].append(sent)
    for session, heard in history.heard.items():
        values = [item.value for item in heard if item.kind is Kind.PUBLISH]
        found = set(values)
        for value in sorted({each for each in found if values.count(each) > 1}) if len(found) < len(values) else ():
            yield Violation(Rule.ONCE, f"{session} hears {value} more than once")
        for messages in by_sender.values():
            numbers = [each.number for each in messages if each.value in found]
            for each in messages if numbers else ():
                is_between = min(numbers) < each.number < max(numbers)
                if is_between and each.outcome is Outcome.DONE and each.value not in found:
                    text = f"{session} hears what was sent before and after {each.value}, and not that"
                    yield Violation(Rule.NOTHING_LOST, text)


def _bundles(history: History, order: _Order) -> Iterator[Violation]:
    bundles: dict[str, list[Sent]] = defaultdict(list)
    for sent in history.sent:
        if sent.bundle and sent.kind is Kind.SET:
            bundles[sent.bundle].append(sent)
    for name, members in bundles.items():
        placed = [each for each in members if order.revision(each) is not None]
        lost = [each for each in members if order.revision(each) is None and not order.missing(each.address)]
        if placed and lost:
            yield Violation(Rule.WHOLE, f"{name}: {placed[0].value} is there, and {lost[0].value} is not")
    for relay, final in history.finals.items():
        state = {address: revision for address, (revision, _) in final.items()}
        yield from _halves(relay, state, bundles, order)
    for session, heard in history.heard.items():
        yield from _heard_whole(session, heard, bundles, order)


def _heard_whole(
    session: str, heard: Iterable[Heard], bundles: Mapping[str, Sequence[Sent]], order: _Order
) -> Iterator[Violation]:
    """In a session nothing comes between the members of a bundle; what it is shown has all of them or none."""
    state: dict[str, int] = {}
    name, waiting = "", set[str]()
    for item in heard:
        if item.kind is not Kind.PUBLISH:
            state[item.address] = max(item.revision, state.get(item.address, 0))
        sent = order.by_value.get(item.value)
        if item.kind is not Kind.SNAPSHOT and sent is not None:
            if sent.bundle != name:
                if waiting:
                    yield Violation(Rule.WHOLE, f"{session} hears {sent.value} within {name}, before {min(waiting)}")
                name = sent.bundle
                waiting = {each.value for each in bundles.get(name, ())}
            waiting.discard(sent.value)
        if item.is_settled:
            yield from _halves(session, state, bundles, order)


def _halves(
    who: str, state: Mapping[str, int], bundles: Mapping[str, Sequence[Sent]], order: _Order
) -> Iterator[Violation]:
    """A state that has one member of a bundle, or something newer in its place, has all."""
    for name, members in bundles.items():
        placed = [(each, revision) for each in members if (revision := order.revision(each)) is not None]
        there = [each for each, revision in placed if state.get(each.address, 0) >= revision]
        absent = [each for each, revision in placed if state.get(each.address, 0) < revision]
        if there and absent:
            yield Violation(Rule.WHOLE, f"{name}: {who} has {there[0].value}, and not {absent[0].value}")


def _bans(history: History, order: _Order) -> Iterator[Violation]:
    bans = [each for each in history.sent if each.bans]
    for ban in bans:
        for sent in history.sent:
            is_later = ban.outcome is Outcome.DONE and sent.member == ban.bans and sent.began_s > ban.ended_s
            if is_later and (sent.outcome is Outcome.DONE or order.revision(sent) is not None):
                yield Violation(Rule.BAN, f"{sent.value} was sent after {ban.value} was acknowledged, and was done")
    banning = {ban.value: ban.bans for ban in bans}
    for session, heard in history.heard.items():
        banned = set[str]()
        for item in heard:
            written = order.by_value.get(item.value)
            if item.kind is Kind.SNAPSHOT or written is None:
                continue
            if written.member in banned:
                yield Violation(Rule.BAN, f"{session} hears {written.value} behind the ban of {written.member}")
            if item.value in banning:
                banned.add(banning[item.value])
