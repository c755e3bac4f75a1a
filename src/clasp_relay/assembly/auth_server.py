"""Assembles the auth server: users.db, its threads, the table of tokens, the accounts and what belongs to them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from clasp_relay.access.accounts import WRONG_PASSWORD, Accounts, Admission, Tell, load_tokens
from clasp_relay.access.addresses import address_group, hasher_of_addresses
from clasp_relay.access.audit import Audit
from clasp_relay.access.console import Console
from clasp_relay.access.devices import DeviceWatch
from clasp_relay.access.files import Files
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
from clasp_relay.access.policy.language.question import given_id
from clasp_relay.access.refusals import Later, Refusal
from clasp_relay.access.secret_files import admin_record, read_or_make_admin_token, read_or_make_key, replace_key
from clasp_relay.access.session_ids import KnownSessionIds
from clasp_relay.access.shared_files import Objects, SharedFiles
from clasp_relay.access.store_calls import MAX_WAITING_CALLS, MAX_WAITING_CALLS_PER_ADDRESS
from clasp_relay.access.threads import ThreadWorkers, Workers, in_lane
from clasp_relay.access.tickets import Tickets
from clasp_relay.access.tokens import TokenRecord, TokenTable
from clasp_relay.access.turn_server import TurnServer
from clasp_relay.assembly.auth_site import AuthSite, Clients, Core
from clasp_relay.assembly.cleanup import CleanUp
from clasp_relay.assembly.console import ConsoleParts
from clasp_relay.assembly.files import FileParts, told_limits
from clasp_relay.assembly.followed_rows import FollowedRows
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, StartError
from clasp_relay.logs import events
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.ring import LogRing
from clasp_relay.periodic import PeriodicService
from clasp_relay.push.web_push import WebPush
from clasp_relay.settings import Settings
from clasp_relay.storage.folder import prepare_folder
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_file import damage_told, held
from clasp_relay.storage.users_sqlite import SqliteUsers

if TYPE_CHECKING:
    from clasp_relay.cluster.accounts.shared_accounts import SharedAccounts

PURGE_INTERVAL_S = 3600
"""Interval between two deletions of old tokens, and of what former guests have in the state."""

MOVE_INTERVAL_S = 5
"""Interval between two attempts to move files from before this relay joined its cluster into the object store, in
seconds."""

DEVICES_INTERVAL_S = 0.5
"""Interval between two checks for device tokens that the operator made or revoked: they take effect within a
second."""

ORIGIN_DIGITS = 16
"""Hexadecimal digits of an address's hash that are kept with each param: enough to tell addresses apart."""


class Rights(NamedTuple):
    """The rights of clients."""

    tokens: TokenTable
    """The valid tokens."""
    permissions: TokenPermissions
    """The permissions of tokens."""
    policy: Policy | None
    """The application policy; None for none."""


def _not_told(*_: str) -> None:
    """Does nothing."""


class Tells(NamedTuple):
    """The functions that log calls and refused requests."""

    call: Tell
    """Called with each call of the auth API; see ``accounts.Tell``."""
    refused: Callable[[str, str, str], None] = _not_told
    """Called with refused requests; see ``RequestDoor``."""


class AuthServer(Service):
    """Serves the auth API while it runs. Implements ``doors.door.AtDecider``.

    Args:
        settings: the settings.
        reactor: the reactor.
        rights: the rights of clients.
        clients: checks origins and client addresses.
        core: the core and its connections.
        tells: the functions that log calls and refused requests.
        turn: makes credentials for the TURN server.
        push: sends push messages to browsers; None where it is off.
        shared: the cluster's accounts; None for a relay that is alone.
        clear: ends params at the decider of a cluster (``Search``); None for a relay that is alone.
        objects: the files that users of a cluster have sent; None for a relay that is alone, or takes none.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        rights: Rights,
        clients: Clients,
        core: Core,
        tells: Tells,
        turn: TurnServer | None = None,
        push: WebPush | None = None,
        shared: SharedAccounts | None = None,
        clear: Callable[[Sequence[str]], Deferred[None]] | None = None,
        objects: Objects | None = None,
    ) -> None:
        tokens, _, policy = rights
        relay = self._relay = core.relay
        self.push = push
        """Sends push messages to browsers; None where it is off."""
        self._session_ids = KnownSessionIds(relay.sessions, relay.clock.now_us, self._id_outdated)
        if policy is not None:
            policy.session_ids = self._session_ids
            relay.hooks.when_began = self._session_ids.began
        self._clean_up = CleanUp(policy, tokens, self._session_ids, push)
        self._clear = clear
        self._tell = tells.call
        self._accounts: Accounts | None = None
        self._ring = LogRing(LogLevels.parse(settings.log_level))
        self.site = AuthSite(
            settings,
            reactor,
            clients,
            core,
            policy,
            self._ring,
            tells.refused,
            turn,
            push,
            tokens.knows,
            None if shared is None else shared.catch_up_with_decider,
            is_shared=clear is not None,
        )
        """What the port serves."""
        self._audit: Audit | None = None
        self._console: ConsoleParts | None = None
        self._settings = settings
        self._reactor = reactor
        self._tokens, self._permissions, self._policy = rights
        self._store: SqliteUsers | None = None
        self.sql = ThreadWorkers(
            reactor, 1, MAX_WAITING_CALLS, "sql", max_waiting_in_lane=MAX_WAITING_CALLS_PER_ADDRESS
        )
        self._shared = shared
        tokens.is_following = shared is not None
        self._calls: Workers = shared or self.sql
        """Makes the calls of users.db."""
        self.hashing = _hashing_threads(reactor)
        self._takes_files = settings.takes_files and (shared is None or objects is not None)
        self._files = FileParts(
            settings,
            reactor,
            tokens.is_user,
            self._permissions.scopes_of,
            self.sql,
            self._calls,
            objects,
            lambda: relay.refuses is None,
        )
        self._jobs: list[PeriodicService] = []
        self._known = KnownAddresses(time.time)
        self._hash_of: Callable[[str], bytes] = hasher_of_addresses(b"")
        if clear is None:
            self.act_in(relay)

    def act_in(self, relay: Relay) -> None:
        """See ``AtDecider``: ends there what lost users and former guests have left, and sends push messages."""
        self.rest()
        if relay is not self._relay:  # the decider's core, which has the sessions of all relays
            memory = relay.permissions.memory
            relay.hooks.when_began = lambda session: memory.outdated(given_id(session.id))
        self._clean_up.act_in(relay, is_running=bool(self.running))
        if self.push is not None:
            self.push.acts(True)

    def rest(self) -> None:
        """See ``AtDecider``."""
        self._clean_up.rest()
        if self.push is not None:
            self.push.acts(False)

    def _id_outdated(self, session_id: str) -> None:
        """Ends the remembered answers that depend on the owner of a session id."""
        thing = given_id(session_id)
        self._permissions.memory.outdated(thing)
        acting = self._clean_up.acting
        if acting is not None:
            acting.memory.outdated(thing)

    @property
    def outcomes(self) -> dict[tuple[str, str], int]:
        """Number of calls since the start, by call and outcome."""
        return {} if self._accounts is None else self._accounts.outcomes

    @property
    def files(self) -> Files | None:
        """The files that users send to each other; from ``open`` on, where the relay takes any."""
        return self._files.files

    @property
    def tickets(self) -> Tickets:
        """The tickets, which replace tokens in URLs; from ``open`` on."""
        assert self._accounts is not None, "asked for tickets before the start"
        return self._accounts.tickets

    @property
    def console(self) -> Console:
        """The tokens of the console; from ``open`` on."""
        assert self._console is not None, "asked for the console before the start"
        return self._console.console

    def sign_in(self, username: str, password: str, address: str) -> Deferred[Identity]:
        """Returns the identity of a name and a password, for a door whose clients have no token.

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

        with in_lane(address_group(address)):
            return self._accounts.sign_in(username, password, address).addCallbacks(identify, refuse)

    def _hashed(self, address: str) -> bytes:
        """Returns the keyed hash of a client address."""
        return self._hash_of(address)

    def origin_of(self, address: str) -> str:
        """Returns the origin of a client address: a keyed hash, so that the state file has no addresses."""
        return self._hash_of(address).hex()[:ORIGIN_DIGITS] if address else ""

    def open(self) -> Any:
        """Opens users.db and fills the table of tokens.

        Returns:
            the site that the port serves, of ``twisted.web``.

        Raises:
            StartError: a file or folder cannot be used.
        """
        settings = self._settings
        prepare_folder("--data-dir" if settings.auth_db is None else "--auth-db", settings.users_file.parent)
        self._store = SqliteUsers(settings.users_file, name_keys, settings.max_guest_tokens_per_address)
        try:
            with damage_told(settings.users_file):
                return self._open(self._store)
        except StoreBusy:
            self.close()
            raise held(settings.users_file) from None
        except StartError:
            self.close()
            raise

    def _open(self, store: SqliteUsers) -> Any:
        settings = self._settings
        key = read_or_make_key(settings.users_file, secrets.token_bytes)
        self._hash_of = hasher_of_addresses(key)
        if self._shared is None:
            store.rows.leave()
        load_tokens(store, self._tokens, self._known, time.time())
        if settings.admin_token is not None:
            token = read_or_make_admin_token(settings.admin_token, secrets.token_hex)
            self._tokens.add(admin_record(token, time.time()))
        audit = self._audit = Audit(
            store.audit, self._calls, self._reactor, time.time, self.origin_of, settings.audit_days
        )
        passwords = Passwords(make_hasher(), self.hashing)
        accounts = self._accounts = self._make_accounts(store, passwords, audit)
        accounts.registered = self._registered
        if self._takes_files:
            self._files.open(store, accounts.recognise, self._hashed)
        devices = DeviceWatch(store.devices, self._calls, self._tokens)
        console = self._console = self._make_console(store, accounts, passwords, devices, audit)
        console.load()
        self._session_ids.open(store.session_ids, self._calls, self._reactor)
        if self.push is not None:
            self.push.open(store.push, self._calls)
            self._tokens.on_end(self.push.token_ended)
        if self._shared is not None:
            self._share(self._shared, store, devices, accounts, console, key)
        self._jobs = self._make_jobs(accounts, audit, console)
        hooks = Hooks(store.hooks, self._calls, self._relay.params, self._relay.clock.now_us, secrets.token_hex)
        return self.site.make(accounts, console, hooks, self.files)

    def _make_console(
        self, store: SqliteUsers, accounts: Accounts, passwords: Passwords, devices: DeviceWatch, audit: Audit
    ) -> ConsoleParts:
        return ConsoleParts(
            store,
            self._calls,
            accounts,
            passwords,
            self._tokens,
            devices,
            audit,
            self._relay,
            self.files,
            self._clear,
            lambda: self._clean_up.acting is not None,
        )

    def _make_jobs(self, accounts: Accounts, audit: Audit, console: ConsoleParts) -> list[PeriodicService]:
        def job(
            interval_s: float, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, at_start: bool = False
        ) -> PeriodicService:
            def call() -> Deferred[None]:
                return Deferred.fromCoroutine(work())

            return PeriodicService(interval_s, self._reactor, call, name, run_at_start=at_start)

        jobs = [
            job(PURGE_INTERVAL_S, lambda: self._clean_up.purge(accounts, audit, self.files), "purge", at_start=True),
            job(DEVICES_INTERVAL_S, console.look, "device tokens"),
        ]
        if self._files.before is not None:
            jobs.append(job(MOVE_INTERVAL_S, self._files.before.move, "files of before"))
        return jobs

    def _share(
        self,
        shared: SharedAccounts,
        store: SqliteUsers,
        devices: DeviceWatch,
        accounts: Accounts,
        console: ConsoleParts,
        key: bytes,
    ) -> None:
        """Connects this relay's accounts with the cluster's."""
        file = self._settings.users_file

        def take_key(key: bytes) -> None:
            replace_key(file, key)
            self._hash_of = hasher_of_addresses(key)

        limiter = accounts.limiter
        memory = FollowedRows(
            store,
            self.sql,
            self._tokens,
            devices,
            accounts,
            console,
            self._session_ids,
            self._known,
            limiter,
            self.push,
            self.files if isinstance(self.files, SharedFiles) else None,
            key,
            take_key,
        )
        shared.open(store, self.sql, memory)
        limiter.share = shared.share_attempts

    def _registered(self, user_id: str) -> None:
        """Counts a guest's files and push subscriptions as a user's from now on."""
        if self.push is not None:
            self.push.subscriptions.registered(user_id)
        if self.files is not None:
            Deferred.fromCoroutine(self.files.registered(user_id)).addErrback(events.AUTH_FAULT.failure)

    def startService(self) -> None:
        """Starts the threads and the timers; ``open`` must have been called."""
        assert self._jobs, "started before it was opened"
        Service.startService(self)
        globalLogPublisher.addObserver(self._ring)
        self.sql.start()
        self.hashing.start()
        self._files.start()
        self._tokens.start()
        self._clean_up.start()
        if self.push is not None:
            self.push.start()
        for job in self._jobs:
            job.startService()

    def stopService(self) -> Deferred[None]:
        """Stops the threads, then closes the file."""
        Service.stopService(self)
        self.site.close()
        if self.push is not None:
            self.push.stop()
        return DeferredList([job.stopService() for job in self._jobs]).addCallback(lambda _: self._end())

    def close(self) -> None:
        """Closes users.db and files.db; enough for a server that was opened but not started."""
        if self._store is not None:
            self._store.close()
        self._files.close()

    def _end(self) -> None:
        self.hashing.stop()
        self._files.stop()
        self.sql.stop()
        self._tokens.stop()
        self._session_ids.close()
        globalLogPublisher.removeObserver(self._ring)
        if self._audit is not None:
            self._audit.close()
        self.close()

    def _make_accounts(self, store: SqliteUsers, passwords: Passwords, audit: Audit) -> Accounts:
        policy = self._policy
        limits = RateLimits() if policy is None else policy.document.rate_limits
        return Accounts(
            store=store,
            sql=self._calls,
            passwords=passwords,
            tokens=self._tokens,
            limiter=AttemptLimiter(limits, time.monotonic, self._known, self._hashed),
            known=self._known,
            hash_of=self._hashed,
            scopes_of=self._permissions.scopes_of,
            token_ttl_s=self._settings.token_ttl_s,
            open_guest_ids=policy is not None and policy.document.guest_ids is GuestIds.OPEN,
            now_s=time.time,
            random_hex=secrets.token_hex,
            tell=self._tell,
            note=audit.note,
            admission=Admission(
                self._settings.registration,
                self._settings.guests == "on",
                self._settings.name,
                told_limits(self._settings),
            ),
        )


def _hashing_threads(reactor: Any) -> ThreadWorkers:
    return ThreadWorkers(
        reactor,
        HASHES_AT_ONCE,
        MAX_WAITING_HASHES,
        "hashing",
        max_waiting_in_lane=MAX_WAITING_HASHES_PER_ADDRESS,
        gives_way=True,
    )
