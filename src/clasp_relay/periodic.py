"""A service that makes a call at an interval, and goes on after failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from clasp_relay.logs import events


class PeriodicService(Service):
    """Makes a call at an interval while it runs.

    A call that fails is logged, and the next one is made as usual (a bare ``LoopingCall`` would stop). While the
    Deferred of a call waits, no other call is made. The first call is due one interval after the start, or at the start
    itself.

    Args:
        interval_s: seconds from one call to the next.
        clock: tells the time; the reactor.
        call: the job; may return a Deferred.
        name: name of the job, for the log and for ``getServiceNamed``.
        run_at_start: whether the first call is made when the service starts.
        run_on_stop: whether one more call is made when the service stops, after the one that runs.
    """

    def __init__(
        self,
        interval_s: float,
        clock: IReactorTime,
        call: Callable[[], Deferred[Any] | None],
        name: str,
        *,
        run_at_start: bool = False,
        run_on_stop: bool = False,
    ) -> None:
        self.name = name
        self._interval_s = interval_s
        self._call = call
        self._run_at_start = run_at_start
        self._run_on_stop = run_on_stop
        self._loop = LoopingCall(self._run)
        self._loop.clock = clock
        self._ended: Deferred[LoopingCall] | None = None

    def startService(self) -> None:
        """Starts the first interval."""
        Service.startService(self)
        self._ended = self._loop.start(self._interval_s, now=self._run_at_start)

    def stopService(self) -> Deferred[None]:
        """Makes no further calls.

        Returns:
            A Deferred that fires once the call that is being made is done, and the last one too
            where the job asks for one. It does not fail.
        """
        Service.stopService(self)
        ended, self._ended = self._ended, None
        if ended is None:
            return succeed(None)
        self._loop.stop()
        return ended.addCallback(self._finish)

    def _finish(self, _: LoopingCall) -> Deferred[None] | None:
        return self._run() if self._run_on_stop else None

    def _run(self) -> Deferred[None]:
        done: Deferred[Any] = maybeDeferred(self._call)
        return done.addCallback(lambda _: None).addErrback(self._log_failure)

    def _log_failure(self, failure: Failure) -> None:
        events.JOB_FAILED.failure(failure, job=str(self.name))
