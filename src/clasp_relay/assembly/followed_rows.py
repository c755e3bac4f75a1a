"""Updates what a relay of a cluster has of ``users.db`` in memory, from the rows that the log brings.

Tokens and everything else that admits clients are updated as soon as the log has the rows, before they are in the file:
so a revoked token ends its sessions on all relays, and a token that one relay has issued is valid on all others before
any client can present it. What has to be read from the file is updated once the rows are in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from sys import intern
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.access.accounts import Accounts
from clasp_relay.access.devices import DeviceWatch
from clasp_relay.access.limits import MAX_KEYS, AttemptLimiter, KnownAddresses
from clasp_relay.access.refusals import Busy
from clasp_relay.access.session_ids import KnownSessionIds
from clasp_relay.access.shared_files import SharedFiles
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import MAX_EXPIRED, TokenRecord, TokenTable
from clasp_relay.assembly.console import ConsoleParts
from clasp_relay.logs import events
from clasp_relay.push.web_push import WebPush
from clasp_relay.storage.devices import DeviceToken
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.storage.session_ids import GivenId
from clasp_relay.storage.users import KnownAddress
from clasp_relay.storage.users_rows import TABLES, Row
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["FollowedRows"]

DECIDED = frozenset({"administrators", "disabled_subjects", "choices", "device_tokens", "deletions"})
"""Tables with the decisions of administrators and operators, which are read again after a change."""


class FollowedRows:
    """Updates tokens, decisions, session ids and subscriptions in memory.

    Implements ``cluster.accounts.shared_accounts.Memory``.

    Args:
        store: the users' database.
        sql: the thread that it is called on.
        tokens: the valid tokens.
        devices: loads device tokens.
        accounts: the accounts, with the cache of passwords.
        console: the parts of the console, with administrators' decisions.
        session_ids: the session ids and their owners.
        known: the addresses from which users have signed in lately.
        limiter: counts attempts to sign in.
        push: sends push messages to browsers; None where it is off.
        files: the files that users sent; None where the relay takes none.
        key: the key by which client addresses are hashed.
        take_key: sets another key; it may raise a StartError.
    """

    def __init__(
        self,
        store: SqliteUsers,
        sql: Workers,
        tokens: TokenTable,
        devices: DeviceWatch,
        accounts: Accounts,
        console: ConsoleParts,
        session_ids: KnownSessionIds,
        known: KnownAddresses,
        limiter: AttemptLimiter,
        push: WebPush | None,
        files: SharedFiles | None,
        key: bytes,
        take_key: Callable[[bytes], None],
    ) -> None:
        self.key = key
        """The key by which client addresses are hashed."""
        self._store = store
        self._calls = StoreCalls(sql)
        self._tokens = tokens
        self._devices = devices
        self._accounts = accounts
        self._console = console
        self._session_ids = session_ids
        self._known = known
        self._limiter = limiter
        self._push = push
        self._files = files
        self._take_key = take_key
        self._is_taking_note = self._is_stale = False
        self._takers: Mapping[str, Callable[[Row], None]] = {
            "tokens": self._token,
            "device_tokens": self._device,
            "session_ids": self._session_id,
            "push_subscriptions": self._subscription,
            "push_key": self._push_key,
        }

    def follow(self, rows: Sequence[Row]) -> None:
        """Updates memory from changed rows, in the log's order."""
        for row in rows:
            taker = self._takers.get(row.table)
            if taker is not None:
                taker(row)
        self._users(rows)

    def written(self, rows: Sequence[Row]) -> None:
        """Updates what has to be read from the file; called once the rows are in it."""
        self._devices.written(sum(row.table == "device_tokens" and row.values is not None for row in rows))
        if any(row.table in DECIDED for row in rows):
            self._take_note()
        files = [row for row in rows if row.table == "sent_files"]
        if files and self._files is not None:
            self._files.follow(str(row.key[0]) for row in files if row.values is None)
        addresses = [row for row in rows if row.table == "sign_in_addresses" and row.values is not None]
        if addresses:
            users = sorted({str(row.key[0]) for row in addresses})
            done = Deferred.fromCoroutine(self._calls.run(self._store.folded_names, users))
            done.addCallback(self._know, addresses).addErrback(_tell)

    def reload(self) -> Deferred[None]:
        """Loads everything from the file; memory is empty before."""
        return Deferred.fromCoroutine(self._reload())

    def follow_attempts(self, what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
        """Counts attempts to sign in that another relay has counted."""
        self._limiter.follow(what, counts)

    def take_key(self, key: bytes) -> None:
        """Sets the key of the other relays."""
        self._take_key(key)
        self.key = key

    # Tokens

    def _token(self, row: Row) -> None:
        (digest,) = row.key
        assert isinstance(digest, bytes), "the digest of a token is bytes"
        if row.values is None:
            self._tokens.revoke((digest,))
            return
        of = _columns(row)
        record = TokenRecord(
            digest,
            of["subject"],
            of["username"],
            bool(of["guest"]),
            # Interned, so that the many records in memory share one string.
            intern(of["scopes_name"]),
            of["created_at"],
            of["expires_at"],
            of["made_for"],
            b"" if of["sign_in"] == digest else of["sign_in"],
            of["replaces"],
            device=intern(of["device"]),
        )
        self._tokens.follow(record, is_revoked=of["revoked_at"] is not None)

    def _device(self, row: Row) -> None:
        if row.values is None:
            return
        of = _columns(row)
        scopes = tuple(of["scopes"].splitlines())
        device = DeviceToken(
            str(row.key[0]), of["digest"], of["subject"], of["name"], scopes, of["created_at"], of["expires_at"]
        )
        self._devices.follow(device, is_revoked=of["revoked_at"] is not None)

    def _users(self, rows: Sequence[Row]) -> None:
        """Updates users, names and passwords."""
        facts = {row.key for row in rows if row.table == "user_facts" and row.values is not None}
        for row in rows:
            if row.table != "users" or row.values is None or row.key not in facts:
                continue
            user_id, username = str(row.key[0]), _columns(row)["username"]
            # A user with a new name keeps the password.
            self._accounts.password_followed(user_id, username)
            self._console.console.password_followed(user_id, username)
            self._console.console.rename(user_id, username)
            self._accounts.registered(user_id)

    # The rest

    def _session_id(self, row: Row) -> None:
        if row.values is not None:
            of = _columns(row)
            self._session_ids.follow(GivenId(str(row.key[0]), of["subject"], of["seen_at"]))

    def _subscription(self, row: Row) -> None:
        if self._push is None:
            return
        endpoint = str(row.key[0])
        if row.values is None:
            self._push.subscriptions.follow_end(endpoint)
            return
        of = _columns(row)
        subject = of["subject"]
        found = Subscription(endpoint, subject, of["p256dh"], of["auth"], of["sign_in"], of["created_at"])
        records = [self._tokens.find(digest) for digest in self._tokens.of_subject(subject)]
        guests = [record.made_for for record in records if record is not None and record.guest]
        self._push.subscriptions.follow(found, guests[0] if guests and not self._tokens.is_user(subject) else None)

    def _push_key(self, row: Row) -> None:
        if self._push is not None and row.values is not None:
            self._push.take_key(_columns(row)["private_key"])

    def _know(self, folded: Mapping[str, str], addresses: Sequence[Row]) -> None:
        for row in addresses:
            user_id, address = row.key
            if user_id in folded and isinstance(address, bytes):
                self._known.add(address, folded[str(user_id)], _columns(row)["last_used_at"])

    def _take_note(self) -> None:
        """Reads the decisions again, only once for all changes that come meanwhile."""
        self._is_stale = True
        if self._is_taking_note:
            return
        self._is_taking_note = True
        Deferred.fromCoroutine(self._read_decided()).addErrback(_tell)

    async def _read_decided(self) -> None:
        try:
            while self._is_stale:
                self._is_stale = False
                await self._console.take_note()
        finally:
            self._is_taking_note = False

    async def _reload(self) -> None:
        now_s = int(time.time())
        valid = await self._calls.run(self._store.valid_tokens, now_s)
        expired = await self._calls.run(self._store.expired_tokens, now_s, MAX_EXPIRED)
        addresses: Iterable[KnownAddress] = await self._calls.run(self._store.known_addresses, now_s, MAX_KEYS)
        self._tokens.follow_all(valid, expired)
        for address, folded, last_used_s in addresses:
            self._known.add(address, folded, last_used_s)
        await self._session_ids.reload()
        if self._push is not None:
            await self._push.reload()
        if self._files is not None:
            await self._files.reload()
        await self._console.take_note()


def _columns(row: Row) -> dict[str, Any]:
    """Returns the columns of a row that are not in its key, by name."""
    assert row.values is not None, "a row that is gone has no columns"
    return dict(zip(TABLES[row.table].rest, row.values, strict=True))


def _tell(failure: Failure) -> None:
    """Does nothing: what could not be read is read with the next change, and ``People.look`` reads decisions again."""
    if failure.check(Busy) is None:
        events.AUTH_FAULT.failure(failure)
