"""Runs the relay as ``clasp-relay`` does, and on request measures its event loop.

Run: ``python -m bench.embed [--turns FILE] [--profile FILE] OPTIONS OF THE RELAY``

With ``--turns``, SIGRTMIN writes the number of turns of the loop since the last signal, and their durations, to the
file as JSON. With ``--profile``, the first SIGUSR2 starts a profile and the second one writes it to the file, for
pstats.
"""

from __future__ import annotations

import cProfile
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from clasp_relay.cli import main as run_relay
from clasp_relay.net.reactor import install


class TurnMeter:
    """Replaces the reactor's epoll object, and measures the time between two waits: one turn.

    Args:
        poller: the epoll object.
    """

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self._began_s = self._began_cpu_s = 0.0
        self.turns_s: list[float] = []
        self.longest_cpu_s = 0.0

    def poll(self, *arguments: Any) -> Any:
        """Ends a turn, waits, and begins the next one."""
        if self._began_s:
            self.turns_s.append(time.perf_counter() - self._began_s)
            self.longest_cpu_s = max(self.longest_cpu_s, time.thread_time() - self._began_cpu_s)
        ready = self._poller.poll(*arguments)
        self._began_s, self._began_cpu_s = time.perf_counter(), time.thread_time()
        return ready

    def write(self, path: Path) -> None:
        """Writes the measured turns, in ms, and resets them."""
        turns = sorted(self.turns_s)
        self.turns_s = []
        last = len(turns) - 1
        report = {
            "turns": len(turns),
            "p50_ms": turns[last // 2] * 1e3,
            "p99_ms": turns[int(last * 0.99)] * 1e3,
            "longest_ms": turns[last] * 1e3,
            "longest_cpu_ms": self.longest_cpu_s * 1e3,
        }
        self.longest_cpu_s = 0.0
        part = path.with_suffix(".part")
        part.write_text(json.dumps(report), "ascii")
        part.replace(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def watch_turns(path: Path) -> None:
    """Installs the relay's own reactor, and measures the turns of its event loop."""
    install()
    from twisted.internet import reactor as _reactor  # noqa: PLC0415  a reactor is chosen after that

    reactor: Any = _reactor
    meter = reactor._poller = TurnMeter(reactor._poller)
    signal.signal(signal.SIGRTMIN, lambda *_: reactor.callFromThread(meter.write, path))


def watch_functions(path: Path) -> None:
    """Records a profile between two signals."""
    profile = cProfile.Profile()
    is_on = False

    def toggle(*_: object) -> None:
        nonlocal is_on
        is_on = not is_on
        if is_on:
            profile.enable()
        else:
            profile.disable()
            profile.dump_stats(path)

    signal.signal(signal.SIGUSR2, toggle)


def main() -> None:
    """Removes this module's options from the command line, and runs the relay with the rest."""
    for option, watch in (("--turns", watch_turns), ("--profile", watch_functions)):
        if option in sys.argv:
            at = sys.argv.index(option)
            watch(Path(sys.argv[at + 1]))
            del sys.argv[at : at + 2]
    run_relay()


if __name__ == "__main__":
    main()
