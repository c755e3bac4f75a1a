"""Users and tokens in memory: for tests, and for a relay that is to forget everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from clasp_relay.storage.users import (
    MAX_TOKENS_PER_SUBJECT,
    Claim,
    IdentityTaken,
    KeptToken,
    NameTaken,
    TokenGone,
    TokenRecord,
    TooManyTokens,
    User,
    UserChanged,
    kept_for_s,
)

__all__ = ["MemoryUsers"]


class MemoryUsers:
    """A :class:`UserStore` that is gone with the process.

    Args:
        fold: makes equal what counts as one name.
    """

    def __init__(self, fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._users: dict[str, User] = {}
        self._tokens: dict[bytes, KeptToken] = {}

    def find_user(self, spellings: Sequence[str], folded: str) -> User | None:
        """As :meth:`UserStore.find_user`."""
        by_name = {user.username: user for user in self._users.values()}
        for spelling in spellings:
            if spelling in by_name:
                return by_name[spelling]
        alike = [user for user in self._users.values() if self._fold(user.username) == folded]
        return min(alike, key=lambda user: (user.created_s, user.user_id), default=None)

    def user(self, user_id: str) -> User | None:
        """As :meth:`UserStore.user`."""
        return self._users.get(user_id)

    def check_new_user(self, user_id: str, folded: str, claim: Claim) -> None:
        """As :meth:`UserStore.check_new_user`."""
        self._check_name(folded)
        self._check_identity(user_id, claim)

    def add_user(self, user: User, folded: str, token: TokenRecord, claim: Claim) -> None:
        """As :meth:`UserStore.add_user`."""
        self.check_new_user(user.user_id, folded, claim)
        self._users[user.user_id] = user
        self._tokens[token.digest] = KeptToken(token, None)

    def add_guest_token(self, token: TokenRecord, folded: str, claim: Claim) -> None:
        """As :meth:`UserStore.add_guest_token`."""
        self.check_new_user(token.subject, folded, claim)
        self._add(token)

    def add_user_token(self, token: TokenRecord, password_changes: int) -> None:
        """As :meth:`UserStore.add_user_token`."""
        user = self._users.get(token.subject)
        if user is None or user.password_changes != password_changes:
            raise UserChanged
        self._add(token)

    def add_refreshed_token(self, token: TokenRecord, old: bytes) -> None:
        """As :meth:`UserStore.add_refreshed_token`."""
        kept = self._tokens.get(old)
        if kept is None or kept.revoked_s is not None or not _is_refreshable(kept.record, token.created_s):
            raise TokenGone
        if kept.record.guest == (token.subject in self._users):
            raise TokenGone
        self._add(token)

    def find_token(self, digest: bytes) -> KeptToken | None:
        """As :meth:`UserStore.find_token`."""
        return self._tokens.get(digest)

    def revoke(self, digest: bytes, now_s: int) -> None:
        """As :meth:`UserStore.revoke`."""
        kept = self._tokens.get(digest)
        if kept is None or kept.revoked_s is not None:
            raise TokenGone
        self._tokens[digest] = kept._replace(revoked_s=now_s)

    def change_password(self, user: User, password_hash: str, keep: bytes, now_s: int) -> list[bytes]:
        """As :meth:`UserStore.change_password`."""
        now = self._users.get(user.user_id)
        if now is None or now.password_changes != user.password_changes:
            raise UserChanged
        kept = self._tokens.get(keep)
        if kept is None or kept.revoked_s is not None:
            raise TokenGone
        self._users[user.user_id] = replace(now, password_hash=password_hash, password_changes=now.password_changes + 1)
        others = [
            kept.record
            for kept in self._tokens.values()
            if kept.record.subject == user.user_id and kept.record.digest != keep and kept.revoked_s is None
        ]
        for record in others:
            self.revoke(record.digest, now_s)
        return [record.digest for record in others if _is_valid(record, now_s)]

    def replace_hash(self, user: User, password_hash: str) -> None:
        """As :meth:`UserStore.replace_hash`."""
        now = self._users.get(user.user_id)
        if now is not None and now.password_hash == user.password_hash:
            self._users[user.user_id] = replace(now, password_hash=password_hash)

    def valid_tokens(self, now_s: int) -> list[TokenRecord]:
        """As :meth:`UserStore.valid_tokens`."""
        records = [kept.record for kept in self._tokens.values() if kept.revoked_s is None]
        return sorted((record for record in records if _is_valid(record, now_s)), key=_expiry)

    def expired_tokens(self, now_s: int, limit: int) -> list[bytes]:
        """As :meth:`UserStore.expired_tokens`."""
        records = [kept.record for kept in self._tokens.values() if kept.revoked_s is None]
        expired = sorted((record for record in records if not _is_valid(record, now_s)), key=_expiry, reverse=True)
        return [record.digest for record in expired[:limit]]

    def purge(self, now_s: int, limit: int) -> int:
        """As :meth:`UserStore.purge`."""
        old = [digest for digest, kept in self._tokens.items() if not _is_kept(kept.record, now_s)][:limit]
        for digest in old:
            del self._tokens[digest]
        return len(old)

    def close(self) -> None:
        """As :meth:`UserStore.close`."""

    def _check_name(self, folded: str) -> None:
        if any(self._fold(user.username) == folded for user in self._users.values()):
            raise NameTaken

    def _check_identity(self, user_id: str, claim: Claim) -> None:
        if user_id in self._users:
            raise IdentityTaken
        tokens = [
            kept
            for kept in self._tokens.values()
            if kept.record.subject == user_id and kept.record.guest and _is_kept(kept.record, claim.now_s)
        ]
        proven = any(kept.record.digest == claim.proof and kept.revoked_s is None for kept in tokens)
        if tokens and not proven and not claim.any_guest:
            raise IdentityTaken

    def _add(self, token: TokenRecord) -> None:
        expiries = [
            _expiry(kept.record)
            for kept in self._tokens.values()
            if kept.record.subject == token.subject
            and kept.revoked_s is None
            and _is_valid(kept.record, token.created_s)
        ]
        if len(expiries) >= MAX_TOKENS_PER_SUBJECT:
            raise TooManyTokens(min(expiries) - token.created_s)
        self._tokens[token.digest] = KeptToken(token, None)


def _expiry(record: TokenRecord) -> int:
    if record.expires_s is None:
        raise AssertionError("a stored token expires; one that does not is kept in its own file")
    return record.expires_s


def _is_valid(record: TokenRecord, now_s: int) -> bool:
    return now_s < _expiry(record)


def _is_kept(record: TokenRecord, now_s: int) -> bool:
    return now_s < _expiry(record) + kept_for_s(record.guest)


def _is_refreshable(record: TokenRecord, now_s: int) -> bool:
    return _is_kept(record, now_s) if record.guest else _is_valid(record, now_s)
