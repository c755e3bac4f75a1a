"""Time for the core: it never goes back, whatever the machine's clock does."""

from __future__ import annotations

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.clock import ReactorClock, steady_timers


class ReactorClockTests(SynchronousTestCase):
    """Runs on a machine whose clocks are set by the test."""

    def setUp(self) -> None:
        """Makes it."""
        self.wall_s = 1_700_000_000.0
        self.monotonic_s = 50.0
        self.reactor = Clock()
        self.clock = ReactorClock(self.reactor, lambda: self.wall_s, lambda: self.monotonic_s)

    def pass_s(self, seconds: float) -> None:
        """Lets time pass on both clocks."""
        self.wall_s += seconds
        self.monotonic_s += seconds

    def test_clock_tells_the_unix_time_in_microseconds(self) -> None:
        """What the machine says, as long as that goes on."""
        self.assertEqual(self.clock.now_us(), 1_700_000_000_000_000)
        self.pass_s(1.5)
        self.assertEqual(self.clock.now_us(), 1_700_000_001_500_000)

    def test_clock_follows_a_machine_that_is_set_forward(self) -> None:
        """A jump forward is taken."""
        self.wall_s += 3_600
        self.assertEqual(self.clock.now_us(), 1_700_003_600_000_000)

    def test_clock_goes_on_at_half_its_pace_when_the_machine_is_set_back(self) -> None:
        """It neither jumps back nor stands still, until the machine has caught up."""
        self.pass_s(10)
        before_us = self.clock.now_us()
        self.wall_s -= 4
        self.assertEqual(self.clock.now_us(), before_us)
        self.pass_s(2)
        self.assertEqual(self.clock.now_us(), before_us + 1_000_000)
        self.pass_s(2)
        self.assertEqual(self.clock.now_us(), before_us + 2_000_000)
        self.pass_s(6)
        self.assertEqual(self.clock.now_us(), before_us + 6_000_000)

    def test_clock_calls_later_on_the_reactor(self) -> None:
        """In so many seconds, unless it is cancelled."""
        calls: list[str] = []
        self.clock.call_later(2, lambda: calls.append("kept"))
        self.clock.call_later(2, lambda: calls.append("cancelled")).cancel()
        self.reactor.advance(1.9)
        self.assertEqual(calls, [])
        self.reactor.advance(0.1)
        self.assertEqual(calls, ["kept"])

    def test_clock_that_is_set_forward_brings_forward_what_waits(self) -> None:
        """In order, within a second; what is still ahead goes on waiting, and a late reactor is no step."""
        calls: list[float] = []
        for delay_s in (3_600, 60, 7_200, 0.5):
            self.clock.call_later(delay_s, lambda delay_s=delay_s: calls.append(delay_s))  # type: ignore[misc]
        for _ in range(10):
            self.pass_s(1.2)
            self.reactor.advance(1)
        self.assertEqual(calls, [0.5])
        self.wall_s += 4_000
        self.reactor.pump([1, 0])
        self.assertEqual(calls, [0.5, 60, 3_600])
        self.reactor.advance(7_200)
        self.assertEqual(calls, [0.5, 60, 3_600, 7_200])
        self.reactor.advance(1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_clock_that_was_stopped_calls_nothing(self) -> None:
        """What waits, short or long, and what is asked for later; cancelling it is still allowed."""
        calls: list[str] = []
        timers = [self.clock.call_later(delay_s, lambda: calls.append("waited")) for delay_s in (0.5, 60)]
        self.clock.stop()
        timers.append(self.clock.call_later(60, lambda: calls.append("late")))
        timers[1].cancel()
        self.reactor.pump([0.5, 60, 60])
        self.assertEqual((calls, self.reactor.getDelayedCalls()), ([], []))


class Machine(ReactorBase):
    """A reactor whose two clocks are set by the test."""

    wall_s = 1_700_000_000.0
    monotonic_s = 50.0

    def installWaker(self) -> None:  # noqa: N802  Twisted's
        """There is no other thread."""

    def seconds(self) -> float:
        """Keeps the wall's time, as Twisted does."""
        return self.wall_s


class SteadyTimersTests(SynchronousTestCase):
    """Timers wait for as long as they were told to."""

    def test_timers_do_not_heed_a_clock_that_is_set(self) -> None:
        """Neither one that waited before nor a new one is late when it is set back, or early when it goes forward."""
        for jump_s in (-86_400.0, 86_400.0):
            with self.subTest(jump_s=jump_s):
                machine = Machine()
                due: list[str] = []
                machine.callLater(10, due.append, "from before")
                steady_timers(machine, lambda machine=machine: machine.monotonic_s)  # type: ignore[misc]
                machine.callLater(10, due.append, "new")
                machine.wall_s += jump_s
                machine.runUntilCurrent()
                self.assertEqual(due, [])
                machine.monotonic_s += 10.1
                machine.runUntilCurrent()
                self.assertEqual(due, ["from before", "new"])
