"""A relay as a process with its doors open."""

from __future__ import annotations

import re
import socket

from tests.integration.process import PATIENCE_S, RelayProcess, wait_until


def door_port(relay: RelayProcess, name: str) -> int:
    """Returns the port of a door, from the relay's log.

    Args:
        relay: the process.
        name: what the log calls the door.
    """
    pattern = re.compile(re.escape(name) + r" listens on 127\.0\.0\.1:(\d+)")
    wait_until(lambda: pattern.search(relay.log), f"{name} listens")
    found = pattern.search(relay.log)
    assert found is not None
    return int(found[1])


def receive_exactly(peer: socket.socket, size: int) -> bytes:
    """Returns so many bytes."""
    peer.settimeout(PATIENCE_S)
    data = b""
    while len(data) < size:
        piece = peer.recv(size - len(data))
        if not piece:
            raise AssertionError(f"the connection ended after {data!r}")
        data += piece
    return data
