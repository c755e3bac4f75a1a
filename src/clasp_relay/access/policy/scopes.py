"""Scopes: which addresses a token may read and write.

A scope is ``action:pattern``. ``write`` implies reading one address with GET, but not subscribing: that
takes a ``read`` (or ``admin``) scope that covers all that the subscription's pattern can match, decided
by segments (``docs/policy.md``, Scopes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_ADDRESS_BYTES

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
    _check_id(user_id)
    return tuple(template.replace(USER_ID, user_id) for template in templates)


def _check_id(user_id: str) -> None:
    if not user_id or _UNSAFE_IN_ID.search(user_id):
        raise ValueError(f"{user_id!r} cannot be an id in a scope")


@lru_cache(1024)
def _split(scope: str) -> tuple[str, Pattern]:
    action, colon, text = scope.partition(":")
    if not colon or action not in ACTIONS:
        raise ValueError(f"a scope is action:pattern, the action one of {', '.join(ACTIONS)}")
    try:
        return action, Pattern.parse(text)
    except RequestError as error:
        raise ValueError(error.message) from None


class Scopes:
    """What one token may do. Make it with ``parse`` or by ``ScopeTemplates``.

    Args:
        read: patterns of its ``read`` scopes.
        write: patterns of its ``write`` scopes.
        admin: patterns of its ``admin`` scopes, which allow all.
        own: the scopes that name its user, which are parsed when no other scope allows what is asked; None for none.
    """

    __slots__ = ("_admin", "_own", "_read", "_write")

    def __init__(
        self,
        read: tuple[Pattern, ...] = (),
        write: tuple[Pattern, ...] = (),
        admin: tuple[Pattern, ...] = (),
        own: _Own | None = None,
    ) -> None:
        self._read = read
        self._write = write
        self._admin = admin
        self._own = own

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

    def of_user(self, own: _Own) -> Scopes:
        """Returns these scopes and those that name a user."""
        return Scopes(self._read, self._write, self._admin, own)

    @property
    def texts(self) -> tuple[str, ...]:
        """The scopes as ``action:pattern``."""
        by_action = (self._read, self._write, self._admin)
        shared = (f"{action}:{scope.text}" for action, some in zip(ACTIONS, by_action, strict=True) for scope in some)
        return (*shared, *(() if self._own is None else self._own.texts))

    def can_write(self, address: str) -> bool:
        """Tells whether a SET or PUBLISH to an address is within the scopes."""
        return (
            any(scope.matches(address) for scope in self._write)
            or any(scope.matches(address) for scope in self._admin)
            or (self._own is not None and self._own.scopes.can_write(address))
        )

    def can_get(self, address: str) -> bool:
        """Tells whether a GET of an address is within the scopes; ``write`` is enough for it."""
        return self.can_read(address) or self.can_write(address)

    def can_read(self, address: str) -> bool:
        """Tells whether an address is within a ``read`` or ``admin`` scope."""
        return (
            any(scope.matches(address) for scope in self._read)
            or any(scope.matches(address) for scope in self._admin)
            or (self._own is not None and self._own.scopes.can_read(address))
        )

    def can_subscribe(self, pattern: Pattern) -> bool:
        """Tells whether one ``read`` or ``admin`` scope covers all that a pattern can match."""
        return (
            any(scope.covers(pattern) for scope in self._read)
            or any(scope.covers(pattern) for scope in self._admin)
            or (self._own is not None and self._own.scopes.can_subscribe(pattern))
        )

    def can_write_all(self, pattern: Pattern) -> bool:
        """Tells whether one ``write`` or ``admin`` scope covers all that a pattern can match."""
        return any(scope.covers(pattern) for scope in (*self._write, *self._admin)) or (
            self._own is not None and self._own.scopes.can_write_all(pattern)
        )

    def is_admin(self, address: str) -> bool:
        """Tells whether an address is within an ``admin`` scope."""
        if self._admin and any(scope.matches(address) for scope in self._admin):
            return True
        own = self._own
        return own is not None and own.has_admin and own.scopes.is_admin(address)

    @property
    def is_admin_somewhere(self) -> bool:
        """Whether there is an ``admin`` scope."""
        return bool(self._admin) or (self._own is not None and self._own.has_admin)

    @property
    def is_admin_everywhere(self) -> bool:
        """Whether an ``admin`` scope holds every address. One that names its user never does."""
        return any(scope.text == "/**" for scope in self._admin)


class _Own:
    """The scopes of a token that name its user, parsed when they are first needed.

    A storm of connections would take 16 µs for each to parse those of the chat policy.

    Args:
        templates: the scopes, with ``{userId}``.
        user_id: the user, checked (``ScopeTemplates.of``).
        has_admin: whether there is an ``admin`` scope among them.
    """

    __slots__ = ("_parsed", "_templates", "_user_id", "has_admin")

    def __init__(self, templates: tuple[str, ...], user_id: str, has_admin: bool) -> None:
        self._templates = templates
        self._user_id = user_id
        self._parsed: Scopes | None = None
        self.has_admin = has_admin

    @property
    def texts(self) -> tuple[str, ...]:
        """The scopes as ``action:pattern``."""
        return expand(self._templates, self._user_id)

    @property
    def scopes(self) -> Scopes:
        """The parsed scopes."""
        if self._parsed is None:
            self._parsed = Scopes.parse(self.texts)
        return self._parsed


class ScopeTemplates:
    """The scopes that a policy gives to each user; those without ``{userId}`` are parsed once for all of them.

    Args:
        templates: scopes that may hold ``{userId}``, checked (``check_template``).
    """

    def __init__(self, templates: Iterable[str]) -> None:
        self._templates = tuple(templates)
        self._shared = Scopes.parse(each for each in self._templates if USER_ID not in each)
        self._own = tuple(each for each in self._templates if USER_ID in each)
        self._has_admin = any(each.startswith("admin:") for each in self._own)
        self._max_id_characters = min(
            ((MAX_ADDRESS_BYTES - len(each.encode())) // each.count(USER_ID) for each in self._own), default=0
        )
        """An ASCII id of at most so many characters makes no pattern too long."""

    def of(self, user_id: str) -> Scopes:
        """Returns the scopes of one user.

        Raises:
            ValueError: as for ``expand``, or a scope with this id would be too long, or have no encoding.
        """
        _check_id(user_id)
        if not self._own:
            return self._shared
        if len(user_id) <= self._max_id_characters and user_id.isascii():
            return self._shared.of_user(_Own(self._own, user_id, self._has_admin))
        return Scopes.parse(self.texts(user_id))

    def texts(self, user_id: str) -> tuple[str, ...]:
        """Returns the scopes of one user as ``action:pattern``; see ``expand``."""
        return expand(self._templates, user_id)
