"""Who may do and see what, by token, scopes and policy: what the core asks in authenticated mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clasp_relay.access.policy import Policy, redact
from clasp_relay.access.scopes import UNRESTRICTED, Scopes
from clasp_relay.access.tokens import ADMIN_SCOPES, TokenExpired, TokenTable, TokenUnknown
from clasp_relay.core.draft import Draft
from clasp_relay.core.permissions import CatchUp, Grant, Identity, State, Viewing
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.storage.users import TokenRecord
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL, Value

NO_TOKEN = Disconnect(
    CloseCode.POLICY_VIOLATION, "a token is needed: /auth/guest or /auth/login gives one", ErrorCode.UNAUTHENTICATED
)
BAD_TOKEN = Disconnect(CloseCode.POLICY_VIOLATION, "the token is not valid: sign in again", ErrorCode.UNAUTHENTICATED)
EXPIRED = Disconnect(CloseCode.POLICY_VIOLATION, "the token has expired: sign in again", ErrorCode.TOKEN_EXPIRED)
REVOKED = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again", ErrorCode.TOKEN_EXPIRED)


@dataclass(frozen=True, slots=True, eq=False)
class Bearer(Identity):
    """Whom a token stands for, and what it may do."""

    scopes: Scopes = field(default_factory=Scopes)


class TokenPermissions:
    """Implements ``core.permissions.Permissions``.

    Args:
        tokens: the valid tokens.
        policy: the application's rules; None for none, then every token may read and write everything.
        now_us: Unix µs.
    """

    is_open = False

    def __init__(self, tokens: TokenTable, policy: Policy | None, now_us: Callable[[], int]) -> None:
        self._tokens = tokens
        self._policy = policy
        self._now_us = now_us
        self.hello_snapshot = policy is None or policy.document.hello_snapshot
        self.tells_live_apart = policy is not None and policy.tells_live_apart

    def admit(self, token: str) -> Identity:
        """See ``Permissions``."""
        if not token:
            raise NO_TOKEN
        try:
            record = self._tokens.lookup(token)
        except TokenExpired:
            raise EXPIRED from None
        except TokenUnknown:
            raise BAD_TOKEN from None
        return Bearer(record.subject, record.digest, Scopes.parse(self.scopes_of(record)))

    def is_current(self, who: Identity) -> bool:
        """See ``Permissions``."""
        return self._tokens.is_valid(who.token)

    def check_write(self, who: Identity, address: str, value: Value, ttl: int | None, state: State) -> Grant | None:
        """See ``Permissions``."""
        policy = self._policy
        scopes = _scopes_of(who)
        if not scopes.can_write(address):
            raise _out_of_scope("write", address)
        if policy is None:
            return None
        now_us = self._now_us()
        is_admin = scopes.is_admin(address)
        remember = not isinstance(state, Draft)
        rules = policy.write_rules
        if (
            remember
            and not is_admin
            and rules.surely_passes(who.subject, address, value, state, now_us)
            and (ttl is not None or not rules.gives_ttl(address))
        ):
            return None
        return policy.check_write(
            who.subject, address, value, ttl, False, state, now_us, is_admin=is_admin, remember=remember
        )

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> None:
        """See ``Permissions``."""
        policy = self._policy
        scopes = _scopes_of(who)
        if not scopes.can_write(address):
            raise _out_of_scope("publish", address)
        if policy is None:
            return
        now_us = self._now_us()
        is_admin = scopes.is_admin(address)
        remember = not isinstance(state, Draft)
        written = NULL if value is None else value
        if remember and not is_admin and policy.write_rules.surely_passes(who.subject, address, written, state, now_us):
            return
        policy.check_write(who.subject, address, value, None, True, state, now_us, is_admin=is_admin, remember=remember)

    def check_get(self, who: Identity, address: str) -> None:
        """See ``Permissions``."""
        if not _scopes_of(who).can_get(address):
            raise _out_of_scope("read", address)

    def check_subscribe(self, who: Identity, pattern: Pattern) -> None:
        """See ``Permissions``."""
        if not _scopes_of(who).can_subscribe(pattern):
            raise _out_of_scope("read all of", pattern.text)

    def check_announce(self, who: Identity, address: str) -> None:
        """See ``Permissions``."""
        if not _scopes_of(who).can_write(address):
            raise _out_of_scope("announce", address)

    def can_read(self, who: Identity, address: str) -> bool:
        """See ``Permissions``."""
        return _scopes_of(who).can_read(address)

    def sees_all(self, who: Identity, address: str) -> bool:
        """See ``Permissions``."""
        scopes = _scopes_of(who)
        return bool(scopes.admin) and scopes.is_admin(address)

    def viewing(self, address: str, is_live: bool) -> Viewing | None:
        """See ``Permissions``."""
        if self._policy is None:
            return None
        viewing = self._policy.viewing(address, is_live=is_live)
        shown_to_all = viewing.fixed is not None and viewing.fixed.view == frozenset()
        return None if shown_to_all else viewing

    def redact(self, value: Value, fields: frozenset[str]) -> Value:
        """See ``Permissions``."""
        return redact(value, fields)

    def catch_ups(self, address: str) -> Sequence[CatchUp]:
        """See ``Permissions``."""
        return () if self._policy is None else self._policy.catch_ups(address)

    def stamp_of(self, address: str, value: Value) -> str | None:
        """See ``Permissions``."""
        return None if self._policy is None else self._policy.stamp_of(address, value)

    def changed(self, address: str, *, exists: bool, existed: bool) -> None:
        """See ``Permissions``."""
        if self._policy is not None:
            self._policy.changed(address, exists=exists, existed=existed)

    def tracks_holds(self, address: str) -> bool:
        """See ``Permissions``."""
        return self._policy is not None and self._policy.tracks_holds(address)

    def scopes_of(self, record: TokenRecord) -> Sequence[str]:
        """Returns the scopes of a token, as ``action:pattern``; none for an id that cannot stand in a scope."""
        if record.scopes_name == ADMIN_SCOPES:
            return ("admin:/**",)
        if self._policy is None:
            return UNRESTRICTED
        try:
            return self._policy.scopes_for(record.subject)
        except ValueError:
            return ()


def _scopes_of(who: Identity) -> Scopes:
    assert isinstance(who, Bearer), "a session of authenticated mode has a token"
    return who.scopes


def _out_of_scope(action: str, about: str) -> RequestError:
    return RequestError(ErrorCode.SCOPE, f"your token does not allow you to {action} this", about)
