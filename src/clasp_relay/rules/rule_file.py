"""The rules in a file, as frozen data, parsed strictly and once (``docs/rules.md``).

The Rust relay's spelling names a variant by a key, ``{"OnChange": {"pattern": "/a"}}``; its documentation has a key
``type`` in its place, ``{"type": "on_change", "pattern": "/a"}``. Both are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clasp_relay.errors import RequestError, StartError, cause_text
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.json_values import parse_json, value_from_json
from clasp_relay.wire.messages import Value
from clasp_relay.wire.values import PyValue, decode_value

__all__ = ["Action", "Condition", "Rule", "RuleError", "Rules", "Transform", "Trigger", "load_rules", "parse_rules"]

MAX_RULES = 500
MAX_ACTIONS = 100
"""Actions, and conditions, of a rule."""

MIN_INTERVAL_S = 0.1
LONGEST_S = 86_400.0
"""The longest interval, delay or cooldown: a day."""

_OPERATORS = {
    "==": "Eq",
    "!=": "Ne",
    ">": "Gt",
    ">=": "Gte",
    "<": "Lt",
    "<=": "Lte",
} | {name: name for name in ("Eq", "Ne", "Gt", "Gte", "Lt", "Lte")}
"""The values of a condition's ``op``, and the Rust relay's names of them."""

_SIGNALS = {signal.name.lower(): signal for signal in (Signal.EVENT, Signal.STREAM, Signal.GESTURE, Signal.TIMELINE)}


class RuleError(ValueError):
    """A file has no valid rules; the text says where."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts a rule.

    Attributes:
        kind: ``OnChange``, ``OnThreshold``, ``OnEvent`` or ``OnInterval``.
        pattern: of the addresses that it watches; None for ``OnInterval``.
        above: a threshold is crossed by a value above it; None for no such one.
        below: likewise below.
        seconds: the interval.
    """

    kind: str
    pattern: Pattern | None = None
    above: float | None = None
    below: float | None = None
    seconds: float = 0.0

    def zone(self, value: PyValue) -> int | None:
        """Returns 1 above the threshold, -1 below, 0 elsewhere; None for a value that is no number."""
        if not is_number(value):
            return None
        if self.above is not None and value > self.above:
            return 1
        return -1 if self.below is not None and value < self.below else 0


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the value of a param."""

    address: str
    op: str
    value: PyValue

    def holds(self, found: PyValue) -> bool:
        """Tells whether it holds for a value. Numbers are compared by value; other kinds with their own kind only."""
        comparable = (is_number(found) and is_number(self.value)) or (
            type(found) is type(self.value) and isinstance(found, str | bytes)
        )
        if self.op in ("Eq", "Ne"):
            same = found == self.value and (comparable or type(found) is type(self.value))
            return same is (self.op == "Eq")
        return comparable and _ORDERS[self.op](found, self.value)


@dataclass(frozen=True, slots=True)
class Transform:
    """A conversion of the number that triggered a rule; other values stay as they are."""

    kind: str = "Identity"
    first: float = 0.0
    second: float = 0.0

    def transformed(self, value: PyValue) -> PyValue:
        """Returns the converted value."""
        return _TRANSFORMS[self.kind](value, self.first, self.second) if is_number(value) else value


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a rule.

    Attributes:
        kind: ``Set``, ``Publish``, ``SetFromTrigger`` or ``Delay``.
        address: the address of the SET or PUBLISH.
        value: the value that is set or published; None for a PUBLISH without a value.
        signal: of a PUBLISH.
        transform: of ``SetFromTrigger``.
        delay_s: of ``Delay``: by how many seconds the actions after it are delayed.
    """

    kind: str
    address: str = ""
    value: Value | None = None
    signal: Signal = Signal.EVENT
    transform: Transform = Transform()
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    id: str
    name: str
    trigger: Trigger
    conditions: tuple[Condition, ...]
    actions: tuple[Action, ...]
    cooldown_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """The contents of a file.

    Attributes:
        rules: the enabled rules.
        disabled: the number of disabled rules.
        scopes: the scopes of the rules; None for everything.
    """

    rules: tuple[Rule, ...] = ()
    disabled: int = 0
    scopes: tuple[str, ...] | None = None


def load_rules(path: Path) -> Rules:
    """Reads a file.

    Raises:
        StartError: it cannot be read, or has no valid rules.
    """
    try:
        return parse_rules(path.read_bytes())
    except OSError as error:
        raise StartError(f"--rules: {cause_text(error)}") from error
    except RuleError as error:
        raise StartError(f"--rules: {path}: {error}") from error


def parse_rules(data: bytes) -> Rules:
    """Parses a file's bytes: a list of rules, or an object with ``rules`` and ``scopes``.

    Raises:
        RuleError: it is something else.
    """
    try:
        parsed = parse_json(data)
    except RequestError as error:
        raise RuleError(error.message.removeprefix("the body is ")) from None
    scopes: tuple[str, ...] | None = None
    where = "rules"
    if isinstance(parsed, dict):
        top = _Object(parsed, "the file")
        given = top.take("scopes", _list, None)
        scopes = None if given is None else tuple(_text(each, f"scopes[{at}]") for at, each in enumerate(given))
        parsed = top.take("rules", _list)
        top.end()
    elif not isinstance(parsed, list):
        raise RuleError("neither a list of rules nor an object with «rules»")
    if len(parsed) > MAX_RULES:
        raise RuleError(f"{where}: at most {MAX_RULES} rules")
    found: dict[str, Rule | None] = {}
    for at, each in enumerate(parsed):
        rule, is_enabled = _rule(each, f"{where}[{at}]")
        if rule.id in found:
            raise RuleError(f"{where}[{at}].id: {rule.id!r} is the id of an earlier rule, too")
        found[rule.id] = rule if is_enabled else None
    enabled = tuple(rule for rule in found.values() if rule is not None)
    return Rules(enabled, len(found) - len(enabled), scopes)


_NEEDED: Any = object()


class _Object:
    """The keys of an object, each of which is taken once.

    Args:
        parsed: the parsed value, which should be an object.
        where: its name in errors.
    """

    def __init__(self, parsed: Any, where: str) -> None:
        if not isinstance(parsed, dict):
            raise RuleError(f"{where}: not an object")
        self._left: dict[str, Any] = dict(parsed)
        self.where = where

    def take(self, key: str, parse: Callable[[Any, str], Any], default: Any = _NEEDED) -> Any:
        """Takes a key's value, or a default if it is missing or null."""
        where = f"{self.where}.{key}"
        given = self._left.pop(key, None)
        if given is None:
            if default is _NEEDED:
                raise RuleError(f"{where}: missing")
            return default
        return parse(given, where)

    def take_value(self, key: str) -> Value:
        """Takes a key whose value may be anything."""
        where = f"{self.where}.{key}"
        if key not in self._left:
            raise RuleError(f"{where}: missing")
        return _value(self._left.pop(key), where)

    def has(self, key: str) -> bool:
        """Tells whether a key is left."""
        return key in self._left

    def end(self) -> None:
        """Refuses keys that were not taken: a typing error would change what a rule does."""
        if self._left:
            raise RuleError(f"{self.where}.{next(iter(self._left))}: unknown key")


def _variant(parsed: Any, where: str, known: Mapping[str, Callable[[_Object], Any]]) -> Any:
    """Parses one of several kinds of objects, in either spelling."""
    if isinstance(parsed, str):
        name, rest, inside = parsed, {}, where
    elif isinstance(parsed, dict) and isinstance(parsed.get("type"), str):
        name, rest, inside = parsed["type"], {key: each for key, each in parsed.items() if key != "type"}, where
    elif isinstance(parsed, dict) and len(parsed) == 1:
        ((name, rest),) = parsed.items()
        inside = f"{where}.{name}"
    else:
        raise RuleError(f"{where}: not one of {', '.join(known)}, as a key or as «type»")
    camel = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    if camel not in known:
        raise RuleError(f"{where}: {name!r} is none of {', '.join(known)}")
    keys = _Object(rest, inside)
    result = known[camel](keys)
    keys.end()
    return result


def _rule(parsed: Any, where: str) -> tuple[Rule, bool]:
    keys = _Object(parsed, where)
    rule_id = keys.take("id", _text)
    trigger: Trigger = keys.take("trigger", lambda each, place: _variant(each, place, _TRIGGERS))
    conditions = keys.take("conditions", _list, ())
    actions = keys.take("actions", _list)
    for name, some in (("conditions", conditions), ("actions", actions)):
        if len(some) > MAX_ACTIONS:
            raise RuleError(f"{where}.{name}: at most {MAX_ACTIONS}")
    rule = Rule(
        rule_id,
        keys.take("name", _text, rule_id),
        trigger,
        tuple(_condition(each, f"{where}.conditions[{at}]") for at, each in enumerate(conditions)),
        tuple(_variant(each, f"{where}.actions[{at}]", _ACTIONS) for at, each in enumerate(actions)),
        keys.take("cooldown", _cooldown, 0.0),
    )
    is_enabled = keys.take("enabled", _flag, True)
    keys.end()
    if trigger.kind == "OnInterval" and any(action.kind == "SetFromTrigger" for action in rule.actions):
        raise RuleError(f"{where}.actions: SetFromTrigger has no value to take from OnInterval")
    return rule, is_enabled


def _threshold(keys: _Object) -> Trigger:
    address = keys.take("address", _address)
    above, below = keys.take("above", _number, None), keys.take("below", _number, None)
    if above is None and below is None:
        raise RuleError(f"{keys.where}: neither «above» nor «below»")
    return Trigger("OnThreshold", Pattern.parse(address), above, below)


_TRIGGERS: Mapping[str, Callable[[_Object], Trigger]] = {
    "OnChange": lambda keys: Trigger("OnChange", keys.take("pattern", _pattern)),
    "OnThreshold": _threshold,
    "OnEvent": lambda keys: Trigger("OnEvent", keys.take("pattern", _pattern)),
    "OnInterval": lambda keys: Trigger("OnInterval", seconds=keys.take("seconds", _from(MIN_INTERVAL_S, LONGEST_S))),
}


def _condition(parsed: Any, where: str) -> Condition:
    keys = _Object(parsed, where)
    op = keys.take("op", _text)
    if op not in _OPERATORS:
        raise RuleError(f"{where}.op: {op!r} is none of {', '.join(_OPERATORS)}")
    condition = Condition(keys.take("address", _address), _OPERATORS[op], decode_value(keys.take_value("value")))
    keys.end()
    return condition


def _scale(keys: _Object) -> Transform:
    # The documentation of the Rust relay calls it a factor.
    factor = keys.take("factor" if keys.has("factor") else "scale", _number)
    return Transform("Scale", factor, keys.take("offset", _number, 0.0))


def _between(kind: str) -> Callable[[_Object], Transform]:
    def parse(keys: _Object) -> Transform:
        low, high = keys.take("min", _number), keys.take("max", _number)
        if low > high:
            raise RuleError(f"{keys.where}: min is more than max")
        return Transform(kind, low, high)

    return parse


_TRANSFORM_KINDS: Mapping[str, Callable[[_Object], Transform]] = {
    "Identity": lambda _keys: Transform(),
    "Scale": _scale,
    "Clamp": _between("Clamp"),
    "Threshold": lambda keys: Transform("Threshold", keys.take("value", _number)),
    "Invert": _between("Invert"),
}


def _publish(keys: _Object) -> Action:
    name = keys.take("signal", _text, "event").lower()
    if name not in _SIGNALS:
        raise RuleError(f"{keys.where}.signal: {name!r} is none of {', '.join(_SIGNALS)}")
    value = keys.take_value("value") if keys.has("value") else None
    return Action("Publish", keys.take("address", _address), value, _SIGNALS[name])


def _set_from_trigger(keys: _Object) -> Action:
    transform = keys.take("transform", lambda each, place: _variant(each, place, _TRANSFORM_KINDS), Transform())
    return Action("SetFromTrigger", keys.take("address", _address), transform=transform)


_ACTIONS: Mapping[str, Callable[[_Object], Action]] = {
    "Set": lambda keys: Action("Set", keys.take("address", _address), keys.take_value("value")),
    "Publish": _publish,
    "SetFromTrigger": _set_from_trigger,
    "Delay": lambda keys: Action("Delay", delay_s=keys.take("milliseconds", _from(0, 1000 * LONGEST_S)) / 1000),
}


def _list(given: Any, where: str) -> list[Any]:
    if not isinstance(given, list):
        raise RuleError(f"{where}: not a list")
    return given


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= 4_096:
        raise RuleError(f"{where}: not a text of 1 to 4096 characters")
    return given


def _flag(given: Any, where: str) -> bool:
    if not isinstance(given, bool):
        raise RuleError(f"{where}: neither true nor false")
    return given


def _number(given: Any, where: str) -> float:
    if not is_number(given):
        raise RuleError(f"{where}: not a number")
    number: float = given
    return number


def _from(least: float, most: float) -> Callable[[Any, str], float]:
    def parse(given: Any, where: str) -> float:
        number = _number(given, where)
        if not least <= number <= most:
            raise RuleError(f"{where}: not from {least:g} to {most:.0f}")
        return number

    return parse


def _cooldown(given: Any, where: str) -> float:
    if not isinstance(given, dict):
        return _from(0, LONGEST_S)(given, where)
    keys = _Object(given, where)
    seconds = keys.take("secs", _from(0, LONGEST_S), 0) + keys.take("nanos", _from(0, 999_999_999), 0) / 1e9
    keys.end()
    return float(seconds)


def _address(given: Any, where: str) -> str:
    address = _text(given, where)
    try:
        check_address(address)
    except RequestError as error:
        raise RuleError(f"{where}: {error.message}") from None
    return address


def _pattern(given: Any, where: str) -> Pattern:
    try:
        return Pattern.parse(_text(given, where))
    except RequestError as error:
        raise RuleError(f"{where}: {error.message}") from None


def _value(given: Any, where: str) -> Value:
    try:
        return value_from_json(given)
    except RequestError as error:
        raise RuleError(f"{where}: {error.message}") from None


def is_number(value: object) -> bool:
    """Tells whether a value is a number. Booleans are not, nor are numbers that are not finite or exceed 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64


_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "Gt": lambda found, value: found > value,
    "Gte": lambda found, value: found >= value,
    "Lt": lambda found, value: found < value,
    "Lte": lambda found, value: found <= value,
}

_TRANSFORMS: Mapping[str, Callable[[Any, Any, Any], PyValue]] = {
    "Identity": lambda value, _first, _second: value,
    "Scale": lambda value, scale, offset: value * scale + offset,
    "Clamp": lambda value, low, high: max(low, min(high, value)),
    "Threshold": lambda value, threshold, _: value > threshold,
    "Invert": lambda value, low, high: high - (value - low),
}
