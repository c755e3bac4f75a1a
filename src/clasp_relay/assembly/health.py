"""The service behind ``--health-port`` and ``--metrics-port``: health checks and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from clasp_relay.assembly.auth_server import AuthServer
from clasp_relay.core.relay import Relay
from clasp_relay.doors.door import Door
from clasp_relay.event_loop import LoopLag
from clasp_relay.http.health import make_health_resource, make_metrics_resource
from clasp_relay.http.metrics import Clustered, Sources, make_registry
from clasp_relay.http.site import make_site
from clasp_relay.net.listening import TcpPlace, listen
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.state_saver import StateSaver

__all__ = ["HealthServer"]


class HealthServer(Service):
    """Serves ``/healthz``, ``/readyz`` and ``/metrics`` while it runs. A stop of the relay stops it last.

    Args:
        place: where it listens; None for nowhere.
        reactor: the reactor that runs it.
        relay: the core.
        factory: the connections.
        auth: the accounts; None in open mode.
        trouble: returns why the relay is not ready; empty if it is.
        saver: returns the saver of the state file; None until the state is loaded.
        metrics_place: where it serves ``/metrics`` alone; None for nowhere.
        journal: the journal; None for none.
        doors: the doors.
        cluster: the relay's part in its cluster; None for a relay that is alone.
    """

    def __init__(
        self,
        place: TcpPlace | None,
        reactor: Any,
        relay: Relay,
        factory: ClaspFactory,
        auth: AuthServer | None,
        *,
        trouble: Callable[[], str],
        saver: Callable[[], StateSaver | None],
        metrics_place: TcpPlace | None = None,
        journal: JournalLog | None = None,
        doors: Sequence[Door] = (),
        cluster: Clustered | None = None,
    ) -> None:
        self.port: IListeningPort | None = None
        """The port of the health checks while it listens."""
        self.metrics_port: IListeningPort | None = None
        """The port of the metrics alone while it listens."""
        self._place = place
        self._metrics_place = metrics_place
        self._reactor = reactor
        self._lag = LoopLag(reactor)
        sources = Sources(
            relay=relay,
            factory=factory,
            saver=saver,
            auth_outcomes=lambda: {} if auth is None else auth.outcomes,
            hash_queue=lambda: 0 if auth is None else auth.hashing.waiting,
            loop_lag=self._lag,
            journal=journal,
            doors=doors if auth is None else (*doors, auth.site),
            files=lambda: None if auth is None else auth.files,
            push=None if auth is None else auth.push,
            cluster=cluster,
        )
        registry = self.registry = make_registry(sources)
        """The metrics."""
        self._site = make_site(
            make_health_resource(trouble, registry, None if cluster is None else cluster.status),
            reactor,
            uses_reserve=True,
        )
        self._metrics_site = make_site(make_metrics_resource(registry), reactor, uses_reserve=True)

    def open(self) -> None:
        """Listens; does nothing if it listens already.

        Raises:
            StartError: it cannot listen on a port.
        """
        if self.port is None and self._place is not None:
            self.port = listen(self._reactor, self._place, self._site, "--health-port")
        if self.metrics_port is None and self._metrics_place is not None:
            self.metrics_port = listen(self._reactor, self._metrics_place, self._metrics_site, "--metrics-port")

    def startService(self) -> None:
        """Starts to measure; ``open`` must have been called."""
        Service.startService(self)
        self._lag.startService()

    def stopService(self) -> Deferred[Any]:
        """Stops measuring, and closes the ports."""
        if self.running:
            Service.stopService(self)
            self._lag.stopService()
        ports = [port for port in (self.port, self.metrics_port) if port is not None]
        self.port = self.metrics_port = None
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])
