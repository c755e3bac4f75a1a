"""A program that embeds the relay, can move its clock, and watches its event loop.

``python -m tests.integration.watched_relay --host H --port P …``: the relay's own options. Each line on its stdin is a
command: ``clock SECONDS`` moves the machine's clock, as this process sees it, forwards or back; ``turns`` prints how
long the longest turn of the event loop was since the last time, and on which threads passwords were hashed, as JSON
behind the word «turns». After ``sample`` that JSON also says what the longest turns were doing, and how long the event
loop's thread has waited for a processor so far, every 10 ms. ``freeze`` has no later garbage collection look at what
there is; ``cycles`` prints what is garbage of all objects, by type, behind the word
«cycles».
``WATCHED_AHEAD_S`` in the environment moves the clock before the start.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from types import FrameType, FunctionType
from typing import Any

_unmoved = time.time
_moved_s = float(os.environ.get("WATCHED_AHEAD_S", "0"))


def _wall_s() -> float:
    return _unmoved() + _moved_s


time.time = _wall_s
# Everything that keeps the time from here on keeps the moved one, Twisted's timers included.

from clasp_relay.net.reactor import install  # noqa: E402

install()

import argon2  # noqa: E402
from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.stdio import StandardIO  # noqa: E402
from twisted.logger import globalLogBeginner, textFileLogObserver  # noqa: E402
from twisted.protocols.basic import LineOnlyReceiver  # noqa: E402

from clasp_relay.clock import steady_timers  # noqa: E402
from clasp_relay.command_line.options import Options  # noqa: E402
from clasp_relay.event_loop import keep_collections_short  # noqa: E402
from clasp_relay.service import make_service  # noqa: E402

reactor: Any = _reactor

SAMPLE_S = 0.001
"""CPU time between two samples."""

TOLD = 4
"""Of how many turns it is told what they were doing, the longest first."""

NOTED_S = 0.01
"""Between two notes of how long the thread has waited for a processor."""

LONG_S = 0.005
"""CPU time of a turn behind which it is measured how slow the machine is at the moment."""


class Pace:
    """How many times as long the same work takes as at the best moment so far.

    On a machine that others use, too, caches are cold and cores are shared, so that CPU time is no measure by itself.
    """

    def __init__(self) -> None:
        self._table = {f"/some/address/{number}": (number, str(number)) for number in range(20_000)}
        self._keys = list(self._table)[::7]
        self._least_s = 1.0
        for _ in range(20):
            self.measure()

    def measure(self) -> float:
        """Does the same work again: it looks up and makes objects, as the relay does."""
        began_s = time.thread_time()
        _ = [self._table[key][1] + "/" for key in self._keys]
        took_s = time.thread_time() - began_s
        self._least_s = min(self._least_s, took_s)
        return took_s / self._least_s


class Samples:
    """What the turn that is under way was seen doing; nothing until ``begin``."""

    def __init__(self) -> None:
        self._stacks: list[list[str]] = []
        self.are_taken = False
        self._collected_s = 0.0
        self._collecting_s = 0.0

    def begin(self) -> None:
        """Looks at the event loop's thread from now on, whenever the process has worked for ``SAMPLE_S``."""
        self.are_taken = True
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
        gc.callbacks.append(self._collect)

    def clear(self) -> None:
        """Begins a turn."""
        self._stacks.clear()
        self._collected_s = 0.0

    def tell(self) -> list[str]:
        """Returns what was seen since the turn began: how often, and the relay's functions, the innermost last."""
        parts = Counter(" > ".join(each.partition(":")[0] for each in stack[:2]) for stack in self._stacks)
        told = [", ".join(f"{count} x {part}" for part, count in parts.most_common(8))] if parts else []
        seen = Counter(" > ".join(stack) for stack in self._stacks)
        told += [f"{count} x {stack}" for stack, count in seen.most_common(8)]
        return [f"{self._collected_s * 1e3:.1f} ms of garbage collections", *told] if self._collected_s else told

    def _collect(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_s = time.thread_time()
        else:
            self._collected_s += time.thread_time() - self._collecting_s

    def _look(self, _number: int, frame: FrameType | None) -> None:
        stack: list[str] = []
        while frame is not None:
            code = frame.f_code
            if "/clasp_relay/" in code.co_filename or not stack:
                stack.append(f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        self._stacks.append(stack[::-1])


class Turns:
    """Measures the time between two waits of the event loop: one turn."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self.samples = Samples()
        self.longest: list[tuple[float, float, list[str]]] = []
        """The longest turns: CPU time in s, how many times that is what it was at the best moment (``Pace``), and what
        they were doing, where that was looked at."""
        self.waits: list[tuple[float, float]] = []
        """Unix time in s, and for how many ms in all the thread had work and no processor; where samples are taken."""
        self._schedule = os.open("/proc/self/schedstat", os.O_RDONLY)
        self._pace = Pace()
        self._began_s = self._began_cpu_s = 0.0
        self.longest_s = self.longest_cpu_s = 0.0
        self.count = 0

    def poll(self, *arguments: Any) -> Any:
        """Ends a turn, waits, and begins the next one."""
        if self.samples.are_taken:
            self._note_wait()
        if self._began_s:
            self.longest_s = max(self.longest_s, time.perf_counter() - self._began_s)
            cpu_s = time.thread_time() - self._began_cpu_s
            self.longest_cpu_s = max(self.longest_cpu_s, cpu_s)
            if len(self.longest) < TOLD or cpu_s > self.longest[-1][0]:
                pace = self._pace.measure() if cpu_s > LONG_S else 1.0
                self.longest.append((cpu_s, pace, self.samples.tell()))
                self.longest.sort(reverse=True)
                del self.longest[TOLD:]
            self.count += 1
        ready = self._poller.poll(*arguments)
        if self.samples.are_taken:
            self._note_wait()
        self.samples.clear()
        self._began_s, self._began_cpu_s = time.perf_counter(), time.thread_time()
        return ready

    def _note_wait(self) -> None:
        now_s = _unmoved()
        # A pipe takes so much of a line: ten seconds of them are told at once.
        if not self.waits or now_s - self.waits[-1][0] >= NOTED_S:
            waited_ms = int(os.pread(self._schedule, 100, 0).split()[1]) / 1e6
            self.waits.append((round(now_s, 4), round(waited_ms, 1)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class Hashing:
    """Notes on which threads passwords are hashed, and how many at once."""

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.running = self.most = self.count = 0
        self._lock = threading.Lock()
        for name in ("hash", "verify"):
            setattr(argon2.PasswordHasher, name, self._watched(getattr(argon2.PasswordHasher, name)))

    def _watched(self, original: Any) -> Any:
        def watched(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.threads.add(threading.current_thread().name)
                self.count += 1
                self.running += 1
                self.most = max(self.most, self.running)
            try:
                return original(*arguments, **options)
            finally:
                with self._lock:
                    self.running -= 1

        return watched


class Commands(LineOnlyReceiver):
    """Does what each line says."""

    delimiter = b"\n"

    def __init__(self, turns: Turns, hashing: Hashing) -> None:
        self._turns = turns
        self._hashing = hashing

    def lineReceived(self, line: bytes) -> None:
        """Does one command."""
        global _moved_s  # noqa: PLW0603  there is one clock
        command, _, rest = line.decode().partition(" ")
        if command == "clock":
            _moved_s += float(rest)
            print("moved", flush=True)
        elif command == "sample":
            self._turns.samples.begin()
        elif command == "freeze":
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            print("frozen", flush=True)
        elif command == "cycles":
            print("cycles", json.dumps(_cycles()), flush=True)
        else:
            turns, hashing = self._turns, self._hashing
            report = {
                "longest_ms": turns.longest_s * 1e3,
                "longest_cpu_ms": turns.longest_cpu_s * 1e3,
                "longest": [(cpu_s * 1e3, pace, doing) for cpu_s, pace, doing in turns.longest],
                "turns": turns.count,
                "waits": turns.waits,
                "hashes": hashing.count,
                "most_hashes_at_once": hashing.most,
                "threads": sorted(hashing.threads),
                "loop_thread": threading.current_thread().name,
            }
            print("turns", json.dumps(report), flush=True)
            turns.longest_s = turns.longest_cpu_s = 0.0
            turns.count = 0
            turns.longest = []
            turns.waits = []
            hashing.count = hashing.most = 0
            hashing.threads.clear()


def _cycles() -> Counter[str]:
    """Returns the types of all objects that only hold each other, of functions their names, and removes these."""
    gc.unfreeze()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = (each if isinstance(each, FunctionType) else type(each) for each in gc.garbage)
    names = Counter(f"{each.__module__}.{each.__qualname__}" for each in found)
    gc.garbage.clear()
    gc.unfreeze()  # the collection above has frozen it (``event_loop.Collections``)
    gc.collect()
    return names


def main() -> None:
    """Runs until it is stopped."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    options = Options({})
    options.parseOptions(sys.argv[1:])
    steady_timers(reactor)
    turns, hashing = Turns(reactor._poller), Hashing()
    reactor._poller = turns
    service = make_service(options.settings, reactor)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(service.hand_over))
    StandardIO(Commands(turns, hashing))
    keep_collections_short(reactor)
    reactor.run()
    # Python puts the signal's default action back before it ends, which kills.
    signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main()
