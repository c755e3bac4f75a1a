"""The tokens of the console, and the decisions of administrators, in the memory of the running relay.

A console token gives access below ``/api/admin`` and nowhere else. It is in memory only, and valid for an hour. Each
console token has another token in the table of valid tokens, which is never given out: with it the core admits the
console's requests as messages, until the console token ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from twisted.internet.defer import Deferred

from clasp_relay.access.accounts import Accounts, Caller
from clasp_relay.access.addresses import address_group
from clasp_relay.access.audit import Actor
from clasp_relay.access.issuer import BAD_TOKEN, EXPIRED_TOKEN, NO_TOKEN
from clasp_relay.access.names import check_password
from clasp_relay.access.passwords import Passwords
from clasp_relay.access.refusals import Forbidden, Unauthenticated
from clasp_relay.access.secret_files import ADMIN_SUBJECT
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import (
    ADMIN_SCOPES,
    TokenExpired,
    TokenRecord,
    TokenTable,
    TokenUnknown,
    digest_of,
    make_token,
)
from clasp_relay.storage.administration import AdminStore, Decided

__all__ = ["PREFIX", "Administrator", "Console", "ConsoleToken", "GivenToken"]

CONSOLE_TOKEN_S = 3_600
"""Seconds that a console token is valid."""

MAX_CONSOLE_TOKENS = 1_000
"""Console tokens that may be valid at once; beyond it the oldest is ended."""

MAX_EARLY_TOKENS = 100
"""Console tokens of other relays that may wait until their users are known as administrators here."""

PREFIX = "cpca_"
"""The beginning of a console token."""

NO_ADMINISTRATOR = "This account may not use the console. The operator of this relay can allow it."
FOR_ADMINISTRATORS = "This is for administrators: sign in to the console."


@dataclass(frozen=True, slots=True)
class ConsoleToken:
    """A console token that was just issued. It is in clear nowhere else."""

    token: str = field(repr=False)
    user_id: str
    username: str
    expires_s: int


@dataclass(frozen=True, slots=True)
class Administrator:
    """The administrator who makes a request.

    Args:
        user_id: the user of the console token; the subject of the admin token.
        username: the user's name.
        expires_s: when the token ends, in Unix seconds; None for never.
        is_console: whether it is a console token, and not the admin token.
        token: the token by which the core admits the request.
    """

    user_id: str
    username: str
    expires_s: int | None
    is_console: bool
    token: str = field(repr=False)

    def actor(self, address: str) -> Actor:
        """Returns the administrator as the audit log names them.

        Args:
            address: the client's.
        """
        return Actor(self.user_id, self.username, address)


class GivenToken(NamedTuple):
    """A console token as the relays of a cluster pass it on."""

    digest: bytes
    user_id: str
    username: str
    expires_s: int


class Console:
    """The console tokens of a relay, and in a cluster those that other relays have passed on.

    Args:
        accounts: verifies passwords.
        passwords: makes hashes.
        store: the decisions of administrators; called through ``sql`` only.
        sql: the thread that the store is called on.
        tokens: the valid tokens.
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
    """

    def __init__(
        self,
        accounts: Accounts,
        passwords: Passwords,
        store: AdminStore,
        sql: Workers,
        tokens: TokenTable,
        now_s: Callable[[], float],
        random_hex: Callable[[int], str],
    ) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._store = store
        self._calls = StoreCalls(sql)
        self._tokens = tokens
        self._now_s = now_s
        self._random_hex = random_hex
        self._by_digest: dict[bytes, Administrator] = {}
        """The oldest first."""
        self._early: dict[bytes, GivenToken] = {}
        """Tokens whose users are not known as administrators here yet: the relay that issued them knew it first."""
        self._option = accounts.admission
        """Who may sign in according to the options."""
        self.decided = Decided(frozenset(), frozenset(), {})
        """The decisions of administrators."""
        self.when_given: Callable[[GivenToken], None] = _untold
        """Called with each token that is issued here."""
        self.when_ended: Callable[[bytes], None] = _untold
        """Called with the digest of each token that ends here."""
        accounts.password_changed = self.end_of

    def load(self) -> None:
        """Loads the decisions on this thread; called before the event loop runs."""
        self._take(self._store.decided())

    async def reload(self) -> None:
        """Loads the decisions again after a change, by this process or another one.

        Raises:
            Refusal: the store cannot be asked now.
        """
        self._take(await self._calls.run(self._store.decided))

    @property
    def source(self) -> str:
        """Whether the options decide who may register, and not the console."""
        return "console" if self.decided.choices.keys() & {"registration", "guests"} else "option"

    def sign_in(self, username: str, password: str, address: str) -> Deferred[ConsoleToken]:
        """Signs an administrator in to the console.

        Args:
            username: a name as the user types it.
            password: the user's.
            address: the client's.

        Returns:
            a Deferred of the token; it fails with a Refusal as for ``Accounts.login``, or with Forbidden for a user who
            is no administrator.
        """
        who = Caller()
        return self._accounts.logged("console", address, self._sign_in(username, password, address, who), who)

    async def _sign_in(self, username: str, password: str, address: str, who: Caller) -> ConsoleToken:
        user = await self._accounts.verify(username, password, address, who)
        person = await self._calls.run(self._store.person, user.user_id, int(self._now_s()))
        if not person.is_admin:
            raise Forbidden(NO_ADMINISTRATOR)
        # The last check before the token is made: every later change of the user ends the token.
        await self._accounts.check_current(user)
        token, expires_s = f"{PREFIX}{self._random_hex(16)}", int(self._now_s()) + CONSOLE_TOKEN_S
        given = GivenToken(digest_of(token), person.user_id, person.username, expires_s)
        self._take_in(given)
        self.when_given(given)
        return ConsoleToken(token, person.user_id, person.username, expires_s)

    def _take_in(self, given: GivenToken) -> None:
        while len(self._by_digest) >= MAX_CONSOLE_TOKENS:
            self._end([next(iter(self._by_digest))])
        digest, user_id, username, expires_s = given
        inner = make_token(self._random_hex)
        now = int(self._now_s())
        self._tokens.add(TokenRecord(digest_of(inner), ADMIN_SUBJECT, username, False, ADMIN_SCOPES, now, expires_s))
        self._by_digest[digest] = Administrator(user_id, username, expires_s, True, inner)

    def learn(self, given: GivenToken) -> None:
        """Adds a token that another relay has issued, once its user is known as an administrator here."""
        if given.digest in self._by_digest:
            return
        if given.user_id in self._may_stay:
            self._take_in(given)
            return
        self._early[given.digest] = given
        if len(self._early) > MAX_EARLY_TOKENS:
            del self._early[next(iter(self._early))]

    def forget(self, digest: bytes) -> None:
        """Ends a token, given by its digest, that has ended at another relay."""
        self._early.pop(digest, None)
        who = self._by_digest.pop(digest, None)
        if who is not None:
            self._tokens.revoke([digest_of(who.token)])

    def knows(self, bearer: str) -> bool:
        """Tells whether a text is a console token that has not ended."""
        return digest_of(bearer) in self._by_digest

    @property
    def _may_stay(self) -> frozenset[str]:
        return self.decided.administrators - self.decided.disabled

    def reset(self, secret: str, password: str, address: str) -> Deferred[str]:
        """Sets a password by a one-time link.

        Args:
            secret: the secret in the link.
            password: the new password.
            address: the client's.

        Returns:
            a Deferred of the user's name; it fails with a Refusal: Unauthenticated if the link is not valid.
        """
        who = Caller()
        return self._accounts.logged("reset", address, self._reset(secret, password, address, who), who)

    async def _reset(self, secret: str, password: str, address: str, who: Caller) -> str:
        check_password(password)
        digest = digest_of(secret)
        person = await self._calls.run(self._store.reset_of, digest, int(self._now_s()))
        who.user_id, who.name = person.user_id, person.username
        password_hash = await self._passwords.hash(password, address_group(address))
        await self._calls.run(self._store.use_reset, digest, password_hash, int(self._now_s()))
        self.end_all_of(person.user_id)
        return person.username

    def admit(self, bearer: str | None) -> Administrator:
        """Returns the administrator of a token.

        Args:
            bearer: the presented token; None for none.

        Raises:
            Unauthenticated: there is no token, or it is not valid.
            Forbidden: it is valid, but not an administrator's.
        """
        if bearer is None:
            raise Unauthenticated(NO_TOKEN)
        digest = digest_of(bearer)
        found = self._by_digest.get(digest)
        if found is not None:
            assert found.expires_s is not None, "a console token without an end"
            if found.expires_s <= self._now_s():
                self._end([digest])
                raise Unauthenticated(EXPIRED_TOKEN)
            return found
        try:
            record = self._tokens.lookup(bearer)
        except TokenExpired:
            raise Unauthenticated(EXPIRED_TOKEN) from None
        except TokenUnknown:
            raise Unauthenticated(BAD_TOKEN) from None
        if record.scopes_name != ADMIN_SCOPES:
            raise Forbidden(FOR_ADMINISTRATORS)
        return Administrator(record.subject, record.username, record.expires_s, False, bearer)

    def end(self, bearer: str) -> bool:
        """Ends a console token; returns False if it is none."""
        digest = digest_of(bearer)
        if digest not in self._by_digest:
            return False
        self._end([digest])
        return True

    def end_of(self, user_id: str) -> None:
        """Ends the console tokens of a user."""
        self._end([digest for digest, who in self._by_digest.items() if who.user_id == user_id])

    def password_followed(self, user_id: str, username: str) -> None:
        """As ``Accounts.password_followed``, for console tokens."""
        self._end(
            [digest for digest, who in self._by_digest.items() if (who.user_id, who.username) == (user_id, username)]
        )

    def rename(self, user_id: str, username: str) -> None:
        """Changes the user's name in their console tokens."""
        for digest, who in self._by_digest.items():
            if who.user_id == user_id:
                self._by_digest[digest] = replace(who, username=username)

    def end_all_of(self, subject: str) -> None:
        """Ends every token of a user or guest whose tokens are revoked in the store, the console's included."""
        self.end_of(subject)
        self._tokens.revoke(self._tokens.of_subject(subject))

    def _end(self, digests: Sequence[bytes]) -> None:
        for digest in digests:
            self.forget(digest)
            self.when_ended(digest)

    def _take(self, decided: Decided) -> None:
        self.decided = decided
        for user_id in {who.user_id for who in self._by_digest.values()} - self._may_stay:
            self.end_of(user_id)
        for given in [given for given in self._early.values() if given.user_id in self._may_stay]:
            del self._early[given.digest]
            if given.expires_s > self._now_s():
                self._take_in(given)
        for subject in decided.disabled:
            self._tokens.revoke(self._tokens.of_subject(subject))
        choices = decided.choices
        self._accounts.admission = replace(
            self._option,
            registration=choices.get("registration", self._option.registration),
            guests=choices.get("guests", "on" if self._option.guests else "off") == "on",
        )


def _untold(_about: object) -> None:
    """Does nothing: without a cluster there are no other relays."""
