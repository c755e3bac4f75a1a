"""Work on other threads."""

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from clasp_relay.access.refusals import BadInput, Busy
from clasp_relay.access.threads import NICENESS, Slots, ThreadWorkers, uncancellable

REACTOR: Any = reactor


def always() -> None:
    """Admits."""


def never() -> None:
    """Does not admit."""
    raise BadInput("No.")


class ThreadWorkersTests(TestCase):
    """Two threads, and three that may wait."""

    def setUp(self) -> None:
        """Starts the threads."""
        self.workers = ThreadWorkers(REACTOR, 2, 3, "test")
        self.workers.start()
        self.gate = threading.Event()
        self.addCleanup(self.workers.stop)
        self.addCleanup(self.gate.set)
        self.done: list[str] = []

    def wait_at_gate(self, name: str) -> str:
        """Works until the gate is opened."""
        self.gate.wait(30)
        self.done.append(name)
        return name

    def fill(self) -> list[Deferred[str]]:
        """Gives work to both threads, and as much again as may wait."""
        return [self.workers.run("", always, self.wait_at_gate, name) for name in "abcde"]

    async def test_work_is_done_on_another_thread(self) -> None:
        """Its result comes back to the event loop's, and so does what it raises."""
        thread = await self.workers.run("", always, threading.current_thread)
        self.assertIsNot(thread, threading.current_thread())
        results = []
        failing: Deferred[int] = self.workers.run("", always, int, "x")
        failing.addErrback(lambda failure: results.append((failure.type, threading.current_thread())))
        await failing
        self.assertEqual(results, [(ValueError, threading.current_thread())])

    async def test_work_waits_in_order_and_beyond_that_is_refused(self) -> None:
        """The relay is busy, and says so at once; afterwards it is not."""
        results = self.fill()
        self.assertEqual(self.workers.waiting, 3)
        error = self.failureResultOf(self.workers.run("", always, self.wait_at_gate, "f"), Busy).value
        self.assertEqual(error.retry_after_s, 2)
        self.gate.set()
        for result, name in zip(results, "abcde", strict=True):
            self.assertEqual((await result), name)
        self.assertEqual(sorted(self.done), list("abcde"))
        self.assertEqual((await self.workers.run("", always, self.wait_at_gate, "g")), "g")

    async def test_work_is_admitted_when_its_turn_comes(self) -> None:
        """What is not admitted is not done, and does not hold up what comes after, however much it is."""
        workers = ThreadWorkers(REACTOR, 1, 5000, "test")
        workers.start()
        self.addCleanup(workers.stop)
        admitted: list[str] = []
        first = workers.run("", lambda: admitted.append("first"), self.wait_at_gate, "first")
        refused = [workers.run("", never, self.wait_at_gate, "refused") for _ in range(3000)]
        last = workers.run("", lambda: admitted.append("last"), self.wait_at_gate, "last")
        self.assertEqual(admitted, ["first"])
        self.gate.set()
        await first
        for result in refused:
            self.failureResultOf(result, BadInput)
        await last
        self.assertEqual(self.done, ["first", "last"])
        self.assertEqual(admitted, ["first", "last"])

    async def test_lanes_are_served_in_turn(self) -> None:
        """Who brings one thing does not wait behind a crowd of one lane, and each lane keeps its order."""
        workers = ThreadWorkers(REACTOR, 1, 300, "test")
        workers.start()
        self.addCleanup(workers.stop)
        names = ["crowd 1", "crowd 2", "crowd 3", "crowd 4", "one 1", "two 1", "two 2"]
        results = [workers.run(name.split()[0], always, self.wait_at_gate, name) for name in names]
        self.gate.set()
        for result in results:
            await result
        self.assertEqual(self.done, ["crowd 1", "crowd 2", "one 1", "two 1", "crowd 3", "two 2", "crowd 4"])

    async def test_lane_has_a_bounded_share_of_the_queue(self) -> None:
        """Beyond it that lane is told to come back; the others are not."""
        workers = ThreadWorkers(REACTOR, 1, 10, "test", max_waiting_in_lane=2)
        workers.start()
        self.addCleanup(workers.stop)
        results = [workers.run("crowd", always, self.wait_at_gate, str(number)) for number in range(3)]
        self.failureResultOf(workers.run("crowd", always, self.wait_at_gate, "too many"), Busy)
        results.append(workers.run("one", always, self.wait_at_gate, "3"))
        self.gate.set()
        for result in results:
            await result
        self.assertEqual(sorted(self.done), ["0", "1", "2", "3"])

    async def test_what_is_for_no_client_address_has_all_of_the_queue(self) -> None:
        """It is the relay's own."""
        workers = ThreadWorkers(REACTOR, 1, 10, "test", max_waiting_in_lane=2)
        workers.start()
        self.addCleanup(workers.stop)
        results = [workers.run("", always, self.wait_at_gate, str(number)) for number in range(11)]
        self.failureResultOf(workers.run("", always, self.wait_at_gate, "too many"), Busy)
        self.gate.set()
        for result in results:
            await result

    async def test_stop_ends_what_has_not_begun(self) -> None:
        """What has begun is finished; nothing new begins."""
        results = self.fill()
        threading.Timer(0.05, self.gate.set).start()
        self.workers.stop()
        for result in results[2:]:
            self.failureResultOf(result, Busy)
        self.failureResultOf(self.workers.run("", always, self.wait_at_gate, "f"), Busy)
        for result, name in zip(results[:2], "ab", strict=True):
            self.assertEqual((await result), name)
        self.assertEqual(sorted(self.done), ["a", "b"])
        await deferLater(REACTOR, 0, lambda: None)


class GivingWayTests(TestCase):
    """Work that takes long gives way to the event loop."""

    def niceness(self) -> int:
        """Returns the calling thread's."""
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def told(self, *, gives_way: bool) -> int:
        """Returns the niceness that work is done with."""
        workers = ThreadWorkers(REACTOR, 1, 3, "test", gives_way=gives_way)
        workers.start()
        self.addCleanup(workers.stop)
        return await workers.run("", always, self.niceness)

    async def test_hashing_is_nicer_than_the_event_loop(self) -> None:
        """Only its own threads are."""
        if sys.platform != "linux":
            raise SkipTest("threads have no niceness of their own here")
        before = self.niceness()
        self.assertEqual(await self.told(gives_way=True), min(19, before + NICENESS))
        self.assertEqual(await self.told(gives_way=False), before)
        self.assertEqual(self.niceness(), before)

    async def test_work_is_done_where_a_thread_may_not_give_way(self) -> None:
        """A sandbox may forbid it."""

        def forbidden(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "setpriority", forbidden)
        self.assertEqual(await self.told(gives_way=True), self.niceness())


def _note(begun: list[str], name: str, _: None) -> None:
    begun.append(name)


class SlotsTests(SynchronousTestCase):
    """Two things at once."""

    def test_lanes_take_turns(self) -> None:
        """Who does not wait any more takes no place; what is free again is there for the next one."""
        slots, begun = Slots(2), list[str]()
        waiting = {}
        for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
            waiting[name] = slots.acquire(name[0])
            waiting[name].addCallback(partial(_note, begun, name))
        self.assertEqual((begun, slots.free), (["a1", "a2"], 0))
        waiting["a4"].cancel()
        self.failureResultOf(waiting["a4"], CancelledError)
        for _ in range(3):
            slots.release()
        self.assertEqual((begun, slots.free), (["a1", "a2", "a3", "b1", "b2"], 0))
        for _ in range(2):
            slots.release()
        self.assertEqual(slots.free, 2)


class UncancellableTests(SynchronousTestCase):
    """Who waits may go; the work goes on."""

    def run_cancelled(self, finish: Callable[[Deferred[int]], object]) -> None:
        """Has somebody stop waiting, then finishes the work."""
        work: Deferred[int] = Deferred(lambda _: self.fail("the work was cancelled"))
        seen = uncancellable(work)
        seen.addErrback(lambda _: None)
        seen.cancel()
        finish(work)

    def test_result_is_passed_on(self) -> None:
        """The good and the bad."""
        for finish, check in (
            (lambda work: work.callback(7), lambda seen: self.assertEqual(self.successResultOf(seen), 7)),
            (lambda work: work.errback(BadInput("No.")), lambda seen: self.failureResultOf(seen, BadInput)),
        ):
            work: Deferred[int] = Deferred()
            seen = uncancellable(work)
            finish(work)
            check(seen)

    def test_cancelling_ends_the_waiting_only(self) -> None:
        """A result or a refusal is nobody's then; a fault is logged."""
        self.run_cancelled(lambda work: work.callback(7))
        self.run_cancelled(lambda work: work.errback(BadInput("No.")))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.run_cancelled(lambda work: work.errback(ValueError("broken")))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
