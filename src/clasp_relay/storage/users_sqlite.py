"""Users and tokens in a SQLite file (its tables are in ``schema/``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sys import intern
from typing import Any

from clasp_relay.storage.administration import AdminStore
from clasp_relay.storage.audit import AuditStore
from clasp_relay.storage.devices import DeviceStore
from clasp_relay.storage.hooks import HookStore
from clasp_relay.storage.push_subscriptions import PushStore
from clasp_relay.storage.sent_files import SentFileStore
from clasp_relay.storage.session_ids import SessionIdStore
from clasp_relay.storage.users import (
    ADDRESS_KEPT_S,
    GUEST_PROOF_S,
    MAX_ADDRESSES_PER_USER,
    USER_TOKEN_KEPT_S,
    Claim,
    Disabled,
    IdentityTaken,
    Invite,
    InviteGone,
    KeptToken,
    KnownAddress,
    NameConfusable,
    NameKeys,
    NameTaken,
    SignIn,
    TokenGone,
    TokenRecord,
    User,
    UserChanged,
)
from clasp_relay.storage.users_file import damaged, open_users_file, open_users_in_memory, transaction
from clasp_relay.storage.users_rows import RowStore

__all__ = ["SqliteUsers"]

_USER = (
    "SELECT id, username, password_hash, created_at, COALESCE(password_changes, 0),"
    " EXISTS (SELECT 1 FROM disabled_subjects WHERE subject = id)"
    " FROM users LEFT JOIN user_facts ON user_id = id"
)
_TOKEN = (
    "SELECT digest, subject, username, guest, scopes_name, created_at, expires_at, made_for, sign_in, replaces,"  # noqa: S105
    " revoked_at, first_expires_at, device FROM tokens"
)
_NOT_SPARED = "digest NOT IN (SELECT digest FROM temp.spared_tokens)"


class SqliteUsers:
    """A :class:`UserStore` in a file.

    Args:
        path: the file, which is made if it is missing; None keeps everything in memory.
        keys_of: returns the keys by which a name is compared.
        max_guest_tokens_per_address: how many guests' tokens are stored that were made for one client address; 0 for
            no limit.

    Raises:
        StartError: the file cannot be used.
    """

    def __init__(
        self, path: Path | None, keys_of: Callable[[str], NameKeys], max_guest_tokens_per_address: int = 0
    ) -> None:
        self._path = path
        self._max_guest_tokens_per_address = max_guest_tokens_per_address
        self._db = open_users_in_memory(keys_of) if path is None else open_users_file(path, keys_of)
        self.devices = DeviceStore(self._db)
        """The device tokens. The methods of this store and the following ones are called on this one's thread."""
        self.hooks = HookStore(self._db)
        self.session_ids = SessionIdStore(self._db)
        self.audit = AuditStore(self._db)
        self.administration = AdminStore(self._db, self.audit)
        """The decisions of administrators."""
        self.push = PushStore(self._db)
        self.files = SentFileStore(self._db)
        """The records of sent files in a cluster."""
        self.rows = RowStore(self._db)
        """All tables as rows, for a relay of a cluster."""
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.execute("CREATE TEMP TABLE spared_tokens (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        """As :meth:`UserStore.close`."""
        self._db.close()

    def find_user(self, spellings: Sequence[str], folded: str) -> User | None:
        """As :meth:`UserStore.find_user`."""
        for spelling in spellings:
            user = self._one_user(f"{_USER} WHERE username = ?", spelling)
            if user is not None:
                return user
        return self._one_user(f"{_USER} WHERE folded_name = ? ORDER BY created_at, id LIMIT 1", folded)

    def user(self, user_id: str) -> User | None:
        """As :meth:`UserStore.user`."""
        return self._one_user(f"{_USER} WHERE id = ?", user_id)

    def check_new_user(self, user_id: str, keys: NameKeys, claim: Claim) -> None:
        """As :meth:`UserStore.check_new_user`."""
        if self._any("SELECT 1 FROM user_facts WHERE folded_name = ?", keys.folded):
            raise NameTaken
        if self._any(
            "SELECT 1 FROM user_facts WHERE skeleton = ? OR folded_skeleton = ?", keys.skeleton, keys.folded_skeleton
        ):
            raise NameConfusable
        self._check_enabled(user_id)
        taken = "SELECT 1 FROM users WHERE id = ? UNION ALL SELECT 1 FROM retired_ids WHERE id = ?"
        if self._any(taken, user_id, user_id):
            raise IdentityTaken
        if self._any("SELECT 1 FROM device_tokens WHERE subject = ?", user_id):
            raise IdentityTaken
        kept = "SELECT 1 FROM tokens WHERE subject = ? AND guest AND first_expires_at > ?"
        kept_after_s = claim.now_s - GUEST_PROOF_S
        if claim.any_guest or not self._any(kept, user_id, kept_after_s):
            return
        if not self._any(f"{kept} AND revoked_at IS NULL AND digest = ?", user_id, kept_after_s, claim.proof):
            raise IdentityTaken

    def add_invite(self, digest: bytes, now_s: int, expires_s: int | None, uses: int) -> None:
        """As :meth:`UserStore.add_invite`."""
        with transaction(self._db):
            self._db.execute("DELETE FROM invites WHERE expires_at <= ?", (now_s,))
            self._db.execute("INSERT INTO invites VALUES (?, ?, ?, ?)", (digest, now_s, expires_s, uses))

    def invites(self, now_s: int) -> list[Invite]:
        """Returns the invites that are valid, the oldest first."""
        query = (
            "SELECT digest, created_at, expires_at, uses_left FROM invites WHERE expires_at IS NULL OR expires_at > ?"
        )
        rows = self._db.execute(f"{query} ORDER BY created_at, digest", (now_s,))
        return [Invite(*row) for row in rows]

    def revoke_invite(self, invite_id: str) -> None:
        """Deletes an invite.

        Raises:
            InviteGone: there is none with that id.
        """
        query = "DELETE FROM invites WHERE lower(substr(hex(digest), 1, 8)) = ?"
        if self._db.execute(query, (invite_id,)).rowcount == 0:
            raise InviteGone

    def check_invite(self, digest: bytes, now_s: int) -> None:
        """As :meth:`UserStore.check_invite`."""
        valid = "SELECT 1 FROM invites WHERE digest = ? AND (expires_at IS NULL OR expires_at > ?)"
        if not self._any(valid, digest, now_s):
            raise InviteGone

    def add_user(
        self, user: User, keys: NameKeys, token: TokenRecord, claim: Claim, invite: bytes | None = None
    ) -> None:
        """As :meth:`UserStore.add_user`."""
        with transaction(self._db):
            self.check_new_user(user.user_id, keys, claim)
            if invite is not None:
                self.check_invite(invite, claim.now_s)
                self._db.execute("UPDATE invites SET uses_left = uses_left - 1 WHERE digest = ?", (invite,))
                self._db.execute("DELETE FROM invites WHERE uses_left <= 0")
            self._db.execute(
                "INSERT INTO users (id, username, password_hash, created_at) VALUES (?, ?, ?, ?)",
                (user.user_id, user.username, user.password_hash, user.created_s),
            )
            self._db.execute(
                "INSERT INTO user_facts (user_id, folded_name, skeleton, folded_skeleton) VALUES (?, ?, ?, ?)",
                (user.user_id, *keys),
            )
            self._insert(token)
            self._remember_address(token)

    def add_guest_token(self, token: TokenRecord, keys: NameKeys, claim: Claim) -> None:
        """As :meth:`UserStore.add_guest_token`."""
        with transaction(self._db):
            self.check_new_user(token.subject, keys, claim)
            self._insert(token)

    def add_user_token(self, token: TokenRecord, password_changes: int) -> None:
        """As :meth:`UserStore.add_user_token`."""
        with transaction(self._db):
            self._check_unchanged(token.subject, password_changes)
            self._check_enabled(token.subject)
            self._insert(token)
            self._remember_address(token)

    def add_refreshed_token(self, token: TokenRecord, old: bytes) -> None:
        """As :meth:`UserStore.add_refreshed_token`."""
        with transaction(self._db):
            self._check_enabled(token.subject)
            current = self._any(
                "SELECT 1 FROM tokens WHERE digest = ? AND revoked_at IS NULL AND first_expires_at + guest * ? > ?"
                " AND guest <> EXISTS (SELECT 1 FROM users WHERE id = subject)",
                old,
                GUEST_PROOF_S,
                token.created_s,
            )
            if not current:
                raise TokenGone
            self._insert(token)

    def end_replaced(self, digest: bytes, end_s: int) -> None:
        """As :meth:`UserStore.end_replaced`."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE tokens SET expires_at = MIN(expires_at, ?)"
                " WHERE digest = (SELECT replaces FROM tokens WHERE digest = ?)",
                (end_s, digest),
            )
            self._db.execute("UPDATE tokens SET replaces = NULL WHERE digest = ?", (digest,))

    def end(self, digests: Sequence[bytes], now_s: int) -> None:
        """As :meth:`UserStore.end`."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE tokens SET expires_at = MIN(expires_at, ?) WHERE digest = ?",
                [(now_s, digest) for digest in digests],
            )

    def redate(self, digests: Sequence[bytes], by_s: int) -> None:
        """As :meth:`UserStore.redate`."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE tokens SET created_at = created_at + ?, expires_at = expires_at + ?,"
                " first_expires_at = first_expires_at + ?, signed_in_at = signed_in_at + ? WHERE digest = ?",
                [(by_s, by_s, by_s, by_s, digest) for digest in digests],
            )

    def find_token(self, digest: bytes) -> KeptToken | None:
        """As :meth:`UserStore.find_token`."""
        row = self._db.execute(f"{_TOKEN} WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else KeptToken(_record(row), row[10], row[11])

    def revoke(self, digest: bytes, now_s: int) -> list[bytes]:
        """As :meth:`UserStore.revoke`."""
        with transaction(self._db):
            row = self._db.execute(
                "SELECT subject, sign_in FROM tokens WHERE digest = ? AND revoked_at IS NULL", (digest,)
            ).fetchone()
            if row is None:
                raise TokenGone
            return self._revoke("subject = ? AND sign_in = ?", row, now_s)

    def sign_ins(self, subject: str, now_s: int) -> list[SignIn]:
        """As :meth:`UserStore.sign_ins`."""
        # With MAX() SQLite takes the other columns from the row with the greatest value: the latest device name.
        rows = self._db.execute(
            "SELECT sign_in, device, signed_in_at, MAX(created_at), group_concat(hex(digest)) FROM tokens"
            " WHERE subject = ? AND revoked_at IS NULL AND (expires_at > ? OR (first_expires_at + guest * ? > ?"
            " AND guest <> EXISTS (SELECT 1 FROM users WHERE id = subject)))"
            " GROUP BY sign_in ORDER BY MAX(created_at) DESC, sign_in",
            (subject, now_s, GUEST_PROOF_S, now_s),
        )
        return [
            SignIn(sign_in, device, created_s, refreshed_s, tuple(map(bytes.fromhex, digests.split(","))))
            for sign_in, device, created_s, refreshed_s, digests in rows
        ]

    def change_password(self, user: User, password_hash: str, keep: bytes, now_s: int) -> list[bytes]:
        """As :meth:`UserStore.change_password`."""
        with transaction(self._db):
            self._check_unchanged(user.user_id, user.password_changes)
            if not self._any("SELECT 1 FROM tokens WHERE digest = ? AND revoked_at IS NULL", keep):
                raise TokenGone
            self._db.execute("UPDATE users SET password_hash = ? WHERE id = ?", (password_hash, user.user_id))
            self._db.execute("DELETE FROM password_resets WHERE user_id = ?", (user.user_id,))
            self._db.execute(
                "UPDATE user_facts SET password_changes = password_changes + 1 WHERE user_id = ?", (user.user_id,)
            )
            return self._revoke("subject = ? AND digest <> ?", (user.user_id, keep), now_s)

    def replace_hash(self, user: User, password_hash: str) -> None:
        """As :meth:`UserStore.replace_hash`."""
        self._db.execute(
            "UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?",
            (password_hash, user.user_id, user.password_hash),
        )

    def valid_tokens(self, now_s: int) -> list[TokenRecord]:
        """As :meth:`UserStore.valid_tokens`.

        Raises:
            StartError: the table is damaged.
        """
        with self._damage_told():
            rows = self._db.execute(
                f"{_TOKEN} WHERE expires_at > ? AND revoked_at IS NULL ORDER BY expires_at", (now_s,)
            )
            return [_record(row) for row in rows]

    def expired_tokens(self, now_s: int, limit: int) -> list[bytes]:
        """As :meth:`UserStore.expired_tokens`.

        Raises:
            StartError: the table is damaged.
        """
        with self._damage_told():
            rows = self._db.execute(
                "SELECT digest FROM tokens WHERE expires_at <= ? AND revoked_at IS NULL"
                " ORDER BY expires_at DESC LIMIT ?",
                (now_s, limit),
            )
            return [row[0] for row in rows]

    def known_addresses(self, now_s: int, limit: int) -> list[KnownAddress]:
        """As :meth:`UserStore.known_addresses`.

        Raises:
            StartError: the table is damaged.
        """
        with self._damage_told():
            rows = self._db.execute(
                "SELECT address, folded_name, last_used_at FROM sign_in_addresses JOIN user_facts USING (user_id)"
                " WHERE last_used_at > ? ORDER BY last_used_at DESC LIMIT ?",
                (now_s - ADDRESS_KEPT_S, limit),
            )
            return [KnownAddress(*row) for row in rows][::-1]

    def folded_names(self, user_ids: Sequence[str]) -> dict[str, str]:
        """Returns the names of users irrespective of case, by id."""
        places = ", ".join("?" * len(user_ids))
        rows = self._db.execute(
            f"SELECT user_id, folded_name FROM user_facts WHERE user_id IN ({places})",  # noqa: S608 - placeholders
            user_ids,
        )
        return dict(rows.fetchall())

    def last_issued(self, subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
        """As :meth:`UserStore.last_issued`."""
        if is_first:
            self._db.execute("DELETE FROM temp.spared_tokens")
        places = ", ".join("?" * len(subjects))
        # With MAX() SQLite takes the other columns from the row with the greatest value.
        newest = self._db.execute(
            f"SELECT subject, MAX(created_at), digest FROM tokens WHERE guest AND subject IN ({places})"  # noqa: S608
            " GROUP BY subject",
            subjects,
        ).fetchall()
        users = self._db.execute(f"SELECT id FROM users WHERE id IN ({places})", subjects)  # noqa: S608 - placeholders
        issued: dict[str, int | None] = {subject: created_s for subject, created_s, _ in newest}
        issued.update((row[0], None) for row in users)
        if len(issued) < len(subjects):
            (oldest_s,) = self._db.execute("SELECT MIN(created_at) FROM tokens").fetchone()
            if oldest_s is not None:
                issued = dict.fromkeys(subjects, oldest_s) | issued
        self._db.executemany(
            "INSERT OR IGNORE INTO temp.spared_tokens (digest) VALUES (?)",
            [(digest,) for subject, _, digest in newest if issued[subject] is not None],
        )
        return issued

    def purge(self, now_s: int, limit: int) -> int:
        """As :meth:`UserStore.purge`."""
        self._db.execute(
            "DELETE FROM sign_in_addresses WHERE (user_id, address) IN"
            " (SELECT user_id, address FROM sign_in_addresses WHERE last_used_at <= ? LIMIT ?)",
            (now_s - ADDRESS_KEPT_S, limit),
        )
        purged = self._db.execute(
            "DELETE FROM tokens WHERE digest IN (SELECT digest FROM tokens WHERE first_expires_at <= ?"  # noqa: S608
            f" AND (guest = 0 OR first_expires_at <= ?) AND {_NOT_SPARED} LIMIT ?)",
            (now_s - USER_TOKEN_KEPT_S, now_s - GUEST_PROOF_S, limit),
        ).rowcount
        return purged + self._purge_guests(now_s, limit)

    def _purge_guests(self, now_s: int, limit: int) -> int:
        """Deletes guests' ended tokens of client addresses that have too many, the first to end first.

        Valid tokens stay, whose number the table of valid tokens limits, and so do those that ``last_issued`` spares,
        whose number the state limits, since their guests have params there. Tokens of unknown addresses (from version 1
        of the file) count for no address.
        """
        if not self._max_guest_tokens_per_address:
            return 0
        purged = 0
        too_many = self._db.execute(
            "SELECT made_for, COUNT(*) - ? FROM tokens WHERE guest AND made_for <> x'' GROUP BY made_for"
            " HAVING COUNT(*) > ?",
            (self._max_guest_tokens_per_address, self._max_guest_tokens_per_address),
        ).fetchall()
        for made_for, excess in too_many:
            if purged < limit:
                purged += self._db.execute(
                    "DELETE FROM tokens WHERE digest IN (SELECT digest FROM tokens WHERE guest AND made_for = ?"  # noqa: S608
                    f" AND (expires_at <= ? OR revoked_at IS NOT NULL) AND {_NOT_SPARED}"
                    " ORDER BY expires_at, created_at LIMIT ?)",
                    (made_for, now_s, min(excess, limit - purged)),
                ).rowcount
        return purged

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, TypeError) as error:
            raise damaged(self._path or Path(":memory:"), error) from error

    def _any(self, query: str, *values: object) -> bool:
        return self._db.execute(query, values).fetchone() is not None

    def _one_user(self, query: str, value: str) -> User | None:
        row = self._db.execute(query, (value,)).fetchone()
        return None if row is None else User(*row)

    def _check_enabled(self, subject: str) -> None:
        if self._any("SELECT 1 FROM disabled_subjects WHERE subject = ?", subject):
            raise Disabled

    def _check_unchanged(self, user_id: str, password_changes: int) -> None:
        if not self._any(
            "SELECT 1 FROM user_facts WHERE user_id = ? AND password_changes = ?", user_id, password_changes
        ):
            raise UserChanged

    def _revoke(self, which: str, values: tuple[object, ...], now_s: int) -> list[bytes]:
        """Revokes the tokens of a condition; returns the digests of those that were valid until now."""
        condition = f"{which} AND revoked_at IS NULL"
        valid = self._db.execute(
            f"SELECT digest FROM tokens WHERE {condition} AND expires_at > ?",  # noqa: S608 - a constant
            (*values, now_s),
        ).fetchall()
        self._db.execute(
            f"UPDATE tokens SET revoked_at = ? WHERE {condition}",  # noqa: S608 - a constant
            (now_s, *values),
        )
        return [row[0] for row in valid]

    def _insert(self, token: TokenRecord) -> None:
        self._db.execute(
            "INSERT INTO tokens (digest, subject, username, guest, scopes_name, created_at, expires_at, made_for,"
            " sign_in, replaces, first_expires_at, device, signed_in_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
            " COALESCE((SELECT signed_in_at FROM tokens WHERE digest = ?), ?))",
            (
                *token._replace(sign_in=token.sign_in or token.digest)[:10],
                token.expires_s,
                token.device,
                token.replaces,
                token.created_s,
            ),
        )

    def _remember_address(self, token: TokenRecord) -> None:
        """Stores the address of a sign-in; beyond the limit those used longest ago are deleted."""
        self._db.execute(
            "INSERT OR REPLACE INTO sign_in_addresses (user_id, address, last_used_at) VALUES (?, ?, ?)",
            (token.subject, token.made_for, token.created_s),
        )
        self._db.execute(
            "DELETE FROM sign_in_addresses WHERE user_id = ? AND address IN (SELECT address FROM sign_in_addresses"
            " WHERE user_id = ? ORDER BY last_used_at DESC, address LIMIT -1 OFFSET ?)",
            (token.subject, token.subject, MAX_ADDRESSES_PER_USER),
        )


def _record(row: Sequence[Any]) -> TokenRecord:
    digest, subject, username, guest, scopes_name, created_s, expires_s, made_for, sign_in, replaces = row[:10]
    kinds = ((bytes, digest), (str, subject), (str, username), (int, created_s), (int, expires_s), (bytes, made_for))
    for kind, value in kinds:
        if not isinstance(value, kind):
            raise TypeError(f"a token's row has {type(value).__name__} where {kind.__name__} is due")
    # All records share one string: many are kept in memory.
    scopes_name = intern(scopes_name)
    first = b"" if sign_in == digest else sign_in
    return TokenRecord(
        digest,
        subject,
        username,
        bool(guest),
        scopes_name,
        created_s,
        expires_s,
        made_for,
        first,
        replaces,
        device=intern(row[12]),
    )
