"""Measures how long writing a snapshot blocks the event loop.

A loop makes a turn every millisecond with a number of system calls, like a relay that fans out, while a snapshot is
written. Prints how late the turns begin and how long they take, before and during that.

Run: ``python -m bench.snapshot_pause [--params 100000] [--sends 100] [--folder DIR]``
"""

from __future__ import annotations

import argparse
import socket
import struct
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from clasp_relay.core.records import Param, StateImage
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_saver import StateSaver
from clasp_relay.wire.values import encode_value

reactor: Any = _reactor
TURN_S = 0.001
WRITER = "0d1f6f54-6a43-4d4e-a2fb-6a8ba7b2d1a9"


def make_state(params: int) -> StateImage:
    """Creates a state of numbers, texts and chat maps, a third each."""

    def value(number: int) -> bytes:
        if number % 3 == 0:
            return b"\x07" + struct.pack(">d", number / 7)
        if number % 3 == 1:
            return encode_value(f"the text number {number}, of a usual length")
        return encode_value(
            {"id": f"room-{number}", "name": "a room", "members": 12, "public": True, "tags": ["a", "b"]}
        )

    return StateImage(
        [
            Param(f"/bench/group{n % 97}/param{n}", value(n), n + 1, WRITER, 1_700_000_000_000_000 + n)
            for n in range(params)
        ],
        [],
        {},
    )


class Ticker:
    """Runs a turn every millisecond, makes system calls, and records each turn's delay and duration.

    Args:
        sends: how many system calls a turn makes.
    """

    def __init__(self, sends: int) -> None:
        self.sends = sends
        self.late_s: list[float] = []
        self.turn_s: list[float] = []
        self._from, self._to = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._due_s = time.perf_counter()

    def tick(self) -> None:
        """Makes one turn."""
        started_s = time.perf_counter()
        self.late_s.append(max(0.0, started_s - self._due_s))
        for _ in range(self.sends // 2):
            self._from.send(b"x" * 100)
            self._to.recv(200)
        ended_s = time.perf_counter()
        self.turn_s.append(ended_s - started_s)
        self._due_s = ended_s + TURN_S
        reactor.callLater(TURN_S, self.tick)

    def report(self, what: str) -> None:
        """Prints and resets the recorded figures."""
        for name, values in (("late", self.late_s), ("turn", self.turn_s)):
            values.sort()
            print(
                f"{what:9} {name}: {len(values):6} turns, median {values[len(values) // 2] * 1000:6.2f} ms, "
                f"99 % {values[int(len(values) * 0.99)] * 1000:6.2f} ms, longest {values[-1] * 1000:6.2f} ms"
            )
            values.clear()


@inlineCallbacks
def measure(params: int, sends: int, folder: Path) -> Generator[Deferred[Any], Any, None]:
    """Measures once."""
    state = make_state(params)
    state_file = StateFile(folder / "state.json")
    state_file.load()
    changes = iter(range(10))
    captures_s: list[float] = []

    def capture() -> StateImage:
        started_s = time.perf_counter()
        image = StateImage(list(state.params), [], {})
        captures_s.append(time.perf_counter() - started_s)
        return image

    writer = StateSaver(state_file, capture, lambda: next(changes), deferToThread, Logger())
    ticker = Ticker(sends)
    ticker.tick()
    yield deferLater(reactor, 2.0)
    ticker.report("idle")
    for _ in range(2):
        yield writer.save_if_changed()
        ticker.report("snapshot")
        print(
            f"          {writer.last_params} params, {writer.last_size_bytes} bytes in {writer.last_duration_s:.2f} s, "
            f"captured in {captures_s[-1] * 1000:.2f} ms"
        )
    started_s = time.perf_counter()
    StateFile(state_file.path).load()
    print(f"          loaded in {time.perf_counter() - started_s:.2f} s")


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", type=int, default=100_000)
    parser.add_argument("--sends", type=int, default=100, help="system calls in each turn")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        done = measure(options.params, options.sends, options.folder or Path(temporary))
        done.addErrback(lambda failure: failure.printTraceback())
        done.addBoth(lambda _: reactor.stop())
        reactor.run()


if __name__ == "__main__":
    main()
