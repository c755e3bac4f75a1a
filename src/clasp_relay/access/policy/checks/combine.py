"""Checks that combine others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clasp_relay.access.policy.checks.base import Check
from clasp_relay.access.policy.language.captures import Captured
from clasp_relay.access.policy.language.question import Question


@dataclass(frozen=True, slots=True)
class Not(Check):
    """A check does not hold."""

    kind: ClassVar[str] = "not"
    check: Check

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return not self.check.passes(question)

    @property
    def inner(self) -> tuple[Check, ...]:
        """The one check."""
        return (self.check,)

    def describe(self, words: Captured) -> str:
        """Returns ``not`` and the check, for people."""
        return f"not {self.check.describe(words)}"


@dataclass(frozen=True, slots=True)
class AllOf(Check):
    """Every check holds."""

    kind: ClassVar[str] = "all_of"
    checks: tuple[Check, ...]

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return holds_all(self.checks, question)

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads: the refusal of the first check that fails."""
        return next(check.refusal(question) for check in self.checks if not check.passes(question))

    @property
    def inner(self) -> tuple[Check, ...]:
        """The checks."""
        return self.checks

    def describe(self, words: Captured) -> str:
        """Returns the checks with the captures filled in, for people."""
        return f"all of ({'; '.join(check.describe(words) for check in self.checks)})"


@dataclass(frozen=True, slots=True)
class AnyOf(Check):
    """At least one check holds."""

    kind: ClassVar[str] = "any_of"
    checks: tuple[Check, ...]

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return holds_any(self.checks, question)

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads: why none holds."""
        return any_refusal(self.checks, question)

    @property
    def inner(self) -> tuple[Check, ...]:
        """The checks."""
        return self.checks

    def describe(self, words: Captured) -> str:
        """Returns the checks with the captures filled in, for people."""
        return f"any of ({'; '.join(check.describe(words) for check in self.checks)})"


def holds_all(checks: tuple[Check, ...], question: Question) -> bool:
    """Tells whether every check holds; stops at the first that does not."""
    for check in checks:  # noqa: SIM110 - a generator costs more than the checks
        if not check.passes(question):
            return False
    return True


def holds_any(checks: tuple[Check, ...], question: Question) -> bool:
    """Tells whether a check holds; stops at the first that does."""
    for check in checks:  # noqa: SIM110 - likewise
        if check.passes(question):
            return True
    return False


def any_refusal(checks: tuple[Check, ...], question: Question) -> str:
    """Returns why none of several checks holds, each reason once."""
    return ", or ".join(dict.fromkeys(check.refusal(question) for check in checks))
