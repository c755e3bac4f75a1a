"""Checks of the value: the one that is written, or for a reader the one that is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clasp_relay.access.policy.checks.base import Check, Scalar
from clasp_relay.access.policy.language.captures import Template
from clasp_relay.access.policy.language.maps import holds, is_map, same, text_of
from clasp_relay.access.policy.language.question import Question
from clasp_relay.wire.messages import NULL


@dataclass(frozen=True, slots=True)
class ValueNull(Check):
    """The value is null: a delete."""

    kind: ClassVar[str] = "value_null"

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.value == NULL


@dataclass(frozen=True, slots=True)
class ValueIsMap(Check):
    """The value is a map."""

    kind: ClassVar[str] = "value_is_map"

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return is_map(question.value)

    def refusal(self, question: Question) -> str:  # noqa: ARG002
        """Returns what a refused writer reads."""
        return "the value must be a map"


@dataclass(frozen=True, slots=True)
class _FieldCheck(Check):
    field: bytes

    @property
    def value_keys(self) -> tuple[bytes, ...]:
        """The one key."""
        return (self.field,)


@dataclass(frozen=True, slots=True)
class ValueFieldEqualsSession(_FieldCheck):
    """A field of the value is the subject."""

    kind: ClassVar[str] = "value_field_equals_session"

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.value_field(self.field) == question.text

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"{self.field.decode()!r} in the value must be your id, {question.subject!r}"


@dataclass(frozen=True, slots=True)
class RequireValueField(_FieldCheck):
    """A field of the value is a string."""

    kind: ClassVar[str] = "require_value_field"

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return text_of(question.value_field(self.field)) is not None

    def refusal(self, question: Question) -> str:  # noqa: ARG002
        """Returns what a refused writer reads."""
        return f"the value must have a string {self.field.decode()!r}"


@dataclass(frozen=True, slots=True)
class ValueFieldMissingOrSession(_FieldCheck):
    """A field of the value is missing, or is the subject."""

    kind: ClassVar[str] = "value_field_missing_or_session"

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        field = question.value_field(self.field)
        return field is None or field == question.text

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"{self.field.decode()!r} in the value must be your id, {question.subject!r}, or be left out"


@dataclass(frozen=True, slots=True)
class ValueFieldHasSession(_FieldCheck):
    """A field is a map with the subject as a key, or a list with it as an item."""

    kind: ClassVar[str] = "value_field_has_session"
    allow_if_missing: bool

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        field = question.value_field(self.field)
        return self.allow_if_missing if field is None else holds(field, question.word)


@dataclass(frozen=True, slots=True)
class ValueFieldEquals(_FieldCheck):
    """A field of the value equals a given value."""

    kind: ClassVar[str] = "value_field_equals"
    value: Scalar

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return self.value.equals(question.value_field(self.field), question.words)


@dataclass(frozen=True, slots=True)
class ValueFieldEqualsStateField(_FieldCheck):
    """A field of the value equals a stored field; a missing field fails."""

    kind: ClassVar[str] = "value_field_equals_state_field"
    lookup: Template
    state_field: bytes

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """The key of the stored map."""
        return ((self.lookup, self.state_field),)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        one = question.value_field(self.field)
        other = question.field(question.at(self.lookup), self.state_field)
        return one is not None and other is not None and same(one, other)

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads; it does not tell the stored value."""
        stored = f"{self.state_field.decode()!r} of {question.at(self.lookup)}"
        return f"{self.field.decode()!r} in the value does not equal {stored}"
