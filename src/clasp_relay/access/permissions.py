"""The permissions of authenticated mode: what a token's scopes and the policy allow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clasp_relay.access.policy import Policy, redact
from clasp_relay.access.policy.checks import holds_all
from clasp_relay.access.policy.document import WriteRule
from clasp_relay.access.policy.language.maps import encode_text, entry_heads, find_field, may_repeat
from clasp_relay.access.policy.language.question import Question
from clasp_relay.access.policy.scopes import ANONYMOUS, UNRESTRICTED, Scopes
from clasp_relay.access.policy.write_rules import ChecksLeft, WriteRequest
from clasp_relay.access.tokens import ADMIN_SCOPES, OWN_SCOPES, TokenExpired, TokenTable, TokenUnknown
from clasp_relay.core.rights.memory import Answer, Memory, Reads
from clasp_relay.core.rights.port import CatchUp, Grant, State, VisibilityRule
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.draft import Draft
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.storage.users import TokenRecord
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, ValueType
from clasp_relay.wire.messages import NULL, Value

NO_TOKEN = Disconnect(
    CloseCode.POLICY_VIOLATION, "a token is needed: /auth/guest or /auth/login gives one", ErrorCode.UNAUTHENTICATED
)
BAD_TOKEN = Disconnect(CloseCode.POLICY_VIOLATION, "the token is not valid: sign in again", ErrorCode.UNAUTHENTICATED)
EXPIRED = Disconnect(CloseCode.POLICY_VIOLATION, "the token has expired: sign in again", ErrorCode.TOKEN_EXPIRED)
REVOKED = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again", ErrorCode.TOKEN_EXPIRED)


_MAP = ValueType.MAP

MAX_PLACES = 64
"""Number of addresses for which a token's rights are cached: a session writes to a few, again and again."""

MAX_PLACE_CHARACTERS = 256
"""Addresses longer than this are not cached, to bound the memory of the cache."""


class Place:
    """The rights of one token at one address. A token's scopes never change, so they are valid as long as it is.

    Args:
        subject: the token's.
        scopes: the token's.
        address: the address.
        policy: the application's rules.
    """

    __slots__ = (
        "author",
        "bounds_ttl",
        "can_get",
        "can_write",
        "captured",
        "gives_ttl",
        "heads_read",
        "is_admin",
        "remembered",
        "signs",
    )

    def __init__(self, subject: str, scopes: Scopes, address: str, policy: Policy | None) -> None:
        self.is_admin = scopes.is_admin(address)
        self.can_write = self.is_admin or scopes.can_write(address)
        self.can_get = self.can_write or scopes.can_get(address)
        rules = None if policy is None else policy.write_rules
        self.gives_ttl = rules is not None and self.can_write and rules.gives_ttl(address)
        """Whether a SET without a TTL gets one."""
        self.bounds_ttl = rules is not None and self.can_write and rules.bounds_ttl(address)
        """Whether a SET with a TTL may get a shorter one."""
        found = None if rules is None or not self.can_write else rules.find(address)
        self.captured = () if found is None else found[1]
        """The captures of the write rule's path."""
        self.signs = None if found is None or not _signs(found[0]) else found[0]
        """The write rule if it stamps each value; else None."""
        self.author = b"" if self.signs is None else _author(self.signs, (*self.captured, subject))
        """The encoded author that this rule stamps."""
        self.heads_read = () if policy is None else entry_heads(policy.keys_read(address))
        """The first bytes of the entries that the policy reads in the map at the address; see ``entry_heads``."""
        self.remembered: Answer[ChecksLeft] | None = None
        """The remembered answer of the last write that the rule decided."""


@dataclass(frozen=True, slots=True, eq=False)
class Bearer(Identity):
    """The subject of a token or of a session without one, and its scopes."""

    scopes: Scopes = field(default_factory=Scopes)
    fails_as: str = field(default="", kw_only=True)
    """The subject for which its failures are counted; empty for its own. A subject for one session only would lose them
    at its end."""
    places: dict[str, Place] = field(default_factory=dict, repr=False)
    """Cached rights by address."""
    is_account: bool = False
    """Whether the token is a registered user's."""


class TokenPermissions:
    """Implements ``core.rights.port.Permissions``.

    Args:
        tokens: the valid tokens.
        policy: the application's rules; without any (None) every token may read and write everything.
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
        self.memory = Memory()
        """See ``Permissions``."""

    def admit(self, token: str, session: Session) -> Identity:
        """See ``Permissions``; an invalid token is refused, and never treated as no token."""
        if not token:
            return self._admit_anonymous(session)
        try:
            record = self._tokens.lookup(token)
        except TokenExpired:
            raise EXPIRED.again() from None
        except TokenUnknown:
            raise BAD_TOKEN.again() from None
        return self._bearer(record)

    def _bearer(self, record: TokenRecord) -> Bearer:
        is_device = record.scopes_name == OWN_SCOPES
        return Bearer(
            record.subject,
            record.digest,
            self._granted(record),
            label=record.username if is_device else "",
            is_account=not (record.guest or is_device),
        )

    def _admit_anonymous(self, session: Session) -> Bearer:
        """Admits a session without a token, if the policy has scopes for such sessions (``anonymous``)."""
        anonymous = None if self._policy is None else self._policy.document.anonymous
        if self._policy is None or anonymous is None:
            raise NO_TOKEN.again()
        subject = ANONYMOUS + session.id
        rate = anonymous.message_rate
        return Bearer(
            subject,
            scopes=self._policy.granted(subject),
            message_rate=None if rate is None else (rate.per_second, rate.burst),
            ends_with_session=True,
            fails_as=ANONYMOUS + session.origin,
        )

    def is_current(self, who: Identity) -> bool:
        """See ``Permissions``."""
        return who.ends_with_session or self._tokens.is_valid(who.token)

    def readmit(self, subject: str, token: bytes, vouched: str = "") -> Identity | None:
        """See ``Permissions``."""
        record = self._tokens.find(token)
        if record is not None and record.subject == subject:
            return self._bearer(record)
        if not vouched:
            return None
        return Bearer(subject, token, Scopes.parse(json.loads(vouched)), ends_with_session=True)

    def vouch(self, who: Identity) -> str:
        """See ``Permissions``: only its own relay knows a token that is not in the database, and webhooks have none."""
        is_known = not self._tokens.is_local(who.token) if who.token else who.subject.startswith(ANONYMOUS)
        return "" if is_known else json.dumps(_scopes_of(who).texts)

    def check_write(self, who: Identity, address: str, value: Value, ttl: int | None, state: State) -> Grant | None:
        """See ``Permissions``."""
        place = self._place(who, address)
        if not place.can_write:
            raise _out_of_scope("write", address)
        if self._policy is None:
            return None
        if value[0] == _MAP and may_repeat(value, place.heads_read):
            self._policy.check_keys(address, value)
        keeps_ttl = not (place.gives_ttl if ttl is None else place.bounds_ttl)
        if keeps_ttl and self._surely_passes(who, place, address, value, state):
            if place.signs is None or _is_signed(place.signs, place.author, value):
                return None
            return Grant(self._sign(who, place.signs, place, address, value, False, state), ttl)
        return self._decide(who, place, address, value, ttl, False, state)

    def may_set(self, subject: str, address: str, value: Value, state: State) -> bool:
        """Tells whether a user could set a value, by the policy's scopes and rules; nothing is stored or counted.

        Args:
            subject: the user, who need not be connected.
            address: a valid address.
            value: the value.
            state: the params.
        """
        if self._policy is None:
            return True
        try:
            if not self._policy.granted(subject).can_write(address):
                return False
            self._policy.check_write(subject, address, value, None, False, state, self._now_us())
        except (RequestError, ValueError):
            return False
        return True

    def check_lock(self, who: Identity, address: str) -> None:
        """See ``Permissions``."""
        policy = self._policy
        if (
            policy is not None
            and not self._place(who, address).is_admin
            and not policy.write_rules.allows_lock(address)
        ):
            raise RequestError(ErrorCode.POLICY, "this address cannot be locked; send the SET without a lock", address)

    def owns(self, who: Identity, address: str, value: Value) -> bool:
        """See ``Permissions``."""
        return self._policy is not None and self._policy.write_rules.owns(who.subject, address, value)

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> Value | None:
        """See ``Permissions``."""
        place = self._place(who, address)
        if not place.can_write:
            raise _out_of_scope("publish", address)
        if self._policy is None:
            return None
        if value is not None and value[0] == _MAP and may_repeat(value, place.heads_read):
            self._policy.check_keys(address, value)
        sent = NULL if value is None else value
        if self._surely_passes(who, place, address, sent, state):
            if place.signs is None or _is_signed(place.signs, place.author, sent):
                return None
            return self._sign(who, place.signs, place, address, sent, True, state)
        granted = self._decide(who, place, address, value, None, True, state).value
        return None if granted is value or value is None else granted

    def check_get(self, who: Identity, address: str) -> None:
        """See ``Permissions``."""
        if not self._place(who, address).can_get:
            raise _out_of_scope("read", address)

    def check_subscribe(self, who: Identity, pattern: Pattern) -> None:
        """See ``Permissions``."""
        if not _scopes_of(who).can_subscribe(pattern):
            raise _out_of_scope("read all of", pattern.text)

    def check_announce(self, who: Identity, address: str) -> None:
        """See ``Permissions``."""
        if not _scopes_of(who).can_write(address):
            raise _out_of_scope("announce", address)

    def check_announce_all(self, who: Identity, pattern: Pattern) -> None:
        """See ``Permissions``."""
        if not _scopes_of(who).can_write_all(pattern):
            raise _out_of_scope("announce all of", pattern.text)

    def can_read(self, who: Identity, address: str) -> bool:
        """See ``Permissions``."""
        return _scopes_of(who).can_read(address)

    def sees_all(self, who: Identity, address: str, reads: Reads) -> bool:
        """See ``Permissions``."""
        scopes = _scopes_of(who)
        if scopes.is_admin_everywhere or not scopes.is_admin_somewhere:
            return scopes.is_admin_everywhere
        reads.reads_address = True
        return scopes.is_admin(address)

    def visibility_rule(self, address: str, is_live: bool) -> VisibilityRule | None:
        """See ``Permissions``."""
        if self._policy is None:
            return None
        rule = self._policy.visibility_rule(address, is_live=is_live)
        return None if rule.is_shown_to_all else rule

    def redact(self, value: Value, fields: frozenset[str]) -> Value:
        """See ``Permissions``."""
        return redact(value, fields)

    def stamp_of(self, address: str, value: Value) -> str | None:
        """See ``Permissions``."""
        return None if self._policy is None else self._policy.stamp_of(address, value)

    def _place(self, who: Identity, address: str) -> Place:
        bearer = _bearer(who)
        place = bearer.places.get(address)
        if place is None:
            place = Place(who.subject, bearer.scopes, address, self._policy)
            if len(address) <= MAX_PLACE_CHARACTERS:
                if len(bearer.places) >= MAX_PLACES:
                    bearer.places.clear()
                bearer.places[address] = place
        return place

    def _surely_passes(self, who: Identity, place: Place, address: str, value: Value, state: State) -> bool:
        """Tells whether a remembered answer allows a write; False if the rule has to decide.

        An allowed write is stored unchanged: answers of rules that add stamps or hidden fields are not remembered.
        """
        remembered = place.remembered
        if remembered is None or isinstance(state, Draft):
            return False
        if not remembered.holds(self._now_us):
            place.remembered = None
            return False
        left = remembered.value
        return not left or holds_all(left, self._question(who, place, address, value, state, self._now_us()))

    def _question(self, who: Identity, place: Place, address: str, value: Value, state: State, now_us: int) -> Question:
        assert self._policy is not None, "asked about without a policy"
        return Question(
            who.subject,
            place.captured,
            address,
            value,
            state,
            now_us,
            is_account=_bearer(who).is_account,
            session_ids=self._policy.session_ids,
        )

    def _sign(
        self, who: Identity, rule: WriteRule, place: Place, address: str, value: Value, is_publish: bool, state: State
    ) -> Value:
        assert self._policy is not None, "signed without a policy"
        write = WriteRequest(
            who.subject,
            address,
            value,
            None,
            is_publish,
            is_account=_bearer(who).is_account,
            session_ids=self._policy.session_ids,
        )
        question = write.question(place.captured, state, self._now_us())
        return self._policy.write_rules.sign(rule, write, question)

    def _decide(
        self,
        who: Identity,
        place: Place,
        address: str,
        value: Value | None,
        ttl: int | None,
        is_publish: bool,
        state: State,
    ) -> Grant:
        assert self._policy is not None, "decided without a policy"
        # Remembered answers depend on the params, not on a draft of them.
        memory = None if isinstance(state, Draft) else self.memory
        decision = self._policy.check_write(
            who.subject,
            address,
            value,
            ttl,
            is_publish,
            state,
            self._now_us(),
            is_admin=place.is_admin,
            is_account=_bearer(who).is_account,
            memory=memory,
            fails_as=_bearer(who).fails_as,
        )
        if decision.remembered is not None:
            place.remembered = decision.remembered
        return decision.grant

    def scopes_of(self, record: TokenRecord) -> Sequence[str]:
        """Returns the scopes of a token, as ``action:pattern``; none for an id that cannot stand in a scope."""
        scopes = _own_scopes(record)
        if scopes is not None:
            return scopes
        if self._policy is None:
            return UNRESTRICTED
        try:
            return self._policy.scopes_for(record.subject)
        except ValueError:
            return ()

    def _granted(self, record: TokenRecord) -> Scopes:
        """Returns what ``scopes_of`` does, parsed, without parsing those of the policy for each token."""
        if self._policy is None or _own_scopes(record) is not None:
            return Scopes.parse(self.scopes_of(record))
        try:
            return self._policy.granted(record.subject)
        except ValueError:
            return Scopes()


def _own_scopes(record: TokenRecord) -> Sequence[str] | None:
    """Returns the scopes of an admin token and of one with scopes of its own; None for any other token."""
    if record.scopes_name == ADMIN_SCOPES:
        return ("admin:/**",)
    return record.scopes if record.scopes_name == OWN_SCOPES else None


def _signs(rule: WriteRule) -> bool:
    """Tells whether a rule stamps each single value."""
    return bool(rule.marks) or (rule.stamp is not None and rule.stamp.publish)


def _author(rule: WriteRule, words: tuple[str, ...]) -> Value:
    """Returns the encoded author that a rule stamps; empty, which equals no value, if it is too long for a value."""
    if rule.stamp is None:
        return b""
    text = rule.stamp.value.expand(words).encode()
    return encode_text(text) if len(text) <= MAX_PAYLOAD_BYTES else b""


def _is_signed(rule: WriteRule, author: Value, value: Value) -> bool:
    """Tells whether a value has its author already, as usual, so that it is passed on unchanged."""
    if rule.stamp is None or find_field(value, rule.stamp.field) != author:
        return False
    for mark in rule.marks:  # noqa: SIM110 - a generator takes longer than the search
        if mark.may_hold(value):
            return False
    return True


def _bearer(who: Identity) -> Bearer:
    assert isinstance(who, Bearer), "who was admitted in authenticated mode has scopes"
    return who


def _scopes_of(who: Identity) -> Scopes:
    return _bearer(who).scopes


def _nothing(_address: str) -> Sequence[CatchUp]:
    return ()


def _out_of_scope(action: str, about: str) -> RequestError:
    return RequestError(ErrorCode.SCOPE, f"your token does not allow you to {action} this", about)
