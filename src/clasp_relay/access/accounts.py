"""The calls of the auth API about users, guests and their tokens, independent of HTTP.

Each call is one method of :class:`Accounts`. It checks the rate limits and the input, hashes passwords and writes to
the database on other threads, and changes the table of valid tokens only after the commit. Each call is logged in
one line with its outcome and the client's address, without secrets and without the client's input.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.access.addresses import address_group
from clasp_relay.access.audit import Actor
from clasp_relay.access.issuer import BAD_TOKEN, EXPIRED_TOKEN, NO_TOKEN, Issued, Issuer, PendingToken
from clasp_relay.access.limits import MAX_KEYS, AttemptLimiter, KnownAddresses, LoginAttempt
from clasp_relay.access.names import (
    check_device,
    check_guest_name,
    check_password,
    check_user_id,
    check_username,
    default_guest_name,
    fold_name,
    make_user_id,
    name_keys,
    normalise_name,
)
from clasp_relay.access.passwords import Passwords
from clasp_relay.access.refusals import BadInput, Busy, Forbidden, Missing, Refusal, Unauthenticated
from clasp_relay.access.store_calls import DISABLED, StoreCalls
from clasp_relay.access.threads import Workers, uncancellable
from clasp_relay.access.tickets import Tickets
from clasp_relay.access.tokens import MAX_EXPIRED, POLICY_SCOPES, TokenRecord, TokenTable, digest_of
from clasp_relay.logs import events
from clasp_relay.storage.users import Claim, SignIn, User, UserStore

__all__ = [
    "WRONG_PASSWORD",
    "Accounts",
    "Admission",
    "Caller",
    "Note",
    "SessionInfo",
    "Tell",
    "TokenInfo",
    "load_tokens",
]

P = ParamSpec("P")
T = TypeVar("T")

Note = Callable[[str, str, Actor], None]
"""Notes a call in the audit log: its name, the outcome, and who called, as far as that is known."""

Tell = Callable[[str, str, str, str], None]
"""Logs a call: its name, the client's address, the outcome (``ok``, a refusal's name, ``error``) and the user id."""

WRONG_PASSWORD = "The username or the password is wrong."  # noqa: S105

MAX_WITHOUT_TOKEN = 10_000
"""Users that may be signed in without a token at once."""

_PURGE_ROWS = 1000
"""Rows deleted in one transaction; a sign-in that comes meanwhile waits for milliseconds."""


@dataclass(slots=True)
class Caller:
    """The caller of a call, as far as it is known.

    It has no text that the client sent, which may be a password in the wrong field.

    Args:
        user_id: empty while the caller is not known.
        name: the caller's name.
    """

    user_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What the auth API tells the bearer of a token about it; ``expires_at`` in Unix seconds, None for never."""

    user_id: str
    username: str
    guest: bool
    scopes: Sequence[str]
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A sign-in, as the auth API tells its user about it; times in Unix seconds.

    ``last_seen`` is now while a session of it is connected, otherwise when its token was issued or last refreshed.
    """

    id: str
    device: str
    created_at: int
    last_seen: int
    current: bool


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may register or sign in as a guest, and the relay's name.

    Args:
        registration: ``open``, ``invite`` or ``closed``.
        guests: whether guests may sign in.
        name: the server's name.
        files: the limits of files, by name; None if the relay takes no files.
    """

    registration: str = "open"
    guests: bool = True
    name: str = ""
    files: Mapping[str, int] | None = None


class Accounts:
    """The accounts of a relay.

    A refused call fails with a ``Refusal``. Cancelling a Deferred stops the waiting, not the work. ``address`` is the
    client's, for limits and the log; ``bearer`` is the presented token, or None.

    Args:
        store: users and tokens; called through ``sql`` only.
        sql: the thread that the store is called on, one call at a time.
        passwords: makes and verifies hashes.
        tokens: the valid tokens.
        limiter: counts attempts.
        known: the limiter's addresses from which users have signed in lately.
        hash_of: returns the keyed hash of a client address.
        scopes_of: returns the scopes that a token carries, as ``action:pattern``.
        token_ttl_s: seconds that a new token is valid.
        open_guest_ids: whether anybody may use any guest's id (a policy's ``guest_ids`` is ``open``).
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
        tell: called for each call, in place of the log.
        note: called for each call, with its caller.
        admission: who may sign in.
    """

    def __init__(
        self,
        *,
        store: UserStore,
        sql: Workers,
        passwords: Passwords,
        tokens: TokenTable,
        limiter: AttemptLimiter,
        known: KnownAddresses,
        hash_of: Callable[[str], bytes],
        scopes_of: Callable[[TokenRecord], Sequence[str]],
        token_ttl_s: int,
        open_guest_ids: bool,
        now_s: Callable[[], float],
        random_hex: Callable[[int], str],
        tell: Tell | None = None,
        note: Note | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.admission = admission or Admission()
        """Who may sign in."""
        self._without_token: dict[str, bytes] = {}
        """The ids (``Identity.token``) of sign-ins without a token."""
        self.tickets = Tickets(now_s, random_hex)
        """The tickets, which replace tokens in URLs."""
        self.password_changed: Callable[[str], None] = _no_change
        """Called with a user's id after a change of the password."""
        self.registered: Callable[[str], None] = _no_change
        """Called with the id of a new user, who may have been a guest before."""
        self.outcomes: dict[tuple[str, str], int] = {}
        """Number of calls since the start, by call and outcome."""
        self._tell: Tell = tell or _log_call
        self._note: Note = note or _no_note
        self._store = store
        self._calls = StoreCalls(sql)
        self._passwords = passwords
        self._tokens = tokens
        self._issuer = Issuer(tokens, token_ttl_s, now_s, random_hex)
        self.limiter = limiter
        """Counts attempts."""
        self._known = known
        self._hash_of = hash_of
        self._scopes_of = scopes_of
        self._open_guest_ids = open_guest_ids
        self._now_s = now_s
        self._random_hex = random_hex
        tokens.on_first_use(lambda digest, end_s: self._keep(1, store.end_replaced, digest, end_s))
        tokens.on_redate(lambda digests, by_s: self._keep(len(digests), store.redate, digests, by_s))

    def register(
        self,
        username: str,
        password: str,
        user_id: str | None,
        bearer: str | None,
        address: str,
        invite: str | None = None,
        device: str | None = None,
    ) -> Deferred[Issued]:
        """Registers a user; with a guest's id and a token of that guest, the guest becomes the user."""
        work = self._register(username, password, user_id, bearer, address, invite, device)
        return self.logged("register", address, work)

    def login(self, username: str, password: str, address: str, device: str | None = None) -> Deferred[Issued]:
        """Signs a user in."""
        who = Caller()
        return self.logged("login", address, self._login(username, password, address, device, who), who)

    def sign_in(self, username: str, password: str, address: str) -> Deferred[TokenRecord]:
        """Signs a user in for sessions without a token, until the password changes or the relay stops.

        Args:
            username: a name as the user types it.
            password: the user's.
            address: the client's.

        Returns:
            the id of the sign-in (``Identity.token``); it has no token, and nothing is stored.

        Raises:
            Refusal: as for ``login``; the Deferred fails with it.
        """
        who = Caller()
        return self.logged("login", address, self._sign_in(username, password, address, who), who)

    def verify(self, username: str, password: str, address: str, who: Caller) -> Coroutine[Deferred[Any], Any, User]:
        """Returns the user with a name and a password; failures count as those of ``login``.

        Args:
            username: a name as the user types it.
            password: the user's.
            address: the client's.
            who: its user is set as soon as the name is known.

        Raises:
            Refusal: as for ``login``.
        """
        return self._find(username, password, address, who)

    async def check_current(self, user: User) -> None:
        """Checks that a user was not changed since the password was verified.

        Raises:
            Unauthenticated: the password was changed, or the account deleted.
            Forbidden: the account is disabled.
        """
        current = await self._calls.run(self._store.user, user.user_id)
        if current is None or current.password_changes != user.password_changes:
            raise Unauthenticated(WRONG_PASSWORD)
        if current.is_disabled:
            raise Forbidden(DISABLED)

    def guest(
        self, name: str | None, user_id: str | None, bearer: str | None, address: str, device: str | None = None
    ) -> Deferred[Issued]:
        """Signs a guest in; an id that a guest has already needs a token of that guest."""
        work = self._guest(name, user_id, bearer, address, device)
        return self.logged("guest", address, work)

    def logout(self, bearer: str | None, address: str) -> Deferred[None]:
        """Revokes the presented token, and those that it was refreshed from or to."""
        return self.logged("logout", address, self._logout(bearer), self._caller(bearer))

    def refresh(self, bearer: str | None, address: str, device: str | None = None) -> Deferred[Issued]:
        """Issues a token that replaces the presented one, which is valid or a guest's that expired within 90 days."""
        return self.logged("refresh", address, self._refresh(bearer, address, device), self._caller(bearer))

    def sessions(self, bearer: str | None) -> Deferred[list[SessionInfo]]:
        """Returns the bearer's sign-ins that have not ended, the latest first; the call is not logged."""
        return uncancellable(Deferred.fromCoroutine(self._sessions(bearer)))

    def end_session(self, session_id: str, bearer: str | None, address: str) -> Deferred[None]:
        """Revokes the tokens of one of the bearer's sign-ins, which may be the presented one's."""
        return self.logged("end session", address, self._end_session(session_id, bearer), self._caller(bearer))

    def change_password(self, old: str, new: str, bearer: str | None, address: str) -> Deferred[None]:
        """Changes the bearer's password and revokes all other tokens of that user."""
        return self.logged("password", address, self._change_password(old, new, bearer, address), self._caller(bearer))

    def me(self, bearer: str | None) -> TokenInfo:
        """Returns the facts about the presented token."""
        record = self._issuer.recognise(bearer)
        scopes = tuple(self._scopes_of(record))
        return TokenInfo(record.subject, record.username, record.guest, scopes, record.expires_s)

    def recognise(self, bearer: str | None) -> TokenRecord:
        """Returns the presented token.

        Raises:
            Unauthenticated: there is none, or it is not valid.
        """
        return self._issuer.recognise(bearer)

    def ticket(self, bearer: str | None, address: str) -> str:
        """Returns a ticket for the presented token, to be put into a URL.

        Raises:
            Unauthenticated: there is no token, or it is not valid.
        """
        self._issuer.recognise(bearer)
        return self.tickets.issue(bearer or "", address_group(address))

    async def last_issued(self, subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
        """Returns when the last tokens of guests were issued; see ``UserStore.last_issued``.

        Raises:
            Refusal: the store cannot be asked now.
        """
        return await self._calls.run(self._store.last_issued, subjects, is_first=is_first)

    async def purge(self) -> int:
        """Deletes old tokens and addresses; to be called periodically. A busy relay leaves them for the next time.

        Returns:
            the number of deleted tokens.
        """
        removed = 0
        while True:
            try:
                count = await self._calls.run(self._store.purge, self._now(), _PURGE_ROWS)
            except Busy:
                return removed
            removed += count
            if count < _PURGE_ROWS:
                return removed

    async def _register(
        self,
        username: str,
        password: str,
        user_id: str | None,
        bearer: str | None,
        address: str,
        invite: str | None,
        device: str | None,
    ) -> Issued:
        invited_by = self._invite_digest(invite)
        self.limiter.check_registration(address)
        name = check_username(username)
        check_password(password)
        device = check_device(device)
        user_id = self._id_or_new(user_id)
        self.limiter.count_registration(address)
        self._issuer.check_room(guest=False)
        keys = name_keys(name)
        if invited_by is not None:
            await self._calls.run(self._store.check_invite, invited_by, self._now())
        # Before the expensive hash; it is checked again when the user is added.
        await self._calls.run(self._store.check_new_user, user_id, keys, self._claim(bearer))
        user = User(user_id, name, await self._passwords.hash(password, address_group(address)), self._now())
        pending = self._issuer.make(user_id, name, False, self._hash_of(address), device)
        await self._calls.run(self._store.add_user, user, keys, pending.record, self._claim(bearer), invited_by)
        self._known.add(pending.record.made_for, keys.folded)
        issued = await self._issue(pending)
        self.registered(user_id)
        return issued

    async def _find(self, username: str, password: str, address: str, who: Caller) -> User:
        """Returns the user with a name and a password, unless the account is disabled."""
        self.limiter.check_address(address)
        folded = fold_name(username)
        attempt = self.limiter.login(address, folded)
        self._issuer.check_room(guest=False)
        found = await self._calls.run(self._store.find_user, (username, normalise_name(username)), folded)
        if found is not None:
            who.user_id, who.name = found.user_id, found.username
        user = await self._verified(found, password, address, attempt, WRONG_PASSWORD)
        if user.is_disabled:
            raise Forbidden(DISABLED)
        return user

    async def _sign_in(self, username: str, password: str, address: str, who: Caller) -> TokenRecord:
        user = await self._find(username, password, address, who)
        await self.check_current(user)
        self._known.add(self._hash_of(address), fold_name(username))
        record = self._tokens.find(self._without_token.get(user.user_id, b""))
        if record is None:
            # A random id that is no token's digest, so that no token can be presented for it.
            digest = bytes.fromhex(self._random_hex(32))
            record = TokenRecord(digest, user.user_id, user.username, False, POLICY_SCOPES, self._now(), None)
            if len(self._without_token) >= MAX_WITHOUT_TOKEN:
                self._end_idle()
            self._without_token[user.user_id] = digest
            self._tokens.add(record)
        return record

    def _end_idle(self) -> None:
        """Ends the sign-ins without a token whose sessions have all ended."""
        idle = [
            subject
            for subject, digest in self._without_token.items()
            if digest not in self._tokens.tokens_in_use(subject)
        ]
        self._tokens.end([self._without_token.pop(subject) for subject in idle])
        if len(self._without_token) >= MAX_WITHOUT_TOKEN:
            raise Busy("Too many people are signed in. Try again in a minute.", 60)

    async def _login(self, username: str, password: str, address: str, device: str | None, who: Caller) -> Issued:
        device = check_device(device)
        user = await self._find(username, password, address, who)
        pending = self._issuer.make(user.user_id, user.username, False, self._hash_of(address), device)
        await self._calls.run(self._store.add_user_token, pending.record, user.password_changes)
        self._known.add(pending.record.made_for, fold_name(username))
        issued = await self._issue(pending)
        await self._strengthen(user, password, address)
        return issued

    def _invite_digest(self, invite: str | None) -> bytes | None:
        """Returns the digest of an invite; None if anybody may register."""
        if self.admission.registration == "open":
            return None
        if self.admission.registration == "closed":
            raise Forbidden("Nobody can register here. Ask the operator of this relay for an account.")
        if not invite:
            raise Forbidden("An invite is needed to register here. Ask the operator of this relay for one.")
        return digest_of(invite)

    def _check_guests(self) -> None:
        if not self.admission.guests:
            raise Forbidden("Guests cannot sign in here. Sign in with an account.")

    async def _guest(
        self, name: str | None, user_id: str | None, bearer: str | None, address: str, device: str | None
    ) -> Issued:
        self._check_guests()
        self.limiter.check_guest(address)
        user_id = self._id_or_new(user_id)
        name = default_guest_name(user_id) if name is None else check_guest_name(name)
        device = check_device(device)
        self.limiter.count_guest(address)
        self._issuer.check_room(guest=True)
        claim = self._claim(bearer)
        is_proven = not self._open_guest_ids or self._tokens.is_of(claim.proof, user_id)
        pending = self._issuer.make(user_id, name, True, self._hash_of(address), device)
        await self._calls.run(self._store.add_guest_token, pending.record, name_keys(name), claim)
        return await self._issue(pending, own_address_only=not is_proven)

    async def _issue(self, pending: PendingToken, *, own_address_only: bool = False) -> Issued:
        """Makes a committed token valid, and ends those that have to end because of it (``TokenTable.surplus``)."""
        issued = self._issuer.issue(pending)
        surplus = self._tokens.surplus(pending.record, own_address_only=own_address_only)
        if surplus:
            try:
                await self._calls.run(self._store.end, surplus, self._now())
            except Busy:
                events.TOKEN_SURPLUS_KEPT.log(count=len(surplus))
            else:
                self._tokens.end(surplus)
        return issued

    async def _logout(self, bearer: str | None) -> None:
        record = self.signed_in(bearer)
        self._tokens.revoke(await self._calls.run(self._store.revoke, record.digest, self._now()))

    async def _sessions(self, bearer: str | None) -> list[SessionInfo]:
        record = self.signed_in(bearer)
        in_use = self._tokens.tokens_in_use(record.subject)
        now = self._now()
        return [
            SessionInfo(
                _session_id(sign_in.sign_in),
                sign_in.device,
                sign_in.created_s,
                now if any(digest in in_use for digest in sign_in.digests) else sign_in.refreshed_s,
                record.digest in sign_in.digests,
            )
            for sign_in in await self._own_sign_ins(record)
        ]

    async def _own_sign_ins(self, record: TokenRecord) -> list[SignIn]:
        """Returns the sign-ins of a token's user; only the token's own for a guest whose id anybody may use."""
        found = await self._calls.run(self._store.sign_ins, record.subject, self._now())
        is_proven = not (record.guest and self._open_guest_ids)
        return [sign_in for sign_in in found if is_proven or record.digest in sign_in.digests]

    async def _end_session(self, wanted: str, bearer: str | None) -> None:
        record = self.signed_in(bearer)
        for sign_in in await self._own_sign_ins(record):
            if _session_id(sign_in.sign_in) == wanted:
                self._tokens.revoke(await self._calls.run(self._store.revoke, sign_in.digests[0], self._now()))
                return
        raise Missing("There is no such session, or it has ended.")

    def signed_in(self, bearer: str | None) -> TokenRecord:
        """Returns the record of a token that a user or guest signed in with.

        Raises:
            Unauthenticated: there is no token, or it is not valid.
            Forbidden: it is a device token.
        """
        record = self._issuer.recognise(bearer)
        self._check_signed_in(record.digest)
        if record.expires_s is None:
            raise Unauthenticated("This token is kept in a file of the relay's and ends with it.")
        return record

    async def _refresh(self, bearer: str | None, address: str, device: str | None) -> Issued:
        device = check_device(device)
        if bearer is None:
            raise Unauthenticated(NO_TOKEN)
        old = digest_of(bearer)
        self._check_signed_in(old)
        kept = await self._calls.run(self._store.find_token, old)
        if kept is None or kept.revoked_s is not None:
            raise Unauthenticated(BAD_TOKEN)
        record = kept.record
        if self._now() >= kept.refreshable_until_s:
            raise Unauthenticated(EXPIRED_TOKEN)
        if record.guest:
            self._check_guests()
        self._issuer.check_room(record.guest)
        pending = self._issuer.make_successor(record, self._hash_of(address), device)
        await self._calls.run(self._store.add_refreshed_token, pending.record, old)
        self._tokens.use(old)
        return await self._issue(pending)

    def _keep(self, count: int, method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Writes the new expiry of tokens to the database; memory has it already, and no call waits for the write."""

        async def write() -> None:
            try:
                await self._calls.run(method, *args, **kwargs)
            except Busy:
                events.TOKEN_TIMES_KEPT.log(count=count)

        Deferred.fromCoroutine(write()).addErrback(_tell_lost_write)

    def password_followed(self, user_id: str, username: str) -> None:
        """Follows a change of a user's name or password that another relay has made.

        Args:
            user_id: the user's id.
            username: the user's name from now on.
        """
        record = self._tokens.find(self._without_token.get(user_id, b""))
        if record is not None and record.username == username:
            self._tokens.revoke((self._without_token.pop(user_id),))

    async def _change_password(self, old: str, new: str, bearer: str | None, address: str) -> None:
        record = self._issuer.recognise(bearer)
        self._check_signed_in(record.digest)
        if record.guest or record.expires_s is None:
            raise BadInput("Only registered users have a password.")
        check_password(new)
        attempt = self.limiter.login(address, fold_name(record.username))
        found = await self._calls.run(self._store.user, record.subject)
        user = await self._verified(found, old, address, attempt, "The old password is wrong.")
        password_hash = await self._passwords.hash(new, address_group(address))
        ended = await self._calls.run(self._store.change_password, user, password_hash, record.digest, self._now())
        without_token = self._without_token.pop(record.subject, None)
        self._tokens.revoke(ended if without_token is None else [*ended, without_token])
        self.password_changed(record.subject)

    def _check_signed_in(self, digest: bytes) -> None:
        """Refuses a device token, since the operator makes and revokes it."""
        if self._tokens.is_device(digest):
            raise Forbidden("This is a device token: the operator of the relay makes, replaces and revokes it.")

    async def _verified(
        self, user: User | None, password: str, address: str, attempt: LoginAttempt, wrong: str
    ) -> User:
        """Returns the user if the password is right; takes the same time when there is no such user."""
        stored = None if user is None else user.password_hash
        try:
            right = await self._passwords.verify(stored, password, address_group(address), attempt.start)
        except BaseException:
            attempt.cancel()
            raise
        if user is None or not right:
            raise Unauthenticated(wrong)
        attempt.succeed()
        return user

    async def _strengthen(self, user: User, password: str, address: str) -> None:
        """Replaces a hash that is weaker than new ones, now that the password is known."""
        if not self._passwords.is_weaker(user.password_hash):
            return
        try:
            stronger = await self._passwords.hash(password, address_group(address))
            await self._calls.run(self._store.replace_hash, user, stronger)
        except Busy:
            events.AUTH_HASH_KEPT.log()

    def _id_or_new(self, user_id: str | None) -> str:
        if user_id is None:
            return make_user_id(self._now_s(), self._random_hex)
        check_user_id(user_id)
        return user_id

    def _claim(self, bearer: str | None) -> Claim:
        return Claim(None if bearer is None else digest_of(bearer), self._open_guest_ids, self._now())

    def _now(self) -> int:
        return int(self._now_s())

    def _caller(self, bearer: str | None) -> Caller:
        """Returns the caller of a valid token; an unknown caller for any other."""
        record = None if bearer is None else self._tokens.find(digest_of(bearer))
        return Caller() if record is None else Caller(record.subject, record.username)

    def logged(
        self, event: str, address: str, work: Coroutine[Deferred[Any], Any, T], who: Caller | None = None
    ) -> Deferred[T]:
        """Makes a call; counts it, logs it, and adds it to the audit log.

        Args:
            event: its name.
            address: the client's.
            work: the coroutine of the call.
            who: the caller, as far as it is known at the end.
        """
        return uncancellable(Deferred.fromCoroutine(self._logged(event, address, work, who or Caller())))

    async def _logged(self, event: str, address: str, work: Coroutine[Deferred[Any], Any, T], who: Caller) -> T:
        outcome, user_id = "error", ""
        try:
            result = await work
            outcome = "ok"
            if isinstance(result, Issued):
                user_id = who.user_id = result.user_id
                who.name = result.username
            return result
        except Refusal as refusal:
            outcome = type(refusal).__name__
            raise
        finally:
            self.outcomes[event, outcome] = self.outcomes.get((event, outcome), 0) + 1
            self._tell(event, address, outcome, user_id)
            self._note(event.replace(" ", "_"), outcome, Actor(who.user_id, who.name, address))


def _session_id(sign_in: bytes) -> str:
    """Returns the public id of a sign-in: the beginning of its first token's digest, which gives no access."""
    return sign_in[:8].hex()


def _tell_lost_write(failure: Failure) -> None:
    events.TOKEN_WRITE_FAULT.failure(failure)


def _no_change(_user_id: str) -> None:
    """Does nothing."""


def _no_note(_event: str, _outcome: str, _who: Actor) -> None:
    """Does nothing."""


def _log_call(event: str, address: str, outcome: str, user_id: str) -> None:
    events.log_auth_call(event, address, outcome, user_id)


def load_tokens(store: UserStore, tokens: TokenTable, known: KnownAddresses, now_s: float) -> None:
    """Fills the tables from the store, so that tokens stay valid after a restart.

    Args:
        store: called on this thread, so before the event loop runs.
        tokens: the table of tokens to fill.
        known: the addresses to fill.
        now_s: Unix seconds.
    """
    now = int(now_s)
    tokens.load(store.valid_tokens(now), store.expired_tokens(now, MAX_EXPIRED))
    for address, folded, last_used_s in store.known_addresses(now, MAX_KEYS):
        known.add(address, folded, last_used_s)
