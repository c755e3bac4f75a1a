"""Who sees what: the one place that every way out asks, from fan-out to the answers to GET and QUERY.

What decides about an address is found once and kept with it (:class:`Place`); how a reader sees it is a question whose
answer ``core.rights.memory`` keeps.
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
"""Of how many addresses it is kept what decides about them; the one that was found first goes first."""

MAX_PLACE_CHARACTERS = 256
"""Longer addresses are found anew every time, so that what is kept stays small."""


class Place(NamedTuple):
    """What the permissions say about one address, whatever is set there and whoever asks."""

    shown: VisibilityRule | None
    """What decides who sees it in snapshots; None where everybody sees it as it is."""
    live: VisibilityRule | None
    """What decides who is told of a change."""
    catch_ups: Sequence[CatchUp]
    """What a change there may open for sessions that subscribed before."""


class Visibility:
    """Decides who sees what.

    Args:
        permissions: what decides.
        params: the state that decisions look at.
        clock: when is now.
    """

    def __init__(self, permissions: Permissions, params: Params, clock: Clock) -> None:
        self._permissions = permissions
        self._memory = permissions.memory
        self._params = params
        self._clock = clock
        self._places: dict[str, Place] = {}
        self._rules: WeakValueDictionary[tuple[Hashable, bool], VisibilityRule] = WeakValueDictionary()
        self.found = 0
        """How often it was found what decides about an address."""

    def cost(self, find_cost: int, judge_cost: int) -> int:
        """Returns what was worked since the start, for each rule that was found and each question that was answered."""
        return find_cost * self.found + judge_cost * self._memory.missed

    def place(self, address: str) -> Place:
        """Returns what the permissions say about an address."""
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
            rule: what decides about the address.
            session: the reader.
            address: where the value is.
            pattern: the subscription's, or the literal address of a GET; None for the HELLO snapshot.
            reads: where it is noted what the answer was found from.
        """
        if self._permissions.sees_all(session.identity, address, reads):
            return FULL
        return self._judge(rule, session, address, pattern, reads)

    def show(self, params: list[Param], session: Session, pattern: Pattern | None) -> list[Param]:
        """Returns params as a session sees them in a snapshot: some hidden, some without some keys."""
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
                # Params in a row are mostly of one room, and seen alike.
                last = None if reads.reads_address else rule
            if rule is None or hidden == FULL or sees_all(who, param.address, Reads()):
                shown.append(param)
            elif hidden is not None:
                shown.append(param._replace(value=self._permissions.redact(param.value, hidden)))
        return shown

    def is_shown(self, session: Session, address: str, pattern: Pattern | None) -> bool:
        """Tells whether a session sees that there is something at an address."""
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
        now_us = self._clock.now_us()
        answer: Answer[HiddenKeys] | None = memory.find(pool, question, address, now_us)
        if answer is not None:
            reads.rest_on(answer)
            return answer.value
        hidden, read = rule.judge(subject, address, seen_by, self._params, now_us)
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
        # Addresses that are decided alike share one rule, and with it all answers.
        return None if rule is None else self._rules.setdefault((rule.key, is_live), rule)
