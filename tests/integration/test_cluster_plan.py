"""The arithmetic of ``bench.cluster_plan``, on round numbers."""

from __future__ import annotations

from dataclasses import asdict, replace

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_plan import Costs, Machine, Work, best, cpu_us_per_session, plan, table

COSTS = Costs(
    single_us=10,
    decide_us=20,
    decide_forwarded_us=30,
    forward_us=40,
    follow_us=5,
    deliver_us=2,
    engine_us=8,
    engine_copy_us=1,
    session_bytes=10_000,
    relay_bytes=1e9,
)
ROOMY = Machine(headroom=1.0, memory_bytes=1e15)
WORK = Work("work", 1.0, 10)


class ArithmeticTests(SynchronousTestCase):
    """Costs of a session, and what follows."""

    def test_one_relay_decides_and_delivers_all(self) -> None:
        """Without a cluster nothing is forwarded."""
        self.assertEqual(cpu_us_per_session(COSTS, WORK, 1), {"relay": 10 + 10 * 2})
        self.assertEqual(plan(COSTS, WORK, 1, ROOMY).sessions, 1e6 / 30)

    def test_decider_takes_its_own_writes_and_the_forwarded_ones(self) -> None:
        """Half and half with two relays; deliveries are halved, too."""
        found = cpu_us_per_session(COSTS, WORK, 2)
        self.assertEqual(found, {"decider": 25 + 10, "each follower": 5 + 20 + 10, "nats-server": 9})

    def test_spare_decider_delivers_nothing(self) -> None:
        """All writes are forwarded then."""
        found = cpu_us_per_session(COSTS, WORK, 3, has_spare_decider=True)
        self.assertEqual(found, {"decider": 30, "each follower": 5 + 20 + 10, "nats-server": 10})

    def test_scarcest_resource_decides(self) -> None:
        """And the others are listed behind it."""
        found = plan(COSTS, WORK, 2, ROOMY)
        self.assertEqual(found.sessions, 1e6 / 35)
        self.assertEqual([name for name, _ in found.limits][-1], "memory")
        self.assertEqual((found.writes_per_s, found.deliveries_per_s), (found.sessions, found.sessions * 10))
        self.assertEqual(found.rooms * 10, found.sessions)

    def test_memory_can_be_the_limit(self) -> None:
        """What is left beside the relay itself, on every relay that takes sessions."""
        small = Machine(headroom=1.0, memory_bytes=1e9 + 1e6)
        self.assertEqual(plan(COSTS, WORK, 2, small).limits[0], ("memory", 200.0))
        self.assertEqual(plan(COSTS, WORK, 2, small, has_spare_decider=True).limits[0], ("memory", 100.0))
        self.assertEqual(plan(COSTS, WORK, 2, Machine(memory_bytes=1.0)).sessions, 0)

    def test_more_relays_help_fan_out_and_not_writes(self) -> None:
        """The decider decides every write, however many follow."""
        loud = Work("loud", 1.0, 1_000)
        ratio = plan(COSTS, loud, 8, ROOMY).sessions / plan(COSTS, loud, 1, ROOMY).sessions
        self.assertGreater(ratio, 7)
        writes = Work("writes", 1.0, 0)
        self.assertLess(best(COSTS, writes, 32, ROOMY).sessions, plan(COSTS, writes, 1, ROOMY).sessions)

    def test_better_of_two_plans_is_taken(self) -> None:
        """A decider without sessions, where its deliveries would be in the way."""
        found = best(COSTS, WORK, 8, ROOMY)
        spare = plan(COSTS, WORK, 8, ROOMY, has_spare_decider=True)
        self.assertEqual(found.sessions, max(spare.sessions, plan(COSTS, WORK, 8, ROOMY).sessions))

    def test_headroom_and_cores_scale(self) -> None:
        """Half the core, half the sessions; twice the engine's cores, twice as many."""
        half = plan(COSTS, WORK, 2, replace(ROOMY, headroom=0.5))
        self.assertEqual(half.sessions * 2, plan(COSTS, WORK, 2, ROOMY).sessions)
        wide = dict(plan(COSTS, WORK, 2, replace(ROOMY, engine_cores=2.0)).limits)
        self.assertEqual(wide["CPU of nats-server"], 2e6 / 9)

    def test_what_costs_nothing_is_no_limit(self) -> None:
        """No division by zero."""
        silent = plan(COSTS, Work("silent", 0.0, 1), 2, Machine())
        self.assertEqual(silent.limits[0][0], "memory")


class InputTests(SynchronousTestCase):
    """The JSON of a measurement, and the table."""

    def test_costs_are_read_from_json(self) -> None:
        """Other keys do not matter."""
        self.assertEqual(Costs.from_json(asdict(COSTS) | {"machine": {"python": "3.13"}}), COSTS)

    def test_missing_and_broken_costs_are_refused(self) -> None:
        """By name, with what to do."""
        for value in (None, "3", True, -1, float("nan")):
            with self.subTest(value=value):
                error = self.assertRaises(ValueError, Costs.from_json, asdict(COSTS) | {"follow_us": value})
                self.assertIn("follow_us must be a number", str(error))

    def test_table_has_a_line_for_each_number_of_relays(self) -> None:
        """And says what saturates first."""
        lines = table(COSTS, [1, 8], Machine()).splitlines()
        self.assertEqual(len(lines), 2 + 4 * 2)
        self.assertIn("| 1 | ", lines[2])
        self.assertIn("CPU of ", lines[3])
