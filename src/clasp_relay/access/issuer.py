"""Issues tokens, and recognises the ones that clients present."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clasp_relay.access.refusals import Busy, Unauthenticated
from clasp_relay.access.tokens import (
    POLICY_SCOPES,
    TokenExpired,
    TokenRecord,
    TokenTable,
    TokenUnknown,
    digest_of,
    make_token,
)

__all__ = ["BAD_TOKEN", "EXPIRED_TOKEN", "NO_TOKEN", "Issued", "Issuer", "PendingToken"]

NO_TOKEN = "Sign in first: send your token as «Authorization: Bearer …»."  # noqa: S105
BAD_TOKEN = "This token is not valid. Sign in again."  # noqa: S105
EXPIRED_TOKEN = "This token has expired. Sign in again."  # noqa: S105

_RETRY_AFTER_S = 60
"""Seconds to wait when too many tokens are valid; some expire all the time."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just issued. It is in clear nowhere else."""

    token: str = field(repr=False)
    user_id: str
    username: str


ENDLESS_S = 3_155_760_000
"""A hundred years, for tokens that do not expire; every stored token has an expiry."""


@dataclass(frozen=True, slots=True)
class PendingToken:
    """A token that is not committed yet."""

    token: str = field(repr=False)
    record: TokenRecord


class Issuer:
    """Issues tokens.

    Args:
        tokens: the valid tokens.
        token_ttl_s: seconds that a new token is valid; 0 for a hundred years.
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
    """

    def __init__(
        self,
        tokens: TokenTable,
        token_ttl_s: int,
        now_s: Callable[[], float],
        random_hex: Callable[[int], str],
    ) -> None:
        self._tokens = tokens
        self._token_ttl_s = token_ttl_s or ENDLESS_S
        self._now_s = now_s
        self._random_hex = random_hex

    def check_room(self, guest: bool) -> None:
        """Checks that one more token may be issued.

        Raises:
            Busy: too many are valid.
        """
        if not self._tokens.has_room(guest):
            raise Busy("Too many people are signed in. Try again in a minute.", _RETRY_AFTER_S)

    def make(self, subject: str, username: str, guest: bool, made_for: bytes, device: str = "") -> PendingToken:
        """Returns a new token, to be committed.

        Args:
            subject: the id of its user or guest.
            username: the name of that user or guest.
            guest: whether it is a guest's.
            made_for: a keyed hash of the client address.
            device: the device's own name.
        """
        token = make_token(self._random_hex)
        now = int(self._now_s())
        expires_s = now + self._token_ttl_s
        record = TokenRecord(digest_of(token), subject, username, guest, POLICY_SCOPES, now, expires_s, made_for)
        record = record._replace(device=device)
        return PendingToken(token, record)

    def make_successor(self, old: TokenRecord, made_for: bytes, device: str = "") -> PendingToken:
        """Returns a token that replaces another one, to be committed; without ``device`` it keeps the old name."""
        pending = self.make(old.subject, old.username, old.guest, made_for, device or old.device)
        record = pending.record._replace(sign_in=old.sign_in or old.digest, replaces=old.digest)
        return PendingToken(pending.token, record)

    def issue(self, pending: PendingToken) -> Issued:
        """Makes a committed token valid."""
        self._tokens.add(pending.record, is_stored=True)
        return Issued(pending.token, pending.record.subject, pending.record.username)

    def recognise(self, bearer: str | None) -> TokenRecord:
        """Returns the record of a token.

        Raises:
            Unauthenticated: there is none, or it is not valid.
        """
        if bearer is None:
            raise Unauthenticated(NO_TOKEN)
        try:
            return self._tokens.lookup(bearer)
        except TokenExpired:
            raise Unauthenticated(EXPIRED_TOKEN) from None
        except TokenUnknown:
            raise Unauthenticated(BAD_TOKEN) from None
