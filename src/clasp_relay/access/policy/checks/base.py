"""The base of all checks and their parser. Each kind is a dataclass whose fields are its keys in a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

from clasp_relay.access.policy.language.captures import Captured, Path, Template
from clasp_relay.access.policy.language.json_keys import Keys
from clasp_relay.access.policy.language.maps import encode_text, same
from clasp_relay.access.policy.language.question import Question
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES
from clasp_relay.wire.messages import NULL, Value
from clasp_relay.wire.values import decode_value, encode_value


class Lookup(NamedTuple):
    """An address that a check looks up."""

    template: Template
    by: type[Check]


@runtime_checkable
class Fillable(Protocol):
    """Text with placeholders for captures."""

    def expand(self, words: Captured) -> str:
        """Returns the text with the captures filled in."""


class Check:
    """A condition on a write or on a reader. Every kind is a frozen dataclass of its keys."""

    __slots__ = ()
    kind: ClassVar[str]
    """Its ``type`` in a document."""
    looks_at_existence: ClassVar[bool] = False
    """Whether it reads only whether something is set, and no values."""

    about_writer: ClassVar[bool] = False
    """Whether it asks what is known of writers only, and not of readers, so that it is for write rules only."""

    takes_wildcards: ClassVar[bool] = False
    """Whether its lookups may be patterns."""

    @classmethod
    def parse(cls, parser: CheckParser) -> Check:
        """Parses the keys of the check: one for each field, by the type of the field.

        Raises:
            StartError: a key is missing or wrong.
        """
        found = {field.name: parser.parse_field(field) for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**found)

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        raise NotImplementedError

    def refusal(self, question: Question) -> str:
        """Returns the text of the refusal that the writer reads, if the rule has no message of its own."""
        return f"this needs {self.describe(question.words)}"

    @property
    def inner(self) -> tuple[Check, ...]:
        """The checks that it combines."""
        return ()

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """The addresses that it looks up, by itself and through the checks that it combines."""
        own = tuple(
            Lookup(value, type(self))
            for name, value in _keys(self)
            if name.startswith("lookup") and isinstance(value, Template)
        )
        return own + tuple(lookup for check in self.inner for lookup in check.lookups)

    @property
    def value_keys(self) -> tuple[bytes, ...]:
        """The keys of the value in question that it looks at, by itself and through the checks that it combines."""
        return tuple(key for check in self.inner for key in check.value_keys)

    @property
    def state_keys(self) -> tuple[tuple[Template, bytes], ...]:
        """The keys of stored maps that it looks at, each with the lookup of the map; as for ``value_keys``."""
        return tuple(found for check in self.inner for found in check.state_keys)

    def describe(self, words: Captured) -> str:
        """Returns type and keys with the captures filled in, for people."""
        said = (f"{name}={_show(value, words)}" for name, value in _keys(self) if value is not False)
        return f"{self.kind}({', '.join(said)})"


def _keys(check: Check) -> list[tuple[str, object]]:
    found = ((field.name, getattr(check, field.name)) for field in fields(check))  # type: ignore[arg-type]
    return [(name, value) for name, value in found if not isinstance(value, (Check, tuple)) and name != "place"]


def _show(value: object, words: Captured) -> str:
    if isinstance(value, Fillable):
        return value.expand(words)
    if isinstance(value, Path):
        return value.text
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Scalar:
    """What a check compares a field with: text with captures, a number, true, false or null.

    Args:
        template: the text; None for anything else.
        value: what is not text.
    """

    template: Template | None
    value: Value = NULL

    def expand(self, words: Captured) -> str:
        """Returns it as text for people, with the captures filled in."""
        return json.dumps(decode_value(self.value)) if self.template is None else self.template.expand(words)

    def equals(self, field: Value | None, words: Captured) -> bool:
        """Tells whether a field equals it; a missing field equals null."""
        found = NULL if field is None else field
        if self.template is None:
            return same(found, self.value)
        text = self.template.expand(words).encode()
        return len(text) <= MAX_PAYLOAD_BYTES and found == encode_text(text)


ParseCheck: TypeAlias = Callable[[Keys, tuple[str, ...]], Check]
"""Parses one check: its keys, and the names that lookups may use."""


class CheckParser:
    """Parses the keys of one check.

    Args:
        keys: the keys.
        names: the captures that lookups may use.
        parse_check: parses a check inside this one.
        takes_wildcards: whether lookups may be patterns.
    """

    def __init__(self, keys: Keys, names: tuple[str, ...], parse_check: ParseCheck, takes_wildcards: bool) -> None:
        self.keys = keys
        self.names = names
        self._parse_check = parse_check
        self._takes_wildcards = takes_wildcards
        self._parsers: dict[str, Callable[[str], object]] = {
            "Template": self.lookup,
            "bytes": lambda key: keys.text(key).encode(),
            "bool": lambda key: keys.flag(key, False),
            "float": lambda key: keys.number(key, 0.0, above=-1e-9),
            "Path": self.path,
            "Scalar": self._scalar,
            "Check": lambda key: parse_check(keys.below(key), names),
            "tuple[Check, ...]": lambda key: parse_checks(keys, key, names, parse_check),
        }

    def with_name(self, name: str) -> CheckParser:
        """Returns a parser of the same keys, whose lookups may use one more name."""
        return CheckParser(self.keys, (*self.names, name), self._parse_check, self._takes_wildcards)

    def parse_field(self, field: Field[Any]) -> object:
        """Parses the key of a check's field by the type of the field."""
        return self._parsers[str(field.type)](field.name)

    def path(self, key: str) -> Path:
        """Parses a path."""
        try:
            return Path.parse(self.keys.text(key))
        except ValueError as error:
            self.keys.fail(key, str(error))

    def capture(self, key: str) -> int:
        """Returns the index of a capture that is given by name."""
        name = self.keys.text(key)
        if name not in self.names:
            captured = ", ".join(self.names) or "nothing"
            self.keys.fail(key, f"{name!r} is not captured by the path (it captures {captured})")
        return self.names.index(name)

    def _template(self, key: str) -> Template:
        try:
            return Template.parse(self.keys.text(key), self.names)
        except ValueError as error:
            self.keys.fail(key, str(error))

    def lookup(self, key: str) -> Template:
        """Parses a template that makes an address."""
        template = self._template(key)
        try:
            template.check_address(self._takes_wildcards)
        except ValueError as error:
            self.keys.fail(key, str(error))
        return template

    def _scalar(self, key: str) -> Scalar:
        raw = self.keys.raw(key)
        if isinstance(raw, str):
            return Scalar(self._template(key))
        if isinstance(raw, (list, dict)):
            self.keys.fail(key, "must be a string, a number, true, false or null")
        try:
            return Scalar(None, encode_value(raw))
        except ValueError as error:
            self.keys.fail(key, str(error))


def parse_checks(
    keys: Keys, key: str, names: tuple[str, ...], parse_check: ParseCheck, *, may_be_empty: bool = False
) -> tuple[Check, ...]:
    """Parses a list of checks.

    Args:
        keys: the object that holds the list.
        key: the key of the list.
        names: the captures that lookups may use.
        parse_check: parses one check.
        may_be_empty: whether the list may be empty or missing.
    """
    found = tuple(parse_check(item, names) for item in (keys.objects(key, []) if may_be_empty else keys.objects(key)))
    if not found and not may_be_empty:
        keys.fail(key, "must hold a check")
    return found
