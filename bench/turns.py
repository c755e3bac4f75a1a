"""Reads the durations of a relay's turns of the event loop, as ``bench.embed --turns`` measures them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from bench.server import Server, ServerError

OPTIONS = ("--turns", "{folder}/turns")
"""The options that the relay has to be run with."""


def since_last_time(server: Server) -> dict[str, float]:
    """Returns the relay's figures since the last call, in ms."""
    path = Path(server.folder, "turns")
    path.unlink(missing_ok=True)
    server.signal(signal.SIGRTMIN)
    end = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > end:
            raise ServerError(f"{server.name}: the event loop does not turn")
        time.sleep(0.02)
    report: dict[str, float] = json.loads(path.read_text("ascii"))
    return report
