"""Scopes: which addresses a token may read and write.

A scope is ``action:pattern``. ``write`` implies reading one address with GET, but not subscribing: that
takes a ``read`` (or ``admin``) scope that covers all that the subscription's pattern can match, decided
by segments (``docs/policy.md``, Scopes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern

ACTIONS = ("read", "write", "admin")

USER_ID = "{userId}"
"""The placeholder for the token's subject in a scope template."""

UNRESTRICTED = ("read:/**", "write:/**")
"""The scopes of a token when there is no policy."""

ANONYMOUS = "clasp.anon."
"""The start of the subject of a session without a token; its id follows. No user's id has a dot."""

_UNSAFE_IN_ID = re.compile(r"[/*{}]")


def check_template(template: str) -> None:
    """Checks one scope template as a policy gives it.

    Raises:
        ValueError: it is not a scope, or holds braces other than ``{userId}``.
    """
    if re.search(r"[{}]", template.replace(USER_ID, "")):
        raise ValueError(f"the only placeholder of a scope is {USER_ID}")
    _split(template.replace(USER_ID, "x"))


def expand(templates: Iterable[str], user_id: str) -> tuple[str, ...]:
    """Returns the scopes of one user.

    Args:
        templates: scopes that may hold ``{userId}``.
        user_id: the token's subject.

    Raises:
        ValueError: the id could stand for more than one segment of an address.
    """
    if not user_id or _UNSAFE_IN_ID.search(user_id):
        raise ValueError(f"{user_id!r} cannot be an id in a scope")
    return tuple(template.replace(USER_ID, user_id) for template in templates)


@lru_cache(1024)
def _split(scope: str) -> tuple[str, Pattern]:
    action, colon, text = scope.partition(":")
    if not colon or action not in ACTIONS:
        raise ValueError(f"a scope is action:pattern, the action one of {', '.join(ACTIONS)}")
    try:
        return action, Pattern.parse(text)
    except RequestError as error:
        raise ValueError(error.message) from None


@dataclass(frozen=True, slots=True)
class Scopes:
    """What one token may do. Make it with :meth:`parse`.

    Args:
        read: patterns of its ``read`` scopes.
        write: patterns of its ``write`` scopes.
        admin: patterns of its ``admin`` scopes, which allow all.
    """

    read: tuple[Pattern, ...] = ()
    write: tuple[Pattern, ...] = ()
    admin: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, scopes: Iterable[str]) -> Scopes:
        """Parses the scopes of a token.

        Raises:
            ValueError: one of them is no scope.
        """
        found: dict[str, list[Pattern]] = {action: [] for action in ACTIONS}
        for scope in scopes:
            action, pattern = _split(scope)
            found[action].append(pattern)
        return cls(tuple(found["read"]), tuple(found["write"]), tuple(found["admin"]))

    @property
    def texts(self) -> tuple[str, ...]:
        """The scopes as ``action:pattern``."""
        by_action = (self.read, self.write, self.admin)
        return tuple(
            f"{action}:{scope.text}" for action, some in zip(ACTIONS, by_action, strict=True) for scope in some
        )

    def can_write(self, address: str) -> bool:
        """Tells whether a SET or PUBLISH to an address is within the scopes."""
        return any(scope.matches(address) for scope in self.write) or self.is_admin(address)

    def can_get(self, address: str) -> bool:
        """Tells whether a GET of an address is within the scopes; ``write`` is enough for it."""
        return self.can_read(address) or self.can_write(address)

    def can_read(self, address: str) -> bool:
        """Tells whether an address is within a ``read`` or ``admin`` scope."""
        return any(scope.matches(address) for scope in self.read) or self.is_admin(address)

    def can_subscribe(self, pattern: Pattern) -> bool:
        """Tells whether one ``read`` or ``admin`` scope covers all that a pattern can match."""
        return any(scope.covers(pattern) for scope in self.read) or any(scope.covers(pattern) for scope in self.admin)

    def can_write_all(self, pattern: Pattern) -> bool:
        """Tells whether one ``write`` or ``admin`` scope covers all that a pattern can match."""
        return any(scope.covers(pattern) for scope in (*self.write, *self.admin))

    def is_admin(self, address: str) -> bool:
        """Tells whether an address is within an ``admin`` scope."""
        return bool(self.admin) and any(scope.matches(address) for scope in self.admin)

    @property
    def is_admin_everywhere(self) -> bool:
        """Whether an ``admin`` scope holds every address."""
        return any(scope.text == "/**" for scope in self.admin)
