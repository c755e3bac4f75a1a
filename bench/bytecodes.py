"""Counts the bytecodes that one message costs the relay, in one process without sockets.

Other load on the machine does not change this number, so two versions can be compared on a busy machine. It counts the
Python code of the relay and its libraries, from the bytes of a read to the bytes for the sockets, but no C code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import geometric_mean
from types import FrameType
from typing import Any

from bench.in_process import OPEN, POLICY, World
from bench.paths import ROOT
from clasp_relay.wire.values import encode_value

WARM_UP, ROUNDS = 5, 5
"""Number of uncounted and of counted repetitions of each work."""

TEXT_BYTES = 240
"""Size of a chat message's text; with its other fields the message has 300 bytes."""

SHORT_BYTES = 10
"""A lower bound of the length of an answer or a delivery."""

_BENCH = str(Path(__file__).parent)


def _bytecodes_of(call: Callable[[], None]) -> int:
    """Returns how many bytecodes a call takes, without those of the benchmark itself."""
    count = 0

    def step(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        count += event == "opcode"
        return step

    def enter(frame: FrameType, _event: str, _arg: object) -> Any:
        if frame.f_code.co_filename.startswith(_BENCH):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


def _cost(world: World, messages: int, least_bytes: int) -> float:
    """Returns the bytecodes for each message.

    Args:
        world: the relay, and clients with messages to send.
        messages: the number of these messages.
        least_bytes: the relay has to send more bytes than this for them.
    """
    said = [(member, member.said) for member in world.members]
    counts: list[int] = []
    for _ in range(WARM_UP + ROUNDS):
        for member, data in said:
            member.said = data
        before = world.writer.counters.sent_bytes
        counts.append(_bytecodes_of(world.read))
        assert world.writer.counters.sent_bytes - before > least_bytes, "not everything was sent"
    return sum(counts[WARM_UP:]) / ROUNDS / messages


def _ingest(mode: str, clients: int, window: int) -> float:
    world = World(mode)
    for member in [world.join(0) for _ in range(clients)]:
        for _ in range(window):
            member.set_number(world.param(member), 1.5, confirm=True)
    return _cost(world, clients * window, clients * window * SHORT_BYTES)


def _rooms(mode: str, rooms: int, members: int) -> float:
    world = World(mode)
    numbers = [number for number in range(rooms) for _ in range(members)]
    joined = [(number, world.join(number)) for number in numbers]
    for number, member in joined:
        member.subscribe(world.event(number))
    world.read()
    for number, member in joined:
        value = encode_value({"id": "0" * 24, "userId": member.user, "text": "x" * TEXT_BYTES})
        member.publish(world.event(number), value, confirm=True)
    return _cost(world, rooms * members, rooms * members * (members - 1) * TEXT_BYTES)


def _fan_out(mode: str, subscribers: int, window: int) -> float:
    world = World(mode)
    publisher = world.join(0)
    for _ in range(subscribers):
        world.join(0).subscribe(world.param(publisher))
    world.read()
    for _ in range(window):
        publisher.set_number(world.param(publisher), 1.5, confirm=True)
    return _cost(world, window, window * subscribers * SHORT_BYTES)


_WORKS: Mapping[str, Callable[[str], float]] = {
    "1 client, window 200": lambda mode: _ingest(mode, 1, 200),
    "50 clients, window 1": lambda mode: _ingest(mode, 50, 1),
    "4 rooms × 20 members, 300 B PUBLISH": lambda mode: _rooms(mode, 4, 20),
    "1 → 100, 8 B value, window 10": lambda mode: _fan_out(mode, 100, 10),
}


def _counted(checkout: Path) -> tuple[dict[str, float], str]:
    """Counts with a checkout's own Python, or this one if it has none; a fixed hash seed keeps the order of sets.

    Returns:
        the bytecodes by work and mode, and Python's version.
    """
    own = checkout / ".venv" / "bin" / "python"
    command = [str(own) if own.exists() else sys.executable, "-P", "-m", "bench.bytecodes", "--count"]
    path = os.pathsep.join((str(checkout / "src"), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    counts, version = json.loads(done.stdout)
    return counts, version


def _table(now: Mapping[str, float], before: Mapping[str, float]) -> Iterator[str]:
    """Yields the lines of the table; without ``before`` it has no column for the other checkout."""
    yield "| work | mode | now | before | now ÷ before |" if before else "| work | mode | now |"
    yield "|---|---|---|---|---|" if before else "|---|---|---|"
    for name, count in now.items():
        old = f" {before[name]:,.0f} | {count / before[name]:.2f} |" if before else ""
        yield f"| {name} | {count:,.0f} |{old}"
    if before:
        yield ""
        yield f"geometric mean: {geometric_mean(count / before[name] for name, count in now.items()):.2f}"


def main() -> None:
    """Counts, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.bytecodes", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the relay of another checkout, side by side")
    parser.add_argument("--count", action="store_true", help="print the figures of this Python's relay as JSON")
    options = parser.parse_args()
    if options.count:
        counts = {f"{name} | {mode}": work(mode) for name, work in _WORKS.items() for mode in (OPEN, POLICY)}
        print(json.dumps([counts, platform.python_version()]))
        return
    now, version = _counted(ROOT)
    before: dict[str, float] = {}
    if options.against is not None:
        before, other_version = _counted(options.against.resolve())
        if other_version != version:
            parser.error(f"Python {version} and {other_version} have different bytecodes")
    print("\n".join(_table(now, before)))


if __name__ == "__main__":
    main()
