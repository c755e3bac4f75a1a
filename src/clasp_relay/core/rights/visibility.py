"""Decides who sees what, for all messages to clients: fan-out, and the answers to GET, SUBSCRIBE and QUERY.

The rules of an address are found once and cached with it (:class:`Place`); how a reader sees it is a question whose
answer ``core.rights.memory`` caches.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Param
from clasp_relay.core.rights.memory import MAX_KEY_CHARACTERS, Answer, Reads
from clasp_relay.core.rights.port import FULL, CatchUp, HiddenKeys, Permissions, VisibilityRule
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.params import Params
from clasp_relay.wire.address import Pattern

MAX_PLACES = 16_384
"""Addresses whose rules are cached; beyond it the one that was added first is removed."""

MAX_PLACE_CHARACTERS = 256
"""Longer addresses are not cached, to bound the memory of one entry."""


class Place(NamedTuple):
    """The rules of one address, which depend on neither its value nor the reader."""

    shown: VisibilityRule | None
    """Decides who sees it in snapshots; None if every session sees it unchanged."""
    live: VisibilityRule | None
    """Decides who is told of a change there; None if every session is."""
    catch_ups: Sequence[CatchUp]
    """What a change there may open for existing subscriptions."""


class Visibility:
    """Decides who sees what.

    Args:
        permissions: find the rule of an address.
        params: the state that decisions read.
        clock: the current time.
    """

    def __init__(self, permissions: Permissions, params: Params, clock: Clock) -> None:
        self._permissions = permissions
        self._memory = permissions.memory
        self._params = params
        self._clock = clock
        self._places: dict[str, Place] = {}
        self._rules: WeakValueDictionary[tuple[Hashable, bool], VisibilityRule] = WeakValueDictionary()
        self.found = 0
        """Number of look-ups of a rule that were not answered by a cached ``Place``."""

    def cost(self, find_cost: int, judge_cost: int) -> int:
        """Returns the cost of all look-ups of rules and all computed answers so far, given the cost of one of each."""
        return find_cost * self.found + judge_cost * self._memory.missed

    def place(self, address: str) -> Place:
        """Returns the rules of an address."""
        place = self._places.get(address)
        if place is None:
            permissions = self._permissions
            shown = self._find(address, is_live=False)
            live = self._find(address, is_live=True) if permissions.tells_live_apart else shown
            place = Place(shown, live, permissions.catch_ups(address))
            if len(address) <= MAX_PLACE_CHARACTERS:
                if len(self._places) >= MAX_PLACES:
                    del self._places[next(iter(self._places))]
                self._places[address] = place
        return place

    def view(
        self, rule: VisibilityRule, session: Session, address: str, pattern: Pattern | None, reads: Reads
    ) -> HiddenKeys:
        """Returns how a session sees an address.

        Args:
            rule: the rule of the address.
            session: the reader.
            address: the address of the value.
            pattern: the subscription's, or the literal address of a GET; None for the HELLO snapshot.
            reads: gets notes of what is read for the answer.
        """
        if self._permissions.sees_all(session.identity, address, reads):
            return FULL
        return self._judge(rule, session, address, pattern, reads)

    def show(self, params: list[Param], session: Session, pattern: Pattern | None) -> list[Param]:
        """Returns params as a session sees them in a snapshot: without hidden params and hidden keys."""
        if self._permissions.is_open:
            return params
        shown = []
        places, sees_all, who = self._places, self._permissions.sees_all, session.identity
        last: VisibilityRule | None = None
        hidden: HiddenKeys = FULL
        for param in params:
            place = places.get(param.address)
            rule = self._find(param.address, is_live=False) if place is None else place.shown
            if rule is not None and rule is not last:
                reads = Reads()
                hidden = self._judge(rule, session, param.address, pattern, reads)
                # Consecutive params are usually in one room and have the same verdict.
                last = None if reads.reads_address else rule
            if rule is None or hidden == FULL or sees_all(who, param.address, Reads()):
                shown.append(param)
            elif hidden is not None:
                shown.append(param._replace(value=self._permissions.redact(param.value, hidden)))
        return shown

    def is_shown(self, session: Session, address: str, pattern: Pattern | None) -> bool:
        """Tells whether a session sees that an address is in use."""
        rule = None if self._permissions.is_open else self.place(address).shown
        return rule is None or self.view(rule, session, address, pattern, Reads()) is not None

    def _judge(
        self, rule: VisibilityRule, session: Session, address: str, pattern: Pattern | None, reads: Reads
    ) -> HiddenKeys:
        if rule.fixed is not None:
            return rule.fixed.hidden_keys
        subject, memory = session.identity.subject, self._memory
        seen_by = pattern if rule.depends_on_pattern else None
        pool, question = memory.pool(subject), (rule, seen_by)
        answer: Answer[HiddenKeys] | None = memory.find(pool, question, address, self._clock.now_us)
        if answer is not None:
            reads.rest_on(answer)
            return answer.value
        hidden, read = rule.judge(subject, address, seen_by, self._params, self._clock.now_us())
        if seen_by is None or len(seen_by.text) <= MAX_KEY_CHARACTERS:
            answer = memory.keep(pool, question, address, hidden, read)
        if answer is not None:
            reads.rest_on(answer)
        else:
            reads.add(read)
        return hidden

    def _find(self, address: str, *, is_live: bool) -> VisibilityRule | None:
        self.found += 1
        rule = self._permissions.visibility_rule(address, is_live)
        # Addresses with equal rules share one rule, and so all answers.
        return None if rule is None else self._rules.setdefault((rule.key, is_live), rule)
