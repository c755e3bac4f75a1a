"""The auth API as in service: a real port, real threads, a real file."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.web.resource import Resource

from clasp_relay.access.accounts import Accounts, load_tokens
from clasp_relay.access.addresses import ClientAddresses, hasher_of_addresses
from clasp_relay.access.console import Console
from clasp_relay.access.file_quotas import MIB, FileLimits, FileQuotas
from clasp_relay.access.files import OwnFiles
from clasp_relay.access.hooks import Hooks
from clasp_relay.access.limits import AttemptLimiter, KnownAddresses, RateLimits
from clasp_relay.access.names import name_keys
from clasp_relay.access.passwords import HASHES_AT_ONCE, MAX_WAITING_HASHES_PER_ADDRESS, Passwords, cheap_hasher
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.store_calls import MAX_WAITING_CALLS
from clasp_relay.access.threads import ThreadWorkers
from clasp_relay.access.tokens import TokenTable
from clasp_relay.doors.door import RequestDoor
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import make_auth_resource
from clasp_relay.http.cors import Origins
from clasp_relay.http.files_api import make_files_resource
from clasp_relay.http.hooks_api import make_hooks_resource
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.site import make_site
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.storage.files import FileStore
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.core.world import World

REACTOR: Any = reactor
GENEROUS = RateLimits(10_000, 900, 10_000, 900)


class AuthServer:
    """A server for one test.

    Args:
        path: users.db.
        limits: how often one may try.
        hasher: for passwords; a cheap one by default.
        max_waiting: hashes that may wait.
    """

    def __init__(
        self,
        path: Path,
        limits: RateLimits = GENEROUS,
        hasher: PasswordHasher | None = None,
        max_waiting: int = 256,
    ) -> None:
        self.store = SqliteUsers(path, name_keys)
        self.tokens = TokenTable(REACTOR, time.time)
        known, hash_of = KnownAddresses(time.time), hasher_of_addresses(b"key")
        load_tokens(self.store, self.tokens, known, time.time())
        self.sql = ThreadWorkers(REACTOR, 1, MAX_WAITING_CALLS, "sql")
        self.hashing = ThreadWorkers(
            REACTOR, HASHES_AT_ONCE, max_waiting, "hashing", max_waiting_in_lane=MAX_WAITING_HASHES_PER_ADDRESS
        )
        passwords = Passwords(hasher or cheap_hasher(), self.hashing)
        self.accounts = Accounts(
            store=self.store,
            sql=self.sql,
            passwords=passwords,
            tokens=self.tokens,
            limiter=AttemptLimiter(limits, time.monotonic, known, hash_of),
            known=known,
            hash_of=hash_of,
            scopes_of=lambda record: [f"read:/{record.subject}/**"],
            token_ttl_s=3600,
            open_guest_ids=False,
            now_s=time.time,
            random_hex=secrets.token_hex,
        )
        console = Console(
            self.accounts,
            passwords,
            self.store.administration,
            self.sql,
            self.tokens,
            time.time,
            secrets.token_hex,
        )
        root = Resource()
        # Its clock stands still, so no session of it ends as idle.
        relay = World(permissions=TokenPermissions(self.tokens, None, lambda: time.time_ns() // 1000)).relay
        self.api = ApiSessions(relay)
        origins, addresses = Origins(None), ClientAddresses(())
        streams = StreamApi(relay, ClaspFactory(relay, TurnWriter(REACTOR), REACTOR), self.accounts.tickets)
        journal = JournalApi(relay, self.api)
        api = make_params_resource(self.api, streams, origins=origins, addresses=addresses, journal=journal)
        root.putChild(b"api", api)
        hooks = Hooks(self.store.hooks, self.sql, relay.params, relay.clock.now_us, secrets.token_hex)
        counts = RequestDoor("hooks")
        root.putChild(b"hooks", make_hooks_resource(hooks, self.api, counts, origins=origins, addresses=addresses))
        auth = make_auth_resource(self.accounts, origins=origins, addresses=addresses, console=console)
        root.putChild(b"auth", auth)
        self.site = make_site(root, REACTOR)
        self.disk = ThreadWorkers(REACTOR, 2, 256, "files")
        self.file_store = FileStore(path.parent / "files", path.parent / "files.db")
        files = OwnFiles(
            store=self.file_store,
            sql=self.sql,
            disk=self.disk,
            quotas=FileQuotas(FileLimits(file=MIB, subject=10 * MIB, whole=100 * MIB)),
            recognise=self.accounts.recognise,
            scopes_of=lambda record: [f"read:/{record.subject}/**"],
            is_user=self.tokens.is_user,
            hash_of=hash_of,
            days=90,
            now_s=time.time,
            random_hex=secrets.token_hex,
        )
        files_api = make_files_resource(files, origins=origins, addresses=addresses)
        root.putChild(b"files", files_api)
        self.site.open_body = files_api.open_body
        self.disk.start()
        self.sql.start()
        self.hashing.start()
        self.tokens.start()
        self.port: IListeningPort = REACTOR.listenTCP(0, self.site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    async def stop(self) -> None:
        """Ends everything, the file last."""
        await maybeDeferred(self.port.stopListening)
        self.api.close()
        self.hashing.stop()
        self.disk.stop()
        self.sql.stop()
        self.tokens.stop()
        self.store.close()
        self.file_store.close()
