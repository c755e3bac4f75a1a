"""What is kept about users and tokens, and what may be asked of whoever keeps it.

:class:`UserStore` is implemented by ``users_sqlite``. Its methods block, and each of them is one transaction: what it
checks still holds when it writes. They are called from one thread at a time, which is never the event loop's.

Whose id is it? A user's for ever; a guest's for as long as one of the tokens made for it is kept, which is
:data:`GUEST_PROOF_S` after it expires. Any of these tokens that is not revoked proves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from clasp_relay.errors import ClaspError

__all__ = [
    "GUEST_PROOF_S",
    "MAX_TOKENS_PER_SUBJECT",
    "USER_TOKEN_KEPT_S",
    "Claim",
    "IdentityTaken",
    "KeptToken",
    "NameTaken",
    "StoreRefusal",
    "TokenGone",
    "TokenRecord",
    "TooManyTokens",
    "User",
    "UserChanged",
    "UserStore",
    "kept_for_s",
]

GUEST_PROOF_S = 90 * 86_400
"""How long after its expiry a guest's token still proves whose id it is."""

USER_TOKEN_KEPT_S = 7 * 86_400
"""How long a user's expired token is remembered, to be told that it has expired and not that it is unknown."""

MAX_TOKENS_PER_SUBJECT = 250
"""Valid tokens that one subject may have at once: more sign-ins a day than anybody needs, and little memory."""


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

    def __repr__(self) -> str:
        return f"User({self.user_id!r})"


class TokenRecord(NamedTuple):
    """What a token stands for. Times are in Unix seconds; ``expires_s`` is None for one that never does."""

    digest: bytes
    """SHA-256 of the token, which itself is kept nowhere."""
    subject: str
    username: str
    guest: bool
    scopes_name: str
    """Which scopes it carries: the policy's, or an administrator's."""
    created_s: int
    expires_s: int | None

    def __repr__(self) -> str:
        return f"TokenRecord({self.subject!r})"


class KeptToken(NamedTuple):
    """A stored token, and when it was revoked (None: it was not)."""

    record: TokenRecord
    revoked_s: int | None


class Claim(NamedTuple):
    """Why somebody should get a guest's id.

    ``proof`` is the digest of the token that was presented; ``any_guest`` says that no proof is asked for;
    ``now_s`` is in Unix seconds.
    """

    proof: bytes | None
    any_guest: bool
    now_s: int


class StoreRefusal(ClaspError):
    """What was asked cannot be written; nothing was."""


class NameTaken(StoreRefusal):
    """A registered user has this name."""


class IdentityTaken(StoreRefusal):
    """A registered user, or a guest who is not the caller, has this id."""


class TokenGone(StoreRefusal):
    """The token is unknown, revoked, or too old."""


class UserChanged(StoreRefusal):
    """The user is gone, or the password is no longer the one that was verified."""


class TooManyTokens(StoreRefusal):
    """The subject has as many valid tokens as it may.

    Args:
        retry_after_s: seconds until one of them expires.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"{MAX_TOKENS_PER_SUBJECT} tokens are valid")
        self.retry_after_s = retry_after_s


def kept_for_s(guest: bool) -> int:
    """Returns for how many seconds after its expiry a token is kept."""
    return GUEST_PROOF_S if guest else USER_TOKEN_KEPT_S


class UserStore(Protocol):
    """Users and tokens; see the module. Every method may raise what the storage beneath it raises."""

    def find_user(self, spellings: Sequence[str], folded: str) -> User | None:
        """Returns who signs in under a name.

        Args:
            spellings: exact names, tried first and in this order.
            folded: the name irrespective of case; of several users the oldest is meant.
        """

    def check_new_user(self, user_id: str, folded: str, claim: Claim) -> None:
        """Checks that a user could be added.

        Raises:
            NameTaken: the name is a user's.
            IdentityTaken: the id is a user's, or a guest's to whom ``claim`` does not entitle.
        """

    def add_user(self, user: User, folded: str, token: TokenRecord, claim: Claim) -> None:
        """Adds a user and a token.

        Raises:
            NameTaken: as ``check_new_user``.
            IdentityTaken: likewise.
        """

    def add_guest_token(self, token: TokenRecord, folded: str, claim: Claim) -> None:
        """Adds a guest's token.

        Raises:
            NameTaken: as ``check_new_user``.
            IdentityTaken: likewise.
            TooManyTokens: the guest has too many.
        """

    def add_user_token(self, token: TokenRecord, password_changes: int) -> None:
        """Adds the token of a user whose password was verified when it had been changed that often.

        Raises:
            UserChanged: it has been changed since, or the user is gone.
            TooManyTokens: the user has too many.
        """

    def add_refreshed_token(self, token: TokenRecord, old: bytes) -> None:
        """Adds a token for the bearer of another one, which stays as it is.

        Raises:
            TokenGone: the old one is unknown, revoked, or too old; or it was a guest's whose id is a user's now.
            TooManyTokens: the subject has too many.
        """

    def find_token(self, digest: bytes) -> KeptToken | None:
        """Returns a token that is still kept, valid or not."""

    def revoke(self, digest: bytes, now_s: int) -> None:
        """Revokes a token.

        Raises:
            TokenGone: it is unknown or revoked already.
        """

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
            UserChanged: the password was changed meanwhile, or the user is gone.
            TokenGone: ``keep`` was revoked meanwhile.
        """

    def user(self, user_id: str) -> User | None:
        """Returns a user."""

    def replace_hash(self, user: User, password_hash: str) -> None:
        """Stores a stronger hash of the same password, unless the stored one is no longer ``user``'s."""

    def valid_tokens(self, now_s: int) -> list[TokenRecord]:
        """Returns all tokens that are neither expired nor revoked, the first to expire first."""

    def expired_tokens(self, now_s: int, limit: int) -> list[bytes]:
        """Returns the digests of the tokens that expired last (and were not revoked), the last first."""

    def purge(self, now_s: int, limit: int) -> int:
        """Removes tokens that need not be kept any more, at most ``limit``; returns how many."""

    def close(self) -> None:
        """Ends the use of the store."""
