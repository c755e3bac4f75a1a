"""Threads for work that would block the event loop: password hashing and SQL."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Thread, get_native_id
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from clasp_relay.access.refusals import Busy, Refusal
from clasp_relay.core.lanes import Lanes
from clasp_relay.errors import cause_text
from clasp_relay.logs import events

__all__ = ["LANE", "Slots", "ThreadWorkers", "Workers", "in_lane", "uncancellable"]

P = ParamSpec("P")
T = TypeVar("T")


NICENESS = 15
"""Niceness added to threads of lower priority: the event loop gets nearly all of a core that it shares with four
hashes, instead of a fifth."""

_RETRY_AFTER_S = 2
"""Seconds to wait when a queue is full; hashes are done within a few seconds."""

LANE: ContextVar[str] = ContextVar("lane", default="")
"""The lane of the client address (``addresses.address_group``) that a coroutine works for; empty if it works for
none. A coroutine keeps the value that was set when it began."""


@contextmanager
def in_lane(lane: str) -> Iterator[None]:
    """Sets ``LANE`` for the coroutines that begin in the context."""
    token = LANE.set(lane)
    try:
        yield
    finally:
        LANE.reset(token)


class Workers(Protocol):
    """Runs blocking work on other threads."""

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Runs a function.

        Args:
            lane: the lane of the work; lanes are served in turn.
            admit: called on the event loop's thread just before the work begins; if it raises an exception, that is
                the result, and the work is not done.
            work: called on another thread.
            args: for ``work``.
            kwargs: for ``work``.

        Returns:
            what ``work`` returns or raises; ``Busy`` when too much is waiting already, in all or in that lane.
        """


class _YieldingThread(Thread):
    """A thread with lower priority than the event loop's."""

    def run(self) -> None:
        """Lowers its priority, then runs as usual."""
        if sys.platform == "linux":  # elsewhere a process has one niceness for all of its threads
            mine = get_native_id()
            try:
                os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + NICENESS)
            except OSError as error:
                events.HASHING_NOT_NICE.log(cause=cause_text(error))
        super().run()


class ThreadWorkers:
    """A few threads with a bounded queue, which serves its lanes round robin.

    Args:
        reactor: the event loop that gets the results.
        threads: number of threads.
        max_waiting: the most calls that may wait.
        name: for the threads' names.
        max_waiting_in_lane: the most calls of one lane that may wait; None for no such bound. Calls for no client
            address, whose lane is empty, have no such bound.
        gives_way: whether the threads have a lower priority than the event loop's, since the work takes long.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        threads: int,
        max_waiting: int,
        name: str,
        *,
        max_waiting_in_lane: int | None = None,
        gives_way: bool = False,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._max_waiting = max_waiting
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        if gives_way:
            self._pool.threadFactory = _YieldingThread
        self._max_waiting_in_lane = max_waiting if max_waiting_in_lane is None else max_waiting_in_lane
        self._lanes: dict[str, deque[Callable[[], None]]] = {}
        """Queued work by lane; the lane whose turn it is comes first, and none is empty."""
        self._waiting = 0
        self._running = 0
        self._beginning = False
        self._stopped = False

    def start(self) -> None:
        """Starts the threads; work that was queued before begins now."""
        self._pool.start()

    def stop(self) -> None:
        """Fails queued work with ``Busy``, and waits for running work."""
        if self._stopped:
            return
        self._stopped = True
        self._begin_waiting()
        self._pool.stop()

    @property
    def waiting(self) -> int:
        """Number of queued pieces of work."""
        return self._waiting

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """As :meth:`Workers.run`."""
        done: Deferred[T] = Deferred()
        if self._running >= self._threads and self._is_full(lane):
            done.errback(Busy("The relay is busy. Try again in a moment.", _RETRY_AFTER_S))
            return done

        def begin() -> None:
            if self._stopped:
                done.errback(Busy("The relay is stopping. Try again in a moment.", _RETRY_AFTER_S))
                return
            self._running += 1
            result = maybeDeferred(admit)
            result.addCallback(lambda _: deferToThreadPool(self._reactor, self._pool, work, *args, **kwargs))
            result.addBoth(self._end)
            result.addCallbacks(done.callback, done.errback)

        self._lanes.setdefault(lane, deque()).append(begin)
        self._waiting += 1
        self._begin_waiting()
        return done

    def _is_full(self, lane: str) -> bool:
        if self._waiting >= self._max_waiting:
            return True
        return bool(lane) and len(self._lanes.get(lane, ())) >= self._max_waiting_in_lane

    def _next(self) -> Callable[[], None]:
        """Takes the oldest work of the lane whose turn it is, and moves that lane to the end."""
        lane = next(iter(self._lanes))
        waiting = self._lanes.pop(lane)
        begin = waiting.popleft()
        if waiting:
            self._lanes[lane] = waiting
        self._waiting -= 1
        return begin

    def _end(self, result: T) -> T:
        self._running -= 1
        self._begin_waiting()
        return result

    def _begin_waiting(self) -> None:
        """Begins queued work while a thread is free.

        A loop, not a recursion: work that is not admitted ends at once, and that may be the whole queue.
        """
        if self._beginning:
            return
        self._beginning = True
        try:
            while self._waiting and (self._running < self._threads or self._stopped):
                self._next()()
        finally:
            self._beginning = False


class Slots:
    """Bounds how much is done at once; what waits begins round robin by lane.

    Args:
        count: how much may be done at once.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        """How many more may begin."""
        self._waiting: Lanes[Deferred[None]] = Lanes()

    def acquire(self, lane: str) -> Deferred[None]:
        """Returns a Deferred that fires when the caller may begin; ``release`` is to be called at its end.

        Args:
            lane: the lane of the caller.
        """
        begun: Deferred[None] = Deferred(self._waiting.discard)
        if self.free:
            self.free -= 1
            begun.callback(None)
        else:
            self._waiting.add(begun, lane)
        return begun

    def release(self) -> None:
        """Frees a slot, and gives it to the next one that waits."""
        if self._waiting:
            self._waiting.pop().callback(None)
        else:
            self.free += 1


def uncancellable(work: Deferred[T]) -> Deferred[T]:
    """Returns a Deferred of the same result; to cancel it ends the waiting, not the work.

    What is committed must also take effect, even if the client disconnects between the two.
    After a cancellation a fault (not a refusal) is left to be logged.
    """
    seen: Deferred[T] = Deferred()

    def fail(failure: Failure) -> Failure | None:
        seen_by_nobody = bool(seen.called) and failure.check(Refusal) is None
        seen.errback(failure)
        return failure if seen_by_nobody else None

    work.addCallbacks(seen.callback, fail)
    return seen
