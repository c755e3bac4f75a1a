"""An asyncio loop within a reactor, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.nats.hosted_loop import ROUNDS, HostedLoop
from clasp_relay.logs import events
from tests.cluster.reactor import Loop


class HostedLoopTests(SynchronousTestCase):
    """What asyncio promises, in the turns of a reactor."""

    def setUp(self) -> None:
        """Makes the two loops."""
        self.turns = 0
        self.reactor = Loop()
        self.loop = HostedLoop(self.reactor, self.turned)
        self.addCleanup(self.loop.close)

    def turned(self) -> None:
        """Counts the turns."""
        self.assertFalse(self.loop.is_running())
        self.turns += 1

    def test_a_task_begins_without_the_loop_being_run(self) -> None:
        """And goes on with what it waits for, be it a time or a socket."""
        near, far = socket.socketpair()
        self.addCleanup(far.close)

        async def work() -> bytes:
            await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(sock=near)
            writer.write(b"ask\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer

        task = self.loop.create_task(work())
        far.setblocking(False)
        asked: list[bytes] = []

        def has_asked() -> bool:
            try:
                asked.append(far.recv(100))
            except BlockingIOError:
                return False
            return True

        self.reactor.until(has_asked)
        far.sendall(b"answer\n")
        self.reactor.until(task.done)
        self.assertEqual((asked, task.result()), ([b"ask\n"], b"answer\n"))

    def test_what_another_thread_asks_for_is_called(self) -> None:
        """A name is looked up in one."""
        task = self.loop.create_task(asyncio.to_thread(int, "7"))
        self.reactor.until(task.done)
        self.assertEqual(task.result(), 7)
        ended = self.loop.create_task(self.loop.shutdown_default_executor())
        self.reactor.until(ended.done)

    def test_it_sleeps_while_it_has_nothing_to_do(self) -> None:
        """The reactor is not kept busy."""
        task = self.loop.create_task(asyncio.sleep(0.3))
        self.reactor.until(task.done)
        self.assertLess(self.turns, 5)

    def test_a_nearer_time_comes_first(self) -> None:
        """Also where it was asked for outside of a turn, behind one that is far."""
        called: list[str] = []
        self.loop.call_later(3_600, called.append, "far")
        self.loop.call_later(0.02, called.append, "near")
        self.reactor.until(lambda: called)
        self.assertEqual(called, ["near"])

    def test_what_can_be_read_comes_before_what_is_due(self) -> None:
        """An answer that is there has not come too late."""
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        self.addCleanup(near.close)
        called: list[str] = []

        def read() -> None:
            near.recv(1)
            called.append("read")

        self.loop.add_reader(near, read)
        self.loop.call_later(0.01, called.append, "due")
        far.sendall(b"x")
        time.sleep(0.02)
        self.reactor.until(lambda: len(called) == 2)
        self.loop.remove_reader(near)
        self.assertEqual(called, ["read", "due"])

    def test_it_leaves_the_reactor_its_turn(self) -> None:
        """However often its calls ask for further ones."""
        count = 0

        def again() -> None:
            nonlocal count
            count += 1
            self.loop.call_soon(again)

        self.loop.call_soon(again)
        self.reactor.turn()
        self.assertEqual((self.turns, count), (1, ROUNDS))
        self.reactor.until(lambda: self.turns == 3)
        self.assertEqual(count, 3 * ROUNDS)

    def test_it_turns_within_another_loop(self) -> None:
        """Such as that of asyncio's reactor, which runs on as before."""
        found: list[asyncio.AbstractEventLoop] = []

        async def note() -> None:
            found.append(asyncio.get_running_loop())

        async def outer() -> None:
            self.loop.create_task(note())
            self.reactor.until(lambda: found)
            found.append(asyncio.get_running_loop())

        asyncio.run(outer())
        self.assertIs(found[0], self.loop)
        self.assertIsNot(found[1], self.loop)

    def test_what_nobody_handles_is_logged(self) -> None:
        """As a fault of the cluster with its traceback, or with asyncio's own words; nothing is written to stderr."""

        def fail() -> None:
            raise LookupError("nobody handles this")

        def logged() -> list[Any]:
            return [each for each in logs if each.get("event") == events.CLUSTER_FAULT.name]

        with capturedLogs() as logs, redirect_stderr(StringIO()) as written:
            self.loop.call_soon(fail)
            self.reactor.until(logged)
            self.loop.call_exception_handler({"message": "a task was never done"})
        first, second = [each["log_failure"] for each in logged()]
        self.assertIsInstance(first.value, LookupError)
        self.assertIn("fail", first.getTraceback())
        self.assertEqual(second.getErrorMessage(), "a task was never done")
        self.assertEqual(written.getvalue(), "")
        self.assertEqual(len(self.flushLoggedErrors(LookupError, RuntimeError)), 2)

    def test_once_closed_it_turns_no_more(self) -> None:
        """And leaves nothing in the reactor; to close it again does nothing."""
        called: list[int] = []
        closes: Callable[[], None] = self.loop.close
        self.loop.call_soon(called.append, 1)
        closes()
        closes()
        self.reactor.turn()
        self.assertEqual((called, self.turns, self.reactor.getDelayedCalls()), ([], 0, []))
        self.assertNotIn(self.loop._watched, self.reactor.getReaders())
