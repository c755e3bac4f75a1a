"""Strict access to the objects of a JSON document: every error names the path of the key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any, NoReturn

from clasp_relay.errors import StartError

_MISSING: Any = object()
_KINDS = {str: "a string", bool: "true or false", int: "a whole number", list: "a list", dict: "an object"}


class Keys:
    """One object of the document. Its keys are read by name and type; :meth:`done` refuses unknown keys.

    Args:
        value: the decoded JSON.
        where: the path of its key, empty for the document itself.
        source: the document's name in error messages.
    """

    def __init__(self, value: object, where: str, source: str) -> None:
        self.where = where
        self.source = source
        if not isinstance(value, dict):
            self.fail("", f"must be {_KINDS[dict]}")
        self.values: dict[str, object] = value
        self._taken: dict[str, None] = {}

    def fail(self, key: str, problem: str) -> NoReturn:
        """Refuses the document.

        Args:
            key: the key below this object, empty for the object itself.
            problem: what is wrong, as a predicate.

        Raises:
            StartError: always.
        """
        place = self.path(key)
        raise StartError(f"{self.source}: {place}: {problem}" if place else f"{self.source}: {problem}")

    def path(self, key: str) -> str:
        """Returns the path of a key, as messages show it."""
        return f"{self.where}.{key}" if self.where and key else self.where or key

    def has(self, key: str) -> bool:
        """Tells whether a key is given."""
        return key in self.values

    def raw(self, key: str, default: Any = _MISSING) -> Any:
        """Returns the value of a key, of any type."""
        self._taken[key] = None
        value = self.values.get(key, default)
        if value is _MISSING:
            self.fail(key, "is missing")
        return value

    def text(self, key: str, default: str | None = _MISSING) -> str:
        """Returns a string that is not empty."""
        value = self._typed(key, str, default)
        if value == "" and self.has(key):
            self.fail(key, "must not be empty")
        return str(value)

    def optional_text(self, key: str) -> str | None:
        """Returns a string, None when the key is not given."""
        return self.text(key) if self.taken_if_given(key) else None

    def taken_if_given(self, key: str) -> bool:
        """Marks a key as known and tells whether it is given."""
        self._taken[key] = None
        return self.has(key)

    def flag(self, key: str, default: bool = _MISSING) -> bool:
        """Returns true or false."""
        return bool(self._typed(key, bool, default))

    def whole(self, key: str, default: int = _MISSING, least: int = 1, most: int = 2**31 - 1) -> int:
        """Returns a whole number within bounds."""
        value = int(self._typed(key, int, default))
        if not least <= value <= most:
            self.fail(key, f"must be from {least} to {most}")
        return value

    def number(self, key: str, default: float = _MISSING, above: float = 0.0) -> float:
        """Returns a number that is greater than a bound."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(key, "must be a number")
        if not above < value < float("inf"):
            self.fail(key, f"must be more than {above:g}")
        return float(value)

    def choice(self, key: str, choices: Iterable[str], default: str = _MISSING) -> str:
        """Returns a string that must be one of some choices."""
        value = self._typed(key, str, default)
        choices = tuple(choices)
        if value not in choices:
            self.fail(key, f"must be one of {', '.join(choices)}{_meant(str(value), choices)}")
        return str(value)

    def texts(self, key: str, default: list[str] = _MISSING) -> list[str]:
        """Returns a list of strings that are not empty."""
        items = self._typed(key, list, default)
        for n, item in enumerate(items):
            if not isinstance(item, str) or not item:
                self.fail(f"{key}[{n}]", "must be a string that is not empty")
        return list(items)

    def below(self, key: str) -> Keys:
        """Returns an object below this one."""
        return Keys(self.raw(key), self.path(key), self.source)

    def objects(self, key: str, default: list[object] = _MISSING) -> list[Keys]:
        """Returns a list of objects."""
        items = self._typed(key, list, default)
        return [Keys(item, self.path(f"{key}[{n}]"), self.source) for n, item in enumerate(items)]

    def done(self) -> None:
        """Refuses keys that were not read."""
        for key in self.values:
            if key not in self._taken:
                known = ", ".join(sorted(self._taken))
                self.fail(key, f"is not known here{_meant(key, self._taken)} (known: {known})")

    def _typed(self, key: str, kind: type, default: Any) -> Any:
        value = self.raw(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(key, f"must be {_KINDS[kind]}")
        return value


def parse_json(text: str, source: str) -> Any:
    """Decodes JSON; refuses a key that is given twice and numbers that JSON does not have.

    Raises:
        StartError: the text is no JSON.
    """

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in items:
            if key in found:
                raise StartError(f"{source}: the key {key!r} is given twice in one object")
            found[key] = value
        return found

    def no_number(word: str) -> NoReturn:
        raise StartError(f"{source}: {word} is no JSON number")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise StartError(f"{source}: a string holds half of a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise StartError(f"{source}: not valid JSON: {error}") from None
    return value


def _meant(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
