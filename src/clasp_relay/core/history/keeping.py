"""Decides whether a change is kept as history, at the moment at which it is committed.

What the rules say about an address does not depend on what is set there, so it is found once and cached
(:class:`rules.Spot`); the usual change costs one look-up. No two entries have the same time, even if the clock is set
back. So a time also identifies a point in history, such as the one up to which a reader was told everything
(``Keeping.position_us``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from clasp_relay.core.history.rules import NOWHERE, UNKEPT, Erasure, HistoryRules, Judgement, Spot
from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Change, ChangeKind, Param
from clasp_relay.core.rights.memory import Answer, Memory, Reads
from clasp_relay.core.rights.port import State
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import Params
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish
from clasp_relay.wire.tuples import new_tuple

_WRITE, _EVENT, _PARAM = ChangeKind.WRITE, ChangeKind.EVENT, Signal.PARAM

_UNLESS = "unless"
"""The first item of the questions that this module asks of the memory."""

MAX_SPOTS = 16_384
"""Addresses whose spots are cached; beyond it the one that was added first is removed."""

MAX_SPOT_CHARACTERS = 256
"""Longer addresses are not cached, to bound the memory of one entry."""


class Keeping:
    """Applies history rules to changes.

    Args:
        rules: the rules in force.
        params: the params that rules may read.
        clock: the current time.
        memory: caches whether a rule is waived; None where no memory is told of changes, so that the rule is evaluated
            every time.
    """

    def __init__(self, rules: HistoryRules, params: Params, clock: Clock, memory: Memory | None = None) -> None:
        self.rules = rules
        self._params = params
        self._state: State = params
        self._clock = clock
        self._memory = memory
        self.keeps_params = bool(rules.signals >> Signal.PARAM & 1)
        """Whether any rule keeps SETs."""
        self._spots: dict[str, Spot] = {}
        self._last_us = 0
        self._judged: tuple[Change | None, int, Judgement | None] = (None, 0, None)
        """The last signal whose rule was found not to be waived, the number of changes of the params at that time
        (``Params.changes``), and the answer of ``judge`` to it, since ``judge`` is nearly always called with it right
        after; None where the signal may erase something."""
        self._last_answers: dict[str, tuple[Spot, Answer[bool]]] = {}
        """For subjects: the spot of their last change at a conditional one, and the answer in the memory."""
        self._untold: dict[int, int] = {}
        """The times of a bundle's accepted members that were not told yet, in their order."""
        self._replayed_us: int | None = None

    def begin(self, last_us: int) -> None:
        """Sets the time of the last entry before the start, since the clock may have been set back since then."""
        self._last_us = max(self._last_us, last_us)

    def follows(self, change: Change) -> None:
        """Takes the time of a change that another relay has decided: ``position_us`` advances when it is told."""
        param = change.param
        is_write = change.kind is ChangeKind.WRITE and self.keeps_params
        if change.kind is _EVENT or (is_write and self.may_keep(param.address, Signal.PARAM)):
            self._last_us = max(self._last_us, param.timestamp_us)

    def spot(self, address: str) -> Spot:
        """Returns what the rules say about an address."""
        spot = self._spots.get(address)
        if spot is None:
            spot = self.rules.spot(address)
            if len(address) <= MAX_SPOT_CHARACTERS:
                if len(self._spots) >= MAX_SPOTS:
                    del self._spots[next(iter(self._spots))]
                self._spots[address] = spot
        return spot

    def may_keep(self, address: str, signal: Signal) -> bool:
        """Tells whether a signal at an address may be kept; cheap."""
        return bool(self.spot(address).signals >> signal & 1)

    def event(self, session: Session, message: Publish) -> Change | None:
        """Returns the change that records an accepted PUBLISH, with the time of its acceptance as timestamp.

        Returns:
            None where no rule keeps it, or the rule is waived: then the PUBLISH is passed on unchanged.
        """
        address, signal, phase, value, samples, _, id_, rate = message
        spot = self._spots.get(address) or self.spot(address)
        if not spot.signals >> signal & 1:
            return None
        now_us = self._clock.now_us()
        self._last_us = time_us = now_us if now_us > self._last_us else self._last_us + 1
        message = new_tuple(Publish, (address, signal, phase, value, samples, time_us, id_, rate))
        about = new_tuple(Param, (address, NULL, 0, session.id, time_us, None, session.identity.subject, "", b""))
        change: Change = new_tuple(Change, (about, _EVENT, False, False, None, False, None, None, 0, message))
        if spot.is_conditional and self._is_waived(spot, change, now_us):
            return None
        word = spot.word
        erases = spot.erases and (not word or value is None or value.find(word) >= 0)
        self._judged = (change, self._params.changes, None if erases else (spot.key, ()))
        return change

    def next_us(self) -> int:
        """Returns the time of the next entry in Unix µs: now, or 1 µs after the last entry."""
        now_us = self._clock.now_us()
        self._last_us = last_us = now_us if now_us > self._last_us else self._last_us + 1
        return last_us

    @property
    def position_us(self) -> int:
        """The time in history of what is encoded now, in Unix µs: every entry up to this time has been told.

        While a REPLAY encodes an entry (``replaying``) it is the entry's time.
        """
        if self._replayed_us is not None:
            return self._replayed_us
        return next(iter(self._untold.values())) - 1 if self._untold else self._last_us

    def accepted(self, members: Iterable[tuple[Change | Publish, int]]) -> None:
        """Notes the times of a bundle's kept members: other changes may be told between two of the members."""
        self._untold.update((id(member), time_us) for member, time_us in members)

    def tells(self, member: Change | Publish) -> None:
        """Notes that a member of a bundle is told now."""
        self._untold.pop(id(member), None)

    @contextmanager
    def replaying(self, change: Change) -> Iterator[None]:
        """Makes ``position_us`` the time of an entry while the entry is encoded."""
        self._replayed_us = change.param.timestamp_us
        try:
            yield
        finally:
            self._replayed_us = None

    def timed(self, change: Change) -> Change:
        """Returns a write that was decided earlier, with the time of the next entry if it may be kept."""
        param = change.param
        if not self.keeps_params or not self.may_keep(param.address, Signal.PARAM):
            return change
        return change._replace(param=param._replace(timestamp_us=self.next_us()))

    @contextmanager
    def ahead_of(self, changes: Sequence[Change]) -> Iterator[None]:
        """Makes rules read the state that some changes will leave, since these are recorded before they are applied."""
        draft = Draft(self._params)
        for change in changes:
            if change.kind is ChangeKind.WRITE:
                draft.stage(change)
        self._state = draft
        try:
            yield
        finally:
            self._state = self._params

    def judge(self, change: Change) -> Judgement:
        """Returns what history does with a change that has been applied, or that is in ``ahead_of``."""
        known, changes, judgement = self._judged
        if change is known and judgement and changes == self._params.changes and self._state is self._params:
            return judgement
        address = change.param.address
        spot = self._spots.get(address) or self.spot(address)
        if spot is NOWHERE:
            return UNKEPT
        key = self._key(spot, change) if spot.rule >= 0 else None
        return key, self._erasures(spot, change) if spot.erases else ()

    def key_of(self, change: Change) -> str | None:
        """Returns the key under which such a change is kept; None where it is not."""
        spot = self.spot(change.param.address)
        return self._key(spot, change) if spot.rule >= 0 else None

    def _key(self, spot: Spot, change: Change) -> str | None:
        signal = _signal_of(change)
        if signal is None or not spot.signals >> signal & 1:
            return None
        if not spot.is_conditional:
            return spot.key
        known, changes, _ = self._judged
        if change is known and changes == self._params.changes and self._state is self._params:
            return spot.key
        return None if self._is_waived(spot, change, self._clock.now_us()) else spot.key

    def _erasures(self, spot: Spot, change: Change) -> tuple[Erasure, ...]:
        message = change.message
        if spot.word and isinstance(message, Publish) and spot.word not in (message.value or b""):
            return ()
        return self.rules.erasures(change, spot, self._state, self._clock.now_us())

    def _is_waived(self, spot: Spot, change: Change, now_us: int) -> bool:
        """Tells whether the rule of a conditional spot is waived for a change.

        The answer depends on params, mostly the settings of a room, so it is cached until one of these changes.
        """
        memory, param = self._memory, change.param
        if memory is None or self._state is not self._params:
            return self.rules.is_waived(change, spot, self._state, now_us, Reads())
        last = self._last_answers.get(param.subject)
        if last is not None and last[0] is spot:
            answer = last[1]
            if answer.is_valid and (answer.until_us is None or now_us < answer.until_us):
                return answer.value
        return self._ask(memory, spot, change, now_us)

    def _ask(self, memory: Memory, spot: Spot, change: Change, now_us: int) -> bool:
        """Answers from the memory, or from the rules."""
        param = change.param
        pool, question = memory.pool(param.subject), (_UNLESS, spot.rule, spot.captured)
        answer: Answer[bool] | None = memory.find(pool, question, param.address, lambda: now_us)
        if answer is None:
            reads = Reads()
            is_waived = self.rules.is_waived(change, spot, self._params, now_us, reads)
            answer = memory.keep(pool, question, param.address, is_waived, reads)
            if answer is None:
                return is_waived
        if len(param.address) > MAX_SPOT_CHARACTERS:
            return answer.value
        last = self._last_answers
        last.pop(param.subject, None)
        if len(last) >= MAX_SPOTS:
            del last[next(iter(last))]
        last[param.subject] = (spot, answer)
        return answer.value


def _signal_of(change: Change) -> Signal | None:
    """Returns the signal of a change; None if a change of this kind is never kept."""
    if change.kind is _WRITE:
        return _PARAM
    return change.message.signal if isinstance(change.message, Publish) else None
