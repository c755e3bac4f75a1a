"""The relay as a service: loads the state, listens, saves, and stops in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool

from clasp_relay.assembly.auth_server import AuthServer
from clasp_relay.assembly.health import HealthServer
from clasp_relay.assembly.journal import JournalKeeper
from clasp_relay.clock import ReactorClock
from clasp_relay.core.relay import Relay
from clasp_relay.doors.door import Door, Reloading, Watching
from clasp_relay.errors import CloseCode, StartError
from clasp_relay.logs import events
from clasp_relay.logs.relay_log import RelayLog
from clasp_relay.net.listening import TcpPlace, address_text, listen
from clasp_relay.net.tls import ServerTls
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.periodic import PeriodicService
from clasp_relay.settings import Settings
from clasp_relay.storage.folder import FileLock, prepare_folder
from clasp_relay.storage.journal.history_reader import HistoryReader
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.state_file import LoadedState, StateFile
from clasp_relay.storage.state_saver import StateSaver, try_thread

if TYPE_CHECKING:
    from clasp_relay.assembly.cluster import ClusterParts

JOURNAL_INTERVAL_S = 1.0
"""Interval of the journal's maintenance in seconds; with ``--durability kill`` a loss of power loses the writes of at
most this time."""

SWEEP_INTERVAL_S = 0.5
"""Interval between two searches for expired params in seconds: they end at most a second late."""


class RelayService(MultiService):
    """A relay as a service. Made by ``service.make_service``.

    Args:
        settings: the settings.
        reactor: the reactor that runs it.
        relay: the core.
        factory: makes the WebSocket connections.
        auth: the accounts and their port; None in open mode.
        log: the log, flushed at the end of a stop.
        journal: records the relay's changes; None for none.
        clock: the relay's clock; stopped before the last save, so that nothing changes after it.
        doors: the doors.
        reader: reads the history in the journal; None where nothing is kept there.
        cluster: the relay's part in its cluster; None for a relay that is alone.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        relay: Relay,
        factory: ClaspFactory,
        auth: AuthServer | None,
        log: RelayLog,
        clock: ReactorClock,
        journal: JournalLog | None = None,
        doors: Sequence[Door] = (),
        reader: HistoryReader | None = None,
        cluster: ClusterParts | None = None,
    ) -> None:
        MultiService.__init__(self)
        self.settings = settings
        self.relay = relay
        """The core, for programs that embed the relay."""
        self.factory = factory
        self.port: IListeningPort | None = None
        """The WebSocket port while it listens; ``port.getHost().port`` is its number when the settings say 0."""
        self.auth_port: IListeningPort | None = None
        """The port of the auth API while it listens; None in open mode."""
        self.doors = doors
        """The doors."""
        self._reactor = reactor
        self._auth = auth
        self._saver: StateSaver | None = None
        self._state_file = StateFile(settings.state_file)
        self._locks: list[FileLock] = []
        self._opened_as: int | None = None
        """The user id of the process when it opened the files."""
        self._tls: ServerTls | None = None
        self._log = log
        self._clock = clock
        self._is_stopped = False
        self._has_failed = False
        self._cluster = cluster
        self._journal = JournalKeeper(settings, relay, journal, self._journal_lost, reader)
        self.on_lost: Callable[[], object] = self.stopService
        """Called when the journal cannot be written any more, to end the process; by default only the relay stops."""
        self.is_saved = True
        """Whether the last snapshot was saved; at the end of a stop, whether all changes are on disk."""
        self.health: HealthServer | None = None
        """The health port, the metrics port, and the metrics for the console; None if none of these is there."""
        if auth is not None or settings.health_port is not None or settings.metrics_port is not None:
            self.health = HealthServer(
                None if settings.health_port is None else TcpPlace(settings.host, settings.health_port),
                reactor,
                relay,
                factory,
                auth,
                trouble=lambda: self.trouble,
                saver=lambda: self._saver,
                metrics_place=None if settings.metrics_port is None else TcpPlace(settings.host, settings.metrics_port),
                journal=journal,
                doors=doors,
                cluster=cluster,
            )
        if auth is not None and self.health is not None:
            auth.site.registry, auth.site.doors = self.health.registry, doors
        MultiService.addService(self, PeriodicService(SWEEP_INTERVAL_S, reactor, relay.sweep, "sweep"))
        if cluster is not None:
            cluster.when_lost, cluster.when_imaged = self._cluster_lost, self._save
            self._journal.applied_seq = cluster.applied_seq
            MultiService.addService(self, PeriodicService(SWEEP_INTERVAL_S, reactor, cluster.sweep, "decider's sweep"))
        if journal is not None:
            MultiService.addService(
                self, PeriodicService(JOURNAL_INTERVAL_S, reactor, self._look_after_journal, "journal")
            )
        MultiService.addService(self, PeriodicService(settings.persist_interval_s, reactor, self._save, "snapshot"))
        if auth is not None:
            MultiService.addService(self, auth)

    @property
    def is_ready(self) -> bool:
        """Whether the state is loaded, every port listens, and changes are recorded and saved."""
        return not self.trouble

    @property
    def trouble(self) -> str:
        """Why the relay is not ready, for an operator; empty where it is."""
        if self.port is None or self._saver is None:
            return "starting or stopping"
        if self._journal.trouble:
            return self._journal.trouble
        if self._cluster is not None and not self._cluster.is_ready:
            return "not up to date with its cluster"
        return "the state file could not be written" if self._saver.is_failing else ""

    def reload_tls(self) -> bool:
        """Reads certificate and key again, for new connections; open sessions continue.

        Returns:
            Whether they are in use now. If not, the previous ones are, and the log says why.
        """
        return self._tls is not None and self._tls.reload()

    def reload(self) -> None:
        """Reads the files again that may change while the relay runs: certificate, key and rules."""
        if self._tls is not None:
            self.reload_tls()
        for door in self.doors:
            if isinstance(door, Reloading):
                door.reload()

    def privilegedStartService(self) -> None:
        """Loads the state, then listens, before twistd gives up the privilege to use ports below 1024."""
        self._open()
        MultiService.privilegedStartService(self)

    def startService(self) -> None:
        """Starts the relay; loads and listens unless ``privilegedStartService`` has. Does nothing when it runs already.

        Raises:
            StartError: it cannot start, or it was stopped.
        """
        if self.running:
            return
        self._open()
        if os.geteuid() != self._opened_as:  # twistd's --uid: the user that saves is not the one that loaded
            try:
                self._try_files()
            except StartError:
                self._close_everything()
                self._release_files()
                raise
        MultiService.startService(self)
        assert self.port is not None, "started without a port"
        events.RELAY_LISTENING.log(name=self.settings.name, address=address_text(self.port.getHost()))
        if self.auth_port is not None:
            events.AUTH_LISTENING.log(address=address_text(self.auth_port.getHost()))
        for door in self.doors:
            door.started(getattr(self.port.getHost(), "port", None))
        if self.health is not None:
            self.health.startService()
            if self.health.port is not None:
                events.HEALTH_LISTENING.log(address=address_text(self.health.port.getHost()))
            if self.health.metrics_port is not None:
                events.METRICS_LISTENING.log(address=address_text(self.health.metrics_port.getHost()))
        if self.settings.is_open_mode:
            events.RELAY_OPEN_MODE.log()
        if self._cluster is not None:
            self._cluster.start()

    def hand_over(self) -> None:
        """Has another relay of the cluster decide, if this one does."""
        if self._cluster is not None:
            self._cluster.hand_over()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stops in order: no new connections, save, close every session, save their last changes.

        Returns:
            A Deferred that fires at the end; it takes at most ``drain_timeout_s`` and the time of two saves.
        """
        if self.port is None:
            return
        self._is_stopped = True
        self.relay.hooks.when_gone = _clears_nothing  # clients come back after a restart
        self.relay.hooks.when_ended = _clears_nothing
        events.RELAY_STOPPING.log(sessions=self.factory.sessions)
        self.factory.stop_accepting()
        yield self._stop_listening()
        yield self._save()
        aborted = yield self.factory.close_all(
            CloseCode.GOING_AWAY, "going away", timeout_s=self.settings.drain_timeout_s
        )
        if self._cluster is not None:
            yield self._cluster.stop()
        yield maybeDeferred(MultiService.stopService, self)
        assert self._saver is not None, "stopped before anything was loaded"
        self._clock.stop()
        self.relay.bundles.finish()
        if not self._journal.keeps_bundles and len(self.relay.schedule):
            events.BUNDLES_LOST.log(count=len(self.relay.schedule))
        saved = yield self._saver.save_if_changed(may_block=True)
        saved = saved and not self._journal.is_lost
        self.is_saved = saved and not self._has_failed
        self._journal.close()
        if self.health is not None:
            yield self.health.stopService()
        self._release_files()
        self._log.flush()
        events.RELAY_STOPPED.log(aborted=aborted, saved=saved, outcome=_outcome(aborted, saved))

    def _open(self) -> None:
        if self._is_stopped:
            raise StartError("a relay that was stopped does not start again; make another one with make_service")
        if self.port is not None:
            return
        try:
            self._open_everything()
        except BaseException:
            self._release_files()
            raise

    def _open_everything(self) -> None:
        settings = self.settings
        state_file = self._state_file
        self._lock_files()
        self._try_files()
        self._opened_as = os.geteuid()
        now_us = self.relay.clock.now_us()
        state = state_file.load(now_us)
        for warning in state.warnings:
            events.STATE_WARNING.log(text=warning)
        site = None if self._auth is None else self._auth.open()
        try:
            self._load(state)
            if settings.tls_cert is not None and settings.tls_key is not None:
                self._tls = ServerTls(settings.tls_cert, settings.tls_key)
            if self.health is not None:
                self.health.open()
            self.port = self._listen("port", settings.port, settings.endpoint, self.factory)
            if site is not None:
                self.auth_port = self._listen("auth-port", settings.auth_port, settings.auth_endpoint, site)
            for door in self.doors:
                door.open(self._tls)
        except StartError:
            self._close_everything()
            raise

    def _close_everything(self) -> None:
        """Closes what a failed start has opened, since the journal's thread would keep the process from ending."""
        self._stop_listening()
        if self.health is not None:
            self.health.stopService()
        if self._auth is not None:
            self._auth.close()
        self._journal.close()

    def _load(self, state: LoadedState) -> None:
        """Loads the state, and the changes that the journal has after it."""
        state_file, params, journal = self._state_file, self.relay.params, self._journal
        params.load(state.image, self.relay.clock.now_us())
        self._saver = StateSaver(
            state_file,
            journal.capture,
            lambda: params.changes + journal.changes,
            self._defer_to_thread,
            events.SNAPSHOT_SAVED.logger,
            journal=journal.log,
        )
        journal.open(state, state_file.previous_journal_seq)
        for door in self.doors:
            if isinstance(door, Watching):
                door.begin()
        if self._cluster is None:
            self.relay.resume(lambda session, why: events.BUNDLE_NOT_RUN.log(session=session, reason=why))
        else:
            self._cluster.open()
        if state.found:
            events.STATE_LOADED.log(params=len(params), path=str(state_file.path))
        else:
            events.STATE_MISSING.log(path=str(state_file.path))

    def _files(self) -> list[tuple[str, Path]]:
        """Returns the files that only this relay may use, each with the option that names it."""
        settings = self.settings
        files = [("--data-dir" if settings.state_path is None else "--persist", self._state_file.path)]
        if self._journal.log is not None or settings.journal_file.exists():
            files.append(("--data-dir" if settings.journal_path is None else "--journal", settings.journal_file))
        if self._auth is not None:
            files.append(("--data-dir" if settings.auth_db is None else "--auth-db", settings.users_file))
            if settings.takes_files and (not settings.cluster or settings.files_database.exists()):
                files.append(("--data-dir", settings.files_database))
        return files

    def _lock_files(self) -> None:
        for option, path in self._files():
            prepare_folder(option, path.parent)
            lock = FileLock(option, path)
            self._locks.append(lock)
            if lock.warning is not None:
                events.STATE_WARNING.log(text=lock.warning)

    def _try_files(self) -> None:
        """Checks that files can be saved later, as the user who will save them."""
        for option, path in self._files():
            prepare_folder(option, path.parent)
        self._state_file.try_write(self._files()[0][0])
        try_thread()

    def _release_files(self) -> None:
        while self._locks:
            self._locks.pop().release()

    def _listen(self, option: str, port: int, endpoint: str | None, factory: Any) -> IListeningPort:
        if endpoint is None:
            place = TcpPlace(self.settings.host, port, self._tls, self.settings.share_port)
            return listen(self._reactor, place, factory, f"--{option}")
        return listen(self._reactor, endpoint, factory, f"--{option.replace('port', 'endpoint')}")

    def _stop_listening(self) -> Deferred[Any]:
        ports = [port for port in (self.port, self.auth_port) if port is not None]
        self.port = self.auth_port = None
        closed = [door.close() for door in self.doors]
        return DeferredList([*(maybeDeferred(port.stopListening) for port in ports), *closed])

    @inlineCallbacks
    def _save(self) -> Generator[Deferred[bool], bool, bool]:
        assert self._saver is not None, "saved before anything was loaded"
        self.is_saved = yield self._saver.save_if_changed()
        return self.is_saved

    def _look_after_journal(self) -> Deferred[Any] | None:
        log = self._journal.log
        if log is not None and log.wants_state_saved:
            self._save()
        return self._journal.maintain()

    def _journal_lost(self) -> None:
        """Stops the relay; nothing since the failed commit is saved or acknowledged."""
        self.is_saved = False
        self.on_lost()

    def _cluster_lost(self) -> None:
        """Stops the relay, which cannot go on in its cluster; the process ends with status 1."""
        self._has_failed = True
        self.is_saved = False
        self.on_lost()

    def _defer_to_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)


def _clears_nothing(_who: object) -> None:
    """Does nothing, since a stop ends all sessions and must not clear their params."""


def _outcome(aborted: int, saved: bool) -> str:
    """Returns the outcome of a stop, for the log."""
    told = "all sessions were closed" if not aborted else f"sessions that did not receive everything: {aborted}"
    return f"{told}; " + ("all changes are saved" if saved else "the last changes are NOT saved")
