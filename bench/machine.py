"""The machine: what it is, and which core does what."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ALLOWED = sorted(os.sched_getaffinity(0))


def cores() -> tuple[int | None, int | None]:
    """Returns the core for the server and the one for the generator; None for both where there is only one."""
    return (_ALLOWED[0], _ALLOWED[1]) if len(_ALLOWED) > 1 else (None, None)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Pins processes that are started in the block to one core; a Go program then uses one thread at a time."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> float:
    """Returns the CPU time that a process has used, user and system, in s."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Returns the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell the resident memory")


def describe() -> dict[str, str]:
    """Returns the facts about the machine that affect the figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    server, generator = cores()
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pinning": "none (one core)" if server is None else f"server on core {server}, generator on core {generator}",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
