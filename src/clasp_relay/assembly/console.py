"""Puts the console together: its tokens, the audit log, and the API below ``/api/admin``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from clasp_relay.access.accounts import Accounts
from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.audit import Audit
from clasp_relay.access.console import Administrator, Console
from clasp_relay.access.devices import DeviceWatch
from clasp_relay.access.passwords import Passwords
from clasp_relay.access.people import Files, People
from clasp_relay.access.policy import Policy
from clasp_relay.access.rooms import Reports, Rooms
from clasp_relay.access.search import Search
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import TokenTable
from clasp_relay.core.relay import Relay
from clasp_relay.doors.door import Counting
from clasp_relay.http.admin_api import console_routes, make_admin_resource
from clasp_relay.http.admin_params import reading_routes, writing_routes
from clasp_relay.http.admin_people import admission_routes, audit_routes, people_routes
from clasp_relay.http.admin_rooms import room_routes
from clasp_relay.http.admin_state import Watched, relay_routes, session_routes
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.logs.ring import LogRing
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import Message

__all__ = ["ConsoleParts"]


class ConsoleParts:
    """The parts of the console.

    Args:
        store: the users' database.
        sql: the thread that the store is called on.
        accounts: verifies passwords.
        passwords: hashes passwords.
        tokens: the valid tokens.
        devices: loads device tokens.
        audit: the audit log.
        relay: the core.
        files: the files that users sent; None where the relay takes no files.
        clear: ends params at the decider of a cluster; see ``Search``.
        acts: tells whether this relay finishes deletions; see ``People``.
    """

    def __init__(
        self,
        store: SqliteUsers,
        sql: Workers,
        accounts: Accounts,
        passwords: Passwords,
        tokens: TokenTable,
        devices: DeviceWatch,
        audit: Audit,
        relay: Relay,
        files: Files | None = None,
        clear: Callable[[Sequence[str]], Deferred[None]] | None = None,
        acts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._devices = devices
        self._audit = audit
        self._relay = relay
        self.console = Console(accounts, passwords, store.administration, sql, tokens, time.time, secrets.token_hex)
        """The tokens of the console."""
        self._search = Search(relay.params, relay.committer, relay.work, clear)
        self._people = People(
            store=store,
            sql=sql,
            tokens=tokens,
            devices=devices,
            console=self.console,
            audit=audit,
            sessions=relay.sessions,
            shares=relay.params.shares,
            search=self._search,
            now_s=time.time,
            random_hex=secrets.token_hex,
            files=files,
            history=None if relay.replays is None else relay.replays.reader,
            acts=acts,
        )

    def load(self) -> None:
        """Loads device tokens and the administrators' decisions; called before the event loop runs."""
        self._devices.load()
        self.console.load()

    async def take_note(self) -> None:
        """Loads the decisions of administrators again, after the log of a cluster has brought some."""
        await self._people.take_note()

    async def look(self) -> None:
        """Loads the decisions that another process has written since the last call."""
        await self._people.look()

    def make_resource(
        self,
        *,
        sessions: ApiSessions,
        streams: StreamApi,
        journal: JournalApi,
        factory: ClaspFactory,
        policy: Policy | None,
        registry: Callable[[], CollectorRegistry | None],
        doors: Callable[[], Sequence[Counting]],
        ring: LogRing,
        name: str,
        origins: Origins,
        addresses: ClientAddresses,
        cluster: Callable[[], tuple[str, str] | None],
    ) -> IResource:
        """Returns the API.

        Args:
            sessions: sends messages for administrators.
            streams: the API of event streams.
            journal: the API that reads history.
            factory: the WebSocket connections.
            policy: the application's rules; None for none.
            registry: returns the metrics.
            doors: returns the doors.
            ring: the last lines of the log.
            name: the relay's name.
            origins: the origins whose pages may read the answers.
            addresses: finds the client's address of a request.
            cluster: returns the relay's name in its cluster and its role; see ``Watched``.
        """
        relay = self._relay

        def write(who: Administrator, address: str, message: Message) -> Deferred[dict[str, Any]]:
            return sessions.ask(who.token, address, message)

        def now_ms() -> int:
            return relay.clock.now_us() // 1000

        rooms = Rooms(relay.params, self._search, relay.replays, self._audit, write, now_ms)
        reports = Reports(relay.params, self._search, self._audit, write, now_ms, relay.replays)
        watched = Watched(
            relay=relay,
            factory=factory,
            tokens=self._tokens,
            sessions=sessions,
            streams=streams,
            journal=journal,
            search=self._search,
            audit=self._audit,
            policy=policy,
            registry=registry,
            doors=doors,
            ring=ring,
            name=name,
            cluster=cluster,
        )
        routes = [
            *console_routes(self.console, self._audit),
            *people_routes(self._people),
            *admission_routes(self._people, self.console, self._accounts),
            *audit_routes(self._audit),
            *room_routes(rooms, reports),
            *relay_routes(watched, self._people, reports),
            *session_routes(watched),
            *reading_routes(watched),
            *writing_routes(watched),
        ]
        return make_admin_resource(self.console, routes, origins=origins, addresses=addresses)
