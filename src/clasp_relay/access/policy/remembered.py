"""Which writes were found to pass by the params alone, so that the next one need only be asked for its value."""

from __future__ import annotations

from typing import TypeAlias

from clasp_relay.access.policy.checks import Check
from clasp_relay.access.policy.document import WriteRule
from clasp_relay.access.policy.question import Question
from clasp_relay.core.rights.memory import Dependents

MAX_REMEMBERED = 20_000
"""How many answers are kept (about 1 kB each); then all are forgotten."""

MAX_KEY_LENGTH = 512
"""Longer captures are decided anew, so that what is kept stays small."""

Key: TypeAlias = tuple[int, str, tuple[str, ...]]
"""Rule, writer, and what the rule's path captured."""


class RememberedWrites:
    """The writes that pass, until something changes that was looked up for the answer.

    Only rules that count no failures, stamp nothing and keep nothing are remembered: the others have more to do
    than to answer. With mode ``any`` a check of the value may be what let the write through, so those are
    remembered only when no check looks at the value.

    Args:
        rules: the write rules.
    """

    def __init__(self, rules: tuple[WriteRule, ...]) -> None:
        self._value_checks = [_checks_of_value(rule) for rule in rules]
        self._until_us: dict[Key, int | None] = {}
        self._dependents: Dependents[Key] = Dependents()

    def checks_left(self, key: Key, now_us: int) -> tuple[Check, ...] | None:
        """Returns the checks of the value that a write still has to pass; None when it has to pass all there are."""
        until_us = self._until_us.get(key, 0)
        if until_us is not None and until_us <= now_us:
            self._until_us.pop(key, None)
            return None
        return self._value_checks[key[0]]

    def passes(self, key: Key, question: Question) -> bool:
        """Tells whether a write surely passes; False when that has to be found out."""
        checks = self.checks_left(key, question.now_us)
        if checks is None:
            return False
        for check in checks:  # noqa: SIM110 - a generator costs more than the checks
            if not check.passes(question):
                return False
        return True

    def note(self, rule: WriteRule, key: Key, question: Question) -> None:
        """Keeps that a write passed all checks of a rule."""
        if self._value_checks[rule.number] is None or sum(map(len, key[2])) > MAX_KEY_LENGTH:
            return
        if len(self._until_us) >= MAX_REMEMBERED:
            self._until_us.clear()
            self._dependents.clear()
        self._until_us[key] = question.until_us
        by_existence = question.looked_up.keys() - question.by_value
        self._dependents.add(key, question.by_value, by_existence, question.patterns)

    def changed(self, address: str, exists: bool, existed: bool) -> None:
        """Forgets the answers that looked at an address which has changed."""
        for key in self._dependents.changed(address, exists, existed):
            self._until_us.pop(key, None)


def _checks_of_value(rule: WriteRule) -> tuple[Check, ...] | None:
    """Returns the checks that have to be asked every time; None when the rule cannot be remembered."""
    if rule.failures is not None or rule.stamp is not None or rule.keep_hidden:
        return None
    found = tuple(check for check in (*rule.pre_checks, *rule.checks) if check.reads_value)
    return None if rule.is_any and found else found
