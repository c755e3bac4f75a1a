"""Puts together what the auth port serves: the APIs of accounts, params, files, webhooks and console, and the app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from autobahn.twisted.resource import WebSocketResource
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from clasp_relay.access.accounts import Accounts
from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.console import PREFIX as CONSOLE_PREFIX
from clasp_relay.access.console import Console
from clasp_relay.access.files import Files
from clasp_relay.access.hooks import Hooks
from clasp_relay.access.policy import Policy
from clasp_relay.access.turn_server import TurnServer
from clasp_relay.assembly.console import ConsoleParts
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import TOKEN_PREFIX
from clasp_relay.doors.door import Counting, DoorCounts, RequestDoor
from clasp_relay.http.api_sessions import ApiSessions, wait_until
from clasp_relay.http.auth_api import make_auth_resource
from clasp_relay.http.cors import Origins
from clasp_relay.http.files_api import make_files_resource
from clasp_relay.http.hooks_api import make_hooks_resource
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.json_answers import AnsweredLater, NotFound, bearer_of
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.site import QuietSite, make_site
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.http.web_root import WebRoot, packaged_app
from clasp_relay.logs import events
from clasp_relay.logs.ring import LogRing
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.push.web_push import WebPush
from clasp_relay.settings import Settings

__all__ = ["AuthSite", "Clients", "Core"]

NOT_THE_APPS = (b"metrics", b"healthz", b"readyz")
"""Paths that tools request on this port; they get 404, since the app's page with status 200 would look like an
answer."""

NO_WEB_ROOT = "none"
"""The value of ``web_root`` for no app."""


class Clients(NamedTuple):
    """What is checked about a request's origin and client address."""

    origins: Origins
    """The origins whose pages may read the answers."""
    addresses: ClientAddresses
    """Finds the client's address of a request."""


class Core(NamedTuple):
    """The core and its connections."""

    relay: Relay
    """The core, for clients by HTTP."""
    factory: ClaspFactory
    """Makes the WebSocket connections of a web app that is served here too."""


def _alone() -> None:
    """Does nothing: there is no cluster."""


class AuthSite:
    """What the auth port serves.

    Args:
        settings: the settings.
        reactor: the event loop.
        clients: checks origins and client addresses.
        core: the core and its connections.
        policy: the application's rules; None for none.
        ring: the last lines of the log.
        refused: called with refused requests; see ``RequestDoor``.
        turn: makes credentials for the TURN server.
        push: sends push messages to browsers; None where it is off.
        knows_token: tells whether this relay knows a token.
        catch_up: returns a Deferred that fires once this relay has all of the decider's tokens; None for a relay that
            is alone.
        is_shared: whether other relays issue tickets, too.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        clients: Clients,
        core: Core,
        policy: Policy | None,
        ring: LogRing,
        refused: Callable[[str, str, str], None],
        turn: TurnServer | None,
        push: WebPush | None,
        knows_token: Callable[[str], bool],
        catch_up: Callable[[], Deferred[None]] | None,
        *,
        is_shared: bool,
    ) -> None:
        self.registry: CollectorRegistry | None = None
        """The metrics, for the console; set by ``RelayService``."""
        self.doors: Sequence[Counting] = ()
        """The doors, for the console; set by ``RelayService``."""
        self.member: Callable[[], tuple[str, str] | None] = _alone
        """Returns the relay's name in its cluster and its role; set in a cluster."""
        self._settings = settings
        self._reactor = reactor
        self._origins, self._addresses = clients
        self._relay, self._factory = core
        self._policy = policy
        self._ring = ring
        self._tell_refused = refused
        self._turn = turn
        self._push = push
        self._knows_token = knows_token
        self._catch_up = catch_up
        self._is_shared = is_shared
        self._http = RequestDoor("http", "HTTP", refused)
        self._hooks = RequestDoor("hooks", "webhooks", refused)
        self._sessions = ApiSessions(self._relay)
        self._streams: StreamApi | None = None

    @property
    def counts(self) -> Sequence[DoorCounts]:
        """The counts of the HTTP doors; none before ``make``. The clients of ``http`` are tokens with a session."""
        if self._streams is None:
            return ()
        self._http.counts.clients = self._sessions.clients
        return (self._http.counts, self._streams.counts, self._hooks.counts)

    def close(self) -> None:
        """Ends the sessions of clients by HTTP."""
        self._sessions.close()

    def make(self, accounts: Accounts, console: ConsoleParts, hooks: Hooks, files: Files | None) -> QuietSite:
        """Returns the site.

        Args:
            accounts: makes the calls of the auth API.
            console: the console.
            hooks: the webhooks.
            files: the files that users send to each other; None where the relay takes none.
        """
        root = self._root(accounts, console, hooks)
        site = make_site(root, self._reactor, self._settings.trusted_proxies)
        if self._catch_up is not None:
            site.instead = partial(self._instead, console.console)
        if files is None:
            root.putChild(b"files", NotFound())
        else:
            api = make_files_resource(files, origins=self._origins, addresses=self._addresses)
            if self._catch_up is not None:
                api.until_known = self._until_known
            root.putChild(b"files", api)
            site.open_body = api.open_body
        return site

    def _instead(self, console: Console, request: IRequest, find: Callable[[Any], Any]) -> AnsweredLater | None:
        """Delays a request whose token is unknown here, since another relay may have issued it just now."""
        bearer = bearer_of(request)
        if bearer is not None and bearer.startswith(CONSOLE_PREFIX) and not console.knows(bearer):
            waits = wait_until(self._relay.clock, lambda: console.knows(bearer))
            return AnsweredLater(waits, find, self._origins)
        waiting = self._until_known(bearer)
        return None if waiting is None else AnsweredLater(waiting, find, self._origins)

    def _until_known(self, bearer: str | None) -> Deferred[None] | None:
        """Returns a Deferred that fires once all the decider's tokens are known; None if this one is known."""
        if bearer is None or not bearer.startswith(TOKEN_PREFIX) or self._knows_token(bearer):
            return None
        assert self._catch_up is not None, "a relay that is alone knows all tokens"
        return self._catch_up()

    def _root(self, accounts: Accounts, console: ConsoleParts, hooks: Hooks) -> Resource:
        settings = self._settings
        folder = packaged_app() if settings.web_root is None else Path(settings.web_root)
        app = None if folder is None or settings.web_root == NO_WEB_ROOT else WebRoot(folder)
        root = NotFound() if app is None else app
        auth = make_auth_resource(
            accounts,
            origins=self._origins,
            addresses=self._addresses,
            page=app,
            turn=self._turn,
            push=self._push,
            console=console.console,
        )
        root.putChild(b"auth", auth)
        root.putChild(b"api", self._make_api(console, accounts))
        hooks_api = make_hooks_resource(
            hooks, self._sessions, self._hooks, origins=self._origins, addresses=self._addresses
        )
        root.putChild(b"hooks", hooks_api)
        if app is not None:
            root.putChild(b"ws", WebSocketResource(self._factory))
            for path in NOT_THE_APPS:
                root.putChild(path, NotFound())
            events.APP_SERVED.log(folder=str(folder))
        return root

    def _make_api(self, console: ConsoleParts, accounts: Accounts) -> IResource:
        streams = self._streams = StreamApi(self._relay, self._factory, accounts.tickets, self._tell_refused)
        streams.is_shared = self._is_shared
        journal = JournalApi(self._relay, self._sessions)
        admin = console.make_resource(
            sessions=self._sessions,
            streams=streams,
            journal=journal,
            factory=self._factory,
            policy=self._policy,
            registry=lambda: self.registry,
            doors=lambda: (*self.doors, self),
            ring=self._ring,
            name=self._settings.name,
            origins=self._origins,
            addresses=self._addresses,
            cluster=self.member,
        )
        return make_params_resource(
            self._sessions,
            streams,
            origins=self._origins,
            addresses=self._addresses,
            journal=journal,
            door=self._http,
            admin=admin,
        )
