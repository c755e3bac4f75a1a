"""Checks that look at what is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from clasp_relay.access.policy.checks.base import Check, CheckParser, Scalar
from clasp_relay.access.policy.language.captures import Template
from clasp_relay.access.policy.language.maps import holds, same, text_of
from clasp_relay.access.policy.language.question import Question

VALUE = "value"
"""The name by which the lookup of ``state_not_null_at_value_field`` uses the field."""

_NO_SEGMENT = re.compile(r"[/*]")
"""Characters that make a text more than one segment, or a pattern."""


@dataclass(frozen=True, slots=True)
class StateFieldEqualsSession(Check):
    """A field of a stored map is the subject. With ``allow_if_missing`` it also passes when nothing is stored."""

    kind: ClassVar[str] = "state_field_equals_session"
    lookup: Template
    field: bytes
    allow_if_missing: bool

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """The one key."""
        return ((self.lookup, self.field),)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        address = question.at(self.lookup)
        if self.allow_if_missing and question.param(address) is None:
            return True
        return question.field(address, self.field) == question.text

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"only the user in {self.field.decode()!r} of {question.at(self.lookup)} may do this"


@dataclass(frozen=True, slots=True)
class StateNotNull(Check):
    """Something is set at an address."""

    kind: ClassVar[str] = "state_not_null"
    looks_at_existence: ClassVar[bool] = True
    lookup: Template

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.is_set(question.at(self.lookup))

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"nothing is set at {question.at(self.lookup)}"


@dataclass(frozen=True, slots=True)
class StateNull(Check):
    """Nothing is set at an address."""

    kind: ClassVar[str] = "state_null"
    looks_at_existence: ClassVar[bool] = True
    lookup: Template

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return not question.is_set(question.at(self.lookup))

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"{question.at(self.lookup)} is set"


@dataclass(frozen=True, slots=True)
class StateNotNullAtValueField(Check):
    """Something is set at an address of which the written value names one segment. In write rules only.

    The field has to be a text that can be one segment: any other would make an address that the lookup does not mean.
    """

    kind: ClassVar[str] = "state_not_null_at_value_field"
    about_writer: ClassVar[bool] = True
    field: bytes
    lookup: str
    place: Template

    @classmethod
    def parse(cls, parser: CheckParser) -> Check:
        """Parses the keys; in the lookup ``{value}`` stands for the field."""
        if VALUE in parser.names:
            parser.keys.fail("lookup", f"{{{VALUE}}} is the field of the value; capture the segment by another name")
        return cls(
            parser.keys.text("field").encode(),
            parser.keys.text("lookup"),
            parser.with_name(VALUE).lookup("lookup"),
        )

    @property
    def value_keys(self) -> tuple[bytes, ...]:
        """The one key."""
        return (self.field,)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        text = text_of(question.value_field(self.field))
        if not text or _NO_SEGMENT.search(text):
            return False
        return question.is_set(self.place.expand((*question.words[:-1], text, question.subject)))

    def refusal(self, question: Question) -> str:  # noqa: ARG002
        """Returns what a refused writer reads."""
        return f"nothing is set at {self.lookup}, with {self.field.decode()!r} of the value for {{{VALUE}}}"


@dataclass(frozen=True, slots=True)
class EitherStateNotNull(Check):
    """Something is set at one of two addresses."""

    kind: ClassVar[str] = "either_state_not_null"
    looks_at_existence: ClassVar[bool] = True
    lookup_a: Template
    lookup_b: Template

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        if question.is_set(question.at(self.lookup_a)):
            return True
        return question.is_set(question.at(self.lookup_b))


@dataclass(frozen=True, slots=True)
class StateFieldMissing(Check):
    """A field is missing or null: nothing is stored, it is no map, or it has no such key."""

    kind: ClassVar[str] = "state_field_missing"
    lookup: Template
    field: bytes

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """The one key."""
        return ((self.lookup, self.field),)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.field(question.at(self.lookup), self.field) is None


@dataclass(frozen=True, slots=True)
class StateFieldHasSession(Check):
    """A field is a map with the subject as a key, or a list with it as an item."""

    kind: ClassVar[str] = "state_field_has_session"
    lookup: Template
    field: bytes

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """The one key."""
        return ((self.lookup, self.field),)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return holds(question.field(question.at(self.lookup), self.field), question.word)


@dataclass(frozen=True, slots=True)
class StateFieldEquals(Check):
    """A field equals a given value."""

    kind: ClassVar[str] = "state_field_equals"
    lookup: Template
    field: bytes
    value: Scalar

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """The one key."""
        return ((self.lookup, self.field),)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return self.value.equals(question.field(question.at(self.lookup), self.field), question.words)


@dataclass(frozen=True, slots=True)
class StateFieldsEqual(Check):
    """Two stored fields are equal; a missing field fails."""

    kind: ClassVar[str] = "state_fields_equal"
    lookup_a: Template
    field_a: bytes
    lookup_b: Template
    field_b: bytes

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """Both keys."""
        return ((self.lookup_a, self.field_a), (self.lookup_b, self.field_b))

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        one = question.field(question.at(self.lookup_a), self.field_a)
        other = question.field(question.at(self.lookup_b), self.field_b)
        return one is not None and other is not None and same(one, other)
