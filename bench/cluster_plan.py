"""Plans a cluster beyond this machine: how many sessions some relays hold, and what saturates first.

The costs are measured (``python -m bench.cluster --costs FILE``); the plan is arithmetic. Every relay has one core for
its event loop and all of its threads, every nats-server has cores of its own, and sessions are spread evenly. All load
is proportional to the number of sessions, so each resource allows a maximum of them, and the scarcest one limits the
plan. The arithmetic leaves out the network between the machines, and that a queue grows long before a core is full
(hence ``--headroom``).

Run: ``python -m bench.cluster_plan FILE [--relays 1,2,8,32] [--headroom 0.7] [--memory-gb 4]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

US_PER_S = 1e6


@dataclass(frozen=True)
class Costs:
    """The measured costs, in µs of CPU time unless another unit is given.

    Args:
        single_us: a write of an own client at a relay without a cluster, with its journal.
        decide_us: a write of an own client at the decider.
        decide_forwarded_us: a write that a follower has forwarded, at the decider.
        forward_us: a write of an own client at a follower, up to the answer, without following.
        follow_us: a record at a follower.
        deliver_us: a message to one subscriber, at the relay that it is connected to.
        engine_us: a record at the nats-server that leads the stream, with one relay.
        engine_copy_us: a record at that nats-server for each further relay.
        session_bytes: memory of a session.
        relay_bytes: memory of a relay without sessions.
    """

    single_us: float
    decide_us: float
    decide_forwarded_us: float
    forward_us: float
    follow_us: float
    deliver_us: float
    engine_us: float
    engine_copy_us: float
    session_bytes: float
    relay_bytes: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Costs:
        """Returns the costs in a JSON object; other keys are ignored.

        Raises:
            ValueError: a cost is missing, or is not a number of 0 or more.
        """
        found: dict[str, float] = {}
        for each in fields(cls):
            value = data.get(each.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise ValueError(f"{each.name} must be a number, 0 or more: {value!r}; measure with bench.cluster")
            found[each.name] = float(value)
        return cls(**found)


@dataclass(frozen=True)
class Work:
    """The load of the sessions.

    Args:
        name: the name of the work.
        writes_per_s: writes per second of one session.
        room: how many sessions receive each write.
    """

    name: str
    writes_per_s: float
    room: int


WORKS = (
    Work("chat: rooms of 25, a write every 10 s", 0.1, 25),
    Work("chat: rooms of 200, a write every 30 s", 1 / 30, 200),
    Work("desk: 10 sessions share 30 writes/s each", 30.0, 10),
    Work("audience: 1,000 hear 20 writes/s of one", 0.02, 1_000),
)


@dataclass(frozen=True)
class Machine:
    """The resources of a relay.

    Args:
        headroom: the share of its core that may be busy.
        memory_bytes: its memory.
        engine_cores: the number of cores of the nats-server that leads.
    """

    headroom: float = 0.7
    memory_bytes: float = 4e9
    engine_cores: float = 1.0


@dataclass(frozen=True)
class Plan:
    """How many sessions some relays hold.

    Args:
        relays: how many, the decider included.
        sessions: the number that every resource allows.
        limits: the number of sessions that each resource allows, the scarcest first.
        work: the load of the sessions.
    """

    relays: int
    sessions: float
    limits: tuple[tuple[str, float], ...]
    work: Work

    @property
    def writes_per_s(self) -> float:
        """Writes per second of all sessions."""
        return self.sessions * self.work.writes_per_s

    @property
    def deliveries_per_s(self) -> float:
        """Deliveries per second of all relays."""
        return self.writes_per_s * self.work.room

    @property
    def rooms(self) -> float:
        """The number of rooms that the sessions fill."""
        return self.sessions / self.work.room


def cpu_us_per_session(costs: Costs, work: Work, relays: int, *, has_spare_decider: bool = False) -> dict[str, float]:
    """Returns how much CPU time each resource needs for each session of all relays together, in µs per second.

    Args:
        costs: the measured costs.
        work: the load of each session.
        relays: how many, the decider included; 1 is a relay without a cluster.
        has_spare_decider: whether the decider takes no sessions.
    """
    writes, heard = work.writes_per_s, work.writes_per_s * work.room
    if relays == 1:
        return {"relay": writes * costs.single_us + heard * costs.deliver_us}
    takers = relays - 1 if has_spare_decider else relays
    own = 0.0 if has_spare_decider else 1 / takers
    decided = own * costs.decide_us + (1 - own) * costs.decide_forwarded_us
    return {
        "decider": writes * decided + own * heard * costs.deliver_us,
        "each follower": writes * (costs.follow_us + costs.forward_us / takers) + heard * costs.deliver_us / takers,
        "nats-server": writes * (costs.engine_us + (relays - 1) * costs.engine_copy_us),
    }


def plan(costs: Costs, work: Work, relays: int, machine: Machine, *, has_spare_decider: bool = False) -> Plan:
    """Returns how many sessions some relays hold, and what limits them."""
    limits: dict[str, float] = {}
    for name, used_us in cpu_us_per_session(costs, work, relays, has_spare_decider=has_spare_decider).items():
        cores = machine.engine_cores if name == "nats-server" else 1.0
        limits[f"CPU of {name}" if relays > 1 else "CPU"] = (
            cores * machine.headroom * US_PER_S / used_us if used_us else float("inf")
        )
    takers = relays - 1 if has_spare_decider and relays > 1 else relays
    if costs.session_bytes:
        limits["memory"] = takers * max(0.0, machine.memory_bytes - costs.relay_bytes) / costs.session_bytes
    ordered = sorted(limits.items(), key=lambda limit: limit[1])
    return Plan(relays, ordered[0][1], tuple(ordered), work)


def best(costs: Costs, work: Work, relays: int, machine: Machine) -> Plan:
    """Returns the better one of two plans: the decider takes its share of the sessions, or none."""
    shared = plan(costs, work, relays, machine)
    if relays == 1:
        return shared
    spare = plan(costs, work, relays, machine, has_spare_decider=True)
    return max(shared, spare, key=lambda each: each.sessions)


def table(costs: Costs, relays: list[int], machine: Machine) -> str:
    """Returns the plans for all works, as Markdown."""
    lines = [
        "| work | relays | sessions | rooms | writes/s | deliveries/s | × one relay | limit | next limit |",
        "|---|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for work in WORKS:
        alone = plan(costs, work, 1, machine)
        for count in relays:
            found = best(costs, work, count, machine)
            (limit, _), *others = found.limits
            after = f"{others[0][0]} at {others[0][1] / found.sessions:.1f} ×" if others else ""
            numbers = " | ".join(
                f"{each:,.0f}" for each in (found.sessions, found.rooms, found.writes_per_s, found.deliveries_per_s)
            )
            ratio = f"{found.sessions / alone.sessions:.1f}"
            lines.append(f"| {work.name} | {count} | {numbers} | {ratio} | {limit} | {after} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the costs and prints the plans."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_plan", description=__doc__)
    parser.add_argument("costs", type=Path, help="JSON file of bench.cluster --costs")
    parser.add_argument("--relays", default="1,2,8,32")
    parser.add_argument("--headroom", type=float, default=0.7, help="which part of a core may be busy")
    parser.add_argument("--memory-gb", type=float, default=4.0, help="of each relay")
    parser.add_argument("--engine-cores", type=float, default=1.0, help="of the nats-server that leads")
    arguments = parser.parse_args()
    costs = Costs.from_json(json.loads(arguments.costs.read_text("utf-8")))
    machine = Machine(arguments.headroom, arguments.memory_gb * 1e9, arguments.engine_cores)
    print(table(costs, [int(each) for each in arguments.relays.split(",")], machine))


if __name__ == "__main__":
    main()
