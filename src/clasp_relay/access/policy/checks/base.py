"""What every check is, and how one is read from a document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

from clasp_relay.access.policy.captures import SESSION, Captured, Path, Template
from clasp_relay.access.policy.question import Question
from clasp_relay.access.policy.reader import Keys


class Lookup(NamedTuple):
    """An address that a check looks up."""

    template: Template
    by: type[Check]


@runtime_checkable
class Fillable(Protocol):
    """What captures are filled into."""

    def expand(self, words: Captured) -> str:
        """Returns it filled in."""


class Check:
    """A condition on a write or on a reader. Every kind is a frozen dataclass of its keys."""

    __slots__ = ()
    kind: ClassVar[str]
    """Its ``type`` in a document."""
    looks_at_existence: ClassVar[bool] = False
    """Whether of what it looks up only this counts: whether something is set."""

    @classmethod
    def read(cls, reading: Reading) -> Check:
        """Reads the check's own keys.

        Raises:
            StartError: one is missing or wrong.
        """
        raise NotImplementedError

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        raise NotImplementedError

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads where the rule has no message of its own."""
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

    def describe(self, words: Captured) -> str:
        """Returns type and keys with everything filled in, for people."""
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
class Reading:
    """Where a check is read: its keys, and what its rule captures.

    Args:
        keys: the check's object.
        names: the captures that lookups may use.
        read_check: reads a check inside this one.
    """

    keys: Keys
    names: tuple[str, ...]
    read_check: Callable[[Keys, tuple[str, ...]], Check]

    def template(self, key: str) -> Template:
        """Returns text with captures."""
        try:
            return Template.parse(self.keys.text(key), self.names)
        except ValueError as error:
            self.keys.fail(key, str(error))

    def lookup(self, key: str, *, wildcards: bool = False) -> Template:
        """Returns the template of an address, or of a pattern."""
        template = self.template(key)
        try:
            template.check_address(wildcards)
        except ValueError as error:
            self.keys.fail(key, str(error))
        return template

    def field(self, key: str) -> bytes:
        """Returns the name of a map's field as UTF-8."""
        return self.keys.text(key).encode()

    def place(self, key: str) -> int:
        """Returns the index of a capture that is given by name."""
        name = self.keys.text(key)
        if name not in self.names:
            captured = ", ".join(self.names) or "nothing"
            self.keys.fail(key, f"{name!r} is not captured by the path (it captures {captured})")
        return self.names.index(name)

    def checks(self, key: str) -> tuple[Check, ...]:
        """Returns a list of checks that is not empty."""
        return read_checks(self.keys, key, self.names, self.read_check)


ReadCheck: TypeAlias = Callable[[Keys, tuple[str, ...]], Check]


def read_checks(
    keys: Keys, key: str, names: tuple[str, ...], read_check: ReadCheck, *, may_be_empty: bool = False
) -> tuple[Check, ...]:
    """Reads a list of checks.

    Args:
        keys: the object that holds the list.
        key: where.
        names: what their rule captures.
        read_check: reads one.
        may_be_empty: whether an empty or missing list will do.
    """
    found = tuple(read_check(item, names) for item in (keys.objects(key, []) if may_be_empty else keys.objects(key)))
    if not found and not may_be_empty:
        keys.fail(key, "must hold a check")
    return found


__all__ = ["SESSION", "Check", "ReadCheck", "Reading", "read_checks"]
