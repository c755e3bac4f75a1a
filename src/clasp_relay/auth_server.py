"""Assembles the auth server: users.db, its threads, the table of tokens, the auth API and the web app."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from autobahn.twisted.resource import WebSocketResource
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from clasp_relay.access.accounts import WRONG_PASSWORD, Accounts, Admission, Tell, load_tokens
from clasp_relay.access.addresses import ClientAddresses, hasher_of_addresses
from clasp_relay.access.devices import DeviceWatch
from clasp_relay.access.guests import GuestParams
from clasp_relay.access.hooks import Hooks
from clasp_relay.access.limits import AttemptLimiter, KnownAddresses, RateLimits
from clasp_relay.access.names import name_keys
from clasp_relay.access.passwords import (
    HASHES_AT_ONCE,
    MAX_WAITING_HASHES,
    MAX_WAITING_HASHES_PER_ADDRESS,
    Passwords,
    make_hasher,
)
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.policy.document import GuestIds
from clasp_relay.access.refusals import Busy, Later, Refusal
from clasp_relay.access.secret_files import admin_record, read_or_make_admin_token, read_or_make_key
from clasp_relay.access.store_calls import MAX_WAITING_CALLS
from clasp_relay.access.tokens import TokenRecord, TokenTable
from clasp_relay.access.wills import Wills
from clasp_relay.access.workers import ThreadWorkers
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Identity
from clasp_relay.doors.door import DoorCounts, RequestDoor
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, StartError
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import make_auth_resource
from clasp_relay.http.bounded import make_site
from clasp_relay.http.cors import Origins
from clasp_relay.http.hooks_api import make_hooks_resource
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.json_answers import NotFound
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.http.web_root import WebRoot, packaged_app
from clasp_relay.logs import events
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.periodic import PeriodicService
from clasp_relay.settings import Settings
from clasp_relay.storage.folder import prepare_folder
from clasp_relay.storage.users_sqlite import SqliteUsers

NOT_THE_APPS = (b"metrics", b"healthz", b"readyz")
"""Paths that tools ask for on this port; the app's page with status 200 would look like an answer."""

NO_WEB_ROOT = "none"
"""The value of ``web_root`` for no app."""

PURGE_INTERVAL_S = 3600
"""How often old tokens are deleted, and what guests who are gone have in the state."""


DEVICES_INTERVAL_S = 0.5
"""How often the relay looks whether the operator made or revoked a device token: within a second it is in force."""

ORIGIN_DIGITS = 16
"""Hexadecimal digits of an address's hash that are kept with each param: enough to tell addresses apart."""


class AuthServer(Service):
    """Serves the auth API while it runs.

    Args:
        settings: what the relay is told.
        reactor: what it runs on.
        tokens: the table of valid tokens, which the relay asks.
        permissions: what a token may do.
        policy: the application's rules, or None.
        origins: whose pages may read the answers.
        factory: makes the WebSocket connections of a web app that is served here too.
        relay: the core, for clients by HTTP.
        addresses: tells the clients' addresses.
        tell: is told of each call; see ``accounts.Tell``.
        tell_refused: is told of refused requests; see ``RequestDoor``.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        tokens: TokenTable,
        permissions: TokenPermissions,
        policy: Policy | None,
        origins: Origins,
        factory: ClaspFactory,
        relay: Relay,
        addresses: ClientAddresses,
        tell: Tell,
        tell_refused: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._http = RequestDoor("http", "HTTP", tell_refused)
        self._hooks = RequestDoor("hooks", "webhooks", tell_refused)
        self._streams: StreamApi | None = None
        self._guests: GuestParams | None = None
        """What guests wrote for themselves, where a policy says something about it."""
        paths = () if policy is None else policy.document.clear_on_disconnect
        self._wills = Wills(paths, relay.params, relay.committer, relay.work, relay.sessions, relay.clock)
        relay.when_gone = self._wills.gone
        if policy is not None:
            self._guests = GuestParams(policy.document, relay.params, relay.committer, relay.work, tokens, time.time)
        self._is_starting = True
        self._tell = tell
        self._accounts: Accounts | None = None
        self._factory = factory
        self._relay = relay
        self._api = ApiSessions(relay)
        self._addresses = addresses
        self._settings = settings
        self._reactor = reactor
        self._tokens = tokens
        self._permissions = permissions
        self._policy = policy
        self._origins = origins
        self._store: SqliteUsers | None = None
        self.sql = ThreadWorkers(reactor, 1, MAX_WAITING_CALLS, "sql")
        self.hashing = ThreadWorkers(
            reactor,
            HASHES_AT_ONCE,
            MAX_WAITING_HASHES,
            "hashing",
            max_waiting_in_lane=MAX_WAITING_HASHES_PER_ADDRESS,
            gives_way=True,
        )
        self._jobs: list[PeriodicService] = []
        self._known = KnownAddresses(time.time)
        self._hash_of: Callable[[str], bytes] = hasher_of_addresses(b"")

    @property
    def outcomes(self) -> dict[tuple[str, str], int]:
        """Number of calls since the start, by call and outcome."""
        return {} if self._accounts is None else self._accounts.outcomes

    @property
    def counts(self) -> Sequence[DoorCounts]:
        """What goes through the HTTP API, nothing before ``open``. Clients of ``http`` are tokens with a session."""
        if self._streams is None:
            return ()
        self._http.counts.clients = self._api.clients
        return (self._http.counts, self._streams.counts, self._hooks.counts)

    def sign_in(self, username: str, password: str, address: str) -> Deferred[Identity]:
        """Finds out as whom a name and a password speak, for a door whose clients have no token.

        Returns:
            A Deferred that fails with a Disconnect: UNAUTHENTICATED, or OVERLOADED where another try may succeed.
        """
        assert self._accounts is not None, "signed in before the start"

        def identify(record: TokenRecord) -> Identity:
            identity = self._permissions.readmit(record.subject, record.digest)
            if identity is None:
                raise Disconnect(CloseCode.POLICY_VIOLATION, WRONG_PASSWORD, ErrorCode.UNAUTHENTICATED)
            return identity

        def refuse(failure: Failure) -> NoReturn:
            failure.trap(Refusal)
            refusal = failure.value
            assert isinstance(refusal, Refusal), "trapped something else"
            code = ErrorCode.OVERLOADED if isinstance(refusal, Later) else ErrorCode.UNAUTHENTICATED
            raise Disconnect(CloseCode.POLICY_VIOLATION, refusal.sentence, code)

        return self._accounts.sign_in(username, password, address).addCallbacks(identify, refuse)

    def origin_of(self, address: str) -> str:
        """Returns what a client address counts as in the state: a keyed hash, so the state file tells no address."""
        return self._hash_of(address).hex()[:ORIGIN_DIGITS] if address else ""

    def open(self) -> Any:
        """Opens users.db and fills the table of tokens.

        Returns:
            what the port serves: a ``twisted.web`` site.

        Raises:
            StartError: a file or folder cannot be used.
        """
        settings = self._settings
        prepare_folder("--data-dir" if settings.auth_db is None else "--auth-db", settings.users_file.parent)
        self._store = SqliteUsers(settings.users_file, name_keys, settings.max_guest_tokens_per_address)
        try:
            return self._open(self._store)
        except StartError:
            self.close()
            raise

    def _open(self, store: SqliteUsers) -> Any:
        settings = self._settings
        self._hash_of = hasher_of_addresses(read_or_make_key(settings.users_file, secrets.token_bytes))
        load_tokens(store, self._tokens, self._known, time.time())
        if settings.admin_token is not None:
            token = read_or_make_admin_token(settings.admin_token, secrets.token_hex)
            self._tokens.add(admin_record(token, time.time()))
        accounts = self._accounts = self._make_accounts(store)
        devices = DeviceWatch(store.devices, self.sql, self._tokens)
        devices.load()
        self._jobs = [
            PeriodicService(
                PURGE_INTERVAL_S,
                self._reactor,
                lambda: Deferred.fromCoroutine(self._purge(accounts)),
                "purge",
                run_at_start=True,
            ),
            PeriodicService(
                DEVICES_INTERVAL_S, self._reactor, lambda: Deferred.fromCoroutine(devices.look()), "device tokens"
            ),
        ]
        return make_site(self._root(accounts), self._reactor, settings.trusted_proxies)

    async def _purge(self, accounts: Accounts) -> None:
        """Ends what is old: what guests have in the state, then tokens and addresses, which have time at the start."""
        is_start, self._is_starting = self._is_starting, False
        if self._guests is not None:
            try:
                await self._guests.end_old(accounts.last_issued)
            except Busy:
                return  # the tokens are left, too: which of them are still needed is not known
        if not is_start:
            await accounts.purge()

    def startService(self) -> None:
        """Starts the threads and the timers; ``open`` must have been called."""
        assert self._jobs, "started before it was opened"
        Service.startService(self)
        self.sql.start()
        self.hashing.start()
        self._tokens.start()
        self._wills.start()
        for job in self._jobs:
            job.startService()

    def stopService(self) -> Deferred[None]:
        """Stops the threads, then closes the file."""
        Service.stopService(self)
        self._api.close()
        return DeferredList([job.stopService() for job in self._jobs]).addCallback(lambda _: self._end())

    def close(self) -> None:
        """Closes users.db; enough for a server that was opened and not started."""
        if self._store is not None:
            self._store.close()

    def _end(self) -> None:
        self.hashing.stop()
        self.sql.stop()
        self._tokens.stop()
        self.close()

    def _root(self, accounts: Accounts) -> Resource:
        settings = self._settings
        folder = packaged_app() if settings.web_root is None else Path(settings.web_root)
        app = None if folder is None or settings.web_root == NO_WEB_ROOT else WebRoot(folder)
        root = NotFound() if app is None else app
        auth = make_auth_resource(accounts, origins=self._origins, addresses=self._addresses, page=app)
        root.putChild(b"auth", auth)
        streams = self._streams = StreamApi(self._relay, self._factory, accounts.tickets)
        journal = JournalApi(self._relay, self._api)
        api = make_params_resource(
            self._api,
            streams,
            origins=self._origins,
            addresses=self._addresses,
            journal=journal,
            door=self._http,
        )
        root.putChild(b"api", api)
        assert self._store is not None, "served before it was opened"
        hooks = Hooks(self._store.hooks, self.sql, self._relay.params, self._relay.clock.now_us, secrets.token_hex)
        hooks_api = make_hooks_resource(hooks, self._api, self._hooks, origins=self._origins, addresses=self._addresses)
        root.putChild(b"hooks", hooks_api)
        if app is not None:
            root.putChild(b"ws", WebSocketResource(self._factory))
            for path in NOT_THE_APPS:
                root.putChild(path, NotFound())
            events.APP_SERVED.log(folder=str(folder))
        return root

    def _make_accounts(self, store: SqliteUsers) -> Accounts:
        policy = self._policy
        limits = RateLimits() if policy is None else policy.document.rate_limits
        return Accounts(
            store=store,
            sql=self.sql,
            passwords=Passwords(make_hasher(), self.hashing),
            tokens=self._tokens,
            limiter=AttemptLimiter(limits, time.monotonic, self._known, self._hash_of),
            known=self._known,
            hash_of=self._hash_of,
            scopes_of=self._permissions.scopes_of,
            token_ttl_s=self._settings.token_ttl_s,
            open_guest_ids=policy is not None and policy.document.guest_ids is GuestIds.OPEN,
            now_s=time.time,
            random_hex=secrets.token_hex,
            tell=self._tell,
            admission=Admission(self._settings.registration, self._settings.guests == "on", self._settings.name),
        )
