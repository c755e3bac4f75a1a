"""An asyncio loop that turns within the reactor's turns, in the reactor's thread.

So nats-py reads and writes in the thread that needs the data. With a thread of its own, each batch of the log took six
hand-overs between threads, at 0.05 to 0.15 ms each, with a system call to wake the other thread.

The reactor watches the loop's own epoll object, which is readable when a descriptor that the loop waits for is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from selectors import DefaultSelector, SelectorKey
from typing import Any, TypeVarTuple, Unpack

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from clasp_relay.logs import events

__all__ = ["HostedLoop"]

_Arguments = TypeVarTuple("_Arguments")

ROUNDS = 50
"""How many rounds of calls that schedule further calls one turn has before the reactor goes on."""


class _Selector(DefaultSelector):
    """Polls once in each turn, and never waits; ends the turn when the loop would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.end: Callable[[], None] = _nothing
        """Ends the turn."""
        self.idle_s: float | None = 0.0
        """For how long the loop has nothing to do, in s; None for no limit."""
        self._rounds = 0

    def begin(self) -> None:
        """Begins a turn."""
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Returns the descriptors that are ready.

        Args:
            timeout: how long the loop would wait, in s; 0 if a call is due, None for no limit.
        """
        self._rounds += 1
        # The reactor notices what becomes ready later.
        ready = super().select(0) if self._rounds == 1 else []
        if not ready and (timeout is None or timeout > 0):
            self._end(timeout)
        elif self._rounds >= ROUNDS:
            self._end(0.0)
        return ready

    def _end(self, idle_s: float | None) -> None:
        self.idle_s = idle_s
        self.end()


@implementer(IReadDescriptor)
class _Watched:
    """Makes a turn of the loop when the reactor finds the loop's epoll object readable.

    Args:
        descriptor: the descriptor of that object.
        turn: makes a turn of the loop.
    """

    def __init__(self, descriptor: int, turn: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._turn = turn

    def fileno(self) -> int:
        """See ``IReadDescriptor``."""
        return self._descriptor

    def doRead(self) -> None:  # noqa: N802  Twisted's
        """See ``IReadDescriptor``."""
        self._turn()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``; does nothing, since the reactor ends."""

    def logPrefix(self) -> str:  # noqa: N802  Twisted's
        """See ``IReadDescriptor``."""
        return "asyncio"


class HostedLoop(asyncio.SelectorEventLoop):
    """See the module.

    Args:
        reactor: the event loop that hosts it.
        turned: called after each turn, while this loop does not run.
    """

    def __init__(self, reactor: Any, turned: Callable[[], None]) -> None:
        self._reactor = reactor
        self._turned = turned
        self._timer: IDelayedCall | None = None
        self._poller = _Selector()
        super().__init__(self._poller)
        self._poller.end = self.stop
        self.set_exception_handler(_log_fault)
        self._watched = _Watched(self._poller.fileno(), self._turn)
        reactor.addReader(self._watched)

    def call_soon(
        self, callback: Callable[[Unpack[_Arguments]], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """See ``AbstractEventLoop``; outside of a turn it schedules one."""
        handle = super().call_soon(callback, *args, context=context)
        if not self.is_running():
            self._turn_in(0.0)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Arguments]], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See ``AbstractEventLoop``; likewise."""
        handle = super().call_at(when, callback, *args, context=context)
        if not self.is_running():
            self._turn_in(when - self.time())
        return handle

    def close(self) -> None:
        """See ``AbstractEventLoop``."""
        if self.is_closed():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reactor.removeReader(self._watched)
        super().close()

    def _turn_in(self, delay_s: float) -> None:
        """Schedules a turn after a time, unless an earlier one is scheduled."""
        delay_s = max(0.0, delay_s)
        if self._timer is None:
            self._timer = self._reactor.callLater(delay_s, self._turn_in_time)
        elif self._timer.getTime() > self._reactor.seconds() + delay_s:
            self._timer.reset(delay_s)

    def _turn_in_time(self) -> None:
        self._timer = None
        self._turn()

    def _turn(self) -> None:
        """Makes all calls that are due."""
        if self.is_closed():
            return
        self._poller.begin()
        # The reactor may be asyncio's own.
        hosts = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            self.run_forever()
        finally:
            asyncio._set_running_loop(hosts)
        idle_s = self._poller.idle_s
        if idle_s is not None:
            self._turn_in(idle_s)
        self._turned()


def _log_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs what asyncio would write to stderr: an unhandled exception, or a task that was destroyed while pending."""
    fault = context.get("exception") or RuntimeError(context["message"])
    events.CLUSTER_FAULT.failure(Failure(fault))


def _nothing() -> None:
    """Does nothing: there is no turn to end."""
