"""Runs the rules of a file: watches params and events of all doors, and acts in a session of its own.

A rule runs after the change that triggers it is committed and told, like a client that reacts at once. Its writes may
trigger other rules; each delivery has the number of rules that led to it, so that a loop ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from clasp_relay.core.ports import Frame
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.core.session.sessions import ANYBODY, Session
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.errors import CloseCode, DecodeError, StartError
from clasp_relay.logs import events
from clasp_relay.net.backlog import give_up
from clasp_relay.net.reading import share_end_s
from clasp_relay.net.tls import ServerTls
from clasp_relay.rules.rule_file import Action, Rule, Rules, load_rules
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    Error,
    Message,
    ParamFields,
    Publish,
    Set,
    SignalDefinition,
    Subscribe,
    Value,
)
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["MAX_DEPTH", "RuleDoor"]

MAX_DEPTH = 8
"""Length of a chain of rules that trigger each other; the writes of the last one trigger none."""

ACTIONS_PER_SECOND = 1_000
"""Actions a second of one rule; more are dropped."""

MAX_WAITING = 10_000
"""Deliveries that wait for their rules; more are dropped."""

MAX_DELAYED = 1_000
"""Delays that have not ended, of all rules."""

MAX_KNOWN = 10_000
"""Addresses whose rules are cached."""

TURN_S = 0.002
"""Time in s for rules in one turn of the event loop."""


class _Told(bytes):
    """A delivery, which is not encoded."""

    address: str
    value: Value | None
    is_event: bool
    depth: int


class _Refused(bytes):
    """An ERROR that an action led to."""

    rule: str
    reason: str


class _Firing(NamedTuple):
    """A rule that is to act.

    Attributes:
        rule: the rule.
        actions: the remaining actions.
        value: the value that triggered it; None for none.
        depth: how many rules led to it.
        is_new: whether conditions and cooldown are still to be checked.
    """

    rule: Rule
    actions: Sequence[Action]
    value: Value | None
    depth: int
    is_new: bool = True


class _Codec:
    """Implements ``core.ports.Codec`` for the rules' session: hands over what happened without encoding it."""

    depth = 0
    """The number of rules that led to the message that is being handled."""
    rule = ""
    """The rule that is acting."""

    def decode(self, data: bytes, /) -> tuple[Message, int]:  # noqa: ARG002
        """Refuses: rules give messages."""
        raise DecodeError("there is nothing to decode")

    def cost(self, data: bytes, /) -> int:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None, /) -> bytes:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return self._told(address, value, False)

    def publish(self, message: Publish, /) -> bytes:
        """See ``core.ports.Codec``."""
        return self._told(message.address, message.value, True)

    def ack(self, *_fields: object) -> bytes:
        """See ``core.ports.Codec``."""
        return b""

    def encode(self, message: Message, /) -> bytes:
        """See ``core.ports.Codec``; of the answers only ERRORs are of interest."""
        if not isinstance(message, Error):
            return b""
        refused = _Refused(b"-")
        refused.rule, refused.reason = self.rule, message.message
        return refused

    def snapshot(self, params: Iterable[ParamFields], /) -> Iterator[bytes]:  # noqa: ARG002
        """See ``core.ports.Codec``; rules act when something changes."""
        return iter(())

    def result(self, definitions: Iterable[SignalDefinition], /) -> Iterator[bytes]:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return iter(())

    def _told(self, address: str, value: Value | None, is_event: bool) -> _Told:
        told = _Told(b"-")
        told.address, told.value, told.is_event, told.depth = address, value, is_event, self.depth
        return told


class _Outbox(HandedOutbox):
    """The outbox of the rules' session. Implements ``core.ports.Outbox``.

    Args:
        take: called with every delivery and refusal.
        closed: called with the reason when the session is ended.
    """

    def __init__(self, take: Callable[[_Told | _Refused], None], closed: Callable[[str], None]) -> None:
        self._take = take
        self._closed = closed

    def deliver(self, frame: Frame) -> None:
        """Takes a delivery or an answer."""
        if isinstance(frame.wire, _Told | _Refused):
            self._take(frame.wire)

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``."""
        self.deliver(frame)

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``; does nothing, since existing params trigger no rule."""
        give_up(frames)

    def close(self, _close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox``."""
        self._closed(reason)

    def discard(self) -> None:
        """See ``core.ports.Outbox``; does nothing, since nothing is kept here."""

    def abort(self) -> None:
        """Ends the session after an internal error."""
        self._closed("internal error")


class RuleDoor:
    """Runs the rules of a file while the relay runs.

    Implements ``door.Door``, ``door.Watching``, ``door.Reloading`` and ``door.AtDecider``.

    Args:
        reactor: for its clock.
        relay: the core; None in a cluster, where ``act_in`` sets the decider's core.
        path: the file.
        identity_of: returns the identity of the rules, given the file's scopes (None: it has none).
        tell_refused: called with the id of a rule whose action was dropped, and the reason.
    """

    def __init__(
        self,
        reactor: Any,
        relay: Relay | None,
        path: Path,
        identity_of: Callable[[tuple[str, ...] | None], Identity],
        tell_refused: Callable[[str, str], None],
    ) -> None:
        self._reactor = reactor
        self._relay = relay
        self._path = path
        self._identity_of = identity_of
        self._tell_refused = tell_refused
        self._count = DoorCounts("rules")
        self.counts = (self._count,)
        """See ``Door``; messages are rules that acted, refused are dropped actions."""
        self._codec = _Codec()
        self._session: Session | None = None
        self._rules = Rules()
        self._is_read = False
        """Whether ``_rules`` was read from the file."""
        self._identity = ANYBODY
        self._is_closed = False
        self._known: dict[tuple[str, bool], tuple[Rule, ...]] = {}
        self._zones: dict[str, int] = {}
        """The side of its threshold on which each rule's param was last."""
        self._acted_s: dict[str, float] = {}
        """When each rule with a cooldown acted last."""
        self._limiters: dict[str, Limiter] = {}
        self._waiting: deque[_Told | _Firing] = deque()
        self._at_work: Iterator[None] | None = None
        self._turn_call: IDelayedCall | None = None
        self._delayed: set[IDelayedCall] = set()
        self._intervals: dict[str, IDelayedCall] = {}

    # Door

    def begin(self) -> None:
        """See ``Watching``: reads the file."""
        if not self._is_read:
            self._rules, self._identity = self._read()
            self._is_read = True
            self._begin()
            self._log()

    def open(self, _tls: ServerTls | None) -> None:
        """See ``Door``; does nothing, since there is no port."""

    def close(self) -> Deferred[Any]:
        """See ``Door``: stops all actions, delayed ones included."""
        self._is_closed = True
        self._end("the relay is stopping")
        return succeed(None)

    def started(self, _port: int | None) -> None:
        """See ``Door``; does nothing, since ``begin`` has logged it."""

    def reload(self) -> None:
        """See ``Reloading``. Delayed actions are dropped, and the sides of thresholds are forgotten."""
        try:
            rules, identity = self._read()
        except StartError as error:
            events.RULES_NOT_RELOADED.log(reason=str(error))
            return
        self._end("the rules were read again")
        self._rules, self._identity = rules, identity
        self._begin()
        self._log()

    def act_in(self, relay: Relay) -> None:
        """See ``AtDecider``. Intervals begin again; another relay's thresholds and delayed actions are dropped."""
        self.rest()
        self._relay = relay
        self._begin()

    def rest(self) -> None:
        """See ``AtDecider``."""
        self._end("another relay decides")
        self._relay = None

    def _read(self) -> tuple[Rules, Identity]:
        rules = load_rules(self._path)
        try:
            return rules, self._identity_of(rules.scopes)
        except ValueError as error:
            raise StartError(f"--rules: {self._path}: scopes: {error}") from error

    def _begin(self) -> None:
        """Begins to act, if there is a core."""
        relay, rules = self._relay, self._rules
        if relay is None or self._is_closed:
            return
        session = self._session = relay.connect(_Outbox(self._take, self._lose), "", self._codec)
        session.door, session.name, session.hears_itself = self._count.door, "rules", True
        session.identity = self._identity
        relay.admit(session)
        session.limiter = None  # each rule has one of its own
        self._zones = {}
        now_us = relay.clock.now_us()
        self._limiters = {rule.id: Limiter(ACTIONS_PER_SECOND, ACTIONS_PER_SECOND, now_us) for rule in rules.rules}
        watched: dict[str, int] = {}
        for rule in rules.rules:
            trigger = rule.trigger
            if trigger.pattern is None:
                self._wait_for(rule)
                continue
            signal = Signal.EVENT if trigger.kind == "OnEvent" else Signal.PARAM
            watched[trigger.pattern.text] = watched.get(trigger.pattern.text, 0) | 1 << signal
            param = relay.params.get(trigger.pattern.text)
            if trigger.kind == "OnThreshold" and param is not None:
                self._note_zone(rule, param.value)
        self._codec.rule = "the subscription"
        for number, (pattern, types) in enumerate(watched.items()):
            relay.accept(session, Subscribe(number, pattern, types), 0)

    def _end(self, cause: str) -> None:
        session, self._session = self._session, None
        for call in (*self._delayed, *self._intervals.values(), self._turn_call):
            if call is not None and call.active():
                call.cancel()
        self._delayed.clear()
        self._intervals.clear()
        self._waiting.clear()
        self._known.clear()
        self._turn_call = self._at_work = None
        if session is not None:
            self._core.disconnect(session, cause)

    @property
    def _core(self) -> Relay:
        assert self._relay is not None, "a rule acts without a core"
        return self._relay

    def _lose(self, reason: str) -> None:
        """Stops all rules until the file is read again, since the core has ended the session."""
        self._leave_out("all", f"the session of the rules has ended: {reason}")
        self._end(reason)

    def _log(self) -> None:
        events.RULES_LOADED.log(count=len(self._rules.rules), disabled=self._rules.disabled, path=str(self._path))

    # Triggers

    def _take(self, told: _Told | _Refused) -> None:
        if isinstance(told, _Refused):
            self._leave_out(told.rule, told.reason)
        else:
            self._put(told)

    def _put(self, item: _Told | _Firing) -> None:
        if self._session is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._leave_out("all", f"more than {MAX_WAITING} changes wait for their rules")
            return
        self._waiting.append(item)
        if self._turn_call is None:
            self._turn_call = self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        """Runs rules for a while; the rest waits for the next turn."""
        self._turn_call = None
        end_s = share_end_s(self._reactor, TURN_S)
        while self._session is not None and self._reactor.seconds() <= end_s:
            if self._session.is_busy:
                # A rule's write waits for a long bundle; its effects must still be counted as caused by that rule.
                break
            self._codec.depth = 0
            if self._at_work is None:
                if not self._waiting:
                    return
                self._at_work = self._steps(self._waiting.popleft())
            try:
                next(self._at_work)
            except StopIteration:
                self._at_work = None
            except Exception:
                self._at_work = None
                events.RULE_FAULT.failure()
        if self._session is not None:
            self._turn_call = self._reactor.callLater(0, self._turn)

    def _steps(self, item: _Told | _Firing) -> Iterator[None]:
        """Yields after each action."""
        if isinstance(item, _Firing):
            yield from self._act(item)
            return
        for rule in self._watching(item.address, item.is_event):
            if self._is_triggered(rule, item):
                yield from self._act(_Firing(rule, rule.actions, item.value, item.depth))

    def _watching(self, address: str, is_event: bool) -> tuple[Rule, ...]:
        found = self._known.get((address, is_event))
        if found is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = self._known[address, is_event] = tuple(
                rule
                for rule in self._rules.rules
                if rule.trigger.pattern is not None
                and (rule.trigger.kind == "OnEvent") is is_event
                and rule.trigger.pattern.matches(address)
            )
        return found

    def _is_triggered(self, rule: Rule, told: _Told) -> bool:
        if rule.trigger.kind != "OnThreshold":
            return True
        before = self._zones.get(rule.id)
        zone = self._note_zone(rule, told.value)
        return bool(zone) and before is not None and zone != before

    def _note_zone(self, rule: Rule, value: Value | None) -> int | None:
        zone = None if value is None else rule.trigger.zone(decode_value(value))
        if zone is not None:
            self._zones[rule.id] = zone
        return zone

    def _wait_for(self, rule: Rule) -> None:
        """Runs a rule at its interval."""

        def act() -> None:
            self._wait_for(rule)
            self._put(_Firing(rule, rule.actions, None, 0))

        self._intervals[rule.id] = self._reactor.callLater(rule.trigger.seconds, act)

    # Actions

    def _act(self, firing: _Firing) -> Iterator[None]:
        rule = firing.rule
        if firing.is_new and not self._may_act(firing):
            return
        for at, action in enumerate(firing.actions):
            if action.kind == "Delay":
                self._delay(action.delay_s, firing._replace(actions=firing.actions[at + 1 :], is_new=False))
                return
            if not self._limiters[rule.id].take(1, self._core.clock.now_us()):
                self._leave_out(rule.id, f"it did more than {ACTIONS_PER_SECOND} actions in a second")
                return
            self._do(rule, action, firing)
            yield

    def _may_act(self, firing: _Firing) -> bool:
        rule = firing.rule
        for condition in rule.conditions:
            param = self._core.params.get(condition.address)
            if param is None or not condition.holds(decode_value(param.value)):
                return False
        if firing.depth >= MAX_DEPTH:
            self._leave_out(rule.id, f"{MAX_DEPTH} rules in a row led to it: they seem to trigger each other")
            return False
        if rule.cooldown_s:
            now_s = self._reactor.seconds()
            if now_s - self._acted_s.get(rule.id, -rule.cooldown_s) < rule.cooldown_s:
                return False
            self._acted_s[rule.id] = now_s
        self._count.messages += 1
        return True

    def _do(self, rule: Rule, action: Action, firing: _Firing) -> None:
        message: Message
        if action.kind == "Publish":
            message = Publish(action.address, action.signal, value=action.value)
        elif action.kind == "Set":
            assert action.value is not None, "a Set without a value"
            message = Set(action.address, action.value)
        else:
            if firing.value is None:
                return  # an event without a value
            try:
                value = encode_value(action.transform.transformed(decode_value(firing.value)))
            except (ValueError, OverflowError) as error:
                self._leave_out(rule.id, str(error))
                return
            message = Set(action.address, value)
        assert self._session is not None, "a rule acts without a session"
        session, codec = self._session, self._codec
        codec.rule, codec.depth = rule.id, firing.depth + 1
        try:
            self._core.accept(session, message, 0)
        finally:
            if not session.is_busy:
                codec.depth = 0

    def _delay(self, delay_s: float, rest: _Firing) -> None:
        if len(self._delayed) >= MAX_DELAYED:
            self._leave_out(rest.rule.id, f"{MAX_DELAYED} delays have not ended")
            return

        call: IDelayedCall

        def go_on() -> None:
            nonlocal call
            self._delayed.discard(call)
            # The reactor's call holds this function, also afterwards: they would be a reference cycle.
            del call
            self._put(rest)

        call = self._reactor.callLater(delay_s, go_on)
        self._delayed.add(call)

    def _leave_out(self, rule: str, reason: str) -> None:
        self._count.refused += 1
        self._tell_refused(rule, reason)
