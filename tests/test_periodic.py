"""The service that makes one call again and again."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.periodic import PeriodicService


class PeriodicServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a clock."""
        self.clock = Clock()
        self.calls: list[float] = []

    def start(self, call: Callable[[], Deferred[object] | None], *, run_on_stop: bool = False) -> PeriodicService:
        """Starts a service that makes the call every 10 s, and counts its turns."""

        def count_and_call() -> Deferred[object] | None:
            self.calls.append(self.clock.seconds())
            return call()

        service = PeriodicService(10, self.clock, count_and_call, "job", run_on_stop=run_on_stop)
        service.startService()
        return service

    def test_service_calls_at_every_interval(self) -> None:
        """The first call comes one interval after the start, then one each interval."""
        self.start(lambda: None)
        self.assertEqual(self.calls, [])
        self.clock.pump([9, 1, 10, 10])
        self.assertEqual(self.calls, [10, 20, 30])

    def test_service_calls_at_the_start_where_the_job_asks_for_it(self) -> None:
        """Then at every interval, as usual."""
        service = PeriodicService(
            10, self.clock, lambda: self.calls.append(self.clock.seconds()), "job", run_at_start=True
        )
        service.startService()
        self.clock.pump([10, 10])
        self.assertEqual(self.calls, [0, 10, 20])

    def test_service_goes_on_after_a_call_raises(self) -> None:
        """An exception is logged and the next call is made."""
        self.start(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        self.clock.pump([10, 10])
        self.assertEqual(self.calls, [10, 20])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_service_goes_on_after_a_deferred_fails(self) -> None:
        """A Deferred that fails is logged and the next call is made."""

        def call() -> Deferred[object]:
            failed: Deferred[object] = Deferred()
            failed.errback(ValueError("no"))
            return failed

        self.start(call)
        self.clock.pump([10, 10])
        self.assertEqual(self.calls, [10, 20])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_service_names_the_job_when_it_fails(self) -> None:
        """The log line says which job it was."""
        service = PeriodicService(10, self.clock, lambda: 1 // 0, "sweeping")  # type: ignore[arg-type, return-value]
        service.startService()
        with capturedLogs() as events:
            self.clock.advance(10)
        self.assertEqual([event["job"] for event in events], ["sweeping"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(service.name, "sweeping")

    def test_service_skips_turns_while_a_call_waits(self) -> None:
        """A call that takes longer than the interval is not overlapped."""
        waiting: Deferred[object] = Deferred()
        self.start(lambda: waiting)
        self.clock.pump([10, 10, 10, 5])
        self.assertEqual(self.calls, [10])
        waiting.callback(None)
        self.clock.advance(5)
        self.assertEqual(self.calls, [10, 40])

    def test_service_stops(self) -> None:
        """A stopped service makes no more calls, and leaves nothing to the clock."""
        service = self.start(lambda: None)
        self.clock.advance(10)
        self.successResultOf(service.stopService())
        self.clock.advance(100)
        self.assertEqual(self.calls, [10])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_service_waits_for_the_running_call_when_it_is_stopped(self) -> None:
        """The Deferred of the stop fires after the call that is being made."""
        waiting: Deferred[object] = Deferred()
        service = self.start(lambda: waiting)
        self.clock.advance(10)
        stopped = service.stopService()
        self.assertNoResult(stopped)
        waiting.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.calls, [10])

    def test_service_calls_once_more_when_it_is_stopped(self) -> None:
        """With run_on_stop the last call is made after the one that runs, and waited for."""
        waiting: list[Deferred[object]] = [Deferred(), Deferred()]
        service = self.start(lambda: waiting[len(self.calls) - 1], run_on_stop=True)
        self.clock.advance(10)
        stopped = service.stopService()
        self.assertEqual(len(self.calls), 1)
        waiting[0].callback(None)
        self.assertEqual(len(self.calls), 2)
        self.assertNoResult(stopped)
        waiting[1].callback(None)
        self.successResultOf(stopped)

    def test_service_stops_although_the_last_call_fails(self) -> None:
        """A failure of the last call is logged and does not hold up the stop."""
        service = self.start(lambda: 1 // 0, run_on_stop=True)  # type: ignore[arg-type, return-value]
        self.successResultOf(service.stopService())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_service_that_never_started_stops(self) -> None:
        """Stopping a service that was not started does nothing."""
        service = PeriodicService(10, self.clock, lambda: None, "job", run_on_stop=True)
        self.successResultOf(service.stopService())
        self.assertEqual(self.calls, [])

    def test_service_starts_again(self) -> None:
        """A stopped service can be started again."""
        service = self.start(lambda: None)
        self.successResultOf(service.stopService())
        service.startService()
        self.clock.advance(10)
        self.assertEqual(self.calls, [10])
