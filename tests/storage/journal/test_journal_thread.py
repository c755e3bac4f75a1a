"""Tests of clasp_relay.storage.journal.journal_thread: calls in a thread, one after the other."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from threading import current_thread
from time import sleep
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from clasp_relay.storage.journal.journal_thread import JournalThread


class JournalThreadTests(TestCase):
    def setUp(self) -> None:
        """Starts a thread."""
        self.thread = JournalThread(reactor, "journal")

    @inlineCallbacks
    def test_calls_are_made_in_order(self) -> Generator[Deferred[Any], Any, None]:
        """In the thread, however long one takes; the results arrive in the event loop, in the same order."""
        made: list[int] = []
        arrived: list[tuple[int, str]] = []

        def call(number: int) -> str:
            sleep(0.02 * (number == 0))
            made.append(number)
            return current_thread().name

        def arrive(number: int, name: str) -> None:
            arrived.append((number, current_thread().name + name))

        results = [self.thread.run(lambda number=number: call(number)) for number in range(5)]  # type: ignore[misc]
        for number, result in enumerate(results):
            result.addCallback(partial(arrive, number))
        yield gatherResults(results)
        self.thread.stop()
        self.assertEqual(made, [0, 1, 2, 3, 4])
        self.assertEqual(arrived, [(number, "MainThreadjournal") for number in made])

    @inlineCallbacks
    def test_what_a_call_raises_ends_only_that_one(self) -> Generator[Deferred[Any], Any, None]:
        """Whoever waits for its result reads it."""
        fault = self.thread.run(lambda: 1 // 0)
        exit_ = self.thread.run(lambda: (_ for _ in ()).throw(SystemExit()))
        last = self.thread.run(lambda: "well")
        yield self.assertFailure(fault, ZeroDivisionError)
        yield self.assertFailure(exit_, SystemExit)
        self.assertEqual((yield last), "well")
        self.thread.stop()

    def test_stop_waits_for_what_is_to_be_done(self) -> None:
        """Afterwards nothing is left of the thread."""
        made: list[int] = []

        def call(number: int) -> None:
            sleep(0.01)
            made.append(number)

        for number in range(3):
            self.thread.run(partial(call, number))
        self.thread.stop()
        self.assertEqual(made, [0, 1, 2])
