"""Ports that tests give to the processes that they start."""

from __future__ import annotations

import contextlib
import random
import socket

_given: set[int] = set()


def free_port() -> int:
    """Returns a port that nobody uses, neither for TCP nor for UDP, and that this process has not been given before.

    Below those that the system gives to outgoing connections and to listeners on port 0, which would take it before
    it is used.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        if port in _given:
            continue
        with (
            contextlib.suppress(OSError),
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as packets,
        ):
            stream.bind(("", port))
            packets.bind(("", port))
            _given.add(port)
            return port
