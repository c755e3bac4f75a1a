"""Who may do and see what, by token, scopes and policy: what the core asks in authenticated mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from clasp_relay.access.policy import Policy, redact
from clasp_relay.access.policy.remembered import Key
from clasp_relay.access.scopes import UNRESTRICTED, Scopes
from clasp_relay.access.tokens import ADMIN_SCOPES, TokenExpired, TokenTable, TokenUnknown
from clasp_relay.core.rights.port import CatchUp, Grant, Identity, State, Viewing
from clasp_relay.core.state.draft import Draft
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


MAX_PERMITS = 64
"""Of how many addresses it is kept for a token what it may write there: a session writes to few, again and again."""

MAX_PERMIT_ADDRESS = 256
"""Longer addresses are looked at anew, so that what is kept stays small."""


class Permit(NamedTuple):
    """What writes of one token to one address have in common, as long as the token is valid."""

    is_admin: bool
    key: Key | None
    """What the policy remembers them by; None where there is nothing to remember."""
    gives_ttl: bool
    """Whether those that bring no TTL get one."""


@dataclass(frozen=True, slots=True, eq=False)
class Bearer(Identity):
    """Whom a token stands for, and what it may do."""

    scopes: Scopes = field(default_factory=Scopes)
    permits: dict[str, Permit] = field(default_factory=dict, repr=False)
    """What was found out about the addresses that it writes to."""


class TokenPermissions:
    """Implements ``core.rights.port.Permissions``.

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
        self.catch_ups: Callable[[str], Sequence[CatchUp]] = _nothing if policy is None else policy.catch_ups
        """See ``Permissions``."""
        self.tracks_holds: Callable[[str], bool] = _never if policy is None else policy.tracks_holds
        """See ``Permissions``."""
        self.changed: Callable[[str, bool, bool], None] = (
            _ignore if policy is None else policy.write_rules.remembered.changed
        )
        """See ``Permissions``."""

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
        permit = self._permit(who, address, "write")
        if self._policy is None:
            return None
        now_us = self._now_us()
        remember = not isinstance(state, Draft)
        if (
            remember
            and permit.key is not None
            and (ttl is not None or not permit.gives_ttl)
            and self._policy.write_rules.surely_passes(permit.key, address, value, state, now_us)
        ):
            return None
        return self._policy.check_write(
            who.subject, address, value, ttl, False, state, now_us, is_admin=permit.is_admin, remember=remember
        )

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> None:
        """See ``Permissions``."""
        permit = self._permit(who, address, "publish")
        if self._policy is None:
            return
        now_us = self._now_us()
        remember = not isinstance(state, Draft)
        if remember and permit.key is not None:
            written = NULL if value is None else value
            if self._policy.write_rules.surely_passes(permit.key, address, written, state, now_us):
                return
        self._policy.check_write(
            who.subject, address, value, None, True, state, now_us, is_admin=permit.is_admin, remember=remember
        )

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
        viewing = self._policy.visibility.viewing(address, is_live=is_live)
        return None if viewing.is_shown_to_all else viewing

    def redact(self, value: Value, fields: frozenset[str]) -> Value:
        """See ``Permissions``."""
        return redact(value, fields)

    def stamp_of(self, address: str, value: Value) -> str | None:
        """See ``Permissions``."""
        return None if self._policy is None else self._policy.stamp_of(address, value)

    def _permit(self, who: Identity, address: str, action: str) -> Permit:
        assert isinstance(who, Bearer), "a session of authenticated mode has a token"
        permit = who.permits.get(address)
        return self._make_permit(who, address, action) if permit is None else permit

    def _make_permit(self, who: Bearer, address: str, action: str) -> Permit:
        if not who.scopes.can_write(address):
            raise _out_of_scope(action, address)
        is_admin = who.scopes.is_admin(address)
        rules = None if self._policy is None else self._policy.write_rules
        key = None if rules is None or is_admin else rules.key_of(who.subject, address)
        permit = Permit(is_admin, key, rules is not None and rules.gives_ttl(address))
        if len(address) <= MAX_PERMIT_ADDRESS:
            if len(who.permits) >= MAX_PERMITS:
                who.permits.clear()
            who.permits[address] = permit
        return permit

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


def _nothing(_address: str) -> Sequence[CatchUp]:
    return ()


def _ignore(_address: str, _exists: bool, _existed: bool) -> None:
    """Nothing is remembered."""


def _never(_address: str) -> bool:
    return False


def _out_of_scope(action: str, about: str) -> RequestError:
    return RequestError(ErrorCode.SCOPE, f"your token does not allow you to {action} this", about)
