"""The one place where the relay is put together."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from clasp_relay.clock import ReactorClock
from clasp_relay.core.params import ParamLimits
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.errors import CloseCode, StartError
from clasp_relay.net.factory import ClaspFactory
from clasp_relay.net.limits import NetLimits
from clasp_relay.net.turn import TurnWriter
from clasp_relay.periodic import PeriodicService
from clasp_relay.settings import Settings
from clasp_relay.storage.folder import prepare_folder
from clasp_relay.storage.snapshot_writer import SnapshotWriter
from clasp_relay.storage.state_file import StateFile

_log = Logger(namespace="clasp_relay")

SWEEP_INTERVAL_S = 0.5
"""How often ended params are looked for: they end at most a second late."""

BACKLOG = 1_024
"""Connections that the system keeps until they are accepted: what a reconnect of all clients makes at once."""


def make_service(settings: Settings, reactor: Any) -> RelayService:
    """Builds a relay; nothing is opened, read or written before the service starts.

    Args:
        settings: what it is told.
        reactor: the reactor that will run it.

    Returns:
        A service to start alone or as part of an application. Its start raises ``errors.StartError``, with
        one line for the operator, when a port, a folder or a file cannot be used.
    """
    writer = TurnWriter(reactor)
    params = ParamLimits(settings.max_params, settings.max_state_bytes, default_ttl_s=settings.param_ttl_s)
    relay = Relay(
        RelayOptions(settings.name, params),
        ReactorClock(reactor),
        lambda: str(uuid.uuid4()),
        writer,
        lambda what, fault: _log.failure("a fault while handling {what}", Failure(fault), what=what),
    )
    limits = NetLimits(
        settings.max_sessions,
        settings.max_sessions_per_address,
        settings.session_timeout_s,
        settings.outbox_bytes,
    )
    return RelayService(settings, reactor, relay, ClaspFactory(relay, writer, reactor, limits))


class RelayService(MultiService):
    """The relay's life: loads, listens, saves, and ends in order. Made by ``make_service``.

    Args:
        settings: what it is told.
        reactor: what it runs on.
        relay: the core.
        factory: makes the WebSocket connections.
    """

    def __init__(self, settings: Settings, reactor: Any, relay: Relay, factory: ClaspFactory) -> None:
        MultiService.__init__(self)
        self.settings = settings
        self.relay = relay
        """For programs that embed it."""
        self.factory = factory
        self.port: IListeningPort | None = None
        """Where it listens, while it does; ``port.getHost().port`` is the number where the settings say 0."""
        self._reactor = reactor
        self._snapshots: SnapshotWriter | None = None
        MultiService.addService(self, PeriodicService(SWEEP_INTERVAL_S, reactor, relay.sweep, "sweep"))
        MultiService.addService(self, PeriodicService(settings.persist_interval_s, reactor, self._save, "snapshot"))

    @property
    def is_ready(self) -> bool:
        """Whether the state is loaded and the port listens."""
        return self.port is not None

    def privilegedStartService(self) -> None:
        """Loads the state, then listens, while ports below 1024 can still be had."""
        self._open()
        MultiService.privilegedStartService(self)

    def startService(self) -> None:
        """Starts; loads and listens unless that is done already."""
        self._open()
        MultiService.startService(self)
        _log.info("{name} listens on {where}", name=self.settings.name, where=self.port and self.port.getHost())
        _log.warn("open mode: everybody who can reach this port may read and write everything")

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Ends in order: no new connections, save, close every session, save what they still changed.

        Returns:
            A Deferred that fires when all is done; well within ``drain_timeout_s`` and the time of two snapshots.
        """
        port, self.port = self.port, None
        if port is None:
            return
        _log.info("stopping: {sessions} sessions", sessions=self.factory.sessions)
        self.factory.stop_accepting()
        yield maybeDeferred(port.stopListening)
        yield self._save()
        aborted = yield self.factory.close_all(
            CloseCode.GOING_AWAY, "going away", timeout_s=self.settings.drain_timeout_s
        )
        yield maybeDeferred(MultiService.stopService, self)
        saved = yield self._save()
        _log.info("stopped: {aborted} sessions did not take all; saved: {saved}", aborted=aborted, saved=saved)

    def _open(self) -> None:
        if self.port is not None:
            return
        settings = self.settings
        state_file = StateFile(settings.state_file)
        prepare_folder("--data-dir" if settings.state_path is None else "--persist", state_file.path.parent)
        state = state_file.load()
        for warning in state.warnings:
            _log.warn("{warning}", warning=warning)
        try:
            self.port = self._reactor.listenTCP(settings.port, self.factory, BACKLOG, settings.host)
        except CannotListenError as error:
            cause = getattr(error.socketError, "strerror", None) or error.socketError
            where = f"{settings.host}:{settings.port}"
            raise StartError(f"--port: cannot listen on {where} ({cause}); give another --port or --host") from error
        params = self.relay.params
        params.load(state.image)
        self._snapshots = SnapshotWriter(
            state_file, params.image, lambda: params.changes, self._defer_to_thread, Logger("clasp_relay.storage")
        )
        _log.info("{params} params loaded from {path}", params=len(params), path=str(state_file.path))

    def _save(self) -> Deferred[bool]:
        assert self._snapshots is not None, "saved before anything was loaded"
        return self._snapshots.save_if_changed()

    def _defer_to_thread(self, function: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)
