"""The records of users and tokens, and the interface of the store that keeps them.

:class:`UserStore` is implemented by ``users_sqlite``. Its methods block, and each of them is one transaction: what it
checks still holds when it writes. They are called from one thread at a time, which is never the event loop's.

An id belongs to a user for ever, and to a guest for as long as one of the tokens issued for it is stored, that is until
:data:`GUEST_PROOF_S` after the token's original expiry. Any such token that is not revoked proves the guest's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from clasp_relay.errors import ClaspError

__all__ = [
    "ADDRESS_KEPT_S",
    "GUEST_PROOF_S",
    "MAX_ADDRESSES_PER_USER",
    "USER_TOKEN_KEPT_S",
    "Claim",
    "Disabled",
    "IdentityTaken",
    "InviteGone",
    "KeptToken",
    "KnownAddress",
    "NameConfusable",
    "NameKeys",
    "NameTaken",
    "PersonGone",
    "ResetGone",
    "SignIn",
    "StoreBusy",
    "StoreRefusal",
    "TokenGone",
    "TokenRecord",
    "User",
    "UserChanged",
    "UserStore",
]

GUEST_PROOF_S = 90 * 86_400
"""How long after its expiry a guest's token still proves the guest's id."""

USER_TOKEN_KEPT_S = 7 * 86_400
"""How long a user's expired token is kept, so that its bearer is told «expired» and not «unknown»."""

ADDRESS_KEPT_S = 30 * 86_400
"""How long a client address that a user signed in from is remembered."""

MAX_ADDRESSES_PER_USER = 50
"""How many addresses are remembered for one user, the latest: one a day, and some more."""


class NameKeys(NamedTuple):
    """The keys by which a name is compared: its folded form, and the skeletons of both forms (UTS #39)."""

    folded: str
    skeleton: str
    folded_skeleton: str


@dataclass(frozen=True, slots=True)
class User:
    """A registered user.

    ``created_s`` is in Unix seconds; ``password_changes`` counts how often the user has changed the
    password (a hash that is replaced by a stronger one of the same password does not count).
    """

    user_id: str
    username: str
    password_hash: str
    created_s: int
    password_changes: int = 0
    is_disabled: bool = False
    """Whether an administrator has disabled the account."""

    def __repr__(self) -> str:
        return f"User({self.user_id!r})"


class TokenRecord(NamedTuple):
    """The record of a token. Times are in Unix seconds; ``expires_s`` is None for one that never expires."""

    digest: bytes
    """SHA-256 of the token, which itself is not stored."""
    subject: str
    username: str
    guest: bool
    scopes_name: str
    """The name of its scopes: the policy's, an administrator's, or its own ``scopes``."""
    created_s: int
    expires_s: int | None
    """When it ceases to be valid: later it may still be refreshed, or prove a guest's id."""
    made_for: bytes = b""
    """A keyed hash of the client address that it was made for."""
    sign_in: bytes = b""
    """The digest of the sign-in's first token, in the tokens that replaced it; empty in that one itself."""
    replaces: bytes | None = None
    """The digest of the token that ends once this one is used; None if it has been used, or replaces none."""
    scopes: tuple[str, ...] = ()
    """The scopes of a device token, as ``action:pattern``."""
    device: str = ""
    """The name that the device or program gave when it signed in; may be empty."""

    def __repr__(self) -> str:
        return f"TokenRecord({self.subject!r})"


class KeptToken(NamedTuple):
    """A stored token, the time of its revocation (None if it is not revoked), and its original expiry."""

    record: TokenRecord
    revoked_s: int | None
    first_expires_s: int

    @property
    def refreshable_until_s(self) -> int:
        """Unix seconds until which it can be refreshed; for a guest's token later than its expiry."""
        return self.first_expires_s + (GUEST_PROOF_S if self.record.guest else 0)


class SignIn(NamedTuple):
    """A sign-in with a token that is valid or can be refreshed. Times are in Unix seconds."""

    sign_in: bytes
    """The digest of its first token."""
    device: str
    created_s: int
    refreshed_s: int
    """When its latest token was issued."""
    digests: tuple[bytes, ...]
    """Its tokens."""


class KnownAddress(NamedTuple):
    """A user's sign-in from an address: the keyed hash, the folded username, Unix seconds of the last time."""

    address: bytes
    folded: str
    last_used_s: int


class Claim(NamedTuple):
    """The grounds on which a client claims a guest's id.

    ``proof`` is the digest of the token that was presented; with ``any_guest`` no proof is required; ``now_s`` is in
    Unix seconds.
    """

    proof: bytes | None
    any_guest: bool
    now_s: int


class StoreRefusal(ClaspError):
    """The store refused a change; nothing was written."""


class StoreBusy(StoreRefusal):
    """Another process holds the file; the text says which."""


class NameTaken(StoreRefusal):
    """A registered user has this name."""


class NameConfusable(StoreRefusal):
    """A registered user has a name that looks the same."""


class IdentityTaken(StoreRefusal):
    """A registered user, or a guest who is not the caller, has this id."""


class InviteGone(StoreRefusal):
    """There is no such invite, or it has expired or is used up."""


class Disabled(StoreRefusal):
    """An administrator has disabled the user or guest."""


class PersonGone(StoreRefusal):
    """There is no such user or guest."""


class ResetGone(StoreRefusal):
    """The link for a new password is unknown, used, or too old."""


class TokenGone(StoreRefusal):
    """The token is unknown, revoked, or too old."""


class UserChanged(StoreRefusal):
    """The user was deleted, or the password is no longer the one that was verified."""


class Invite(NamedTuple):
    """An invite to register. Times are in Unix seconds; None for never."""

    digest: bytes
    """SHA-256 of the invite, which itself is not stored."""
    created_s: int
    expires_s: int | None
    uses_left: int
    """How many users may still register with it."""

    @property
    def id(self) -> str:
        """Its id for the operator: the first digits of its digest."""
        return self.digest.hex()[:8]


class UserStore(Protocol):
    """Users and tokens; see the module. A method may raise ``StoreBusy``, and errors of the storage beneath it."""

    def find_user(self, spellings: Sequence[str], folded: str) -> User | None:
        """Finds the user who signs in under a name.

        Args:
            spellings: exact names, tried first and in this order.
            folded: the name irrespective of case; of several such users the oldest is returned.
        """

    def check_new_user(self, user_id: str, keys: NameKeys, claim: Claim) -> None:
        """Checks that a user could be added.

        Raises:
            NameTaken: the name is a user's.
            NameConfusable: it looks like a user's.
            IdentityTaken: the id is a user's, or a guest's to whom ``claim`` does not entitle, or was deleted.
            Disabled: the id is disabled.
        """

    def add_invite(self, digest: bytes, now_s: int, expires_s: int | None, uses: int) -> None:
        """Adds an invite.

        Args:
            digest: its SHA-256.
            now_s: Unix seconds; invites that have expired are deleted.
            expires_s: Unix seconds; None for never.
            uses: how many users may register with it.
        """

    def check_invite(self, digest: bytes, now_s: int) -> None:
        """Checks that an invite is valid.

        Raises:
            InviteGone: it is not.
        """

    def add_user(
        self, user: User, keys: NameKeys, token: TokenRecord, claim: Claim, invite: bytes | None = None
    ) -> None:
        """Adds a user and a token, and remembers the address that the token was made for.

        Args:
            user: the user.
            keys: of the name.
            token: the first token.
            claim: the grounds for the id.
            invite: the SHA-256 of an invite, of which one use is taken; None if none is needed.

        Raises:
            InviteGone: the invite is not valid.
            NameTaken: as ``check_new_user``.
            NameConfusable: likewise.
            IdentityTaken: likewise.
        """

    def add_guest_token(self, token: TokenRecord, keys: NameKeys, claim: Claim) -> None:
        """Adds a guest's token.

        Raises:
            NameTaken: as ``check_new_user``.
            NameConfusable: likewise.
            IdentityTaken: likewise.
        """

    def add_user_token(self, token: TokenRecord, password_changes: int) -> None:
        """Adds the token of a user whose password was verified when ``password_changes`` had this value.

        The address that the token was made for is remembered as the user's.

        Raises:
            UserChanged: the password was changed since then, or the user was deleted.
            Disabled: the user is disabled.
        """

    def add_refreshed_token(self, token: TokenRecord, old: bytes) -> None:
        """Adds a token for the bearer of another one, which stays as it is.

        Raises:
            TokenGone: the old one is unknown, revoked, or too old; or it was a guest's whose id is a user's now.
            Disabled: the user or guest is disabled.
        """

    def end_replaced(self, digest: bytes, end_s: int) -> None:
        """Ends the token that another one replaces, since that one was used.

        Args:
            digest: of the new token.
            end_s: Unix seconds when the old one ends, if not earlier.
        """

    def end(self, digests: Sequence[bytes], now_s: int) -> None:
        """Ends tokens early, for a limit; they can still be refreshed and prove a guest's id."""

    def redate(self, digests: Sequence[bytes], by_s: int) -> None:
        """Moves the times of tokens that were issued while the machine's clock was not set."""

    def find_token(self, digest: bytes) -> KeptToken | None:
        """Returns a stored token, valid or not; None if there is none."""

    def revoke(self, digest: bytes, now_s: int) -> list[bytes]:
        """Revokes a token and all others of the same sign-in.

        Returns:
            the digests of those that were valid until now.

        Raises:
            TokenGone: it is unknown or revoked already.
        """

    def sign_ins(self, subject: str, now_s: int) -> list[SignIn]:
        """Returns a subject's sign-ins with a token that is valid or can be refreshed, the latest first."""

    def change_password(self, user: User, password_hash: str, keep: bytes, now_s: int) -> list[bytes]:
        """Gives a user another password and revokes all tokens of that subject but ``keep``.

        Args:
            user: as it was when the old password was verified.
            password_hash: of the new password.
            keep: the digest of the token that was presented.
            now_s: Unix seconds.

        Returns:
            the digests of the tokens that were valid until now.

        Raises:
            UserChanged: the password was changed meanwhile, or the user was deleted.
            TokenGone: ``keep`` was revoked meanwhile.
        """

    def user(self, user_id: str) -> User | None:
        """Returns a user by id; None if there is none."""

    def replace_hash(self, user: User, password_hash: str) -> None:
        """Stores a stronger hash of the same password, unless the stored one is no longer ``user``'s."""

    def valid_tokens(self, now_s: int) -> list[TokenRecord]:
        """Returns all tokens that are neither expired nor revoked, the first to expire first."""

    def expired_tokens(self, now_s: int, limit: int) -> list[bytes]:
        """Returns the digests of the tokens that expired last (and were not revoked), the last first."""

    def known_addresses(self, now_s: int, limit: int) -> list[KnownAddress]:
        """Returns the addresses that users have signed in from lately, at most ``limit``; the latest last."""

    def last_issued(self, subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
        """Returns when the last token of each guest was issued, and spares the record of that token from ``purge``.

        Args:
            subjects: ids of guests, or of users; a few hundred at most.
            is_first: whether these are the first ids of a round: then tokens that the last round spared may be purged.

        Returns:
            Unix seconds by id, None for a user. For an id without a stored token it is the time of the oldest stored
            token of all; if there is none (a new file), that id is missing.
        """

    def purge(self, now_s: int, limit: int) -> int:
        """Deletes old tokens and addresses, at most ``limit`` each; returns the number of deleted tokens."""

    def close(self) -> None:
        """Closes the store."""
