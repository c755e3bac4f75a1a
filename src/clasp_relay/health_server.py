"""The service behind ``--health-port``: health checks and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from clasp_relay.auth_server import AuthServer
from clasp_relay.core.relay import Relay
from clasp_relay.event_loop import LoopLag
from clasp_relay.http.bounded import make_site
from clasp_relay.http.health import make_health_resource
from clasp_relay.http.metrics import Sources, make_registry
from clasp_relay.net.listening import TcpPlace, listen
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.snapshot_writer import SnapshotWriter

__all__ = ["HealthServer"]


class HealthServer(Service):
    """Serves ``/healthz``, ``/readyz`` and ``/metrics`` while it runs. A stop of the relay ends it last.

    Args:
        place: where it listens.
        reactor: the reactor that runs it.
        relay: the core.
        factory: the connections.
        auth: the accounts; None in open mode.
        is_ready: whether every port listens and the state is loaded, and no stop has begun.
        snapshots: returns what writes the state file; None until the state is loaded.
        journal: what records the changes; None where nothing does.
    """

    def __init__(
        self,
        place: TcpPlace,
        reactor: Any,
        relay: Relay,
        factory: ClaspFactory,
        auth: AuthServer | None,
        *,
        is_ready: Callable[[], bool],
        snapshots: Callable[[], SnapshotWriter | None],
        journal: JournalLog | None = None,
    ) -> None:
        self.port: IListeningPort | None = None
        """The port while it listens."""
        self._place = place
        self._reactor = reactor
        self._lag = LoopLag(reactor)
        sources = Sources(
            relay=relay,
            factory=factory,
            snapshots=snapshots,
            auth_outcomes=lambda: {} if auth is None else auth.outcomes,
            hash_queue=lambda: 0 if auth is None else auth.hashing.waiting,
            loop_lag=self._lag,
            journal=journal,
        )
        self._site = make_site(make_health_resource(is_ready, make_registry(sources)), reactor, uses_reserve=True)

    def open(self) -> None:
        """Listens, unless it does.

        Raises:
            StartError: it cannot.
        """
        if self.port is None:
            self.port = listen(self._reactor, self._place, self._site, "--health-port")

    def startService(self) -> None:
        """Starts to measure; ``open`` must have been called."""
        Service.startService(self)
        self._lag.startService()

    def stopService(self) -> Deferred[Any]:
        """Ends the measuring and the port."""
        if self.running:
            Service.stopService(self)
            self._lag.stopService()
        port, self.port = self.port, None
        return maybeDeferred(lambda: None if port is None else port.stopListening())
