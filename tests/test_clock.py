"""Time for the core: it never goes back, whatever the machine's clock does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.clock import ReactorClock, steady_timers
from clasp_relay.core.ports import Timer
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import Bundle, Message, Ping, Pong, Publish, Set, Subscribe
from tests.core.world import START_US, World, WorldClock, heard, value

YEAR_S = 365 * 86_400.0


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

    def test_what_was_called_is_kept_by_nothing(self) -> None:
        """The garbage collector would not find it: it does not look at what has waited for long."""
        calls: list[str] = []
        gc.disable()
        self.addCleanup(gc.enable)

        def call() -> None:
            calls.append("made")

        there = weakref.ref(call)
        self.clock.call_later(60, call)
        self.clock.call_later(60, call).cancel()
        del call
        self.assertIsNotNone(there())
        self.pass_s(60)
        self.reactor.advance(60)
        self.assertEqual(calls, ["made"])
        self.assertIsNone(there())

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


class MachineClock(WorldClock):
    """A relay's clock on a machine whose wall clock is set by the test, by ``ahead_s``."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0
        self.real = ReactorClock(self.clock, self.wall_s, self.clock.seconds)

    def wall_s(self) -> float:
        """Returns the machine's Unix time."""
        return START_US / 1e6 + self.clock.seconds() + self.ahead_s

    def now_us(self) -> int:
        """Returns the relay's Unix time in µs."""
        return self.real.now_us()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """See ``ReactorClock``."""
        return self.real.call_later(delay_s, call)


class RelayTests(SynchronousTestCase):
    """A relay goes on whatever its machine's clock does."""

    def setUp(self) -> None:
        """A writer and a reader, much that ends in a minute, and many bundles that are due in ten."""
        self.clock = MachineClock()
        self.world = World(clock=self.clock)
        self.writer, self.reader = self.world.join(), self.world.join()
        self.reader.send(Subscribe(1, "/**"))
        for number in range(1_000):
            self.writer.send(Set(f"/short/{number}", value(number), ttl=60 | TTL_ABSOLUTE))
        due_us = self.clock.now_us() + 600_000_000
        for number in range(500):
            self.writer.send(Bundle((Set("/last", value(number)), Publish("/e", value=value(number))), due_us + number))
        self.world.settle()
        self.reader.hear()

    def jump(self, seconds: float) -> None:
        """Sets the machine's clock; a second later, in which no turn passes, that can be noticed."""
        self.clock.ahead_s += seconds
        self.clock.clock.rightNow += 1
        self.world.relay.sweep()

    def work_off(self) -> tuple[list[Message], int]:
        """Lets all turns pass; returns what the reader heard, and how much of it in one turn at most."""
        messages = self.reader.hear()
        most = len(messages)
        due = self.clock.clock
        while any(call.getTime() <= due.seconds() for call in due.getDelayedCalls()):
            self.world.one_turn()
            some = self.reader.hear()
            messages, most = messages + some, max(most, len(some))
        return messages, most

    def check_goes_on(self, pace: float) -> None:
        """Writes, life times, bundles and answers are as ever; so much relay time passes in a second."""
        self.assertEqual(self.writer.ask(Ping()), [Pong()])
        self.writer.send(Set("/new", value(1), ttl=60))
        self.writer.send(Bundle((Publish("/soon"),), self.clock.now_us() + 5_000_000))
        self.world.advance(5 / pace - 0.5)
        self.assertEqual(heard(self.reader.hear()), [("/new", 1)])
        turns = self.world.relay.work.turns
        self.world.advance(1)
        self.assertEqual(heard(self.reader.hear()), [("/soon", None)])
        self.assertLess(self.world.relay.work.turns - turns, 60)
        self.world.advance(50 / pace)
        self.assertIsNotNone(self.world.relay.params.get("/new"))
        self.world.advance(10 / pace)
        self.assertIsNone(self.world.relay.params.get("/new"))
        self.reader.hear()

    def test_year_forward_brings_all_that_waits_in_pieces(self) -> None:
        """In its order, a bounded part in each turn; then everything is as before."""
        self.jump(YEAR_S)
        messages, most = self.work_off()
        told = heard(messages)
        self.assertEqual([obj for address, obj in told if address == "/last"], list(range(500)))
        self.assertEqual([obj for address, obj in told if address == "/e"], list(range(500)))
        self.assertEqual(len([address for address, _ in told if address.startswith("/short/")]), 1_000)
        self.assertLess(most, 250)
        self.assertEqual(len(self.world.relay.schedule), 0)
        self.check_goes_on(1)

    def test_year_back_slows_time_and_holds_nothing_up(self) -> None:
        """What waits comes at half the pace; nothing begins anew, ends at once, or is asked again and again."""
        self.jump(-YEAR_S)
        self.assertEqual(self.work_off(), ([], 0))
        self.check_goes_on(0.5)
        self.assertEqual(len(self.world.relay.params), 0)
        self.assertEqual(len(self.world.relay.schedule), 500)
        self.world.advance(2 * 600)
        told = heard(self.reader.hear())
        self.assertEqual([obj for address, obj in told if address == "/last"], list(range(500)))

    def test_year_back_and_forward_again_is_as_if_nothing_had_been(self) -> None:
        """Time goes on at its pace once the machine has caught up."""
        self.jump(-YEAR_S)
        self.world.advance(20)
        self.jump(YEAR_S)
        self.assertEqual(self.work_off(), ([], 0))
        self.check_goes_on(1)
        self.assertEqual(len(self.world.relay.params), 0)

    def test_bundle_by_a_clock_that_was_not_set_back_happens_at_once(self) -> None:
        """For the relay its time is over, or more than an hour ahead, which is refused."""
        self.jump(-YEAR_S)
        self.writer.send(Bundle((Publish("/past"),), round(self.clock.wall_s() * 1e6)))
        self.assertEqual(heard(self.reader.hear()), [("/past", None)])
